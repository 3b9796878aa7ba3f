#!/usr/bin/env python3
"""Draws the anchors, spans, window and holes of a schedule, one panel a search level."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from figures import Integers, Parser, run, save
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch
from span_map import BLANK, EXCLUDED, SpanMap, panels, read_map, source_lines

EVEN, ODD, WINDOW, ANCHOR, HOLE = range(5)
PALETTE = ("#D9ECF8", "#A5D3F0", "#F0E442", "#00304D", EXCLUDED)  # by code; tints of sky blue
EXAMPLE = """  multistep map --length 64 --steps 3 > nstep.csv
  plots/stripes.py nstep.csv --queries 32:64 --output figures/stripes"""


def codes(shown: SpanMap, level: int) -> Integers:
    """What each cell shows: a hole before an anchor, an anchor before the window or a span."""
    window, anchors = shown.columns["window"], shown.columns[f"anchors_{level}"]
    cells = np.where(shown.columns[f"span_{level}"] % 2 == 0, EVEN, ODD)
    cells[window == 1] = WINDOW
    cells[anchors > 0] = ANCHOR
    cells[shown.holds(level) == 0] = HOLE
    cells[window == BLANK] = BLANK
    return cells


def query_range(text: str) -> tuple[int, int]:
    """Parses A:B."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: a range A:B of queries, half-open")
    return int(match[1]), int(match[2])


def main() -> None:
    """Reads the map and writes the figure."""
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("input", type=Path, metavar="INPUT", help="CSV from `multistep map`")
    parser.add_argument("--queries", type=query_range, metavar="A:B",
                        help="show the queries [A, B) alone")
    arguments = parser.parse_args()
    shown = read_map(arguments.input)
    if arguments.queries is not None:
        shown = shown.slice(*arguments.queries)

    levels = range(1, shown.levels + 1)
    across = 1 if shown.wide else min(len(levels), 2)
    spare = len(levels) % across > 0  # a free place beside the last panel: the legend takes it
    figure, axes = panels(
        [shown] * len(levels), [codes(shown, level) for level in levels], PALETTE, HOLE,
        titles=[f"level {level}" if len(levels) > 1 else "" for level in levels],
        across=across, below=0.0 if spare else 0.2)

    patch = [Patch(facecolor=colour, edgecolor="#666666", linewidth=0.3) for colour in PALETTE]
    entries = {"anchor": patch[ANCHOR], "spans, newest on top": (patch[EVEN], patch[ODD])}
    if (shown.columns["window"] == 1).any():
        entries["window"] = patch[WINDOW]
    entries[f"excluded: {(shown.holds(shown.levels) == 0).sum()}"] = patch[HOLE]
    (axes[-1] if spare else figure).legend(
        list(entries.values()), list(entries), borderpad=0.2,
        loc="center" if spare else "lower center", ncol=1 if spare else len(entries),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)})
    excluded = int((shown.holds(shown.levels) == 0).sum())
    anchors = [int((shown.columns[f"anchors_{level}"] > 0).sum()) for level in levels]
    save(figure, arguments.output, "# Anchors and spans\n\n**"
         f"Queries {shown.queries[0]} to {shown.queries[1] - 1}: {excluded} pairs of a query and a "
         f"key excluded.**\n\nThe anchors that a query scores, the spans they stand for and its "
         "window, a panel a search level; keys with an anchor on them, over these queries: "
         + ", ".join(f"{count} on level {level}" for level, count in zip(levels, anchors))
         + ". Counted exactly.\n\n" + source_lines([arguments.input]))


if __name__ == "__main__":
    run(main)
