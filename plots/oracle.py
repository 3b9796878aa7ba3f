#!/usr/bin/env python3
"""Draws the oracle's times against length, with fits and local slopes."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from paper import (COLUMN, STEP_COLOURS, Results, analysis, captions_cpu, length_axis, look, main,
                   room_for_legend)


def draw(results: Results) -> Figure:
    """The figure."""
    runs = captions_cpu.oracle_runs(results)
    figure = Figure(figsize=(COLUMN, 3.6))
    room_for_legend(figure, 0.14 * ((len(runs) + 1) // 2) + 0.22)
    above, under = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
    entries = {}
    for (rule, steps), points in runs.items():
        style = look(steps, rule)
        low = [p.y - sorted(p.repeats)[0] for p in points]
        high = [sorted(p.repeats)[-1] - p.y for p in points]
        above.errorbar([p.x for p in points], [p.y for p in points], yerr=[low, high], zorder=3,
                       elinewidth=0.7, capsize=1.2, capthick=0.5, **{**style, "linestyle": "none"})
        text = captions_cpu.label(rule, steps)
        fit = analysis.fit_power(points)
        if fit is not None:
            ends = [fit.first, fit.last]
            above.plot(ends, [fit(x) for x in ends], color=style["color"], linewidth=0.7,
                       linestyle=style["linestyle"])
            text += f": {fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
        entries[text] = Line2D([], [], **style)
        if len(points) > 1:
            under.plot(*zip(*analysis.local_slopes(points)), **style)
        under.axhline(1 + 1 / steps, color=STEP_COLOURS[min(steps, 6)], linewidth=0.6,
                      linestyle=(0, (4, 2)), alpha=0.7, zorder=0)
    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(numticks=8))
    above.yaxis.set_minor_formatter(NullFormatter())
    above.set_ylabel("a sequence, s")
    under.set_ylabel("local slope")
    length_axis(under, [p.x for points in runs.values() for p in points])
    for axes in (above, under):
        axes.grid(True)
    figure.legend(entries.values(), entries.keys(), ncol=2, loc="upper center", borderpad=0,
                  title="fitted exponent [95 %]; 1 + 1/N dashed below", alignment="left",
                  handlelength=2.2)
    figure.align_ylabels()
    return figure


if __name__ == "__main__":
    main(__doc__, captions_cpu.oracle, draw)
