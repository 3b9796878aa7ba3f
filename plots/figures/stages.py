"""Where the time goes, stage by stage, above each stage's floor."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..plot import Caption, Plot, Table
from ..results import BENCHES, CONFIGS, PHASE_NAMES, Record, Results, duration, size
from ..style import PAGE, room_for_legend

STAGES = ("search", "span attention", "window, combine")
COLOURS = {"search": "#0072B2", "span attention": "#E69F00", "window, combine": "#009E73",
           "decode, all": "#CC79A7"}
REST = "#BBBBBB"  # of the whole, what is no stage's
FLOOR = "#000000"
HEIGHT = 0.5  # of a bar, of the place of a configuration
PLACES = 3  # lengths shown
# Products of 16-bit floats by the tensor cores: FLOP a cycle and multiprocessor.
TENSOR_FLOPS = {80: 2048, 90: 4096}


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


def caption(results: Results) -> Caption:
    """Where the time goes, against the floors."""
    records = results.records()
    rows = []
    for phase in ("prefill", "decode"):
        for r in records:
            if r.phase != phase or r.l2 != "cold" or (phase == "prefill" and r.stage not in STAGES):
                continue
            floor = floor_of(r)
            bound = "products" if floor.products > floor.traffic else "bytes"
            rows.append((PHASE_NAMES[phase], CONFIGS[r.config].label, size(r.length),
                         r.stage if phase == "prefill" else "all", duration(r.median),
                         duration(floor.seconds), bound, f"{r.median / floor.seconds:.1f}"))
    said = []
    for config in ("A", "B", "nstep2", "nstep3"):
        chunks = [r for r in records if (r.phase, r.config) == ("prefill", config)]
        lengths = sorted({r.length for r in chunks if r.stage in STAGES})
        if lengths:
            at = lengths[-1]
            times = {r.stage: r.median for r in chunks if r.length == at}
            total = sum(times.get(stage, 0) for stage in STAGES)
            said.append(f"{CONFIGS[config].label} at {size(at)}: " + ", ".join(
                f"{stage} {times[stage] / total:.0%}" for stage in STAGES if stage in times))
    peak = tensor_peak(records[0]) / 1e12 if records else 0
    copy = records[0].report.copy_bandwidth / 1e12 if records else 0
    text = ("Where the time goes: the stages of a prefill chunk, and decoding with a cold L2 "
            "cache, each above its floor. A floor is the larger of two "
            f"times: counted products at the tensor cores' peak ({peak:.0f} TFLOP/s: 4096 FLOP a "
            "cycle and multiprocessor at the measured clock), and bytes at the measured rate of a "
            f"device copy ({copy:.2f} TB/s). It assumes that every input is read once and every "
            "output written once, shared by all that need it, and that nothing waits: what the "
            "cache must deliver again to other queries and heads is free. Of keys, search reads "
            "those of its first level, the spans those that random choices hit.")
    return Caption("Stages against their floors", "A chunk's time: " + "; ".join(said) + ".", text,
                   [Table(("phase", "configuration", "length", "stage", "time", "floor",
                           "floor is", "time / floor"), rows)], results.sources)


def shown_lengths(records: list[Record]) -> list[int]:
    """The shortest context that a chunk is the end of, the longest, and one between."""
    lengths = sorted({r.length for r in records
                      if r.phase == "prefill" and r.queries < r.length and r.config != "dense"})
    if len(lengths) <= PLACES:
        return lengths
    return [lengths[0], lengths[(len(lengths) - 1) // 2 + len(lengths) % 2 - 1], lengths[-1]]


def bar(axes: Axes, place: float, parts: list[tuple[str, float, float]], whole: float,
        unit: float) -> None:
    """A configuration: its stages' times, and below them their floors."""
    at = low = 0.0
    for colour, seconds, floor in parts:
        axes.barh(place, seconds * unit, HEIGHT, left=at * unit, color=colour, linewidth=0)
        axes.barh(place + 0.4, floor * unit, 0.2, left=low * unit, color=colour, linewidth=0.4,
                  edgecolor=FLOOR)
        at += seconds
        low += floor
    if whole > at:
        axes.barh(place, (whole - at) * unit, HEIGHT, left=at * unit, color=REST, linewidth=0)
    ratio = max(whole, at) / low
    axes.text(max(whole, at) * unit, place, f" {ratio:.{0 if ratio >= 100 else 1}f}×",
              va="center", fontsize=6.5)


def panel(axes: Axes, records: list[Record], phase: str, length: int, names: bool) -> None:
    """All configurations at one length."""
    unit = 1e3 if phase == "prefill" else 1e6
    mine = [r for r in records if (r.phase, r.length, r.l2) == (phase, length, "cold")]
    # Dense attention's bar would leave the others no room.
    configs = [config for config in CONFIGS
               if config != "dense" and any(r.config == config for r in mine)]
    for place, config in enumerate(configs):
        stages = {r.stage: r for r in mine if r.config == config}
        whole = stages["attention"]
        parts = [(COLOURS["decode, all"], whole.median, floor_of(whole).seconds)]
        if phase == "prefill":
            shown = [stages[stage] for stage in STAGES if stage in stages]
            parts = [(COLOURS[r.stage], r.median, floor_of(r).seconds) for r in shown]
        bar(axes, place, parts, whole.median, unit)
    axes.set_ylim(len(configs) - 0.3, -0.5)
    axes.set_yticks(range(len(configs)),
                    [CONFIGS[config].label for config in configs] if names else [""] * len(configs))
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.16)
    queries = mine[0].queries
    what = f"chunk of {size(queries)} at {size(length)}" if phase == "prefill" else (
        f"decode at {size(length)}")
    axes.set_title(what)
    axes.set_xlabel("ms" if phase == "prefill" else "µs")
    axes.xaxis.grid(True)


def draw(results: Results) -> Figure:
    """The figure."""
    records = results.records()
    rows = [(phase, [length for length in shown_lengths(records)
                     if any((r.phase, r.length) == (phase, length) for r in records)])
            for phase in ("prefill", "decode")]
    rows = [(phase, lengths) for phase, lengths in rows if lengths]
    figure = Figure(figsize=(PAGE, 0.3 + 2.1 * len(rows)))
    room_for_legend(figure, 0.25)
    across = max(len(lengths) for _, lengths in rows)
    grid = figure.subplots(len(rows), across, squeeze=False)
    for line, (phase, lengths) in zip(grid, rows):
        for column, axes in enumerate(line):
            if column < len(lengths):
                panel(axes, records, phase, lengths[column], column == 0)
            else:
                axes.set_axis_off()
    entries = {**COLOURS, "between stages": REST}
    handles = [Patch(facecolor=colour) for colour in entries.values()]
    handles.append(Patch(facecolor="white", edgecolor=FLOOR, linewidth=0.5))
    figure.legend(handles, [*entries, "thin: floor; ×: time over floors"], ncol=6,
                  loc="upper center", borderpad=0)
    return figure


PLOT = Plot(needs=BENCHES, caption=caption, draw=draw, place=60)
