"""How figures look: their widths, the colours and marks of configurations, axes of lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import NDArray

from .results import CONFIGS

COLUMN = 3.35  # inches: one column of a two-column paper
PAGE = 7.0  # inches: both columns
# Of Okabe and Ito, by the number of steps; more than four steps share the last ones.
STEP_COLOURS = {1: "#000000", 2: "#0072B2", 3: "#E69F00", 4: "#009E73", 5: "#666666",
                6: "#A6A6A6"}
RULES = {"dense": ("P", "-"), "nstep": ("o", "-"), "even": ("s", "--"),
         "aligned": ("X", (0, (3, 1, 1, 1))), "paper": ("^", ":"),
         "released": ("D", "-."), "tight": ("v", "--"), "power": ("^", ":")}
# The two other schedules of N = 2 are told apart from it by colour too.
OTHER_COLOURS = {"paper": "#56B4E9", "released": "#CC79A7"}
EXCLUDED = "#D55E00"  # vermillion: a key that no choice reaches, and nothing else


def look(steps: int, rule: str) -> dict[str, Any]:
    """Colour by N, marker, filling and line by rule."""
    colour = OTHER_COLOURS.get(rule, STEP_COLOURS[min(steps, 6)])
    marker, line = RULES[rule]
    return {"color": colour, "marker": marker, "linestyle": line, "linewidth": 0.9,
            "markersize": 3.2, "markeredgewidth": 0.7,
            "markerfacecolor": "white" if rule == "even" else colour}


def style(config: str) -> dict[str, Any]:
    """How a configuration is drawn, in every figure."""
    return look(CONFIGS[config].steps, CONFIGS[config].rule)


def legend(figure: Figure, configs: list[str], columns: int) -> None:
    """The configurations, above the panels."""
    handles = [Line2D([], [], **style(config)) for config in configs]
    figure.legend(handles, [CONFIGS[config].label for config in configs], ncol=columns,
                  loc="upper center", handlelength=2.2, borderpad=0)


def room_for_legend(figure: Figure, inches: float) -> None:
    """Keeps the top of a figure free."""
    share = inches / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - share))


def binary(value: float, _: int | None = None) -> str:
    """1024 as 1Ki."""
    power = max(0, int(np.log2(value)) // 10)
    return f"{value / 1024**power:g}{('', 'Ki', 'Mi', 'Gi', 'Ti')[min(power, 4)]}"


def powers_of_two(axes: Axes, lengths: NDArray[np.float64]) -> None:
    """Ticks at powers of two: each a small one, at most six of them labelled."""
    low, high = int(np.floor(np.log2(lengths.min()))), int(np.ceil(np.log2(lengths.max())))
    step = next((s for s in (1, 2, 4, 5) if (high - low) / s <= 6), 10)
    powers = range(low, high + 1)
    axes.xaxis.set_major_locator(FixedLocator([2.0**k for k in powers if (k - 10) % step == 0]))
    axes.xaxis.set_minor_locator(FixedLocator([2.0**k for k in powers]))
    axes.xaxis.set_major_formatter(FuncFormatter(binary))
    axes.xaxis.set_minor_formatter(NullFormatter())


def length_axis(axes: Axes, lengths: list[float], label: str = "length $L$") -> None:
    """Lengths on a logarithmic axis, in powers of two."""
    axes.set_xscale("log")
    powers_of_two(axes, np.array(lengths))
    axes.set_xlabel(label)
