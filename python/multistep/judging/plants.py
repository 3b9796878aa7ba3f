"""Planted arrays, and what moves by them; ``probing`` says what for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import is_tensor, memory_bytes, require_memory
from .candidates import fields, to_host

_ATTEND = 3  # the dimension by which queries attend to the planted key; 0, 1, 2 are of the search

# All values are at rest, the same and not 0, but for the planted key's. Outputs at rest are the
# same, whatever a query sees, and fall towards 0 where weights are lost to a key that counts in the
# denominator alone.
_REST = 2.0**-5
_PUSH = 64.0  # how far the planted value is pushed, up or down
_SEEN = 2 * _REST  # how far an output moves at least that has seen it
_STILL = _REST / 32  # and at most one that is at rest: bfloat16 rounds by a 512th

Rows = npt.NDArray[np.bool_]  # [plants, L_q]


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


PLANTS = (_nearest, _newer, _older, _oldest, _newest)


@dataclasses.dataclass
class Maker:
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
              keys: npt.NDArray[np.int64]) -> tuple[Rows, Rows, int]:
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
            keys: npt.NDArray[np.int64]) -> tuple[Rows, Rows, int]:
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
               keys: npt.NDArray[np.int64]) -> tuple[Rows, Rows, int]:
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
            reach: Rows = (moved.min(axis=-1) > _SEEN).all(axis=1)
            leaks: Rows = (np.abs(moved).max(axis=-1) > _STILL).any(axis=1)
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
        value = fields(results)["output"]
        if value is None:
            raise ValueError(f"candidate's result of type {type(results).__name__}: no output")
        value = to_host(value)
        array = np.asarray(value.double().numpy() if is_tensor(value) else value)
        if array.shape != q.shape:
            raise ValueError(f"candidate's output of shape {array.shape}: {q.shape} here")
        output = array.astype(np.float64)
        return np.where(np.isfinite(output), output, np.nan)
