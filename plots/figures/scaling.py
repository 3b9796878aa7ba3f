"""Work against length for each number of steps N, and choices over their lower bound.

  multistep scale --json > scale.json
  python3 -m plots scaling scale.json --output figures/scaling
"""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from ..plot import FilePlot
from ..results import InputError, read_text
from ..style import COLUMN, powers_of_two

Floats = NDArray[np.float64]
MARKERS = "osD^vP"


@dataclass(frozen=True)
class Run:
    """One schedule at several lengths."""

    label: str
    steps: int
    length: Floats
    work: Floats  # of paths drawn at random, total over the queries of each length
    ratio: Floats  # the most choices offered over their lower bound; NaN where there is none
    fit: tuple[float, float, float, float] | None  # exponent, low, high, theory


def number(path: Path, where: str, record: Any, name: str, above: float = 0) -> float:
    """A number of the JSON text, or an error that says where it should be."""
    value = record.get(name) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value < 1e300:
        raise InputError(f"{path}: {where}.{name}: a number above {above:g}")
    return float(value)


def read_runs(path: Path) -> list[Run]:
    """Reads and checks the output of `multistep scale --json`."""
    try:
        document = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    listed = document.get("runs") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path}: runs: a list, not empty")
    runs = []
    for index, record in enumerate(listed):
        where = f"runs[{index}]"
        steps = int(number(path, where, record, "steps"))
        points = record.get("points")
        if not isinstance(points, list) or not points:
            raise InputError(f"{path}: {where}.points: a list, not empty")
        length, work = np.array(
            [[number(path, f"{where}.points[{i}]", point, name)
              for name in ("length", "drawn_work")] for i, point in enumerate(points)]).T
        ratio = np.array([np.nan if point.get("ratio") is None else
                          number(path, f"{where}.points[{i}]", point, "ratio")
                          for i, point in enumerate(points)])
        fit = record.get("fit")
        if fit is not None:
            exponent, low, high, theory = (
                number(path, f"{where}.fit", fit, name, above=-1e300)
                for name in ("exponent", "low", "high", "theory"))
            fit = exponent, low, high, theory
        runs.append(Run(str(record.get("label", f"N = {steps}")), steps, length, work, ratio, fit))
    return runs


def draw(runs: list[Run]) -> Figure:
    """Work above, the ratio below."""
    figure = Figure(figsize=(COLUMN, 2.9 + 0.12 * len(runs)))
    above, under = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3.2, 1)})
    order = sorted({each.steps for each in runs})
    entries: dict[str, Line2D] = {}
    for index, each in enumerate(runs):
        place = order.index(each.steps)
        # A second schedule of the same N keeps the colour and marker, and is hollow.
        second = any(other.steps == each.steps for other in runs[:index])
        colour = f"C{place % 6}"
        style = {"color": colour, "marker": MARKERS[place % 6], "linestyle": "none",
                 "markerfacecolor": "white" if second else colour, "markeredgewidth": 0.8}
        above.plot(each.length, each.work, zorder=3, **style)
        joined = {**style, "linestyle": "-"}
        under.plot(each.length, each.ratio, linewidth=0.8, **joined)
        text = each.label
        if each.fit is not None:
            exponent, low, high, theory = each.fit
            # A least-squares line passes through the centre of its points.
            intercept = (np.log(each.work) - exponent * np.log(each.length)).mean()
            above.plot(each.length, np.exp(intercept) * each.length**exponent, color=colour)
            text += f": {exponent:.3f} [{low:.3f}, {high:.3f}], theory {theory:.3f}"
        entries[text] = Line2D([], [], **joined)

    above.set(xscale="log", yscale="log", ylabel="drawn work, all queries")
    above.yaxis.set_major_locator(LogLocator(numticks=7))
    powers_of_two(above, np.concatenate([each.length for each in runs]))
    above.legend(entries.values(), entries.keys(), loc="lower left", bbox_to_anchor=(0, 1),
                 title="fitted slope [95 % interval], theory $1 + 1/N$", alignment="left",
                 borderpad=0.1)
    under.set(xlabel="length $L$", ylabel="choices / bound")
    for axes in (above, under):
        axes.grid(True)
    figure.align_ylabels()
    return figure


class ScalePlot(FilePlot):
    """A figure of runs."""

    def read(self, given: Namespace) -> list[Run]:
        return read_runs(*given.inputs)


PLOT = ScalePlot(inputs="JSON from `multistep scale --json`", count=1, draw=draw)
