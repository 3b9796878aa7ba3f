#!/usr/bin/env python3
"""Draws where each configuration overtakes dense attention, and N = 3 overtakes N = 2."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from paper import (CONFIGS, PAGE, STEP_COLOURS, Results, captions, legend, length_axis, main,
                   room_for_legend, style)

PHASE_MARKERS = {"decode": "o", "prefill": "s", "whole": "^"}


def ratio_axis(axes: Axes, label: str) -> None:
    """Ratios on a logarithmic axis, with 1 drawn."""
    axes.set_yscale("log")
    axes.axhline(1, color="#555555", linewidth=0.8, zorder=1)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(label)
    axes.grid(True)
    low, high = axes.get_ylim()
    if high / low > 200:  # 2 and 5 would crowd
        axes.yaxis.set_major_locator(LogLocator(numticks=8))


def against_dense(axes: Axes, phase: str, shown: list[captions.Race]) -> None:
    """Dense attention's time over ours."""
    for race in shown:
        axes.plot(*zip(*race.points), zorder=3, **style(race.ours))
        if race.crossing.length is not None:
            axes.plot([race.crossing.length], [1], marker="|", markersize=7, markeredgewidth=1.2,
                      color=style(race.ours)["color"], zorder=4)
    axes.set_title(f"{captions.PHASE_NAMES[phase]}: dense / ours")
    ratio_axis(axes, "times as fast as dense")
    length_axis(axes, [x for race in shown for x, _ in race.points])


def among_steps(axes: Axes, shown: list[captions.Race]) -> None:
    """The lower N's time over the higher's."""
    for race in shown:
        look = style(race.ours)
        steps = CONFIGS[race.ours].steps
        axes.plot(*zip(*race.points), color=STEP_COLOURS[steps], linestyle=look["linestyle"],
                  marker=PHASE_MARKERS[race.phase], markersize=3.2, markeredgewidth=0.7,
                  markerfacecolor=look["markerfacecolor"], linewidth=0.9, zorder=3)
    axes.set_title("more steps against fewer")
    ratio_axis(axes, "time of $N - 1$ / time of $N$")
    length_axis(axes, [x for race in shown for x, _ in race.points])
    handles = [Line2D([], [], color="#555555", linestyle="none", markersize=3.2,
                      marker=PHASE_MARKERS[phase]) for phase in PHASE_MARKERS
               if any(race.phase == phase for race in shown)]
    names = [captions.PHASE_NAMES[phase] for phase in PHASE_MARKERS
             if any(race.phase == phase for race in shown)]
    axes.legend(handles, names, loc="best")


def draw(results: Results) -> Figure:
    """The figure."""
    records = results.records()
    every = {phase: captions.races(records, phase) for phase in captions.PHASES}
    phases = [phase for phase in captions.PHASES
              if any(race.theirs == "dense" for race in every[phase])]
    steps = [race for shown in every.values() for race in shown if race.theirs != "dense"]
    figure = Figure(figsize=(PAGE, 4.4))
    room_for_legend(figure, 0.36)
    axes = list(figure.subplots(2, 2).flat)
    for each, phase in zip(axes, phases):
        against_dense(each, phase, [race for race in every[phase] if race.theirs == "dense"])
    rest = axes[len(phases):]
    if steps:
        among_steps(rest[-1], steps)
        rest = rest[:-1]
    for each in rest:
        each.set_axis_off()
    used = {race.ours for shown in every.values() for race in shown}
    legend(figure, [config for config in CONFIGS if config in used], 4)
    return figure


if __name__ == "__main__":
    main(__doc__, captions.crossover, draw)
