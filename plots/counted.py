#!/usr/bin/env python3
"""Draws counted work against length, the ratio of choices to their bound, and local slopes."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from paper import PAGE, Results, analysis, captions_cpu, length_axis, look, main, room_for_legend


def draw(results: Results) -> Figure:
    """The figure."""
    runs = captions_cpu.counted_runs(results)
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
        fit = captions_cpu.counted_fit(run)
        x, y = zip(*((p.x, p.y) for p in run.points))
        # A marker every few lengths: what lies under a line remains seen.
        work.plot(x, y, markevery=(2 * run.steps, 10), zorder=3, **style)
        ratio.plot(*zip(*((p.x, p.y) for p in run.ratios)), markevery=(2 * run.steps, 10), **style)
        slopes = analysis.local_slopes(run.points, captions_cpu.APART)
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


if __name__ == "__main__":
    main(__doc__, captions_cpu.counted, draw)
