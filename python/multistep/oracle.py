"""Attention and accumulation by the oracle, on arrays in main memory."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import (Sizes, check_parts, check_shapes, converted, floats, positions,
                      require_memory, routing_list)
from ._rational import integer
from .schedule import MAX_LENGTH, Schedule


class Problem(NamedTuple):
    """An attention problem as the oracle takes it."""

    inputs: _core.Inputs
    sizes: Sizes
    storage: str
    arrays: dict[str, Any]  # by name: what ``inputs`` looks at


def number(name: str, value: Any, finite: bool = True) -> float:
    """``value`` as a float."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError(f"{name} {value!r}: a number")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} {value!r}: a number") from error
    if finite and not np.isfinite(result):
        raise ValueError(f"{name} {result}: a finite number")
    return result


def problem(q: Any, k: Any, v: Any, routing_queries: Any, schedule: Schedule, *,
            softmax_scale: Optional[float] = None, search_scale: float = 1.0,
            query_offset: int = 0, length: Any = None, start: Any = None,
            search_keys: Any = None) -> Problem:
    """Checks and converts the arguments of attention, or of decoding where ``length`` is given."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    query_offset = integer("query_offset", query_offset, 0, MAX_LENGTH - 1)
    routing = routing_list(routing_queries, schedule.steps)
    named = {"q": q, "k": k, "v": v}
    named.update({f"routing_queries[{m}]": level for m, level in enumerate(routing)})
    if search_keys is not None:
        named["search_keys"] = search_keys
    given = {name: floats(name, value) for name, value in named.items()}
    storage = given["q"].storage
    for name, host in given.items():
        if host.storage != storage:
            raise TypeError(f"{name} of dtype {host.storage}: {storage} like q")
    levels = [f"routing_queries[{m}]" for m in range(len(routing))]
    sizes = check_shapes(given["q"].array.shape, given["k"].array.shape, given["v"].array.shape,
                         [given[name].array.shape for name in levels],
                         None if search_keys is None else given["search_keys"].array.shape,
                         query_offset if length is None else None)
    rows = sizes.batch * sizes.heads * sizes.queries
    require_memory(
        f"attention of {rows} rows with top_k {schedule.top_k}",
        sum(host.copied_bytes for host in given.values())
        + 8 * rows * (sizes.head_dim + schedule.top_k * (3 + schedule.steps)))
    arrays: dict[str, Any] = {name: given[name].convert() for name in ("q", "k", "v")}
    arrays["routing"] = [given[name].convert() for name in levels]
    arrays["search_keys"] = None if search_keys is None else given["search_keys"].convert()
    arrays["start"] = positions("start", start, sizes.batch, MAX_LENGTH)
    arrays["length"] = positions("length", length, sizes.batch, sizes.keys)
    scale = None if softmax_scale is None else number("softmax_scale", softmax_scale)
    longest = query_offset + sizes.queries if length is None else int(arrays["length"].max())
    plan = schedule.plan(max(longest, 1))
    inputs = _core.Inputs(plan, arrays["q"], arrays["k"], arrays["v"], arrays["routing"],
                          arrays["search_keys"], arrays["start"], arrays["length"], query_offset,
                          number("search_scale", search_scale), scale)
    return Problem(inputs, sizes, storage, arrays)


class Attended(NamedTuple):
    """What ``attend`` gives. Attention is cut into items (SPEC 4): a query's window, and each of
    its spans without the keys that the window has."""

    output: Any
    """[batch, num_heads, L_q, head_dim]"""
    lse: Any
    """[batch, num_heads, L_q, top_k]: log-sum-exp, base e, of every span's item; -inf unused."""
    window_lse: Any
    """[batch, num_heads, L_q]: of the window."""
    spans: Any
    """[batch, num_heads, L_q, top_k, 2]: the kept spans, half-open, best first; [0, 0) unused.
    int64, and int32 from the kernels."""
    scores: Any
    """[batch, num_heads, L_q, top_k]: their path scores; -inf in unused slots."""
    anchors: Any
    """[batch, num_heads, L_q, top_k, N - 1]: the keys along their paths; -1 in unused slots."""


def attention(q: Any, k: Any, v: Any, routing_queries: Any, schedule: Schedule, *,
              dtype: Optional[npt.DTypeLike] = None, **options: Any) -> Attended:
    """The oracle's attention on arrays in main memory; see ``multistep.attention``."""
    check_dtype(dtype)
    given = problem(q, k, v, routing_queries, schedule, **options)
    output, *found = _core.attention(given.inputs)
    return Attended(cast(output, dtype), *found)


