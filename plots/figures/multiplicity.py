"""How many final spans, and the window, hold each key of each query; 0 is a hole.

  multistep map --length 256 --preset nstep > nstep.csv
  multistep map --length 256 --preset released > released.csv
  python3 -m plots multiplicity nstep.csv released.csv --output figures/multiplicity
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..maps import MapPlot, SpanMap, panels, sources
from ..plot import Caption
from ..style import EXCLUDED

BAR = 0.43  # inches, for the colour bar and its label


def palette(most: int) -> list[str]:
    """Vermillion for 0, then blues from light to dark in equal steps of lightness for 1 .. most."""
    blues = colormaps["Blues"](np.linspace(0, 1, 256))[:, :3]
    linear = np.where(blues <= 0.04045, blues / 12.92, ((blues + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16  # CIE L*, falling
    wanted = np.linspace(88, 22, max(most, 2))[:most]
    return [EXCLUDED, *map(to_hex, blues[np.searchsorted(-lightness, -wanted)])]


def caption(maps: Sequence[SpanMap]) -> Caption:
    """What each map excludes."""
    said = []
    for each in maps:
        count = each.holds(each.levels)
        said.append(f"{each.path.stem}: {(count == 0).sum()} of {(count >= 0).sum()} pairs of a "
                    f"query and a key excluded, at most {count.max()} "
                    f"span{'s' if count.max() > 1 else ''} on a key")
    return Caption("How many final spans hold each key", f"{'; '.join(said)}.",
                   "For every query and key, how many final spans, and the window, hold the key; "
                   "0: no choice leads there, whatever a model learns. Counted exactly.",
                   sources=sources(maps))


def draw(maps: Sequence[SpanMap]) -> Figure:
    """The maps side by side."""
    counts = [each.holds(each.levels) for each in maps]
    most = max(int(count.max()) for count in counts)
    colours = palette(most)
    across = len(maps) if len(maps) < 4 else 2 + len(maps) % 2

    figure, _ = panels(
        maps, counts, colours, 0,
        titles=[each.path.stem if len(maps) > 1 else "" for each in maps],
        across=1 if all(each.wide for each in maps) else across, below=BAR)
    scale = ScalarMappable(BoundaryNorm(np.arange(most + 2) - 0.5, most + 1),
                           ListedColormap(colours))
    inch = 1 / figure.get_figheight()
    bar = figure.colorbar(scale, cax=figure.add_axes((0.1, 0.32 * inch, 0.88, 0.08 * inch)),
                          orientation="horizontal",
                          ticks=MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    bar.set_label("spans and window that hold the key (0: excluded)")
    bar.ax.minorticks_off()
    return figure


PLOT = MapPlot(needs=("cpu/maps/nstep.csv", "cpu/maps/paper.csv", "cpu/maps/failing.csv"),
               caption=caption, draw=draw, place=110, picture="cpu/multiplicity.png")
