"""The N-step stripe anchor schedule (SPEC 2) and its checker."""

from __future__ import annotations

import atexit
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import integers, require_memory
from ._progress import ProgressBar
from ._rational import RationalLike, integer, rational
from .reports import Exclusion, Layers, PatternWork, Report, Work

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LENGTH = 2**48
"""Longest sequence that a schedule is defined for, in keys."""

_STRIPES = ("tight", "power")  # rules whose anchors are stripes; the others have parts
_RULES = "tight, power, even or aligned"
_COLUMNS = ("rules", "exponents", "backward", "forward", "span_exponents")
PerLevel = Union[RationalLike, Sequence[RationalLike]]


class Path(NamedTuple):
    """A sequence of choices: per search level a stripe, its anchor, and the span it stands for.
    The last span is what is attended to. For a key in the window, which needs no choice, stripes
    and anchors are empty and the one span is the window."""

    stripes: tuple[int, ...]
    anchors: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, init=False, repr=False)
class Schedule:
    """Which anchors a query scores at each step, and the span that each stands for. Immutable.

    Args:
        steps: N in [1, 64]; 1 is dense causal attention.
        rule: "tight", "power", "even" or "aligned"; one for all levels or a sequence of N - 1. By
            default tight at level 1 and even below.
        exponent: stripe i of a level lies floor(i^exponent) keys back; a rational in [1, 64]. One
            value is that of level 1, and the others keep M, the steps left.
        backward, forward: factors >= 0 of the power rule; one for all levels or N - 1 (M and 0).
        span_exponent: of the power rule, in [0, 1]; one for all levels or N - 1 ((M - 1) / M).
        window_index: w >= 0; stripes 1 ... w of level 1 are left to the window, or w keys where
            level 1 has parts (even, aligned).
        top_k: spans kept per query, in [1, 64].

    Rationals are str ("20/11", "0.55"), int, Fraction or Decimal. A float whose decimal spelling is
    not its exact value, such as 0.55, is refused, since it would name another schedule.

    Raises:
        ValueError, TypeError: one line naming the offender, its value and the range.

    Source: ``reference/include/multistep/schedule.hpp``.
    """

    steps: int
    rules: tuple[str, ...]
    exponents: tuple[Fraction, ...]
    backward: tuple[Fraction, ...]
    forward: tuple[Fraction, ...]
    span_exponents: tuple[Fraction, ...]
    window_index: int
    top_k: int
    text: str = field(compare=False)
    """All parameters in one line, which ``from_text`` reads."""

    def __init__(self, steps: int = 2, rule: Union[str, Sequence[str], None] = None,
                 exponent: Optional[PerLevel] = None, backward: Optional[PerLevel] = None,
                 forward: Optional[PerLevel] = None, span_exponent: Optional[PerLevel] = None,
                 window_index: int = 0, top_k: int = 2) -> None:
        steps = integer("steps", steps, 1, 64)
        base = _core.preset("nstep", steps).levels
        self._set(steps, _overridden(base, steps, rule, exponent, backward, forward,
                                     span_exponent), window_index, top_k)

    def _set(self, steps: int, levels: list[tuple[str, Fraction, Fraction, Fraction, Fraction]],
             window_index: int, top_k: int) -> None:
        columns = [tuple(column) for column in zip(*levels)] or [()] * 5
        fields: dict[str, Any] = {
            "steps": steps, **dict(zip(_COLUMNS, columns)),
            "window_index": integer("window_index", window_index, 0, MAX_LENGTH),
            "top_k": integer("top_k", top_k, 1, 64)}
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        _handle(self)  # the library checks the ranges
        text = [str(self.steps), *(",".join(map(str, fields[name])) for name in _COLUMNS),
                str(self.window_index), str(self.top_k)]
        object.__setattr__(self, "text", ";".join(text))

    @staticmethod
    def preset(name: str, steps: int = 2, **changes: Any) -> Schedule:
        """The schedule called "nstep", "even", "aligned" (any steps), "paper" or "released" (two),
        SPEC 2.7, with the keyword arguments of ``Schedule`` for what is to be different."""
        known = _core.preset(str(name), integer("steps", steps, 1, 64))
        schedule = Schedule.__new__(Schedule)
        settings: dict[str, Any] = {
            "rule": None, "exponent": None, "backward": None, "forward": None,
            "span_exponent": None, "window_index": known.window_index, "top_k": known.top_k}
        for key in changes:
            if key not in settings:
                raise TypeError(f"{key}: not an argument of a preset; {', '.join(settings)} are")
        settings.update(changes)
        schedule._set(known.steps, _overridden(known.levels, known.steps, settings["rule"],
                                               settings["exponent"], settings["backward"],
                                               settings["forward"], settings["span_exponent"]),
                      settings["window_index"], settings["top_k"])
        return schedule

    @staticmethod
    def from_text(text: str) -> Schedule:
        """The schedule whose ``text`` this is."""
        steps, *columns, window_index, top_k = text.split(";")
        if len(columns) != 5:
            raise ValueError(f"schedule {text!r}: eight fields")
        levels = [column.split(",") if column else [] for column in columns]
        rules, exponents, backward, forward, span_exponents = levels
        return Schedule(int(steps), rules, exponents, backward, forward, span_exponents,
                        int(window_index), int(top_k))

    def with_top_k(self, top_k: Optional[int]) -> Schedule:
        """This schedule, keeping ``top_k`` spans where that is not None."""
        if top_k is None or integer("top_k", top_k, 1, 64) == self.top_k:
            return self
        return Schedule(self.steps, self.rules, self.exponents, self.backward, self.forward,
                        self.span_exponents, self.window_index, top_k)

    def anchors(self, t: int, *, start: int = 0, inside: Sequence[int] = ()
                ) -> npt.NDArray[np.int64]:
        """The anchor keys of query ``t``, newest first: of level 1, or of the level after the
        anchors ``inside`` were chosen, one per level. int64 [n]."""
        return self._level(t, start, inside)[0]

    def spans(self, t: int, *, start: int = 0, inside: Sequence[int] = ()) -> npt.NDArray[np.int64]:
        """The spans that ``anchors`` with the same arguments stand for, half-open. int64 [n, 2]."""
        return self._level(t, start, inside)[1]

    def final_spans(self, t: int, *, start: int = 0, window: bool = True) -> npt.NDArray[np.int64]:
        """Every span that query ``t`` can end in, the window first where it has one and that is
        wanted. int64 [n, 2]. Raises ValueError beyond a million."""
        t, start = _query(t, start)
        spans = self.plan(t + 1).final_spans(t, start)
        begin, end = self.window(t, start=start)
        if not window or end <= begin:
            return spans
        return np.concatenate([np.array([[begin, end]], np.int64), spans])

    def window(self, t: int, *, start: int = 0) -> tuple[int, int]:
        """The keys [begin, end) that query ``t`` always attends to."""
        t, start = _query(t, start)
        return self.plan(t + 1).window(t, start)

    def path(self, t: int, key: int, *, start: int = 0) -> tuple[Path, ...]:
        """The paths of query ``t`` whose final span holds ``key``, and the window where that does.
        Empty where the key is excluded; one path, whatever the key, under the tight rule."""
        t, start = _query(t, start)
        key = integer("key", key, start, t)
        plan = self.plan(t + 1)
        begin, end = plan.window(t, start)
        found = [Path((), (), ((begin, end),))] if begin <= key < end else []
        for steps in plan.paths(t, start, key):
            stripes, anchors, begins, ends = zip(*steps)
            found.append(Path(stripes, anchors, tuple(zip(begins, ends))))
        return tuple(found)

    def multiplicity(self, t: int, *, start: int = 0) -> npt.NDArray[np.int64]:
        """How many final spans hold each eligible key of query ``t``, oldest first, the window
        counted as one more. int64 [t + 1 - start]."""
        t, start = _query(t, start)
        require_memory(f"multiplicity of query {t}", 24 * (t + 1 - start))
        return self.plan(t + 1).multiplicity(t, start)

    def part_lengths(self, length: int) -> tuple[Optional[int], ...]:
        """Keys of the parts of each aligned level, by level, where level 1 searches ``length`` keys
        (those of the window are not among them). They grow with the length, but only where it
        passes certain lengths, by doubling. None for levels of other rules and for an aligned one
        below such, whose parts hang on the span that it is in."""
        nominal: Optional[int] = integer("length", length, 1, MAX_LENGTH)
        parts = []
        for left, rule in zip(range(self.steps, 1, -1), self.rules):
            nominal = (_core.aligned_part(nominal, left)
                       if rule == "aligned" and nominal is not None else None)
            parts.append(nominal)
        return tuple(parts)

    def work(self, length: int, *, start: int = 0) -> Work:
        """Work of one path of the last query of ``length`` keys, beside the lower bound of its
        mean."""
        length = integer("length", length, 1, MAX_LENGTH)
        start = integer("start", start, 0, length - 1)
        found = self.plan(length).work(length, start)
        return Work(*found) if found else Work(None, None, None, None, None)

    def verify(self, length: int, queries: Union[str, int] = "all", progress: bool = True, *,
               start: int = 0, seed: int = 1,
               layers: Union[str, int, None] = None) -> Report:
        """Is every eligible key of every query below ``length`` reachable?

        Args:
            length: L in [1, 2^48].
            queries: "all", or how many: stripe positions and their neighbours, then random ones.
            progress: show a bar on a terminal where it takes long.
            start: the first eligible key.
            seed: of the random queries.
            layers: None is one. A number: through so many layers on top of each other, each of
                which hands on what it has; "closure": through any number. Of all queries, and up
                to 65536 keys.

        Can be interrupted. Source: ``reference/include/multistep/coverage.hpp``.
        """
        length = integer("length", length, 1, MAX_LENGTH)
        start = integer("start", start, 0, length - 1)
        self._require_tables(length)
        began = time.monotonic()
        with ProgressBar("verify", progress) as bar:
            if layers is not None:
                if queries != "all":
                    raise ValueError(f"queries {queries!r}: 'all' where layers are followed")
                through = _core.schedule_layers(_handle(self), length, start, layers_wanted(layers),
                                                bar.callback)
                return report_of(self.describe(), length, start, self.steps, through[0],
                                 self.work(length, start=start), time.monotonic() - began,
                                 layers=through[1:])
            if isinstance(queries, str):
                if queries != "all":
                    raise ValueError(f"queries {queries!r}: 'all' or an integer >= 1")
                found = _core.verify_all(_handle(self), length, start, bar.callback)
            else:
                count = integer("queries", queries, 1, MAX_LENGTH)
                found = _core.verify_sampled(_handle(self), length, start, count,
                                             integer("seed", seed, 0, 2**63 - 1), bar.callback)
        return report_of(self.describe(), length, start, self.steps, found,
                         self.work(length, start=start), time.monotonic() - began)

    def plot(self, length: int = 64, *, start: int = 0, ax: Optional[Axes] = None) -> Axes:
        """Draws how many final spans hold each key of each query, unreachable pairs in orange, and
        returns the matplotlib axes: ``ax``, or those of a figure of its own, which pyplot does not
        hold (``.figure.savefig("schedule.pdf")``). ``length`` is at most 4096."""
        from ._plot import draw

        return draw(self, integer("length", length, 1, 4096), start, ax)

    def describe(self) -> str:
        """One line, as the program's output has it."""
        if self.steps == 1:
            return "N = 1 (dense)"
        levels = [rule if rule != "power" else f"power b {b} f {f} q {q}" for rule, b, f, q in
                  zip(self.rules, self.backward, self.forward, self.span_exponents)]
        text = f"N = {self.steps} ({', '.join(levels)})"
        if self.rules[0] in _STRIPES:
            text += f", stripes i^{self.exponents[0]}"
        return text + (f", w = {self.window_index}" if self.window_index else "")

    def __repr__(self) -> str:
        def column(values: Sequence[object]) -> str:
            texts = [str(value) for value in values]
            return repr(texts[0]) if len(texts) == 1 else repr(tuple(texts))

        parts = [f"steps={self.steps}"]
        if self.steps > 1:
            parts += [f"rule={column(self.rules)}", f"exponent={column(self.exponents)}",
                      f"backward={column(self.backward)}", f"forward={column(self.forward)}",
                      f"span_exponent={column(self.span_exponents)}"]
        return (f"Schedule({', '.join(parts)}, window_index={self.window_index}, "
                f"top_k={self.top_k})")

    def plan(self, length: int) -> _core.Plan:
        """The schedule with its tables for ``length`` keys at least; the last few are kept."""
        length = integer("length", length, 1, MAX_LENGTH)
        rounded = max(1024, 1 << (length - 1).bit_length())
        self._require_tables(length)
        try:
            return _plan(self, rounded)
        except ValueError:
            return _plan(self, length)  # the tables for a few keys more may be too large

    def _require_tables(self, length: int) -> None:
        stripes = sum(min(float(length) ** (1 / float(exponent)), 2.0**27)  # more are refused
                      for rule, exponent in zip(self.rules, self.exponents) if rule in _STRIPES)
        require_memory(f"length {length}: its {stripes:.3g} stripes", int(16 * stripes))

    def _level(self, t: int, start: int, inside: Sequence[int]
               ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        t, start = _query(t, start)
        chosen = [integer("anchor", anchor, 0, t) for anchor in inside]
        if self.steps == 1 or len(chosen) >= self.steps - 1:
            raise ValueError(f"inside {tuple(chosen)}: a schedule of {self.steps} steps has "
                             f"{self.steps - 1} search levels, one below the anchors chosen")
        return self.plan(t + 1).level(t, start, chosen)


def _query(t: int, start: int) -> tuple[int, int]:
    t = integer("query", t, 0, MAX_LENGTH - 1)
    return t, integer("start", start, 0, t)


def _texts(schedule: Schedule) -> list[tuple[str, str, str, str, str]]:
    return [(rule, str(e), str(b), str(f), str(q)) for rule, e, b, f, q in
            zip(schedule.rules, schedule.exponents, schedule.backward, schedule.forward,
                schedule.span_exponents)]


@functools.lru_cache(maxsize=256)
def _handle(schedule: Schedule) -> _core.Schedule:
    return _core.make_schedule(schedule.steps, _texts(schedule), schedule.window_index,
                               schedule.top_k)


@functools.lru_cache(maxsize=16)
def _plan(schedule: Schedule, max_length: int) -> _core.Plan:
    if schedule.top_k != 1:  # no table depends on it
        return _plan(schedule.with_top_k(1), max_length).with_top_k(schedule.top_k)
    return _core.make_plan(_handle(schedule), max_length)


atexit.register(_plan.cache_clear)
atexit.register(_handle.cache_clear)


def _overridden(base: Sequence[tuple[str, str, str, str, str]], steps: int,
                rule: Union[str, Sequence[str], None], exponent: Optional[PerLevel],
                backward: Optional[PerLevel], forward: Optional[PerLevel],
                span_exponent: Optional[PerLevel]
                ) -> list[tuple[str, Fraction, Fraction, Fraction, Fraction]]:
    """The levels of ``base`` with what is given in place of theirs. What a level's rule has no use
    for is checked and kept."""
    rules = _rules(rule, [level[0] for level in base])
    columns = []
    for name, value, at in (("exponent", exponent, 1), ("backward", backward, 2),
                            ("forward", forward, 3), ("span_exponent", span_exponent, 4)):
        defaults = [Fraction(level[at]) for level in base]
        columns.append(_column(name, value, defaults, steps))
    return list(zip(rules, *columns))


def _rules(rule: Union[str, Sequence[str], None], defaults: list[str]) -> list[str]:
    if not (rule is None or isinstance(rule, (str, list, tuple))):
        raise TypeError(f"rule {rule!r}: {_RULES}, or a sequence of them")
    given = defaults if rule is None else [rule] if isinstance(rule, str) else list(rule)
    for name in given:
        if name not in (*_STRIPES, "even", "aligned"):
            raise ValueError(f"rule {name!r}: {_RULES}")
    if len(given) not in ({1, len(defaults)} if defaults else {0, 1}):
        raise ValueError(f"rule with {len(given)} values: one, or one per search level, "
                         f"{len(defaults)}")
    return given * len(defaults) if len(given) == 1 else given


def _column(name: str, value: Optional[PerLevel], defaults: list[Fraction], steps: int
            ) -> list[Fraction]:
    if value is None:
        return defaults
    if not isinstance(value, (list, tuple)):
        single = rational(name, value)  # type: ignore[arg-type]
        if name == "exponent":  # of level 1; a value out of range is refused with one step too
            if not 1 <= single <= 64:
                raise ValueError(f"exponent {single}: a rational in [1, 64] with a denominator of "
                                 "at most 10000")
            return [single, *defaults[1:]] if defaults else []
        return [single] * len(defaults)
    if len(value) not in ({1, len(defaults)} if defaults else {0, 1}):
        raise ValueError(f"{name} with {len(value)} values: one, or one per search level, "
                         f"{steps - 1}")
    values = [rational(name, one) for one in value]
    return values * len(defaults) if len(values) == 1 else values


def report_of(name: str, length: int, start: int, steps: Optional[int],
              found: tuple[int, int, int, Optional[tuple[Any, ...]]],
              work: Optional[Work], seconds: float, *,
              pattern_work: Optional[PatternWork] = None, averaged_pairs: Optional[int] = None,
              layers: Optional[tuple[int, Optional[int]]] = None) -> Report:
    """A report of what the library found; ``layers``: how many, and from which on none adds a
    pair."""
    checked, excluded_queries, excluded_pairs, first = found
    hole = None
    if first is not None:
        position, key, begin, end, closing = first
        hole = Exclusion(position, key, (begin, end), closing and Fraction(*closing))
    through = None
    if layers is not None:
        number, fixed_point = layers
        through = Layers(number, fixed_point if first is None else None, fixed_point)
    return Report(name, length, start, steps, first is None, checked, excluded_queries,
                  excluded_pairs, hole, work, seconds, pattern_work, averaged_pairs, through)


def layers_wanted(layers: Union[str, int]) -> Optional[int]:
    """How many, None for "closure"."""
    if isinstance(layers, str):
        if layers != "closure":
            raise ValueError(f"layers {layers!r}: 'closure' or an integer in [1, 65536]")
        return None
    return integer("layers", layers, 1, 65536)


def verify_spans(query: npt.ArrayLike, begin: npt.ArrayLike, end: npt.ArrayLike, length: int, *,
                 start: int = 0, layers: Union[str, int, None] = None) -> Report:
    """The same question for anybody's kernel: is each eligible key of each query that occurs in
    ``query`` in one of its spans?

    Args:
        query, begin, end: integers [n]: the final spans [begin, end) that a query can choose from,
            its window included as one more. int64 arrays are read where they lie.
        length: L in [1, 2^48]; queries are below it.
        start: the first eligible key.
        layers: as in ``Schedule.verify``; they take the spans of every query.

    Raises ValueError for no spans, and for one that is empty, not causal or older than ``start``.
    Source: ``reference/include/multistep/coverage.hpp``.
    """
    length = integer("length", length, 1, MAX_LENGTH)
    start = integer("start", start, 0, length - 1)
    began = time.monotonic()
    columns = [integers(name, array) for name, array in
               (("query", query), ("begin", begin), ("end", end))]
    if any(column.shape != columns[0].shape or column.ndim != 1 for column in columns):
        shapes = ", ".join(str(column.shape) for column in columns)
        raise ValueError(f"query, begin, end of shapes {shapes}: three of shape (n,)")
    if not len(columns[0]):
        raise ValueError("query, begin, end of 0 spans: at least one")
    if layers is not None:
        through = _core.span_layers(columns[0], columns[1], columns[2], length, start,
                                    layers_wanted(layers), None)
        return report_of(f"{len(columns[0])} spans", length, start, None, through[0], None,
                         time.monotonic() - began, layers=through[1:])
    found = _core.verify_spans(columns[0], columns[1], columns[2], length, start)
    return report_of(f"{len(columns[0])} spans", length, start, None, found, None,
                     time.monotonic() - began)
