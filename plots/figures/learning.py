"""Whether routing is learned: right answers of small models by length, for each task and number of
layers, and steps until a length is solved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..plot import Caption, Plot, Table
from ..results import Results, size
from ..style import PAGE, length_axis, look, room_for_legend

FILE = "h200/learning.json"
FIELDS = ("task", "model", "seed", "rate", "help", "curriculum", "stages", "grid", "solved",
          "steps")
# Student's t for 95 %, by degrees of freedom from 1.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
LINES = {"ema": "-", "ssd": "--", "parts": "-."}  # of what is searched
OTHERS = {"window": ("#666666", "v"), "random": ("#A6A6A6", "d")}
BLOCKS = "#CC79A7"  # of a search without routing queries


@dataclass(frozen=True)
class Series:
    """Runs that differ in their seeds alone."""

    task: str
    model: dict[str, Any]
    rate: float
    help: str | None
    curriculum: tuple[int, ...]
    runs: list[dict[str, Any]]

    @property
    def label(self) -> str:
        """The model, and what helped it."""
        return self.model["label"] + (f", {self.help} early" if self.help else "")

    @property
    def solved(self) -> list[dict[str, Any]]:
        """The runs that learned the last length."""
        return [run for run in self.runs if run["solved"]]

    def at(self, length: int) -> list[dict[str, Any]]:
        """What was measured at a length."""
        return [row for run in self.runs for row in run["grid"] if row["length"] == length]

    @property
    def lengths(self) -> list[int]:
        """That were measured."""
        return sorted({row["length"] for run in self.runs for row in run["grid"]})


def all_series(results: Results) -> list[Series]:
    """All, in the order of their first runs."""
    found: dict[tuple[Any, ...], Series] = {}
    for run in results.listed(FILE, "runs", FIELDS):
        curriculum = tuple(run["curriculum"])
        key = (run["task"], tuple(run["model"].items()), run["rate"], run["help"], curriculum)
        series = found.setdefault(key, Series(run["task"], run["model"], run["rate"], run["help"],
                                              curriculum, []))
        series.runs.append(run)
    return list(found.values())


# Drawn: task, layers.
PANELS = (("recall", 1), ("recall", 2), ("needles", 1))


def shown(every: Sequence[Series], task: str, layers: int) -> list[Series]:
    """Those of the lowest rate, without help, along a curriculum."""
    mine = [one for one in every if (one.task, one.model["layers"]) == (task, layers)
            and one.help is None and len(one.curriculum) > 1]
    lowest = min((one.rate for one in mine), default=None)
    return [one for one in mine if one.rate == lowest]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by Student's t; of one value itself."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, mean, mean
    half = (STUDENT[min(len(values) - 2, 8)] * statistics.stdev(values) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The same in words; beside its interval where there are several."""
    if not values:
        return "–"
    mean, low, high = interval(values)
    text = f"{mean:.{digits}f}"
    return text if len(values) < 2 else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def accuracies(series: Series, length: int) -> list[float]:
    """Of the seeds."""
    return [row["accuracy"] for row in series.at(length)]


def best_layer(row: dict[str, Any]) -> dict[str, Any] | None:
    """Of the layers that search the one that finds most."""
    return max(row["layers"], key=lambda layer: layer["found"], default=None)


def worst(series: Series) -> str:
    """Where most goes wrong: length and depth."""
    cells = []
    for length in series.lengths:
        rows = series.at(length)
        parts = len(rows[0]["depths"])
        for part in range(parts):
            right, asked = (sum(row["depths"][part][name] for row in rows)
                            for name in ("right", "asked"))
            if asked:
                depth = f"{part / parts:.0%} to {(part + 1) / parts:.0%}"
                cells.append((right / asked, length, depth))
    if not cells:
        return "–"
    share, length, depth = min(cells)
    return f"{share:.3f} at {size(length)}, {depth}"


def ranks(series: Series, length: int) -> str:
    """Of the right anchors at each level, in the best layer: the seeds' mean of median ranks."""
    layers = [layer for layer in map(best_layer, series.at(length)) if layer and layer["levels"]]
    if not layers:
        return "–"
    levels = zip(*(layer["levels"] for layer in layers))
    return ", ".join(f"{statistics.fmean(one['median_rank'] for one in level):.1f} of "
                     f"{statistics.fmean(one['anchors'] for one in level):.0f}" for level in levels)


def row(series: Series) -> tuple[str, ...]:
    """Of the table."""
    trained = max((length for length in series.lengths if length <= series.curriculum[-1]),
                  default=None)
    longest = max(series.lengths, default=None)

    def accuracy(length: int | None) -> str:
        return "–" if length is None else spread(accuracies(series, length))

    return (series.task, series.label, f"{series.model['layers']}", f"{series.rate:g}",
            size(series.curriculum[-1]),
            f"{len(series.solved)} of {len(series.runs)}",
            spread([run["steps"] for run in series.solved], 0), accuracy(trained),
            ranks(series, trained) if trained else "–",
            f"{accuracy(longest)} at {size(longest)}" if longest else "–", worst(series))


def by_length(every: Sequence[Series]) -> Table:
    """Right answers of the models that are drawn, at each length: in all, and at the depths."""
    mine = [one for panel in PANELS for one in shown(every, *panel)]
    lengths = sorted({length for one in mine for length in one.lengths})

    def cell(one: Series, length: int) -> str:
        rows = one.at(length)
        if not rows:
            return "–"
        depths = []
        for parts in zip(*(row["depths"] for row in rows)):
            right, asked = (sum(part[name] for part in parts) for name in ("right", "asked"))
            depths.append(f"{100 * right / asked:.0f}" if asked else "–")
        return f"{spread(accuracies(one, length))} ({' '.join(depths)})"

    return Table(("right (% at depths, oldest first)", "task", "layers", *map(size, lengths)),
                 [(one.label, one.task, f"{one.model['layers']}",
                   *(cell(one, length) for length in lengths)) for one in mine])


