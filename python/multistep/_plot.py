"""The picture of a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .schedule import Schedule


def draw(schedule: Schedule, length: int, start: int, ax: Optional[Axes]) -> Axes:
    """Multiplicity of every pair of a query (rows) and a key (columns)."""
    try:
        import matplotlib
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plot: needs matplotlib (pip install 'multistep[plot]')") from error
    counts = np.full((length, length), np.nan)
    for t in range(start, length):
        counts[t, start : t + 1] = schedule.multiplicity(t, start=start)
    if ax is None:
        ax = plt.figure(layout="constrained").add_subplot()
    # No span: unreachable, whatever the model learns.
    shades = matplotlib.colormaps["Blues"].with_extremes(under="#d95f02")
    most = max(2.0, float(np.nanmax(counts)))
    image = ax.imshow(counts, cmap=shades, vmin=0.5, vmax=most, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="final spans that hold the key", extend="min")
    ax.set(xlabel="key", ylabel="query", title=schedule.describe())
    return ax
