"""Writes what README.md and docs/results.md show of results/: times, figures with their findings,
exponents."""

import json
import pathlib
import re
import shutil
import statistics
import struct
import sys

from . import figures, make
from .figures import exponents, training
from .figures.timed import FIT_NOTE
from .results import BENCHES, CONFIGS, KI, MI, PHASE_NAMES, ROOT, TEN_MILLION, Results, duration, size

RESULTS = ROOT / "results"
SECOND = 1000.0  # the benchmarks report milliseconds

# The GPU's rows: phase, configuration, targets in milliseconds by length. Decoding with a cold L2;
# a prefill chunk is the context's last 32Ki queries, 8Ki at 10M; a whole prefill starts at 0.
CONTEXTS = (64 * KI, 256 * KI, MI, TEN_MILLION)
TARGETS = {
    ("decode", "A"): dict(zip(CONTEXTS, (0.018, 0.026, 0.040, 0.095))),
    ("decode", "B"): dict(zip(CONTEXTS, (0.036, 0.068, 0.145, 0.510))),
    ("decode", "nstep3"): {MI: 0.020, TEN_MILLION: 0.024},
    ("prefill", "A"): dict(zip(CONTEXTS, (5.0, 8.0, 14, 16))),
    ("prefill", "B"): dict(zip(CONTEXTS, (12, 23, 47, 46))),
    ("prefill", "nstep3"): {MI: 24, TEN_MILLION: 13},
    ("whole", "A"): {4 * KI: 0.42, 8 * KI: 0.80, 16 * KI: 1.6, 32 * KI: 3.3},
}
PHASE_LENGTHS = {"decode": CONTEXTS, "prefill": CONTEXTS,
                 "whole": (4 * KI, 8 * KI, 16 * KI, 32 * KI)}
GPU_SHAPE = {"batch": 1, "num_heads": 32, "num_kv_heads": 2, "head_dim": 128, "start": 0,
             "dtype": "bf16", "inputs": "random"}
# The span stage of a prefill chunk, in useful TFLOP/s.
SPAN_TFLOPS = {("A", MI): 380, ("B", MI): 415}

# Benchmark, what it does, the limit set for it in seconds.
ROWS = [
    ("verify/nstep_2/1000000", "verify all, L = 1M, N = 2", 2),
    ("verify/nstep_3/1000000", "verify all, L = 1M, N = 3", 2),
    ("verify/nstep_4/1000000", "verify all, L = 1M, N = 4", 2),
    ("verify/nstep_2/10000000", "verify all, L = 10M, N = 2, tight", 30),
    ("verify/paper/10000000", "verify all, L = 10M, N = 2, power", 30),
    ("verify/released/10000000", "verify all, L = 10M, `released`", 30),
    ("verify_failing/10000000", "verify all, L = 10M, N = 2, power with b = 19/10: fails", 30),
    ("verify/even_2/10000000", "verify all, L = 10M, N = 2, even", 30),
    ("verify/nstep_3/10000000", "verify all, L = 10M, N = 3", 5),
    ("verify/even_3/10000000", "verify all, L = 10M, N = 3, even", 5),
    ("sample/nstep_2/1000000000000", "1000 queries, L = 10^12, N = 2", 5),
    ("sample/nstep_3/1000000000000", "1000 queries, L = 10^12, N = 3", 5),
    ("sample/released/1000000000000", "1000 queries, L = 10^12, `released`", 5),
    ("attend/16384", "attend, L = 16Ki, head_dim 64, N = 2", None),
    ("attend/65536", "attend, L = 64Ki, head_dim 64, N = 2", 10),
    ("attend/1048576", "attend, L = 1Mi, head_dim 64, N = 2", None),
]


def cpu_table():
    """The table of the CPU in Markdown, medians in seconds."""
    report = json.loads((RESULTS / "cpu/benchmarks.json").read_text())
    times = {}
    memory = 0.0
    for run in report["benchmarks"]:
        if run["run_type"] == "iteration":
            if run.get("error_occurred"):
                sys.exit(f"{run['name']}: {run['error_message']}: no time of a wrong result")
            name = run["name"].removesuffix("/real_time")
            if name == "attend/1048576":
                memory = run["peak_gib"]
            times.setdefault(name, []).append(run["real_time"] / SECOND)
    context = report["context"]
    lines = ["| task | median | limit |", "|---|---|---|"]
    for name, task, limit in ROWS:
        seconds = statistics.median(times[name])
        lines.append(f"| {task} | {seconds:.2g} s | {f'{limit} s' if limit else '–'} |")
    changed = " with uncommitted changes" if context["dirty"] == "yes" else ""
    lines.append("")
    runs = len(times[ROWS[0][0]])
    lines.append(f"Medians of {runs} runs on {context['num_cpus']} cores at commit "
                 f"`{context['commit'][:10]}`{changed}, by `./bootstrap benchmark`. "
                 f"The whole process of `attend` at 1Mi took {memory:.2g} GiB (limit 4 GiB).")
    return "\n".join(lines) + "\n"


