"""What the figures share: style, input with one-line errors, output that is whole or absent."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

COLUMN = 3.35  # inches: one column of a two-column paper
# No dates and no versions: the same input gives the same bytes.
METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


class InputError(Exception):
    """A missing or malformed input; the text names the file and, where there is one, the line."""


class Parser(argparse.ArgumentParser):
    """The arguments that every figure takes; a usage error takes one line, as the program's do."""

    def __init__(self, description: str, example: str) -> None:
        super().__init__(description=description, epilog=f"example:\n{example}",
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--output", required=True, metavar="STEM",
                          help="write STEM.pdf, STEM.svg and STEM.png")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def read_text(path: Path) -> str:
    """The text of an input file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from None


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


def binary(value: float, _: int | None = None) -> str:
    """1024 as 1Ki."""
    power = max(0, int(np.log2(value)) // 10)
    return f"{value / 1024**power:g}{('', 'Ki', 'Mi', 'Gi', 'Ti')[min(power, 4)]}"


def powers_of_two(axes: Axes, lengths: Floats) -> None:
    """Ticks at powers of two: each a small one, at most six of them labelled."""
    low, high = int(np.floor(np.log2(lengths.min()))), int(np.ceil(np.log2(lengths.max())))
    step = next((s for s in (1, 2, 4, 5) if (high - low) / s <= 6), 10)
    powers = range(low, high + 1)
    axes.xaxis.set_major_locator(FixedLocator([2.0**k for k in powers if (k - 10) % step == 0]))
    axes.xaxis.set_minor_locator(FixedLocator([2.0**k for k in powers]))
    axes.xaxis.set_major_formatter(FuncFormatter(binary))
    axes.xaxis.set_minor_formatter(NullFormatter())


def save(figure: Figure, stem: str, caption: str = "", source: str = "") -> None:
    """Writes STEM.pdf, STEM.svg and STEM.png, and STEM.md where there is a caption; all are drawn
    before the first is put in place. `source` goes into the PNG: what it was drawn from."""
    try:
        with tempfile.TemporaryDirectory(dir=Path(stem).parent, prefix=".figure-") as scratch:
            for kind, metadata in METADATA.items():
                if kind == "png" and source:
                    metadata = {**metadata, "Source": source}
                figure.savefig(f"{scratch}/{kind}", format=kind, metadata=metadata)
            if caption:
                Path(f"{scratch}/md").write_text(caption, encoding="utf-8")
            for kind in (*METADATA, *(["md"] if caption else [])):
                os.replace(f"{scratch}/{kind}", f"{stem}.{kind}")
    except OSError as error:
        raise InputError(f"--output {stem}: {error.strerror}") from None


def run(main: Callable[[], None]) -> None:
    """Runs a script in the house style; an input error is one line and exit status 2."""
    mpl.rcdefaults()
    matplotlib.style.use(Path(__file__).with_name("multistep.mplstyle"))
    try:
        main()
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
