"""The names of the two-step form's authors (SPEC 11), converted at the edge."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any, Optional

import numpy as np

from ._arrays import as_numpy, is_tensor
from ._rational import RationalLike, integer, rational
from .schedule import Schedule

_FACTORS = {"backward_factor": "backward", "forward_factor": "forward",
            "span_power": "span_exponent"}


def from_authors(*, qstart: Any = None, qend: Any = None, **named: Any) -> dict[str, Any]:
    """What the authors call ``Q1``, ``sw_index``, ``qend``, ... under the names used here.

    Returns a dict with, of what was given:
        schedule: from ``sw_index``, ``backward_factor``, ``forward_factor``, ``span_power``, and
            ``inv_search_power_int`` (the exponent of the stripes, in either of its spellings here:
            a rational) or ``search_power`` (one over it). Two steps, the power rule; ``paper``'s
            values for what is missing. Floats are taken by their decimal spelling, as configuration
            files have them: 0.55 is 11/20.
        top_k: ``num_spans``.
        q, routing_queries: ``Q2``, and ``Q1`` in a list.
        query_offset: ``cache_position``, positions that must be consecutive.
        spans: [.., 2], half-open, from ``qstart`` and ``qend``, inclusive ends with -1 for none.

    Raises ValueError or TypeError naming the offender.
    """
    result: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in named.items():
        if name in _FACTORS:
            settings[_FACTORS[name]] = _spelled(name, value)
        elif name == "inv_search_power_int":
            settings["exponent"] = _spelled(name, value)
        elif name == "search_power":
            power = _spelled(name, value)
            if power == 0:
                raise ValueError("search_power 0: a rational in (0, 1]")
            settings.setdefault("exponent", 1 / power)
        elif name == "sw_index":
            settings["window_index"] = integer(name, value, 0, 2**48)
        elif name == "num_spans":
            result["top_k"] = integer(name, value, 1, 64)
        elif name == "Q1":
            result["routing_queries"] = [value]
        elif name == "Q2":
            result["q"] = value
        elif name == "cache_position":
            result["query_offset"] = _offset(value)
        else:
            raise TypeError(f"{name}: not a name of the authors' that is known here")
    if settings:
        if "top_k" in result:
            settings["top_k"] = result["top_k"]
        result["schedule"] = Schedule.preset("paper", **settings)
    if (qstart is None) != (qend is None):
        raise ValueError("qstart, qend: one without the other")
    if qstart is not None:
        result["spans"] = _half_open(qstart, qend)
    return result


def to_authors(schedule: Optional[Schedule] = None, *, spans: Any = None, q: Any = None,
               routing_queries: Any = None, query_offset: Optional[int] = None,
               queries: int = 1) -> dict[str, Any]:
    """The other way: a two-step power schedule, spans, queries and their offset under the authors'
    names. Factors and powers are Fractions. ``cache_position`` is int64 [queries].

    Raises ValueError for a schedule that they have no names for.
    """
    result: dict[str, Any] = {}
    if schedule is not None:
        if schedule.steps != 2 or schedule.rules[0] != "power":
            raise ValueError(f"schedule {schedule.describe()}: the authors' has two steps and the "
                             "power rule")
        result = {"sw_index": schedule.window_index, "num_spans": schedule.top_k,
                  "backward_factor": schedule.backward[0], "forward_factor": schedule.forward[0],
                  "span_power": schedule.span_exponents[0],
                  "search_power": 1 / schedule.exponents[0],
                  "inv_search_power_int": schedule.exponents[0]}
    if spans is not None:
        if spans.shape[-1:] != (2,):
            raise ValueError(f"spans of shape {tuple(spans.shape)}: [.., 2]")
        begin, end = spans[..., 0], spans[..., 1]
        empty = end <= begin
        if is_tensor(spans):
            result["qstart"] = begin.masked_fill(empty, -1)
            result["qend"] = (end - 1).masked_fill(empty, -1)
        else:
            result["qstart"] = np.where(empty, -1, begin)
            result["qend"] = np.where(empty, -1, end - 1)
    if q is not None:
        result["Q2"] = q
    if routing_queries is not None:
        if len(routing_queries) != 1:
            raise ValueError(f"routing_queries {len(routing_queries)}: the authors' have one")
        result["Q1"] = routing_queries[0]
    if query_offset is not None:
        result["cache_position"] = np.arange(query_offset, query_offset + queries, dtype=np.int64)
    return result


def _spelled(name: str, value: RationalLike) -> Fraction:
    return rational(name, Decimal(repr(float(value))) if isinstance(value, float) else value)


def _offset(value: Any) -> int:
    positions = as_numpy("cache_position", value.cpu() if is_tensor(value) else value).reshape(-1)
    if positions.dtype.kind not in "iu" or positions.size == 0:
        raise ValueError(f"cache_position of {positions.size} {positions.dtype}: integers")
    if np.any(np.diff(positions.astype(np.int64)) != 1):
        raise ValueError("cache_position: consecutive positions")
    return integer("cache_position", positions[0], 0, 2**48)


def _half_open(qstart: Any, qend: Any) -> Any:
    if not (is_tensor(qstart) and is_tensor(qend)):
        qstart, qend = (as_numpy(name, value) for name, value in
                        (("qstart", qstart), ("qend", qend)))
    for name, value in (("qstart", qstart), ("qend", qend)):
        whole = (not (value.is_floating_point() or value.is_complex()) and "bool" not in
                 str(value.dtype)) if is_tensor(value) else value.dtype.kind in "iu"
        if not whole:
            raise TypeError(f"{name} of dtype {value.dtype}: integers")
    if tuple(qstart.shape) != tuple(qend.shape):
        raise ValueError(f"qstart, qend of shapes {tuple(qstart.shape)}, {tuple(qend.shape)}: "
                         "two of one shape")
    if is_tensor(qstart):
        import torch

        none = (qstart < 0) | (qend < qstart)
        return torch.stack([qstart.masked_fill(none, 0), (qend + 1).masked_fill(none, 0)], dim=-1)
    begin, last = np.asarray(qstart), np.asarray(qend)
    none = (begin < 0) | (last < begin)
    return np.stack([np.where(none, 0, begin), np.where(none, 0, last + 1)], axis=-1)
