"""Draws figures and writes the pages that show them.

usage: python3 -m plots NAME [INPUT...] --output STEM     one figure as PDF, SVG and PNG
       python3 -m plots all --output FOLDER               every figure of results/, and one page
       python3 -m plots readme [--check | --pictures FOLDER]    README.md and docs/results.md
"""

from __future__ import annotations

import sys

from . import figures, make, readme
from .results import InputError

COMMANDS = {"all": make.make_all, "readme": readme.main}


def main() -> None:
    """Runs what is named; an input error is one line and exit status 2."""
    name, *arguments = sys.argv[1:] or [""]
    try:
        if name in COMMANDS:
            COMMANDS[name](arguments)
        elif name in figures.names():
            make.make(name, arguments)
        elif name in ("-h", "--help"):
            print(f"{__doc__}\nfigures, each with --help: {', '.join(figures.names())}")
        else:
            raise InputError(f"a figure of {', '.join(figures.names())}, or all, or readme")
    except InputError as error:
        print(f"{f'plots {name}'.rstrip()}: {error}", file=sys.stderr)
        sys.exit(2)


main()
