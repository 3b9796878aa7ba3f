"""Reads what figures and tables are made of: results/cpu/*.json and results/h100/*.json."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KI, MI, TEN_MILLION = 1 << 10, 1 << 20, 10_000_000
CONTEXTS = ("4Ki", "16Ki", "64Ki", "256Ki", "1Mi", "4Mi", "10M")
BENCHES = tuple(f"h100/context_{length}.json" for length in CONTEXTS) + ("h100/whole.json",)
PHASES = ("decode", "prefill", "whole")
PHASE_NAMES = {"decode": "decode", "prefill": "prefill chunk", "whole": "whole prefill",
               "train": "training"}


class InputError(Exception):
    """A missing or malformed input, in a line: the file, what is wrong and what would be right."""


def read_text(path: Path) -> str:
    """The text of an input file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from None


@dataclass(frozen=True)
class Config:
    """A schedule that is timed."""

    label: str
    steps: int  # N
    rule: str  # dense, nstep, even, paper or released
    growth: Fraction  # a query's work grows as its length to this power, by the schedule


CONFIGS = {
    "dense": Config("dense, N = 1", 1, "dense", Fraction(1)),
    "A": Config("A (paper), N = 2", 2, "paper", Fraction(1, 2)),
    "B": Config("B (released), N = 2", 2, "released", Fraction(11, 20)),
    "nstep2": Config("nstep, N = 2", 2, "nstep", Fraction(1, 2)),
    "nstep3": Config("nstep, N = 3", 3, "nstep", Fraction(1, 3)),
    "nstep4": Config("nstep, N = 4", 4, "nstep", Fraction(1, 4)),
    "even2": Config("even, N = 2", 2, "even", Fraction(1, 2)),
    "even3": Config("even, N = 3", 3, "even", Fraction(1, 3)),
    "even4": Config("even, N = 4", 4, "even", Fraction(1, 4)),
    "aligned2": Config("aligned, N = 2", 2, "aligned", Fraction(1, 2)),
    "aligned3": Config("aligned, N = 3", 3, "aligned", Fraction(1, 3)),
    "aligned4": Config("aligned, N = 4", 4, "aligned", Fraction(1, 4)),
}
# How the program describes them.
SCHEDULES = {
    "N = 1 (dense)": "dense",
    "N = 2 (power b 2 f 0 q 1/2), stripes i^2, w = 31": "A",
    "N = 2 (power b 3 f 1 q 11/20), stripes i^20/11, w = 65": "B",
    "N = 2 (tight), stripes i^2": "nstep2",
    "N = 3 (tight, even), stripes i^3": "nstep3",
    "N = 4 (tight, even, even), stripes i^4": "nstep4",
    "N = 2 (even)": "even2",
    "N = 3 (even, even)": "even3",
    "N = 4 (even, even, even)": "even4",
    "N = 2 (aligned)": "aligned2",
    "N = 3 (aligned, aligned)": "aligned3",
    "N = 4 (aligned, aligned, aligned)": "aligned4",
}


@dataclass(frozen=True)
class Source:
    """Where numbers come from."""

    file: str  # below results/
    command: str
    commit: str
    dirty: bool
    device: str  # empty: counted, not timed

    def text(self) -> str:
        """`command`, file, commit, device: in Markdown."""
        where = f", {self.device}" if self.device else ""
        changed = " with uncommitted changes" if self.dirty else ""
        return f"`{self.command}` → {self.file}, commit `{self.commit[:10]}`{changed}{where}"


@dataclass(frozen=True)
class Record:
    """One stage of one case, timed."""

    config: str
    schedule: str
    steps: int
    top_k: int
    phase: str  # one of PHASES
    length: int  # keys
    queries: int  # the context's last ones
    stage: str  # attention: all of them
    l2: str  # cold or warm
    median: float  # seconds, as are low and high
    low: float  # the 20 % quantile
    high: float  # the 80 % quantile
    repeats: int
    flops: float  # useful products, counted: two FLOP each
    bytes: float | None  # rows of keys and values that decoding has to read
    report: Report

    @property
    def context(self) -> float:
        """Keys that a query may see, on average over the queries."""
        return self.length - (self.queries - 1) / 2


@dataclass(frozen=True)
class Report:
    """A run of `multistep bench`: its records, and the device that they were taken on."""

    path: str
    device: dict[str, Any]
    copy_bandwidth: float  # bytes a second, read and written
    heads: int
    kv_heads: int
    head_dim: int
    skipped: tuple[dict[str, Any], ...]


def label(rule: str, steps: int) -> str:
    """How a rule with N steps is called."""
    return f"dense, N = {steps}" if steps == 1 else f"{rule}, N = {steps}"


