"""The anchors and spans of aligned parts, which stay where they are while queries move on.

  multistep map --length 64 --steps 3 --preset aligned > aligned.csv
  python3 -m plots parts aligned.csv --queries 32:64 --output figures/parts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..maps import MapPlot, SpanMap
from ..plot import Caption
from . import stripes


def caption(maps: Sequence[SpanMap]) -> Caption:
    """As that of stripes, under another title."""
    return replace(stripes.caption(maps), title="Anchors and spans of aligned parts")


PLOT = MapPlot(needs=("cpu/maps/aligned_3.csv",), count=1, options=("--queries", "32:64"),
               caption=caption, draw=stripes.draw, place=125)
