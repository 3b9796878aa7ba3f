"""The oracle's times against length, with fits and local slopes."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from .. import fits
from ..fits import Point, exponent_text
from ..plot import Caption, Plot, Table
from ..results import Results, about, duration, label
from ..style import COLUMN, STEP_COLOURS, length_axis, look, room_for_legend


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
        fit, theory = fits.fit_power(points), 1 + 1 / steps
        if fit is None:
            continue
        slopes = fits.local_slopes(points)
        ends = f"local slopes {slopes[0][1]:.2f} → {slopes[-1][1]:.2f}"
        why = f"too wide an interval to tell; {ends}" if fit.vague else "as the work"
        if not fit.holds(theory) and abs(fit.exponent - theory) >= 0.02:
            why = ("fixed costs of a query and of the run weigh on short lengths; "
                   if fit.exponent < theory else "longer contexts leave the caches; ") + ends
        rows.append(("CPU oracle, whole", label(rule, steps),
                     f"{about(fit.first)} – {about(fit.last)}, {fit.points} points",
                     exponent_text(fit), f"1 + 1/N = {theory:.3f}", f"{fit.residual:.2f}", why))
    return rows


def caption(results: Results) -> Caption:
    """The oracle's times."""
    runs = oracle_runs(results)
    device = results.read("cpu/oracle.json").get("device", {})
    said = []
    for (rule, steps), points in runs.items():
        fit = fits.fit_power(points)
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


def draw(results: Results) -> Figure:
    """The figure."""
    runs = oracle_runs(results)
    figure = Figure(figsize=(COLUMN, 3.6))
    room_for_legend(figure, 0.14 * ((len(runs) + 1) // 2) + 0.22)
    above, under = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
    entries = {}
    for (rule, steps), points in runs.items():
        style = look(steps, rule)
        low = [p.y - sorted(p.repeats)[0] for p in points]
        high = [sorted(p.repeats)[-1] - p.y for p in points]
        above.errorbar([p.x for p in points], [p.y for p in points], yerr=[low, high], zorder=3,
                       elinewidth=0.7, capsize=1.2, capthick=0.5, **{**style, "linestyle": "none"})
        text = label(rule, steps)
        fit = fits.fit_power(points)
        if fit is not None:
            ends = [fit.first, fit.last]
            above.plot(ends, [fit(x) for x in ends], color=style["color"], linewidth=0.7,
                       linestyle=style["linestyle"])
            text += f": {fit.exponent:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
        entries[text] = Line2D([], [], **style)
        if len(points) > 1:
            under.plot(*zip(*fits.local_slopes(points)), **style)
        under.axhline(1 + 1 / steps, color=STEP_COLOURS[min(steps, 6)], linewidth=0.6,
                      linestyle=(0, (4, 2)), alpha=0.7, zorder=0)
    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(numticks=8))
    above.yaxis.set_minor_formatter(NullFormatter())
    above.set_ylabel("a sequence, s")
    under.set_ylabel("local slope")
    length_axis(under, [p.x for points in runs.values() for p in points])
    for axes in (above, under):
        axes.grid(True)
    figure.legend(entries.values(), entries.keys(), ncol=2, loc="upper center", borderpad=0,
                  title="fitted exponent [95 %]; 1 + 1/N dashed below", alignment="left",
                  handlelength=2.2)
    figure.align_ylabels()
    return figure


PLOT = Plot(needs=("cpu/oracle.json",), caption=caption, draw=draw, place=70)
