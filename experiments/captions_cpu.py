"""Captions of what is counted, or timed on the CPU: see captions.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import analysis
from analysis import Fit, Point
from captions import Caption, Table, exponent_text
from results import Results, about, duration, size

APART = 4  # local slopes of counted work are taken over such factors of length,
END = 1024  # and at the end over this one
RULE_ORDER = ("dense", "nstep", "even", "tight", "paper", "released")


@dataclass(frozen=True)
class Counted:
    """A schedule's work over lengths."""

    rule: str
    steps: int
    points: list[Point]  # drawn work of a sequence, all its queries, in keys per head
    ratios: list[Point]  # the most choices over their lower bound, at lengths that search

    @property
    def label(self) -> str:
        """nstep, N = 3."""
        return label(self.rule, self.steps)

    @property
    def growth(self) -> float:
        """The exponent that the schedule has for great lengths."""
        return 1.55 if self.rule == "released" else 1 + 1 / self.steps


def label(rule: str, steps: int) -> str:
    """How a rule with N steps is called."""
    return f"dense, N = {steps}" if steps == 1 else f"{rule}, N = {steps}"


def counted_runs(results: Results) -> list[Counted]:
    """What was counted, in order of rule and N."""
    runs = []
    for one in results.listed("cpu/scaling.json", "runs", ("rule", "steps", "points")):
        def column(name: str, listed: list[dict[str, Any]] = one["points"]) -> list[Point]:
            return [Point(p["length"], p[name]) for p in listed if p[name] is not None]

        rule = "dense" if one["steps"] == 1 else one["rule"]
        runs.append(Counted(rule, one["steps"], column("drawn_work"), column("ratio")))
    return sorted(runs, key=lambda run: (RULE_ORDER.index(run.rule), run.steps))


def counted_fit(run: Counted) -> Fit:
    """The exponent of a run's work; nothing in it is measured, so the points alone are drawn."""
    fit = analysis.fit_power(run.points)
    if fit is None:
        raise ValueError(f"{run.label}: a fit needs three lengths")
    return fit


def counted_why(run: Counted, fit: Fit) -> str:
    """Why the exponent of counted work is not its limit."""
    last = analysis.local_slopes(run.points, END)[-1][1]
    if abs(fit.exponent - run.growth) < 0.001:
        return "as 1 + 1/N" if run.rule != "released" else "as 1 + 11/20"
    if run.rule == "released":
        why = "the window of 2032 keys counts for all of a short context"
    else:
        why = "whole numbers of anchors and keys at short lengths"
    return f"{why}; slope over the last factor of {size(END)} {last:.4f}"


def counted(results: Results) -> Caption:
    """Counted work against length."""
    runs = counted_runs(results)
    rows = []
    said = []
    for run in runs:
        fit = counted_fit(run)
        ratio = run.ratios[-1].y
        theory = f"{1 + 1 / run.steps:.4f}"
        if run.rule == "released":
            theory += " (its own: 1.5500)"
        rows.append((run.label, f"{about(fit.first)} – {about(fit.last)}, {fit.points} points",
                     f"{fit.exponent:.4f} [{fit.low:.4f}, {fit.high:.4f}]", theory,
                     f"{fit.residual:.3f}", f"{ratio:.3f}", counted_why(run, fit)))
        if run.rule in ("dense", "nstep"):
            said.append(f"{fit.exponent:.3f} for N = {run.steps} ({1 + 1 / run.steps:.3f})")
    brief = ("Counted work grows as L to the power " + ", ".join(said) + " by the default rules; "
             "in brackets, 1 + 1/N.")
    text = ("Work of a whole sequence, all its queries: anchors scored plus keys attended, in keys "
            "per head, counted exactly on sampled queries. Nothing here is timed or drawn at random "
            "but the paths taken, whose mean may lie below N·n^(1/N). What the steps offer may "
            "not: with k = top_k paths kept, c_m the most choices of step m and n the keys outside "
            "a query's window, c_1 + k·(c_2 + … + c_N) ≥ N·(k^(N−1)·n)^(1/N) in every scheme that "
            "reaches all n; shown is the sum over the queries as a ratio to that of the bounds. "
            "The intervals are bootstrapped over the lengths and tell how well one power "
            "describes this range. Local slopes are taken over factors of 4.")
    return Caption("Counted scaling", brief, text,
                   [Table(("schedule", "fitted over", "exponent [95 %]", "1 + 1/N", "max residual",
                           "choices / bound at the end", "where they differ, why"), rows)],
                   results.sources)


def last_query(results: Results) -> dict[str, dict[int, dict[int, float]]]:
    """Mean work of one path of the last query: by rule, length and N."""
    table: dict[str, dict[int, dict[int, float]]] = {}
    for one in results.listed("cpu/scaling.json", "last_query",
                              ("length", "rule", "steps", "work", "lower_bound")):
        table.setdefault(one["rule"], {}).setdefault(one["length"], {})[one["steps"]] = one["work"]
    return table


