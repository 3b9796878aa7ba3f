"""Judging anybody's kernel by the oracle (SPEC 8)."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _core, oracle
from ._arrays import Sizes, converted, integers, is_tensor, on_device, require_memory
from ._rational import integer
from .schedule import Schedule

NAMES = ("spans", "scores", "anchors", "span_outputs", "lse", "output")
"""What a candidate may hand in."""

_NEEDS = {"search": "spans", "span attention": "spans, span_outputs", "span lse": "spans, lse",
          "combination": "spans, span_outputs, output", "output": "output"}


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage, judged on the input that it was given."""

    name: str
    passed: bool
    worst: Optional[dict[str, int]]
    """batch, head, query (position), and for values slot and dim, of the largest error or regret;
    None where there is none."""
    fields: dict[str, Any]
    """Errors and limits, as the JSON of ``multistep compare`` has them."""

    def __bool__(self) -> bool:
        return self.passed

    def to_dict(self) -> dict[str, Any]:
        return {"stage": self.name, "pass": self.passed, **self.fields, "worst": self.worst}

    def line(self) -> str:
        """The stage's row of the report's table."""
        values = "max_error" in self.fields
        worst = self.fields["max_error" if values else "score_error"]
        mean = self.fields["mean_error" if values else "mean_score_error"]
        limits = [f"{self.fields[name]:.3g}" if values else other
                  for name, other in (("max_limit", "1 bound"), ("mean_limit", "-"))]
        place = "-"
        if self.worst is not None:
            place = " ".join(f"{key} {value}" for key, value in self.worst.items())
        return (f"{self.name:15} {worst:>9.3g} {limits[0]:>9} {mean:>9.3g} {limits[1]:>9} "
                f"{self.fields['nans']:4} {self.fields['infs']:4}  "
                f"{'pass' if self.passed else 'FAIL'}  {place}")

    def notes(self) -> list[str]:
        """What is wrong besides the errors, and the regrets."""
        lines = []
        bad = self.fields.get("not_finite_in_all_rows", 0)
        if bad:
            lines.append(f"  {self.name}: {bad} values of all rows are NaN or infinite")
        heads = self.fields.get("wrong_heads", 0)
        if heads:
            lines.append(f"  {self.name}: {heads} heads are off by their own limits")
        if "histogram" in self.fields:
            bins = "; ".join(f"{name}: {count}" for name, count in self.fields["histogram"].items())
            lines.append(f"  {self.name}: rows by regret in bounds; {bins}")
            wrong = self.fields["wrong"]
            lines += [f"    {count} {what}" for what, count in wrong.items() if count]
        return lines


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The report of ``compare``; True where every judged stage passed, one at least was, and no
    more than half of the rows are undecided."""

    stages: tuple[Stage, ...]
    not_supplied: tuple[str, ...]
    """Stages that the candidate gave nothing to judge by: never passed."""
    end_to_end: Optional[dict[str, float]]
    """max_error and mean_error of the output against the oracle's own; reported, not judged."""
    rows: int
    rows_of: int
    undecided: int
    """Rows whose output is not judged: their selection was not told and hangs on rounding, or their
    scores were not and the gates do."""
    schedule: str
    shape: str
    window: str = "joined"
    """What span_outputs and lse were said to hold."""

    @property
    def too_few(self) -> bool:
        """Are more than half of the rows undecided?"""
        return 2 * self.undecided > self.rows

    @property
    def passed(self) -> bool:
        return bool(self.stages) and all(self.stages) and not self.too_few

    @property
    def verdict(self) -> str:
        if not self.passed:
            if not all(self.stages):
                return "FAIL"
            return "TOO FEW JUDGED" if self.stages else "NOTHING JUDGED"
        missing = len(self.not_supplied)
        return f"PASS, {missing} stages not supplied" if missing else "PASS"

    def __bool__(self) -> bool:
        return self.passed

    def stage(self, name: str) -> Stage:
        """The stage of this name. Raises KeyError where it was not judged."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"{name}: not judged; {', '.join(s.name for s in self.stages)} were")

    def to_dict(self) -> dict[str, Any]:
        return {"pass": self.passed, "verdict": self.verdict, "schedule": self.schedule,
                "shape": self.shape, "rows": self.rows, "rows_of": self.rows_of,
                "undecided": self.undecided,
                "stages": [stage.to_dict() for stage in self.stages],
                "not_supplied": list(self.not_supplied), "end_to_end": self.end_to_end}

    def to_json(self, indent: Optional[int] = 2) -> str:
        """JSON, with null for what is no number."""
        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(one) for key, one in value.items()}
            if isinstance(value, list):
                return [plain(one) for one in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return json.dumps(plain(self.to_dict()), indent=indent)

    def __repr__(self) -> str:
        lines = [f"schedule  {self.schedule}",
                 f"shape     {self.shape}; {self.rows} of {self.rows_of} rows compared", "",
                 f"{'stage':15} {'worst':>9} {'limit':>9} {'mean':>9} {'limit':>9} {'NaN':>4} "
                 f"{'Inf':>4}        worst at"]
        lines += [stage.line() for stage in self.stages]
        for name in self.not_supplied:
            lse = ", lse" if name == "combination" and self.window == "apart" else ""
            lines.append(f"{name:15} not supplied (needs {_NEEDS[name]}{lse})")
        if self.end_to_end is not None:
            lines.append(f"{'end to end':15} {self.end_to_end['max_error']:>9.3g} {'-':>9} "
                         f"{self.end_to_end['mean_error']:>9.3g}  (reported, not judged)")
        for stage in self.stages:
            lines += stage.notes()
        if self.undecided:
            lines.append(f"  output: {self.undecided} rows not judged, what is not told of their "
                         "selection hangs on rounding; supply spans and scores")
        return "\n".join([*lines, "", self.verdict])


def compare(candidate: Union[Callable[..., Any], Any], q: Any, k: Any, v: Any,
            routing_queries: Any, schedule: Schedule, *, top_k: Optional[int] = None,
            softmax_scale: Optional[float] = None, search_scale: float = 1.0,
            query_offset: int = 0, start: Any = None, search_keys: Any = None,
            rows: Union[str, int, npt.ArrayLike] = "auto", window: str = "joined",
            seed: int = 1) -> Comparison:
    """Judges a kernel's results on these inputs by the oracle, each stage on its own input.

    Args:
        candidate: a callable, called as ``candidate(q, k, v, routing_queries)`` with copies
            of the arguments as they are here (those in main memory), or results already computed.
            Results are a mapping, a dataclass, a named tuple or any object with some of these (a
            bare array is the output):

            - spans [batch, num_heads, L_q, top_k, 2]: final spans, half-open, best first; [0, 0)
              in slots without a path. Integers.
            - scores [.., top_k]: their path scores, -inf without a path. Without them the oracle's
              are taken, and the order of the spans is not judged; what their rounding may do to the
              gates is not held against a row, and where that is much the row is undecided.
            - anchors [.., top_k, N - 1]: the keys along the paths, -1 without one; where spans
              alone leave open which path was taken.
            - span_outputs [.., top_k, head_dim], lse [.., top_k]: attention to every span.
            - output [batch, num_heads, L_q, head_dim].
        q, k, v, routing_queries, schedule, top_k, softmax_scale, search_scale, query_offset, start,
            search_keys: as in ``attention``; CUDA tensors are copied to main memory.
        rows: which query rows are judged: "all", how many (edges first, then seeded random ones),
            "auto" (all up to 4096, else 1024), or indices into [batch * num_heads * L_q].
        window: "joined" where span_outputs and lse are of the span united with the window (SPEC 4),
            "apart" where they leave the window's keys to the combination, as the kernels here do.
        seed: of the random rows.

    The search is judged by regret: every chosen path must be within the rounding bound of the k-th
    best, whichever way near-ties fall. Values may err twice as much as a plain implementation in
    the storage type of q with float32 sums, plus a floor, over all rows and over those of each head
    (there with an allowance for few values). The output is judged on the spans and scores
    that were handed in; alone, on the rows whose selection no rounding can change.

    Raises ValueError where nothing was handed in that can be judged, or an array has a wrong shape.
    Source: ``reference/include/multistep/compare.hpp``, SPEC 8.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    if window not in ("joined", "apart"):
        raise ValueError(f"window {window!r}: joined or apart")
    schedule = schedule.with_top_k(top_k)
    options: dict[str, Any] = {"softmax_scale": softmax_scale, "search_scale": search_scale,
               "query_offset": query_offset}
    given = oracle.problem(_to_host(q), _to_host(k), _to_host(v), _to_host_list(routing_queries),
                           schedule, start=_to_host(start), search_keys=_to_host(search_keys),
                           **options)
    results = candidate
    if callable(candidate):  # which may write to what it gets
        results = candidate(_copied(q), _copied(k), _copied(v), _copied(routing_queries))
    submitted = _submitted(results, given.sizes, schedule)
    sizes = given.sizes
    total = sizes.batch * sizes.heads * sizes.queries
    sample = _sample(rows, sizes, seed)
    if not len(sample):
        raise ValueError(f"rows {rows!r}: none to compare")

    narrow = given
    if given.storage == "float64":  # the yardstick is in float32
        single = {name: None if given.arrays[name] is None else
                  given.arrays[name].astype(np.float32) for name in ("q", "k", "v", "search_keys")}
        levels = [level.astype(np.float32) for level in given.arrays["routing"]]
        narrow = oracle.problem(single["q"], single["k"], single["v"], levels, schedule,
                                start=given.arrays["start"], search_keys=single["search_keys"],
                                **options)
    flat = {name: None if array is None else
            np.ascontiguousarray(array.reshape(total, *array.shape[3:])[sample])
            for name, array in submitted.items()}
    found = _core.judge(given.inputs, narrow.inputs, _core.Submission(
        sample, flat["spans"], flat["scores"], flat["anchors"], flat["span_outputs"], flat["lse"],
        flat["output"], given.storage, window == "apart"))
    return dataclasses.replace(_report(found, submitted, sample, given, schedule), window=window)


