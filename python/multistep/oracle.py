"""Attention and accumulation by the oracle, on arrays in main memory. Its functions take the fields
of ``Arguments`` and ``Recurrence``, in order or by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from . import _core, _recurrence
from ._arrays import (Floats, as_numpy, check_parts, converted, floats, integers, positions,
                      require_memory)
from ._problem import (Arguments, Array, Attended, Derivatives, Gradients, Kept, Sizes,
                       check_shapes, checked, each, filled, shapes_found)
from ._rational import integer
from ._recurrence import Recurrence, WalkGradients
from .schedule import MAX_LENGTH

Doubles = npt.NDArray[np.float64]


class Problem(NamedTuple):
    """An attention problem as the oracle takes it."""

    inputs: _core.Inputs
    sizes: Sizes
    storage: str
    arrays: dict[str, Any]  # by name: what ``inputs`` looks at


def problem(*arguments: Any, **named: Any) -> Problem:
    """Checks and converts the arguments of attention, or of decoding where ``length`` is given."""
    given = checked(Arguments(*arguments, **named))
    if given.cu_seqlens is not None:
        raise ValueError("cu_seqlens: here one sequence at a time")
    if given.kernels == "fast":
        raise ValueError("kernels 'fast': of CUDA tensors; the oracle computes on these")
    schedule = given.schedule.with_top_k(given.top_k)
    hosts: list[Floats] = []

    def read(name: str, array: Array) -> Floats:
        host = floats(name, array)
        hosts.append(host)
        storage = hosts[0].storage
        if host.storage != storage:
            raise TypeError(f"{name} of dtype {host.storage}: {storage} like q")
        return host

    unconverted = each(read, given)
    sizes = check_shapes(unconverted)
    rows = sizes.batch * sizes.heads * sizes.queries
    require_memory(f"attention of {rows} rows with top_k {schedule.top_k}",
                   sum(host.copied_bytes for host in hosts)
                   + 8 * rows * (sizes.head_dim + schedule.top_k * (3 + schedule.steps)))
    arrays = each(lambda _, host: host.convert(), unconverted)._replace(
        start=positions("start", given.start, sizes.batch, MAX_LENGTH),
        length=positions("length", given.length, sizes.batch, sizes.keys))._asdict()
    longest = given.query_offset + sizes.queries
    if arrays["length"] is not None:
        longest = int(arrays["length"].max())
    # No fields of the oracle's.
    for name in ("schedule", "top_k", "cu_seqlens", "cu_seqlens_k", "kernels"):
        del arrays[name]
    inputs = filled(_core.Inputs(), plan=schedule.plan(max(longest, 1)), **arrays)
    return Problem(inputs, sizes, hosts[0].storage, arrays)


def attention(*arguments: Any, dtype: Optional[npt.DTypeLike] = None, **named: Any) -> Attended:
    """The oracle's attention on arrays in main memory; see ``multistep.attention``."""
    check_dtype(dtype)
    given = Arguments(*arguments, **named)
    found = _attention(given) if given.cu_seqlens is None else _packed(given)
    return found._replace(output=cast(found.output, dtype))


def gradients(given: Arguments, by: Derivatives, at: Kept) -> Gradients:
    """Gradients (SPEC 6) at a selection, whose spans and scores count as they are."""
    if given.cu_seqlens is None:
        return attention_backward(problem(*given), by, at)
    return _packed_gradients(given, by, at)


def _attention(given: Arguments) -> Attended:
    return Attended(*_core.attention(problem(*given).inputs))


class _Sequence(NamedTuple):
    """A packed sequence: which rows it has, but for queries without keys, and what it is alone."""

    queries: slice
    keys: slice
    alone: Arguments

    def rows(self, name: str) -> slice:
        """Of the array of that name."""
        return self.keys if name in ("k", "v", "search_keys") else self.queries


