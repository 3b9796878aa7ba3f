"""Which number of steps does the least work, against length."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..plot import Caption, Plot, Table
from ..results import Results, size
from ..style import COLUMN, length_axis

CURVES = (10, 20, 30, 40)  # powers of two
SHADES = ("#56B4E9", "#0072B2", "#E69F00", "#000000")
RULES = {"nstep": ("o", "-"), "even": ("s", "--"), "aligned": ("X", ":")}


def last_query(results: Results) -> dict[str, dict[int, dict[int, float]]]:
    """Mean work of one path of the last query: by rule, length and N."""
    table: dict[str, dict[int, dict[int, float]]] = {}
    for one in results.listed("cpu/scaling.json", "last_query",
                              ("length", "rule", "steps", "work", "lower_bound")):
        table.setdefault(one["rule"], {}).setdefault(one["length"], {})[one["steps"]] = one["work"]
    return table


def cheapest_steps(costs: dict[int, float]) -> int:
    """The N of the least work; of equals the smallest."""
    return min(costs, key=lambda steps: (costs[steps], steps))


def caption(results: Results) -> Caption:
    """Which N does the least work at each length."""
    table = last_query(results)
    rows = []
    for rule, lengths in table.items():
        for length in sorted(lengths):
            if math.log2(length) % 5:
                continue
            costs = lengths[length]
            best = cheapest_steps(costs)
            rows.append((rule, size(length), str(best), f"{costs[best]:.1f}",
                         *(f"{costs[n]:.1f}" if n in costs else "–" for n in (2, 3, 4)),
                         f"{math.log(length):.1f}"))
    said = []
    for rule, lengths in table.items():
        longest = max(lengths)
        costs = lengths[longest]
        best = cheapest_steps(costs)
        near = min((n for n in costs if costs[n] <= 2 * costs[best]), default=best)
        said.append(f"under {rule} at {size(longest)} N = {best} does the least, "
                    f"{costs[best]:.0f} keys a path, and N = {near} is within twice that")
    brief = "Cheapest N: " + "; ".join(said) + "."
    text = ("The N that does the least work for the last query of a context, one path's mean over "
            "all pairs of a path and a key of its final span, among N = 1 … log2 L. That mean is "
            "at least N·L^(1/N), which is least at N = ln L, where every step chooses among e. "
            "Steps depend on each other, so the cheapest count is not "
            "the fastest: see the timed figures.")
    return Caption("Cheapest number of steps", brief, text,
                   [Table(("rule", "length", "cheapest N", "its work", "N = 2", "N = 3", "N = 4",
                           "ln L"), rows)], results.sources)


def draw(results: Results) -> Figure:
    """The figure."""
    table = last_query(results)
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
            least = cheapest_steps(costs)
            curves.plot([least], [costs[least]], marker=marker, color=colour,
                        markerfacecolor="white" if rule == "even" else colour)
            if rule == "nstep":
                curves.annotate(size(2**power), (2, costs[2]), xytext=(-3, 0), ha="right",
                                textcoords="offset points", va="center", fontsize=7, color=colour)
        x = sorted(lengths)
        chosen = [cheapest_steps(lengths[length]) for length in x]
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
    curves.set_title("last query: nstep solid, even dashed, aligned dotted; least marked")
    best.set_ylabel("cheapest $N$")
    best.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    best.legend(loc="upper left")
    length_axis(best, [float(length) for length in lengths_seen])
    for axes in (curves, best):
        axes.grid(True)
    figure.align_ylabels()
    return figure


PLOT = Plot(needs=("cpu/scaling.json",), caption=caption, draw=draw, place=30)