def size(count: float) -> str:
    """A length as it is written: 64Ki, 10M."""
    for unit, name in ((1 << 40, "Ti"), (1 << 30, "Gi"), (MI, "Mi"), (1_000_000, "M"), (KI, "Ki")):
        if count >= unit and count % unit == 0:
            return f"{count // unit:.0f}{name}"
    return f"{count:.0f}"


def about(count: float) -> str:
    """A length to three digits: 5.43Ki, 1.2Mi, 10M."""
    if count >= 1_000_000 and count % 1_000_000 == 0:
        return f"{count / 1_000_000:.0f}M"
    for unit, name in ((1 << 40, "Ti"), (1 << 30, "Gi"), (MI, "Mi"), (KI, "Ki")):
        if count >= unit:
            return three_digits(count / unit) + name
    return three_digits(count)


def three_digits(value: float) -> str:
    """Without an exponent: 1008, not 1.01e+03."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time to three digits in its unit."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds * 1e9:.3g} ns"


def command_text(command: str) -> str:
    """A command without the folders of the machine that it ran on."""
    words = command.split()
    words[:1] = [Path(word).name for word in words[:1]]
    words = [re.sub(r"^(--commit=?).*", r"\1", word) for word in words]
    for at, word in enumerate(words):  # long lists: their ends
        parts = word.split(",")
        if len(parts) > 12:
            words[at] = ",".join([*parts[:3], "...", parts[-1]])
    for option in ("--commit", "--dirty", "--output"):  # told apart from the command
        while option in words:
            at = words.index(option)
            del words[at:at + 2]
    return " ".join(words)


class Results:
    """A folder of results. `partial`: lengths that were not timed are gaps instead of errors."""

    def __init__(self, folder: Path, partial: bool = False) -> None:
        self.folder = folder
        self.partial = partial
        self.sources: list[Source] = []  # of what has been read
        self._seen: dict[str, Any] = {}

    def read(self, name: str) -> Any:
        """A result as JSON."""
        if name in self._seen:
            return self._seen[name]
        path = self.folder / name
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            device = " --device cuda" if name.startswith("h100/") else ""
            raise InputError(
                f"{path}: missing; `./bootstrap experiments{device}` makes it") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not JSON ({error})") from None
        if not isinstance(document, dict):
            raise InputError(f"{path}: a JSON object, not {type(document).__name__}")
        self._seen[name] = document
        device = document.get("device", {})
        described = device.get("name", "") if isinstance(device, dict) else str(device)
        self.sources.append(Source(
            name, command_text(str(document.get("command", ""))), str(document.get("commit", "")),
            document.get("dirty") in ("yes", True), described))
        return document

    def listed(self, name: str, key: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
        """A list of records in a result, each checked for its fields."""
        document = self.read(name)
        records = document.get(key)
        if not isinstance(records, list) or not records:
            raise InputError(f"{self.folder / name}: {key}: a list, not empty")
        for index, record in enumerate(records):
            for field in fields:
                if not isinstance(record, dict) or field not in record:
                    raise InputError(f"{self.folder / name}: {key}[{index}].{field}: missing")
        return records

    def records(self) -> list[Record]:
        """All that was timed on the GPU, each behind a passed comparison."""
        return [record for name in BENCHES for record in self.bench(name)]

    def bench(self, name: str) -> list[Record]:
        """What one run of `multistep bench` timed."""
        if self.partial and not (self.folder / name).exists():
            return []
        listed = self.listed(name, "records", (
            "config", "schedule", "steps", "top_k", "phase", "length", "queries", "stage", "l2",
            "median_ms", "low_ms", "high_ms", "repeats", "useful_tflops", "bytes", "compared"))
        document = self.read(name)
        try:
            shape = document["shape"]
            report = Report(name, document["device"], document["copy_bytes_per_second"],
                            shape["num_heads"], shape["num_kv_heads"], shape["head_dim"],
                            tuple(document["skipped"]))
        except KeyError as error:
            raise InputError(f"{self.folder / name}: {error.args[0]}: missing") from None
        records = []
        for index, one in enumerate(listed):
            where = f"{self.folder / name}: records[{index}]"
            if one["config"] not in CONFIGS:
                raise InputError(f"{where}.config {one['config']}: one of {', '.join(CONFIGS)}")
            if not one["compared"].get("pass"):
                raise InputError(f"{where}: a time without a passed comparison")
            low, median, high = (one[f"{which}_ms"] * 1e-3 for which in ("low", "median", "high"))
            if not 0 < low <= median <= high:
                raise InputError(f"{where}: 0 < low_ms <= median_ms <= high_ms")
            records.append(Record(
                one["config"], one["schedule"], one["steps"], one["top_k"], one["phase"],
                one["length"], one["queries"], one["stage"], one["l2"], median, low, high,
                one["repeats"], one["useful_tflops"] * 1e12 * median, one["bytes"], report))
        return records
