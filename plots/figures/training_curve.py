"""Whether training on the kernels follows training on the oracle: the losses of one small model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ..plot import Caption, Plot, Table
from ..results import InputError, Results
from ..style import COLUMN, room_for_legend

FILES = ("cpu/training_curve.json", "h100/training_curve.json")
MEAN = 10  # steps that losses are averaged over, before they are compared
NEAR = 50  # steps each way: right runs fall sooner or later than each other
FACTOR = 2  # as elsewhere: at most twice the error of a plain implementation in the same precision
ROUNDING = 2.0**-9  # to bf16, of a number's size
LOOKS = {"oracle": ("oracle, float64", "#000000", "-"),
         "kernels": ("kernels, bf16", "#D55E00", "-"),
         "control": ("oracle, bf16", "#56B4E9", "-"),
         "fault": ("search that does not learn", "#009E73", ":")}


@dataclass(frozen=True)
class Curves:
    """Losses of the runs, averaged."""

    oracle: list[float]
    kernels: list[float]
    controls: list[list[float]]
    fault: list[float]

    def gaps(self, run: Sequence[float]) -> list[float]:
        """How far a run is from the oracle's, by step."""
        return [abs(a - b) for a, b in zip(run, self.oracle)]

    @property
    def limits(self) -> list[float]:
        """How far one may be: FACTOR times the furthest that a control is NEAR there, or that
        rounding the loss itself to bf16 would be."""
        furthest = [max(gaps) for gaps in zip(*map(self.gaps, self.controls))]
        return [FACTOR * max(ROUNDING * loss, *furthest[max(0, step - NEAR):step + NEAR + 1])
                for step, loss in enumerate(self.oracle)]

    def left(self, run: Sequence[float]) -> int | None:
        """The first step at which a run is further away than that; None: it follows."""
        return next((step for step, (gap, limit) in enumerate(zip(self.gaps(run), self.limits), 1)
                     if not gap <= limit), None)

    @property
    def agreeing(self) -> int:
        """How many controls are within what the others allow."""
        return sum(replace(self, controls=self.controls[:at] + self.controls[at + 1:]).left(run)
                   is None for at, run in enumerate(self.controls))


def averaged(losses: Sequence[float]) -> list[float]:
    """Means over the last MEAN steps, or all where there are fewer."""
    return [sum(losses[max(0, end - MEAN):end]) / min(end, MEAN)
            for end in range(1, len(losses) + 1)]


def curves(results: Results) -> Curves:
    """The runs of both files, which began alike and saw the same."""
    cpu, gpu = map(results.read, FILES)
    for field in ("model", "task", "optimizer", "digests"):
        if cpu[field] != gpu[field]:
            raise InputError(f"{results.folder / FILES[1]}: {field}: not those of {FILES[0]}")
    runs: dict[str, list[list[float]]] = {name: [] for name in LOOKS}
    for name in FILES:
        for one in results.listed(name, "runs", ("run", "losses")):
            runs[one["run"]].append(averaged(one["losses"]))
    return Curves(runs["oracle"][0], runs["kernels"][0], runs["control"], runs["fault"][0])


def followed(found: Curves, run: Sequence[float]) -> str:
    """In words."""
    step = found.left(run)
    return "follows" if step is None else f"is outside from step {step}"


