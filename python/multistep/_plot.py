"""The picture of a schedule. Needs matplotlib, and none of pyplot: whoever asks keeps the figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("plot: needs matplotlib (pip install 'multistep[plot]')") from error

if TYPE_CHECKING:
    from .schedule import Schedule


class TrueTypeFigure(Figure):
    """A figure whose PDF and PostScript have TrueType fonts, which publishers ask for, and not the
    Type 3 ones that are matplotlib's default."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        with matplotlib.rc_context({"pdf.fonttype": 42, "ps.fonttype": 42}):
            super().savefig(*args, **kwargs)


def draw(schedule: Schedule, length: int, start: int, ax: Optional[Axes]) -> Axes:
    """Multiplicity of every pair of a query (rows) and a key (columns)."""
    counts = np.full((length, length), np.nan)
    for t in range(start, length):
        counts[t, start : t + 1] = schedule.multiplicity(t, start=start)
    if ax is None:
        ax = TrueTypeFigure(layout="constrained").add_subplot()
    # No span: unreachable, whatever the model learns.
    shades = matplotlib.colormaps["Blues"].with_extremes(under="#d95f02")
    most = max(2.0, float(np.nanmax(counts)))
    image = ax.imshow(counts, cmap=shades, vmin=0.5, vmax=most, interpolation="nearest")
    ax.figure.colorbar(image, ax=ax, label="final spans that hold the key", extend="min")
    ax.set(xlabel="key", ylabel="query", title=schedule.describe())
    return ax
