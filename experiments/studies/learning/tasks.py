"""Sequences in which pairs of a key and a value are planted among filler, and keys are asked for at
the end: associative recall with many pairs, needles in a haystack with few."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from draws import Draws


class Batch(NamedTuple):
    """Sequences and what is known of them. Keys that are asked for stand at every second position
    of a sequence's end, each followed by its value."""

    tokens: torch.Tensor
    """int64 [size, length]"""
    asked: torch.Tensor
    """int64 [queries]: positions of the keys asked for, after which the value is to be said."""
    labels: torch.Tensor
    """int64 [size, queries]: the values."""
    places: torch.Tensor
    """int64 [size, queries]: where the values stand, each behind its key."""


@dataclass(frozen=True)
class Task:
    """A kind of sequences. Tokens are the values, from 0 on, then the keys, then the fillers."""

    name: str
    pairs: int
    """Planted, at most."""
    every: int
    """Short sequences have one pair for so many tokens."""
    queries: int
    """Asked for, at most: different ones of the pairs."""
    values: int = 32
    keys: int = 256
    fillers: int = 32

    @property
    def tokens(self):
        """How many there are."""
        return self.values + self.keys + self.fillers

    def counts(self, length):
        """Pairs and queries of a sequence."""
        pairs = max(1, min(self.pairs, length // self.every))
        return pairs, min(self.queries, pairs)

    def batch(self, length, size, seed):
        """``size`` sequences, the same for the same arguments on every machine. Places of pairs are
        uniform among all that do not overlap."""
        draws, (pairs, queries) = Draws(seed), self.counts(length)
        context = length - 2 * queries
        tokens = self.values + self.keys + draws.below(self.fillers, size * length)
        tokens = tokens.reshape(size, length)
        keys = self.values + draws.some(size, self.keys, pairs)
        values = draws.below(self.values, size * pairs).reshape(size, pairs)
        # Of `context` tokens without one of each pair's: a place there is one for both.
        places = np.sort(draws.some(size, context - pairs, pairs)) + np.arange(pairs)
        np.put_along_axis(tokens, places, keys, 1)
        np.put_along_axis(tokens, places + 1, values, 1)
        chosen = draws.some(size, pairs, queries)
        keys, values, places = (np.take_along_axis(one, chosen, 1)
                                for one in (keys, values, places))
        tokens[:, context::2], tokens[:, context + 1::2] = keys, values
        return Batch(*map(torch.from_numpy, (
            tokens, np.arange(context, length, 2), values, places + 1)))


TASKS = {task.name: task for task in (
    Task("recall", pairs=256, every=16, queries=64),
    Task("needle", pairs=1, every=1, queries=1),
    Task("needles", pairs=16, every=32, queries=4),
    Task("tiny", pairs=8, every=8, queries=4, values=8, keys=16, fillers=8),
)}
