"""What stands below each figure: a paragraph with the numbers, tables, and where they come from.

One function a figure, of the results it is drawn from; the same text goes below the figure, into
figures/index.html and into the README. Here are times on the GPU; captions_stages.py has the
stages, captions_cpu.py what is counted or timed on the CPU, captions_routing.py audits and needles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import analysis
from analysis import Crossing, Fit, FixedCost, Point
from results import CONFIGS, Record, Results, Source, about, duration, size

PHASES = ("decode", "prefill", "whole")
PHASE_NAMES = {"decode": "decode", "prefill": "prefill chunk", "whole": "whole prefill"}


@dataclass(frozen=True)
class Table:
    """A table in Markdown's terms."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """The lines of a table."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Caption:
    """The text that belongs to a figure."""

    title: str
    brief: str  # the finding, in a sentence or two
    text: str
    tables: list[Table] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    def markdown(self) -> str:
        """Title, text, tables and sources."""
        parts = [f"# {self.title}", f"**{self.brief}**", self.text,
                 *(table.markdown() for table in self.tables)]
        if self.sources:
            parts.append("\n".join(f"- {source.text()}" for source in self.sources))
        return "\n\n".join(parts) + "\n"


def exponent_text(fit: Fit) -> str:
    """0.312 [0.290, 0.351]."""
    return f"{fit.exponent:.3f} [{fit.low:.3f}, {fit.high:.3f}]"


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
        return analysis.local_slopes(self.points)

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
        points = analysis.timed(records, phase, config)
        if points:
            growth = float(analysis.growth(config, phase))
            fixed = analysis.fit_fixed(
                [Point(p.x, p.y / p.x) for p in points] if phase == "whole" else points,
                growth - (phase == "whole"))
            runs.append(Timed(config, phase, points, analysis.fit_power(points), fixed, growth))
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


FIT_NOTE = ("Least squares on the logarithms of medians; the interval is bootstrapped (2000 draws, "
            "seed 1) over the points, each median moved by the standard error that its 20 % and "
            "80 % quantiles leave; residuals are |ln(time / fit)|, the largest. Decoding and "
            "chunks are fitted a query, against the keys that a query of the chunk sees on "
            "average, so that theory is 1/N; chunks that are a whole context, and smaller ones (8Ki "
            "queries at 10M), are left out.")


def timed(results: Results) -> Caption:
    """Times on the GPU against length."""
    records = results.records()
    found = []
    for phase in PHASES:
        fits = [(run, run.fit) for run in timed_runs(records, phase) if run.fit is not None]
        if fits:
            found.append(f"{PHASE_NAMES[phase]}: " + "; ".join(
                f"{CONFIGS[run.config].label} {fit.exponent:.2f} (work {run.growth:.2f})"
                for run, fit in fits))
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
        points = analysis.timed(records, phase, config)
        if len(points) > 1:
            first, last = points[0], points[-1]
            unit = "token" if phase == "decode" else "query"
            said.append(f"{PHASE_NAMES[phase]}, {CONFIGS[config].label}: {duration(first.y)} a "
                        f"{unit} at {about(first.x)}, {duration(last.y)} at {about(last.x)}")
    return "Time against length. " + "; ".join(said) + "."


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
        found = analysis.crossing(first, second)
        if found is not None:
            other = {point.x: point.y for point in second}
            out.append(Race(phase, ours, theirs, [(p.x, other[p.x] / p.y) for p in first
                                                  if p.x in other], found))
    return out


def crossover(results: Results) -> Caption:
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
        dense = [f"{CONFIGS[config].label} {placed(run[config, 'dense'])}, "
                 f"{run[config, 'dense'].ratio:.3g} times as fast at {size(run[config, 'dense'].last)}"
                 for config in ("A", "nstep3") if (config, "dense") in run]
        if dense:
            said.append(f"{PHASE_NAMES[phase]}: " + "; ".join(dense))
    text = ("Dense attention's time over each configuration's (above 1: faster than dense), and "
            "the lower N's time over the higher's of the same rule. Crossings are interpolated on "
            "lines in logarithms. Dense attention is N = 1 by this "
            "project's own kernel, at the rate in the table: a faster dense kernel moves the "
            "crossings up. A chunk that is a whole context counts as one; those at 10M are of 8Ki "
            "queries, which share fewer keys than 32Ki do.")
    brief = ("Dense attention, by this project's own kernel, is overtaken. " + ". ".join(
        each[0].upper() + each[1:] for each in said) + ". Decoding below 64Ki keys compares launches "
        "more than work.")
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
