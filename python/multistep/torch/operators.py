"""The custom operators of PyTorch behind multistep.torch: each with the oracle on the CPU, the
kernels on CUDA, a fake kernel for torch.compile, its gradient, and a batching rule for vmap."""

import functools
from typing import Any, Callable, List, Optional, Tuple

import torch
from torch import Tensor

from .. import _core, oracle
from ..schedule import Schedule
from . import kernels as _kernels

# Attention, and decoding where ``length`` is given

# output, and with ``details`` (of no elements without) lse, window_lse, spans, scores, anchors
_Found = Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("multistep::attention", mutates_args=(), device_types="cpu")
def _attention(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
               top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
               query_offset: int, length: Optional[Tensor], start: Optional[Tensor],
               search_keys: Optional[Tensor], details: bool
               ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = oracle.attention(q, k, v, routing_queries, _schedule(schedule, top_k),
                             softmax_scale=softmax_scale, search_scale=search_scale,
                             query_offset=query_offset, length=length, start=start,
                             search_keys=search_keys)
    results = _empty(q, schedule, top_k, False)
    if not details:
        return (torch.from_numpy(found.output).to(q.dtype), *results[1:])
    return tuple(torch.from_numpy(array).to(like.dtype)  # type: ignore[return-value]
                 for array, like in zip(found, results))


@_attention.register_kernel("cuda")
def _(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
      top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      query_offset: int, length: Optional[Tensor], start: Optional[Tensor],
      search_keys: Optional[Tensor], details: bool
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    results = _empty(q, schedule, top_k, details)
    _kernels.attention(q, k, v, routing_queries, _schedule(schedule, top_k), softmax_scale,
                       search_scale, query_offset, length, start, search_keys, results)
    return results


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
      top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      query_offset: int, length: Optional[Tensor], start: Optional[Tensor],
      search_keys: Optional[Tensor], details: bool
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty(q, schedule, top_k, details)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _empty(q: Tensor, schedule: str, top_k: Optional[int], details: bool) -> _Found:
    """``top_k`` may be a symbol: it is no key of a cache here."""
    of = _schedule(schedule, None)
    rows = q.shape[:3]
    k = of.top_k if top_k is None else top_k
    wide = _wide(q.dtype)
    integers = torch.int32 if q.device.type == "cuda" else torch.int64
    shapes = ((*rows, k), rows, (*rows, k, 2), (*rows, k), (*rows, k, of.steps - 1))
    dtypes = (wide, wide, integers, wide, integers)
    return (q.new_empty(q.shape),  # type: ignore[return-value]
            *(q.new_empty(shape if details else (0,), dtype=dtype)
              for shape, dtype in zip(shapes, dtypes)))


@functools.lru_cache(maxsize=None)
def _schedule(text: str, top_k: Optional[int]) -> Schedule:
    return Schedule.from_text(text).with_top_k(top_k)


# Gradients of attention


@torch.library.custom_op("multistep::attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(by_output: Optional[Tensor], by_lse: Optional[Tensor],
                        by_window_lse: Optional[Tensor], by_scores: Optional[Tensor], q: Tensor,
                        k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
                        top_k: Optional[int], softmax_scale: Optional[float],
                        search_scale: float, query_offset: int, length: Optional[Tensor],
                        start: Optional[Tensor], search_keys: Optional[Tensor]
                        ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = oracle.problem(q, k, v, routing_queries, _schedule(schedule, top_k),
                           softmax_scale=softmax_scale, search_scale=search_scale,
                           query_offset=query_offset, length=length, start=start,
                           search_keys=search_keys)
    dq, dk, dv, routing, search = oracle.attention_backward(
        given, *(None if by is None else by.double().numpy()
                 for by in (by_output, by_lse, by_window_lse, by_scores)))
    by_q, by_k, by_v = (torch.from_numpy(array).to(q.dtype) for array in (dq, dk, dv))
    levels = [torch.from_numpy(array).to(q.dtype) for array in routing]
    return (by_q, by_k, by_v, torch.stack(levels) if levels else q.new_empty((0, *q.shape)),
            q.new_empty((0,)) if search is None else torch.from_numpy(search).to(q.dtype))


@_attention_backward.register_fake
def _(by_output: Optional[Tensor], by_lse: Optional[Tensor], by_window_lse: Optional[Tensor],
      by_scores: Optional[Tensor], q: Tensor, k: Tensor, v: Tensor,
      routing_queries: List[Tensor], schedule: str, top_k: Optional[int],
      softmax_scale: Optional[float], search_scale: float, query_offset: int,
      length: Optional[Tensor], start: Optional[Tensor], search_keys: Optional[Tensor]
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape),
            q.new_empty((len(routing_queries), *q.shape)),
            q.new_empty((0,)) if search_keys is None else search_keys.new_empty(search_keys.shape))


def _keep_for_attention(ctx: Any, inputs: Tuple[Any, ...], output: Tuple[Tensor, ...]) -> None:
    (q, k, v, routing, schedule, top_k, softmax_scale, search_scale, query_offset, length, start,
     search_keys, details) = inputs
    _refuse_gradient(q)
    _, lse, window_lse, spans, scores, anchors = output
    ctx.mark_non_differentiable(*([spans, anchors] if details else
                                  [lse, window_lse, spans, scores, anchors]))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, length, start, search_keys, *routing)
    ctx.settings = (schedule, top_k, softmax_scale, search_scale, query_offset)


def _attention_gradient(ctx: Any, by_output: Optional[Tensor], by_lse: Optional[Tensor],
                        by_window_lse: Optional[Tensor], _: Any, by_scores: Optional[Tensor],
                        __: Any) -> Tuple[Any, ...]:
    q, k, v, length, start, search_keys, *routing = ctx.saved_tensors
    dq, dk, dv, levels, dkeys = torch.ops.multistep.attention_backward(
        by_output, by_lse, by_window_lse, by_scores, q, k, v, routing, *ctx.settings, length,
        start, search_keys)
    return (dq, dk, dv, list(levels.unbind(0)), *[None] * 7,
            None if search_keys is None else dkeys, None)


# Accumulation


@torch.library.custom_op("multistep::accumulate", mutates_args=(), device_types="cpu")
def _accumulate(x: Tensor, a: Tensor, b: Tensor, c: Tensor, initial: Optional[Tensor],
                start: Optional[Tensor], offset: int) -> Tuple[Tensor, Tensor]:
    given, _ = oracle.recurrence(x, a, b, c, initial=initial, start=start, offset=offset)
    output, state = _core.accumulate(given)
    return torch.from_numpy(output).to(x.dtype), torch.from_numpy(state).to(_wide(x.dtype))


@_accumulate.register_kernel("cuda")
def _(x: Tensor, a: Tensor, b: Tensor, c: Tensor, initial: Optional[Tensor],
      start: Optional[Tensor], offset: int) -> Tuple[Tensor, Tensor]:
    return _kernels.accumulate(x, a, b, c, initial, start, offset)


@_accumulate.register_fake
def _(x: Tensor, a: Tensor, b: Tensor, c: Tensor, initial: Optional[Tensor],
      start: Optional[Tensor], offset: int) -> Tuple[Tensor, Tensor]:
    batch, heads, _, head_dim = x.shape
    return (x.new_empty(x.shape),
            x.new_empty((batch, heads, head_dim, b.shape[3]), dtype=_wide(x.dtype)))


@torch.library.custom_op("multistep::accumulate_backward", mutates_args=(), device_types="cpu")
def _accumulate_backward(by_output: Tensor, by_state: Tensor, x: Tensor, a: Tensor, b: Tensor,
                         c: Tensor, initial: Optional[Tensor], start: Optional[Tensor],
                         offset: int) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    given, _ = oracle.recurrence(x, a, b, c, initial=initial, start=start, offset=offset)
    gradients = _core.accumulate_backward(given, by_output.double().contiguous().numpy(),
                                          by_state.double().contiguous().numpy())
    dtypes = (x.dtype, a.dtype, b.dtype, c.dtype,
              _wide(x.dtype) if initial is None else initial.dtype)
    dx, da, db, dc, first = (torch.from_numpy(g).to(dtype) for g, dtype in zip(gradients, dtypes))
    return dx, da, db, dc, first


@_accumulate_backward.register_fake
def _(by_output: Tensor, by_state: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor,
      initial: Optional[Tensor], start: Optional[Tensor], offset: int
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, heads, _, head_dim = x.shape
    dtype = _wide(x.dtype) if initial is None else initial.dtype
    return (x.new_empty(x.shape), a.new_empty(a.shape), b.new_empty(b.shape), c.new_empty(c.shape),
            x.new_empty((batch, heads, head_dim, b.shape[3]), dtype=dtype))


def _keep_for_accumulate(ctx: Any, inputs: Tuple[Any, ...], output: Tuple[Tensor, ...]) -> None:
    x, a, b, c, initial, start, ctx.offset = inputs
    _refuse_gradient(x)
    ctx.save_for_backward(x, a, b, c, initial, start)


def _accumulate_gradient(ctx: Any, by_output: Optional[Tensor], by_state: Optional[Tensor]
                         ) -> Tuple[Any, ...]:
    x, a, b, c, initial, start = ctx.saved_tensors
    if by_output is None:
        by_output = torch.zeros_like(x)
    if by_state is None:
        by_state = x.new_zeros((x.shape[0], x.shape[1], x.shape[3], b.shape[3]))
    dx, da, db, dc, first = torch.ops.multistep.accumulate_backward(
        by_output, by_state, x, a, b, c, initial, start, ctx.offset)
    return dx, da, db, dc, None if initial is None else first, None, None


# What all of them have


def _refuse_gradient(tensor: Tensor) -> None:
    """Runs at the forward: whoever will not go back says torch.no_grad()."""
    if tensor.device.type == "cuda":
        raise NotImplementedError("multistep: no gradients on the GPU yet; use torch.no_grad() or "
                                  "CPU tensors")


def _no_second_gradient(ctx: Any, *_: Any) -> None:
    raise NotImplementedError("multistep: no gradients of gradients")


def _fold(argument: Any, mapped: Any, size: int) -> Any:
    """An argument whose mapped dimension has become part of its batch, which stands first."""
    if isinstance(argument, (list, tuple)):
        dims = mapped if isinstance(mapped, (list, tuple)) else [None] * len(argument)
        return [_fold(one, dim, size) for one, dim in zip(argument, dims)]
    if not isinstance(argument, Tensor):
        return argument
    spread = argument.expand(size, *argument.shape) if mapped is None else \
        argument.movedim(mapped, 0)
    return spread.flatten(0, 1)


def _batched(operator: Any, batch_dims: Tuple[int, ...], info: Any, in_dims: Tuple[Any, ...],
             *arguments: Any) -> Tuple[Tuple[Tensor, ...], Tuple[int, ...]]:
    """The operator under vmap; ``batch_dims`` say where its results have the batch."""
    size = info.batch_size
    results = operator(*[_fold(*one, size) for one in zip(arguments, in_dims)])
    return tuple(result.unflatten(dim, (size, result.shape[dim] // size))
                 for result, dim in zip(results, batch_dims)), batch_dims


def _register(operator: Any, batch_dims: Tuple[int, ...], gradient: Callable[..., Any],
              keep: Optional[Callable[..., None]] = None) -> None:
    operator.register_autograd(gradient, setup_context=keep)
    torch.library.register_vmap(operator, functools.partial(_batched, operator, batch_dims))


_register(_attention, (0,) * 6, _attention_gradient, _keep_for_attention)
_register(_attention_backward, (0, 0, 0, 1, 0), _no_second_gradient)
_register(_accumulate, (0, 0), _accumulate_gradient, _keep_for_accumulate)
_register(_accumulate_backward, (0, 0, 0, 0, 0), _no_second_gradient)