def _sequences(given: Arguments) -> Iterator[_Sequence]:
    """Packed sequences that have queries with keys."""
    given = each(as_numpy, given)
    bounds = integers("cu_seqlens", given.cu_seqlens)
    of_keys = bounds if given.cu_seqlens_k is None else integers("cu_seqlens_k",
                                                                 given.cu_seqlens_k)
    check_shapes(given._replace(cu_seqlens=bounds))
    _check_bounds("cu_seqlens", bounds, "q", given.q)
    _check_bounds("cu_seqlens_k", of_keys, "k", given.k)
    for begin, end, first, last in zip(bounds, bounds[1:], of_keys, of_keys[1:]):
        begin = max(begin, end - (last - first))
        one = _Sequence(slice(begin, end), slice(first, last), given._replace(
            query_offset=last - first - (end - begin), cu_seqlens=None, cu_seqlens_k=None))
        if begin < end:
            yield one._replace(alone=each(lambda name, array: array[:, :, one.rows(name)],
                                          one.alone))


def _check_bounds(name: str, bounds: npt.NDArray[np.int64], of: str, array: Array) -> None:
    """Raises ValueError where they are none of rows of the array."""
    for begin, end in zip(bounds, bounds[1:]):
        if begin > end:
            raise ValueError(f"{name} {end} after {begin}: they do not decrease")
    if bounds[0] or bounds[-1] > array.shape[2]:
        raise ValueError(f"{name} from {bounds[0]} to {bounds[-1]}: from 0 to at most "
                         f"{array.shape[2]}, the rows of {of}")


def _packed(given: Arguments) -> Attended:
    top_k, levels = given.schedule.with_top_k(given.top_k).top_k, given.schedule.steps - 1
    shapes = shapes_found(as_numpy("q", given.q).shape, top_k, levels)
    kinds: list[tuple[Any, Any]] = [(0, float), (-np.inf, float), (-np.inf, float), (0, np.int64),
                                    (-np.inf, float), (-1, np.int64)]
    found = Attended(*(np.full(shape, *kind) for shape, kind in zip(shapes, kinds)))
    for one in _sequences(given):
        part = _attention(one.alone)
        part = part._replace(**_moved(part.spans, part.anchors, one.keys.start))
        for whole, array in zip(found, part):
            whole[:, :, one.queries] = array
    return found


def _packed_gradients(given: Arguments, by: Derivatives, at: Kept) -> Gradients:
    def zeros(_: str, array: Array) -> Doubles:
        return np.zeros(as_numpy("", array).shape)

    whole = each(zeros, given)
    results = Gradients(whole.q, whole.k, whole.v, whole.routing_queries, whole.search_keys)
    for one in _sequences(given):
        def part(array: Optional[Array]) -> Optional[Array]:
            return None if array is None else array[:, :, one.queries]

        kept = Kept(scores=part(at.scores),
                    **_moved(part(at.spans), part(at.anchors), -one.keys.start))
        found = attention_backward(problem(*one.alone), Derivatives(*map(part, by)), kept)
        for name in ("q", "k", "v", "search_keys"):
            if getattr(results, name) is not None:
                getattr(results, name)[:, :, one.rows(name)] = getattr(found, name)
        for level, array in zip(results.routing_queries, found.routing_queries):
            level[:, :, one.queries] = array
    return results


def _moved(spans: Any, anchors: Any, by: int) -> dict[str, Any]:
    """Spans and anchors among other keys; unused slots stay."""
    used = spans[..., 1:] > spans[..., :1]
    return {"spans": spans + by * used, "anchors": anchors + by * (anchors >= 0)}


def attention_backward(given: Problem, by: Derivatives, at: Kept) -> Gradients:
    """Gradients (SPEC 6) at a selection, whose spans and scores count as they are."""
    dq, dk, dv, routing, dsearch = _core.attention_backward(
        given.inputs, _doubles(by.by_output), _doubles(by.by_lse), _doubles(by.by_window_lse),
        _doubles(by.by_scores), np.require(at.spans, np.int64, ["C", "A"]),
        np.require(at.scores, np.float64, ["C", "A"]),
        np.require(at.anchors, np.int64, ["C", "A"]))
    if given.arrays["search_keys"] is None:
        return Gradients(dq, dk + dsearch, dv, routing, None)
    return Gradients(dq, dk, dv, routing, dsearch)


