"""The custom operators of PyTorch behind multistep.torch: each with the oracle on the CPU, the
kernels on CUDA and a fake kernel for torch.compile. They take the records of arguments field by
field, a schedule as its text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Optional, get_type_hints

import torch
from torch import Tensor

from .. import oracle
from .._problem import (Arguments, Attended, Derivatives, Gradients, Kept,
                        shapes_found)
from .._recurrence import Recurrence, WalkGradients
from ..schedule import Schedule
from . import kernels, pages

_TYPES: dict[Any, str] = {
    Any: "Tensor", Optional[Any]: "Tensor?", list[Any]: "Tensor[]", Schedule: "str", int: "SymInt",
    Optional[int]: "SymInt?", float: "float", Optional[float]: "float?", str: "str"}


def _fields(record: type) -> str:
    """The fields of a record as operators' schemas have them."""
    return ", ".join(f"{_TYPES[kind]} {name}" for name, kind in get_type_hints(record).items())


def _tensors(count: int) -> str:
    return f"({', '.join(['Tensor'] * count)})"


_SCHEDULE, _TOP_K = map(Arguments._fields.index, ("schedule", "top_k"))


def operands(given: Arguments) -> tuple[Any, ...]:
    """The arguments as the operators take them."""
    return (*given[:_SCHEDULE], given.schedule.text, *given[_SCHEDULE + 1:])


def _read(operands: Sequence[Any]) -> Arguments:
    """And back."""
    schedule = schedule_of(operands[_SCHEDULE], operands[_TOP_K])
    return Arguments._make((*operands[:_SCHEDULE], schedule, *operands[_SCHEDULE + 1:]))


@functools.lru_cache(maxsize=None)
def schedule_of(text: str, top_k: Optional[int]) -> Schedule:
    return Schedule.from_text(text).with_top_k(top_k)


_Library: Any = torch.library.Library  # which has no types
_library = _Library("multistep", "DEF")


def _define(schema: str, oracle_call: Callable[..., Any], kernel_call: Callable[..., Any],
            fake: Callable[..., Any]) -> None:
    """An operator: what runs on CPU tensors, on CUDA tensors, and on those without values."""
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, oracle_call, "CPU")
    _library.impl(name, kernel_call, "CUDA")
    torch.library.register_fake(f"multistep::{name}", fake, lib=_library)


def defined(name: str) -> Any:
    return getattr(torch.ops.multistep, name).default


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _doubles(tensor: Optional[Tensor]) -> Optional[oracle.Doubles]:
    return None if tensor is None else tensor.detach().double().numpy()


# Attention: an ``Attended``, of no elements without ``details`` but for the output


def _attention(*operands: Any) -> tuple[Tensor, ...]:
    *given, details = operands
    found = oracle.attention(*_read(given))
    results = _empty(given, False, torch.int64)
    if not details:
        return (torch.from_numpy(found.output).to(results.output.dtype), *results[1:])
    return tuple(torch.from_numpy(array).to(like.dtype) for array, like in zip(found, results))


def _attention_on_device(*operands: Any) -> tuple[Tensor, ...]:
    return tuple(attention_on_device(operands[:-1], operands[-1])[0])


def attention_on_device(operands: Sequence[Any], details: bool
                        ) -> tuple[Attended, Optional[kernels.Ready]]:
    """Without the operator: what it finds, and what makes the same call again."""
    results = results_on_device(operands, details)
    return results, kernels.attention(_read(operands), results)


def results_on_device(operands: Sequence[Any], details: bool) -> Attended:
    """To be filled."""
    q = operands[0]
    return _empty(operands, True, torch.int32) if details else Attended(
        _like(q), *_nothing(q.device))


@functools.lru_cache(maxsize=None)
def _nothing(device: torch.device) -> tuple[Tensor, ...]:
    """What every call without details gives beside its output: nobody writes to it."""
    return tuple(torch.empty(0, dtype=dtype, device=device) for dtype in
                 (torch.float32, torch.float32, torch.int32, torch.float32, torch.int32))


def _attention_of_shapes(*operands: Any) -> tuple[Tensor, ...]:
    *given, details = operands
    integers = torch.int32 if given[0].device.type == "cuda" else torch.int64
    return tuple(_empty(given, details, integers))


def _empty(operands: Sequence[Any], details: bool, integers: torch.dtype) -> Attended:
    """``top_k`` may be a symbol: it is no key of a cache here."""
    q, schedule, top_k = operands[0], operands[_SCHEDULE], operands[_TOP_K]
    of = schedule_of(schedule, None)
    shapes = shapes_found(q.shape, of.top_k if top_k is None else top_k, of.steps - 1)
    wide = _wide(q.dtype)
    dtypes = (wide, wide, integers, wide, integers)
    return Attended(q.new_empty(q.shape), *(q.new_empty(shape if details else (0,), dtype=dtype)
                                            for shape, dtype in zip(shapes[1:], dtypes)))


_define(f"attention({_fields(Arguments)}, bool details) -> {_tensors(len(Attended._fields))}",
        _attention, _attention_on_device, _attention_of_shapes)


# Decoding of keys in pages: the output alone, and no gradients


def _decode_in_pages(*operands: Any) -> Tensor:
    given, table = _read(operands[:-1]), operands[-1]
    pages.check_shapes(given, table)
    found = oracle.attention(*pages.gathered(given, table))
    return torch.from_numpy(found.output).to(given.q.dtype)


