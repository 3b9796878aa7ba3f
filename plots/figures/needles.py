"""How many planted needles noisy routing finds, beside baselines of equal work."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..plot import Caption, Plot, Table
from ..results import Results, label, size
from ..style import PAGE, length_axis, look

BASELINES = {"random": ("x", (0, (1, 1.5))), "blocks": ("+", (0, (4, 2)))}
SHOWN = ("nstep", "even", "aligned")  # rules; baselines of nstep alone, as the others' are alike


def config_label(config: str) -> str:
    """A configuration's label, as of even2; or its own name."""
    if named := re.fullmatch(r"([a-z]+)(\d+)", config):
        return label(named[1], int(named[2]))
    return config


@dataclass(frozen=True)
class Hunts:
    """Needles looked for by one schedule, or by a baseline of its work."""

    baseline: str  # empty: the schedule itself
    schedule: str
    rule: str
    steps: int
    top_k: int
    length: int
    depth: float  # 0: at the query, 1: the oldest key
    noise: float  # standard deviation on the scores, of which the signal is 1
    trials: int
    found: int
    work: float  # mean, in keys


def hunts(results: Results) -> list[Hunts]:
    """All that was looked for."""
    fields = ("schedule", "rule", "steps", "top_k", "length", "depth", "noise", "trials", "found",
              "work")
    every = [*results.listed("cpu/needles.json", "records", fields),
             *results.listed("cpu/needles.json", "baselines", ("baseline", *fields))]
    return [Hunts(one.get("baseline", ""), *(one[name] for name in fields)) for one in every]


def share_found(chosen: Sequence[Hunts]) -> float:
    """Of all that were planted."""
    return sum(one.found for one in chosen) / sum(one.trials for one in chosen)


def middle_noise(every: Sequence[Hunts]) -> float:
    """The noise that tells schedules apart: 0.3, or the nearest there is."""
    return min({one.noise for one in every}, key=lambda noise: abs(noise - 0.3))


def caption(results: Results) -> Caption:
    """Needles found by noisy routing."""
    every = hunts(results)
    perfect = [one for one in every if not one.baseline and one.noise == 0]
    found, planted = sum(one.found for one in perfect), sum(one.trials for one in perfect)
    longest = max(one.length for one in every)
    noises = sorted({one.noise for one in every})
    rows = []
    for kind in ("", "random", "blocks"):
        for key in dict.fromkeys((one.schedule, one.top_k) for one in every):
            mine = [one for one in every if (one.schedule, one.top_k) == key
                    and one.baseline == kind and one.length == longest]
            if mine:
                shares = (share_found([one for one in mine if one.noise == noise])
                          for noise in noises)
                work = sum(one.work for one in mine) / len(mine)
                rows.append((config_label(key[0]), kind or "schedule", str(key[1]), f"{work:.0f}",
                             *(f"{share:.1%}" for share in shares)))
    noise = middle_noise(every)
    said = []
    for key in dict.fromkeys((one.schedule, one.top_k) for one in every if one.rule == "nstep"):
        if key[1] == 2:
            mine = [one for one in every if (one.schedule, one.top_k) == key
                    and (one.length, one.noise) == (longest, noise)]
            shares = {kind: share_found([one for one in mine if one.baseline == kind])
                      for kind in ("", "random", "blocks")}
            said.append(f"{config_label(key[0])} finds {shares['']:.1%} (random anchors "
                        f"{shares['random']:.1%}, newest blocks {shares['blocks']:.1%})")
    brief = (f"With perfect routing {found} of {planted} needles ({found / planted:.2%}) are "
             f"found: no key is excluded. At noise {noise:g}, {size(longest)} keys and top_k 2: "
             + "; ".join(said) + ".")
    text = ("Needles planted at every depth and length. A candidate scores 1 where its span holds "
            "the needle, else 0, plus normal noise. The baselines do the same work: as many random "
            "anchors with spans of the same length, or as many of the newest blocks, in the colour "
            "of the N whose work it is: with N = 2 these blocks are the whole context, and find "
            "about as much. This is a model of routing alone: it claims nothing about the quality "
            "of any model, nor how noisy a trained router is.")
    return Caption("Routing stress", brief, text,
                   [Table(("schedule", "what", "top_k", "work", *(f"noise {noise:g}"
                                                                  for noise in noises)), rows)],
                   results.sources)


def looks(baseline: str, rule: str, steps: int) -> dict[str, Any]:
    """A schedule's look; its baselines have its colour."""
    style = dict(look(steps, rule))
    if baseline:
        style["marker"], style["linestyle"] = BASELINES[baseline]
        style["linewidth"] = 0.7
    return style


def curves(axes: Axes, every: Sequence[Hunts],
           x: Callable[[Hunts], float]) -> None:
    """Share found against one thing, a line a schedule and baseline."""
    keys = dict.fromkeys((one.baseline, one.rule, one.steps) for one in every
                         if one.rule in SHOWN and (not one.baseline or one.rule == "nstep"))
    for key in keys:
        mine = [one for one in every if (one.baseline, one.rule, one.steps) == key]
        at = sorted({x(one) for one in mine})
        axes.plot(at, [100 * share_found([one for one in mine if x(one) == value])
                       for value in at], **looks(*key))
    axes.set_ylim(-4, 104)
    axes.grid(True)


def draw(results: Results) -> Figure:
    """The figure."""
    every = hunts(results)
    longest = max(one.length for one in every)
    noise = middle_noise(every)
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
    names = [label(rule, steps) for rule, steps in keys]
    for name, (marker, line) in BASELINES.items():
        handles.append(Line2D([], [], color="#555555", marker=marker, linestyle=line,
                              linewidth=0.7))
        names.append({"random": "random anchors, equal work",
                      "blocks": "newest blocks, equal work"}[name])
    grid[1, 2].set_axis_off()
    grid[1, 2].legend(handles, names, loc="center left", handlelength=2.2)
    return figure


PLOT = Plot(needs=("cpu/needles.json",), caption=caption, draw=draw, place=100)
