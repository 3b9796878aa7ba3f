"""Exponents and fixed costs fitted to times and counts. Plain Python.

Exponents are slopes of log(time or work) against log(length), by least squares. Intervals are
bootstrapped: points are drawn with replacement, and each drawn median is moved by what its own
repeats leave open. The draws are seeded: the same results give the same intervals.
"""

from __future__ import annotations

import functools
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .results import CONFIGS, Record

DRAWS = 2000
SEED = 1
VAGUE = 0.25  # 1 + 1/N of N = 2 and N = 4 are so far apart
# From the median to the 80 % quantile of a normal distribution, in standard deviations.
QUANTILE_80 = 0.8416
# Standard error of a median over that of a mean, for normal repeats.
MEDIAN_ERROR = 1.2533


@dataclass(frozen=True)
class Point:
    """A measured value at one length."""

    x: float
    y: float  # the median
    error: float = 0.0  # standard error of log(y): 0 for what is counted
    repeats: tuple[float, ...] = ()  # resampled instead, where they are known


@dataclass(frozen=True)
class Fit:
    """y = exp(intercept) * x^exponent, over the range of x."""

    exponent: float
    low: float  # 95 % interval
    high: float
    intercept: float
    residual: float  # the largest |log(y) - log(fit)|
    points: int
    first: float  # the range of x
    last: float

    def __call__(self, x: float) -> float:
        return math.exp(self.intercept) * x**self.exponent

    def holds(self, exponent: float) -> bool:
        """Whether the interval has this exponent in it."""
        return self.low <= exponent <= self.high

    @property
    def vague(self) -> bool:
        """An interval that would hold the exponents of neighbouring N alike."""
        return self.high - self.low > VAGUE


@dataclass(frozen=True)
class FixedCost:
    """y = fixed + scale * x^growth with the growth given."""

    fixed: float
    scale: float
    residual: float  # the largest |log(y) - log(fit)|

    def share(self, y: float) -> float:
        """Of a value y, how much is fixed."""
        return min(1.0, self.fixed / y)


def exponent_text(fit: Fit) -> str:
    """0.312 [0.290, 0.351]."""
    return f"{fit.exponent:.3f} [{fit.low:.3f}, {fit.high:.3f}]"


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept by least squares."""
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / spread
    return slope, mean_y - slope * mean_x


def fit_power(points: Sequence[Point], draws: int = DRAWS, seed: int = SEED) -> Fit | None:
    """The exponent and its interval; None with fewer than three lengths."""
    if len({point.x for point in points}) < 3:
        return None
    return _fit(tuple(sorted(points, key=lambda point: point.x)), draws, seed)


@functools.cache  # captions and drawings ask for the same fits
def _fit(points: tuple[Point, ...], draws: int, seed: int) -> Fit:
    x = [math.log(point.x) for point in points]
    y = [math.log(point.y) for point in points]
    slope, intercept = line(x, y)
    generator = random.Random(seed)
    slopes = []
    while len(slopes) < draws:
        chosen = [generator.randrange(len(points)) for _ in points]
        if len({x[i] for i in chosen}) < 3:  # two points fit any line
            continue
        drawn = []
        for i in chosen:
            point = points[i]
            if point.repeats:
                again = generator.choices(point.repeats, k=len(point.repeats))
                drawn.append(math.log(statistics.median(again)))
            else:
                drawn.append(y[i] + (generator.gauss(0, point.error) if point.error else 0))
        slopes.append(line([x[i] for i in chosen], drawn)[0])
    slopes.sort()
    low, high = slopes[int(0.025 * draws)], slopes[min(draws - 1, int(0.975 * draws))]
    residual = max(abs(b - slope * a - intercept) for a, b in zip(x, y))
    return Fit(slope, low, high, intercept, residual, len(points), points[0].x, points[-1].x)


def local_slopes(points: Sequence[Point], apart: float = 1) -> list[tuple[float, float]]:
    """Between each point and the next that is `apart` times as far: the middle (geometric), and the
    slope there."""
    points = sorted(points, key=lambda point: point.x)
    slopes = []
    for at, a in enumerate(points):
        b = next((p for p in points[at + 1:] if p.x >= apart * a.x), None)
        if b is not None:
            slopes.append((math.sqrt(a.x * b.x), math.log(b.y / a.y) / math.log(b.x / a.x)))
    return slopes


def fit_fixed(points: Sequence[Point], growth: float) -> FixedCost | None:
    """What does not grow beside what grows as it should, by relative least squares."""
    if len({point.x for point in points}) < 3:
        return None
    # minimise the sum of (fixed / y + scale * x^growth / y - 1)^2
    u = [1 / point.y for point in points]
    v = [point.x**growth / point.y for point in points]
    uu, uv, vv = (sum(a * b for a, b in zip(p, q)) for p, q in ((u, u), (u, v), (v, v)))
    determinant = uu * vv - uv * uv
    fixed = (sum(u) * vv - sum(v) * uv) / determinant
    scale = (sum(v) * uu - sum(u) * uv) / determinant
    if fixed < 0:  # grows faster than it should: nothing is fixed
        fixed, scale = 0.0, sum(v) / vv
    if scale < 0:
        fixed, scale = sum(u) / uu, 0.0
    residual = max(abs(math.log((fixed + scale * p.x**growth) / p.y)) for p in points)
    return FixedCost(fixed, scale, residual)


def point_of(record: Record, per_query: bool) -> Point:
    """A time in seconds against the keys that a query sees; its error from the quantiles."""
    spread = math.log(record.high / record.low) / (2 * QUANTILE_80)
    queries = record.queries if per_query else 1
    return Point(record.context if per_query else record.length, record.median / queries,
                 MEDIAN_ERROR * spread / math.sqrt(record.repeats))


def timed(records: Sequence[Record], phase: str, config: str, l2: str = "cold",
          stage: str = "attention") -> list[Point]:
    """A configuration's times by length. Decoding and chunks: of a query; whole: of a sequence.

    Of chunks of a prefill only those count that are the end of a longer context, as for the others
    the length is that of the chunk, and of these the largest: fewer queries share fewer keys.
    """
    found = [one for one in records
             if (one.phase, one.config, one.l2, one.stage) == (phase, config, l2, stage)]
    if phase == "prefill":
        found = [record for record in found if record.queries < record.length]
        largest = max((record.queries for record in found), default=0)
        found = [record for record in found if record.queries == largest]
    return sorted((point_of(record, phase != "whole") for record in found),
                  key=lambda point: point.x)


def growth(config: str, phase: str) -> Fraction:
    """The exponent that the schedule's work has: of a query, or of a whole sequence."""
    return CONFIGS[config].growth + (1 if phase == "whole" else 0)
