"""Which kernels a call runs: ``multistep plan``."""

from __future__ import annotations

from typing import NamedTuple, Optional

from . import _core
from ._memory import sizes_of_call
from ._problem import Sizes, filled
from .schedule import Schedule


class StagePlan(NamedTuple):
    """The kernels of search, attend, combine, or of the backward pass."""

    stage: str
    kernels: list[str]
    """In the order of their launches."""
    fast: bool
    why: str
    """No faster kernel takes the call, in one line; empty where it is fast."""


class Plan(NamedTuple):
    """The kernels that a call of ``attention`` runs on CUDA tensors, and what they have to do where
    scores are drawn at random."""

    stages: list[StagePlan]
    """Without search where N = 1. Decoding attends and combines in one launch."""
    backward: StagePlan
    """The kernels of the backward pass that go over the keys of every item."""
    queries_at_once: int
    """Of a chunk of a long prefill."""
    anchors_scored: float
    """By the mean row."""
    keys_attended: float
    """By the mean row."""
    products: float
    """Multiplications of two values, and additions, of all rows."""
    bytes: float
    """The keys and values that rows choose, or the whole cache where that is less, and queries,
    routing queries and outputs."""

    @property
    def fast(self) -> bool:
        """Is every stage's kernel a fast one, forward? What ``kernels="fast"`` demands."""
        return all(stage.fast for stage in self.stages)

    def __str__(self) -> str:
        lines = [f"{stage.stage:12} {', '.join(stage.kernels)}"
                 + ("" if stage.fast else f" (no faster one: {stage.why})")
                 for stage in [*self.stages, self.backward]]
        return "\n".join([*lines, f"work         a row scores {self.anchors_scored:.1f} anchors and "
                          f"attends to {self.keys_attended:.1f} keys; {self.products:.4g} products, "
                          f"{self.bytes:.4g} bytes in all"])


def plan(length: int, schedule: Optional[Schedule] = None, *, queries: int = 1, batch: int = 1,
         num_heads: int = 32, num_kv_heads: int = 2, head_dim: int = 128,
         softmax_scale: Optional[float] = None, chip: Optional[str] = None) -> Plan:
    """Which kernels attention runs on CUDA tensors of a shape, and why no faster ones.

    Args:
        length: keys of a sequence.
        schedule: by default ``Schedule()``.
        queries: of a call, at the end of the sequence: 1 where it decodes.
        softmax_scale: 1 / sqrt(head_dim) by default.
        chip: "h100" or "a100"; by default the current device, and an H100 where there is none.

    Nothing is launched. Raises ValueError or TypeError naming the offender, and RuntimeError where
    the kernels are not built in. Source: ``cuda/include/multistep/cuda/plan.hpp``.

    >>> print(multistep.plan(2**20, multistep.Schedule(steps=3), chip="h100").stages[1].kernels)
    ['decode_pieces']
    """
    schedule = Schedule() if schedule is None else schedule
    sizes = sizes_of_call(schedule, batch, num_heads, num_kv_heads, queries, length, head_dim)
    return plan_of(sizes, schedule, sizes.keys - sizes.queries, softmax_scale, False, chip)


def plan_of(sizes: Sizes, schedule: Schedule, query_offset: int, softmax_scale: Optional[float],
            moving: bool, chip: Optional[str] = None, packed: int = 0,
            packed_keys: bool = False) -> Plan:
    """The plan of checked sizes; ``moving``: the length lies on the device; ``packed``: so many
    sequences; ``packed_keys``: whose keys have bounds of their own."""
    if not _core.has_cuda:
        raise RuntimeError(f"multistep: {_core.cuda_status()}")
    if moving:
        query_offset = sizes.keys - sizes.queries
    call = filled(_core.CudaAttention(), query_offset=query_offset, softmax_scale=softmax_scale,
                  length=16 if moving else None,  # any address: not looked at
                  cu_seqlens=16 if packed else None, sequences=packed,
                  cu_seqlens_k=16 if packed_keys else None, **sizes._asdict())
    stages, backward, *work = call.plan(schedule.plan(max(sizes.keys, 1)), chip or "")
    return Plan([StagePlan(*stage) for stage in stages], StagePlan(*backward),
                *work)  # type: ignore[arg-type]
