"""Calls of the kernels on CUDA tensors, on the current stream of their device."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Union

import torch
from torch import Tensor

from .. import _core, _problem, _recurrence
from .._problem import (Arguments, Attended, Derivatives, Gradients, Kept, Sizes, each,
                        shapes_found)
from .._rational import integer
from .._recurrence import Recurrence, WalkGradients
from ..schedule import Schedule
from . import pages, positions
from .tables import device_schedule, max_context

DTYPES = (torch.bfloat16, torch.float16)
_ARRAYS = ("q", "k", "v", "search_keys")  # beside the routing queries


class Ready(NamedTuple):
    """A call as it was launched, and the bytes of its workspace."""

    call: _core.Call
    workspace_size: int

    def again(self, device: torch.device, fields: dict[str, Any]) -> None:
        """The same on the current device, for fields that differ in the values of tensors alone."""
        call = copy.copy(self.call)  # which other threads may be copying too
        _fill(call, fields)  # they live until the launch
        _launch(call, self.workspace_size, device)


def attention(given: Arguments, results: Attended) -> Optional[Ready]:
    """Fills the results that have elements. Gives what serves ``attention_again`` for arrays laid
    out alike; None where some had to be copied, or there was nothing to do."""
    with torch.cuda.device(given.q.device):
        fields = _inputs(given, _rows)
        if not given.q.shape[2]:
            return None
        fields.update(_told_strides(fields))
        call = _core.CudaAttention()
        _fill(call, fields | results._asdict())
        ready = Ready(call, call.workspace_size)
        _launch(*ready, given.q.device)
    return ready if _in_place(given, fields) else None


def attention_again(ready: Ready, given: Arguments, results: Attended) -> None:
    """The same on the current device, for arguments that differ in the values of tensors alone."""
    ready.again(given.q.device, _tensors(given) | results._asdict())


def _tensors(given: Arguments) -> dict[str, Any]:
    """What differs between calls that are alike."""
    return {**{name: getattr(given, name) for name in _ARRAYS},
            "routing_queries": given.routing_queries, **_positions(given)}


def _in_place(given: Arguments, fields: dict[str, Any]) -> bool:
    """Are the arrays read where they lie?"""
    return all(fields[name] is getattr(given, name) for name in _ARRAYS) and all(
        map(operator.is_, fields["routing_queries"], given.routing_queries))


def on_current_device(q: Any) -> bool:
    """Is it a tensor on the current CUDA device?"""
    return type(q) is Tensor and q.is_cuda and q.device.index == torch.cuda.current_device()


def decode_in_pages(given: Arguments, table: Tensor, output: Tensor) -> None:
    """Fills the output; keys lie in pages."""
    with torch.cuda.device(given.q.device):
        fields = _inputs(given, _rows, pages.check_shapes(given, table))
        if given.q.shape[2]:
            fields.update(_told_strides(fields), max_pages=table.shape[1],
                          page_size=given.k.shape[2],
                          block_table=positions.narrowed(table).contiguous())
            launch(_core.CudaAttention(), given.q, **fields, output=output)


def attention_backward(by: Derivatives, at: Kept, given: Arguments, results: Gradients
                       ) -> Optional[Ready]:
    """Fills the gradients that have elements. Gives what serves ``attention_backward_again``, as
    ``attention`` does."""
    q, schedule = given.q, given.schedule
    with torch.cuda.device(q.device):
        fields = _inputs(given, dense)
        if not q.shape[2]:
            sums: list[Any] = [results.k, results.v, results.search_keys]
            for one in sums:
                one.zero_()
            return None
        shapes = shapes_found(q.shape, schedule.top_k, schedule.steps - 1)
        dtypes = {"by_output": q.dtype, "output": q.dtype, "spans": torch.int32,
                  "anchors": torch.int32}
        found = _found(by, at, schedule)
        for name, tensor in found.items():
            fields[name] = optional(name, tensor, q, dtypes.get(name, torch.float32),
                                    getattr(shapes, name.removeprefix("by_")))
        call = _core.CudaAttentionBackward()
        _fill(call, fields | _by(results))
        ready = Ready(call, call.workspace_size)
        _launch(*ready, q.device)
    in_place = all(fields[name] is tensor for name, tensor in found.items())
    return ready if in_place and _in_place(given, fields) else None


def attention_backward_again(ready: Ready, by: Derivatives, at: Kept, given: Arguments,
                             results: Gradients) -> None:
    """The same on the current device, for arguments that differ in the values of tensors alone."""
    ready.again(given.q.device,
                _tensors(given) | _found(by, at, given.schedule) | _by(results))


def _found(by: Derivatives, at: Kept, schedule: Schedule) -> dict[str, Any]:
    """What gradients are made of beside the arguments."""
    kept = at._asdict()
    if schedule.steps == 1:
        kept = {name: kept[name] for name in ("output", "window_lse")}
    return by._asdict() | kept


def _inputs(given: Arguments, laid_out: Callable[..., Tensor],
            sizes: Optional[Sizes] = None) -> dict[str, Any]:
    """What the forward and its gradient are given, arrays as ``laid_out``."""
    device = torch.cuda.current_device()
    integer("query_offset", given.query_offset, 0, max_context(device))
    sizes = sizes or _problem.check_shapes(given)

    def taken(name: str, tensor: Tensor) -> Tensor:
        return laid_out(name, tensor, given.q, DTYPES if name == "q" else (given.q.dtype,))

    arrays = each(taken, given)._replace(**_positions(given), top_k=None)  # the schedule has it
    packed = None if given.cu_seqlens is None else given.cu_seqlens.shape[0] - 1
    return {**sizes._asdict(), **arrays._asdict(), "sequences": packed,
            "dtype": name_of(given.q.dtype),
            "schedule": device_schedule(given.schedule, max(sizes.keys, 1), device)}


def _positions(given: Arguments) -> dict[str, Any]:
    return {"start": positions.on_device("start", given.start, given.q),
            "length": positions.on_device("length", given.length, given.q),
            **{name: positions.boundaries_on_device(name, getattr(given, name), given.q)
               for name in ("cu_seqlens", "cu_seqlens_k")}}


def accumulate(given: Recurrence) -> tuple[Tensor, Tensor]:
    """The output and the final state."""
    x, b = given.x, given.b
    with torch.cuda.device(x.device):
        fields = _inputs_of_walk(given)
        output = x.new_empty(x.shape)
        state = x.new_empty((*x.shape[:2], x.shape[3], b.shape[3]), dtype=torch.float32)
        launch(_core.CudaAccumulation(), x, **fields, output=output, final_state=state)
        return output, state


def accumulate_backward(by_output: Optional[Tensor], by_state: Optional[Tensor],
                        given: Recurrence, results: WalkGradients) -> None:
    """Fills the gradients that have elements."""
    x, b = given.x, given.b
    with torch.cuda.device(x.device):
        fields = _inputs_of_walk(given)
        state = (*x.shape[:2], x.shape[3], b.shape[3])
        launch(_core.CudaAccumulationBackward(), x, **fields, **_by(results),
                by_output=optional("by_output", by_output, x, x.dtype, x.shape),
                by_state=optional("by_state", by_state, x, torch.float32, state))


def _inputs_of_walk(given: Recurrence) -> dict[str, Any]:
    """What the forward and its gradient are given."""
    max_context(torch.cuda.current_device())
    sizes = _recurrence.check_shapes(given)
    x = dense("x", given.x, given.x, DTYPES)
    a = given.a.float() if given.a.dtype == x.dtype else given.a
    arrays = Recurrence(
        x, dense("a", a, x, (torch.float32,)), dense("b", given.b, x, (x.dtype,)),
        dense("c", given.c, x, (x.dtype,)),
        optional("initial", given.initial, x, torch.float32),
        positions.on_device("start", given.start, x),
        integer("offset", given.offset, 0, positions.MAX_POSITION))
    return {**sizes._asdict(), **arrays._asdict(), "dtype": name_of(x.dtype)}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dense(name: str, tensor: Tensor, like: Tensor, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """The tensor as kernels take it; raises where it is none for them."""
    _require(name, tensor, like, dtypes)
    if not tensor.is_contiguous():
        tensor = in_wide_values(tensor).contiguous().view(tensor.dtype)
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def in_wide_values(tensor: Tensor) -> Tensor:
    """The same rows as values of 16 bytes, which CUDA copies twice as fast as those of 2; as they
    are where they are not made of such, or where gradients go through."""
    count = 16 // tensor.element_size()
    strides = tensor.stride()
    whole = (tensor.dim() > 0 and strides[-1] == 1 and tensor.shape[-1] % count == 0
             and tensor.data_ptr() % 16 == 0 and all(step % count == 0 for step in strides[:-1]))
    if not whole or torch.is_grad_enabled() and tensor.requires_grad:
        return tensor
    return tensor.view(torch.complex128)


def _rows(name: str, tensor: Tensor, like: Tensor, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """The same of what is read where it lies: rows of neighbouring values, 16 bytes at a time."""
    if tensor.is_contiguous():
        return dense(name, tensor, like, dtypes)
    _require(name, tensor, like, dtypes)
    steps = [step for size, step in zip(tensor.shape[:3], tensor.stride()) if size > 1]
    in_place = (tensor.shape[3] % 8 == 0 and tensor.stride(3) == 1 and tensor.data_ptr() % 16 == 0
                and all(step >= tensor.shape[3] and step % 8 == 0 for step in steps))
    return tensor if in_place else dense(name, tensor, like, dtypes)


def _told_strides(fields: dict[str, Any]) -> dict[str, Any]:
    """Those of arrays that are not dense."""
    told: dict[str, Any] = {f"{name}_strides": _strides(one) for name in _ARRAYS
                            if (one := fields[name]) is not None and not one.is_contiguous()}
    if not all(one.is_contiguous() for one in fields["routing_queries"]):
        told["routing_queries_strides"] = [_strides(one) for one in fields["routing_queries"]]
    return told


def _strides(tensor: Tensor) -> tuple[int, int, int]:
    """From one batch, head and row to the next, in values."""
    width = tensor.shape[3]
    # Where there is but one, a stride may be anything.
    batch, head, row = (step if size > 1 else width
                        for size, step in zip(tensor.shape[:3], tensor.stride()))
    return batch, head, row


def _require(name: str, tensor: Tensor, like: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raises where a tensor is none for the kernels."""
    if tensor.device != like.device:
        raise ValueError(f"{name} on {tensor.device}: {like.device} like the others")
    if tensor.dtype not in dtypes:
        wanted = " or ".join(map(name_of, dtypes))
        raise TypeError(f"{name} of dtype {name_of(tensor.dtype)}: {wanted} here")