def _to_host(value: Any) -> Any:
    if is_tensor(value):
        return value.detach().cpu()
    if on_device(value):
        import torch
        import torch.utils.dlpack

        return torch.utils.dlpack.from_dlpack(value).cpu()
    return value


def _copied(value: Any) -> Any:
    """An array in main memory of its own; others, which the oracle has copied, as they are."""
    if isinstance(value, (list, tuple)):
        return type(value)([_copied(one) for one in value])
    if on_device(value) or not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        return value
    size = value.size if isinstance(value, np.ndarray) else math.prod(value.shape)
    require_memory(f"array of shape {tuple(value.shape)}, copied", size * value.dtype.itemsize)
    if is_tensor(value):
        return value.clone()
    return value.copy(order="K") if isinstance(value, np.ndarray) else copy.deepcopy(value)


def _to_host_list(values: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return [_to_host(value) for value in values]
    return _to_host(values)


def _fields(results: Any) -> dict[str, Any]:
    """What the candidate handed in, by name."""
    if isinstance(results, Mapping):
        unknown = [name for name in results if name not in NAMES]
        if unknown:
            raise ValueError(f"candidate's {unknown[0]!r}: {', '.join(NAMES)} are judged")
        found = dict(results)
    elif isinstance(results, np.ndarray) or hasattr(results, "__dlpack__"):
        found = {"output": results}
    else:
        found = {name: getattr(results, name, None) for name in NAMES}
    return {name: found.get(name) for name in NAMES}


def _submitted(results: Any, sizes: Sizes, schedule: Schedule) -> dict[str, Any]:
    found = _fields(results)
    if all(value is None for value in found.values()):
        raise ValueError(f"candidate of type {type(results).__name__}: hands in none of "
                         f"{', '.join(NAMES)}")
    if schedule.steps == 1:
        extra = [name for name, value in found.items() if value is not None and name != "output"]
        if extra and found["output"] is None:
            raise ValueError(f"candidate's {extra[0]}: dense attention has an output alone")
        for name in extra:
            found[name] = None
    for name in ("scores", "anchors", "span_outputs", "lse"):
        if found[name] is not None and found["spans"] is None:
            raise ValueError(f"candidate's {name}: cannot be judged without spans")
    rows = (sizes.batch, sizes.heads, sizes.queries)
    k, d = schedule.top_k, sizes.head_dim
    shapes = {"spans": (*rows, k, 2), "scores": (*rows, k),
              "anchors": (*rows, k, schedule.steps - 1),
              "span_outputs": (*rows, k, d), "lse": (*rows, k), "output": (*rows, d)}
    arrays: dict[str, Any] = {}
    for name, value in found.items():
        if value is None:
            arrays[name] = None
            continue
        value = _to_host(value)
        label = f"candidate's {name}"
        array = (integers(label, value) if name in ("spans", "anchors")
                 else converted(label, value).astype(np.float64, copy=False))
        if array.shape != shapes[name]:
            raise ValueError(f"{label} of shape {array.shape}: {shapes[name]} here")
        arrays[name] = array
    return arrays


def _sample(rows: Any, sizes: Sizes, seed: int) -> npt.NDArray[np.int64]:
    """Indices of the rows to judge: the edges of every kind, then random ones."""
    total = sizes.batch * sizes.heads * sizes.queries
    seed = integer("seed", seed, 0, 2**63 - 1)
    if isinstance(rows, str):
        if rows not in ("auto", "all"):
            raise ValueError(f"rows {rows!r}: auto, all, how many, or indices")
        count = total if rows == "all" or total <= 4096 else 1024
    elif np.ndim(rows) == 0:
        count = min(integer("rows", rows, 1, 2**48), total)
    else:
        chosen = integers("rows", rows)
        if chosen.ndim != 1 or (chosen.size and
                                not (0 <= chosen.min() and chosen.max() < total)):
            raise ValueError(f"rows of shape {chosen.shape}: indices in [0, {total})")
        return np.unique(chosen)
    if count >= total:
        return np.arange(total, dtype=np.int64)
    last = sizes.queries - 1
    edges = [head * sizes.queries + i for i in (last, 0, last // 2)
             for head in dict.fromkeys((0, sizes.batch * sizes.heads - 1, sizes.heads - 1))]
    picked = list(dict.fromkeys(edges))[:count]
    draws = np.random.default_rng(seed).permutation(total)[: 2 * count] if total < 2**24 else \
        np.random.default_rng(seed).integers(0, total, 4 * count)
    picked = list(dict.fromkeys([*picked, *(int(row) for row in draws)]))[:count]
    return np.sort(np.array(picked, np.int64))


def _not_finite(submitted: dict[str, Any]) -> dict[str, int]:
    """By stage, values of all rows, sampled or not, that are NaN or infinite; a score or a
    log-sum-exp may be infinite. Slots without a path may hold any partial result."""
    spans, scores = submitted["spans"], submitted["scores"]
    counts = {}
    if submitted["output"] is not None:
        bad = int(np.count_nonzero(~np.isfinite(submitted["output"])))
        counts = {"combination": bad, "output": bad}
    if scores is not None:
        counts["search"] = int(np.count_nonzero(np.isnan(scores)))
    if spans is not None:
        used = spans[..., 1] > spans[..., 0]
        if submitted["span_outputs"] is not None:
            counts["span attention"] = int(np.count_nonzero(
                ~np.isfinite(submitted["span_outputs"][used])))
        if submitted["lse"] is not None:
            counts["span lse"] = int(np.count_nonzero(np.isnan(submitted["lse"][used])))
    return counts


def _report(found: dict[str, Any], submitted: dict[str, Any], sample: npt.NDArray[np.int64],
            given: oracle.Problem, schedule: Schedule) -> Comparison:
    sizes = given.sizes
    k, d = schedule.top_k, sizes.head_dim
    offset = given.inputs.query_offset
    undecided = int(found["undecided"])
    widths = {"span attention": (k, d), "span lse": (k, 1), "combination": (1, d),
              "output": (1, d)}

    def place(s: int) -> dict[str, int]:
        row = int(sample[s])
        head = row // sizes.queries
        return {"batch": head // sizes.heads, "head": head % sizes.heads,
                "query": offset + row % sizes.queries}

    bad_values = _not_finite(submitted)
    stages = []
    for name in _NEEDS:
        if name not in found or (name in ("combination", "output") and undecided == len(sample)):
            continue
        fields = dict(found[name])
        passed = bool(fields.pop("passed"))
        worst = int(fields.pop("worst"))
        where = None
        if name == "search":
            where = place(worst) if worst >= 0 else None
        else:
            slots, width = widths[name]
            if worst >= 0:
                where = place(worst // (slots * width))
                where["slot"], where["dim"] = worst // width % slots, worst % width
                if slots == 1:
                    del where["slot"]
                if width == 1:
                    del where["dim"]
        if name in bad_values:
            fields["not_finite_in_all_rows"] = bad = bad_values[name]
            passed = passed and bad == 0
        stages.append(Stage(name, passed, where, fields))
    judged = {stage.name for stage in stages}
    absent = [name for name in _NEEDS if name not in judged
              and not (name in found and undecided) and (schedule.steps > 1 or name == "output")]
    end = found.get("end to end")
    shape = (f"batch {sizes.batch}, {sizes.heads} heads over {sizes.kv_heads}, {sizes.queries} "
             f"queries, {sizes.keys} keys, head_dim {d}, {given.storage}")
    return Comparison(tuple(stages), tuple(absent),
                      None if end is None else {"max_error": end["max_error"],
                                                "mean_error": end["mean_error"]},
                      len(sample), sizes.batch * sizes.heads * sizes.queries, undecided,
                      f"{schedule.describe()}, top_k {k}", shape)
