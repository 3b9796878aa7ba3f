"""The output of `multistep map` as grids of (query, key) cells, and panels that show them."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from .plot import FilePlot
from .results import InputError, Source, read_text
from .style import COLUMN

Integers = NDArray[np.int64]
BLANK = -1  # the code of a cell that is no (query, eligible key) pair
MAX_POSITION = 16383  # grids are dense: larger ones need gigabytes
MAX_COUNT = 65536  # a count is a colour of the scale


@dataclass(frozen=True)
class SpanMap:
    """Columns of the map, each [queries, keys]; BLANK where the key is not eligible."""

    path: Path  # where it was read
    queries: tuple[int, int]  # half-open
    keys: tuple[int, int]  # half-open
    columns: dict[str, Integers]
    levels: int  # search levels, N - 1

    def holds(self, level: int) -> Integers:
        """Spans of the level, and window, that hold each key: 0 is an excluded key."""
        count = self.columns[f"spans_{level}"] + self.columns["window"]
        return np.where(self.columns["window"] == BLANK, BLANK, count)

    @property
    def wide(self) -> bool:
        """Few queries of many keys: panels stand one above the other."""
        return bool(np.ptp(self.queries) < 0.6 * np.ptp(self.keys))

    def slice(self, begin: int, end: int) -> SpanMap:
        """The queries [begin, end), and the keys that they may see."""
        if not self.queries[0] <= begin < end <= self.queries[1]:
            raise InputError(f"--queries {begin}:{end}: a range within "
                             f"{self.queries[0]}:{self.queries[1]}, not empty")
        rows = slice(begin - self.queries[0], end - self.queries[0])
        keys = (self.keys[0], min(self.keys[1], end))
        return replace(self, queries=(begin, end), keys=keys, columns={
            name: grid[rows, :keys[1] - keys[0]] for name, grid in self.columns.items()})


def read_columns(path: Path) -> dict[str, Integers]:
    """Reads a CSV file of integers into columns; entry r of a column stands on line r + 2."""
    lines = read_text(path).splitlines()
    header = next(csv.reader(lines[:1]), [])
    if not all(header) or len(set(header)) < len(header):
        raise InputError(f"{path}:1: a header names every column once")
    if len(lines) < 2:
        raise InputError(f"{path}:1: at least one row follows the header")
    table = np.empty((len(lines) - 1, len(header)), dtype=np.int64)
    for row, line in enumerate(lines[1:]):
        fields = line.split(",")
        if len(fields) != len(header):
            raise InputError(
                f"{path}:{row + 2}: the row has {len(fields)} fields, the header {len(header)}")
        try:
            table[row] = [int(field) for field in fields]
        except (ValueError, OverflowError):
            raise InputError(f"{path}:{row + 2}: a field is no 64-bit integer") from None
    return dict(zip(header, table.T))


def read_map(path: Path) -> SpanMap:
    """Reads and checks a map."""
    table = read_columns(path)
    levels = (len(table) - 3) // 3
    names = [f"{kind}_{m}" for m in range(1, levels + 1) for kind in ("anchors", "spans", "span")]
    if levels < 1 or list(table) != ["query", "key", "window", *names]:
        raise InputError(f"{path}:1: the header is query,key,window,anchors_1,spans_1,span_1,...")

    def demand(holds: NDArray[np.bool_], rule: str) -> None:
        if not holds.all():
            raise InputError(f"{path}:{np.argmin(holds) + 2}: {rule}")

    query, key, window = table["query"], table["key"], table["window"]
    demand((0 <= query) & (query <= MAX_POSITION), f"query: 0 to {MAX_POSITION}")
    demand((0 <= key) & (key <= query), "key: 0 to query")
    demand((window == 0) | (window == 1), "window: 0 or 1")
    for m in range(1, levels + 1):
        anchors, spans, span = (table[f"{kind}_{m}"] for kind in ("anchors", "spans", "span"))
        demand((anchors >= 0) & (spans >= 0) & (spans <= MAX_COUNT),
               f"anchors_{m} and spans_{m}: counts, 0 to {MAX_COUNT}")
        demand(np.where(spans > 0, span >= 0, span == -1),
               f"span_{m}: -1 where spans_{m} is 0, else >= 0")

    # One row for every key from the oldest to the query itself: a cut file makes no figure.
    top, left = int(query.min()), int(key.min())
    shape = (int(query.max()) - top + 1, int(key.max()) - left + 1)
    row, cell = query - top, (query - top) * shape[1] + key - left
    first = np.zeros(len(cell), dtype=bool)
    first[np.unique(cell, return_index=True)[1]] = True
    demand(first, "this query and key have an earlier row")
    oldest = np.full(shape[0], MAX_POSITION)
    np.minimum.at(oldest, row, key)
    demand((query - oldest[row] + 1) == np.bincount(row)[row], "a key of this query has no row")

    columns = {}
    for name in ("window", *names):
        columns[name] = np.full(shape, BLANK, dtype=np.int64)
        columns[name].flat[cell] = table[name]
    return SpanMap(path, (top, top + shape[0]), (left, left + shape[1]), columns, levels)


def sources(maps: Sequence[SpanMap]) -> list[Source]:
    """What the file SOURCE beside the maps says of each: its command, and the commit."""
    found = []
    for path in dict.fromkeys(each.path for each in maps):
        beside = path.with_name("SOURCE")
        if beside.exists():
            told = dict(line.split(": ", 1) for line in read_text(beside).splitlines())
            found.append(Source(path.name, told.get(path.name, "?"), told.get("commit", "?"),
                                dirty=False, device=""))
    return found


def query_range(text: str) -> tuple[int, int]:
    """Parses A:B."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text}: a range A:B of queries, half-open")
    return int(match[1]), int(match[2])