def gpu_reports():
    """The reports of runs of the table's shape, in order of their files' names."""
    reports = []
    for path in sorted(RESULTS / name for name in BENCHES):
        if not path.exists():
            continue
        report = json.loads(path.read_text())
        if report.get("shape") != GPU_SHAPE:
            continue
        for record in report["records"]:
            if not record["compared"]["pass"]:
                sys.exit(f"{path.name}: {record['config']}: no time without a passed comparison")
        reports.append(report)
    return reports


def gpu_sources(reports):
    """Where the numbers come from."""
    copies = {}
    for report in reports:
        device = report["device"]
        changed = " with uncommitted changes" if report["dirty"] == "yes" else ""
        name = f"{device['name']}, CUDA {device['cuda']}, commit `{report['commit'][:10]}`{changed}"
        copies.setdefault(name, []).append(report["copy_bytes_per_second"] / 1e12)
    return [f"{name}, copies at {statistics.median(rates):.2f} TB/s"
            for name, rates in copies.items()]


def gpu_cell(record, target):
    """A median, and the target set for it: missed ones say so."""
    if record is None:
        return "–" if target is None else f"not measured ({duration(target / SECOND)})"
    text = duration(record["median_ms"] / SECOND)
    if target is None:
        return text
    missed = "" if record["median_ms"] <= target else ", missed"
    return f"{text} ({duration(target / SECOND)}{missed})"


def gpu_table():
    """The table of the GPU in Markdown; empty without results."""
    reports = gpu_reports()
    if not reports:
        return ""
    records = {}
    for report in reports:  # of several runs of one thing the last file's counts
        for record in report["records"]:
            key = record["phase"], record["config"], record["length"], record["stage"], record["l2"]
            records[key] = record
    lines = ["Medians of the kernels: batch 1, 32 heads over 2 KV heads, head_dim 128, bf16, "
             "random inputs. A is `paper` with w = 31, a window of 1023 keys, B is `released`. In "
             "brackets, the targets that the project set itself:"]
    spread = 0.0
    for phase, lengths in PHASE_LENGTHS.items():
        lines += ["", f"| {PHASE_NAMES[phase]} | "
                  + " | ".join(map(size, lengths)) + " |", "|---" * (1 + len(lengths)) + "|"]
        for config, known in CONFIGS.items():
            row = [records.get((phase, config, length, "attention", "cold")) for length in lengths]
            targets = [TARGETS.get((phase, config), {}).get(length) for length in lengths]
            if any(row) or any(targets):
                lines.append(f"| {known.label} | " + " | ".join(map(gpu_cell, row, targets)) + " |")
            spread = max([spread, *(record["high_ms"] / record["low_ms"] for record in row
                                    if record)])
    rates = []
    for (config, length), target in SPAN_TFLOPS.items():
        record = records.get(("prefill", config, length, "span attention", "cold"))
        if record is not None:
            rate = record["useful_tflops"]
            rates.append(f"{config} {rate:.0f} TFLOP/s ({target}"
                         f"{'' if rate >= target else ', missed'}) at {size(length)}")
    if rates:
        lines += ["", "The span stage of a chunk, useful products: " + "; ".join(rates) + "."]
    lines += [f"Not timed: {one}." for one in untimed(reports)]
    rows = {record["compared"]["rows"] for record in records.values()}
    lines += ["", f"By `multistep bench`, each time behind a passed comparison of {least(rows)} "
              "rows with the oracle in the same process; `results/h100/compare.txt` has those of "
              "more. Decoding is a replayed graph with a cold L2 cache; a chunk is the "
              "context's last 32Ki queries, 8Ki at 10M; dense attention is N = 1 by this project's "
              f"own kernel. The 80 % quantile is at most {spread:.2f} times the 20 % one. "
              + "; ".join(gpu_sources(reports)) + "."]
    return "\n".join(lines) + "\n"


def least(rows):
    """How many rows every comparison had."""
    return str(rows.copy().pop()) if len(rows) == 1 else f"at least {min(rows)}"


def untimed(reports):
    """Cases without times, and why."""
    for report in reports:
        for one in report.get("skipped", []) + report.get("failed", []):
            name = (f"{PHASE_NAMES[one['phase']]}, {CONFIGS[one['config']].label} at "
                    f"{size(one['length'])}")
            reason = one["reason"] if one in report.get("skipped", []) else (
                "its comparison failed: `results/h100/failed.txt`")
            yield f"{name} ({reason})"


