"""What the figures and tables say about the results: fits, crossovers, floors. Plain Python.

Exponents are slopes of log(time or work) against log(length), by least squares. Intervals are
bootstrapped: points are drawn with replacement, and each drawn median is moved by what its own
repeats leave open. The draws are seeded: the same results give the same intervals.
"""

from __future__ import annotations

import functools
import math
import random
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from results import CONFIGS, Record

DRAWS = 2000
SEED = 1
VAGUE = 0.25  # 1 + 1/N of N = 2 and N = 4 are so far apart
# From the median to the 80 % quantile of a normal distribution, in standard deviations.
QUANTILE_80 = 0.8416
# Standard error of a median over that of a mean, for normal repeats.
MEDIAN_ERROR = 1.2533
# Products of 16-bit floats by the tensor cores: FLOP a cycle and multiprocessor.
TENSOR_FLOPS = {80: 2048, 90: 4096}


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


@functools.cache  # captions and figures ask for the same fits
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
    found = [record for record in records
             if (record.phase, record.config, record.l2, record.stage) == (phase, config, l2, stage)]
    if phase == "prefill":
        found = [record for record in found if record.queries < record.length]
        largest = max((record.queries for record in found), default=0)
        found = [record for record in found if record.queries == largest]
    return sorted((point_of(record, phase != "whole") for record in found),
                  key=lambda point: point.x)


def growth(config: str, phase: str) -> Fraction:
    """The exponent that the schedule's work has: of a query, or of a whole sequence."""
    return CONFIGS[config].growth + (1 if phase == "whole" else 0)


@dataclass(frozen=True)
class Crossing:
    """Where one time falls below another as the length grows."""

    length: float | None  # interpolated; None: at none of the lengths measured
    first: float  # the lengths measured
    last: float
    always: bool  # below at every length
    ratio: float  # the other's time over this one's at the last length

    def text(self, written: Callable[[float], str]) -> str:
        """In words, lengths written by a function."""
        if self.always:
            return f"below {written(self.first)}"
        return "beyond " + written(self.last) if self.length is None else written(self.length)


def crossing(ours: Sequence[Point], theirs: Sequence[Point]) -> Crossing | None:
    """The last length at which ours overtakes theirs, between neighbours on a line in logarithms.

    None where fewer than one length is common.
    """
    other = {point.x: point.y for point in theirs}
    gaps = [(point.x, math.log(other[point.x] / point.y)) for point in sorted(
        ours, key=lambda point: point.x) if point.x in other]  # above 0: ours is faster
    if not gaps:
        return None
    length = None
    for (x0, g0), (x1, g1) in zip(gaps, gaps[1:]):
        if g0 <= 0 < g1:
            share = -g0 / (g1 - g0)
            length = math.exp(math.log(x0) + share * math.log(x1 / x0))
    if gaps[-1][1] <= 0:  # whatever it did before, it ends behind
        length = None
    return Crossing(length, gaps[0][0], gaps[-1][0], all(gap > 0 for _, gap in gaps),
                    math.exp(gaps[-1][1]))


@dataclass(frozen=True)
class Floor:
    """The least time that a stage can take, in seconds."""

    products: float  # counted FLOP at the tensor cores' peak
    traffic: float  # bytes that must move at the rate of a device copy

    @property
    def seconds(self) -> float:
        """Both at once, perfectly overlapped."""
        return max(self.products, self.traffic)


def tensor_peak(record: Record) -> float:
    """FLOP a second of 16-bit products, at the clock measured under load."""
    device = record.report.device
    flops = TENSOR_FLOPS.get(int(device["compute_capability"]), TENSOR_FLOPS[90])
    return flops * float(device["multiprocessors"]) * float(device["sm_mhz_measured"]) * 1e6


def stripe_rows(record: Record) -> float:
    """Keys that the first level alone reads, once each: a stripe's anchors move with the queries,
    so over a chunk each touches as many keys as there are queries, or those up to the next."""
    n = record.length
    power = re.search(r"stripes i\^(\d+)(?:/(\d+))?", record.schedule)
    if power is None:  # even: ceil(n^(1/N)) parts
        parts = math.ceil(n ** (1 / record.steps))
        return min(n, parts * min(math.ceil(n / parts), record.queries))
    exponent = int(power[1]) / int(power[2] or 1)
    total, i = 0.0, 1
    while (place := i**exponent) <= n:
        total += min((i + 1) ** exponent - place, record.queries)
        i += 1
    return min(n, total)


def floor_of(record: Record) -> Floor:
    """The floor of a timed stage: every input read once and every output written once.

    Keys that are read: by search, those of its first level; by the spans, those that random choices
    are expected to hit; by the window, the window's and the queries'. In decoding, the rows that
    the record has counted.
    """
    report = record.report
    row = 2.0 * report.head_dim  # bytes
    rows = float(report.heads * record.queries)
    products = record.flops / tensor_peak(record)
    if record.bytes is not None:
        return Floor(products, record.bytes / report.copy_bandwidth)
    pairs = record.flops / (4 * report.head_dim) / report.kv_heads  # of a KV head
    partial = rows * record.top_k * (row + 4 + 8)  # outputs, log-sum-exps and spans
    if record.stage == "search":
        moved = (record.steps - 1) * rows * row + rows * record.top_k * 12
        keys = stripe_rows(record)  # of search keys alone: half of a key and its value
        moved += report.kv_heads * keys * row
    elif record.stage == "span attention":
        hit = record.length * -math.expm1(-pairs / record.length)
        moved = rows * row + partial + 2 * report.kv_heads * hit * row
    elif record.stage == "window, combine":
        window = pairs * report.kv_heads / rows
        near = record.queries + window if window else 0
        moved = 2 * rows * row + partial + rows * record.top_k * 4
        moved += 2 * report.kv_heads * near * row
    else:  # all stages
        moved = (record.steps + 1) * rows * row + 2 * report.kv_heads * record.length * row
    # A copy moves each byte twice, and its rate counts both.
    return Floor(products, moved / report.copy_bandwidth)
