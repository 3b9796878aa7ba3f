#!/usr/bin/env python3
"""Writes the README's table of times from results/cpu/benchmarks.json.

Usage: experiments/readme.py [--check]    with --check, fails where the two disagree
"""

import json
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- times: begin -->\n", "<!-- times: end -->"
SECOND = 1000.0  # the benchmarks report milliseconds

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


def table():
    """The table in Markdown, medians in seconds."""
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


def main():
    readme = ROOT / "README.md"
    text = readme.read_text()
    block = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if len(block.findall(text)) != 1:
        sys.exit(f"README.md: one block between {BEGIN.strip()} and {END}")
    fresh = block.sub(lambda _: BEGIN + table() + END, text)
    if "--check" in sys.argv[1:]:
        if fresh != text:
            sys.exit("README.md: its table of times is not that of results/cpu/benchmarks.json")
        print("the README's table of times is that of results/cpu/benchmarks.json")
    else:
        readme.write_text(fresh)


if __name__ == "__main__":
    main()
