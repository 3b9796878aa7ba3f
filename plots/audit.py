#!/usr/bin/env python3
"""Draws how many stripes rounded arithmetic gets wrong, and which schedules then exclude keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from paper import PAGE, Results, captions_routing, main, size
from span_map import EXCLUDED


def short(count: int) -> str:
    """A count of at most four characters."""
    for unit, name in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.2g}{name}" if count < 10 * unit else f"{count // unit}{name}"
    return str(count)


def cells(axes: Axes, across: list[str], down: list[str],
          cell: Callable[[str, str], tuple[str, Any]]) -> None:
    """A table of coloured cells, each a text and a colour."""
    image = np.ones((len(down), len(across), 3))
    for row, name in enumerate(down):
        for column, other in enumerate(across):
            text, colour = cell(name, other)
            image[row, column] = colour
            dark = image[row, column] @ (0.2126, 0.7152, 0.0722) < 0.45
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5,
                      color="white" if dark else "black")
    axes.imshow(image, aspect="auto", interpolation="none")
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.set_xticks(np.arange(len(across) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(down) + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="#CCCCCC", linewidth=0.5)
    axes.tick_params(which="both", length=0)


def draw(results: Results) -> Figure:
    """The figure."""
    stripes, coverage = captions_routing.audits(results)
    limit = max(one["limit"] for one in stripes)
    length = max(one["length"] for one in coverage)
    share = {(one["method"], one["exponent"]): one for one in stripes if one["limit"] == limit}
    holes = {(one["method"], one["schedule"]): one for one in coverage if one["length"] == length}
    methods = list(dict.fromkeys(one["method"] for one in stripes))
    exponents = list(dict.fromkeys(one["exponent"] for one in stripes))
    schedules = list(dict.fromkeys(one["schedule"] for one in coverage))

    figure = Figure(figsize=(PAGE, 0.75 + 0.2 * len(methods) + 0.75))
    left, right = figure.subplots(1, 2, gridspec_kw={
        "width_ratios": (len(exponents), 1.15 * len(schedules))})
    blues = colormaps["Blues"]

    def wrong(method: str, exponent: str) -> tuple[str, Any]:
        one = share.get((method, exponent))
        if one is None:
            return "–", (1, 1, 1)
        if not one["wrong"]:
            return "0", (1, 1, 1)
        percent = 100 * one["share"]
        return f"{percent:.2g}" if percent < 10 else f"{percent:.0f}", (
            blues(0.15 + 0.75 * one["share"])[:3])

    def hole(method: str, schedule: str) -> tuple[str, Any]:
        one = holes.get((method, schedule))
        if one is None:
            return "–", (1, 1, 1)
        if one["covered"]:
            return "0", (1, 1, 1)
        return short(one["excluded_pairs"]), to_rgb(EXCLUDED)

    cells(left, exponents, methods, wrong)
    left.set_title(f"wrong stripes up to {size(limit)}, %")
    left.set_xlabel("exponent of the stripes")
    cells(right, schedules, methods, hole)
    right.set_title(f"pairs of query and key excluded, $L$ = {size(length)}")
    right.set_yticklabels([])
    for text in right.get_xticklabels():
        text.set(rotation=35, ha="right", rotation_mode="anchor", fontsize=6.5)
    return figure


if __name__ == "__main__":
    main(__doc__, captions_routing.audit, draw)
