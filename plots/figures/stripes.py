"""The anchors, spans, window and holes of a schedule, one panel a search level.

  multistep map --length 64 --steps 3 > nstep.csv
  python3 -m plots stripes nstep.csv --queries 32:64 --output figures/stripes
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from ..maps import BLANK, Integers, MapPlot, SpanMap, panels, sources
from ..plot import Caption
from ..style import EXCLUDED

EVEN, ODD, WINDOW, ANCHOR, HOLE = range(5)
PALETTE = ("#D9ECF8", "#A5D3F0", "#F0E442", "#00304D", EXCLUDED)  # by code; tints of sky blue


def codes(shown: SpanMap, level: int) -> Integers:
    """What each cell shows: a hole before an anchor, an anchor before the window or a span."""
    window, anchors = shown.columns["window"], shown.columns[f"anchors_{level}"]
    cells = np.where(shown.columns[f"span_{level}"] % 2 == 0, EVEN, ODD)
    cells[window == 1] = WINDOW
    cells[anchors > 0] = ANCHOR
    cells[shown.holds(level) == 0] = HOLE
    cells[window == BLANK] = BLANK
    return cells


def excluded(shown: SpanMap) -> int:
    """Pairs of a query and a key that no choice joins."""
    return int((shown.holds(shown.levels) == 0).sum())


def caption(maps: Sequence[SpanMap]) -> Caption:
    """What is excluded, and how many keys have anchors on them."""
    (shown,) = maps
    anchors = [int((shown.columns[f"anchors_{level}"] > 0).sum())
               for level in range(1, shown.levels + 1)]
    return Caption(
        "Anchors and spans",
        f"Queries {shown.queries[0]} to {shown.queries[1] - 1}: {excluded(shown)} pairs of a query "
        "and a key excluded.",
        "The anchors that a query scores, the spans they stand for and its window, a panel a "
        "search level; keys with an anchor on them, over these queries: "
        + ", ".join(f"{count} on level {level}" for level, count in enumerate(anchors, 1))
        + ". Counted exactly.", sources=sources(maps))


def draw(maps: Sequence[SpanMap]) -> Figure:
    """The levels of the map."""
    (shown,) = maps
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
    entries[f"excluded: {excluded(shown)}"] = patch[HOLE]
    (axes[-1] if spare else figure).legend(
        list(entries.values()), list(entries), borderpad=0.2,
        loc="center" if spare else "lower center", ncol=1 if spare else len(entries),
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0)})
    return figure


PLOT = MapPlot(needs=("cpu/maps/nstep_3.csv",), count=1, options=("--queries", "32:64"),
               caption=caption, draw=draw, place=120)
