#!/usr/bin/env python3
"""Runs every command that README.md and docs/ show with its output, and compares the two; their C++
must be that of the consumer project, which another test builds and runs. Commands for a GPU stand in
indented blocks, which are not run. README's table of fast kernels is what `multistep plan` answers.
The table of docs/relatives.md is what `multistep verify` answers. Links lead somewhere, and theorems that
are named are there.

Usage: docs_test.py PROGRAM            compare
       docs_test.py PROGRAM --write    write the outputs and the C++ into the pages
Seconds and checksums are not compared: the first differ from run to run, the second between
mathematical libraries.
"""

import difflib
import functools
import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments"))
import relatives  # noqa: E402
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
CONSUMERS = [ROOT / "tests/package/consumer" / name for name in ("main.cpp", "gpu.cpp")]


def session(program, block):
    """The commands of a console block, each with what it prints now."""
    lines = []
    for command in re.findall(r"^\$ (multistep .*)$", block, re.MULTILINE):
        arguments = shlex.split(command)[1:]
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        lines.append(f"$ {command}\n{done.stdout}{done.stderr}".rstrip())
    return "\n\n".join(lines) + "\n"


def comparable(text):
    return re.sub(r"\d+\.\d\d s\b|checksum [0-9a-f]{16}", "...", text)


HEAD_DIMS = (32, 64, 80, 96, 128, 192, 256)
TOP_KS = (1, 2, 4, 5, 8, 16, 64)


def stage_plan(program, stage, queries, chip, head_dim, top_k):
    """What `multistep plan` says of a stage; None where the program has no kernels."""
    done = subprocess.run(
        [program, "plan", "--preset", "released", "--length", "1Mi", "--queries", str(queries),
         "--chip", chip, "--head-dim", str(head_dim), "--top-k", str(top_k), "--json"],
        capture_output=True, text=True)
    if "built without CUDA" in done.stderr:
        return None
    found = json.loads(done.stdout)
    return {plan["stage"]: plan for plan in [*found["stages"], found["backward"]]}[stage]


def fast_shapes(program, stage, queries, chip):
    """For which shapes a stage's fast kernels run; None where the program has no kernels."""
    def plan(head_dim=64, top_k=1):
        return stage_plan(program, stage, queries, chip, head_dim, top_k)
    if plan() is None or not plan()["fast"]:
        return plan() and "none"
    dims = [str(dim) for dim in HEAD_DIMS if plan(head_dim=dim)["fast"]]
    most = max(top_k for top_k in TOP_KS if plan(top_k=top_k)["fast"])
    return f"head_dim {', '.join(dims)}, top_k to {most}"


def fast_kernels(program):
    """The table of what the fast kernels take, or None where the program has none."""
    rows = {}  # where the kernels that a call has are fast for the same shapes
    for queries, phase in ((1, "decoding"), (4096, "prefill")):
        for chip, name in (("h100", "Hopper"), ("a100", "other GPUs")):
            stages = {}
            for stage in ("search", "attend", "combine"):
                stages.setdefault(fast_shapes(program, stage, queries, chip), []).append(stage)
            if None in stages:
                return None
            cell = "; ".join(f"{', '.join(names)}: {shapes}" for shapes, names in stages.items())
            backward = fast_shapes(program, "backward", queries, chip)
            rows.setdefault((cell, backward), []).append(f"{phase} on {name}")
    lines = ["| calls | fast kernels, forward | backward |", "|---|---|---|"]
    lines += [f"| {', '.join(calls)} | {cell} | {backward} |"
              for (cell, backward), calls in rows.items()]
    return "\n".join(lines) + "\n"


LENGTHS = (4096, 16384, 65536)  # of the table of relatives
SCHEDULES = ("nstep, N = 2", "nstep, N = 3", "aligned, N = 3")


