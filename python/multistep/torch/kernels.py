"""Calls of the kernels on CUDA tensors, on the current stream of their device."""

import atexit
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor

from .. import _core
from .._arrays import check_shapes
from .._rational import integer
from ..schedule import Schedule

_DTYPES = (torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_MAX_POSITION = 2**31 - 2  # the kernels count keys in 32 bits


def require_usable() -> None:
    """Raises RuntimeError where the kernels cannot be used on the current device."""
    if reason := _core.cuda_status():
        raise RuntimeError(f"multistep: {reason}")


_usable: set[int] = set()


def max_context(device: int) -> int:
    """Longest context that the kernels take on the current device, which was asked about once."""
    if device not in _usable:
        require_usable()
        _usable.add(device)
    return int(_core.max_context)


_tables: dict[Tuple[Schedule, int, int], Any] = {}  # kept for good: captured graphs look at them
atexit.register(_tables.clear)  # while the device is still there


def device_schedule(schedule: Schedule, length: int, device: int) -> Any:
    """The tables of a schedule on the current device, for ``length`` keys at least. They are the
    same for every top_k."""
    limit = max_context(device)
    length = integer("length", length, 1, limit)
    rounded = min(max(1024, 1 << (length - 1).bit_length()), limit)
    for size in (rounded, length):
        if (schedule, size, device) in _tables:
            return _tables[schedule, size, device]
    if schedule.top_k != 1:
        tables = device_schedule(schedule.with_top_k(1), length, device)
        return _tables.setdefault((schedule, tables.max_length, device),
                                  tables.with_top_k(schedule.top_k))
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("multistep: a schedule's tables cannot be made while a graph is "
                           "captured; call multistep.torch.prepare(schedule, length) before")
    try:
        made = _core.DeviceSchedule(schedule.plan(rounded))
    except ValueError:
        made = _core.DeviceSchedule(schedule.plan(length))  # those for more keys may be too large
    return _tables.setdefault((schedule, made.max_length, device), made)


def _dense(name: str, tensor: Tensor, like: Tensor, dtypes: Tuple[torch.dtype, ...]) -> Tensor:
    """The tensor as kernels take it; raises where it is none for them."""
    if tensor.device != like.device:
        raise ValueError(f"{name} on {tensor.device}: {like.device} like the others")
    if tensor.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} of dtype {str(tensor.dtype).removeprefix('torch.')}: {names} here")
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _positions(name: str, tensor: Optional[Tensor], like: Tensor, batch: int) -> Optional[Tensor]:
    """Positions, one per sequence, without a look at them: those behind every key stay so."""
    if tensor is None:
        return None
    if tensor.shape != (batch,) or tensor.dtype not in _INTEGERS:
        raise ValueError(f"{name} of shape {tuple(tensor.shape)}, {tensor.dtype}: integers of "
                         f"shape ({batch},), one per sequence")
    if tensor.device != like.device:
        if torch.cuda.is_current_stream_capturing():
            raise ValueError(f"{name} on {tensor.device}: {like.device} in a captured graph")
        if tensor.device.type == "cpu":
            for one in tensor.tolist():
                integer(name, one, 0, _MAX_POSITION)
        tensor = tensor.to(like.device)
    return narrowed(tensor).contiguous()


def narrowed(positions: Tensor) -> Tensor:
    """As int32, where what is out of range becomes the nearest position rather than any."""
    if positions.dtype == torch.int64:
        positions = positions.clamp(0, _MAX_POSITION)
    return positions.to(torch.int32)


def _address(tensor: Optional[Tensor]) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _address_of_some(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.numel() else 0


def _launch(call: Any, like: Tensor) -> None:
    workspace = torch.empty(call.workspace_size, dtype=torch.uint8, device=like.device)
    call.launch(_address(workspace), workspace.numel(),
                torch.cuda.current_stream(like.device).cuda_stream)


def attention(q: Tensor, k: Tensor, v: Tensor, routing: List[Tensor], schedule: Schedule,
              softmax_scale: Optional[float], search_scale: float, query_offset: int,
              length: Optional[Tensor], start: Optional[Tensor], search_keys: Optional[Tensor],
              results: Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]) -> None:
    """Fills output, and where they have elements lse, window_lse, spans, scores and anchors."""
    with torch.cuda.device(q.device):
        device = torch.cuda.current_device()
        integer("query_offset", query_offset, 0, max_context(device))
        if len(routing) != schedule.steps - 1:
            raise ValueError(f"routing_queries {len(routing)}: one array per search level, "
                             f"{schedule.steps - 1}")
        sizes = check_shapes(q.shape, k.shape, v.shape, [level.shape for level in routing],
                             None if search_keys is None else search_keys.shape,
                             query_offset if length is None else None)
        q = _dense("q", q, q, _DTYPES)
        k, v = _dense("k", k, q, (q.dtype,)), _dense("v", v, q, (q.dtype,))
        routing = [_dense(f"routing_queries[{m}]", level, q, (q.dtype,))
                   for m, level in enumerate(routing)]
        if search_keys is not None:
            search_keys = _dense("search_keys", search_keys, q, (q.dtype,))
        start = _positions("start", start, q, sizes.batch)
        length = _positions("length", length, q, sizes.batch)
        if sizes.queries == 0:
            return
        output, lse, window_lse, spans, scores, anchors = map(_address_of_some, results)
        dtype = str(q.dtype).removeprefix("torch.")
        shape = (sizes.batch, sizes.heads, sizes.kv_heads, sizes.queries, sizes.keys,
                 sizes.head_dim, query_offset)
        tables = device_schedule(schedule, max(sizes.keys, 1), device)
        _launch(_core.cuda_attention(
            tables, shape, dtype, _address(q), _address(k), _address(v),
            [_address(level) for level in routing], _address(search_keys), _address(start),
            _address(length), search_scale, softmax_scale, output, spans, scores, lse, window_lse,
            anchors), q)


def accumulate(x: Tensor, a: Tensor, b: Tensor, c: Tensor, initial: Optional[Tensor],
               start: Optional[Tensor], offset: int) -> Tuple[Tensor, Tensor]:
    """The output and the final state."""
    with torch.cuda.device(x.device):
        max_context(torch.cuda.current_device())
    if x.dim() != 4 or b.dim() != 4:
        raise ValueError(f"x, b of shapes {tuple(x.shape)}, {tuple(b.shape)}: "
                         "[batch, num_heads, length, head_dim], [.., state]")
    batch, heads, length, head_dim = x.shape
    state = b.shape[3]
    x = _dense("x", x, x, _DTYPES)
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
    start = _positions("start", start, x, batch)
    output = x.new_empty(x.shape)
    final = x.new_empty((batch, heads, head_dim, state), dtype=torch.float32)
    with torch.cuda.device(x.device):
        _launch(_core.cuda_accumulation(
            (batch, heads, length, head_dim, state, integer("offset", offset, 0, _MAX_POSITION)),
            str(x.dtype).removeprefix("torch."), _address(x), _address(a), _address(b),
            _address(c), _address(initial), _address(start), _address(output), _address(final)), x)
    return output, final
