"""The operators for PyTorch: on CUDA tensors the kernels on the current stream, on CPU tensors the
oracle.

``torch.ops.multistep.attention`` and ``.accumulate`` are custom operators with fake kernels, so
that ``torch.compile(fullgraph=True)`` goes through them; a scale is a constant of compiled code,
which each new value compiles anew. Eager calls of attention on CUDA, and their gradients, go past
them where there are no modes, transforms or profiles, and check what is like a call before no
more: the operators take PyTorch longer than the kernels take for a few thousand keys. On CUDA
nothing waits for the device: after a first call, which makes a schedule's tables (or ``prepare``),
calls can be captured in CUDA graphs. Gradients (SPEC 6) are taken at the selection that the
forward found, which is kept beside its inputs: 8 + 4 N bytes a row and slot on CUDA. On CUDA there
are none of calls with a ``length``, which are refused at the forward unless under
``torch.no_grad()``. Under ``torch.autocast`` arrays are cast to its dtype. ``torch.vmap`` maps
over the operators; torch.func.grad and its kin, forward mode and second derivatives are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional, Union

import torch
from torch import Tensor

from .._arrays import check_parts, require_float
from .._plan import Plan, plan_of
from .._problem import (Attended, Options, arguments, check_shapes, checked, required_length,
                        takes_options)
from .._recurrence import Recurrence
from ..schedule import Schedule
from . import calls, tables
from .flex import span_block_mask, span_mask
from .module import Cache, MultiStepAttention

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_options
def attention(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
              schedule: Schedule, *, query_offset: int = 0, **options: Unpack[Options]) -> Tensor:
    """Multi-step attention on tensors of one device; see ``multistep.attention``.

    CUDA: float16 or bfloat16, head_dim up to 256, contexts up to 2^31 - 2. Tensors whose rows of
    head_dim are dense are read where they lie (batch, head and row may have any strides that are
    multiples of 8, as those of a [batch, L, heads, head_dim] array); others are copied. So are all
    that are not contiguous in the backward pass.
    """
    given = arguments("attention", q, k, v, routing_queries, schedule, options,
                      query_offset=query_offset)
    output: Tensor = calls.attended(given, False).output
    return output


@takes_options
def decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, length: Union[int, Tensor],
           block_table: Optional[Tensor] = None, **options: Unpack[Options]) -> Tensor:
    """Attention of the newest queries over a preallocated cache; see ``multistep.decode``.

    On CUDA ``length`` [batch] stays on the device: a captured graph follows it as it grows. With
    ``block_table``, integers [batch, max_pages], the caches and search keys are pools [pages,
    num_kv_heads, page_size, head_dim], page_size a power of two from 16 on: key j of a sequence is
    row j % page_size of the page that entry j // page_size of its table names. Entries and rows of
    keys that do not count, as those behind the length, may be anything. There are no gradients.
    """
    calls.require_tensors(q=q, k_cache=k_cache, v_cache=v_cache)
    given = arguments("decode", q, k_cache, v_cache, routing_queries, schedule, options,
                      length=required_length(length))
    output: Tensor = calls.attended(given, False, block_table).output
    return output


@takes_options
def attend(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, query_offset: int = 0, length: Union[int, Tensor, None] = None,
           **options: Unpack[Options]) -> Attended:
    """``attention``, or with ``length`` ``decode``, and what was found on the way; see
    ``multistep.attend``. Log-sum-exps and scores are float32 (float64 beside float64), and have
    gradients as the output does."""
    given = arguments("attend", q, k, v, routing_queries, schedule, options,
                      query_offset=query_offset, length=length)
    return calls.attended(given, True)


def merge(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to the union of disjoint sets of keys; see ``multistep.merge``. In float32 (float64
    where one of the two is), with gradients, on any device."""
    calls.require_tensors(outputs=outputs, lses=lses)
    for name, tensor in (("outputs", outputs), ("lses", lses)):
        require_float(name, str(tensor.dtype).removeprefix("torch."))
    check_parts(outputs.shape, lses.shape)
    given = lses.to(torch.promote_types(torch.float32, lses.dtype))
    largest = given.detach().amax(0)
    largest = torch.where(largest.isneginf(), 0, largest)  # of no keys at all
    # Equals weigh 1: never exp(inf - inf).
    weights = torch.where(given.isposinf(), 0, given - largest).exp()
    total = weights.sum(0)
    some = total != 0
    divisor = torch.where(some, total, 1)
    lse = torch.where(some, divisor.log() + largest, -torch.inf)
    shares = (weights / divisor).unsqueeze(-1)
    parts = torch.where(shares == 0, 0, outputs)  # whatever a part without weight holds
    output = (shares * parts).sum(0)
    return output.to(outputs.dtype), lse.to(lses.dtype)


def accumulate(x: Tensor, a: Tensor, b: Tensor, c: Tensor, *, initial: Optional[Tensor] = None,
               start: Union[int, Tensor, None] = None, offset: int = 0) -> tuple[Tensor, Tensor]:
    """The scalar-decay recurrence on tensors of one device; see ``multistep.accumulate``. On CUDA
    head_dim and state are at most 256."""
    return calls.accumulated(Recurrence(x, a, b, c, initial, start, offset))


def prepare(schedule: Schedule, length: int, device: Union[str, torch.device] = "cuda") -> None:
    """Makes the schedule's tables for ``length`` keys on a device ahead of time: what the first
    call with so many keys would do, which allocates and waits. They serve every ``top_k``."""
    tables.require_usable()
    with torch.cuda.device(device):
        tables.device_schedule(schedule, length, torch.cuda.current_device())


@takes_options
def plan(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor], schedule: Schedule, *,
         query_offset: int = 0, length: Union[int, Tensor, None] = None,
         **options: Unpack[Options]) -> Plan:
    """Which kernels ``attend`` would run with these arguments, and why no faster ones; see
    ``multistep.plan``. Tensors are looked at for their shapes alone."""
    given = checked(arguments("plan", q, k, v, routing_queries, schedule, options,
                              query_offset=query_offset, length=length))
    packed = 0 if given.cu_seqlens is None else len(given.cu_seqlens) - 1
    return plan_of(check_shapes(given), schedule.with_top_k(given.top_k), given.query_offset,
                   given.softmax_scale, length is not None, packed=packed,
                   packed_keys=given.cu_seqlens_k is not None)


__all__ = ["Cache", "MultiStepAttention", "accumulate", "attend", "attention", "decode", "merge",
           "plan", "prepare", "span_block_mask", "span_mask"]
