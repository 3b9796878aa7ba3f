"""A bar on standard error for work that takes longer than a second; silent unless a terminal."""

from __future__ import annotations

import sys
import time
from typing import Callable, Optional

_WIDTH = 32


class ProgressBar:
    """A context whose ``callback`` takes done and total."""

    def __init__(self, label: str, wanted: bool) -> None:
        self._label = label
        self._wanted = wanted and bool(getattr(sys.stderr, "isatty", bool)())
        self._next = time.monotonic() + 1
        self._drawn = False

    @property
    def callback(self) -> Optional[Callable[[int, int], None]]:
        return self._show if self._wanted else None

    def _show(self, done: int, total: int) -> None:
        if time.monotonic() < self._next or total <= 0:
            return
        filled = _WIDTH * done // total
        sys.stderr.write(f"\r{self._label} [{'#' * filled}{'.' * (_WIDTH - filled)}] "
                         f"{100 * done // total:3d} %")
        sys.stderr.flush()
        self._drawn = True
        self._next = time.monotonic() + 0.1

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
