"""Judging anybody's kernel by the oracle (SPEC 8)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from .. import _core, oracle
from .._arrays import integers
from .._problem import Options, arguments, each, filled, takes_options
from .._rational import integer
from ..schedule import Schedule
from . import gradients as of_gradients
from .candidates import submitted, to_host
from .reports import Comparison, Stage

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_options
def compare(candidate: Union[Callable[..., Any], Any], q: Any, k: Any, v: Any,
            routing_queries: Any, schedule: Schedule, *, query_offset: int = 0, length: Any = None,
            rows: Union[str, int, npt.ArrayLike] = "auto", seed: int = 1,
            gradients: of_gradients.Backward = None, **options: Unpack[Options]) -> Comparison:
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
        seed: of the random rows, and of what gradients are judged by.
        gradients: a callable, called after the candidate as ``gradients(output_gradient)`` with
            random derivatives of a loss by the output, in q's type; it returns those by what the
            candidate was given: a mapping or an object with some of q, k, v, routing_queries (as
            they are given) and search_keys, of which k has a part where k is searched. Or
            "autograd": the candidate's output is a tensor, and PyTorch is asked. They are judged
            beside the values: those by queries in the same rows, those by keys in as many keys, at
            the candidate's selection where spans, scores and anchors were handed in, else at the
            oracle's. What nobody looked at has gradient 0, exactly.

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
    named = arguments("compare", q, k, v, routing_queries, schedule, options,
                      query_offset=query_offset, length=length)
    here = each(lambda _, array: to_host(array), named)
    given = oracle.problem(*here._replace(length=to_host(length), start=to_host(named.start)))
    called = of_gradients.Called(candidate, [])
    if callable(candidate):  # which may write to what it gets
        called = of_gradients.call(candidate, named, routing_queries, gradients)
    results = called.results
    sizes = given.sizes
    schedule = schedule.with_top_k(named.top_k)
    handed_in = submitted(results, sizes, schedule)
    total = sizes.batch * sizes.heads * sizes.queries
    sample = _sample(rows, given, total, seed)
    flat = {name: None if array is None else array.reshape(total, *array.shape[3:])
            for name, array in handed_in.items()}
    found, table = _core.judge(given.inputs, sample, given.storage,
                               filled(_core.Results(), **flat),
                               of_gradients.judged(gradients, called, named, given, seed), seed)
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
                      f"{schedule.describe()}, top_k {schedule.top_k}", shape, table,
                      report.get("keys", 0), report.get("keys_of", 0))


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
