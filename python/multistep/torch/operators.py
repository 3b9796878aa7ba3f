"""The custom operators of PyTorch behind multistep.torch: each with the oracle on the CPU, the
kernels on CUDA and a fake kernel for torch.compile. They take the records of arguments field by
field, a schedule as its text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Optional, get_type_hints

import torch
from torch import Tensor

from .. import _core, oracle
from .._problem import Arguments, Attended
from .._recurrence import Recurrence
from ..schedule import Schedule
from . import kernels

_TYPES: dict[Any, str] = {
    Any: "Tensor", Optional[Any]: "Tensor?", list[Any]: "Tensor[]", Schedule: "str", int: "SymInt",
    Optional[int]: "SymInt?", float: "float", Optional[float]: "float?", str: "str"}


def _fields(record: type) -> str:
    """The fields of a record as operators' schemas have them."""
    return ", ".join(f"{_TYPES[kind]} {name}" for name, kind in get_type_hints(record).items())


def _tensors(count: int) -> str:
    return f"({', '.join(['Tensor'] * count)})"


def operands(given: Arguments) -> tuple[Any, ...]:
    """The arguments as the operators take them."""
    return tuple(given._replace(schedule=given.schedule.text))  # type: ignore[arg-type]


def _read(operands: Sequence[Any]) -> Arguments:
    """And back."""
    given = Arguments(*operands)
    return given._replace(schedule=_schedule(operands[4], given.top_k))


@functools.lru_cache(maxsize=None)
def _schedule(text: str, top_k: Optional[int]) -> Schedule:
    return Schedule.from_text(text).with_top_k(top_k)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# Attention: an ``Attended``, of no elements without ``details`` but for the output


@torch.library.custom_op(
    "multistep::attention", mutates_args=(), device_types="cpu",
    schema=f"({_fields(Arguments)}, bool details) -> {_tensors(len(Attended._fields))}")
def attention(*operands: Any) -> tuple[Tensor, ...]:
    *given, details = operands
    found = oracle.attention(*_read(given))
    results = _empty(given, False)
    if not details:
        return (torch.from_numpy(found.output).to(results.output.dtype), *results[1:])
    return tuple(torch.from_numpy(array).to(like.dtype) for array, like in zip(found, results))


@attention.register_kernel("cuda")
def _(*operands: Any) -> tuple[Tensor, ...]:
    *given, details = operands
    results = _empty(given, details)
    kernels.attention(_read(given), results)
    return tuple(results)


@attention.register_fake
def _(*operands: Any) -> tuple[Tensor, ...]:
    *given, details = operands
    return tuple(_empty(given, details))


def _empty(operands: Sequence[Any], details: bool) -> Attended:
    """``top_k`` may be a symbol: it is no key of a cache here."""
    q, schedule, top_k = operands[0], operands[4], operands[5]
    of = _schedule(schedule, None)
    rows = q.shape[:3]
    k = of.top_k if top_k is None else top_k
    wide = _wide(q.dtype)
    integers = torch.int32 if q.device.type == "cuda" else torch.int64
    shapes = ((*rows, k), rows, (*rows, k, 2), (*rows, k), (*rows, k, of.steps - 1))
    dtypes = (wide, wide, integers, wide, integers)
    return Attended(q.new_empty(q.shape), *(q.new_empty(shape if details else (0,), dtype=dtype)
                                            for shape, dtype in zip(shapes, dtypes)))


# Its gradients: derivatives by q, k, v, the routing queries and the search keys


@torch.library.custom_op(
    "multistep::attention_backward", mutates_args=(), device_types="cpu",
    schema="(Tensor? by_output, Tensor? by_lse, Tensor? by_window_lse, Tensor? by_scores, "
           f"{_fields(Arguments)}) -> {_tensors(5)}")
def attention_backward(*operands: Any) -> tuple[Tensor, ...]:
    given = _read(operands[4:])
    dq, dk, dv, routing, search = oracle.attention_backward(
        oracle.problem(*given), *(None if by is None else by.double().numpy()
                                  for by in operands[:4]))
    q = given.q
    by_q, by_k, by_v = (torch.from_numpy(array).to(q.dtype) for array in (dq, dk, dv))
    levels = [torch.from_numpy(array).to(q.dtype) for array in routing]
    return (by_q, by_k, by_v, torch.stack(levels) if levels else q.new_empty((0, *q.shape)),
            q.new_empty((0,)) if search is None else torch.from_numpy(search).to(q.dtype))


@attention_backward.register_fake
def _(*operands: Any) -> tuple[Tensor, ...]:
    given = Arguments(*operands[4:])
    q, k, v, keys = given.q, given.k, given.v, given.search_keys
    return (q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape),
            q.new_empty((len(given.routing_queries), *q.shape)),
            q.new_empty((0,)) if keys is None else keys.new_empty(keys.shape))


# Accumulation: the output and the final state


@torch.library.custom_op("multistep::accumulate", mutates_args=(), device_types="cpu",
                         schema=f"({_fields(Recurrence)}) -> {_tensors(2)}")
def accumulate(*operands: Any) -> tuple[Tensor, Tensor]:
    output, state = oracle.accumulate(*operands)
    dtype = operands[0].dtype
    return torch.from_numpy(output).to(dtype), torch.from_numpy(state).to(_wide(dtype))


@accumulate.register_kernel("cuda")
def _(*operands: Any) -> tuple[Tensor, Tensor]:
    return kernels.accumulate(Recurrence(*operands))


@accumulate.register_fake
def _(*operands: Any) -> tuple[Tensor, Tensor]:
    x = operands[0]
    return x.new_empty(x.shape), _state(Recurrence(*operands), _wide(x.dtype))


def _state(given: Recurrence, dtype: torch.dtype) -> Tensor:
    batch, heads, _, head_dim = given.x.shape
    empty: Tensor = given.x.new_empty((batch, heads, head_dim, given.b.shape[3]), dtype=dtype)
    return empty


# Its gradients: derivatives by x, a, b, c and the initial state


@torch.library.custom_op(
    "multistep::accumulate_backward", mutates_args=(), device_types="cpu",
    schema=f"(Tensor by_output, Tensor by_state, {_fields(Recurrence)}) -> {_tensors(5)}")
def accumulate_backward(by_output: Tensor, by_state: Tensor, *operands: Any
                        ) -> tuple[Tensor, ...]:
    given = Recurrence(*operands)
    gradients = _core.accumulate_backward(oracle.recurrence(*given)[0],
                                          by_output.double().contiguous().numpy(),
                                          by_state.double().contiguous().numpy())
    return tuple(torch.from_numpy(gradient).to(dtype)
                 for gradient, dtype in zip(gradients, (*(one.dtype for one in given[:4]),
                                                        _dtype_of_state(given))))


@accumulate_backward.register_fake
def _(by_output: Tensor, by_state: Tensor, *operands: Any) -> tuple[Tensor, ...]:
    given = Recurrence(*operands)
    return (*(one.new_empty(one.shape) for one in given[:4]),
            _state(given, _dtype_of_state(given)))


def _dtype_of_state(given: Recurrence) -> torch.dtype:
    return _wide(given.x.dtype) if given.initial is None else given.initial.dtype
