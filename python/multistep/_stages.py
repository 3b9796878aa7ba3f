"""The stages one by one, by the oracle, on arrays in main memory: what shards of a context need
(SPEC 13). Sums are in double, so are scores, outputs and log-sum-exps."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import floats, positions, require_memory
from ._problem import Array, filled
from .schedule import MAX_LENGTH, Schedule


class LevelPaths(NamedTuple):
    """What the search of one level keeps on a shard, best first."""

    spans: Array
    """[batch, num_heads, L_q, top_k, 2]: half-open; [0, 0) in slots without a path. int64, and
    int32 on CUDA, as all integers here."""
    scores: Array
    """[batch, num_heads, L_q, top_k]: path scores; -inf without a path. float64, and float32 on
    CUDA: what the merge compares."""
    anchors: Array
    """[batch, num_heads, L_q, top_k]: this level's keys; -1 without a path."""
    ranks: Array
    """[batch, num_heads, L_q, top_k]: which path of the level above it goes on from; -1."""


class Paths(NamedTuple):
    """What the levels so far keep in the whole context, best first: LevelPaths, merged."""

    spans: Array
    """[batch, num_heads, L_q, top_k, 2]"""
    scores: Array
    """[batch, num_heads, L_q, top_k]"""
    anchors: Array
    """[batch, num_heads, L_q, top_k, level]: the keys along the paths; -1 without one."""


class Items(NamedTuple):
    """Attention to sets of keys, with what it takes to join them."""

    output: Array
    """[batch, num_heads, L_q, slots, head_dim]: 0 without a key. float64, and on CUDA the storage
    type."""
    lse: Array
    """[batch, num_heads, L_q, slots], base e; -inf without a key. float64, and float32 on CUDA."""


class Place(NamedTuple):
    """Where the queries stand, and the keys that a shard holds."""

    schedule: Schedule
    key_offset: int
    length: Array
    """[batch]: keys of each sequence in the whole context; query row i stands at
    length - L_q + i."""
    start: Optional[Array] = None
    """[batch], the first eligible key; None: 0"""
    longest: int = 0
    """No sequence is longer; looked at on CUDA alone."""


def search_level(query: Array, keys: Array, place: Place, level: int, parents: Optional[Paths],
                 search_scale: float) -> LevelPaths:
    """One level's best paths among the anchors that the shard holds."""
    inputs = _inputs(place, q=query, k=keys)
    inputs.search_scale = search_scale
    if parents is None:
        return LevelPaths(*_core.search_level(inputs, level, None, None))
    return LevelPaths(*_core.search_level(inputs, level, _dense(parents.anchors, np.int64),
                                          _dense(parents.scores, np.float64)))


def merge_paths(found: LevelPaths) -> LevelPaths:
    """The best of [shards, ..]."""
    shards, *rows, top_k = np.shape(found.scores)
    count = int(np.prod(rows))
    given = (_dense(array, dtype).reshape(shards, count, *np.shape(array)[4:])
             for array, dtype in zip(found, (np.int64, np.float64, np.int64, np.int64)))
    return LevelPaths(*(array.reshape(*rows, *array.shape[1:])
                        for array in _core.merge_paths(*given)))


def attend_items(q: Array, k: Array, v: Array, place: Place, spans: Optional[Array],
                 softmax_scale: Optional[float]) -> Items:
    """Attention to the keys of every item that the shard holds; without spans, to the window."""
    inputs = _inputs(place, q=q, k=k, v=v)
    inputs.softmax_scale = softmax_scale
    given = None if spans is None else _dense(spans, np.int64)
    slots = 1 if given is None else given.shape[3]
    require_memory(f"items of {slots} slots", 8 * slots * int(np.prod(np.shape(q))))
    return Items(*_core.attend_items(inputs, given))


def combine(paths: Paths, spans: Items, window: Items) -> npt.NDArray[np.float64]:
    """The output of items, the gates from the paths' scores."""
    *rows, slots, head_dim = np.shape(spans.output)
    count = int(np.prod(rows))

    def flat(array: Array, dtype: Any, *shape: int) -> npt.NDArray[Any]:
        return _dense(array, dtype).reshape(count, *shape)

    output = _core.combine(
        flat(paths.spans, np.int64, slots, 2), flat(paths.scores, np.float64, slots),
        flat(spans.output, np.float64, slots, head_dim), flat(spans.lse, np.float64, slots),
        flat(window.output, np.float64, head_dim), flat(window.lse, np.float64))
    return output.reshape(*rows, head_dim)


def _inputs(place: Place, **arrays: Array) -> _core.Inputs:
    converted = {name: floats(name, array).convert() for name, array in arrays.items()}
    batch = len(converted["q"])
    length = positions("length", place.length, batch, MAX_LENGTH)
    assert length is not None
    longest = int(length.max()) if batch else 0
    return filled(_core.Inputs(), plan=place.schedule.plan(max(longest, 1)), length=length,
                  start=positions("start", place.start, batch, MAX_LENGTH),
                  key_offset=place.key_offset, **converted)


def _dense(array: Array, dtype: Any) -> npt.NDArray[Any]:
    return np.require(np.asarray(array), dtype, ["C", "A"])