def merge(outputs: Any, lses: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """See ``multistep.merge``."""
    given = np.asarray(converted("outputs", outputs), np.float64)
    sums = np.asarray(converted("lses", lses), np.float64)
    check_parts(given.shape, sums.shape)
    rows = given[0, ..., 0].size
    output, lse = _core.merge(given.reshape(given.shape[0], rows, given.shape[-1]),
                              sums.reshape(given.shape[0], rows))
    return output.reshape(given.shape[1:]), lse.reshape(sums.shape[1:])


def cast(array: npt.NDArray[Any], dtype: Optional[npt.DTypeLike]) -> npt.NDArray[Any]:
    """``array`` in another floating-point type."""
    check_dtype(dtype)
    return array if dtype is None else array.astype(np.dtype(dtype), copy=False)


def check_dtype(dtype: Optional[npt.DTypeLike]) -> None:
    """Raises TypeError where results cannot be given in this type."""
    if dtype is not None and np.dtype(dtype).name not in ("float64", "float32", "float16",
                                                          "bfloat16"):
        raise TypeError(f"dtype {np.dtype(dtype)}: float64, float32, float16 or bfloat16")


Doubles = npt.NDArray[np.float64]


def attention_backward(given: Problem, by_output: Optional[Doubles], by_lse: Optional[Doubles],
                       by_window_lse: Optional[Doubles], by_scores: Optional[Doubles]
                       ) -> tuple[Doubles, Doubles, Doubles, list[Doubles], Optional[Doubles]]:
    """Derivatives by q, k, v, the routing queries and the search keys (None where these are k,
    whose derivative then has both parts), from those by what ``attend`` gives, SPEC 6; None: 0."""
    dense = [None if array is None else np.require(array, np.float64, ["C", "A"])
             for array in (by_output, by_lse, by_window_lse, by_scores)]
    dq, dk, dv, routing, dsearch = _core.attention_backward(given.inputs, *dense)
    if given.arrays["search_keys"] is None:
        return dq, dk + dsearch, dv, routing, None
    return dq, dk, dv, routing, dsearch


def recurrence(x: Any, a: Any, b: Any, c: Any, *, initial: Any = None, start: Any = None,
               offset: int = 0) -> tuple[_core.Recurrence, str]:
    """Checks and converts the arguments of accumulation; also the storage type."""
    hosts = {name: floats(name, value) for name, value in
             (("x", x), ("b", b), ("c", c))}
    storage = hosts["x"].storage
    for name, host in hosts.items():
        if host.storage != storage:
            raise TypeError(f"{name} of dtype {host.storage}: {storage} like x")
    decay = floats("a", a)
    if decay.storage != storage and decay.storage != "float32":
        raise TypeError(f"a of dtype {decay.storage}: {storage} like x, or float32")
    shapes = {name: host.array.shape for name, host in hosts.items()}
    if len(shapes["x"]) != 4 or len(shapes["b"]) != 4:
        raise ValueError(f"x, b of shapes {shapes['x']}, {shapes['b']}: "
                         "[batch, num_heads, length, head_dim], [.., state]")
    batch, heads, length, head_dim = shapes["x"]
    state = shapes["b"][3]
    if min(batch, heads, head_dim, state) < 1:
        raise ValueError(f"x, b of shapes {shapes['x']}, {shapes['b']}: all sizes but the length "
                         "are >= 1")
    for name, shape, wanted in (("a", decay.array.shape, (batch, heads, length)),
                                ("b", shapes["b"], (batch, heads, length, state)),
                                ("c", shapes["c"], (batch, heads, length, state))):
        if shape != wanted:
            raise ValueError(f"{name} of shape {shape}: {wanted} here")
    require_memory(f"accumulation of {batch * heads * length} rows with state {head_dim} x {state}",
                   sum(host.copied_bytes for host in (*hosts.values(), decay))
                   + 16 * batch * heads * (length * head_dim + head_dim * state))
    first = None
    if initial is not None:
        first = np.require(converted("initial", initial), np.float64, ["C", "A"])
        if first.shape != (batch, heads, head_dim, state):
            raise ValueError(f"initial of shape {first.shape}: {(batch, heads, head_dim, state)} "
                             "here")
    return _core.Recurrence(hosts["x"].convert(),
                            np.require(decay.convert(), hosts["x"].wide, ["C", "A"]),
                            hosts["b"].convert(), hosts["c"].convert(), first,
                            positions("start", start, batch, MAX_LENGTH),
                            integer("offset", offset, 0, MAX_LENGTH)), storage