def optional(name: str, tensor: Optional[Tensor], like: Tensor, dtype: torch.dtype,
              shape: Optional[Sequence[int]] = None) -> Optional[Tensor]:
    """The same of one that may be missing; with its shape, where nobody has looked at that yet."""
    if tensor is None:
        return None
    if shape is not None and tensor.shape != shape:
        raise ValueError(f"{name} of shape {tuple(tensor.shape)}: {tuple(shape)} here")
    return dense(name, tensor, like, (dtype,))


def _by(gradients: Union[Gradients, WalkGradients]) -> dict[str, Any]:
    """Gradients as calls name them."""
    return {f"by_{name}": value for name, value in gradients._asdict().items()}


def launch(call: _core.Call, like: Tensor, **fields: Any) -> None:
    """Launches a call with its fields."""
    _fill(call, fields)
    _launch(call, call.workspace_size, like.device)


def _fill(call: _core.Call, fields: dict[str, Any]) -> None:
    """Sets fields, of tensors their addresses. What is missing or has no elements is left out."""
    for name, value in fields.items():
        if value is None:
            continue
        if isinstance(value, Tensor):
            if value.numel():
                setattr(call, name, value.data_ptr())
        elif isinstance(value, list):
            setattr(call, name, [one.data_ptr() if isinstance(one, Tensor) else one
                                 for one in value])
        else:
            setattr(call, name, value)


def _launch(call: _core.Call, workspace_size: int, device: torch.device) -> None:
    workspace = torch.empty(workspace_size, dtype=torch.uint8, device=device)
    call.launch(workspace.data_ptr(), workspace_size,
                torch._C._cuda_getCurrentRawStream(device.index))
