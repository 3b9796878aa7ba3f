"""Plant and probe (SPEC 8.6): which keys can a kernel reach whose schedule nobody can see?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import numpy.typing as npt

from .._arrays import is_tensor, memory_bytes, require_memory
from .._rational import integer
from .comparison import _fields, _to_host
from ..schedule import Schedule

_ATTEND = 3  # the dimension by which queries attend to the planted key; 0, 1, 2 are of the search

# All values are at rest, the same and not 0, but for the planted key's. Outputs at rest are the
# same, whatever a query sees, and fall towards 0 where weights are lost to a key that counts in the
# denominator alone.
_REST = 2.0**-5
_PUSH = 64.0  # how far the planted value is pushed, up or down
_SEEN = 2 * _REST  # how far an output moves at least that has seen it
_STILL = _REST / 32  # and at most one that is at rest: bfloat16 rounds by a 512th


@dataclasses.dataclass(frozen=True)
class ProbeReport:
    """The report of ``probe``; True where every pair that was tried is reachable and causal."""

    length: int
    pairs: int
    """Pairs of a query and a key that were tried."""
    unreached: npt.NDArray[np.int64]
    """[n, 2]: (query, key) whose value never moved the query's output as it should, in every head,
    dimension and sequence."""
    acausal: npt.NDArray[np.int64]
    """[n, 2]: (query, key) with a key newer than the query, that moved its output: by its value, or
    by its weight alone."""
    unequal: npt.NDArray[np.int64]
    """[n, 2]: (query, key) whose plant moved the output in one sequence of a batch, and not in
    another."""
    not_finite: int
    """Outputs that were NaN or infinite; they count as not moved."""

    def __bool__(self) -> bool:
        pairs = (self.unreached, self.acausal, self.unequal)
        return not any(map(len, pairs)) and self.not_finite == 0

    def __repr__(self) -> str:
        lines = [f"probe        {self.pairs} pairs of a query and a key below {self.length}"]
        if not len(self.unreached):
            lines.append("REACHED      every pair: some plant leads the query to the key")
        else:
            query, key = self.unreached[0]
            lines.append(f"NOT REACHED  {len(self.unreached)} pairs, the first query {query}, key "
                         f"{key}")
        if len(self.acausal):
            query, key = self.acausal[0]
            lines.append(f"NOT CAUSAL   {len(self.acausal)} pairs, the first query {query}, key "
                         f"{key}")
        if len(self.unequal):
            query, key = self.unequal[0]
            lines.append(f"NOT EQUAL    {len(self.unequal)} pairs, which sequences of a batch "
                         f"answer differently, the first query {query}, key {key}")
        if self.not_finite:
            lines.append(f"NOT FINITE   {self.not_finite} outputs")
        return "\n".join(lines)


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
    make = _Maker(steps, num_heads, num_kv_heads, head_dim, length, dtype, device, last_only)
    batch = make.fitting(batch)
    found = _Found({int(key): queries for key, queries in wanted.items()}, make.first)
    found.not_finite = make.rest(candidate, batch)
    for n, plant in enumerate(_PLANTS):
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


_Rows = npt.NDArray[np.bool_]  # [plants, L_q]


class _Moved(NamedTuple):
    """Which queries moved as they should when plants stood in every sequence of a batch in turn: in
    all of them, in some; and which moved at all, in any."""

    all: _Rows
    some: _Rows
    leaked: _Rows
    not_finite: int


def _in_every_sequence(call: Callable[[npt.NDArray[np.int64]], tuple[_Rows, _Rows, int]],
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


def _probe_paths(candidate: Callable[..., Any], make: _Maker, schedule: Schedule, found: _Found,
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


def _newer(length: int, key: int) -> npt.NDArray[np.int64]:
    at = np.arange(length)
    return np.where(at >= key, length - (at - key), 0)


def _older(length: int, key: int) -> npt.NDArray[np.int64]:
    at = np.arange(length)
    return np.where(at <= key, length - (key - at), 0)


def _nearest(length: int, key: int) -> npt.NDArray[np.int64]:
    return length - np.abs(np.arange(length) - key)


def _oldest(length: int, key: int) -> npt.NDArray[np.int64]:
    return length - np.arange(length)


def _newest(length: int, key: int) -> npt.NDArray[np.int64]:
    return np.arange(length) + 1


_PLANTS = (_nearest, _newer, _older, _oldest, _newest)


@dataclasses.dataclass
class _Maker:
    """Makes the planted arrays and looks at what moves."""

    steps: int
    heads: int
    kv_heads: int
    head_dim: int
    length: int
    dtype: Any
    device: Any
    last_only: bool

    def __post_init__(self) -> None:
        self.first = self.length - 1 if self.last_only else 0
        self.queries = self.length - self.first
        module = type(self.dtype).__module__.split(".")[0]
        self.tensors = self.device is not None or module == "torch"
        if not self.tensors:
            name = np.dtype(self.dtype).name  # raises where it is none
            if name not in ("float64", "float32", "float16", "bfloat16"):
                raise TypeError(f"dtype {name}: float64, float32, float16 or bfloat16")

    def fitting(self, batch: int) -> int:
        """As many sequences of ``batch`` as memory has room for; MemoryError where not one fits."""
        rows = self.queries * self.heads * (4 + 2 * self.steps)
        one = 8 * self.head_dim * (rows + 4 * self.length * self.kv_heads)
        fits = max(1, min(batch, memory_bytes() // (2 * one)))
        require_memory(f"probe of {self.length} keys", one * fits)
        return fits

    def rest(self, candidate: Callable[..., Any], batch: int) -> int:
        """Looks at the outputs where nothing is planted; how many values are not finite."""
        k = np.zeros((batch, self.kv_heads, self.length, self.head_dim), np.float32)
        q = np.zeros((batch, self.heads, self.queries, self.head_dim), np.float32)
        self.resting = self.output(candidate, q, k, np.full_like(k, _REST), [q] * (self.steps - 1))
        return int(np.count_nonzero(np.isnan(self.resting)))

    def moved(self, candidate: Callable[..., Any], scores: npt.NDArray[np.int64],
              keys: npt.NDArray[np.int64]) -> tuple[_Rows, _Rows, int]:
        """Which queries of each sequence move, in every head as they should, and in any: bool [n,
        L_q]; and how many values are not finite. Scores are integers in [0, 2^24), key by key, of
        all levels."""
        k, q = self.sharp(keys)
        route = np.zeros_like(q)
        shift = max(1, self.length.bit_length())
        for digit in range(3):  # digits below 256 are exact in every storage type
            k[..., digit] = (scores >> (8 * digit) & 255)[:, None, :]
            # All scores below 2: every kept path has its share.
            route[..., digit] = 2.0 ** (8 * digit - shift)
        return self.pushed(candidate, q, k, [route] * (self.steps - 1), keys)

    def led(self, candidate: Callable[..., Any], anchors: npt.NDArray[np.int64],
            keys: npt.NDArray[np.int64]) -> tuple[_Rows, _Rows, int]:
        """The same where each sequence has a chain of anchors [n, N - 1], each of which scores 1 at
        its own level alone: a level reads a dimension of its own, so that no path comes up to the
        chain."""
        k, q = self.sharp(keys)
        routes = []
        for m in range(self.steps - 1):
            own = m if m < _ATTEND else m + 1
            k[np.arange(len(keys)), :, anchors[:, m], own] = 1
            routes.append(np.zeros_like(q))
            routes[m][..., own] = 1
        return self.pushed(candidate, q, k, routes, keys)

    def sharp(self, keys: npt.NDArray[np.int64]
              ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Keys and queries of which each query attends to the planted key of its sequence."""
        count = len(keys)
        k = np.zeros((count, self.kv_heads, self.length, self.head_dim), np.float32)
        # exp(16^2 / sqrt(head_dim)): next to the planted key no other counts.
        k[np.arange(count), :, keys, _ATTEND] = 16
        q = np.zeros((count, self.heads, self.queries, self.head_dim), np.float32)
        q[..., _ATTEND] = 16
        return k, q

    def pushed(self, candidate: Callable[..., Any], q: npt.NDArray[np.float32],
               k: npt.NDArray[np.float32], routes: list[npt.NDArray[np.float32]],
               keys: npt.NDArray[np.int64]) -> tuple[_Rows, _Rows, int]:
        """What moves when the values of ``keys`` do; see ``moved``."""
        # Up or down by the bits of the KV head.
        sides = 1 - 2 * (np.arange(self.kv_heads)[:, None] >> np.arange(self.head_dim) & 1)
        v = np.full_like(k, _REST)
        v[np.arange(len(keys)), :, keys] += _PUSH * sides
        output = self.output(candidate, q, k, v, routes)
        bad = int(np.count_nonzero(np.isnan(output)))
        by = np.repeat(sides, self.heads // self.kv_heads, axis=0)[:, None]
        moved = (output - self.resting) * by  # [n, num_heads, L_q, head_dim]
        with np.errstate(invalid="ignore"):
            reach: _Rows = (moved.min(axis=-1) > _SEEN).all(axis=1)
            leaks: _Rows = (np.abs(moved).max(axis=-1) > _STILL).any(axis=1)
        return reach, leaks, bad

    def array(self, values: npt.NDArray[np.float32]) -> Any:
        if not self.tensors:
            return values.astype(self.dtype)  # a copy
        import torch

        dtype = self.dtype
        if not isinstance(dtype, torch.dtype):
            dtype = getattr(torch, np.dtype(dtype).name)
        return torch.tensor(values, device=self.device, dtype=dtype)

    def output(self, candidate: Callable[..., Any], q: npt.NDArray[np.float32],
               k: npt.NDArray[np.float32], v: npt.NDArray[np.float32],
               routes: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
        """The candidate's output, NaN where it is not finite."""
        arrays = [self.array(values) for values in (q, k, v)]
        results = candidate(*arrays, [self.array(route) for route in routes])
        value = _fields(results)["output"]
        if value is None:
            raise ValueError(f"candidate's result of type {type(results).__name__}: no output")
        value = _to_host(value)
        array = np.asarray(value.double().numpy() if is_tensor(value) else value)
        if array.shape != q.shape:
            raise ValueError(f"candidate's output of shape {array.shape}: {q.shape} here")
        output = array.astype(np.float64)
        return np.where(np.isfinite(output), output, np.nan)


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
