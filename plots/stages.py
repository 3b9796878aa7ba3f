#!/usr/bin/env python3
"""Draws where the time goes, stage by stage, above each stage's floor."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from paper import (CONFIGS, PAGE, Results, analysis, captions_stages, main, room_for_legend, size,
                   stored)

COLOURS = {"search": "#0072B2", "span attention": "#E69F00", "window, combine": "#009E73",
           "decode, all": "#CC79A7"}
REST = "#BBBBBB"  # of the whole, what is no stage's
FLOOR = "#000000"
HEIGHT = 0.5  # of a bar, of the place of a configuration
PLACES = 3  # lengths shown


def shown_lengths(records: list[stored.Record]) -> list[int]:
    """The shortest context that a chunk is the end of, the longest, and one between."""
    lengths = sorted({r.length for r in records
                      if r.phase == "prefill" and r.queries < r.length and r.config != "dense"})
    if len(lengths) <= PLACES:
        return lengths
    return [lengths[0], lengths[(len(lengths) - 1) // 2 + len(lengths) % 2 - 1], lengths[-1]]


def bar(axes: Axes, place: float, parts: list[tuple[str, float, float]], whole: float,
        unit: float) -> None:
    """A configuration: its stages' times, and below them their floors."""
    at = low = 0.0
    for colour, seconds, floor in parts:
        axes.barh(place, seconds * unit, HEIGHT, left=at * unit, color=colour, linewidth=0)
        axes.barh(place + 0.4, floor * unit, 0.2, left=low * unit, color=colour, linewidth=0.4,
                  edgecolor=FLOOR)
        at += seconds
        low += floor
    if whole > at:
        axes.barh(place, (whole - at) * unit, HEIGHT, left=at * unit, color=REST, linewidth=0)
    ratio = max(whole, at) / low
    axes.text(max(whole, at) * unit, place, f" {ratio:.{0 if ratio >= 100 else 1}f}×",
              va="center", fontsize=6.5)


def panel(axes: Axes, records: list[stored.Record], phase: str, length: int, names: bool) -> None:
    """All configurations at one length."""
    unit = 1e3 if phase == "prefill" else 1e6
    mine = [r for r in records if (r.phase, r.length, r.l2) == (phase, length, "cold")]
    # Dense attention's bar would leave the others no room.
    configs = [config for config in CONFIGS
               if config != "dense" and any(r.config == config for r in mine)]
    for place, config in enumerate(configs):
        stages = {r.stage: r for r in mine if r.config == config}
        whole = stages["attention"]
        parts = [(COLOURS["decode, all"], whole.median, analysis.floor_of(whole).seconds)]
        if phase == "prefill":
            shown = [stages[stage] for stage in captions_stages.STAGES if stage in stages]
            parts = [(COLOURS[r.stage], r.median, analysis.floor_of(r).seconds) for r in shown]
        bar(axes, place, parts, whole.median, unit)
    axes.set_ylim(len(configs) - 0.3, -0.5)
    axes.set_yticks(range(len(configs)),
                    [CONFIGS[config].label for config in configs] if names else [""] * len(configs))
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.16)
    queries = mine[0].queries
    what = f"chunk of {size(queries)} at {size(length)}" if phase == "prefill" else (
        f"decode at {size(length)}")
    axes.set_title(what)
    axes.set_xlabel("ms" if phase == "prefill" else "µs")
    axes.xaxis.grid(True)


def draw(results: Results) -> Figure:
    """The figure."""
    records = results.records()
    rows = [(phase, [length for length in shown_lengths(records)
                     if any((r.phase, r.length) == (phase, length) for r in records)])
            for phase in ("prefill", "decode")]
    rows = [(phase, lengths) for phase, lengths in rows if lengths]
    figure = Figure(figsize=(PAGE, 0.3 + 2.1 * len(rows)))
    room_for_legend(figure, 0.25)
    across = max(len(lengths) for _, lengths in rows)
    grid = figure.subplots(len(rows), across, squeeze=False)
    for line, (phase, lengths) in zip(grid, rows):
        for column, axes in enumerate(line):
            if column < len(lengths):
                panel(axes, records, phase, lengths[column], column == 0)
            else:
                axes.set_axis_off()
    entries = {**COLOURS, "between stages": REST}
    handles = [Patch(facecolor=colour) for colour in entries.values()]
    handles.append(Patch(facecolor="white", edgecolor=FLOOR, linewidth=0.5))
    figure.legend(handles, [*entries, "thin: floor; ×: time over floors"], ncol=6,
                  loc="upper center", borderpad=0)
    return figure


if __name__ == "__main__":
    main(__doc__, captions_stages.stages, draw)
