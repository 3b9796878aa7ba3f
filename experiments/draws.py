"""Random numbers that are the same on every machine."""

import math

import numpy as np
import torch


class Draws:
    """Random numbers that depend on the seed alone, an integer or several: PCG64's integers, scaled
    exactly."""

    def __init__(self, seed):
        self.bits = np.random.PCG64(seed)

    def below(self, limit, count):
        """Integers in [0, limit), a power of two."""
        shift = np.uint64(65 - limit.bit_length())
        return (self.bits.random_raw(count) >> shift).astype(np.int64)

    def some(self, rows, limit, count):
        """``count`` different integers of [0, limit) in each row, in random order: int64
        [rows, count]."""
        drawn = self.bits.random_raw(rows * limit).reshape(rows, limit)
        first = np.argpartition(drawn, count - 1)[:, :count]  # which ones; now in which order
        order = np.argsort(np.take_along_axis(drawn, first, 1))
        return np.take_along_axis(first, order, 1)

    def centred(self, shape):
        """Uniform in [-1, 1), in float64."""
        whole = (self.bits.random_raw(math.prod(shape)) >> np.uint64(11)).astype(np.float64)
        return torch.from_numpy(whole * 2.0**-52 - 1).reshape(shape)
