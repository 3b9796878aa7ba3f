"""Captions of the GPU's stages, their floors and their errors: see captions.py."""

from __future__ import annotations

from dataclasses import dataclass

import analysis
from captions import PHASE_NAMES, Caption, Table
from results import CONFIGS, SCHEDULES, Results, duration, size

STAGES = ("search", "span attention", "window, combine")


def stages(results: Results) -> Caption:
    """Where the time goes, against the floors."""
    records = results.records()
    rows = []
    for phase in ("prefill", "decode"):
        for r in records:
            if r.phase != phase or r.l2 != "cold" or (phase == "prefill" and r.stage not in STAGES):
                continue
            floor = analysis.floor_of(r)
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
    peak = analysis.tensor_peak(records[0]) / 1e12 if records else 0
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


@dataclass(frozen=True)
class Judged:
    """One stage of one comparison with the oracle, in the units of its limit."""

    config: str
    length: int
    dtype: str
    inputs: str
    stage: str
    worst: float  # largest error over its limit; of a selection: over its bound
    mean: float | None  # the same of the mean; a selection's has no limit
    regret: float | None  # of a selection: largest, in bounds
    differs: float | None  # share of rows whose chosen set is not the oracle's
    passed: bool


@dataclass(frozen=True)
class EndToEnd:
    """The whole against the oracle that makes its own choices: reported, not judged."""

    config: str
    length: int
    dtype: str
    inputs: str
    worst: float  # absolute; infinite where a value is no number
    mean: float


def ends(results: Results) -> list[EndToEnd]:
    """The end-to-end errors of every comparison."""
    out = []
    for run in results.listed("h100/accuracy.json", "runs", ("schedule", "shape", "end_to_end")):
        shape, whole = run["shape"], run["end_to_end"]
        worst, mean = (float("inf") if whole[name] is None else whole[name]
                       for name in ("max_error", "mean_error"))
        out.append(EndToEnd(SCHEDULES.get(run["schedule"], run["schedule"]), shape["keys"],
                            shape["dtype"], shape["inputs"], worst, mean))
    return out


def end_table(results: Results) -> Table:
    """End-to-end errors by length, storage type and inputs, over the configurations."""
    every = ends(results)
    rows = []
    for key in dict.fromkeys((one.length, one.dtype, one.inputs) for one in every):
        mine = [one for one in every if (one.length, one.dtype, one.inputs) == key]
        top = max(mine, key=lambda one: one.worst)
        rows.append((size(key[0]), *key[1:], f"{top.worst:.3g}", top.config,
                     f"{max(one.mean for one in mine):.3g}"))
    return Table(("length", "type", "inputs", "worst error of the whole", "of", "largest mean"),
                 rows)


JUDGED = ("search", "span attention", "span lse", "window, combine", "attention: output")


def accuracies(results: Results) -> list[Judged]:
    """Every stage of every comparison."""
    out = []
    for run in results.listed("h100/accuracy.json", "runs",
                              ("schedule", "shape", "stages", "pass", "seed")):
        shape = run["shape"]
        config = SCHEDULES.get(run["schedule"], run["schedule"])
        for stage in run["stages"]:
            name = (config, shape["keys"], shape["dtype"], shape["inputs"], stage["stage"])
            if stage["kind"] == "selection":
                rows = stage["rows"]
                out.append(Judged(*name, stage["score_error"], None, stage["regret"],
                                  1 - stage["histogram"]["0"] / rows, stage["pass"]))
            else:
                worst, mean = (stage[f"{which}_error"] / stage[f"{which}_limit"]
                               if stage[f"{which}_error"] else 0.0 for which in ("max", "mean"))
                out.append(Judged(*name, worst, mean, None, None, stage["pass"]))
    return out


def accuracy(results: Results) -> Caption:
    """Errors of the stages relative to their limits."""
    judged = accuracies(results)
    rows = []
    for stage in JUDGED:
        for dtype in ("bf16", "fp16"):
            mine = [one for one in judged if (one.stage, one.dtype) == (stage, dtype)]
            if not mine:
                continue
            top = max(mine, key=lambda one: one.worst)
            means = [one.mean for one in mine if one.mean is not None]
            differs = [one.differs for one in mine if one.differs is not None]
            regrets = [one.regret for one in mine if one.regret is not None]
            rows.append((stage, dtype, f"{top.worst:.3g}",
                         f"{top.config}, {size(top.length)}, {top.inputs}",
                         f"{max(means):.3g}" if means else "–",
                         f"{max(regrets):.3g}" if regrets else "–",
                         f"{sum(differs) / len(differs):.2%}" if differs else "–",
                         f"{sum(one.passed for one in mine)} of {len(mine)}"))
    searched = [one for one in judged if one.stage == "search"]
    passed = sum(one.passed for one in judged)
    brief = (f"{passed} of {len(judged)} comparisons of a stage pass, the composition's choice of "
             "spans among them. ")
    text = ("Errors of each stage on its own input against float64, over the limit derived for it "
            "(twice the error of a plain implementation in the same storage type with float32 "
            "sums, plus a floor; scores: the bound of their rounding), by length, storage type "
            "and inputs, four configurations each; up to 1 passes. The whole, end to end, is "
            "against the oracle's own choices: where near-ties fall the other way it attends to "
            "another span, which is no error of arithmetic; it is reported, not judged. ")
    if searched:
        share = sum(one.differs or 0 for one in searched) / len(searched)
        most = max(one.regret or 0 for one in searched)
        brief += (f"The chosen set differs from the oracle's in {share:.2%} of the rows, where "
                  f"scores nearly tie: the largest regret is {most:.3g} of the bound.")
    return Caption("Accuracy against float64", brief, text.strip(),
                   [Table(("stage", "type", "worst error / limit", "there", "mean error / limit",
                           "largest regret / bound", "sets that differ", "passed"), rows),
                    end_table(results)], results.sources)
