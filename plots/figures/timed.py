"""Times on the GPU against length: decoding, prefill chunks and whole prefills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .. import fits
from ..fits import Fit, FixedCost, Point, exponent_text
from ..plot import Caption, Plot, Table
from ..results import BENCHES, CONFIGS, PHASE_NAMES, PHASES, Record, Results, about, duration
from ..style import PAGE, STEP_COLOURS, legend, length_axis, room_for_legend, style

UNITS = {"decode": (1e6, "a token, µs"), "prefill": (1e6, "a query of the chunk, µs"),
         "whole": (1e3, "the sequence, ms")}
FIT_NOTE = ("Least squares on the logarithms of medians; the interval is bootstrapped (2000 draws, "
            "seed 1) over the points, each median moved by the standard error that its 20 % and "
            "80 % quantiles leave; residuals are |ln(time / fit)|, the largest. Decoding and "
            "chunks are fitted a query, against the keys that a query of the chunk sees on "
            "average, so that theory is 1/N; chunks that are a whole context, and smaller ones "
            "(8Ki queries at 10M), are left out.")


@dataclass(frozen=True)
class Timed:
    """A configuration's times in one phase, and what is fitted to them."""

    config: str
    phase: str
    points: list[Point]
    fit: Fit | None
    fixed: FixedCost | None  # of a query, in whole prefills too: its window, inputs, outputs
    growth: float

    @property
    def slopes(self) -> list[tuple[float, float]]:
        """Between neighbouring lengths."""
        return fits.local_slopes(self.points)

    @property
    def fixed_share(self) -> float:
        """Of the time at the longest length, what does not grow with it a query."""
        last = self.points[-1]
        assert self.fixed is not None
        return self.fixed.share(last.y / last.x if self.phase == "whole" else last.y)


def timed_runs(records: Sequence[Record], phase: str) -> list[Timed]:
    """Every configuration that was timed in a phase."""
    runs = []
    for config in CONFIGS:
        points = fits.timed(records, phase, config)
        if points:
            growth = float(fits.growth(config, phase))
            fixed = fits.fit_fixed(
                [Point(p.x, p.y / p.x) for p in points] if phase == "whole" else points,
                growth - (phase == "whole"))
            runs.append(Timed(config, phase, points, fits.fit_power(points), fixed, growth))
    return runs


@dataclass(frozen=True)
class Reason:
    """Why a fitted exponent is not that of the schedule's work."""

    kind: str  # work: it is; noise: no telling; fixed, short or cache
    text: str


def why(run: Timed, records: Sequence[Record]) -> Reason:
    """The reason, with its numbers."""
    fit, fixed = run.fit, run.fixed
    assert fit is not None and fixed is not None
    slopes = [slope for _, slope in run.slopes]
    ends = f"local slopes {slopes[0]:.2f} → {slopes[-1]:.2f}"
    if fit.holds(run.growth) and fit.vague:
        return Reason("noise", f"too wide an interval to tell; {ends}")
    if fit.holds(run.growth) or abs(fit.exponent - run.growth) < 0.02:
        return Reason("work", "as the work")
    if fit.exponent > run.growth:
        report = next(r for r in records if r.phase == run.phase).report
        keys = float(report.device["l2_mib"]) * 2**20 / (2 * report.kv_heads * report.head_dim)
        return Reason("cache", f"the keys outgrow the L2 cache at {about(keys)}, and rows gathered "
                      f"from memory cost more; {ends}")
    if fixed.fixed == 0 or fixed.residual > 0.5:
        return Reason("short", f"short lengths do not fill the device; {ends}")
    window = {"A": ", its window of 1023 keys", "B": ", its window of 2032 keys"}
    parts = "launches, dependent steps" if run.phase == "decode" else "queries in, outputs mixed"
    if run.config == "dense" and run.phase != "decode":
        parts = "launch, tiles that the diagonal cuts"
    return Reason("fixed", f"fixed costs ({parts}{window.get(run.config, '')}) are "
                  f"{duration(fixed.fixed)} a query, {run.fixed_share:.0%} of the time at "
                  f"{about(run.points[-1].x)}; {ends}")


