"""What judging tells: the reports of ``compare`` and ``probe``."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Optional

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage, judged on the input that it was given."""

    name: str
    passed: bool
    worst: Optional[dict[str, int]]
    """batch, head, query (position), and for values slot and dim, of the row that is furthest
    beyond its limits, or nearest to them; None where every value is right. Of gradients by keys:
    KV head and key; by routing queries: level."""
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
    keys: int = 0
    """Keys whose gradients were judged."""
    keys_of: int = 0

    def __bool__(self) -> bool:
        return self.passed

    def stage(self, name: str) -> Stage:
        """The stage of this name. Raises KeyError where it was not judged."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(f"{name}: not judged; {', '.join(s.name for s in self.stages)} were")

    def to_dict(self) -> dict[str, Any]:
        keys = {"keys": self.keys, "keys_of": self.keys_of} if self.keys_of else {}
        return {"pass": self.passed, "verdict": self.verdict, "schedule": self.schedule,
                "shape": self.shape, "rows": self.rows, "rows_of": self.rows_of, **keys,
                "undecided": self.undecided,
                "stages": [stage.to_dict() for stage in self.stages],
                "not_supplied": list(self.not_supplied), "end_to_end": self.end_to_end}

    def to_json(self, indent: Optional[int] = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent)

    def __repr__(self) -> str:
        return (f"schedule  {self.schedule}\nshape     {self.shape}\n\n{self.table}\n"
                f"{self.verdict}")


@dataclasses.dataclass(frozen=True)
class ProbeReport:
    """The report of ``probe``; True where every pair that was tried is reachable and causal."""

    length: int
    pairs: int
    """Pairs of a query and a key that were tried."""
    unreached: npt.NDArray[np.int64]
    """[n, 2]: (query, key) whose value never moved the query's output as it should, in every head,
    dimension and sequence."""
    acausal: npt.NDArray[np.int64]
    """[n, 2]: (query, key) with a key newer than the query, that moved its output: by its value, or
    by its weight alone."""
    unequal: npt.NDArray[np.int64]
    """[n, 2]: (query, key) whose plant moved the output in one sequence of a batch, and not in
    another."""
    not_finite: int
    """Outputs that were NaN or infinite; they count as not moved."""

    def __bool__(self) -> bool:
        pairs = (self.unreached, self.acausal, self.unequal)
        return not any(map(len, pairs)) and self.not_finite == 0

    def __repr__(self) -> str:
        lines = [f"probe        {self.pairs} pairs of a query and a key below {self.length}"]
        if not len(self.unreached):
            lines.append("REACHED      every pair: some plant leads the query to the key")
        else:
            query, key = self.unreached[0]
            lines.append(f"NOT REACHED  {len(self.unreached)} pairs, the first query {query}, key "
                         f"{key}")
        if len(self.acausal):
            query, key = self.acausal[0]
            lines.append(f"NOT CAUSAL   {len(self.acausal)} pairs, the first query {query}, key "
                         f"{key}")
        if len(self.unequal):
            query, key = self.unequal[0]
            lines.append(f"NOT EQUAL    {len(self.unequal)} pairs, which sequences of a batch "
                         f"answer differently, the first query {query}, key {key}")
        if self.not_finite:
            lines.append(f"NOT FINITE   {self.not_finite} outputs")
        return "\n".join(lines)
