"""The custom operators of PyTorch behind multistep.torch: each with the oracle on the CPU, the
kernels on CUDA, a fake kernel for torch.compile, and its gradient."""

import atexit
import functools
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor

from . import _core, oracle
from ._arrays import check_shapes
from ._rational import integer
from .oracle import Attended
from .schedule import Schedule

_NO_CUDA_GRADIENT = ("multistep: no gradients on the GPU yet; use CPU tensors, whose gradients are "
                     "the oracle's, or torch.no_grad()")
_KERNEL_DTYPES = (torch.bfloat16, torch.float16)


# Attention


@torch.library.custom_op("multistep::attention", mutates_args=(), device_types="cpu")
def _attention(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
               top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
               query_offset: int, start: Optional[Tensor], search_keys: Optional[Tensor],
               return_lse: bool) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    found = oracle.attention(q, k, v, routing_queries, _schedule(schedule, top_k),
                             softmax_scale=softmax_scale, search_scale=search_scale,
                             query_offset=query_offset, start=start, search_keys=search_keys)
    return _of_oracle(found, q, return_lse)


@_attention.register_kernel("cuda")
def _(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
      top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      query_offset: int, start: Optional[Tensor], search_keys: Optional[Tensor],
      return_lse: bool) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    integer("query_offset", query_offset, 0, max_context())
    return _on_device(q, k, v, routing_queries, _schedule(schedule, top_k), softmax_scale,
                      search_scale, query_offset, None, start, search_keys, return_lse)


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
      top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      query_offset: int, start: Optional[Tensor], search_keys: Optional[Tensor],
      return_lse: bool) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_results(q, _schedule(schedule, top_k), return_lse)


@torch.library.custom_op("multistep::decode", mutates_args=(), device_types="cpu")
def _decode(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
            top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
            length: Tensor, start: Optional[Tensor], search_keys: Optional[Tensor],
            return_lse: bool) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    found = oracle.attention(q, k, v, routing_queries, _schedule(schedule, top_k),
                             softmax_scale=softmax_scale, search_scale=search_scale,
                             length=length, start=start, search_keys=search_keys)
    return _of_oracle(found, q, return_lse)


@_decode.register_kernel("cuda")
def _(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
      top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      length: Tensor, start: Optional[Tensor], search_keys: Optional[Tensor],
      return_lse: bool) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    return _on_device(q, k, v, routing_queries, _schedule(schedule, top_k), softmax_scale,
                      search_scale, 0, length, start, search_keys, return_lse)


