"""What a candidate gets and what it hands in."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._arrays import converted, integers, is_tensor, on_device, require_memory
from .._problem import Sizes
from ..schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("spans", "scores", "anchors", "span_outputs", "lse", "window_output", "window_lse",
         "output")
"""What a candidate may hand in."""


def to_host(value: Any) -> Any:
    if is_tensor(value):
        return value.detach().cpu()
    if on_device(value):
        import torch
        import torch.utils.dlpack

        return torch.utils.dlpack.from_dlpack(value).cpu()
    return value


def copied(value: Any) -> Any:
    """An array in main memory of its own, with the strides of ``value``, its alignment, and what
    lies between its elements; others, which the oracle has copied, as they are."""
    if isinstance(value, (list, tuple)):
        return type(value)([copied(one) for one in value])
    if on_device(value) or not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        return value
    if is_tensor(value):
        return _copied_tensor(value)
    return _copied_array(value) if isinstance(value, np.ndarray) else copy.deepcopy(value)


_ALIGNMENT = 64  # bytes


def _copied_array(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if value.size == 0 or value.dtype.hasobject:
        return value.copy()
    address = value.__array_interface__["data"][0]
    steps = [(size - 1) * stride for size, stride in zip(value.shape, value.strides)]
    below = -sum(step for step in steps if step < 0)
    size = sum(abs(step) for step in steps) + value.itemsize
    require_memory(f"array of shape {value.shape}, copied", size)
    room = np.empty(size + _ALIGNMENT, np.uint8)
    shift = (address - below - room.__array_interface__["data"][0]) % _ALIGNMENT
    ctypes.memmove(room.__array_interface__["data"][0] + shift, address - below, size)
    return np.ndarray(value.shape, value.dtype, room, shift + below, value.strides)


def _copied_tensor(value: Tensor) -> Tensor:
    import torch

    if value.layout != torch.strided or value.numel() == 0:
        return value.clone()
    here = value.detach()
    size = sum((n - 1) * stride for n, stride in zip(here.shape, here.stride())) + 1
    require_memory(f"tensor of shape {tuple(here.shape)}, copied", size * here.element_size())
    room = torch.empty(size + _ALIGNMENT // here.element_size(), dtype=here.dtype)
    shift = (here.data_ptr() - room.data_ptr()) % _ALIGNMENT // here.element_size()
    room[shift : shift + size] = torch.as_strided(here, (size,), (1,), here.storage_offset())
    copied = torch.as_strided(room, here.shape, here.stride(), shift)
    return copied.requires_grad_(value.requires_grad)


def fields(results: Any) -> dict[str, Any]:
    """What the candidate handed in, by name."""
    if isinstance(results, Mapping):
        unknown = [name for name in results if name not in NAMES]
        if unknown:
            raise ValueError(f"candidate's {unknown[0]!r}: {', '.join(NAMES)} are judged")
        found = dict(results)
    elif isinstance(results, np.ndarray) or hasattr(results, "__dlpack__"):
        found = {"output": results}
    else:
        found = {name: getattr(results, name, None) for name in NAMES}
    return {name: found.get(name) for name in NAMES}


def submitted(results: Any, sizes: Sizes, schedule: Schedule) -> dict[str, Any]:
    found = fields(results)
    if all(value is None for value in found.values()):
        raise ValueError(f"candidate of type {type(results).__name__}: hands in none of "
                         f"{', '.join(NAMES)}")
    if schedule.steps == 1:  # which has a window and no spans
        of_spans = [name for name in ("spans", "scores", "anchors", "span_outputs", "lse")
                    if found[name] is not None]
        if of_spans and all(found[name] is None for name in NAMES[5:]):
            raise ValueError(f"candidate's {of_spans[0]}: dense attention has no spans")
        for name in of_spans:
            found[name] = None
    for name in ("scores", "anchors", "span_outputs", "lse"):
        if found[name] is not None and found["spans"] is None:
            raise ValueError(f"candidate's {name}: cannot be judged without spans")
    rows = (sizes.batch, sizes.heads, sizes.queries)
    k, d = schedule.top_k, sizes.head_dim
    shapes = {"spans": (*rows, k, 2), "scores": (*rows, k),
              "anchors": (*rows, k, schedule.steps - 1),
              "span_outputs": (*rows, k, d), "lse": (*rows, k), "window_output": (*rows, d),
              "window_lse": rows, "output": (*rows, d)}
    arrays: dict[str, Any] = {}
    for name, value in found.items():
        if value is None:
            arrays[name] = None
            continue
        value = to_host(value)
        label = f"candidate's {name}"
        array = (integers(label, value) if name in ("spans", "anchors")
                 else converted(label, value).astype(np.float64, copy=False))
        if array.shape != shapes[name]:
            raise ValueError(f"{label} of shape {array.shape}: {shapes[name]} here")
        arrays[name] = array
    return arrays
