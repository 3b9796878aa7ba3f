"""Which keys other attentions reach, and their counted work against length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from .. import fits
from ..fits import Point
from ..plot import Caption, Plot, Table
from ..results import Results, size
from ..style import EXCLUDED, PAGE, length_axis, look

GROUPS = {"positions": "positions decide", "averages": "averages", "content": "content chooses",
          "schedules": "N-step schedules"}
SELECTABLE, AVERAGED = "#0072B2", "#56B4E9"
MARKERS = "osD^vP*"
COMPARED = 1 << 16  # the length at which work is compared with bounds
STEPS = (2, 3, 4)


@dataclass(frozen=True)
class Relative:
    """A pattern or a schedule."""

    name: str
    group: str
    options: str  # of reach
    counted: str  # what the work is of
    excluded: int  # pairs of the short context
    averaged: int
    layers: int | None
    points: list[Point]  # work of a query, the mean over a sequence

    @property
    def steps(self) -> int:
        """Of a schedule."""
        return int(self.name.rpartition(" ")[2])

    @property
    def style(self) -> dict[str, Any]:
        """Of a schedule's line."""
        return look(self.steps, self.name.partition(",")[0])


def relatives(results: Results) -> list[Relative]:
    """In the order of the file."""
    return [Relative(one["name"], one["group"], one["options"], one["counted"],
                     one["excluded_pairs"], one["averaged_pairs"], one["layers"],
                     [Point(p["length"], p["work"] / p["length"]) for p in one["points"]])
            for one in results.listed("cpu/relatives.json", "records", (
                "name", "group", "options", "counted", "excluded_pairs", "averaged_pairs",
                "layers", "points"))]


def pairs(results: Results) -> tuple[int, int]:
    """Keys of the short context, and its pairs of a query and an eligible key."""
    length = int(results.read("cpu/relatives.json")["length"])
    return length, length * (length + 1) // 2


def mean_bound(steps: int, length: int) -> float:
    """N n^(1/N), the mean over the queries of a sequence, which have n = 1 ... L keys."""
    return steps * float(np.mean(np.arange(1, length + 1) ** (1 / steps)))


def caption(results: Results) -> Caption:
    """What is reached, and what it costs."""
    found = relatives(results)
    length, every = pairs(results)
    bounds = {steps: mean_bound(steps, COMPARED) for steps in STEPS}
    rows = []
    for one in found:
        fit = fits.fit_power(one.points)
        if fit is None:
            raise ValueError(f"{one.name}: a fit needs three lengths")
        last = fits.local_slopes(one.points, 4)[-1][1]
        work = next(point.y for point in one.points if point.x == COMPARED)
        rows.append((one.name, f"{100 * one.excluded / every:.1f} %",
                     f"{100 * one.averaged / every:.1f} %",
                     "never" if one.layers is None else str(one.layers),
                     f"{fit.exponent:.3f} [{fit.low:.3f}, {fit.high:.3f}]", f"{last:.3f}",
                     f"{work:.0f}", *(f"{work / bounds[steps]:.2f}" for steps in STEPS)))
    patterns = [one for one in found if one.group != "schedules"]

    def named(chosen: list[Relative]) -> str:
        return f"{len(chosen)} ({', '.join(one.name for one in chosen)})"

    out = [one for one in patterns if one.excluded]
    averaged = [one for one in patterns if one.averaged and not one.excluded]
    chosen = [one for one in patterns if not one.excluded and not one.averaged]
    brief = (f"In one layer, of {len(patterns)} patterns of other attentions {named(out)} leave "
             f"keys out, {named(averaged)} have some in averages alone, and in {named(chosen)} "
             "content can choose any key, as in the schedules here.")
    text = (f"Left: of the {every} pairs of a query and an eligible key of {length} keys, those "
            "that one layer can attend to or choose, those that it has in averages alone, and "
            "those that it leaves out; how many layers it takes until every key is reached. "
            "Parameters are small here, so that patterns show. Right: work of a query, products "
            "with what it scores to choose and with what it attends to, the mean over a "
            "sequence, counted on "
            f"{results.read('cpu/relatives.json')['samples']} of its queries, with the parameters "
            "of the papers; of a schedule, one path drawn at random. Exponents are those of this "
            "range, and the slope is that of its last factor of 4. Ratios are to the mean of "
            f"N·n^(1/N) over the queries of {size(COMPARED)} keys; the bound is of schemes that "
            "reach every key by N steps of choices, so that what leaves keys out, or finds them "
            "by an index, a hash or an average, may lie below it. Products are counted, not "
            "weighed: one with a state costs more than one with a key, one with an index less. "
            "Definitions and sources: [relatives.md](relatives.md).")
    return Caption("Relatives", brief, text, [
        Table(("", "left out", "in averages alone", "layers", f"exponent, 1Ki to {size(1 << 20)}",
               "slope at the end", f"work at {size(COMPARED)}",
               *(f"of N·n^(1/N), N = {steps}" for steps in STEPS)), rows)], results.sources)


