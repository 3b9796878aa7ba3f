"""Judging anybody's kernel by the oracle (SPEC 8)."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from .. import _core, oracle
from .._arrays import Sizes, converted, integers, is_tensor, on_device, require_memory
from .._rational import integer
from ..schedule import Schedule

NAMES = ("spans", "scores", "anchors", "span_outputs", "lse", "window_output", "window_lse",
         "output")
"""What a candidate may hand in."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage, judged on the input that it was given."""

    name: str
    passed: bool
    worst: Optional[dict[str, int]]
    """batch, head, query (position), and for values slot and dim, of the row that is furthest
    beyond its limits, or nearest to them; None where every value is right."""
    fields: dict[str, Any]
    """Errors and limits, as the JSON of ``multistep compare`` has them; None for what is no
    number."""

    def __bool__(self) -> bool:
        return self.passed

    def to_dict(self) -> dict[str, Any]:
        return {"stage": self.name, "pass": self.passed, **self.fields, "worst": self.worst}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The report of ``compare``; True where every judged stage passed, one at least was, and no
    more than half of the rows are undecided."""

    passed: bool
    verdict: str
    """One line: pass or not, how many rows of how many were looked at, how many are undecided."""
    stages: tuple[Stage, ...]
    not_supplied: tuple[str, ...]
    """Stages that the candidate gave nothing to judge by: never passed."""
    end_to_end: Optional[dict[str, Any]]
    """max_error and mean_error of the output against the oracle's own; reported, not judged."""
    rows: int
    rows_of: int
    undecided: int
    """Rows whose output is bounded alone: their selection was not told and hangs on rounding, or
    their scores were not and the gates do."""
    schedule: str
    shape: str
    table: str
    """The stages, a line each, and what is wrong with them."""

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
        return json.dumps(self.to_dict(), indent=indent)

    def __repr__(self) -> str:
        return (f"schedule  {self.schedule}\nshape     {self.shape}\n\n{self.table}\n"
                f"{self.verdict}")


