"""The error of each GPU stage over its limit, and how often the chosen set differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..plot import Caption, Plot, Table
from ..results import SCHEDULES, Results, size
from ..style import PAGE, room_for_legend

JUDGED = ("search", "span attention", "span lse", "window, combine", "attention: output")
TYPES = {"bf16": "#0072B2", "fp16": "#E69F00"}
INPUTS = {"random": "o", "clustered": "s", "hot": "^", "needle": "D"}
TITLES = {"search": "search: scores", "attention: output": "whole, on its spans"}


@dataclass(frozen=True)
class Judged:
    """One stage of one comparison with the oracle, in the units of its limit."""

    config: str
    length: int
    dtype: str
    inputs: str
    stage: str
    worst: float  # largest error over its limit; of a selection: over its bound
    mean: float | None  # the same of the mean; a selection's has no limit
    regret: float | None  # of a selection: largest, in bounds
    differs: float | None  # share of rows whose chosen set is not the oracle's
    passed: bool


@dataclass(frozen=True)
class EndToEnd:
    """The whole against the oracle that makes its own choices: reported, not judged."""

    config: str
    length: int
    dtype: str
    inputs: str
    worst: float  # absolute; infinite where a value is no number
    mean: float


One = Union[Judged, EndToEnd]


def ends(results: Results) -> list[EndToEnd]:
    """The end-to-end errors of every comparison."""
    out = []
    for run in results.listed("h100/accuracy.json", "runs", ("schedule", "shape", "end_to_end")):
        shape, whole = run["shape"], run["end_to_end"]
        worst, mean = (float("inf") if whole[name] is None else whole[name]
                       for name in ("max_error", "mean_error"))
        out.append(EndToEnd(SCHEDULES.get(run["schedule"], run["schedule"]), shape["keys"],
                            shape["dtype"], shape["inputs"], worst, mean))
    return out


def end_table(results: Results) -> Table:
    """End-to-end errors by length, storage type and inputs, over the configurations."""
    every = ends(results)
    rows = []
    for key in dict.fromkeys((one.length, one.dtype, one.inputs) for one in every):
        mine = [one for one in every if (one.length, one.dtype, one.inputs) == key]
        top = max(mine, key=lambda one: one.worst)
        rows.append((size(key[0]), *key[1:], f"{top.worst:.3g}", top.config,
                     f"{max(one.mean for one in mine):.3g}"))
    return Table(("length", "type", "inputs", "worst error of the whole", "of", "largest mean"),
                 rows)


def accuracies(results: Results) -> list[Judged]:
    """Every stage of every comparison."""
    out = []
    for run in results.listed("h100/accuracy.json", "runs",
                              ("schedule", "shape", "stages", "pass", "seed")):
        shape = run["shape"]
        config = SCHEDULES.get(run["schedule"], run["schedule"])
        for stage in run["stages"]:
            name = (config, shape["keys"], shape["dtype"], shape["inputs"], stage["stage"])
            if stage["kind"] == "selection":
                rows = stage["rows"]
                out.append(Judged(*name, stage["score_error"], None, stage["regret"],
                                  1 - stage["histogram"]["0"] / rows, stage["pass"]))
            else:
                worst, mean = (stage[f"{which}_error"] / stage[f"{which}_limit"]
                               if stage[f"{which}_error"] else 0.0 for which in ("max", "mean"))
                out.append(Judged(*name, worst, mean, None, None, stage["pass"]))
    return out


def caption(results: Results) -> Caption:
    """Errors of the stages relative to their limits."""
    judged = accuracies(results)
    rows = []
    for stage in JUDGED:
        for dtype in ("bf16", "fp16"):
            mine = [one for one in judged if (one.stage, one.dtype) == (stage, dtype)]
            if not mine:
                continue
            top = max(mine, key=lambda one: one.worst)
            means = [one.mean for one in mine if one.mean is not None]
            differs = [one.differs for one in mine if one.differs is not None]
            regrets = [one.regret for one in mine if one.regret is not None]
            rows.append((stage, dtype, f"{top.worst:.3g}",
                         f"{top.config}, {size(top.length)}, {top.inputs}",
                         f"{max(means):.3g}" if means else "–",
                         f"{max(regrets):.3g}" if regrets else "–",
                         f"{sum(differs) / len(differs):.2%}" if differs else "–",
                         f"{sum(one.passed for one in mine)} of {len(mine)}"))
    searched = [one for one in judged if one.stage == "search"]
    passed = sum(one.passed for one in judged)
    brief = (f"{passed} of {len(judged)} comparisons of a stage pass, the composition's choice of "
             "spans among them. ")
    text = ("Errors of each stage on its own input against float64, over the limit derived for it "
            "(twice the error of a plain implementation in the same storage type with float32 "
            "sums, plus a floor; scores: the bound of their rounding), by length, storage type "
            "and inputs, four configurations each; up to 1 passes. The whole, end to end, is "
            "against the oracle's own choices: where near-ties fall the other way it attends to "
            "another span, which is no error of arithmetic; it is reported, not judged. ")
    if searched:
        share = sum(one.differs or 0 for one in searched) / len(searched)
        most = max(one.regret or 0 for one in searched)
        brief += (f"The chosen set differs from the oracle's in {share:.2%} of the rows, where "
                  f"scores nearly tie: the largest regret is {most:.3g} of the bound.")
    return Caption("Accuracy against float64", brief, text.strip(),
                   [Table(("stage", "type", "worst error / limit", "there", "mean error / limit",
                           "largest regret / bound", "sets that differ", "passed"), rows),
                    end_table(results)], results.sources)


def place(one: One, lengths: list[int]) -> float:
    """Where a point stands: by length, then storage type, then inputs."""
    return (lengths.index(one.length) + 0.38 * (list(TYPES).index(one.dtype) - 0.5)
            + 0.075 * (list(INPUTS).index(one.inputs) - 1.5))


def points(axes: Axes, shown: Sequence[One], lengths: list[int], values: list[float]) -> None:
    """One panel's points."""
    for one, value in zip(shown, values):
        axes.plot([place(one, lengths)], [value], marker=INPUTS[one.inputs], markersize=2.8,
                  markeredgewidth=0.5, markerfacecolor="none", color=TYPES[one.dtype])
    axes.set_xticks(range(len(lengths)), [size(length) for length in lengths])
    axes.set_xlim(-0.5, len(lengths) - 0.5)
    axes.yaxis.grid(True)


