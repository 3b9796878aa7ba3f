"""The arguments of attention, listed once: what callers give is read here, checked here, and handed
on by name to operators and to the library. A new argument is a line of ``Options`` and one of
``Arguments`` (with its check), its field in ``python/src``, and what uses it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, TypedDict, TypeVar, get_type_hints

import numpy as np

from ._rational import integer, number
from .schedule import MAX_LENGTH, Schedule

Array = Any
"""Of whatever library the caller has; on the way to the oracle or the kernels, of theirs."""


class Options(TypedDict, total=False):
    """What every call can be told by name. ``Arguments`` has the defaults."""

    top_k: Optional[int]
    softmax_scale: Optional[float]
    search_scale: float
    start: Optional[Array]
    search_keys: Optional[Array]
    cu_seqlens: Optional[Array]
    cu_seqlens_k: Optional[Array]
    kernels: str


class Arguments(NamedTuple):
    """The arguments of attention, and of decoding where there is a ``length``: see
    ``multistep.attention`` and ``multistep.decode``. Operators take them in this order."""

    q: Array
    k: Array
    v: Array
    routing_queries: list[Array]
    schedule: Schedule
    top_k: Optional[int] = None
    softmax_scale: Optional[float] = None
    search_scale: float = 1.0
    query_offset: int = 0
    length: Optional[Array] = None
    start: Optional[Array] = None
    search_keys: Optional[Array] = None
    cu_seqlens: Optional[Array] = None
    cu_seqlens_k: Optional[Array] = None
    kernels: str = "automatic"


class Attended(NamedTuple):
    """What ``attend`` gives. Attention is cut into items (SPEC 4): a query's window, and each of
    its spans without the keys that the window has."""

    output: Array
    """[batch, num_heads, L_q, head_dim]"""
    lse: Array
    """[batch, num_heads, L_q, top_k]: log-sum-exp, base e, of every span's item; -inf unused."""
    window_lse: Array
    """[batch, num_heads, L_q]: of the window."""
    spans: Array
    """[batch, num_heads, L_q, top_k, 2]: the kept spans, half-open, best first; [0, 0) unused.
    int64, and int32 from the kernels."""
    scores: Array
    """[batch, num_heads, L_q, top_k]: their path scores; -inf in unused slots."""
    anchors: Array
    """[batch, num_heads, L_q, top_k, N - 1]: the keys along their paths; -1 in unused slots."""


class Derivatives(NamedTuple):
    """Of a loss by what ``attend`` gives. Operators take them in this order; None: 0."""

    by_output: Optional[Array] = None
    by_lse: Optional[Array] = None
    by_window_lse: Optional[Array] = None
    by_scores: Optional[Array] = None


class Kept(NamedTuple):
    """What gradients take of what ``attend`` gives: the selection, at which they are taken, where
    it is a constant, and the output with the windows' log-sum-exps, which spare the kernels a pass.
    Operators take it in this order."""

    spans: Array
    scores: Array
    anchors: Array
    output: Optional[Array] = None
    window_lse: Optional[Array] = None


class Gradients(NamedTuple):
    """Of a loss by the arrays among the arguments."""

    q: Array
    k: Array
    v: Array
    routing_queries: list[Array]
    search_keys: Optional[Array]
    """None where these are k, whose gradient then has both parts."""


class Sizes(NamedTuple):
    """Sizes of an attention problem (SPEC 7)."""

    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_dim: int


_Function = TypeVar("_Function", bound=Callable[..., Any])
_Struct = TypeVar("_Struct")
_OPTIONS = frozenset(Options.__annotations__)