def compare(candidate: Union[Callable[..., Any], Any], q: Any, k: Any, v: Any,
            routing_queries: Any, schedule: Schedule, *, top_k: Optional[int] = None,
            softmax_scale: Optional[float] = None, search_scale: float = 1.0,
            query_offset: int = 0, length: Any = None, start: Any = None, search_keys: Any = None,
            rows: Union[str, int, npt.ArrayLike] = "auto", seed: int = 1) -> Comparison:
    """Judges a kernel's results on these inputs by the oracle, each stage on its own input.

    Args:
        candidate: a callable, called as ``candidate(q, k, v, routing_queries)`` with the arguments
            as they are here, strides included (those in main memory as copies of all the memory
            that they span, so that what it writes reaches nobody), or results already computed.
            Results are a mapping, a dataclass, a named tuple or any object with some of these (a
            bare array is the output):

            - spans [batch, num_heads, L_q, top_k, 2]: final spans, half-open, best first; [0, 0)
              in slots without a path. Integers.
            - scores [.., top_k]: their path scores, -inf without a path. Without them the oracle's
              are taken, and the order of the spans is not judged; what their rounding may do to the
              gates is not held against a row, and where that is much the row is undecided.
            - anchors [.., top_k, N - 1]: the keys along the paths, -1 without one; where spans
              alone leave open which path was taken.
            - span_outputs [.., top_k, head_dim], lse [.., top_k]: attention to every span, the keys
              of the window left out (SPEC 4).
            - window_output [.., head_dim], window_lse [..]: attention to the window.
            - output [batch, num_heads, L_q, head_dim].
        q, k, v, routing_queries, schedule, top_k, softmax_scale, search_scale, query_offset,
            length, start, search_keys: as in ``attend``; CUDA tensors are copied to main memory.
        rows: which query rows are judged: "all", how many (edges first, then seeded random ones),
            "auto" (as many as take a few seconds, 1024 at least), or indices into
            [batch * num_heads * L_q]. All rows are looked at for NaN, infinities, and outputs
            larger than any value that they could be made of.
        seed: of the random rows.

    The search is judged by regret: every chosen path must be within the rounding bound of the k-th
    best, whichever way near-ties fall. Every row has limits of its own: its values may err twice as
    much as a plain implementation in the storage type of q with float32 sums, plus a floor and what
    rounding may do to these very numbers; the mean error is judged over each head and over all rows
    as well. The output is judged on the spans and scores that were handed in; alone, on the rows
    whose selection no rounding can change. A NaN is judged by where SPEC 7 allows it, and infinite
    logits and scores as ``attention`` takes them: a kernel that gives NaN for them fails, and where
    the oracle's value is NaN any passes.

    Raises ValueError where nothing was handed in that can be judged, or an array has a wrong shape.
    Source: ``reference/include/multistep/judge.hpp``, SPEC 8.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    schedule = schedule.with_top_k(top_k)
    given = oracle.problem(_to_host(q), _to_host(k), _to_host(v), _to_host_list(routing_queries),
                           schedule, length=_to_host(length), start=_to_host(start),
                           search_keys=_to_host(search_keys),
                           softmax_scale=softmax_scale, search_scale=search_scale,
                           query_offset=query_offset)
    results = candidate
    if callable(candidate):  # which may write to what it gets
        results = candidate(_copied(q), _copied(k), _copied(v), _copied(routing_queries))
    sizes = given.sizes
    submitted = _submitted(results, sizes, schedule)
    total = sizes.batch * sizes.heads * sizes.queries
    sample = _sample(rows, given, total, seed)
    flat = {name: None if array is None else array.reshape(total, *array.shape[3:])
            for name, array in submitted.items()}
    found, table = _core.judge(given.inputs, sample, given.storage,
                               _core.Results(*(flat[name] for name in NAMES)))
    shape = (f"batch {sizes.batch}, {sizes.heads} heads over {sizes.kv_heads}, {sizes.queries} "
             f"queries, {sizes.keys} keys, head_dim {sizes.head_dim}, {given.storage}")
    report = json.loads(found)
    stages = []
    for fields in report["stages"]:
        name, passed, worst = (fields.pop(key) for key in ("stage", "pass", "worst"))
        stages.append(Stage(name, passed, worst, fields))
    return Comparison(report["pass"], report["verdict"], tuple(stages),
                      tuple(report["not_supplied"]), report["end_to_end"], report["rows"],
                      report["rows_of"], report["undecided"],
                      f"{schedule.describe()}, top_k {schedule.top_k}", shape, table)


def _to_host(value: Any) -> Any:
    if is_tensor(value):
        return value.detach().cpu()
    if on_device(value):
        import torch
        import torch.utils.dlpack

        return torch.utils.dlpack.from_dlpack(value).cpu()
    return value


def _copied(value: Any) -> Any:
    """An array in main memory of its own, with the strides of ``value``, its alignment, and what
    lies between its elements; others, which the oracle has copied, as they are."""
    if isinstance(value, (list, tuple)):
        return type(value)([_copied(one) for one in value])
    if on_device(value) or not hasattr(value, "__array__") and not hasattr(value, "__dlpack__"):
        return value
    if is_tensor(value):
        return _copied_tensor(value)
    return _copied_array(value) if isinstance(value, np.ndarray) else copy.deepcopy(value)


_ALIGNMENT = 64  # bytes


def _copied_array(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if value.size == 0 or value.dtype.hasobject:
        return value.copy()
    address = value.__array_interface__["data"][0]
    steps = [(size - 1) * stride for size, stride in zip(value.shape, value.strides)]
    below = -sum(step for step in steps if step < 0)
    size = sum(abs(step) for step in steps) + value.itemsize
    require_memory(f"array of shape {value.shape}, copied", size)
    room = np.empty(size + _ALIGNMENT, np.uint8)
    shift = (address - below - room.__array_interface__["data"][0]) % _ALIGNMENT
    ctypes.memmove(room.__array_interface__["data"][0] + shift, address - below, size)
    return np.ndarray(value.shape, value.dtype, room, shift + below, value.strides)


def _copied_tensor(value: Any) -> Any:
    import torch

    if value.layout != torch.strided or value.numel() == 0:
        return value.clone()
    here = value.detach()
    size = sum((n - 1) * stride for n, stride in zip(here.shape, here.stride())) + 1
    require_memory(f"tensor of shape {tuple(here.shape)}, copied", size * here.element_size())
    room = torch.empty(size + _ALIGNMENT // here.element_size(), dtype=here.dtype)
    shift = (here.data_ptr() - room.data_ptr()) % _ALIGNMENT // here.element_size()
    room[shift : shift + size] = torch.as_strided(here, (size,), (1,), here.storage_offset())
    copied = torch.as_strided(room, here.shape, here.stride(), shift)
    return copied.requires_grad_(value.requires_grad)


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
    if schedule.steps == 1:  # which has a window and no spans
        of_spans = [name for name in ("spans", "scores", "anchors", "span_outputs", "lse")
                    if found[name] is not None]
        if of_spans and all(found[name] is None for name in NAMES[5:]):
            raise ValueError(f"candidate's {of_spans[0]}: dense attention has no spans")
        for name in of_spans:
            found[name] = None
    for name in ("scores", "anchors", "span_outputs", "lse"):
        if found[name] is not None and found["spans"] is None:
            raise ValueError(f"candidate's {name}: cannot be judged without spans")
    rows = (sizes.batch, sizes.heads, sizes.queries)
    k, d = schedule.top_k, sizes.head_dim
    shapes = {"spans": (*rows, k, 2), "scores": (*rows, k),
              "anchors": (*rows, k, schedule.steps - 1),
              "span_outputs": (*rows, k, d), "lse": (*rows, k), "window_output": (*rows, d),
              "window_lse": rows, "output": (*rows, d)}
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


def _sample(rows: Any, given: oracle.Problem, total: int, seed: int) -> npt.NDArray[np.int64]:
    """Ascending indices of the rows to judge."""
    seed = integer("seed", seed, 0, 2**63 - 1)
    if total == 0:
        raise ValueError(f"rows {rows!r}: none to compare")
    if isinstance(rows, str):
        if rows not in ("auto", "all"):
            raise ValueError(f"rows {rows!r}: auto, all, how many, or indices")
        return _core.sample_rows(given.inputs, total if rows == "all" else None, seed)
    if np.ndim(rows) == 0:
        return _core.sample_rows(given.inputs, integer("rows", rows, 1, 2**48), seed)
    chosen = integers("rows", rows)
    if chosen.ndim != 1 or not chosen.size or not (0 <= chosen.min() and chosen.max() < total):
        raise ValueError(f"rows of shape {chosen.shape}: indices in [0, {total}), one at least")
    return np.unique(chosen)
