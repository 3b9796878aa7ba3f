"""Attention, decoding and accumulation on whatever arrays the caller has."""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy.typing as npt

from . import _core, oracle
from ._arrays import is_tensor, on_device
from .oracle import Attended
from .schedule import Schedule


def _tensors(*values: Any) -> bool:
    """Are these for PyTorch: tensors, or arrays on a device?"""
    return any(is_tensor(value) or on_device(value) for value in values)


def _tensor(name: str, value: Any) -> Any:
    """Tensors as they are, and other libraries' arrays on a device as tensors, by DLPack."""
    if value is None or is_tensor(value):
        return value
    if isinstance(value, (list, tuple)):
        return [_tensor(f"{name}[{i}]", one) for i, one in enumerate(value)]
    if not on_device(value):
        raise TypeError(f"{name} of type {type(value).__name__}: a tensor, as others are")
    try:
        import torch
        import torch.utils.dlpack

        return torch.utils.dlpack.from_dlpack(value)
    except (ImportError, RuntimeError, BufferError, ValueError, TypeError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise TypeError(f"{name}: an array on a device needs PyTorch for it ({reason})") from error


def attention(q: Any, k: Any, v: Any, routing_queries: Any, schedule: Schedule, *,
              top_k: Optional[int] = None, softmax_scale: Optional[float] = None,
              search_scale: float = 1.0, query_offset: int = 0, start: Any = None,
              search_keys: Any = None, return_lse: bool = False, return_spans: bool = False,
              dtype: Optional[npt.DTypeLike] = None) -> Any:
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
        return_lse, return_spans: also give the log-sum-exps; the kept spans and their scores.
        dtype: of a NumPy output; float64 by default, so that a comparison loses nothing. Tensors
            give q's dtype, log-sum-exps and scores in float32 (float64 for float64).

    All arrays have one dtype: float64, float32, float16 or bfloat16 (PyTorch's or ml_dtypes');
    float16 or bfloat16 on CUDA.

    Returns:
        output [batch, num_heads, L_q, head_dim]; with ``return_lse`` or ``return_spans`` an
        ``Attended(output, lse, spans, scores)``, None in place of what was not asked for. Spans are
        int64, and int32 from the kernels.

    Raises:
        ValueError, TypeError: one line naming the offender, its value and the range.
        MemoryError: where a copy or a result cannot fit.

    Source: ``reference/attention.cpp``, ``cuda/attention.cu``. Can be interrupted.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    options = {"softmax_scale": softmax_scale, "search_scale": search_scale,
               "query_offset": query_offset, "start": start, "search_keys": search_keys}
    if _tensors(q, k, v):
        from . import torch as tensors

        if dtype is not None:
            raise TypeError(f"dtype {dtype}: of NumPy results; tensors give q's dtype")
        options["search_keys"] = _tensor("search_keys", search_keys)
        return tensors.attention(_tensor("q", q), _tensor("k", k), _tensor("v", v),
                                 _tensor("routing_queries", routing_queries), schedule,
                                 top_k=top_k, return_lse=return_lse, return_spans=return_spans,
                                 **options)
    found = oracle.attention(q, k, v, routing_queries, schedule.with_top_k(top_k), dtype=dtype,
                             **options)
    return chosen(found, return_lse, return_spans)


def chosen(found: Attended, return_lse: bool, return_spans: bool) -> Any:
    """The results that were asked for."""
    if not return_lse and not return_spans:
        return found.output
    return Attended(found.output, found.lse if return_lse else None,
                    found.spans if return_spans else None, found.scores if return_spans else None)


def decode(q: Any, k_cache: Any, v_cache: Any, routing_queries: Any, schedule: Schedule, *,
           length: Union[int, Any], top_k: Optional[int] = None,
           softmax_scale: Optional[float] = None, search_scale: float = 1.0, start: Any = None,
           search_keys: Any = None, return_lse: bool = False, return_spans: bool = False,
           dtype: Optional[npt.DTypeLike] = None) -> Any:
    """Attention of the newest queries over a preallocated cache.

    Args:
        q: [batch, num_heads, L_q, head_dim]; L_q = 1 is decoding.
        k_cache, v_cache: [batch, num_kv_heads, capacity, head_dim]. The queries' own keys are in;
            rows past ``length`` may hold anything, and are not read.
        length: keys of each sequence, the queries' own among them: an integer or integers [batch]
            in [0, capacity]. Row i of sequence b stands at position length[b] - L_q + i; a row
            before ``start`` or before key 0 has output 0, log-sum-exp -inf and no path. On CUDA a
            tensor on the device is followed by captured graphs as it grows, and is not looked at by
            the host: what exceeds the capacity is left out.
        search_keys: of k_cache's shape; k_cache by default.

    Everything else is as in ``attention``.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    options = {"softmax_scale": softmax_scale, "search_scale": search_scale, "start": start,
               "search_keys": search_keys}
    if _tensors(q, k_cache, v_cache):
        from . import torch as tensors

        if dtype is not None:
            raise TypeError(f"dtype {dtype}: of NumPy results; tensors give q's dtype")
        options["search_keys"] = _tensor("search_keys", search_keys)
        return tensors.decode(_tensor("q", q), _tensor("k_cache", k_cache),
                              _tensor("v_cache", v_cache),
                              _tensor("routing_queries", routing_queries), schedule, length=length,
                              top_k=top_k, return_lse=return_lse, return_spans=return_spans,
                              **options)
    found = oracle.attention(q, k_cache, v_cache, routing_queries, schedule.with_top_k(top_k),
                             dtype=dtype, length=length, **options)
    return chosen(found, return_lse, return_spans)


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

    Source: ``reference/accumulation.cpp``, ``cuda/accumulation.cu``.
    """
    if _tensors(x, a, b, c):
        from . import torch as tensors

        if dtype is not None:
            raise TypeError(f"dtype {dtype}: of NumPy results; tensors give x's dtype")
        return tensors.accumulate(_tensor("x", x), _tensor("a", a), _tensor("b", b),
                                  _tensor("c", c), initial=_tensor("initial", initial),
                                  start=start, offset=offset)
    oracle.check_dtype(dtype)
    given, _ = oracle.recurrence(x, a, b, c, initial=initial, start=start, offset=offset)
    output, state = _core.accumulate(given)
    return oracle.cast(output, dtype), state
