"""The tables of schedules on devices, which are made once and kept for good."""

from __future__ import annotations

import atexit

import torch

from .. import _core
from .._rational import integer
from ..schedule import Schedule


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


# By the schedule's text, which is quickly found. Captured graphs look at them.
_tables: dict[tuple[str, int, int], _core.DeviceSchedule] = {}
atexit.register(_tables.clear)  # while the device is still there


def device_schedule(schedule: Schedule, length: int, device: int) -> _core.DeviceSchedule:
    """The tables of a schedule on the current device, for ``length`` keys at least. They are the
    same for every top_k."""
    limit = max_context(device)
    length = integer("length", length, 1, limit)
    rounded = min(max(1024, 1 << (length - 1).bit_length()), limit)
    for size in (rounded, length):
        if (schedule.text, size, device) in _tables:
            return _tables[schedule.text, size, device]
    if schedule.top_k != 1:
        tables = device_schedule(schedule.with_top_k(1), length, device)
        return _tables.setdefault((schedule.text, tables.max_length, device),
                                  tables.with_top_k(schedule.top_k))
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("multistep: a schedule's tables cannot be made while a graph is "
                           "captured; call multistep.torch.prepare(schedule, length) before")
    try:
        made = _core.DeviceSchedule(schedule.plan(rounded))
    except ValueError:
        made = _core.DeviceSchedule(schedule.plan(length))  # those for more keys may be too large
    return _tables.setdefault((schedule.text, made.max_length, device), made)