def logarithmic(axes: Axes) -> None:
    """A logarithmic axis of errors."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_formatter(NullFormatter())


def over_limit(axes: Axes, mine: list[Judged], lengths: list[int], narrow: bool) -> None:
    """A stage's largest errors in units of their limit."""
    least = min((one.worst for one in mine if one.worst > 0), default=1.0)
    points(axes, mine, lengths, [max(one.worst, least / 2) for one in mine])
    axes.axhline(1, color="#000000", linewidth=0.9)
    if narrow:
        axes.set_ylim(0, max([1.15, *(1.05 * one.worst for one in mine)]))
    else:
        logarithmic(axes)
        axes.set_ylim(top=2)


def draw(results: Results) -> Figure:
    """The figure."""
    judged, every = accuracies(results), ends(results)
    lengths = sorted({one.length for one in judged})
    figure = Figure(figsize=(PAGE, 3.5))
    room_for_legend(figure, 0.22)
    axes = list(figure.subplots(2, 4).flat)
    for each, stage in zip(axes, JUDGED):
        over_limit(each, [one for one in judged if one.stage == stage], lengths,
                   narrow=stage != "search")
        each.set_title(TITLES.get(stage, stage))
    whole, regret, differs = axes[5:]
    finite = [one for one in every if 0 < one.worst < float("inf")]
    points(whole, finite, lengths, [one.worst for one in finite])
    logarithmic(whole)
    whole.set_title("end to end, absolute")
    searched = [one for one in judged if one.stage == "search"]
    points(regret, searched, lengths, [one.regret or 0 for one in searched])
    regret.set_title("search: regret / bound")
    points(differs, searched, lengths, [100 * (one.differs or 0) for one in searched])
    differs.set_title("search: other sets, %")
    for each in (regret, differs):
        most = max(1e-3, each.get_ylim()[1])
        each.set_ylim(-0.06 * most, 1.1 * most)
        each.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for each in (axes[0], axes[4]):
        each.set_ylabel("largest error / limit")
    for each in axes[4:]:
        each.set_xlabel("length $L$")
    handles = [Line2D([], [], color=colour, linewidth=3) for colour in TYPES.values()]
    handles += [Line2D([], [], color="#555555", marker=marker, linestyle="none",
                       markerfacecolor="none", markersize=3) for marker in INPUTS.values()]
    handles.append(Line2D([], [], color="#000000"))
    figure.legend(handles, [*TYPES, *INPUTS, "limit"], ncol=7, loc="upper center", borderpad=0)
    return figure


PLOT = Plot(needs=("h100/accuracy.json",), caption=caption, draw=draw, place=80)
