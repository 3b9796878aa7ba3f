"""Counted work against length, the ratio of choices to their bound, and local slopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .. import fits
from ..fits import Fit, Point
from ..plot import Caption, Plot, Table
from ..results import Results, about, label, size
from ..style import PAGE, length_axis, look, room_for_legend

APART = 4  # local slopes of counted work are taken over such factors of length,
END = 1024  # and at the end over this one
RULE_ORDER = ("dense", "nstep", "even", "aligned", "tight", "paper", "released")


@dataclass(frozen=True)
class Counted:
    """A schedule's work over lengths."""

    rule: str
    steps: int
    points: list[Point]  # drawn work of a sequence, all its queries, in keys per head
    ratios: list[Point]  # the most choices over their lower bound, at lengths that search

    @property
    def label(self) -> str:
        """nstep, N = 3."""
        return label(self.rule, self.steps)

    @property
    def growth(self) -> float:
        """The exponent that the schedule has for great lengths."""
        return 1.55 if self.rule == "released" else 1 + 1 / self.steps


def counted_runs(results: Results) -> list[Counted]:
    """What was counted, in order of rule and N."""
    runs = []
    for one in results.listed("cpu/scaling.json", "runs", ("rule", "steps", "points")):
        def column(name: str, listed: list[dict[str, Any]] = one["points"]) -> list[Point]:
            return [Point(p["length"], p[name]) for p in listed if p[name] is not None]

        rule = "dense" if one["steps"] == 1 else one["rule"]
        runs.append(Counted(rule, one["steps"], column("drawn_work"), column("ratio")))
    return sorted(runs, key=lambda run: (RULE_ORDER.index(run.rule), run.steps))


def counted_fit(run: Counted) -> Fit:
    """The exponent of a run's work; nothing in it is measured, so the points alone are drawn."""
    fit = fits.fit_power(run.points)
    if fit is None:
        raise ValueError(f"{run.label}: a fit needs three lengths")
    return fit


def counted_why(run: Counted, fit: Fit) -> str:
    """Why the exponent of counted work is not its limit."""
    last = fits.local_slopes(run.points, END)[-1][1]
    if abs(fit.exponent - run.growth) < 0.001:
        return "as 1 + 1/N" if run.rule != "released" else "as 1 + 11/20"
    if run.rule == "released":
        why = "the window of 2032 keys counts for all of a short context"
    else:
        why = "whole numbers of anchors and keys at short lengths"
    return f"{why}; slope over the last factor of {size(END)} {last:.4f}"


def caption(results: Results) -> Caption:
    """Counted work against length."""
    runs = counted_runs(results)
    rows = []
    said = []
    for run in runs:
        fit = counted_fit(run)
        ratio = run.ratios[-1].y
        theory = f"{1 + 1 / run.steps:.4f}"
        if run.rule == "released":
            theory += " (its own: 1.5500)"
        rows.append((run.label, f"{about(fit.first)} – {about(fit.last)}, {fit.points} points",
                     f"{fit.exponent:.4f} [{fit.low:.4f}, {fit.high:.4f}]", theory,
                     f"{fit.residual:.3f}", f"{ratio:.3f}", counted_why(run, fit)))
        if run.rule in ("dense", "nstep"):
            said.append(f"{fit.exponent:.3f} for N = {run.steps} ({1 + 1 / run.steps:.3f})")
    brief = ("Counted work grows as L to the power " + ", ".join(said) + " by the default rules; "
             "in brackets, 1 + 1/N.")
    text = ("Work of a whole sequence, all its queries: anchors scored plus keys attended, in keys "
            "per head, counted exactly on sampled queries. Nothing here is timed or drawn at "
            "random but the paths taken, whose mean may lie below N·n^(1/N). What the steps offer "
            "may not: with k = top_k paths kept, c_m the most choices of step m and n the keys "
            "outside a query's window, c_1 + k·(c_2 + … + c_N) ≥ N·(k^(N−1)·n)^(1/N) in every "
            "scheme that reaches all n; shown is the sum over the queries as a ratio to that of "
            "the bounds. The intervals are bootstrapped over the lengths and tell how well one "
            "power describes this range. Local slopes are taken over factors of 4.")
    return Caption("Counted scaling", brief, text,
                   [Table(("schedule", "fitted over", "exponent [95 %]", "1 + 1/N", "max residual",
                           "choices / bound at the end", "where they differ, why"), rows)],
                   results.sources)


def draw(results: Results) -> Figure:
    """The figure."""
    runs = counted_runs(results)
    above = 0.13 * (2 + len(runs) // 3) + 0.1  # inches for the legend
    figure = Figure(figsize=(PAGE, 2.9 + above))
    room_for_legend(figure, above)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.15, 1))
    work, ratio = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    slope = figure.add_subplot(grid[1, 1], sharex=ratio)
    entries = {}
    for run in runs:
        style = look(run.steps, run.rule)
        line = {**style, "marker": ""}
        fit = counted_fit(run)
        x, y = zip(*((p.x, p.y) for p in run.points))
        # A marker every few lengths: what lies under a line remains seen.
        work.plot(x, y, markevery=(2 * run.steps, 10), zorder=3, **style)
        ratio.plot(*zip(*((p.x, p.y) for p in run.ratios)), markevery=(2 * run.steps, 10), **style)
        slopes = fits.local_slopes(run.points, APART)
        slope.plot(*zip(*slopes), **{**line, "linewidth": 0.7})
        slope.axhline(1 + 1 / run.steps, color="#999999", linewidth=0.5, zorder=0)
        text = f"{run.label}: {fit.exponent:.4f} [{fit.low:.4f}, {fit.high:.4f}]"
        entries[text] = Line2D([], [], **style)
    lengths = [p.x for run in runs for p in run.points]
    work.set_yscale("log")
    work.yaxis.set_major_locator(LogLocator(numticks=8))
    work.set_ylabel("drawn work of a sequence, keys per head")
    ratio.set_yscale("log")
    ratio.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ratio.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ratio.yaxis.set_minor_formatter(NullFormatter())
    ratio.set_ylabel("choices / bound")
    slope.set_ylabel("local slope")
    for axes in (work, ratio, slope):
        length_axis(axes, lengths, "" if axes is ratio else "length $L$")
        axes.grid(True)
    ratio.tick_params(labelbottom=False)
    figure.legend(entries.values(), entries.keys(), ncol=3, loc="upper center", borderpad=0,
                  handlelength=2.2, alignment="left",
                  title="fitted exponent [95 % interval]; 1 + 1/N is " + ", ".join(
                      f"{1 + 1 / steps:.4f}" for steps in sorted({run.steps for run in runs})))
    return figure


PLOT = Plot(needs=("cpu/scaling.json",), caption=caption, draw=draw, place=20,
            picture="cpu/counted.png",
            alternative="Counted work against length for every number of steps, with fits; the "
                        "most choices over their lower bound.")
