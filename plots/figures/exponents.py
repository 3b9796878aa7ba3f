"""The one table of exponents: counted and timed, beside 1 + 1/N, and why they differ."""

from __future__ import annotations

from .. import fits
from ..fits import exponent_text
from ..plot import Caption, Plot, Table
from ..results import BENCHES, CONFIGS, PHASE_NAMES, PHASES, Results, about, duration
from .counted import counted_fit, counted_runs
from .oracle import oracle_rows, oracle_runs
from .timed import FIT_NOTE, timed_runs, why

# What counts the work of a configuration; A's window is left out there.
COUNTED = {"A": ("paper", 2), "B": ("released", 2)}


def counted_cells(results: Results) -> dict[tuple[str, int], str]:
    """Fits of counted work by rule and N."""
    return {(run.rule, run.steps): exponent_text(counted_fit(run))
            for run in counted_runs(results)}


def oracle_cells(results: Results) -> dict[tuple[str, int], str]:
    """Fits of the oracle's times."""
    fitted = {key: fits.fit_power(points) for key, points in oracle_runs(results).items()}
    return {key: exponent_text(fit) for key, fit in fitted.items() if fit is not None}


def table(results: Results) -> Table:
    """A row a configuration: whole sequences beside 1 + 1/N, single queries beside 1/N."""
    counted, oracle = counted_cells(results), oracle_cells(results)
    records = results.records()
    timed = {(run.config, phase): run for phase in PHASES for run in timed_runs(records, phase)}

    def gpu(config: str, phase: str) -> str:
        run = timed.get((config, phase))
        return "–" if run is None or run.fit is None else exponent_text(run.fit)

    rows = []
    for config, known in CONFIGS.items():
        key = COUNTED.get(config, (known.rule, known.steps))
        cells = (counted.get(key, "–"), oracle.get(key, "–"), gpu(config, "whole"))
        last = (gpu(config, "prefill"), gpu(config, "decode"))
        if set(cells + last) != {"–"}:
            rows.append((known.label, f"{1 + 1 / known.steps:.3f}", *cells,
                         f"{1 / known.steps:.3f}", *last))
    return Table(("configuration", "1 + 1/N", "counted", "CPU oracle", "GPU whole prefill", "1/N",
                  "GPU chunk, a query", "GPU decode, a token"), rows)


def fixed_costs(results: Results) -> Table:
    """What of a query's time does not grow: its share at the longest length, the slope there."""
    records = results.records()
    fitted = {(run.config, phase): run for phase in PHASES for run in timed_runs(records, phase)
              if run.fit is not None and run.fixed is not None}

    def cell(config: str, phase: str) -> str:
        run = fitted.get((config, phase))
        if run is None or run.fixed is None:
            return "–"
        kind = why(run, records).kind
        if kind != "fixed":
            return {"work": "as the work", "noise": "cannot be told", "cache": "cache",
                    "short": "few tiles"}[kind] + f"; {run.slopes[-1][1]:.2f}"
        return (f"{duration(run.fixed.fixed)}, {run.fixed_share:.0%} at "
                f"{about(run.points[-1].x)}; {run.slopes[-1][1]:.2f}")

    rows = [(known.label, *(cell(config, phase) for phase in PHASES))
            for config, known in CONFIGS.items()
            if any((config, phase) in fitted for phase in PHASES)]
    return Table(("fixed a query, its share; last slope",
                  *(PHASE_NAMES[phase] for phase in PHASES)), rows)


def differences(results: Results) -> list[str]:
    """Why the fitted exponents are not those of the work: a sentence a reason."""
    records = results.records()
    reasons = [(PHASE_NAMES[phase], CONFIGS[run.config].label, why(run, records))
               for phase in PHASES for run in timed_runs(records, phase) if run.fit is not None]
    lines = []
    if any(reason.kind == "fixed" for _, _, reason in reasons):
        lines.append(
            "Exponents on the GPU that lie below the work's: costs of a query that do not grow "
            "weigh on short contexts. In decoding those are launches and steps that wait for each "
            "other; in a prefill queries in, outputs mixed and, of A and B, the window; of dense "
            "attention launches and tiles that the diagonal cuts. The second table has them from a "
            "fit of fixed + scale · n^(the work's exponent), and the slope between the last two "
            "lengths.")
    vague = [f"{phase}, {label}" for phase, label, reason in reasons if reason.kind == "noise"]
    if vague:
        lines.append(f"Intervals too wide to tell: {'; '.join(vague)}.")
    for phase, label, reason in reasons:
        if reason.kind in ("short", "cache"):
            lines.append(f"{phase}, {label}: {reason.text}.")
    for row in oracle_rows(results):
        if row[-1] != "as the work":
            lines.append(f"CPU oracle, {row[1]}: {row[-1]}.")
    runs = [(run, counted_fit(run)) for run in counted_runs(results)
            if run.rule != "released"]
    off = [(abs(fit.exponent - run.growth), run, fit) for run, fit in runs]
    far, run, fit = max(off, key=lambda one: one[0])
    lines.append(f"Counted work lies within {max(far, 0.001):.3f} of 1 + 1/N, farthest for "
                 f"{run.label} ({fit.exponent:.3f}), as few and whole anchors of short contexts "
                 "and the random choice of paths bend the line. B counts its window of 2032 "
                 "keys, which is all of a short context, and its own exponent is 1 + 11/20: "
                 "stripes and spans both grow as n^0.55.")
    return lines


def caption(results: Results) -> Caption:
    """The table as a page of its own."""
    lines = differences(results)
    return Caption("Exponents", "Fitted exponents, counted and timed, beside 1 + 1/N.",
                   f"{FIT_NOTE} Where they differ: " + " ".join(lines),
                   [table(results), fixed_costs(results)], results.sources)


PLOT = Plot(needs=("cpu/scaling.json", "cpu/oracle.json", *BENCHES), caption=caption, place=10)
