"""The arguments of accumulation, listed once: see ``_problem``."""

from __future__ import annotations

from typing import NamedTuple, Optional

from ._problem import Array


class Recurrence(NamedTuple):
    """The arguments of ``multistep.accumulate``. Operators take them in this order."""

    x: Array
    a: Array
    b: Array
    c: Array
    initial: Optional[Array] = None
    start: Optional[Array] = None
    offset: int = 0


class WalkGradients(NamedTuple):
    """Of a loss by the arrays among the arguments."""

    x: Array
    a: Array
    b: Array
    c: Array
    initial: Array
    """By the state before the first row, whether one was given or not."""


class WalkSizes(NamedTuple):
    """Sizes of an accumulation (SPEC 5)."""

    batch: int
    heads: int
    length: int
    head_dim: int
    state: int


def check_shapes(given: Recurrence) -> WalkSizes:
    """Checks the shapes of an accumulation; raises ValueError naming the offender."""
    x, b = tuple(given.x.shape), tuple(given.b.shape)
    if len(x) != 4 or len(b) != 4:
        raise ValueError(f"x, b of shapes {x}, {b}: [batch, num_heads, length, head_dim], "
                         "[.., state]")
    sizes = WalkSizes(*x, b[3])
    if min(x[0], x[1], x[3], b[3]) < 1:
        raise ValueError(f"x, b of shapes {x}, {b}: all sizes but the length are >= 1")
    rows = x[:3]
    for name, array, wanted in (("a", given.a, rows), ("b", given.b, (*rows, sizes.state)),
                                ("c", given.c, (*rows, sizes.state)),
                                ("initial", given.initial, (*x[:2], x[3], sizes.state))):
        if array is not None and tuple(array.shape) != wanted:
            raise ValueError(f"{name} of shape {tuple(array.shape)}: {wanted} here")
    return sizes
