"""A figure a file: its caption, its drawing, and PLOT, which says what they are made of and where
they are shown. This folder is the list of figures."""

from __future__ import annotations

import importlib
import math
import pkgutil
from types import ModuleType

from ..plot import Plot


def names() -> list[str]:
    """Of all figures."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__))


def module(name: str) -> ModuleType:
    """The file of a figure."""
    return importlib.import_module(f"{__name__}.{name}")


def plots() -> dict[str, Plot]:
    """All figures: as on the page of all, then those that are not there."""
    found = {name: module(name).PLOT for name in names()}
    return dict(sorted(found.items(), key=lambda one: (
        math.inf if one[1].place is None else one[1].place, one[0])))