def _doubles(array: Optional[Array]) -> Optional[Doubles]:
    return None if array is None else np.require(array, np.float64, ["C", "A"])


def merge(outputs: Any, lses: Any) -> tuple[Doubles, Doubles]:
    """See ``multistep.merge``."""
    given = np.asarray(converted("outputs", outputs), np.float64)
    sums = np.asarray(converted("lses", lses), np.float64)
    check_parts(given.shape, sums.shape)
    rows = given[0, ..., 0].size
    output, lse = _core.merge(given.reshape(given.shape[0], rows, given.shape[-1]),
                              sums.reshape(given.shape[0], rows))
    return output.reshape(given.shape[1:]), lse.reshape(sums.shape[1:])


def recurrence(*arguments: Any, **named: Any) -> tuple[_core.Recurrence, str]:
    """Checks and converts the arguments of accumulation; also the storage type."""
    given = Recurrence(*arguments, **named)
    x, b, c = (floats(name, array) for name, array in
               (("x", given.x), ("b", given.b), ("c", given.c)))
    for host in (b, c):
        if host.storage != x.storage:
            raise TypeError(f"{host.name} of dtype {host.storage}: {x.storage} like x")
    a = floats("a", given.a)
    if a.storage not in (x.storage, "float32"):
        raise TypeError(f"a of dtype {a.storage}: {x.storage} like x, or float32")
    initial = None if given.initial is None else floats("initial", given.initial)
    sizes = _recurrence.check_shapes(given._replace(x=x, a=a, b=b, c=c, initial=initial))
    batch, heads, length, head_dim, state = sizes
    require_memory(f"accumulation of {batch * heads * length} rows with state {head_dim} x {state}",
                   sum(host.copied_bytes for host in (x, a, b, c, initial) if host)
                   + 16 * batch * heads * (length * head_dim + head_dim * state))
    arrays = Recurrence(x.convert(), np.require(a.convert(), x.wide, ["C", "A"]), b.convert(),
                        c.convert(),
                        None if initial is None else np.require(initial.convert(), np.float64,
                                                                ["C", "A"]),
                        positions("start", given.start, batch, MAX_LENGTH),
                        integer("offset", given.offset, 0, MAX_LENGTH))
    return filled(_core.Recurrence(), **arrays._asdict()), x.storage


def accumulate(*arguments: Any, dtype: Optional[npt.DTypeLike] = None, **named: Any
               ) -> tuple[npt.NDArray[Any], Doubles]:
    """See ``multistep.accumulate``."""
    check_dtype(dtype)
    output, state = _core.accumulate(recurrence(*arguments, **named)[0])
    return cast(output, dtype), state


def accumulate_backward(given: Recurrence, by_output: Optional[Array], by_state: Optional[Array]
                        ) -> WalkGradients:
    """Gradients of a loss from its derivatives by what ``accumulate`` gives; None: 0."""
    return WalkGradients(*_core.accumulate_backward(recurrence(*given)[0], _doubles(by_output),
                                                    _doubles(by_state)))


def cast(array: npt.NDArray[Any], dtype: Optional[npt.DTypeLike]) -> npt.NDArray[Any]:
    """``array`` in another floating-point type."""
    check_dtype(dtype)
    return array if dtype is None else array.astype(np.dtype(dtype), copy=False)


def check_dtype(dtype: Optional[npt.DTypeLike]) -> None:
    """Raises TypeError where results cannot be given in this type."""
    if dtype is not None and np.dtype(dtype).name not in ("float64", "float32", "float16",
                                                          "bfloat16"):
        raise TypeError(f"dtype {np.dtype(dtype)}: float64, float32, float16 or bfloat16")
