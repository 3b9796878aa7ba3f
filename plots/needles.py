#!/usr/bin/env python3
"""Draws how many planted needles noisy routing finds, beside baselines of equal work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from paper import PAGE, Results, captions_cpu, captions_routing, length_axis, look, main, size

BASELINES = {"random": ("x", (0, (1, 1.5))), "blocks": ("+", (0, (4, 2)))}
SHOWN = ("nstep", "even")  # rules; baselines of nstep alone, as those of even are alike


def looks(baseline: str, rule: str, steps: int) -> dict[str, Any]:
    """A schedule's look; its baselines have its colour."""
    style = dict(look(steps, rule))
    if baseline:
        style["marker"], style["linestyle"] = BASELINES[baseline]
        style["linewidth"] = 0.7
    return style


def curves(axes: Axes, every: Sequence[captions_routing.Hunts],
           x: Callable[[captions_routing.Hunts], float]) -> None:
    """Share found against one thing, a line a schedule and baseline."""
    keys = dict.fromkeys((one.baseline, one.rule, one.steps) for one in every
                         if one.rule in SHOWN and (not one.baseline or one.rule == "nstep"))
    for key in keys:
        mine = [one for one in every if (one.baseline, one.rule, one.steps) == key]
        at = sorted({x(one) for one in mine})
        axes.plot(at, [100 * captions_routing.share_found([one for one in mine if x(one) == value])
                       for value in at], **looks(*key))
    axes.set_ylim(-4, 104)
    axes.grid(True)


def draw(results: Results) -> Figure:
    """The figure."""
    every = captions_routing.hunts(results)
    longest = max(one.length for one in every)
    noise = captions_routing.middle_noise(every)
    top_ks = sorted({one.top_k for one in every})[:3]
    usual = 2 if 2 in top_ks else top_ks[0]
    figure = Figure(figsize=(PAGE, 4.0))
    grid = figure.subplots(2, 3)
    for axes, top_k in zip(grid[0], top_ks):
        curves(axes, [one for one in every if (one.top_k, one.length) == (top_k, longest)],
               lambda one: one.noise)
        axes.set_title(f"top_k {top_k}, $L$ = {size(longest)}")
        axes.set_xlabel("noise on the scores")
    lengths = [one for one in every if (one.top_k, one.noise) == (usual, noise)]
    curves(grid[1, 0], lengths, lambda one: one.length)
    length_axis(grid[1, 0], [float(one.length) for one in lengths])
    grid[1, 0].set_title(f"noise {noise:g}, top_k {usual}")
    curves(grid[1, 1], [one for one in lengths if one.length == longest], lambda one: one.depth)
    grid[1, 1].set_xlabel("depth of the needle / $L$")
    grid[1, 1].set_title(f"noise {noise:g}, top_k {usual}, $L$ = {size(longest)}")
    for row in grid:
        row[0].set_ylabel("needles found, %")
    for axes in grid[0, len(top_ks):]:
        axes.set_axis_off()
    keys = dict.fromkeys((one.rule, one.steps) for one in every if one.rule in SHOWN)
    handles = [Line2D([], [], **look(steps, rule)) for rule, steps in keys]
    names = [captions_cpu.label(rule, steps) for rule, steps in keys]
    for name, (marker, line) in BASELINES.items():
        handles.append(Line2D([], [], color="#555555", marker=marker, linestyle=line,
                              linewidth=0.7))
        names.append({"random": "random anchors, equal work",
                      "blocks": "newest blocks, equal work"}[name])
    grid[1, 2].set_axis_off()
    grid[1, 2].legend(handles, names, loc="center left", handlelength=2.2)
    return figure


if __name__ == "__main__":
    main(__doc__, captions_routing.needles, draw)
