#!/usr/bin/env python3
"""Draws the error of each GPU stage over its limit, and how often the chosen set differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from paper import PAGE, Results, captions_stages, main, room_for_legend, size

TYPES = {"bf16": "#0072B2", "fp16": "#E69F00"}
INPUTS = {"random": "o", "clustered": "s", "hot": "^", "needle": "D"}
TITLES = {"search": "search: scores", "attention: output": "whole, on its spans"}
One = Union[captions_stages.Judged, captions_stages.EndToEnd]


def place(one: One, lengths: list[int]) -> float:
    """Where a point stands: by length, then storage type, then inputs."""
    return (lengths.index(one.length) + 0.38 * (list(TYPES).index(one.dtype) - 0.5)
            + 0.075 * (list(INPUTS).index(one.inputs) - 1.5))


def points(axes: Axes, shown: Sequence[One], lengths: list[int], values: list[float]) -> None:
    """One panel's points."""
    for one, value in zip(shown, values):
        axes.plot([place(one, lengths)], [value], marker=INPUTS[one.inputs], markersize=2.8,
                  markeredgewidth=0.5, markerfacecolor="none", color=TYPES[one.dtype])
    axes.set_xticks(range(len(lengths)), [size(length) for length in lengths])
    axes.set_xlim(-0.5, len(lengths) - 0.5)
    axes.yaxis.grid(True)


def logarithmic(axes: Axes) -> None:
    """A logarithmic axis of errors."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())


def over_limit(axes: Axes, mine: list[captions_stages.Judged], lengths: list[int],
               narrow: bool) -> None:
    """A stage's largest errors in units of their limit."""
    least = min((one.worst for one in mine if one.worst > 0), default=1.0)
    points(axes, mine, lengths, [max(one.worst, least / 2) for one in mine])
    axes.axhline(1, color="#000000", linewidth=0.9)
    if narrow:
        axes.set_ylim(0, max([1.15, *(1.05 * one.worst for one in mine)]))
    else:
        logarithmic(axes)
        axes.set_ylim(top=2)


def draw(results: Results) -> Figure:
    """The figure."""
    judged, ends = captions_stages.accuracies(results), captions_stages.ends(results)
    lengths = sorted({one.length for one in judged})
    figure = Figure(figsize=(PAGE, 3.5))
    room_for_legend(figure, 0.22)
    axes = list(figure.subplots(2, 4).flat)
    for each, stage in zip(axes, captions_stages.JUDGED):
        over_limit(each, [one for one in judged if one.stage == stage], lengths,
                   narrow=stage != "search")
        each.set_title(TITLES.get(stage, stage))
    whole, regret, differs = axes[5:]
    finite = [one for one in ends if 0 < one.worst < float("inf")]
    points(whole, finite, lengths, [one.worst for one in finite])
    logarithmic(whole)
    whole.set_title("end to end, absolute")
    searched = [one for one in judged if one.stage == "search"]
    points(regret, searched, lengths, [one.regret or 0 for one in searched])
    regret.set_title("search: regret / bound")
    points(differs, searched, lengths, [100 * (one.differs or 0) for one in searched])
    differs.set_title("search: other sets, %")
    for each in (regret, differs):
        most = max(1e-3, each.get_ylim()[1])
        each.set_ylim(-0.06 * most, 1.1 * most)
        each.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for each in (axes[0], axes[4]):
        each.set_ylabel("largest error / limit")
    for each in axes[4:]:
        each.set_xlabel("length $L$")
    handles = [Line2D([], [], color=colour, linewidth=3) for colour in TYPES.values()]
    handles += [Line2D([], [], color="#555555", marker=marker, linestyle="none",
                       markerfacecolor="none", markersize=3) for marker in INPUTS.values()]
    handles.append(Line2D([], [], color="#000000"))
    figure.legend(handles, [*TYPES, *INPUTS, "limit"], ncol=7, loc="upper center", borderpad=0)
    return figure


if __name__ == "__main__":
    main(__doc__, captions_stages.accuracy, draw)
