"""How much memory a shape takes: ``multistep memory`` (SPEC 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from . import _core
from ._problem import Sizes, filled
from ._rational import integer
from .schedule import MAX_LENGTH, Schedule

_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class Memory:
    """Bytes of a cache, all sequences and layers, and of the kernels' scratch for one call, which
    layers share."""

    keys: int
    values: int
    search_keys: int
    """0 where they are the keys."""
    bytes_per_token: int
    """Of one sequence: keys, values and search keys of all layers."""
    scratch: Optional[int]
    """The kernels' workspace; None where it is not known."""
    scratch_reason: Optional[str]
    """Why it is not."""


def memory(length: int, schedule: Optional[Schedule] = None, *, queries: int = 1, batch: int = 1,
           num_heads: int = 32, num_kv_heads: int = 2, head_dim: int = 128, layers: int = 1,
           dtype: Any = "bfloat16", search_keys: bool = False) -> Memory:
    """Bytes that attention takes for a shape (SPEC 7).

    Args:
        length: keys of a sequence.
        schedule: by default ``Schedule()``; the scratch depends on it.
        queries: of a call, at the end of the sequence: 1 where it decodes.
        dtype: bfloat16, float16, float32 or float64, by name or a type of NumPy or PyTorch.
        search_keys: are they accumulated in arrays of their own?

    Raises ValueError or TypeError naming the offender. Source:
    ``reference/include/multistep/memory.hpp``.

    >>> multistep.memory(1, layers=6).bytes_per_token  # the authors' model
    6144
    """
    schedule = Schedule() if schedule is None else schedule
    sizes = sizes_of_call(schedule, batch, num_heads, num_kv_heads, queries, length, head_dim)
    layers = integer("layers", layers, 1, 2**16)
    name = _name_of(dtype)

    def cache(length: int, batch: int) -> tuple[int, int, int]:
        return _core.cache_bytes(length, batch, sizes.kv_heads, sizes.head_dim, layers,
                                 _BYTES[name], bool(search_keys))

    scratch, reason = _scratch(schedule, name, sizes)
    return Memory(*cache(sizes.keys, sizes.batch), sum(cache(1, 1)), scratch, reason)


def sizes_of_call(schedule: Schedule, batch: int, num_heads: int, num_kv_heads: int, queries: int,
                  length: int, head_dim: int) -> Sizes:
    """Checks what describes a call without its arrays."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    length = integer("length", length, 1, MAX_LENGTH)
    queries = integer("queries", queries, 1, length)
    batch, num_heads, num_kv_heads, head_dim = (
        integer(name, value, 1, 2**16) for name, value in (
            ("batch", batch), ("num_heads", num_heads), ("num_kv_heads", num_kv_heads),
            ("head_dim", head_dim)))
    if num_heads % num_kv_heads:
        raise ValueError(f"num_kv_heads {num_kv_heads}: divides num_heads {num_heads}")
    return Sizes(batch, num_heads, num_kv_heads, queries, length, head_dim)


def _name_of(dtype: Any) -> str:
    name = str(getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or dtype)
    name = name.removeprefix("torch.")
    if name not in _BYTES:
        raise TypeError(f"dtype {name}: {', '.join(_BYTES)}")
    return name


def _scratch(schedule: Schedule, dtype: str, sizes: Sizes) -> tuple[Optional[int], Optional[str]]:
    """The workspace of the kernels' call, or why it is not known."""
    if not _core.has_cuda:
        return None, "built without CUDA"
    if not _core.device_count():
        return None, "no CUDA device"
    try:
        tables = _core.DeviceSchedule(schedule.plan(sizes.keys))
        call = filled(_core.CudaAttention(), schedule=tables, dtype=dtype,
                      query_offset=sizes.keys - sizes.queries, **sizes._asdict())
        return call.workspace_size, None
    except (ValueError, MemoryError, RuntimeError) as error:  # a shape that they do not take
        return None, str(error)
