"""Which positions of a sequence the rows of each rank are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from .. import _arrays
from .._rational import integer
from ..schedule import MAX_LENGTH
from ..torch.kernels import in_wide_values


class Run(NamedTuple):
    """Rows of a rank that lie one behind the other in the sequence."""

    rows: slice
    first: int
    """The position of the first row."""


class Piece(NamedTuple):
    """Rows of a rank that one call of the operator takes."""

    rows: slice
    first: int
    """The position of the first of them in the sequence that they are of."""
    keys: slice
    """Which keys of all: those of their sequence."""
    nobodys: bool = False
    """Rows behind the last packed sequence, which have no keys."""


class Layout:
    """Which positions of a sequence of ``length`` the rows of each rank are, queries and keys
    alike. It is made of the same numbers on every rank, without communication, and serves any
    number of calls.

    Args:
        positions: of every rank an index array [rows], which may be empty: together they hold each
            position once. A rank's rows are attended to in runs of consecutive positions, one call
            of the operator for each: few long runs are fast.
    """

    def __init__(self, positions: Sequence[Any]) -> None:
        self.positions = [torch.tensor(_arrays.integers(f"positions[{rank}]", one))
                          for rank, one in enumerate(positions)]
        self.rows = [len(one) for one in self.positions]
        self.length = sum(self.rows)
        together = torch.cat([*self.positions, torch.zeros(0, dtype=torch.int64)])
        self.order = together.argsort()
        """[length]: which of all ranks' rows, in rank order, stands at each position."""
        wrong = (together[self.order] != torch.arange(self.length)).nonzero()
        if len(wrong):
            position = int(wrong[0])
            raise ValueError(f"positions of {self.length} rows: each in [0, {self.length - 1}] once, "
                             f"of which {position} is the first that is not")
        self.digest = hashlib.sha256(str(self.rows).encode() + together.numpy().tobytes()
                                     ).hexdigest()
        self._runs: dict[int, list[Run]] = {}
        self._copies: dict[tuple[torch.device, Optional[int]], Tensor] = {}

    @classmethod
    def contiguous(cls, rows: Sequence[int]) -> Layout:
        """Of every rank the next ``rows[rank]`` positions."""
        bounds = [0]
        for rank, count in enumerate(rows):
            bounds.append(bounds[-1] + integer(f"rows[{rank}]", count, 0, MAX_LENGTH))
        return cls([torch.arange(first, past) for first, past in zip(bounds, bounds[1:])])

    @classmethod
    def head_tail(cls, length: int, ranks: int) -> Layout:
        """The sequence in 2 ``ranks`` parts as equal as can be: rank r has part r, and behind it
        part 2 ranks - 1 - r, so that ranks have nearly as much work."""
        length = integer("length", length, 0, MAX_LENGTH)
        parts = torch.arange(length).tensor_split(2 * integer("ranks", ranks, 1, 1 << 20))
        return cls([torch.cat([parts[r], parts[-1 - r]]) for r in range(ranks)])

    def runs(self, rank: int) -> list[Run]:
        """The runs of a rank's rows, in their order."""
        if rank not in self._runs:
            self._runs[rank] = list(_runs(self.positions[rank]))
        return self._runs[rank]

    def pieces(self, rank: int, bounds: Sequence[int]) -> Iterator[Piece]:
        """A rank's rows in order, cut where their positions jump and where packed sequences end,
        whose ``bounds`` these are, if any. A rank without rows has one piece without, by which its
        gradients take part in exchanges."""
        if not self.rows[rank]:
            yield Piece(slice(0, 0), 0, slice(0, 0))
        sequences = [(begin, end, False) for begin, end in zip(bounds, bounds[1:])]
        sequences.append((bounds[-1] if bounds else 0, self.length, bool(bounds)))
        for run in self.runs(rank):
            past = run.first + run.rows.stop - run.rows.start
            for begin, end, nobodys in sequences:
                first, last = max(run.first, begin), min(past, end)
                if first < last:
                    rows = slice(*(run.rows.start + at - run.first for at in (first, last)))
                    yield Piece(rows, first - begin, slice(begin, end), nobodys)

    def shard(self, tensor: Tensor, rank: int, dim: int = 2) -> Tensor:
        """A rank's rows of a whole tensor."""
        runs = self.runs(rank)
        if not 0 < len(runs) <= _MOST_RUNS:
            return tensor.index_select(dim, self._beside(tensor, rank))
        return _joined([tensor.narrow(dim, run.first, run.rows.stop - run.rows.start)
                        for run in runs], dim)

    def whole(self, shards: Sequence[Tensor], dim: int = 2) -> Tensor:
        """The whole tensor from all ranks' rows."""
        runs = [(run.first, rank, run.rows) for rank in range(len(self.rows))
                for run in self.runs(rank)]
        if not 0 < len(runs) <= _MOST_RUNS:
            together = torch.cat(list(shards), dim)
            return together.index_select(dim, self._beside(together))
        return _joined([shards[rank].narrow(dim, rows.start, rows.stop - rows.start)
                        for _, rank, rows in sorted(runs, key=lambda run: run[0])], dim)

    def _beside(self, tensor: Tensor, rank: Optional[int] = None) -> Tensor:
        """A rank's positions, or the order, on a tensor's device. They are copied there once, as
        the host would wait for it each time."""
        key = tensor.device, rank
        if key not in self._copies:
            index = self.order if rank is None else self.positions[rank]
            self._copies[key] = index.to(tensor.device)
        return self._copies[key]


_MOST_RUNS = 64  # that are copied run by run: more are looked up row by row


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """``torch.cat``, of three dimensions and wide values, which CUDA copies faster."""
    before, after = parts[0].shape[:dim], parts[0].shape[dim + 1:]
    rows = [one.shape[dim] for one in parts]
    wide = [in_wide_values(one) for one in parts] if after else list(parts)
    if len({one.dtype for one in wide}) > 1:
        wide = list(parts)
    together = torch.cat([one.reshape(before.numel(), count, one.shape[dim + 1:].numel())
                          for one, count in zip(wide, rows)], 1)
    if together.dtype != parts[0].dtype:
        together = together.view(parts[0].dtype)
    return together.view(*before, sum(rows), *after)


def _runs(positions: Tensor) -> Iterator[Run]:
    if not len(positions):
        return
    cuts = ((positions[1:] != positions[:-1] + 1).nonzero()[:, 0] + 1).tolist()
    for begin, end in zip([0, *cuts], [*cuts, len(positions)]):
        yield Run(slice(begin, end), int(positions[begin]))
