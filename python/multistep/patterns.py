"""Which keys the patterns of other attentions reach (SPEC 12)."""

from __future__ import annotations

import time
from typing import Union

from . import _core
from ._progress import ProgressBar
from ._rational import integer
from .reports import PatternWork, Report
from .schedule import MAX_LENGTH, layers_wanted, report_of


def verify_pattern(name: str, length: int, progress: bool = True, *, start: int = 0,
                   layers: Union[str, int, None] = None, **parameters: int) -> Report:
    """The same question for the pattern of another attention (SPEC 12): which keys can a query
    reach in one layer, what only through averages, and what does it cost?

    Args:
        name: one of ``pattern_names()``: "window", "strided", "moba", ...
        length: L in [1, 2^48].
        progress: show a bar on a terminal where it takes long.
        start: the first eligible key.
        layers: as in ``Schedule.verify``.
        parameters: those that the pattern has, as ``window=512`` or ``top_k=3``; by default its
            paper's.

    Raises ValueError for another name, a parameter that the pattern has not, or a value out of
    range. Can be interrupted. Source: ``reference/include/multistep/patterns.hpp``.
    """
    length = integer("length", length, 1, MAX_LENGTH)
    start = integer("start", start, 0, length - 1)
    given = [(key.replace("_", "-"), integer(key, value, 0, 2**63 - 1))
             for key, value in parameters.items()]
    began = time.monotonic()
    with ProgressBar("verify", progress) as bar:
        told, found, averaged, scored, attended, most_scored, most_attended = _core.verify_pattern(
            str(name), given, length, start, bar.callback)
        through = None
        if layers is not None:
            found, number, fixed_point = _core.pattern_layers(
                str(name), given, length, start, layers_wanted(layers), bar.callback)
            through = (number, fixed_point)
    work = PatternWork(scored, attended, (scored + attended) / found[0], most_scored, most_attended)
    return report_of(f"pattern {told}", length, start, None, found, None, time.monotonic() - began,
                     pattern_work=work, averaged_pairs=averaged, layers=through)


def pattern_names() -> tuple[str, ...]:
    """The patterns that ``verify_pattern`` knows."""
    return tuple(_core.pattern_names())
