"""Attention where queries and keys are sharded alike and no rank has room for all keys: they pass
by, a rank's at a time, once for each search level and once for the items (SPEC 13)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from .._problem import Arguments, Attended
from .._stages import Items, LevelPaths, Paths, Place
from ..torch import stages
from .decoding import found_of
from .exchange import Exchange
from .layout import Layout, Piece
from .pieces import place_of


class Shard(NamedTuple):
    """Consecutive keys."""

    rows: slice
    """Of the rank's tensor that passes by."""
    key_offset: int
    """The first of them, in the sequence of the queries."""


class Queries:
    """Those of one piece, on their way through the levels."""

    def __init__(self, given: Arguments, piece: Piece) -> None:
        self.given, self.piece = given, piece
        self.q = given.q[:, :, piece.rows]
        self.schedule = given.schedule.with_top_k(given.top_k)
        self.length = piece.first + self.q.shape[2]
        self.start = piece.keys.stop - piece.keys.start if piece.nobodys else given.start
        self.paths: Optional[Paths] = None
        self.best: Optional[LevelPaths] = None
        self.items: list[Items] = []

    def shards(self, layout: Layout, rank: int) -> Iterator[Shard]:
        """Of a rank's keys those that the queries may look at. Of rank 0 one shard at least, so
        that queries without keys find nothing there."""
        keys, none = self.piece.keys, rank == 0
        for run in layout.runs(rank):
            begin = max(run.first, keys.start)
            end = min(run.first + run.rows.stop - run.rows.start, keys.stop,
                      keys.start + self.length)
            if begin < end:
                rows = slice(*(run.rows.start + at - run.first for at in (begin, end)))
                yield Shard(rows, begin - keys.start)
                none = False
        if none:
            yield Shard(slice(0, 0), 0)

    def search(self, level: int, keys: Tensor, shard: Shard) -> None:
        """Keeps the best of what is kept and of a shard."""
        query = self.given.routing_queries[level - 1][:, :, self.piece.rows]
        keys = keys[:, :, shard.rows]
        found = stages.search_level(query, keys, self.place(keys, shard.key_offset), level,
                                    self.paths, self.given.search_scale, self.given.kernels)
        self.best = found if self.best is None else stages.best_paths(
            LevelPaths(*map(torch.stack, zip(self.best, found))))

    def descend(self) -> None:
        """All keys have passed by: what was kept are the next level's parents."""
        assert self.best is not None
        self.paths, self.best = stages.from_parents(self.best, self.paths), None

    def attend(self, k: Tensor, v: Tensor, shard: Shard) -> None:
        """Joins a shard's keys of every item to those that have passed by."""
        k, v = k[:, :, shard.rows], v[:, :, shard.rows]
        place = self.place(k, shard.key_offset)

        def attend(spans: Optional[Tensor]) -> Items:
            return stages.attend_items(self.q, k, v, place, spans, self.given.softmax_scale,
                                       self.given.kernels)

        items = [attend(None)]
        if self.paths is not None:
            items.append(attend(self.paths.spans))
        self.items = [stages.merge_items(Items(*map(torch.stack, zip(*both))))
                      for both in zip(self.items, items)] or items

    def found(self) -> Attended:
        return found_of(self.given, self.place(self.given.k[:, :, :0], 0), self.paths, self.items)

    def place(self, keys: Tensor, key_offset: int) -> Place:
        return place_of(self.schedule, self.q, keys, key_offset, self.length, self.start, None)


def attended(given: Arguments, exchange: Exchange, layout: Layout, pieces: Sequence[Piece]
             ) -> list[Attended]:
    """What the queries of each piece find; spans and anchors are keys of its sequence."""
    queries = [Queries(given, piece) for piece in pieces]
    search_keys = given.k if given.search_keys is None else given.search_keys

    def search(rank: int, keys: Tensor) -> None:
        for one in queries:
            for shard in one.shards(layout, rank):
                one.search(level, keys, shard)

    def attend(rank: int, k: Tensor, v: Tensor) -> None:
        for one in queries:
            for shard in one.shards(layout, rank):
                one.attend(k, v, shard)

    for level in range(1, given.schedule.steps):
        exchange.pass_by(f"keys of level {level} in turn", [search_keys], layout.rows, search)
        for one in queries:
            one.descend()
    exchange.pass_by("keys and values in turn", [given.k, given.v], layout.rows, attend)
    return [one.found() for one in queries]
