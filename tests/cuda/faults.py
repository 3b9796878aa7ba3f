#!/usr/bin/env python3
"""Makes the kernels go wrong on purpose, one fault at a time, and asserts that `multistep compare`
or a test notices.

Usage: faults.py PROGRAM TESTS [NAME...]    multistep_faulty and gpu_tests_faulty

The faults are those of cuda/device/fault.cuh. Without one every command below must pass; with each of them
at least one must say FAIL. Those of TESTS_ALONE are not to be seen in one run's results: they need
NaN, ties, lengths on the device, a race lost. Exits with 77, and counts what was not tried, where
there is no GPU.
"""

import os
import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

FAULTS = pathlib.Path(__file__).resolve().parents[2] / "cuda" / "device" / "fault.cuh"
TIMEOUT = 300  # seconds for one comparison
NO_DEVICE = "exit code 77"

# The oracle looks at every row. Contexts are short, so that some row keeps each anchor, the oldest
# too; those of `released` hold spans and windows of several tiles. Two KV heads, one of which is
# not head 0; a start, so that a key before the first eligible one is still a key.
MANY_HEADS = "--heads 32 --kv-heads 2 --head-dim 128 --sample 64Ki"
FEW_HEADS = "--heads 4 --kv-heads 2 --head-dim 64 --start 7 --sample 64Ki"
COMMANDS = {
    "decode, N = 2": f"--length 256 --batch 4 {MANY_HEADS}",
    "decode, N = 3": f"--length 512 --batch 4 --steps 3 {MANY_HEADS}",
    "decode, window": f"--length 1000 --batch 2 --preset paper --window-index 3 {MANY_HEADS}",
    "decode, released": f"--length 4Ki --preset released {MANY_HEADS}",
    "prefill, N = 2": f"--length 300 --queries 200 {FEW_HEADS}",
    "prefill, N = 3": f"--length 500 --queries 200 --steps 3 {FEW_HEADS}",
    "prefill, window":
        f"--length 1000 --queries 200 --preset paper --window-index 3 {FEW_HEADS}",
    "prefill, aligned": f"--length 8Ki --queries 1Ki --preset aligned {MANY_HEADS}",
    "prefill, released": f"--length 4Ki --queries 200 --preset released {FEW_HEADS}",
}
# Of faults that are said to be of the backward pass.
BACKWARD_COMMANDS = {
    "gradients, N = 3": f"--gradients --length 500 --queries 200 --steps 3 {FEW_HEADS}",
    "gradients, window":
        "--gradients --length 2Ki --queries 2Ki --preset paper --window-index 7 --heads 32 "
        "--kv-heads 2 --head-dim 128 --sample 64",
}
TESTS = "[fault]"  # those of TESTS that are run
TESTS_ALONE = {"tie_turned", "length_ignored", "chunk_offset_dropped", "search_not_awaited",
               "part_not_counted", "repair_skipped", "earlier_parts_lost", "tiles_from_range",
               "capacity_decides", "pieces_as_they_come", "anchor_run_cut", "dense_chunk_lost",
               "last_pair_lost", "steps_ignored", "late_parents_missed", "little_share_divides",
               "wanted_tile_skipped", "page_table_ignored", "turn_repeated", "counters_left",
               "key_bounds_ignored", "cut_part_lost"}


def read_faults():
    """Names of the faults by number; 0 is none. Which of them are of the backward pass."""
    body = re.search(r"enum class Fault : int \{(.*?)\};", FAULTS.read_text(), re.DOTALL)[1]
    names = re.findall(r"\w+", re.sub(r"//.*", "", body))
    backward = set(re.findall(r"(\w+), +// backward: ", body))
    if names[0] != "none" or len(names) <= 10 or "=" in re.sub(r"//.*", "", body):
        sys.exit(f"{FAULTS}: none and at least 10 faults, numbered from 0")
    return names, backward


def compare(program, options, fault=None):
    """How a comparison ended: its verdict, or the exit code where there is none, and its output."""
    command = [program, "compare", *options.split()]
    if fault is not None:
        command += ["--fault", str(fault)]
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return "a hang", ""
    verdict = {0: "PASS", 1: "FAIL"}.get(done.returncode)
    if verdict and done.stdout.rstrip().rpartition("\n")[2].startswith(f"{verdict}, "):
        return verdict, done.stdout
    return f"exit code {done.returncode}", done.stdout + done.stderr


def run_tests(tests, fault):
    """How the tests ended, as a comparison does."""
    try:
        done = subprocess.run([tests, TESTS], text=True, capture_output=True, timeout=TIMEOUT,
                              env={**os.environ, "MULTISTEP_FAULT": str(fault)})
    except subprocess.TimeoutExpired:
        return "a hang", ""
    return {0: "PASS", 1: "FAIL"}.get(done.returncode, f"exit code {done.returncode}"), done.stdout


def attempt(program, tests, name, fault, commands):
    """Tries one fault; returns whether all is as it must be, and who caught it."""
    ends = {command: compare(program, options, fault) for command, options in commands.items()}
    if fault == 0 or name in TESTS_ALONE:
        ends["tests"] = run_tests(tests, fault)
    lines = []
    if fault == 0:
        good = all(end == "PASS" for end, _ in ends.values())
        lines.append(f"{name:24} {'passes, as it must' if good else 'FAILS BY ITSELF'}")
    else:
        caught = [command for command, (end, _) in ends.items() if end == "FAIL"]
        good = bool(caught)
        lines.append(f"{name:24} {'caught by ' + '; '.join(caught) if good else 'NOT CAUGHT'}")
    for command, (end, output) in ends.items():
        if end not in (("PASS",) if fault == 0 else ("PASS", "FAIL")):  # a crash is no verdict
            lines += [f"  {command}: ended with {end}",
                      f"  $ multistep_faulty compare {commands[command]} --fault {fault}"
                      if command in commands else
                      f"  $ MULTISTEP_FAULT={fault} gpu_tests_faulty {TESTS}", output.rstrip()]
    return good, "\n".join(lines)


def main():
    program, tests, *wanted = sys.argv[1:]
    names, backward = read_faults()
    if unknown := TESTS_ALONE - set(names):
        sys.exit(f"faults.py: {' '.join(sorted(unknown))}: no fault of {FAULTS.name}")
    if unknown := set(wanted) - set(names):
        sys.exit(f"faults.py {' '.join(sorted(unknown))}: a fault of {FAULTS.name}")
    tried = [(fault, name) for fault, name in enumerate(names)
             if fault == 0 or not wanted or name in wanted]
    end, output = compare(program, next(iter(COMMANDS.values())))
    if end == NO_DEVICE:
        print(f"{len(tried) - 1} faults skipped: {output.strip()}")
        return 77
    survivors = []
    with ThreadPoolExecutor(4) as pool:
        attempts = [pool.submit(attempt, program, tests, name, fault,
                                {**COMMANDS, **BACKWARD_COMMANDS} if fault == 0 else
                                BACKWARD_COMMANDS if name in backward else COMMANDS)
                    for fault, name in tried]
        for (_, name), done in zip(tried, attempts):
            good, text = done.result()
            print(text, flush=True)
            if not good:
                survivors.append(name)
    caught = len(tried) - 1 - len(set(survivors) - {"none"})
    print(f"{caught} of {len(tried) - 1} faults caught", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
