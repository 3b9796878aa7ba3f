"""Calls that were made before, forward and back: what they were checked for is their key, so that
the like needs no second look, and no operator where nothing of PyTorch would see it."""

from __future__ import annotations

import atexit
import functools
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..schedule import Schedule
from . import kernels

_SCALARS = (type(None), int, float, str)
_MOST = 256
# Names of PyTorch's own that tell who looks at operators: without one every call takes the operator.
_TELLS = all(hasattr(torch._C, name) for name in (
    "_dispatch_keys", "_len_torch_function_stack", "_len_torch_dispatch_stack",
    "_are_functorch_transforms_active", "_get_tracing_state"))

_calls: dict[Any, kernels.Ready] = {}
atexit.register(_calls.clear)  # they hold tables: see there


def key_of(call: str, q: Any, *values: Any) -> Optional[tuple[Any, ...]]:
    """All that such a call with these values is checked for and laid out by: of tensors everything
    but their own values. None where PyTorch is to see the operator."""
    if not _TELLS or _is_watched() or not kernels.on_current_device(q):
        return None
    plain = _plain_keys(q.device)
    key: list[Any] = [call]
    for one in (q, *values):
        kind = type(one)
        if kind is Tensor:
            if torch._C._dispatch_keys(one).raw_repr() not in plain:
                return None
            key += (one.shape, one.stride(), one.dtype, one.device, one.data_ptr() % 16)
        elif kind is Schedule:
            key.append(one.text)
        elif kind in _SCALARS:
            key += (kind, one)  # True is no 1 here
        else:
            return None
    return tuple(key)


def find(key: Optional[tuple[Any, ...]]) -> Optional[kernels.Ready]:
    return _calls.get(key)


def keep(key: tuple[Any, ...], call: kernels.Ready) -> None:
    if len(_calls) >= _MOST:
        _calls.clear()
    _calls[key] = call


def _is_watched() -> bool:
    """Does anything of PyTorch look at operators, or change what they are given?"""
    return bool(torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack()
                or torch._C._are_functorch_transforms_active() or torch._C._get_tracing_state()
                or forward_ad._current_level >= 0 or torch.autograd.profiler._is_profiler_enabled
                or torch.is_autocast_enabled("cuda"))


@functools.lru_cache(maxsize=None)
def _plain_keys(device: torch.device) -> frozenset[int]:
    """How PyTorch dispatches on dense tensors that are neither wrapped nor lazily negated."""
    found = []
    for inference in (False, True):
        with torch.inference_mode(inference):
            found.append(torch._C._dispatch_keys(torch.empty(0, device=device)).raw_repr())
    return frozenset(found)
