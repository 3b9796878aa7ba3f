"""Attention, decoding and accumulation on whatever arrays the caller has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Union

import numpy.typing as npt

from . import oracle
from ._arrays import is_tensor, on_device
from ._problem import (Arguments, Attended, Options, arguments, each, required_length,
                       takes_options)
from ._recurrence import Recurrence
from .schedule import Schedule

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _for_torch(*values: Any) -> bool:
    """Are these for PyTorch: tensors, or arrays on a device?"""
    return any(is_tensor(value) or on_device(value) for value in values)


def _tensor(name: str, value: Any) -> Any:
    """Tensors as they are, and other libraries' arrays on a device as tensors, by DLPack."""
    if value is None or is_tensor(value):
        return value
    if not on_device(value):
        raise TypeError(f"{name} of type {type(value).__name__}: a tensor, as others are")
    try:
        import torch
        import torch.utils.dlpack

        return torch.utils.dlpack.from_dlpack(value)
    except (ImportError, RuntimeError, BufferError, ValueError, TypeError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise TypeError(f"{name}: an array on a device needs PyTorch for it ({reason})") from error


@takes_options
def attention(q: Any, k: Any, v: Any, routing_queries: Any, schedule: Schedule, *,
              query_offset: int = 0, dtype: Optional[npt.DTypeLike] = None,
              **options: Unpack[Options]) -> Any:
    """Superlinear multi-step attention: search, attend, combine (SPEC 3, 4).

    NumPy arrays and CPU tensors run the oracle, whose arithmetic is in double; CUDA tensors run the
    kernels on the current stream. Dense row-major arrays are read where they lie, others are copied
    once, as by ``.contiguous()``.

    Args:
        q: [batch, num_heads, L_q, head_dim]; row i stands at position ``query_offset + i``.
        k, v: [batch, num_kv_heads, L_kv, head_dim]; num_kv_heads divides num_heads. Rows past the
            last query, and rows before ``start``, are not read.
        routing_queries: N - 1 arrays of q's shape, one per search level (a sequence, or stacked).
        schedule: a ``Schedule``.
        top_k: spans kept per query; by default the schedule's.
        softmax_scale: 1 / sqrt(head_dim) by default.
        search_scale: factor of the search's scores.
        start: the first eligible key, an integer or integers [batch]; 0 by default.
        search_keys: of k's shape; k by default.
        cu_seqlens: integers [sequences + 1], from 0, not decreasing: the rows of q, k and v are
            packed sequences, of which number s has the rows from cu_seqlens[s] to
            cu_seqlens[s + 1]; each is attended to as if it were alone. Rows behind the last have no
            keys, and output 0; spans and anchors are rows of k. batch is then 1, and there is
            neither a query_offset nor a start.
        cu_seqlens_k: beside cu_seqlens, and as many: the rows of k and v that sequence number s
            has, from cu_seqlens_k[s] to cu_seqlens_k[s + 1], where they are others than those of
            q. Its last query stands at its newest key; of more queries than keys the first ones
            have no keys, and output 0. k may then have fewer rows than q.
        kernels: "automatic", which runs the fast kernels where they take the call; "fast", which
            refuses it where they do not (``multistep.torch.plan`` tells why); or "plain".
        dtype: of a NumPy output; float64 by default, so that a comparison loses nothing. Tensors
            give q's dtype.

    All arrays have one dtype: float64, float32, float16 or bfloat16 (PyTorch's or ml_dtypes');
    float16 or bfloat16 on CUDA.

    Infinities in q, k and the routing queries make infinite logits and scores, which count as their
    limit: the largest share equally and all others weigh nothing. A dot product that meets
    inf - inf or 0 * inf is NaN: such a score is never selected, such a logit makes its row NaN.

    Returns:
        [batch, num_heads, L_q, head_dim].

    Raises:
        ValueError, TypeError: one line naming the offender, its value and the range.
        MemoryError: where a copy or a result cannot fit.

    Source: ``reference/stages/attention.cpp``, ``cuda/api/attention.cu``. Can be interrupted.
    """
    given = arguments("attention", q, k, v, routing_queries, schedule, options,
                      query_offset=query_offset)
    return _attend(given, dtype, False).output


@takes_options
def decode(q: Any, k_cache: Any, v_cache: Any, routing_queries: Any, schedule: Schedule, *,
           length: Union[int, Any], dtype: Optional[npt.DTypeLike] = None,
           **options: Unpack[Options]) -> Any:
    """Attention of the newest queries over a preallocated cache.

    Args:
        q: [batch, num_heads, L_q, head_dim]; L_q = 1 is decoding.
        k_cache, v_cache: [batch, num_kv_heads, capacity, head_dim]. The queries' own keys are in;
            rows past ``length`` may hold anything, and are not read.
        length: keys of each sequence, the queries' own among them: an integer or integers [batch]
            in [0, capacity]. Row i of sequence b stands at position length[b] - L_q + i; a row
            before ``start`` or before key 0 has no keys, and output 0. On CUDA a tensor on the
            device is followed by captured graphs as it grows, and is not looked at by the host:
            what exceeds the capacity is left out.
        search_keys: of k_cache's shape; k_cache by default.

    Everything else is as in ``attention``.
    """
    if _for_torch(q, k_cache, v_cache):
        q, k_cache = _tensor("q", q), _tensor("k_cache", k_cache)
        v_cache = _tensor("v_cache", v_cache)
    given = arguments("decode", q, k_cache, v_cache, routing_queries, schedule, options,
                      length=required_length(length))
    return _attend(given, dtype, False).output


@takes_options
def attend(q: Any, k: Any, v: Any, routing_queries: Any, schedule: Schedule, *,
           query_offset: int = 0, length: Union[int, Any, None] = None,
           dtype: Optional[npt.DTypeLike] = None, **options: Unpack[Options]) -> Attended:
    """``attention``, or with ``length`` ``decode``, and what was found on the way, at no price: what
    ``compare`` judges, and what it takes to join the result with attention to other keys
    (``merge``).

    Arguments are as there; ``query_offset`` counts for nothing beside ``length``.
    """
    given = arguments("attend", q, k, v, routing_queries, schedule, options,
                      query_offset=query_offset, length=length)
    return _attend(given, dtype, True)


def _attend(given: Arguments, dtype: Optional[npt.DTypeLike], details: bool) -> Attended:
    if not _for_torch(given.q, given.k, given.v):
        return oracle.attention(*given, dtype=dtype)
    from .torch import calls

    if dtype is not None:
        raise TypeError(f"dtype {dtype}: of NumPy results; tensors give q's dtype")
    return calls.attended(each(_tensor, given), details)


def merge(outputs: Any, lses: Any) -> tuple[Any, Any]:
    """Attention to the union of disjoint sets of keys from attention to each.

    Args:
        outputs: [parts, .., head_dim], at least one. What a part holds that weighs nothing is not
            looked at: its lse is -inf, as without keys, or so far below another that exp gives 0.
        lses: [parts, ..], base e; float32 tensors beside bfloat16 and float16 outputs. Where some
            are +inf, these share equally and the others weigh nothing.

    Returns:
        output [.., head_dim] and lse [..]: of NumPy arrays in double, of tensors in their dtypes.

    Source: ``reference/stages/attend.cpp``, ``cuda/merge/merge.cu``.
    """
    if _for_torch(outputs, lses):
        from . import torch as tensors

        return tensors.merge(_tensor("outputs", outputs), _tensor("lses", lses))
    return oracle.merge(outputs, lses)


def accumulate(x: Any, a: Any, b: Any, c: Any, *, initial: Any = None, start: Any = None,
               offset: int = 0, dtype: Optional[npt.DTypeLike] = None) -> tuple[Any, Any]:
    """The scalar-decay recurrence H_t = a_t H_{t-1} + x_t b_t^T, r_t = H_t c_t (SPEC 5).

    Args:
        x: [batch, num_heads, length, head_dim].
        a: [batch, num_heads, length], decays in [0, 1]; of x's dtype or float32 (float32 on CUDA).
        b, c: [batch, num_heads, length, state].
        initial: [batch, num_heads, head_dim, state], the state to go on from; 0 by default.
        start: first position that counts, an integer or integers [batch]; rows before it leave the
            state alone and give 0.
        offset: position of row 0.
        dtype: of a NumPy output, as in ``attention``.

    Returns:
        r [batch, num_heads, length, head_dim] and the final state [batch, num_heads, head_dim,
        state], the next chunk's ``initial``: float64 from NumPy arrays and float64 tensors, float32
        from other tensors.

    Source: ``reference/stages/accumulate.cpp``, ``cuda/accumulate/accumulate.cu``.
    """
    given = Recurrence(x, a, b, c, initial, start, offset)
    if not _for_torch(x, a, b, c):
        return oracle.accumulate(*given, dtype=dtype)
    from .torch import calls

    if dtype is not None:
        raise TypeError(f"dtype {dtype}: of NumPy results; tensors give x's dtype")
    return calls.accumulated(given._replace(
        x=_tensor("x", x), a=_tensor("a", a), b=_tensor("b", b), c=_tensor("c", c),
        initial=_tensor("initial", initial)))