def caption(results: Results) -> Caption:
    """What was trained and what came of it."""
    every = all_series(results)
    mine = next(filter(None, (shown(every, *panel) for panel in PANELS)))
    last = mine[0].curriculum[-1]
    told = [f"{one.label} {statistics.fmean(accuracies(one, last)):.2f}" for one in mine
            if last in one.lengths]
    brief = (f"Small models from random weights, {mine[0].task}, layers: "
             f"{mine[0].model['layers']}. Right answers at {size(last)}: {', '.join(told)}.")
    enough = results.read(FILE)["runs"][0].get("enough", 0)
    text = ("Sequences hold pairs of a key and a value among filler (recall: many, needles: a few, "
            "needle: one), and ask for values of keys at their end. Models differ in attention "
            "alone; random searches as even with N = 2 does, but chooses by position, and window "
            "is nstep without its search. A run trains at a length until "
            f"{enough:.0%} of new answers are right or its steps run out, then at the next. Solved: "
            "it got so many right at the last length. Steps are those of such runs. Brackets and "
            "bars are 95 % intervals over seeds. Ranks are of the right anchor by score on each "
            "level, from 0, in the layer and head where most values are found in the window or a "
            "kept span. Several runs shared a GPU. "
            "These are small synthetic tasks: they tell nothing of language models.")
    table = Table(("task", "model", "layers", "rate", "trained to", "solved", "steps",
                   "right there", "ranks there", "right at the longest", "worst length and depth"),
                  [row(one) for one in every])
    return Caption("Does routing learn?", brief, text, [table, by_length(every)], results.sources)


def appearance(model: dict[str, Any]) -> dict[str, Any]:
    """Colour by N and marker by rule as elsewhere; and of searches that do not learn."""
    if model["rule"] in OTHERS:
        colour, marker = OTHERS[model["rule"]]
        return {"color": colour, "marker": marker, "linestyle": ":", "linewidth": 0.9,
                "markersize": 3.2}
    drawn = look(model["steps"], model["rule"])
    if model["rule"] != "dense":
        drawn["linestyle"] = LINES.get(model["accumulation"], ":")
    return drawn if model["own_routing"] else {**drawn, "color": BLOCKS, "markerfacecolor": BLOCKS}


def line(axes: Axes, points: Sequence[tuple[float, Sequence[float]]],
         style: dict[str, Any]) -> None:
    """Means with their intervals."""
    points = [(x, values) for x, values in points if values]
    if not points:
        return
    means, lows, highs = zip(*(interval(values) for _, values in points))
    bars = [[mean - low for mean, low in zip(means, lows)],
            [high - mean for mean, high in zip(means, highs)]]
    axes.errorbar([x for x, _ in points], means, bars, elinewidth=0.5, **style)


def draw_steps(axes: Axes, every: Sequence[Series]) -> None:
    """Steps until a length is solved that training begins with."""
    plain = [one for one in every if one.help is None and len(one.curriculum) == 1]
    models: dict[str, list[Series]] = {}
    for one in plain:
        models.setdefault(f"{one.task}, {one.label}", []).append(one)
    for mine in models.values():
        if len(mine) < 2:
            continue
        mine.sort(key=lambda one: one.curriculum)
        line(axes, [(one.curriculum[0], [run["steps"] for run in one.solved]) for one in mine],
             appearance(mine[0].model))
        for one in mine:  # a cross: a run that ended unsolved, at its last step
            for run in one.runs:
                if not run["solved"]:
                    axes.plot([one.curriculum[0]], [run["steps"]], marker="x", markersize=3.5,
                              color=appearance(one.model)["color"])
    axes.set_yscale("log")


def draw(results: Results) -> Figure:
    """The figure."""
    every = all_series(results)
    figure = Figure(figsize=(PAGE, 4.6))
    panels = figure.subplots(2, 2).flatten()
    named: dict[str, Series] = {}
    for axes, (task, layers) in zip(panels, PANELS):
        mine = shown(every, task, layers)
        lengths = sorted({length for one in mine for length in one.lengths})
        for one in mine:
            named.setdefault(one.label, one)
            line(axes, [(length, accuracies(one, length)) for length in lengths],
                 appearance(one.model))
        if mine:
            axes.axvline(mine[0].curriculum[-1], color="#888888", linewidth=0.7)
            length_axis(axes, [float(length) for length in lengths])
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel(f"right, {task}, {layers} layer{'s' if layers > 1 else ''}")
    draw_steps(panels[-1], every)
    length_axis(panels[-1], sorted({float(one.curriculum[0]) for one in every
                                    if len(one.curriculum) == 1}))
    panels[-1].set_ylabel("steps until solved")
    for axes in panels:
        axes.grid(True)
    room_for_legend(figure, 0.16 * math.ceil(len(named) / 3) + 0.05)
    figure.legend([Line2D([], [], **appearance(one.model)) for one in named.values()],
                  list(named), ncol=3, loc="upper center", borderpad=0)
    return figure


PLOT = Plot(needs=(FILE,), caption=caption, draw=draw, place=87, picture="h200/learning.png",
            alternative="Right answers of small models by length, recall by one layer and by two, "
            "needles by one; steps until a length is solved.")
