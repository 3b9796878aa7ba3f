"""What checking a schedule tells: the fields of ``multistep verify --json`` (SPEC 9)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Optional, Union


def _json_count(count: int) -> Union[int, str]:
    """A number below 2^63, beyond it a string of its decimal digits."""
    return count if count < 2**63 else str(count)


class Exclusion(NamedTuple):
    """The first pair of a query and an eligible key that no choice of anchors leads to."""

    position: int
    """The smallest query with an excluded key."""
    key: int
    """Its smallest excluded key."""
    gap: tuple[int, int]
    """The unreachable keys around it, [begin, end)."""
    closing_backward: Optional[Fraction]
    """The smallest backward factor, to four decimals, that closes the gap; None for span lists."""


class Work(NamedTuple):
    """Work of one path of a query, anchors scored and keys of the final span (SPEC 2.6), over all
    pairs of a path and a key in its final span. None where the window has every key."""

    min: Optional[int]
    mean: Optional[float]
    max: Optional[int]
    lower_bound: Optional[float]
    """N n^(1/N), n the keys outside the window: the mean of no N-step scheme that reaches all of
    them is less."""
    ratio: Optional[float]
    """mean / lower_bound; None where the query does not reach every key."""


class PatternWork(NamedTuple):
    """Products of the queries of a pattern with what they score to choose (means, centroids, keys
    of an index) and with what they attend to (keys, and averages in their place)."""

    scored: int
    """Of all queries."""
    attended: int
    mean: float
    """Of both, over the queries."""
    most_scored: int
    """Of the query with the most of both."""
    most_attended: int


class Layers(NamedTuple):
    """How many layers on top of each other a report is about."""

    number: int
    """As many as were asked for; for "closure" those after which none adds a pair."""
    needed: Optional[int]
    """The fewest through which every eligible key is reached; None where these do not."""
    fixed_point: Optional[int]
    """The fewest after which none adds a pair, where that was found."""


@dataclass(frozen=True)
class Report:
    """Is every eligible key of every query reachable? True where it is.

    Source: ``reference/include/multistep/coverage.hpp``, SPEC 2.5 and 9.
    """

    schedule: str
    length: int
    start: int
    steps: Optional[int]
    covered: bool
    queries_checked: int
    excluded_queries: int
    excluded_pairs: int
    first_excluded: Optional[Exclusion]
    work: Optional[Work]
    """Of a schedule."""
    seconds: float
    pattern_work: Optional[PatternWork] = None
    """Of a pattern; ``work`` in JSON."""
    averaged_pairs: Optional[int] = None
    """Of a pattern: reached pairs of a query and a key that are in averages alone."""
    layers: Optional[Layers] = None
    """Where more than one layer was asked for."""

    def __bool__(self) -> bool:
        return self.covered

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        first = None
        if self.first_excluded is not None:
            hole = self.first_excluded
            closing = hole.closing_backward
            first = {"position": hole.position, "key": hole.key,
                     "gap": {"begin": hole.gap[0], "end": hole.gap[1]},
                     "closing_backward": None if closing is None else float(closing)}
        found = {"schedule": self.schedule, "length": self.length, "start": self.start,
                 "steps": self.steps, "covered": self.covered,
                 "queries_checked": self.queries_checked,
                 "excluded_queries": self.excluded_queries,
                 "excluded_pairs": _json_count(self.excluded_pairs), "first_excluded": first,
                 "work": None if self.work is None else self.work._asdict()}
        if self.pattern_work is not None:
            found["work"] = {name: _json_count(value) if isinstance(value, int) else value
                             for name, value in self.pattern_work._asdict().items()}
        if self.averaged_pairs is not None:
            found["averaged_pairs"] = _json_count(self.averaged_pairs)
        if self.layers is not None:
            found["layers"] = self.layers._asdict()
        found["seconds"] = self.seconds
        return found

    def to_json(self, indent: Optional[int] = 2) -> str:
        """The same text as ``multistep verify --json``, times apart."""
        return json.dumps(self.to_dict(), indent=indent)

    def __repr__(self) -> str:
        lines = [f"schedule     {self.schedule}",
                 f"length       {self.length}, keys from {self.start}"]
        if self.layers is not None:
            lines.append(f"layers       {self.layers.number}{_layers_told(self.layers)}")
        hole = self.first_excluded
        if hole is None:
            lines.append(f"COVERED      {self.queries_checked} queries, each reaches every "
                         "eligible key")
        else:
            lines.append(f"NOT COVERED  {self.excluded_queries} of {self.queries_checked} queries "
                         f"exclude a key, {self.excluded_pairs} pairs in all")
            lines.append(f"first hole   query {hole.position}, key {hole.key}, in the gap "
                         f"[{hole.gap[0]}, {hole.gap[1]})")
            if hole.closing_backward is not None:
                lines.append(f"closed by    backward = {float(hole.closing_backward):g} (that gap; "
                             "four decimals)")
        if self.averaged_pairs:
            lines.append(f"averaged     {self.averaged_pairs} of the pairs are in averages alone: "
                         "content cannot choose them")
        if self.pattern_work is not None:
            products = self.pattern_work
            lines.append(f"work         of a query: mean {products.mean:.1f}, at most "
                         f"{products.most_scored} scored and {products.most_attended} attended")
        work = self.work
        if work is not None and work.mean is None:
            lines.append("work         the window has every key of the last query")
        elif work is not None:
            lines.append(f"work         one path of the last query: min {work.min}, mean "
                         f"{work.mean:.1f}, max {work.max}")
            told = "of a query that reaches every key, as the last one does not"
            if work.ratio is not None:
                told = f"mean work is {work.ratio:.3f} times that"
            lines.append(f"lower bound  {work.lower_bound:.1f}; {told}")
        lines.append(f"time         {self.seconds:.2f} s")
        return "\n".join(lines)


def _layers_told(layers: Layers) -> str:
    if layers.needed == 1:
        return ", one is enough" if layers.number == 1 else "; one is enough"
    if layers.needed is not None:
        return ", and not fewer" if layers.needed == layers.number else (
            f"; {layers.needed} are enough")
    if layers.fixed_point is not None:
        return f"; from {layers.fixed_point} on, none adds a pair"
    return ""