def relatives_table(program):
    """The table of what others reach, and pay."""
    patterns = {name: options for group in relatives.PATTERNS.values()
                for name, options in group.items()}
    told = subprocess.run([program, "verify", "--length", "9", "--pattern", "?"],
                          capture_output=True, text=True).stderr
    assert told.strip().split(": ")[-1].split(", ") == list(patterns), told
    short = relatives.LENGTH
    lines = [f"| | of {short * (short + 1) // 2} pairs left out (first) | layers | pairs in "
             "averages alone | " + " | ".join(f"{length // 1024}Ki" for length in LENGTHS) + " |",
             "|---" * (4 + len(LENGTHS)) + "|"]
    rows = {f"`{name}` {options}".strip(): (f"--pattern {name} {options}", f"--pattern {name}")
            for name, options in patterns.items()}
    rows |= {f"`{name.replace(',', '`,', 1)}": (relatives.SCHEDULES[name],) * 2
             for name in SCHEDULES}
    for name, (options, paper) in rows.items():
        found = relatives.reach(program, options)
        first = found["first_excluded"]
        out = f"{found['excluded_pairs']} ({first[0]}, {first[1]})" if first else "0"
        cells = [name, out, str(found["layers"] or "never"), str(found["averaged_pairs"])]
        for length in LENGTHS:
            work = relatives.verified(program, length, paper)["work"]
            cells.append(str(work["max"]) if "max" in work else
                         f"{work['most_scored']} + {work['most_attended']}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def broken_links(page, text):
    """Links to files that are not there, and to headings that a page does not have."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        if "://" in target:
            continue
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: {target}: no such file"
        elif heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            names = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
            if heading not in names:
                yield f"{page.relative_to(ROOT)}: {target}: no such heading"


@functools.cache
def theorems():
    """The names of all that are proved."""
    return {name for file in ROOT.glob("proofs/statements/*.v") for name in
            re.findall(r"^(?:Theorem|Corollary) (\w+)", file.read_text(), re.MULTILINE)}


def unknown_theorems(page, text):
    """Theorems that are cited and not proved."""
    for names in re.findall(r"theorems?\s+(`\w+`(?:(?:,|\s+and)\s+`\w+`)*)", text):
        for name in set(re.findall(r"`(\w+)`", names)) - theorems():
            yield f"{page.relative_to(ROOT)}: {name}: no such theorem"


def main():
    sources = iter(CONSUMERS)
    commands = blocks = tables = 0
    problems = []
    for page in PAGES:
        text = page.read_text()
        fresh = re.sub(r"(?<=```console\n).*?(?=```)", lambda found: session(sys.argv[1], found[0]),
                       text, flags=re.DOTALL)
        fresh, count = re.subn(r"(?<=```cpp\n).*?(?=```)",
                               lambda _: next(sources, pathlib.Path("/dev/null")).read_text(), fresh,
                               flags=re.DOTALL)
        blocks += count
        if page.name == "README.md" and (table := fast_kernels(sys.argv[1])):
            fresh = re.sub(r"(?<=<!-- fast: begin -->\n).*?(?=<!-- fast: end -->)", table, fresh,
                           flags=re.DOTALL)
            tables += 1
        if page.name == "relatives.md":
            fresh = re.sub(r"(?<=<!-- reach: begin -->\n).*?(?=<!-- reach: end -->)",
                           relatives_table(sys.argv[1]), fresh, flags=re.DOTALL)
        commands += fresh.count("\n$ multistep ")
        problems += [*broken_links(page, text), *unknown_theorems(page, text)]
        if "--write" in sys.argv:
            page.write_text(fresh)
        elif comparable(fresh) != comparable(text):
            problems += difflib.unified_diff(text.splitlines(), fresh.splitlines(),
                                             str(page.relative_to(ROOT)), "what comes out",
                                             lineterm="")
    if blocks != len(CONSUMERS):
        problems.append(f"{blocks} blocks of C++, not {len(CONSUMERS)}")
    fast = "the table of fast kernels" if tables else "not the table of fast kernels: no nvcc"
    print("\n".join(problems) or f"{commands} commands of {len(PAGES)} pages, their C++; {fast}")
    return 1 if problems or not commands else 0


if __name__ == "__main__":
    sys.exit(main())
