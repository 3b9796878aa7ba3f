"""Makes figures: from a command line to files that are whole or absent."""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Iterable
from modulefinder import ModuleFinder
from pathlib import Path
from typing import NoReturn

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

from . import figures, page
from .results import ROOT, InputError

STYLE = Path(__file__).with_name("multistep.mplstyle")
# No dates and no versions: the same input gives the same bytes.
METADATA: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


class Parser(argparse.ArgumentParser):
    """A command line whose errors take one line, as the program's do."""

    def __init__(self, name: str, description: str | None) -> None:
        super().__init__(prog=f"plots {name}", description=description,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def code(name: str) -> list[Path]:
    """A figure's file, the style, and what of this folder it imports: what can change a drawing."""
    finder = ModuleFinder(path=[str(ROOT)])
    finder.import_hook(f"{figures.__name__}.{name}")
    return [STYLE, *sorted(Path(module.__file__) for module in finder.modules.values()
                           if module.__file__ and not module.__path__)]


def source(name: str, files: Iterable[Path]) -> str:
    """What a picture is drawn from: a figure with the digest of its files and of its code."""
    parts = [path.read_bytes() for path in (*files, *code(name)) if path.exists()]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return f"{name} {digest}"


def save(stem: str, drawing: Figure | None, caption: str, made_of: str) -> None:
    """Writes STEM.pdf, STEM.svg and STEM.png where there is a drawing, and STEM.md where there is a
    caption; all are drawn before the first is put in place. The PNG tells what it is made of."""
    try:
        with tempfile.TemporaryDirectory(dir=Path(stem).parent, prefix=".figure-") as scratch:
            for kind, metadata in METADATA.items():
                told = {**metadata, "Source": made_of} if kind == "png" else metadata
                if drawing:
                    drawing.savefig(f"{scratch}/{kind}", format=kind, metadata=told)
            if caption:
                Path(f"{scratch}/md").write_text(caption, encoding="utf-8")
            for kind in (*METADATA, "md"):
                if Path(f"{scratch}/{kind}").exists():
                    os.replace(f"{scratch}/{kind}", f"{stem}.{kind}")
    except OSError as error:
        raise InputError(f"--output {stem}: {error.strerror}") from None


def make(name: str, arguments: list[str]) -> None:
    """Reads a figure's command line, draws it and writes its files."""
    module = figures.module(name)
    plot = module.PLOT
    parser = Parser(name, module.__doc__)
    parser.add_argument("--output", required=True, metavar="STEM",
                        help="write STEM.pdf, STEM.svg, STEM.png, and its caption, if any, as STEM.md")
    plot.arguments(parser)
    given = parser.parse_args(arguments)
    read = plot.read(given)
    caption = plot.caption(read).markdown() if plot.caption else ""
    mpl.rcdefaults()
    matplotlib.style.use(STYLE)
    drawing = plot.draw(read) if plot.draw else None
    save(given.output, drawing, caption, source(name, plot.files(given)))


def make_all(arguments: list[str]) -> None:
    """Draws every figure that has its results, and writes the page that shows them."""
    parser = Parser("all", "Draws every figure of results, and one page of them: index.html.")
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="FOLDER",
                        help="where cpu/ and h100/ are (default: results)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args(arguments)
    names = [name for name, plot in figures.plots().items() if plot.place is not None]
    drawn = []
    for name in names:
        plot = figures.module(name).PLOT
        if missing := plot.missing(given.results):
            print(f"{name}: left out, as there is no {missing[0]}", flush=True)
            continue
        print(name, flush=True)
        make(name, [*plot.usual(given.results), "--output", str(given.output / name)])
        drawn.append(name)
    if not drawn:
        raise InputError(f"--results {given.results}: no results of any figure")
    page.write(given.output, drawn)
