"""Positions beside tensors: as callers give them, as operators take them, as kernels do."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from .. import _arrays
from .._rational import integer
from ..schedule import MAX_LENGTH

MAX_POSITION = 2**31 - 2  # the kernels count keys in 32 bits
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def read(name: str, value: Any, beside: Tensor) -> Optional[Tensor]:
    """One position per sequence; an integer counts for all. Tensors are left to the operator: on
    the device nobody looks at them."""
    if value is None or isinstance(value, Tensor):
        return value
    if beside.dim() < 1:
        raise ValueError(f"array of shape {tuple(beside.shape)}: one row per sequence, as {name}")
    batch, device = beside.shape[0], beside.device
    high = MAX_POSITION if device.type == "cuda" else MAX_LENGTH
    if isinstance(value, (list, tuple, np.ndarray)):
        return torch.tensor(_arrays.positions(name, value, batch, high), device=device)
    symbol = torch.compiler.is_compiling() and isinstance(value, int)
    if not symbol or isinstance(value, bool):
        value = integer(name, value, 0, high)
    return torch.full((batch,), value, dtype=torch.int64, device=device)


def boundaries(name: str, value: Any, beside: Tensor) -> Optional[Tensor]:
    """Of packed sequences; tensors are left to the operator."""
    if value is None or isinstance(value, Tensor):
        return value
    return torch.tensor(_arrays.integers(name, value), device=beside.device)


def on_device(name: str, given: Optional[Tensor], beside: Tensor) -> Optional[Tensor]:
    """As the kernels take them, int32 beside the arrays, without a look at them: those behind every
    key stay so."""
    if given is not None:
        require_one_each(name, given, beside.shape[0])
    return _beside(name, given, beside)


def boundaries_on_device(name: str, given: Optional[Tensor], beside: Tensor) -> Optional[Tensor]:
    """The same of packed sequences, whose shape has been checked."""
    return _beside(name, given, beside)


def _beside(name: str, given: Optional[Tensor], beside: Tensor) -> Optional[Tensor]:
    if given is None:
        return None
    require_integers(name, given)
    if given.device != beside.device:
        if torch.cuda.is_current_stream_capturing():
            raise ValueError(f"{name} on {given.device}: {beside.device} in a captured graph")
        if given.device.type == "cpu":
            for one in given.tolist():
                integer(name, one, 0, MAX_POSITION)
        given = given.to(beside.device)
    return narrowed(given).contiguous()


def require_one_each(name: str, given: Tensor, batch: int) -> None:
    """Raises ValueError where it is not one position per sequence."""
    if given.shape != (batch,):
        raise ValueError(f"{name} of shape {tuple(given.shape)}: integers of shape ({batch},), one "
                         "per sequence")


def require_integers(name: str, given: Tensor) -> None:
    """Raises TypeError where it is of others."""
    if given.dtype not in _INTEGERS:
        raise TypeError(f"{name} of {given.dtype}: integers")


def narrowed(positions: Tensor) -> Tensor:
    """As int32, where what is out of range becomes the nearest position rather than any."""
    if positions.dtype == torch.int64:
        positions = positions.clamp(0, MAX_POSITION)
    return positions.to(torch.int32)