@_decode.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor], schedule: str,
      top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      length: Tensor, start: Optional[Tensor], search_keys: Optional[Tensor],
      return_lse: bool) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_results(q, _schedule(schedule, top_k), return_lse)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _empty_results(q: Tensor, schedule: Schedule, return_lse: bool
                   ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    """output, lse (of no elements where it is not wanted), spans and scores."""
    slots = (*q.shape[:3], schedule.top_k)
    wide = _wide(q.dtype)
    return (q.new_empty(q.shape), q.new_empty(slots if return_lse else (0,), dtype=wide),
            q.new_empty((*slots, 2), dtype=torch.int32), q.new_empty(slots, dtype=wide))


def _of_oracle(found: Attended, q: Tensor, return_lse: bool
               ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = _wide(q.dtype)
    lse = torch.from_numpy(found.lse).to(wide) if return_lse else q.new_empty((0,), dtype=wide)
    return (torch.from_numpy(found.output).to(q.dtype), lse,
            torch.from_numpy(found.spans).to(torch.int32),
            torch.from_numpy(found.scores).to(wide))


@functools.lru_cache(maxsize=None)
def _schedule(text: str, top_k: Optional[int]) -> Schedule:
    return Schedule.from_text(text).with_top_k(top_k)


# Gradients of attention


@torch.library.custom_op("multistep::attention_backward", mutates_args=(), device_types="cpu")
def _attention_backward(by_output: Tensor, q: Tensor, k: Tensor, v: Tensor,
                        routing_queries: List[Tensor], schedule: str, top_k: Optional[int],
                        softmax_scale: Optional[float], search_scale: float, query_offset: int,
                        start: Optional[Tensor], search_keys: Optional[Tensor]
                        ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    given = oracle.problem(q, k, v, routing_queries, _schedule(schedule, top_k),
                           softmax_scale=softmax_scale, search_scale=search_scale,
                           query_offset=query_offset, start=start, search_keys=search_keys)
    dq, dk, dv, routing, search = oracle.attention_backward(given, by_output.double().numpy())
    by_q, by_k, by_v = (torch.from_numpy(array).to(q.dtype) for array in (dq, dk, dv))
    levels = [torch.from_numpy(array).to(q.dtype) for array in routing]
    return (by_q, by_k, by_v, torch.stack(levels) if levels else q.new_empty((0, *q.shape)),
            q.new_empty((0,)) if search is None else torch.from_numpy(search).to(q.dtype))


@_attention_backward.register_kernel("cuda")
def _(by_output: Tensor, q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor],
      schedule: str, top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      query_offset: int, start: Optional[Tensor], search_keys: Optional[Tensor]
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    raise NotImplementedError(_NO_CUDA_GRADIENT)


@_attention_backward.register_fake
def _(by_output: Tensor, q: Tensor, k: Tensor, v: Tensor, routing_queries: List[Tensor],
      schedule: str, top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
      query_offset: int, start: Optional[Tensor], search_keys: Optional[Tensor]
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape),
            q.new_empty((len(routing_queries), *q.shape)),
            q.new_empty((0,)) if search_keys is None else search_keys.new_empty(search_keys.shape))


def _keep_for_attention(ctx: Any, inputs: Tuple[Any, ...], output: Tuple[Tensor, ...]) -> None:
    q, k, v, routing, schedule, top_k, softmax_scale, search_scale, offset, start, keys, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(q, k, v, *routing, *(t for t in (start, keys) if t is not None))
    ctx.levels, ctx.has_start, ctx.has_keys = len(routing), start is not None, keys is not None
    ctx.settings = (schedule, top_k, softmax_scale, search_scale, offset)


def _attention_gradient(ctx: Any, by_output: Optional[Tensor], *_: Any) -> Tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    q, k, v = saved[:3]
    routing = saved[3 : 3 + ctx.levels]
    rest = saved[3 + ctx.levels :]
    start = rest.pop(0) if ctx.has_start else None
    keys = rest.pop(0) if ctx.has_keys else None
    if q.device.type == "cuda":
        raise NotImplementedError(_NO_CUDA_GRADIENT)
    if by_output is None:
        by_output = torch.zeros_like(q)
    dq, dk, dv, levels, dkeys = torch.ops.multistep.attention_backward(
        by_output, q, k, v, routing, *ctx.settings, start, keys)
    return (dq, dk, dv, list(levels.unbind(0)), None, None, None, None, None, None,
            dkeys if ctx.has_keys else None, None)


_attention.register_autograd(_attention_gradient, setup_context=_keep_for_attention)


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
    return _accumulate_on_device(x, a, b, c, initial, start, offset)


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


@_accumulate_backward.register_kernel("cuda")
def _(by_output: Tensor, by_state: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor,
      initial: Optional[Tensor], start: Optional[Tensor], offset: int
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    raise NotImplementedError(_NO_CUDA_GRADIENT)


@_accumulate_backward.register_fake
def _(by_output: Tensor, by_state: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor,
      initial: Optional[Tensor], start: Optional[Tensor], offset: int
      ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, heads, _, head_dim = x.shape
    dtype = _wide(x.dtype) if initial is None else initial.dtype
    return (x.new_empty(x.shape), a.new_empty(a.shape), b.new_empty(b.shape), c.new_empty(c.shape),
            x.new_empty((batch, heads, head_dim, b.shape[3]), dtype=dtype))


def _keep_for_accumulate(ctx: Any, inputs: Tuple[Any, ...], output: Tuple[Tensor, ...]) -> None:
    x, a, b, c, initial, start, offset = inputs
    ctx.save_for_backward(x, a, b, c, *(t for t in (initial, start) if t is not None))
    ctx.has_initial, ctx.has_start = initial is not None, start is not None
    ctx.offset = offset


def _accumulate_gradient(ctx: Any, by_output: Optional[Tensor], by_state: Optional[Tensor]
                         ) -> Tuple[Any, ...]:
    x, a, b, c, *rest = ctx.saved_tensors
    initial = rest.pop(0) if ctx.has_initial else None
    start = rest.pop(0) if ctx.has_start else None
    if x.device.type == "cuda":
        raise NotImplementedError(_NO_CUDA_GRADIENT)
    if by_output is None:
        by_output = torch.zeros_like(x)
    if by_state is None:
        by_state = x.new_zeros((x.shape[0], x.shape[1], x.shape[3], b.shape[3]))
    dx, da, db, dc, first = torch.ops.multistep.accumulate_backward(
        by_output, by_state, x, a, b, c, initial, start, ctx.offset)
    return dx, da, db, dc, first if ctx.has_initial else None, None, None


_accumulate.register_autograd(_accumulate_gradient, setup_context=_keep_for_accumulate)


# The kernels


def max_context() -> int:
    if not _core.has_cuda:
        raise RuntimeError("multistep was built without CUDA: install it where nvcc is found")
    return int(_core.max_context)


_tables: dict[Tuple[Schedule, int, int], Any] = {}  # kept for good: captured graphs look at them
atexit.register(_tables.clear)  # while the device is still there


def device_schedule(schedule: Schedule, length: int, device: int) -> Any:
    """The tables of a schedule on the current device, for ``length`` keys at least."""
    limit = max_context()
    length = integer("length", length, 1, limit)
    rounded = min(max(1024, 1 << (length - 1).bit_length()), limit)
    for size in (rounded, length):
        if (schedule, size, device) in _tables:
            return _tables[schedule, size, device]
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("multistep: a schedule's tables cannot be made while a graph is "
                           "captured; call multistep.torch.prepare(schedule, length) before")
    try:
        made = _core.DeviceSchedule(schedule.plan(rounded))
    except ValueError:
        rounded = length  # the tables for a few keys more may be too large
        made = _core.DeviceSchedule(schedule.plan(rounded))
    return _tables.setdefault((schedule, rounded, device), made)


def _dense(name: str, tensor: Tensor, like: Tensor, dtypes: Tuple[torch.dtype, ...]) -> Tensor:
    """The tensor as kernels take it; raises where it is none for them."""
    if tensor.device != like.device:
        raise ValueError(f"{name} on {tensor.device}: {like.device} like the others")
    if tensor.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} of dtype {str(tensor.dtype).removeprefix('torch.')}: {names} here")
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _int32(name: str, tensor: Optional[Tensor], like: Tensor, batch: int) -> Optional[Tensor]:
    """Positions, one per sequence, without a look at them."""
    if tensor is None:
        return None
    if tensor.shape != (batch,) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ValueError(f"{name} of shape {tuple(tensor.shape)}, {tensor.dtype}: integers of "
                         f"shape ({batch},), one per sequence")
    if tensor.device != like.device:
        if torch.cuda.is_current_stream_capturing():
            raise ValueError(f"{name} on {tensor.device}: {like.device} in a captured graph")
        if tensor.device.type == "cpu":
            for one in tensor.tolist():
                integer(name, one, 0, 2**31 - 2)
        tensor = tensor.to(like.device)
    return tensor.to(torch.int32).contiguous()


def _address(tensor: Optional[Tensor]) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _launch(call: Any, like: Tensor) -> None:
    workspace = torch.empty(call.workspace_size, dtype=torch.uint8, device=like.device)
    call.launch(_address(workspace), workspace.numel(),
                torch.cuda.current_stream(like.device).cuda_stream)


def _on_device(q: Tensor, k: Tensor, v: Tensor, routing: List[Tensor], schedule: Schedule,
               softmax_scale: Optional[float], search_scale: float, query_offset: int,
               length: Optional[Tensor], start: Optional[Tensor], search_keys: Optional[Tensor],
               return_lse: bool) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
    max_context()
    if len(routing) != schedule.steps - 1:
        raise ValueError(f"routing_queries {len(routing)}: one array per search level, "
                         f"{schedule.steps - 1}")
    sizes = check_shapes(q.shape, k.shape, v.shape, [level.shape for level in routing],
                         None if search_keys is None else search_keys.shape,
                         query_offset if length is None else None)
    q = _dense("q", q, q, _KERNEL_DTYPES)
    k, v = _dense("k", k, q, (q.dtype,)), _dense("v", v, q, (q.dtype,))
    routing = [_dense(f"routing_queries[{m}]", level, q, (q.dtype,))
               for m, level in enumerate(routing)]
    if search_keys is not None:
        search_keys = _dense("search_keys", search_keys, q, (q.dtype,))
    start = _int32("start", start, q, sizes.batch)
    length = _int32("length", length, q, sizes.batch)
    results = _empty_results(q, schedule, return_lse)
    output, lse, spans, scores = results
    if sizes.queries == 0:
        return results
    dtype = str(q.dtype).removeprefix("torch.")
    shape = (sizes.batch, sizes.heads, sizes.kv_heads, sizes.queries, sizes.keys, sizes.head_dim,
             query_offset)
    with torch.cuda.device(q.device):
        tables = device_schedule(schedule, max(sizes.keys, 1), torch.cuda.current_device())
        _launch(_core.cuda_attention(
            tables, shape, dtype, _address(q), _address(k), _address(v),
            [_address(level) for level in routing], _address(search_keys), _address(start),
            _address(length), search_scale, softmax_scale, _address(output), _address(spans),
            _address(scores)), q)
        if return_lse:
            _log_sum_exps(tables, shape, dtype, q, k, v, start, length, softmax_scale, spans, lse,
                          schedule)
    return results


def _log_sum_exps(tables: Any, shape: Tuple[int, ...], dtype: str, q: Tensor, k: Tensor, v: Tensor,
                  start: Optional[Tensor], length: Optional[Tensor],
                  softmax_scale: Optional[float], spans: Tensor, lse: Tensor,
                  schedule: Schedule) -> None:
    """Of every span joined with the window: the kernels leave the window out of a span."""
    def attend(slots: int, of: Optional[Tensor], result: Tensor) -> None:
        unused = q.new_empty((*q.shape[:3], slots, q.shape[3]))
        _launch(_core.cuda_span_attention(
            tables, shape, dtype, _address(q), _address(k), _address(v), _address(start),
            _address(length), softmax_scale, slots, _address(of), _address(unused),
            _address(result)), q)

    window = torch.empty((*lse.shape[:3], 1), dtype=torch.float32, device=q.device)
    attend(1, None, window)
    if schedule.steps == 1:
        lse.copy_(window.expand_as(lse))
        return
    attend(schedule.top_k, spans, lse)
    torch.logaddexp(lse, window, out=lse)


def _accumulate_on_device(x: Tensor, a: Tensor, b: Tensor, c: Tensor, initial: Optional[Tensor],
                          start: Optional[Tensor], offset: int) -> Tuple[Tensor, Tensor]:
    max_context()
    if x.dim() != 4 or b.dim() != 4:
        raise ValueError(f"x, b of shapes {tuple(x.shape)}, {tuple(b.shape)}: "
                         "[batch, num_heads, length, head_dim], [.., state]")
    batch, heads, length, head_dim = x.shape
    state = b.shape[3]
    x = _dense("x", x, x, _KERNEL_DTYPES)
    b, c = _dense("b", b, x, (x.dtype,)), _dense("c", c, x, (x.dtype,))
    if a.dtype == x.dtype:
        a = a.float()
    a = _dense("a", a, x, (torch.float32,))
    if initial is not None:
        initial = _dense("initial", initial, x, (torch.float32,))
    for name, tensor, wanted in (("a", a, (batch, heads, length)),
                                 ("b", b, (batch, heads, length, state)),
                                 ("c", c, (batch, heads, length, state)),
                                 ("initial", initial, (batch, heads, head_dim, state))):
        if tensor is not None and tensor.shape != wanted:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}: {wanted} here")
    start = _int32("start", start, x, batch)
    output = x.new_empty(x.shape)
    final = x.new_empty((batch, heads, head_dim, state), dtype=torch.float32)
    with torch.cuda.device(x.device):
        _launch(_core.cuda_accumulation(
            (batch, heads, length, head_dim, state, integer("offset", offset, 0, 2**31 - 2)),
            str(x.dtype).removeprefix("torch."), _address(x), _address(a), _address(b),
            _address(c), _address(initial), _address(start), _address(output), _address(final)), x)
    return output, final