def source_of(path):
    """What a PNG says it was drawn from; None where it does not."""
    data = path.read_bytes()
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"tEXt" and data[at + 8:].startswith(b"Source\0"):
            return data[at + 15:at + 8 + length].decode("latin-1")
        at += 12 + length
    return None


def pictures():
    """The figures whose pictures documents show, of those that have results."""
    return {name: plot for name, plot in figures.plots().items()
            if plot.picture and not plot.missing(RESULTS)}


def renew_pictures(folder=None):
    """Has every picture be of these results: others are replaced by the folder's, or refused."""
    for name, plot in pictures().items():
        here = RESULTS / plot.picture
        source = make.source(name, plot.needed(RESULTS))
        if here.exists() and source_of(here) == source:
            continue
        there = folder / here.name if folder else here
        if not there.exists() or source_of(there) != source:
            shown = there if folder else there.relative_to(ROOT)
            sys.exit(f"{shown}: not of these results; `./bootstrap figures` draws it")
        shutil.copyfile(there, here)


def figure_blocks():
    """The pictures with their findings; empty without results."""
    return "\n".join(f"![{plot.alternative}](../results/{plot.picture})\n\n"
                     f"*{plot.caption(Results(RESULTS)).brief}*\n"
                     for plot in pictures().values() if plot.alternative)


def exponent_table():
    """Exponents beside 1 + 1/N, and why they differ; empty until all is measured."""
    if exponents.PLOT.missing(RESULTS):
        return ""
    results = Results(RESULTS)
    lines = [exponents.table(results).markdown(), "", "95 % intervals in brackets. "
             + FIT_NOTE, ""]
    lines += [f"- {line}" for line in exponents.differences(results)]
    return "\n".join([*lines, "", exponents.fixed_costs(results).markdown()]) + "\n"


def training_table():
    """What forward and backward take; empty until all is measured."""
    if training.PLOT.missing(RESULTS):
        return ""
    results = Results(RESULTS)
    parts = [table.markdown() for table in training.tables(results)] + [training.note(results)]
    parts.append("\n".join(f"- {source.text()}" for source in results.sources))
    return "\n\n".join(parts) + "\n"


# PyTorch's SDPA (FlashAttention backend) and the authors' Triton kernels of A, decoding as here,
# measured by this project at cbbe9d8 on one H100 80GB with PyTorch 2.11, in microseconds.
RIVALS = {MI: (414, 285), TEN_MILLION: (3358, 450)}


def speed_line():
    """What a token costs beside what others reach; empty without results."""
    reports = gpu_reports()
    times = {(record["config"], record["length"]): record["median_ms"] / SECOND
             for report in reports for record in report["records"]
             if (record["phase"], record["stage"], record["l2"]) == ("decode", "attention", "cold")}
    if not all((config, length) in times for config in ("A", "nstep3") for length in RIVALS):
        return ""
    cases = "; ".join(
        f"at {size(length)} keys {duration(times['nstep3', length])} with N = 3 and "
        f"{duration(times['A', length])} with the paper's N = 2, where PyTorch's FlashAttention "
        f"takes {duration(dense / 1e6)} and the authors' kernels {duration(authors / 1e6)}"
        for length, (dense, authors) in RIVALS.items())
    return (f"A decoded token: {cases} ({gpu_sources(reports)[0].split(', copies')[0]}; "
            "[more](docs/results.md)).\n")


TABLES = {"docs/results.md": {"figures": figure_blocks, "exponents": exponent_table,
                              "times": cpu_table, "gpu": gpu_table,
                              "training": training_table},
          "README.md": {"speed": speed_line}}


def with_table(page, text, name):
    """The page with one table made anew."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    block = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(block.findall(text)) != 1:
        sys.exit(f"{page}: one block between {begin.strip()} and {end}")
    return block.sub(lambda _: begin + TABLES[page][name]() + end, text)


def main(arguments):
    """Writes the pages, or checks them."""
    parser = make.Parser("readme", "Writes what README.md and docs/results.md show of results/.")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--check", action="store_true",
                        help="fail where pages, pictures and results disagree")
    either.add_argument("--pictures", type=pathlib.Path, metavar="FOLDER",
                        help="where to take pictures from for those that are of other results")
    given = parser.parse_args(arguments)
    renew_pictures(given.pictures)
    for page, tables in TABLES.items():
        text = fresh = (ROOT / page).read_text()
        for name in tables:
            fresh = with_table(page, fresh, name)
        if given.check and fresh != text:
            sys.exit(f"{page}: its tables and findings are not those of results/")
        if fresh != text:
            (ROOT / page).write_text(fresh)
    if given.check:
        print("the tables and pictures of README.md and docs/results.md are those of results/")
