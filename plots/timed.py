#!/usr/bin/env python3
"""Draws times on the GPU against length: decoding, prefill chunks and whole prefills."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from paper import (CONFIGS, PAGE, STEP_COLOURS, Results, analysis, captions, legend, length_axis,
                   main, room_for_legend, style)

UNITS = {"decode": (1e6, "a token, µs"), "prefill": (1e6, "a query of the chunk, µs"),
         "whole": (1e3, "the sequence, ms")}


def plain(value: float, _: int | None = None) -> str:
    """0.1, 1, 10, 100 rather than powers."""
    return f"{value:g}"


def panel(above: Axes, under: Axes, phase: str, runs: list[captions.Timed],
          bars: dict[tuple[str, float], tuple[float, float]]) -> None:
    """One phase: times above, local slopes below."""
    factor, unit = UNITS[phase]
    lengths = []
    for run in runs:
        look = style(run.config)
        x = [point.x for point in run.points]
        y = [point.y * factor for point in run.points]
        lengths += x
        ends = [bars[run.config, point.x] for point in run.points]
        errors = [[v - low * factor for v, (low, _) in zip(y, ends)],
                  [high * factor - v for v, (_, high) in zip(y, ends)]]
        above.errorbar(x, y, yerr=errors, zorder=3, elinewidth=0.7, capsize=1.2, capthick=0.5,
                       **{**look, "linestyle": "none"})
        if run.fit is not None:
            ends_x = [run.fit.first, run.fit.last]
            above.plot(ends_x, [run.fit(v) * factor for v in ends_x], color=look["color"],
                       linestyle=look["linestyle"], linewidth=0.7)
        if run.slopes:
            under.plot(*zip(*run.slopes), **look)
    whole = phase == "whole"
    for steps in sorted({CONFIGS[run.config].steps for run in runs}):
        under.axhline(1 / steps + whole, color=STEP_COLOURS[steps], linewidth=0.6,
                      linestyle=(0, (4, 2)), alpha=0.7, zorder=0)
    above.set_yscale("log")
    low, high = above.get_ylim()
    subs = (1, 2, 5) if high < 100 * low else (1,)
    above.yaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    above.yaxis.set_major_formatter(FuncFormatter(plain))
    above.yaxis.set_minor_formatter(NullFormatter())
    above.set_title(captions.PHASE_NAMES[phase])
    above.set_ylabel(unit)
    under.set_ylabel("local slope")
    least = min((slope for run in runs for _, slope in run.slopes), default=0.0)
    under.set_ylim(min(least, 0.9 if whole else 0.0) - 0.1, 2.15 if whole else 1.15)
    length_axis(under, lengths, "length $L$" if phase != "prefill" else "keys seen")


def draw(results: Results) -> Figure:
    """The figure."""
    records = results.records()
    phases = {phase: captions.timed_runs(records, phase) for phase in captions.PHASES}
    phases = {phase: runs for phase, runs in phases.items() if runs}
    figure = Figure(figsize=(PAGE, 3.9))
    room_for_legend(figure, 0.36)
    axes = figure.subplots(2, len(phases), sharex="col", squeeze=False,
                           gridspec_kw={"height_ratios": (2.1, 1)})
    shown: list[str] = []
    for column, (phase, runs) in enumerate(phases.items()):
        bars = {(r.config, analysis.point_of(r, phase != "whole").x):
                (r.low / (r.queries if phase == "prefill" else 1),
                 r.high / (r.queries if phase == "prefill" else 1))
                for r in records if (r.phase, r.stage, r.l2) == (phase, "attention", "cold")}
        panel(axes[0, column], axes[1, column], phase, runs, bars)
        shown += [run.config for run in runs if run.config not in shown]
    for each in axes.flat:
        each.grid(True)
    legend(figure, [config for config in CONFIGS if config in shown], 5)
    figure.align_ylabels()
    return figure


if __name__ == "__main__":
    main(__doc__, captions.timed, draw)