def takes_options(function: _Function) -> _Function:
    """Lets ``help`` and the like see what is taken as ``**options``."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind,
                               default=Arguments._field_defaults[name])
             for name, kind in get_type_hints(Options).items()]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *named])
    return function


def arguments(function: str, q: Array, k: Array, v: Array, routing_queries: Any,
              schedule: Schedule, options: Options, *, query_offset: int = 0,
              length: Optional[Array] = None) -> Arguments:
    """What was given to a function. The offset counts for nothing beside a length."""
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    return Arguments(q, k, v, levels(routing_queries, schedule.steps - 1), schedule,
                     query_offset=query_offset if length is None else 0, length=length, **options)


def required_length(length: Array) -> Array:
    """The length of decoding, which has no default."""
    if length is None:
        raise TypeError(f"length None: an integer in [0, {MAX_LENGTH}]")
    return length


def levels(value: Any, count: int) -> list[Array]:
    """One array of routing queries per search level, from a sequence, from one array that stacks
    them, or for N = 2 from the one array itself."""
    if value is None:
        return []
    if hasattr(value, "shape"):
        dims = len(value.shape)
        if dims == 4:
            return [value]
        if dims == 5 and value.shape[0] <= 63:
            return list(value)
    if not isinstance(value, Sequence):
        raise TypeError(f"routing_queries of type {type(value).__name__}: a sequence of arrays, "
                        f"one per search level, {count}")
    return list(value)


def each(function: Callable[[str, Array], Any], given: Arguments) -> Arguments:
    """The arguments with function(name, array) in place of every array but the positions."""
    q, k, v = function("q", given.q), function("k", given.k), function("v", given.v)
    routing = [function(f"routing_queries[{m}]", level)
               for m, level in enumerate(given.routing_queries)]
    keys = None if given.search_keys is None else function("search_keys", given.search_keys)
    return given._replace(q=q, k=k, v=v, routing_queries=routing, search_keys=keys)


def filled(struct: _Struct, **fields: Any) -> _Struct:
    """A struct of the library with its fields set, by name."""
    for name, value in fields.items():
        setattr(struct, name, value)
    return struct


def checked(given: Arguments) -> Arguments:
    """The arguments with numbers in their ranges; raises naming the offender. Arrays are looked at
    where they are read."""
    scale = given.softmax_scale
    return given._replace(
        top_k=None if given.top_k is None else integer("top_k", given.top_k, 1, 64),
        softmax_scale=None if scale is None else number("softmax_scale", scale),
        search_scale=number("search_scale", given.search_scale),
        query_offset=integer("query_offset", given.query_offset, 0, MAX_LENGTH - 1),
        kernels=one_of("kernels", given.kernels, ("automatic", "fast", "plain")))


def one_of(name: str, value: Any, words: tuple[str, ...]) -> str:
    """The value; raises ValueError where it is none of the words."""
    if value not in words:
        raise ValueError(f"{name} {value!r}: {', '.join(words[:-1])} or {words[-1]}")
    return str(value)


def check_packed(given: Arguments, sizes: Sizes) -> None:
    """Checks what packed sequences (SPEC 7) ask of the other arguments."""
    shape = tuple(np.shape(given.cu_seqlens))  # type: ignore[arg-type]
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"cu_seqlens of shape {shape}: [sequences + 1], one sequence at least")
    of_keys = shape if given.cu_seqlens_k is None else tuple(np.shape(given.cu_seqlens_k))
    if of_keys != shape:
        raise ValueError(f"cu_seqlens_k of shape {of_keys}: {shape} like cu_seqlens")
    if sizes.batch != 1:
        raise ValueError(f"batch {sizes.batch}: 1 beside cu_seqlens")
    if given.start is not None or given.length is not None:
        raise ValueError("start or length: None beside cu_seqlens")
    if given.query_offset:
        raise ValueError(f"query_offset {given.query_offset}: 0 beside cu_seqlens")


def shapes_found(shape: Any, top_k: int, levels: int) -> Attended:
    """The shapes of what ``attend`` gives for a q of ``shape``."""
    rows = shape[:3]
    return Attended(shape, (*rows, top_k), rows, (*rows, top_k, 2), (*rows, top_k),
                    (*rows, top_k, levels))


def check_shapes(given: Arguments) -> Sizes:
    """Checks the shapes of an attention problem; raises ValueError naming the offender."""
    q, k, levels = given.q.shape, given.k.shape, given.schedule.steps - 1
    if len(given.routing_queries) != levels:
        raise ValueError(f"routing_queries {len(given.routing_queries)}: one array per search "
                         f"level, {levels}")
    for name, shape in (("q", q), ("k", k)):
        if len(shape) != 4:
            raise ValueError(f"{name} of shape {tuple(shape)}: [batch, heads, length, head_dim]")
    sizes = Sizes(q[0], q[1], k[1], q[2], k[2], q[3])
    for name, size in (("batch", sizes.batch), ("num_heads", sizes.heads),
                       ("num_kv_heads", sizes.kv_heads), ("head_dim", sizes.head_dim)):
        if size < 1:
            raise ValueError(f"{name} {size}: an integer >= 1")
    if sizes.heads % sizes.kv_heads:
        raise ValueError(f"num_kv_heads {sizes.kv_heads}: divides num_heads {sizes.heads}")
    keys = (sizes.batch, sizes.kv_heads, sizes.keys, sizes.head_dim)
    expected = [("k", given.k, keys), ("v", given.v, keys)]
    expected += [(f"routing_queries[{m}]", level, q)
                 for m, level in enumerate(given.routing_queries)]
    if given.search_keys is not None:
        expected.append(("search_keys", given.search_keys, keys))
    for name, array, wanted in expected:
        if array.shape != wanted:
            raise ValueError(f"{name} of shape {tuple(array.shape)}: {tuple(wanted)} here")
    if given.cu_seqlens is not None:
        check_packed(given, sizes)
    if given.cu_seqlens_k is not None:
        if given.cu_seqlens is None:
            raise ValueError("cu_seqlens None: of the queries beside cu_seqlens_k")
    elif given.length is None and sizes.keys < given.query_offset + sizes.queries:
        raise ValueError(f"query_offset {given.query_offset}: an integer in [0, "
                         f"{sizes.keys - sizes.queries}] for {sizes.queries} queries and "
                         f"{sizes.keys} keys")
    return sizes
