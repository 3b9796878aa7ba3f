#!/usr/bin/env python3
"""Draws which number of steps does the least work, against length."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from paper import COLUMN, Results, captions_cpu, length_axis, main, size

CURVES = (10, 20, 30, 40)  # powers of two
SHADES = ("#56B4E9", "#0072B2", "#E69F00", "#000000")
RULES = {"nstep": ("o", "-"), "even": ("s", "--")}


def draw(results: Results) -> Figure:
    """The figure."""
    table = captions_cpu.last_query(results)
    figure = Figure(figsize=(COLUMN, 4.1))
    curves, best = figure.subplots(2, 1)
    for rule, lengths in table.items():
        marker, line = RULES[rule]
        for power, colour in zip(CURVES, SHADES):
            costs = lengths.get(2**power)
            if costs is None:
                continue
            steps = [n for n in sorted(costs) if n > 1]
            curves.plot(steps, [costs[n] for n in steps], color=colour, linestyle=line,
                        linewidth=0.9)
            least = captions_cpu.cheapest_steps(costs)
            curves.plot([least], [costs[least]], marker=marker, color=colour,
                        markerfacecolor="white" if rule == "even" else colour)
            if rule == "nstep":
                curves.annotate(size(2**power), (2, costs[2]), xytext=(-3, 0), ha="right",
                                textcoords="offset points", va="center", fontsize=7, color=colour)
        x = sorted(lengths)
        chosen = [captions_cpu.cheapest_steps(lengths[length]) for length in x]
        best.plot(x, chosen, marker=marker, linestyle=line, linewidth=0.7, label=rule,
                  markersize=2.8, markerfacecolor="white" if rule == "even" else None)
    lengths_seen = sorted({length for lengths in table.values() for length in lengths})
    best.plot(lengths_seen, [math.log(length) for length in lengths_seen], color="#000000",
              linestyle=":", label=r"$\ln L$")
    curves.set_yscale("log")
    curves.set_xlim(-3.5, None)
    curves.set_xticks([2, 10, 20, 30, 40])
    curves.yaxis.set_major_locator(LogLocator(numticks=8))
    curves.yaxis.set_minor_formatter(NullFormatter())
    curves.set_xlabel("steps $N$")
    curves.set_ylabel("work of a path, keys")
    curves.set_title("last query: nstep solid, even dashed; least marked")
    best.set_ylabel("cheapest $N$")
    best.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    best.legend(loc="upper left")
    length_axis(best, [float(length) for length in lengths_seen])
    for axes in (curves, best):
        axes.grid(True)
    figure.align_ylabels()
    return figure


if __name__ == "__main__":
    main(__doc__, captions_cpu.cheapest, draw)
