"""Calls of the kernels on CUDA tensors, on the current stream of their device."""

from __future__ import annotations

from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from .. import _core, _problem, _recurrence
from .._problem import Arguments, Attended, each, filled
from .._rational import integer
from .._recurrence import Recurrence
from . import positions
from .tables import device_schedule, max_context

_DTYPES = (torch.bfloat16, torch.float16)


def attention(given: Arguments, results: Attended) -> None:
    """Fills the results that have elements."""
    with torch.cuda.device(given.q.device):
        device = torch.cuda.current_device()
        integer("query_offset", given.query_offset, 0, max_context(device))
        sizes = _problem.check_shapes(given)

        def dense(name: str, tensor: Tensor) -> Tensor:
            return _dense(name, tensor, given.q, _DTYPES if name == "q" else (given.q.dtype,))

        arrays = each(dense, given)._replace(
            top_k=None,  # which is the schedule's
            start=positions.on_device("start", given.start, given.q),
            length=positions.on_device("length", given.length, given.q))
        if sizes.queries == 0:
            return
        tables = device_schedule(given.schedule, max(sizes.keys, 1), device)
        fields = _addresses(arrays)
        fields.update(_addresses(results), schedule=tables, dtype=_name(given.q.dtype))
        call = filled(_core.CudaAttention(), **sizes._asdict(), **fields)
        _launch(call, given.q)


def accumulate(given: Recurrence) -> tuple[Tensor, Tensor]:
    """The output and the final state."""
    with torch.cuda.device(given.x.device):
        max_context(torch.cuda.current_device())
        sizes = _recurrence.check_shapes(given)
        x = _dense("x", given.x, given.x, _DTYPES)
        a = given.a.float() if given.a.dtype == x.dtype else given.a
        arrays = Recurrence(
            x, _dense("a", a, x, (torch.float32,)), _dense("b", given.b, x, (x.dtype,)),
            _dense("c", given.c, x, (x.dtype,)),
            None if given.initial is None else _dense("initial", given.initial, x,
                                                      (torch.float32,)),
            positions.on_device("start", given.start, x),
            integer("offset", given.offset, 0, positions.MAX_POSITION))
        output = x.new_empty(x.shape)
        state = x.new_empty((sizes.batch, sizes.heads, sizes.head_dim, sizes.state),
                            dtype=torch.float32)
        call = filled(_core.CudaAccumulation(), dtype=_name(x.dtype), output=output.data_ptr(),
                      final_state=state.data_ptr(), **sizes._asdict(), **_addresses(arrays))
        _launch(call, x)
        return output, state


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dense(name: str, tensor: Tensor, like: Tensor, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """The tensor as kernels take it; raises where it is none for them."""
    if tensor.device != like.device:
        raise ValueError(f"{name} on {tensor.device}: {like.device} like the others")
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name} of dtype {_name(tensor.dtype)}: {' or '.join(map(_name, dtypes))} "
                        "here")
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _addresses(record: NamedTuple) -> dict[str, Any]:
    """The fields by name as the library takes them: of tensors the addresses. What is missing or
    has no elements is left out. The caller keeps the tensors until the launch."""
    found: dict[str, Any] = {}
    for name, value in zip(record._fields, record):
        if isinstance(value, list):
            found[name] = [one.data_ptr() for one in value]
        elif isinstance(value, Tensor):
            if value.numel():
                found[name] = value.data_ptr()
        elif value is not None:
            found[name] = value
    return found


def _launch(call: Union[_core.CudaAttention, _core.CudaAccumulation], like: Tensor) -> None:
    workspace = torch.empty(call.workspace_size, dtype=torch.uint8, device=like.device)
    call.launch(workspace.data_ptr(), workspace.numel(),
                torch.cuda.current_stream(like.device).cuda_stream)
