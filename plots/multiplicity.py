#!/usr/bin/env python3
"""Draws how many final spans, and the window, hold each key of each query; 0 is a hole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from figures import Parser, run, save
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.ticker import MaxNLocator
from span_map import EXCLUDED, panels, read_map, source_lines

BAR = 0.43  # inches, for the colour bar and its label
EXAMPLE = """  multistep map --length 256 --preset nstep > nstep.csv
  multistep map --length 256 --preset released > released.csv
  plots/multiplicity.py nstep.csv released.csv --output figures/multiplicity"""


def palette(most: int) -> list[str]:
    """Vermillion for 0, then blues from light to dark in equal steps of lightness for 1 .. most."""
    blues = colormaps["Blues"](np.linspace(0, 1, 256))[:, :3]
    linear = np.where(blues <= 0.04045, blues / 12.92, ((blues + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16  # CIE L*, falling
    wanted = np.linspace(88, 22, max(most, 2))[:most]
    return [EXCLUDED, *map(to_hex, blues[np.searchsorted(-lightness, -wanted)])]


def main() -> None:
    """Reads the maps and writes the figure."""
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT",
                        help="CSV from `multistep map`; several make panels side by side")
    arguments = parser.parse_args()
    shown = [read_map(path) for path in arguments.inputs]
    counts = [each.holds(each.levels) for each in shown]
    most = max(int(count.max()) for count in counts)
    colours = palette(most)
    across = len(shown) if len(shown) < 4 else 2 + len(shown) % 2

    figure, _ = panels(
        shown, counts, colours, 0,
        titles=[path.stem if len(shown) > 1 else "" for path in arguments.inputs],
        across=1 if all(each.wide for each in shown) else across, below=BAR)
    scale = ScalarMappable(BoundaryNorm(np.arange(most + 2) - 0.5, most + 1),
                           ListedColormap(colours))
    inch = 1 / figure.get_figheight()
    bar = figure.colorbar(scale, cax=figure.add_axes((0.1, 0.32 * inch, 0.88, 0.08 * inch)),
                          orientation="horizontal",
                          ticks=MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    bar.set_label("spans and window that hold the key (0: excluded)")
    bar.ax.minorticks_off()
    said = [f"{path.stem}: {(count == 0).sum()} of {(count >= 0).sum()} pairs of a query and a key "
            f"excluded, at most {count.max()} span{'s' if count.max() > 1 else ''} on a key"
            for path, count in zip(arguments.inputs, counts)]
    save(figure, arguments.output, f"# How many final spans hold each key\n\n**{'; '.join(said)}.**"
         "\n\nFor every query and key, how many final spans, and the window, hold the key; 0: no "
         "choice leads there, whatever a model learns. Counted exactly.\n\n"
         + source_lines(arguments.inputs))


if __name__ == "__main__":
    run(main)
