"""Where each configuration overtakes dense attention, and N = 3 overtakes N = 2."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..fits import Point
from ..plot import Caption, Plot, Table
from ..results import BENCHES, CONFIGS, PHASE_NAMES, PHASES, Record, Results, about, size
from ..style import PAGE, STEP_COLOURS, legend, length_axis, room_for_legend, style

PHASE_MARKERS = {"decode": "o", "prefill": "s", "whole": "^"}


@dataclass(frozen=True)
class Crossing:
    """Where one time falls below another as the length grows."""

    length: float | None  # interpolated; None: at none of the lengths measured
    first: float  # the lengths measured
    last: float
    always: bool  # below at every length
    ratio: float  # the other's time over this one's at the last length

    def text(self, written: Callable[[float], str]) -> str:
        """In words, lengths written by a function."""
        if self.always:
            return f"below {written(self.first)}"
        return "beyond " + written(self.last) if self.length is None else written(self.length)


def crossing(ours: Sequence[Point], theirs: Sequence[Point]) -> Crossing | None:
    """The last length at which ours overtakes theirs, between neighbours on a line in logarithms.

    None where fewer than one length is common.
    """
    other = {point.x: point.y for point in theirs}
    gaps = [(point.x, math.log(other[point.x] / point.y)) for point in sorted(
        ours, key=lambda point: point.x) if point.x in other]  # above 0: ours is faster
    if not gaps:
        return None
    length = None
    for (x0, g0), (x1, g1) in zip(gaps, gaps[1:]):
        if g0 <= 0 < g1:
            share = -g0 / (g1 - g0)
            length = math.exp(math.log(x0) + share * math.log(x1 / x0))
    if gaps[-1][1] <= 0:  # whatever it did before, it ends behind
        length = None
    return Crossing(length, gaps[0][0], gaps[-1][0], all(gap > 0 for _, gap in gaps),
                    math.exp(gaps[-1][1]))


def dense_rate(records: Sequence[Record], phase: str, length: float) -> str:
    """How fast dense attention was at the measured length next to this one."""
    dense = [r for r in records if (r.config, r.phase, r.l2) == ("dense", phase, "cold")]
    if not dense:
        return "–"
    near = min(dense, key=lambda r: abs(math.log(r.length / length)))
    rate = f"{near.flops / near.median / 1e12:.0f} TFLOP/s"
    if near.bytes is not None:
        rate = f"{near.bytes / near.median / 1e12:.2f} TB/s"
    return f"{rate} at {size(near.length)}"


@dataclass(frozen=True)
class Race:
    """One time against another over the lengths they have in common."""

    phase: str
    ours: str
    theirs: str
    points: list[tuple[float, float]]  # length, their time over ours
    crossing: Crossing


def races(records: Sequence[Record], phase: str) -> list[Race]:
    """Every configuration against dense attention, and N = 3 against N = 2."""
    def points(config: str) -> list[Point]:
        # A chunk counts at its context's length, and counts where it is the context.
        return sorted((Point(r.length, r.median) for r in records
                       if (r.phase, r.config, r.stage, r.l2)
                       == (phase, config, "attention", "cold")), key=lambda point: point.x)

    pairs = [(config, "dense") for config in CONFIGS if config != "dense"]
    out = []
    for ours, theirs in [*pairs, ("nstep3", "nstep2"), ("even3", "even2"), ("nstep4", "nstep3"),
                         ("even4", "even3")]:
        first, second = points(ours), points(theirs)
        found = crossing(first, second)
        if found is not None:
            other = {point.x: point.y for point in second}
            out.append(Race(phase, ours, theirs, [(p.x, other[p.x] / p.y) for p in first
                                                  if p.x in other], found))
    return out


def caption(results: Results) -> Caption:
    """Where each N overtakes dense attention, and N = 3 overtakes N = 2."""
    records = results.records()
    rows = []
    for phase in PHASES:
        for race in races(records, phase):
            found = race.crossing
            rate = "–"
            if race.theirs == "dense":
                rate = dense_rate(records, phase, found.length or found.first)
            rows.append((PHASE_NAMES[phase], CONFIGS[race.ours].label, CONFIGS[race.theirs].label,
                         found.text(about), f"{found.ratio:.3g} at {size(found.last)}", rate))
    said = []
    for phase in PHASES:
        run = {(race.ours, race.theirs): race.crossing for race in races(records, phase)}
        dense = [f"{CONFIGS[config].label} {placed(one)}, {one.ratio:.3g} times as fast at "
                 f"{size(one.last)}" for config in ("A", "nstep3")
                 if (one := run.get((config, "dense")))]
        if dense:
            said.append(f"{PHASE_NAMES[phase]}: " + "; ".join(dense))
    text = ("Dense attention's time over each configuration's (above 1: faster than dense), and "
            "the lower N's time over the higher's of the same rule. Crossings are interpolated on "
            "lines in logarithms. Dense attention is N = 1 by this "
            "project's own kernel, at the rate in the table: a faster dense kernel moves the "
            "crossings up. A chunk that is a whole context counts as one; those at 10M are of 8Ki "
            "queries, which share fewer keys than 32Ki do.")
    brief = ("Dense attention, by this project's own kernel, is overtaken. " + ". ".join(
        each[0].upper() + each[1:] for each in said) + ". Decoding below 64Ki keys compares "
        "launches more than work.")
    return Caption("Crossover", brief, text,
                   [Table(("phase", "configuration", "overtakes", "from length", "ratio",
                           "dense rate"), rows)], results.sources)


def placed(found: Crossing) -> str:
    """Where a crossing is, in a sentence."""
    if found.always:
        return f"before {about(found.first)}"
    if found.length is None:
        return f"nowhere up to {about(found.last)}"
    return f"at {about(found.length)}"


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


def against_dense(axes: Axes, phase: str, shown: list[Race]) -> None:
    """Dense attention's time over ours."""
    for race in shown:
        axes.plot(*zip(*race.points), zorder=3, **style(race.ours))
        if race.crossing.length is not None:
            axes.plot([race.crossing.length], [1], marker="|", markersize=7, markeredgewidth=1.2,
                      color=style(race.ours)["color"], zorder=4)
    axes.set_title(f"{PHASE_NAMES[phase]}: dense / ours")
    ratio_axis(axes, "times as fast as dense")
    length_axis(axes, [x for race in shown for x, _ in race.points])


def among_steps(axes: Axes, shown: list[Race]) -> None:
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
    names = [PHASE_NAMES[phase] for phase in PHASE_MARKERS
             if any(race.phase == phase for race in shown)]
    axes.legend(handles, names, loc="best")


def draw(results: Results) -> Figure:
    """The figure."""
    records = results.records()
    every = {phase: races(records, phase) for phase in PHASES}
    phases = [phase for phase in PHASES
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


PLOT = Plot(needs=BENCHES, caption=caption, draw=draw, place=50, picture="h100/crossover.png",
            alternative="Dense attention's time over each configuration's, against length.")
