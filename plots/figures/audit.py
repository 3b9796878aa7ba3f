"""How many stripes rounded arithmetic gets wrong, and which schedules then exclude keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..plot import Caption, Plot, Table
from ..results import Results, size
from ..style import EXCLUDED, PAGE


def audits(results: Results) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Wrong stripes, and what they exclude; exact arithmetic is not among the methods."""
    stripes = results.listed("cpu/audit.json", "exponents", (
        "exponent", "method", "limit", "stripes", "wrong", "share", "largest_error"))
    coverage = results.listed("cpu/audit.json", "coverage", (
        "schedule", "method", "length", "covered", "excluded_pairs", "first_excluded", "harmless"))
    return stripes, coverage


def harmless_names(coverage: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Schedules that no rounding hurts, and those that some rounding makes exclude a key.

    A schedule that excludes keys in exact arithmetic too is in neither.
    """
    broken = {one["schedule"] for one in coverage if one["method"] == "exact"
              and not one["covered"]}
    names = [one["schedule"] for one in coverage if one["schedule"] not in broken]
    hurt = {one["schedule"] for one in coverage if not one["harmless"]}
    order = list(dict.fromkeys(names))
    return [n for n in order if n not in hurt], [n for n in order if n in hurt]


def hurt_texts(coverage: Sequence[dict[str, Any]], hurt: Sequence[str]) -> list[str]:
    """Which arithmetics hurt which schedules: those that the same ones hurt together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in hurt:
        methods = dict.fromkeys(one["method"] for one in coverage
                                if one["schedule"] == name and not one["harmless"])
        groups.setdefault(tuple(methods), []).append(name)
    return [f"{', '.join(names)} (by {', '.join(methods)})" for methods, names in groups.items()]


def caption(results: Results) -> Caption:
    """Stripes in rounded arithmetic."""
    stripes, coverage = audits(results)
    limit = max((one["limit"] for one in stripes), default=0)
    rows = [(one["exponent"], one["method"], size(one["limit"]), str(one["stripes"]),
             str(one["wrong"]), f"{one['share']:.1%}", str(one["largest_error"]))
            for one in stripes if one["wrong"]]
    holes = []
    for one in coverage:
        first = one["first_excluded"]
        if first is not None:
            holes.append((one["schedule"], one["method"], size(one["length"]),
                          str(one["excluded_pairs"]),
                          f"query {first['position']}, key {first['key']}"))
    safe, hurt = harmless_names(coverage)
    # Of those that take the floor: half added first is another function, not a wrong one.
    worst = max((one for one in stripes if one["limit"] == limit and "+ 0.5" not in one["method"]),
                key=lambda one: (one["share"], one["largest_error"]), default=None)
    text = ("Stripes and reaches as programs commonly compute them, each step rounded correctly, "
            "against the exact ones; a GPU's approximate logarithms and exponentials add their own "
            "errors. ")
    brief = ""
    if worst is not None:
        brief = (f"The worst is {worst['method']} at exponent {worst['exponent']}: "
                 f"{worst['wrong']} of {worst['stripes']} stripes up to {size(limit)} are wrong, "
                 f"by up to {worst['largest_error']}. ")
    if safe:
        brief += ("Harmless under all arithmetics here, as the spans reach further than the "
                  "errors: " + "; ".join(safe) + ". ")
    if hurt:
        brief += ("Not harmless, as keys become unreachable whatever a model learns: "
                  + "; ".join(hurt_texts(coverage, hurt)) + ".")
    text += ("A is the paper's schedule with a window of 1023 keys; \"least reach\" has the "
             "shortest spans that reach every key in exact arithmetic; \"+ 0.5\" and \"+ 1e-6\" "
             "are added before the floor, as repairs. The table has the first excluded key of "
             "each; white cells have none wrong.")
    tables = [Table(("schedule", "arithmetic", "length", "pairs excluded", "first"), holes),
              Table(("exponent", "arithmetic", "up to", "stripes", "wrong", "share", "by up to"),
                    rows)]
    return Caption("Schedules in rounded arithmetic", brief.strip(), text,
                   [table for table in tables if table.rows], results.sources)


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
    stripes, coverage = audits(results)
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


PLOT = Plot(needs=("cpu/audit.json",), caption=caption, draw=draw, place=90)