def exponents(results: Results) -> Table:
    """The fitted exponents of all that was timed, beside those of the work."""
    records = results.records()
    rows = []
    for phase in PHASES:
        for run in timed_runs(records, phase):
            steps = CONFIGS[run.config].steps
            theory = "1 + 1/N" if phase == "whole" else "1/N"
            value = 1 / steps + (phase == "whole")
            head = (PHASE_NAMES[phase], CONFIGS[run.config].label)
            if run.fit is None:
                rows.append((*head, f"{len(run.points)} points", "–", f"{theory} = {value:.3f}",
                             "–", "no fit"))
                continue
            fit = run.fit
            growth = "" if abs(run.growth - value) < 1e-9 else f" (its own: {run.growth:.2f})"
            rows.append((*head, f"{about(fit.first)} – {about(fit.last)}, {fit.points} points",
                         exponent_text(fit), f"{theory} = {value:.3f}{growth}",
                         f"{fit.residual:.2f}", why(run, records).text))
    return Table(("phase", "configuration", "fitted over", "exponent [95 %]", "theory",
                  "max residual", "where they differ, why"), rows)


def caption(results: Results) -> Caption:
    """Times on the GPU against length."""
    records = results.records()
    found = []
    for phase in PHASES:
        fitted = [(run, run.fit) for run in timed_runs(records, phase) if run.fit is not None]
        if fitted:
            found.append(f"{PHASE_NAMES[phase]}: " + "; ".join(
                f"{CONFIGS[run.config].label} {fit.exponent:.2f} (work {run.growth:.2f})"
                for run, fit in fitted))
    text = ("Time of decoding one token (a replayed graph, cold L2), of a prefill chunk's query "
            "and of a whole prefill against the length L: medians, bars from the 20 % to the 80 % "
            "quantile, fits as thin lines; below, the local slopes between neighbouring lengths, "
            "with each N's exponent dashed. ")
    if found:
        text += "Fitted exponents of " + "; of ".join(found) + ". "
    return Caption("Timed scaling on the GPU", timed_brief(records), text + FIT_NOTE,
                   [exponents(results)], results.sources)


def timed_brief(records: Sequence[Record]) -> str:
    """How little time grows where length does."""
    said = []
    for phase, config in (("decode", "A"), ("decode", "nstep3"), ("prefill", "A"),
                          ("prefill", "nstep3"), ("prefill", "dense")):
        points = fits.timed(records, phase, config)
        if len(points) > 1:
            first, last = points[0], points[-1]
            unit = "token" if phase == "decode" else "query"
            said.append(f"{PHASE_NAMES[phase]}, {CONFIGS[config].label}: {duration(first.y)} a "
                        f"{unit} at {about(first.x)}, {duration(last.y)} at {about(last.x)}")
    return "Time against length. " + "; ".join(said) + "."


def plain(value: float, _: int | None = None) -> str:
    """0.1, 1, 10, 100 rather than powers."""
    return f"{value:g}"


def panel(above: Axes, under: Axes, phase: str, runs: list[Timed],
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
    above.set_title(PHASE_NAMES[phase])
    above.set_ylabel(unit)
    under.set_ylabel("local slope")
    least = min((slope for run in runs for _, slope in run.slopes), default=0.0)
    under.set_ylim(min(least, 0.9 if whole else 0.0) - 0.1, 2.15 if whole else 1.15)
    length_axis(under, lengths, "length $L$" if phase != "prefill" else "keys seen")


def draw(results: Results) -> Figure:
    """The figure."""
    records = results.records()
    phases = {phase: timed_runs(records, phase) for phase in PHASES}
    phases = {phase: runs for phase, runs in phases.items() if runs}
    figure = Figure(figsize=(PAGE, 3.9))
    room_for_legend(figure, 0.36)
    axes = figure.subplots(2, len(phases), sharex="col", squeeze=False,
                           gridspec_kw={"height_ratios": (2.1, 1)})
    shown: list[str] = []
    for column, (phase, runs) in enumerate(phases.items()):
        bars = {(r.config, fits.point_of(r, phase != "whole").x):
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


PLOT = Plot(needs=BENCHES, caption=caption, draw=draw, place=40, picture="h100/timed.png",
            alternative="Times on the GPU against length, with fits and local slopes.")
