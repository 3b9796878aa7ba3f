"""Plant and probe (SPEC 8.6): which keys can a kernel reach whose schedule nobody can see?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import numpy.typing as npt

from .._arrays import require_memory
from .._rational import integer
from ..schedule import Schedule
from .plants import PLANTS, Maker, Rows
from .reports import ProbeReport


def probe(candidate: Callable[..., Any], length: int,
          pairs: Union[str, int, npt.ArrayLike] = "auto", *, schedule: Optional[Schedule] = None,
          steps: Optional[int] = None, num_heads: int = 1, num_kv_heads: int = 1,
          head_dim: int = 64, dtype: Any = np.float32, device: Any = None, batch: int = 4,
          last_only: bool = False, seed: int = 1) -> ProbeReport:
    """Looks for keys that a kernel cannot reach, by what it does alone.

    For a key j, keys get scores that lead a search to j, and every query attends sharply to j where
    it sees it. There v[j] is moved, from what all values are elsewhere: the output must move, and
    that of older queries must not. A value moves in every dimension, up or down as its KV head
    says, and so must the outputs of the KV head's heads. Since nobody can see which anchor stands
    for j, several plants are tried: anchors score the higher, the nearer they are to j on both
    sides, which leads older queries to their newest keys; and as long as a query has not seen j,
    among the newer ones, among the older ones; the oldest, the newest; and with ``schedule``
    exactly the anchors along its paths. All scores are exact in every storage type, and so small
    that each kept path has its share of the output. Every plant stands in every sequence of a batch
    in turn, which must answer alike.

    What is reached is reached. A pair that no plant reaches is excluded, or leads through an anchor
    that is not among the top_k nearest to the key on any side: ``schedule`` settles that for a
    kernel whose schedule is known. How much a value counts is not looked at (``compare`` does), nor
    whose keys a head scores: k is the same in all KV heads.

    Args:
        candidate: called as ``candidate(q, k, v, routing_queries)``, with routing_queries a list of
            N - 1 arrays; gives the output, alone or as ``compare`` takes results.
        length: L_kv, at most 2^22.
        pairs: (query, key) pairs [n, 2]; how many keys to try with every query, edges first; "all";
            or "auto", all keys up to 256 and 64 beyond. Of given pairs the keys one behind the
            query, and at the next tiles' edges, are planted too: no query may see them.
        schedule: what the kernel is said to follow, if known.
        steps: N, where no schedule is given (2).
        num_heads, num_kv_heads, head_dim: of the arrays; head_dim >= 4, and at least the
            ``schedule``'s steps. All heads must move; a newer key must move none. Up to
            2^head_dim KV heads are told apart.
        dtype, device: of the arrays; a torch dtype or a device makes tensors.
        batch: sequences of a call, fewer where memory is short; the work is in proportion to it.
        last_only: call with the last query alone (L_q = 1, at position length - 1), for decoding.
    """
    length = integer("length", length, 1, 2**22)
    head_dim = integer("head_dim", head_dim, 4, 1 << 16)
    batch = integer("batch", batch, 1, 1 << 16)
    num_heads = integer("num_heads", num_heads, 1, 1 << 16)
    num_kv_heads = integer("num_kv_heads", num_kv_heads, 1, num_heads)
    if num_heads % num_kv_heads:
        raise ValueError(f"num_kv_heads {num_kv_heads}: divides num_heads {num_heads}")
    if schedule is not None and not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    if steps is None:
        steps = schedule.steps if schedule else 2
    steps = integer("steps", steps, 1, 64)
    if schedule is not None and steps != schedule.steps:
        raise ValueError(f"steps {steps}: the schedule has {schedule.steps}")
    if schedule is not None and head_dim < steps:
        raise ValueError(f"head_dim {head_dim}: an integer >= {steps} with a schedule of {steps} "
                         "steps, one for each search level and one to attend by")
    wanted = _wanted(pairs, length, last_only, seed)
    make = Maker(steps, num_heads, num_kv_heads, head_dim, length, dtype, device, last_only)
    batch = make.fitting(batch)
    found = _Found({int(key): queries for key, queries in wanted.items()}, make.first)
    found.not_finite = make.rest(candidate, batch)
    for n, plant in enumerate(PLANTS):
        keys = [key for key, queries in found.unreached.items() if len(queries) or n == 0]
        for i in range(0, len(keys), batch):
            some = np.array(keys[i : i + batch])
            scores = np.stack([plant(length, key) for key in some])
            found.add(some, _in_every_sequence(
                lambda order: make.moved(candidate, scores[order], some[order]), len(some), batch,
                make.queries))
    if schedule is not None:
        _probe_paths(candidate, make, schedule, found, batch)
    left = sorted((int(query), key) for key, queries in found.unreached.items()
                  for query in queries)

    def table(pairs: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)

    return ProbeReport(length, sum(len(queries) for queries in wanted.values()), table(left),
                       table(found.acausal), table(found.unequal), found.not_finite)


class _Moved(NamedTuple):
    """Which queries moved as they should when plants stood in every sequence of a batch in turn: in
    all of them, in some; and which moved at all, in any."""

    all: Rows
    some: Rows
    leaked: Rows
    not_finite: int


def _in_every_sequence(call: Callable[[npt.NDArray[np.int64]], tuple[Rows, Rows, int]],
                       plants: int, batch: int, queries: int) -> _Moved:
    """What ``call``, told which plant stands in which sequence, says of all of them."""
    every, some, leaked = (np.full((plants, queries), start) for start in (True, False, False))
    not_finite = 0
    for turn in range(plants):
        order = (np.arange(batch) + turn) % plants
        reach, leaks, bad = call(order)
        np.logical_and.at(every, order, reach)
        np.logical_or.at(some, order, reach)
        np.logical_or.at(leaked, order, leaks)
        not_finite += bad
    return _Moved(every, some, leaked, not_finite)


@dataclasses.dataclass
class _Found:
    """What plants have found so far."""

    unreached: dict[int, npt.NDArray[np.int64]]  # queries that have not seen it, by key
    first: int  # position of the first query
    acausal: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    unequal: set[tuple[int, int]] = dataclasses.field(default_factory=set)
    not_finite: int = 0

    def add(self, keys: npt.NDArray[np.int64], moved: _Moved) -> None:
        """Takes in what moved when ``keys`` were planted."""
        self.not_finite += moved.not_finite
        for i, key in enumerate(keys.tolist()):
            def queries(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
                return np.flatnonzero(rows) + self.first

            unequal = queries(moved.some[i] & ~moved.all[i])
            self.unequal |= {(query, key) for query in unequal.tolist()}
            self.acausal |= {(query, key) for query in queries(moved.leaked[i]).tolist()
                             if query < key}
            self.unreached[key] = np.setdiff1d(self.unreached[key], queries(moved.all[i]))


def _probe_paths(candidate: Callable[..., Any], make: Maker, schedule: Schedule, found: _Found,
                 batch: int) -> None:
    """Plants the anchors along a path of the schedule, pair by pair."""
    todo = []
    for key, queries in found.unreached.items():
        for query in queries:
            chains = [path.anchors for path in schedule.path(int(query), key) if path.anchors]
            todo += [(int(query), key, chain) for chain in chains[:4]]
    for i in range(0, len(todo), batch):
        rows, keys, anchors = map(np.array, zip(*todo[i : i + batch]))
        moved = _in_every_sequence(
            lambda order: make.led(candidate, anchors[order], keys[order]), len(keys), batch,
            make.queries)
        # Of this plant only the one query is known to follow the path.
        alone = np.arange(make.queries) + make.first == rows[:, None]
        found.add(keys, _Moved(moved.all & alone, moved.some & alone, moved.leaked & alone,
                               moved.not_finite))


def _wanted(pairs: Any, length: int, last_only: bool, seed: int
            ) -> dict[int, npt.NDArray[np.int64]]:
    """Queries to try for each key."""
    first = length - 1 if last_only else 0
    if not isinstance(pairs, (str, int, np.integer)):
        table = np.asarray(pairs)
        if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu":
            raise ValueError(f"pairs of shape {table.shape}: integers [n, 2], (query, key)")
        for query, key in table.tolist():
            integer("query", query, first, length - 1)
            integer("key", key, 0, query)
        past = {int(key) for query in np.unique(table[:, 0]).tolist() for key in _past(query)}
        planted = {*table[:, 1].tolist(), *(key for key in past if key < length)}
        return {key: np.unique(table[table[:, 1] == key, 0]).astype(np.int64)
                for key in sorted(planted)}
    if isinstance(pairs, str):
        if pairs not in ("all", "auto"):
            raise ValueError(f"pairs {pairs!r}: auto, all, a number of keys, or (query, key) pairs")
        count = length if pairs == "all" or length <= 256 else 64
    else:
        count = min(integer("pairs", pairs, 1, 2**22), length)
    require_memory(f"pairs of {count} keys", 8 * count * (length - first))
    keys: list[int] = list(range(length)) if count >= length else \
        list(dict.fromkeys(_edges(length, seed, count)))[:count]
    return {key: np.arange(max(key, first), length, dtype=np.int64) for key in sorted(keys)}


def _past(query: int) -> Iterator[int]:
    """Keys that a query must not see, and might by a mask that is off: the next one, and the last
    of the tile that it ends in and the first of the next."""
    yield query + 1
    for tile in (8, 16, 32, 64, 128):
        edge = (query // tile + 1) * tile
        yield from (key for key in (edge - 1, edge) if key > query)


def _edges(length: int, seed: int, count: int) -> Iterator[int]:
    """The oldest and newest keys, those at tiles' edges and around squares counted from the newest,
    then random."""
    yield from (0, length - 1, 1, length - 2)
    yield from (key for key in (63, 64, 65, 127, 128, length // 128 * 128) if key < length)
    root = int(length**0.5)
    for i in np.unique(np.linspace(1, max(root, 1), max(count // 6, 1)).astype(int)).tolist():
        for key in (length - i * i - 1, length - i * i, length - i * i + 1):
            if 0 <= key < length:
                yield key
    yield from np.random.default_rng(seed).permutation(length).tolist()
