"""What a training step's attention takes, forward and backward, beside PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from ..plot import Caption, Plot, Table
from ..results import CONFIGS, Results, duration, size
from ..style import COLUMN, length_axis, room_for_legend, style

OURS, PYTORCH = "h100/train.json", "h100/sdpa.json"
RIVALS = {"FlashAttention": ("x", "#666666"), "cuDNN": ("+", "#A6A6A6")}
SHOWN = ("dense", "A", "nstep2", "nstep3")  # of the configurations, in the figure


@dataclass(frozen=True)
class Times:
    """Of all queries of a sequence, in seconds."""

    name: str  # a configuration, or one of RIVALS
    length: int
    forward: float
    both: float

    @property
    def ratio(self) -> float:
        """Backward over forward."""
        return self.both / self.forward - 1


def kernel_times(results: Results) -> list[Times]:
    """Of this project's kernels, launched from C++."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for one in results.bench(OURS):
        if one.phase == "train":
            found.setdefault((one.config, one.length), {})[one.stage] = one.median
    return [Times(*key, stages["forward"], stages["forward, backward"])
            for key, stages in found.items()]


def pytorch_records(results: Results) -> list[dict[str, Any]]:
    """What was called from PyTorch: its own attention, and this project's."""
    return results.listed(PYTORCH, "records", ("name", "length", "forward_ms",
                                               "forward_backward_ms", "peak_bytes"))


def rival_times(results: Results) -> list[Times]:
    """Of PyTorch's own attention."""
    return [Times(one["name"], one["length"], one["forward_ms"] * 1e-3,
                  one["forward_backward_ms"] * 1e-3)
            for one in pytorch_records(results) if one["name"] in RIVALS]


def label(name: str) -> str:
    """What is called so."""
    return f"PyTorch's {name}" if name in RIVALS else CONFIGS[name].label


def tables(results: Results) -> list[Table]:
    """Forward and backward together, and backward over forward, by length; then what calls from
    PyTorch take, and their memory."""
    times = {(one.name, one.length): one
             for one in [*kernel_times(results), *rival_times(results)]}
    lengths = sorted({length for _, length in times})

    def cell(one: Times | None) -> str:
        return "–" if one is None else f"{duration(one.both)} ({one.ratio:.1f})"

    rows = [(label(name), *(cell(times.get((name, length))) for length in lengths))
            for name in (*CONFIGS, *RIVALS) if any((name, length) in times for length in lengths)]
    called = {(one["name"], one["length"]): one for one in pytorch_records(results)}
    called_lengths = sorted({length for _, length in called})

    def memory(one: dict[str, Any] | None) -> str:
        return "–" if one is None else (f"{duration(one['forward_backward_ms'] * 1e-3)}, "
                                        f"{one['peak_bytes'] / 2**30:.2g} GiB")

    names = sorted({name for name, _ in called}, key=[*CONFIGS, *RIVALS].index)
    return [Table(("forward and backward (backward / forward)", *map(size, lengths)), rows),
            Table(("called from PyTorch: forward and backward, memory beside inputs",
                   *map(size, called_lengths)),
                  [(label(name), *(memory(called.get((name, length)))
                                   for length in called_lengths)) for name in names])]


def note(results: Results) -> str:
    """What was timed, and how."""
    times = kernel_times(results)
    report = results.bench(OURS)[0].report
    torch = results.read(PYTORCH)
    return (f"All queries of a sequence, {report.heads} heads over {report.kv_heads} of keys, "
            f"head_dim {report.head_dim}, bf16; medians. Dense attention is N = 1 by this "
            f"project's own kernels. PyTorch {torch['torch']} is given keys and values expanded to "
            f"{report.heads} heads, outside what is timed. The forward keeps what the backward "
            "takes, and the backward does no search again: it goes over the spans found, "
            f"{min(one.ratio for one in times):.1f} to {max(one.ratio for one in times):.1f} times "
            "as long as the forward.")


def caption(results: Results) -> Caption:
    """How long, and against PyTorch's fastest."""
    times = kernel_times(results)
    rivals = rival_times(results)
    last = max({one.length for one in times} & {one.length for one in rivals}, default=0)
    best = min((one for one in rivals if one.length == last), key=lambda one: one.both,
               default=None)
    said = [f"{CONFIGS[one.name].label} in {duration(one.both)}"
            + (f", {best.both / one.both:.3g} times as fast" if best else "")
            for name in ("A", "nstep2", "nstep3") for one in times
            if (one.name, one.length) == (name, last)]
    brief = f"Forward and backward at {size(last)}: " + "; ".join(said)
    brief += (f" as {label(best.name)}, which takes {duration(best.both)}." if best else ".")
    return Caption("Training", brief, note(results), tables(results), results.sources)


def look(name: str) -> dict[str, Any]:
    """How it is drawn."""
    if name not in RIVALS:
        return style(name)
    marker, colour = RIVALS[name]
    return {**style("dense"), "marker": marker, "color": colour, "linestyle": "--",
            "markersize": 4.0}


def draw(results: Results) -> Figure:
    """The figure."""
    every = [*kernel_times(results), *rival_times(results)]
    shown = [name for name in (*SHOWN, *RIVALS) if any(one.name == name for one in every)]
    figure = Figure(figsize=(COLUMN, 3.6))
    room_for_legend(figure, 0.42)
    above, under = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
    for name in shown:
        mine = sorted((one for one in every if one.name == name), key=lambda one: one.length)
        lengths = [one.length for one in mine]
        above.plot(lengths, [1e3 * one.both for one in mine], **look(name))
        under.plot(lengths, [one.ratio for one in mine], **look(name))
    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(numticks=8))
    above.yaxis.set_minor_formatter(NullFormatter())
    above.set_ylabel("forward and backward, ms")
    under.set_ylim(0)
    under.set_ylabel("backward / forward")
    length_axis(under, [float(one.length) for one in every if one.name in shown])
    for axes in (above, under):
        axes.grid(True)
    figure.legend([Line2D([], [], **look(name)) for name in shown], list(map(label, shown)), ncol=2,
                  loc="upper center", handlelength=2.2, borderpad=0)
    figure.align_ylabels()
    return figure


PLOT = Plot(needs=(OURS, PYTORCH), caption=caption, draw=draw, place=65,
            picture="h100/training.png",
            alternative="Forward and backward time against length, of this project's kernels and "
            "of PyTorch's; backward over forward.")
