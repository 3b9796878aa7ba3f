"""Writes one page with every figure, its caption, tables and sources; nothing is loaded from
elsewhere."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from .results import InputError, read_text

STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff;
       font: 16px/1.5 Georgia, 'Times New Roman', serif; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 3rem; }
img { display: block; margin: 1rem auto; max-width: 100%; background: #fff; }
table { border-collapse: collapse; font-size: 0.8rem; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: 0.15rem 0.6rem 0.15rem 0; text-align: left;
         vertical-align: top; }
details { margin: 0.5rem 0; } summary { cursor: pointer; }
.wide { overflow-x: auto; }
.source { font-size: 0.8rem; color: #555; overflow-wrap: anywhere; }
code { font-size: 0.9em; }
"""
LONG = 14  # rows: longer tables open at a click


def inline(text: str) -> str:
    """Bold and code."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)


def table(lines: list[str]) -> str:
    """A table in Markdown."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    head, body = rows[0], rows[2:]

    def row(cells: list[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{inline(c)}</{kind}>" for c in cells) + "</tr>"

    text = ('<div class="wide"><table>' + row(head, "th")
            + "\n".join(row(cells, "td") for cells in body) + "</table></div>")
    if len(body) > LONG:
        text = f"<details><summary>{len(body)} rows</summary>{text}</details>"
    return text


def section(name: str, caption: str, picture: str) -> tuple[str, str]:
    """Title and text of a figure's caption, the picture below its title."""
    parts = [part for part in caption.strip().split("\n\n") if part]
    if not parts or not parts[0].startswith("# "):
        raise InputError(f"{name}.md:1: the caption starts with # and a title")
    title = parts[0][2:]
    out = [f'<h2 id="{name}">{inline(title)}</h2>', picture]
    for part in parts[1:]:
        lines = part.split("\n")
        if lines[0].startswith("|"):
            out.append(table(lines))
        elif lines[0].startswith("- "):
            items = "".join(f"<li>{inline(line[2:])}</li>" for line in lines)
            out.append(f'<ul class="source">{items}</ul>')
        else:
            out.append(f"<p>{inline(part)}</p>")
    return title, "\n".join(out)


def picture(folder: Path, name: str) -> str:
    """The figure as data; empty where the caption stands for itself."""
    path = folder / f"{name}.svg"
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    width = re.search(rb'width="([\d.]+)pt"', path.read_bytes())
    inches = float(width[1]) / 72 if width else 7.0
    # A fifth larger than in print.
    return (f'<img alt="{name}" style="width: {inches * 1.2:.2f}in" '
            f'src="data:image/svg+xml;base64,{data}">')


def write(folder: Path, names: Sequence[str]) -> None:
    """Writes index.html into a folder of figures with their captions."""
    sections = [section(name, read_text(folder / f"{name}.md"), picture(folder, name))
                for name in names]
    contents = "".join(f'<li><a href="#{name}">{inline(title)}</a></li>'
                       for name, (title, _) in zip(names, sections))
    text = (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>multistep: '
            f"figures</title><style>{STYLE}</style></head><body>\n<h1>multistep: figures</h1>\n"
            "<p>Every figure and table, drawn by <code>./bootstrap figures</code> from the "
            "committed results that stand below it.</p>"
            f"<ol>{contents}</ol>\n" + "\n".join(text for _, text in sections)
            + "\n</body></html>\n")
    target = folder / "index.html"
    partial = folder / ".index.html.partial"
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror}") from None
