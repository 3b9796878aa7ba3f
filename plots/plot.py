"""What a figure is: its text, its drawing, what they are made of, and where it is shown."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .results import ROOT, InputError, Results, Source


@dataclass(frozen=True)
class Table:
    """A table in Markdown's terms."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """The lines of a table."""
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Caption:
    """The text that belongs to a figure: it goes below it, into index.html and into documents."""

    title: str
    brief: str  # the finding, in a sentence or two
    text: str
    tables: list[Table] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    def markdown(self) -> str:
        """Title, text, tables and sources."""
        parts = [f"# {self.title}", f"**{self.brief}**", self.text,
                 *(table.markdown() for table in self.tables)]
        if self.sources:
            parts.append("\n".join(f"- {source.text()}" for source in self.sources))
        return "\n\n".join(parts) + "\n"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure of results: caption and drawing are of what `read` returns."""

    needs: tuple[str, ...] = ()  # the files below results/ that it is made of
    caption: Callable[[Any], Caption] | None = None
    draw: Callable[[Any], Figure] | None = None
    place: int | None = None  # on the page of all; None: not there
    picture: str = ""  # the committed PNG, below results/
    alternative: str = ""  # its text in docs/results.md; empty: it is not there

    def arguments(self, parser: ArgumentParser) -> None:
        """What its command line takes."""
        parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="FOLDER",
                            help="where cpu/ and h100/ are (default: results)")
        parser.add_argument("--partial", action="store_true",
                            help="lengths that were not timed leave gaps")

    def read(self, given: Namespace) -> Any:
        """What it is made of."""
        if given.partial and not any(path.exists() for path in self.files(given)):
            raise InputError(f"{given.results}: no results for this figure")
        return Results(given.results, given.partial)

    def files(self, given: Namespace) -> list[Path]:
        """The files that it is made of."""
        return self.needed(given.results)

    def usual(self, results: Path) -> list[str]:
        """The command line that draws it for the page."""
        return ["--results", str(results)]

    def needed(self, results: Path) -> list[Path]:
        """The files that it is made of in a folder of results."""
        return [results / name for name in self.needs]

    def missing(self, results: Path) -> list[Path]:
        """Of these, what has not been measured."""
        return [path for path in self.needed(results) if not path.exists()]


@dataclass(frozen=True, kw_only=True)
class FilePlot(Plot):
    """A figure of files that the command line names, as the program writes them."""

    inputs: str  # what they are
    count: str | int = "+"  # how many
    options: tuple[str, ...] = ()  # beside the files, for the page

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("inputs", nargs=self.count, type=Path, metavar="INPUT",
                            help=self.inputs)

    def files(self, given: Namespace) -> list[Path]:
        return list(given.inputs)

    def usual(self, results: Path) -> list[str]:
        return [*map(str, self.needed(results)), *self.options]