def cheapest_steps(costs: dict[int, float]) -> int:
    """The N of the least work; of equals the smallest."""
    return min(costs, key=lambda steps: (costs[steps], steps))


def cheapest(results: Results) -> Caption:
    """Which N does the least work at each length."""
    table = last_query(results)
    rows = []
    for rule, lengths in table.items():
        for length in sorted(lengths):
            if math.log2(length) % 5:
                continue
            costs = lengths[length]
            best = cheapest_steps(costs)
            rows.append((rule, size(length), str(best), f"{costs[best]:.1f}",
                         *(f"{costs[n]:.1f}" if n in costs else "–" for n in (2, 3, 4)),
                         f"{math.log(length):.1f}"))
    said = []
    for rule, lengths in table.items():
        longest = max(lengths)
        costs = lengths[longest]
        best = cheapest_steps(costs)
        near = min((n for n in costs if costs[n] <= 2 * costs[best]), default=best)
        said.append(f"under {rule} at {size(longest)} N = {best} does the least, "
                    f"{costs[best]:.0f} keys a path, and N = {near} is within twice that")
    brief = "Cheapest N: " + "; ".join(said) + "."
    text = ("The N that does the least work for the last query of a context, one path's mean over "
            "all pairs of a path and a key of its final span, among N = 1 … log2 L. That mean is at "
            "least N·L^(1/N), which is least at N = ln L, where every step chooses among e. Steps "
            "depend on each other, so the cheapest count is not "
            "the fastest: see the timed figures.")
    return Caption("Cheapest number of steps", brief, text,
                   [Table(("rule", "length", "cheapest N", "its work", "N = 2", "N = 3", "N = 4",
                           "ln L"), rows)], results.sources)


def oracle_runs(results: Results) -> dict[tuple[str, int], list[Point]]:
    """Seconds of a sequence by rule and N, against length."""
    runs: dict[tuple[str, int], list[Point]] = {}
    for one in results.listed("cpu/oracle.json", "records",
                              ("config", "steps", "length", "queries", "seconds")):
        times = sorted(one["seconds"])
        middle = times[len(times) // 2] if len(times) % 2 else (
            times[len(times) // 2 - 1] + times[len(times) // 2]) / 2
        rule = one["config"].rstrip("0123456789") if one["steps"] > 1 else "dense"
        runs.setdefault((rule, one["steps"]), []).append(
            Point(one["length"], middle * one["length"] / one["queries"], repeats=tuple(
                time * one["length"] / one["queries"] for time in times)))
    return {key: sorted(runs[key], key=lambda point: point.x) for key in sorted(
        runs, key=lambda key: (key[1], key[0]))}


def oracle_rows(results: Results) -> list[tuple[str, ...]]:
    """Rows of the table of exponents."""
    rows = []
    for (rule, steps), points in oracle_runs(results).items():
        fit, theory = analysis.fit_power(points), 1 + 1 / steps
        if fit is None:
            continue
        slopes = analysis.local_slopes(points)
        ends = f"local slopes {slopes[0][1]:.2f} → {slopes[-1][1]:.2f}"
        why = f"too wide an interval to tell; {ends}" if fit.vague else "as the work"
        if not fit.holds(theory) and abs(fit.exponent - theory) >= 0.02:
            why = ("fixed costs of a query and of the run weigh on short lengths; "
                   if fit.exponent < theory else "longer contexts leave the caches; ") + ends
        rows.append(("CPU oracle, whole", label(rule, steps),
                     f"{about(fit.first)} – {about(fit.last)}, {fit.points} points",
                     exponent_text(fit), f"1 + 1/N = {theory:.3f}", f"{fit.residual:.2f}", why))
    return rows


def oracle(results: Results) -> Caption:
    """The oracle's times."""
    runs = oracle_runs(results)
    device = results.read("cpu/oracle.json").get("device", {})
    said = []
    for (rule, steps), points in runs.items():
        fit = analysis.fit_power(points)
        if fit is not None:
            said.append(f"{exponent_text(fit)}, {label(rule, steps)}")
    longest = max((points[-1] for points in runs.values()), key=lambda p: p.x, default=None)
    text = (f"Time of the oracle for a whole sequence on {device.get('cores', '?')} cores "
            f"({device.get('name', '?')}), medians, with fits; below, local slopes between "
            "neighbouring lengths. ")
    if longest is not None:
        text += f"The longest takes {duration(longest.y)} at {about(longest.x)}. "
    text += ("Intervals are bootstrapped (2000 draws, seed 1) over lengths and over the repeats at "
             "each.")
    return Caption("Timed scaling of the oracle", "The oracle's time grows as L to the power "
                   + "; ".join(said) + ".", text,
                   [Table(("phase", "configuration", "fitted over", "exponent [95 %]", "theory",
                           "max residual", "where they differ, why"), oracle_rows(results))],
                   results.sources)
