"""Captions of schedules in rounded arithmetic and of needles: see captions.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from captions import Caption, Table
from results import CONFIGS, Results, size


def audits(results: Results) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Wrong stripes, and what they exclude; exact arithmetic is not among the methods."""
    stripes = results.listed("cpu/audit.json", "exponents", (
        "exponent", "method", "limit", "stripes", "wrong", "share", "largest_error"))
    coverage = results.listed("cpu/audit.json", "coverage", (
        "schedule", "method", "length", "covered", "excluded_pairs", "first_excluded", "harmless"))
    return stripes, coverage


def harmless_names(coverage: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Schedules that no rounding hurts, and those that some rounding makes exclude a key.

    A schedule that excludes keys in exact arithmetic too is in neither.
    """
    broken = {one["schedule"] for one in coverage if one["method"] == "exact"
              and not one["covered"]}
    names = [one["schedule"] for one in coverage if one["schedule"] not in broken]
    hurt = {one["schedule"] for one in coverage if not one["harmless"]}
    order = list(dict.fromkeys(names))
    return [n for n in order if n not in hurt], [n for n in order if n in hurt]


def hurt_texts(coverage: Sequence[dict[str, Any]], hurt: Sequence[str]) -> list[str]:
    """Which arithmetics hurt which schedules: those that the same ones hurt together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in hurt:
        methods = dict.fromkeys(one["method"] for one in coverage
                                if one["schedule"] == name and not one["harmless"])
        groups.setdefault(tuple(methods), []).append(name)
    return [f"{', '.join(names)} (by {', '.join(methods)})" for methods, names in groups.items()]


def audit(results: Results) -> Caption:
    """Stripes in rounded arithmetic."""
    stripes, coverage = audits(results)
    limit = max((one["limit"] for one in stripes), default=0)
    rows = [(one["exponent"], one["method"], size(one["limit"]), str(one["stripes"]),
             str(one["wrong"]), f"{one['share']:.1%}", str(one["largest_error"]))
            for one in stripes if one["wrong"]]
    holes = []
    for one in coverage:
        first = one["first_excluded"]
        if first is not None:
            holes.append((one["schedule"], one["method"], size(one["length"]),
                          str(one["excluded_pairs"]),
                          f"query {first['position']}, key {first['key']}"))
    safe, hurt = harmless_names(coverage)
    # Of those that take the floor: half added first is another function, not a wrong one.
    worst = max((one for one in stripes if one["limit"] == limit and "+ 0.5" not in one["method"]),
                key=lambda one: (one["share"], one["largest_error"]), default=None)
    text = ("Stripes and reaches as programs commonly compute them, each step rounded correctly, "
            "against the exact ones; a GPU's approximate logarithms and exponentials add their own "
            "errors. ")
    brief = ""
    if worst is not None:
        brief = (f"The worst is {worst['method']} at exponent {worst['exponent']}: "
                 f"{worst['wrong']} of {worst['stripes']} stripes up to {size(limit)} are wrong, "
                 f"by up to {worst['largest_error']}. ")
    if safe:
        brief += ("Harmless under all arithmetics here, as the spans reach further than the "
                  "errors: " + "; ".join(safe) + ". ")
    if hurt:
        brief += ("Not harmless, as keys become unreachable whatever a model learns: "
                  + "; ".join(hurt_texts(coverage, hurt)) + ".")
    text += ("A is the paper's schedule with a window of 1023 keys; \"least reach\" has the shortest "
             "spans that reach every key in exact arithmetic; \"+ 0.5\" and \"+ 1e-6\" are added "
             "before the floor, as repairs. The table has the first excluded key of each; white "
             "cells have none wrong.")
    tables = [Table(("schedule", "arithmetic", "length", "pairs excluded", "first"), holes),
              Table(("exponent", "arithmetic", "up to", "stripes", "wrong", "share", "by up to"),
                    rows)]
    return Caption("Schedules in rounded arithmetic", brief.strip(), text,
                   [table for table in tables if table.rows], results.sources)


def config_label(config: str) -> str:
    """A configuration's label, or its own name."""
    return CONFIGS[config].label if config in CONFIGS else config


@dataclass(frozen=True)
class Hunts:
    """Needles looked for by one schedule, or by a baseline of its work."""

    baseline: str  # empty: the schedule itself
    schedule: str
    rule: str
    steps: int
    top_k: int
    length: int
    depth: float  # 0: at the query, 1: the oldest key
    noise: float  # standard deviation on the scores, of which the signal is 1
    trials: int
    found: int
    work: float  # mean, in keys


def hunts(results: Results) -> list[Hunts]:
    """All that was looked for."""
    fields = ("schedule", "rule", "steps", "top_k", "length", "depth", "noise", "trials", "found",
              "work")
    every = [*results.listed("cpu/needles.json", "records", fields),
             *results.listed("cpu/needles.json", "baselines", ("baseline", *fields))]
    return [Hunts(one.get("baseline", ""), *(one[name] for name in fields)) for one in every]


def share_found(chosen: Sequence[Hunts]) -> float:
    """Of all that were planted."""
    return sum(one.found for one in chosen) / sum(one.trials for one in chosen)


def middle_noise(every: Sequence[Hunts]) -> float:
    """The noise that tells schedules apart: 0.3, or the nearest there is."""
    return min({one.noise for one in every}, key=lambda noise: abs(noise - 0.3))


def needles(results: Results) -> Caption:
    """Needles found by noisy routing."""
    every = hunts(results)
    perfect = [one for one in every if not one.baseline and one.noise == 0]
    found, planted = sum(one.found for one in perfect), sum(one.trials for one in perfect)
    longest = max(one.length for one in every)
    noises = sorted({one.noise for one in every})
    rows = []
    for kind in ("", "random", "blocks"):
        for key in dict.fromkeys((one.schedule, one.top_k) for one in every):
            mine = [one for one in every if (one.schedule, one.top_k) == key
                    and one.baseline == kind and one.length == longest]
            if mine:
                shares = (share_found([one for one in mine if one.noise == noise])
                          for noise in noises)
                work = sum(one.work for one in mine) / len(mine)
                rows.append((config_label(key[0]), kind or "schedule", str(key[1]), f"{work:.0f}",
                             *(f"{share:.1%}" for share in shares)))
    noise = middle_noise(every)
    said = []
    for key in dict.fromkeys((one.schedule, one.top_k) for one in every if one.rule == "nstep"):
        if key[1] == 2:
            mine = [one for one in every if (one.schedule, one.top_k) == key
                    and (one.length, one.noise) == (longest, noise)]
            shares = {kind: share_found([one for one in mine if one.baseline == kind])
                      for kind in ("", "random", "blocks")}
            said.append(f"{config_label(key[0])} finds {shares['']:.1%} (random anchors "
                        f"{shares['random']:.1%}, newest blocks {shares['blocks']:.1%})")
    brief = (f"With perfect routing {found} of {planted} needles ({found / planted:.2%}) are "
             f"found: no key is excluded. At noise {noise:g}, {size(longest)} keys and top_k 2: "
             + "; ".join(said) + ".")
    text = ("Needles planted at every depth and length. A candidate scores 1 where its span holds "
            "the needle, else 0, plus normal noise. The baselines "
            "do the same work: as many random anchors with spans of the same length, or as many "
            "of the newest blocks, in the colour of the N whose work it is: with N = 2 these blocks are "
            "the whole context, and find about as much. This is a model of routing alone: it claims nothing about the "
            "quality of any model, nor how noisy a trained router is.")
    return Caption("Routing stress", brief, text,
                   [Table(("schedule", "what", "top_k", "work", *(f"noise {noise:g}"
                                                                  for noise in noises)), rows)],
                   results.sources)
