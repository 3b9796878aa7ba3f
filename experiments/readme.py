#!/usr/bin/env python3
"""Writes the README's tables of times from results/cpu/benchmarks.json and results/h100/*.json.

Usage: experiments/readme.py [--check]    with --check, fails where the two disagree
"""

import json
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECOND = 1000.0  # the benchmarks report milliseconds

# The GPU's rows: phase, configuration, targets in milliseconds by length. Decoding with a cold L2;
# a prefill chunk is the context's last 32Ki queries, 8Ki at 10M; a whole prefill starts at 0.
KI, MI, TEN_MILLION = 1 << 10, 1 << 20, 10_000_000
CONTEXTS = (64 * KI, 256 * KI, MI, TEN_MILLION)
GPU_ROWS = [
    ("decode", "A", dict(zip(CONTEXTS, (0.018, 0.026, 0.040, 0.095)))),
    ("decode", "B", dict(zip(CONTEXTS, (0.036, 0.068, 0.145, 0.510)))),
    ("decode", "nstep2", {}),
    ("decode", "nstep3", {MI: 0.020, TEN_MILLION: 0.024}),
    ("decode", "nstep4", {}),
    ("decode", "even2", {}),
    ("decode", "even3", {}),
    ("decode", "dense", {}),
    ("prefill", "A", dict(zip(CONTEXTS, (5.0, 8.0, 14, 16)))),
    ("prefill", "B", dict(zip(CONTEXTS, (12, 23, 47, 46)))),
    ("prefill", "nstep2", {}),
    ("prefill", "nstep3", {MI: 24, TEN_MILLION: 13}),
    ("prefill", "nstep4", {}),
    ("prefill", "even2", {}),
    ("prefill", "even3", {}),
    ("prefill", "dense", {}),
    ("whole", "A", {4 * KI: 0.42, 8 * KI: 0.80, 16 * KI: 1.6, 32 * KI: 3.3}),
    ("whole", "dense", {}),
]
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
    report = json.loads((ROOT / "results/cpu/benchmarks.json").read_text())
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
    lines.append(f"Medians of {len(times[ROWS[0][0]])} runs on {context['num_cpus']} cores at commit "
                 f"`{context['commit'][:10]}`{changed}, by `./bootstrap benchmark`. "
                 f"The whole process of `attend` at 1Mi took {memory:.2g} GiB (limit 4 GiB).")
    return "\n".join(lines) + "\n"


def size(count):
    """A length as it is written: 64Ki, 10M."""
    for unit, name in ((1 << 20, "Mi"), (1_000_000, "M"), (1 << 10, "Ki")):
        if count % unit == 0:
            return f"{count // unit}{name}"
    return str(count)


def milliseconds(value):
    return f"{1000 * value:.3g} µs" if value < 1 else f"{value:.3g} ms"


def verdict(value, target, below=True):
    if target is None:
        return "–"
    return "yes" if (value <= target if below else value >= target) else "no"


def gpu_reports():
    """The reports of runs of the table's shape, in order of their files' names."""
    reports = []
    for path in sorted((ROOT / "results/h100").glob("*.json")):
        report = json.loads(path.read_text())
        if report.get("shape") != GPU_SHAPE or "records" not in report:
            continue
        for record in report["records"]:
            if not record["compared"]["pass"]:
                sys.exit(f"{path.name}: {record['config']}: no time without a passed comparison")
        reports.append(report)
    return reports


def gpu_sources(reports):
    """Where the numbers come from."""
    lines = []
    for report in reports:
        device = report["device"]
        changed = " with uncommitted changes" if report["dirty"] == "yes" else ""
        line = (f"{device['name']}, CUDA {device['cuda']}, commit `{report['commit'][:10]}`"
                f"{changed}, copies at {report['copy_bytes_per_second'] / 1e12:.2f} TB/s")
        if line not in lines:
            lines.append(line)
    return lines


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
    lines = ["The kernels' times, beside the targets set for them:", "",
             "| phase | config | length | median | 20 % – 80 % | target | met |",
             "|---|---|---|---|---|---|---|"]
    for phase, config, targets in GPU_ROWS:
        lengths = {key[2] for key in records if key[:2] == (phase, config)} | set(targets)
        for length in sorted(lengths):
            target = targets.get(length)
            wanted = milliseconds(target) if target else "–"
            name = f"| {phase} | {config} | {size(length)} |"
            record = records.get((phase, config, length, "attention", "cold"))
            if record is None:
                lines.append(f"{name} not measured | | {wanted} | – |")
                continue
            lines.append(f"{name} {milliseconds(record['median_ms'])} | "
                         f"{milliseconds(record['low_ms'])} – {milliseconds(record['high_ms'])} | "
                         f"{wanted} | {verdict(record['median_ms'], target)} |")
    for (config, length), target in SPAN_TFLOPS.items():
        record = records.get(("prefill", config, length, "span attention", "cold"))
        if record is not None:
            rate = record["useful_tflops"]
            lines.append(f"| prefill, spans alone | {config} | {size(length)} | "
                         f"{rate:.0f} TFLOP/s | | {target} TFLOP/s | "
                         f"{verdict(rate, target, below=False)} |")
    lines += ["", "By `multistep bench`, every row behind a passed comparison with the oracle in "
              "the same process. Decoding is a replayed graph with a cold L2 cache; dense "
              "attention is N = 1 by this project's own kernel. "
              + "; ".join(gpu_sources(reports)) + "."]
    return "\n".join(lines) + "\n"


TABLES = {"times": cpu_table, "gpu": gpu_table}


def with_table(text, name):
    """The README with one table made anew."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    block = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(block.findall(text)) != 1:
        sys.exit(f"README.md: one block between {begin.strip()} and {end}")
    return block.sub(lambda _: begin + TABLES[name]() + end, text)


def main():
    readme = ROOT / "README.md"
    text = fresh = readme.read_text()
    for name in TABLES:
        fresh = with_table(fresh, name)
    if "--check" in sys.argv[1:]:
        if fresh != text:
            sys.exit("README.md: its tables of times are not those of results/")
        print("the README's tables of times are those of results/")
    else:
        readme.write_text(fresh)


if __name__ == "__main__":
    main()