def caption(results: Results) -> Caption:
    """What was trained, how far the curves may lie apart, and whether they do."""
    found = curves(results)
    cpu, gpu = map(results.read, FILES)
    steps, gaps, limits = len(found.oracle), found.gaps(found.kernels), found.limits
    share, at = max((gap / limit, step) for step, (gap, limit) in enumerate(zip(gaps, limits), 1))
    brief = (f"Training on the kernels in bf16 {followed(found, found.kernels)} the oracle's in "
             f"float64 over {steps} steps: from a loss of {found.oracle[0]:.3f} to "
             f"{found.kernels[-1]:.3f} and {found.oracle[-1]:.3f}, never further apart than "
             f"{share:.2f} of the limit that bf16 sets.")
    if found.left(found.kernels) is not None:
        brief = (f"Training on the kernels in bf16 is further from the oracle's in float64 than "
                 f"the limit that bf16 sets, first at step {found.left(found.kernels)} of {steps} and most, "
                 f"{share:.2f} times, at step {at}.")
    model, task = cpu["model"], cpu["task"]
    low, high = task["periods"]
    text = (f"Two blocks of width {model['width']} ({model['num_heads']} heads over "
            f"{model['num_kv_heads']} of keys, head_dim {model['head_dim']}; N = 2 with a window "
            f"and search keys that are learned averages, then N = 3) learn to continue sequences "
            f"of {task['length']} tokens that repeat after {low} to {high - 1}, from one start and "
            f"on the same batches of {task['batch']}. bf16 is autocast, with weights and Adam's "
            f"moments in float32. Losses are means over {MEAN} steps. They may lie apart by "
            f"{FACTOR} times the furthest that {len(found.controls)} runs of the oracle in bf16 "
            f"are from it within {NEAR} steps, one from the same start, the others from starts "
            f"that lie less than their rounding to bf16 away; at least by {FACTOR} times what "
            "rounding the loss would do. Where scores nearly tie, rounding selects another span, "
            "and right runs part for good: most where the loss falls fast, sooner or later by some "
            "steps. So late losses are alike, not equal. Of the oracle's own runs in bf16, each "
            f"held to the others, {found.agreeing} of {len(found.controls)} follow; one in float64 "
            f"whose search does not learn {followed(found, found.fault)}. "
            "Adam hardly notices a gradient that is wrong by a factor alone: "
            "`multistep compare --gradients` does.")
    rows = [(name, f"{run[0]:.4f}", *(f"{run[step * steps // 4 - 1]:.4f}" for step in (1, 2, 3, 4)),
             f"{max(found.gaps(run)):.3g}", followed(found, run))
            for name, run in [("kernels, bf16", found.kernels),
                              *(("oracle, bf16", run) for run in found.controls),
                              ("search that does not learn", found.fault)]]
    rows.insert(0, ("oracle, float64", f"{found.oracle[0]:.4f}", *(
        f"{found.oracle[step * steps // 4 - 1]:.4f}" for step in (1, 2, 3, 4)), "–", "–"))
    table = Table(("run", "loss at step 1", *(f"at {step * steps // 4}" for step in (1, 2, 3, 4)),
                   "furthest", "within the limit"), rows)
    kernels = sorted({name for layer in gpu["kernels"] or () for name in layer})
    if kernels:
        text += f" Kernels of the forward passes: {', '.join(kernels)}."
    return Caption("Training follows the oracle", brief, text, [table], results.sources)


def draw(results: Results) -> Figure:
    """The figure."""
    found = curves(results)
    steps, limits = range(1, len(found.oracle) + 1), found.limits
    figure = Figure(figsize=(COLUMN, 3.6))
    room_for_legend(figure, 0.4)
    above, under = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
    above.fill_between(steps, [max(0, loss - limit) for loss, limit in zip(found.oracle, limits)],
                       [loss + limit for loss, limit in zip(found.oracle, limits)],
                       color="#DDDDDD", linewidth=0, label="allowed")
    runs = [("fault", found.fault), *(("control", run) for run in found.controls),
            ("oracle", found.oracle), ("kernels", found.kernels)]
    shown = set()
    for name, run in runs:
        label, colour, line = LOOKS[name]
        above.plot(steps, run, color=colour, linestyle=line,
                   linewidth=0.5 if name == "control" else 0.9,
                   label=None if name in shown else label)
        shown.add(name)
        if name != "oracle":
            under.plot(steps, found.gaps(run), color=colour, linestyle=line,
                       linewidth=0.5 if name == "control" else 0.9)
    under.plot(steps, limits, color="#888888", linewidth=1.2, zorder=1)
    above.set_ylim(0)
    above.set_ylabel("loss")
    under.set_yscale("log")
    under.yaxis.set_major_locator(LogLocator(numticks=6))
    under.yaxis.set_minor_formatter(NullFormatter())
    under.set_ylabel("from the oracle's")
    under.set_xlabel("step")
    for axes in (above, under):
        axes.grid(True)
    figure.legend(*above.get_legend_handles_labels(), ncol=2, loc="upper center", borderpad=0)
    figure.align_ylabels()
    return figure


PLOT = Plot(needs=FILES, caption=caption, draw=draw, place=85, picture="h100/training_curve.png",
            alternative="Losses of one small model, trained on the oracle in float64 and on the "
            "kernels in bf16; how far apart they are and may be.")