def draw_reach(axes: Axes, found: list[Relative], every: int) -> None:
    """A bar each: chosen, averaged, left out; the layers beside it."""
    for at, one in enumerate(found):
        chosen = every - one.excluded - one.averaged
        left = 0.0
        for count, colour in ((chosen, SELECTABLE), (one.averaged, AVERAGED),
                              (one.excluded, EXCLUDED)):
            share = count / every
            axes.barh(at, share, left=left, height=0.72, color=colour, linewidth=0)
            left += share
        axes.text(1.02, at, "∞" if one.layers is None else str(one.layers), va="center",
                  ha="left", fontsize=6)
    axes.set_yticks(range(len(found)), [one.name for one in found], fontsize=6)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of pairs, one layer")
    axes.text(1.02, -0.9, "layers", ha="left", va="bottom", fontsize=6)
    axes.tick_params(axis="y", length=0)
    axes.legend(handles=[Patch(color=SELECTABLE, label="can be chosen"),
                         Patch(color=AVERAGED, label="averaged"),
                         Patch(color=EXCLUDED, label="left out")],
                ncol=3, loc="lower left", bbox_to_anchor=(-0.1, 1.02), borderpad=0, handlelength=1,
                columnspacing=1, fontsize=6)


def draw_work(axes: Axes, group: str, found: list[Relative]) -> None:
    """A group's work against length, the schedules' of the default rules behind it."""
    for one in found:
        x, y = zip(*((p.x, p.y) for p in one.points))
        if one.group == "schedules" and (group == "schedules" or one.name.startswith("nstep")):
            behind = {} if group == "schedules" else {"marker": "", "alpha": 0.5, "linewidth": 0.7}
            name = one.name if group == "schedules" else None
            axes.plot(x, y, label=name, **{**one.style, **behind})
    for at, one in enumerate(one for one in found if one.group == group != "schedules"):
        x, y = zip(*((p.x, p.y) for p in one.points))
        axes.plot(x, y, label=one.name, color=f"C{at}" if at < 6 else "#999999", marker=MARKERS[at], markersize=2.8,
                  linewidth=0.9)
    axes.set_yscale("log")
    axes.set_ylim(0.6, 1e6)
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.set_ylabel("work of a query")
    axes.set_title(GROUPS[group], loc="left", fontsize=7)
    axes.grid(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=6, borderpad=0)


def draw(results: Results) -> Figure:
    """The figure."""
    found = relatives(results)
    _, every = pairs(results)
    figure = Figure(figsize=(PAGE, 5.4))
    grid = figure.add_gridspec(len(GROUPS), 2, width_ratios=(1, 1.15))
    draw_reach(figure.add_subplot(grid[:, 0]), found, every)
    lengths = [p.x for one in found for p in one.points]
    panels = [figure.add_subplot(grid[at, 1]) for at in range(len(GROUPS))]
    for panel, group in zip(panels, GROUPS):
        draw_work(panel, group, found)
        last = panel is panels[-1]
        length_axis(panel, lengths, "length $L$" if last else "")
        panel.tick_params(labelbottom=last)
    return figure


PLOT = Plot(needs=("cpu/relatives.json",), caption=caption, draw=draw, place=24,
            picture="cpu/relatives.png",
            alternative="Which pairs of a query and a key 17 patterns of other attentions reach in "
                        "one layer, and their counted work against length, beside the schedules.")