def _decode_in_pages_on_device(*operands: Any) -> Tensor:
    given, table = _read(operands[:-1]), operands[-1]
    output = _like(given.q)
    kernels.decode_in_pages(given, table, output)
    return output


def _decode_in_pages_of_shapes(*operands: Any) -> Tensor:
    q: Tensor = operands[0]
    return q.new_empty(q.shape)


_define(f"decode_in_pages({_fields(Arguments)}, Tensor block_table) -> Tensor",
        _decode_in_pages, _decode_in_pages_on_device, _decode_in_pages_of_shapes)


# Its gradients, at what it found. Those by the search keys have no elements where these are k


def _attention_backward(*operands: Any) -> Gradients:
    by, at, given = _read_backward(operands)
    found = oracle.gradients(given, Derivatives(*map(_doubles, by)),
                             Kept(*(one.detach().numpy() for one in at[:3])))
    keys = found.search_keys

    def tensor(array: oracle.Doubles) -> Tensor:
        return torch.from_numpy(array).to(given.q.dtype)

    return Gradients(tensor(found.q), tensor(found.k), tensor(found.v),
                     list(map(tensor, found.routing_queries)),
                     given.k.new_empty((0,)) if keys is None else tensor(keys))


def _attention_backward_on_device(*operands: Any) -> Gradients:
    by, at, given = _read_backward(operands)
    results = empty_gradients(given)
    kernels.attention_backward(by, at, given, results)
    return results


def _attention_backward_of_shapes(*operands: Any) -> Gradients:
    return empty_gradients(Arguments(*operands[_BACKWARD:]))


_BY = len(Derivatives._fields)
_BACKWARD = _BY + len(Kept._fields)  # how many operands stand before the arguments


def _read_backward(operands: Sequence[Any]) -> tuple[Derivatives, Kept, Arguments]:
    return (Derivatives(*operands[:_BY]), Kept(*operands[_BY:_BACKWARD]),
            _read(operands[_BACKWARD:]))


def empty_gradients(given: Arguments) -> Gradients:
    """To be filled; of search keys that are none without elements."""
    q, k = given.q, given.k
    return Gradients(_like(q), _like(k), _like(k), [_like(q) for _ in given.routing_queries],
                     k.new_empty((0,)) if given.search_keys is None else _like(k))


def _like(tensor: Tensor) -> Tensor:
    """Dense memory of its shape and dtype."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


_define(f"attention_backward({_fields(Derivatives)}, {_fields(Kept)}, {_fields(Arguments)}) -> "
        "(Tensor, Tensor, Tensor, Tensor[], Tensor)",
        _attention_backward, _attention_backward_on_device, _attention_backward_of_shapes)


# Accumulation: the output and the final state


def _accumulate(*operands: Any) -> tuple[Tensor, Tensor]:
    output, state = oracle.accumulate(*operands)
    dtype = operands[0].dtype
    return torch.from_numpy(output).to(dtype), torch.from_numpy(state).to(_wide(dtype))


def _accumulate_on_device(*operands: Any) -> tuple[Tensor, Tensor]:
    return kernels.accumulate(Recurrence(*operands))


def _accumulate_of_shapes(*operands: Any) -> tuple[Tensor, Tensor]:
    x, b = operands[0], operands[2]
    state = (x.shape[0], x.shape[1], x.shape[3], b.shape[3])
    return x.new_empty(x.shape), x.new_empty(state, dtype=_wide(x.dtype))


_define(f"accumulate({_fields(Recurrence)}) -> {_tensors(2)}",
        _accumulate, _accumulate_on_device, _accumulate_of_shapes)


# Its gradients. Those by the initial state have no elements where there is none


def _accumulate_backward(by_output: Optional[Tensor], by_state: Optional[Tensor], *operands: Any
                         ) -> WalkGradients:
    given = Recurrence(*operands)
    found = oracle.accumulate_backward(given, _doubles(by_output), _doubles(by_state))
    results = _empty_walk_gradients(given)
    return WalkGradients(*(torch.from_numpy(array).to(like.dtype) if like.numel() else like
                           for array, like in zip(found, results)))


def _accumulate_backward_on_device(by_output: Optional[Tensor], by_state: Optional[Tensor],
                                   *operands: Any) -> WalkGradients:
    given = Recurrence(*operands)
    results = _empty_walk_gradients(given._replace(a=given.a.float()))
    kernels.accumulate_backward(by_output, by_state, given, results)
    return results._replace(a=results.a.to(given.a.dtype))


def _accumulate_backward_of_shapes(by_output: Optional[Tensor], by_state: Optional[Tensor],
                                   *operands: Any) -> WalkGradients:
    return _empty_walk_gradients(Recurrence(*operands))


def _empty_walk_gradients(given: Recurrence) -> WalkGradients:
    x, a, b, c, first = (x if x is None else x.new_empty(x.shape) for x in given[:5])
    return WalkGradients(x, a, b, c, given.x.new_empty((0,)) if first is None else first)


_define(f"accumulate_backward(Tensor? by_output, Tensor? by_state, {_fields(Recurrence)}) -> "
        f"{_tensors(len(WalkGradients._fields))}",
        _accumulate_backward, _accumulate_backward_on_device, _accumulate_backward_of_shapes)
