"""Search keys that stand for their part: the mean of its keys, or their sum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._arrays import positions
from ._rational import integer, number
from .schedule import MAX_LENGTH

_Array = npt.NDArray[Any]


class Pooling(NamedTuple):
    """What ``accumulate`` takes beside the keys, of state 1."""

    a: _Array
    """[batch, num_heads, length]"""
    b: _Array
    """[batch, num_heads, length, 1]"""
    c: _Array
    """[batch, num_heads, length, 1]"""


def part_pooling(part: int, batch: int, num_heads: int, length: int, *, pooling: str = "mean",
                 decay: float = 1.0, start: Any = None, offset: int = 0,
                 dtype: npt.DTypeLike = np.float64) -> Pooling:
    """The recurrence under which each key carries what its part holds up to it, so that an aligned
    level's anchors, the newest keys of their parts, carry all of theirs: with
    ``accumulate(k, *part_pooling(part, ...))[0]`` as search keys, routing is by block means. With
    two steps that is the selection of MoBA.

    Args:
        part: keys of a part, which begins at each multiple of it. ``Schedule.part_lengths`` tells
            it for a length of context. It doubles where contexts pass certain lengths, so take
            that of the context which the queries have; a power of two fits all longer parts too,
            whose anchors then carry the newest keys alone.
        batch, num_heads, length: of the keys.
        pooling: "mean" or "sum".
        decay: in [0, 1]: a key weighs decay^i where i keys of the part are newer; 1 for all alike.
        start: the first eligible key, an integer or integers [batch]; older ones do not count.
        offset: position of row 0.
        dtype: of the arrays. Means of whole parts lose nothing in short types: b is 1, and c the
            inverse of the weights' sum, for parts without decay a power of two.

    One call of ``accumulate`` serves one length of parts. Where several levels are to have means,
    each of its own parts, lay them side by side in head_dim, and let the routing queries of a level
    be zero in the places of the others.
    """
    part = integer("part", part, 1, MAX_LENGTH)
    batch = integer("batch", batch, 1, 2**31)
    num_heads = integer("num_heads", num_heads, 1, 2**31)
    length = integer("length", length, 0, 2**31)
    if pooling not in ("mean", "sum"):
        raise ValueError(f"pooling {pooling!r}: mean or sum")
    decay = number("decay", decay)
    if not 0 <= decay <= 1:
        raise ValueError(f"decay {decay}: a number in [0, 1]")
    at = integer("offset", offset, 0, MAX_LENGTH) + np.arange(length)
    given = positions("start", start, batch, MAX_LENGTH)
    first = np.zeros((1, 1), np.int64) if given is None else given[:, None]
    older = np.maximum(at - np.maximum(at // part * part, first), 0)  # keys of the part before it
    a = np.where(older > 0, decay, 0.0)
    weights = older + 1.0 if decay == 1 else (1 - decay ** (older + 1.0)) / (1 - decay)
    c = 1 / weights if pooling == "mean" else np.ones(older.shape)

    def shaped(array: _Array) -> _Array:
        return np.repeat(np.broadcast_to(array, (batch, length))[:, None].astype(dtype), num_heads,
                         axis=1)

    return Pooling(shaped(a), shaped(np.ones(older.shape))[..., None], shaped(c)[..., None])