@dataclass(frozen=True, kw_only=True)
class MapPlot(FilePlot):
    """A figure of maps."""

    inputs: str = "CSV from `multistep map`"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        super().arguments(parser)
        parser.add_argument("--queries", type=query_range, metavar="A:B",
                            help="show the queries [A, B) alone")

    def read(self, given: argparse.Namespace) -> list[SpanMap]:
        maps = [read_map(path) for path in given.inputs]
        return [each.slice(*given.queries) for each in maps] if given.queries else maps


def pixels(codes: Integers, palette: Sequence[str], hole: int,
           dots: float) -> NDArray[np.uint8]:
    """The colours of codes[query, key], each an index into the palette, over `dots` of width."""
    height, width = codes.shape
    # More cells than dots: sample, but a block with a hole in it is a hole.
    block = int(np.ceil(width / dots))
    holes = np.logical_or.reduceat(codes == hole, np.arange(0, height, block), axis=0)
    holes = np.logical_or.reduceat(holes, np.arange(0, width, block), axis=1)
    codes = codes[::block, ::block]
    # Smaller than the eye finds: a hole spreads to about four dots, over eligible keys alone.
    for _ in range(round(4 * codes.shape[1] / dots) - 1):
        holes[1:] |= holes[:-1]
        holes[:, 1:] |= holes[:, :-1]
    codes = np.where(holes & (codes != BLANK), hole, codes)
    # Viewers blur the pixels of a small image: many pixels a cell leave the borders sharp.
    repeat = int(np.ceil(1200 / codes.shape[1]))
    colours = np.array([to_rgb(colour) for colour in (*palette, "white")])  # [-1]: BLANK
    cells: NDArray[np.uint8] = np.round(255 * colours).astype(np.uint8)[codes]
    return cells.repeat(repeat, axis=0).repeat(repeat, axis=1)


def panels(shown: Sequence[SpanMap], codes: Sequence[Integers], palette: Sequence[str],
           hole: int, titles: Sequence[str], across: int,
           below: float) -> tuple[Figure, list[Axes]]:
    """Draws a panel a map, query 0 on top; `below` inches at the bottom stay free."""
    shapes = [max(grid.shape[0] / grid.shape[1], 0.15) for grid in codes]
    down = -(-len(shown) // across)
    width = (COLUMN - 0.33 - 0.12 * (across - 1)) / across  # of a panel, beside its labels
    height = down * (max(shapes) * width + (0.32 if any(titles) else 0.2)) + 0.18 + below
    figure = Figure(figsize=(COLUMN, height))
    figure.get_layout_engine().set(rect=(0, below / height, 1, 1 - below / height))
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(shown):]:
        axes.set_axis_off()
    for index, (each, cells) in enumerate(zip(shown, codes)):
        axes, (top, bottom), (left, right) = grid.flat[index], each.queries, each.keys
        axes.imshow(pixels(cells, palette, hole, width * figure.dpi), interpolation="none",
                    aspect="auto", extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5))
        axes.set_box_aspect(shapes[index])
        axes.set_title(titles[index])
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_position(("outward", 2))  # key 0 may be a hole
        for axis, count in ((axes.xaxis, right - left), (axes.yaxis, bottom - top)):
            axis.set_major_locator(MultipleLocator(2 ** max(0, int(np.log2(count / 2.5)))))
        if index % across == 0:
            axes.set_ylabel("query")
        elif each.queries == shown[index - 1].queries:
            axes.tick_params(labelleft=False)
        if index + across >= len(shown):
            axes.set_xlabel("key")
    return figure, list(grid.flat)
