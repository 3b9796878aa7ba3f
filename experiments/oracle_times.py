#!/usr/bin/env python3
"""Times the oracle over a range of lengths: the stages of `multistep attend`, all queries of one
head of 16 dimensions.

Usage: oracle_times.py PROGRAM --output FILE [--commit HASH] [--dirty yes|no]
                       [--lengths 4096,...] [--repeats COUNT]

Writes JSON, whole or not at all. Every repeat goes through all lengths, so that what slows the
machine for a while does not fall on one length alone. N = 1 and the longest lengths are cut off by
their share of the time.
"""

import argparse
import json
import subprocess
import sys
import time

import reporting

COMMAND = "experiments/oracle_times.py"
LENGTHS = [1 << power for power in range(12, 20)]
HEAD_DIM = 16
LONGEST = {1: 1 << 14}  # by N, keys
LONG = 1 << 18  # from here on one repeat less in two, as the noise is small


def seconds(program, steps, length, head_dim):
    """Of one run, the sum of its stages."""
    done = subprocess.run(
        [program, "attend", "--json", "--length", str(length), "--steps", str(steps),
         "--head-dim", str(head_dim)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{COMMAND}: {done.stderr.strip()}")
    return sum(json.loads(done.stdout)["seconds"].values())


def measure(program, lengths, repeats):
    """The records: each schedule and length with its repeats in seconds."""
    cases = [(steps, length) for length in lengths for steps in (1, 2, 3, 4)
             if length <= LONGEST.get(steps, length)]
    times = {case: [] for case in cases}
    shown = sys.stderr.isatty()
    for repeat in range(repeats):
        for at, case in enumerate(cases):
            if case[1] >= LONG and repeat % 2 and repeats > 2:
                continue
            times[case].append(seconds(program, *case, HEAD_DIM))
            if shown:
                done = repeat * len(cases) + at + 1
                print(f"\roracle {100 * done / len(cases) / repeats:3.0f} %", end="",
                      file=sys.stderr, flush=True)
    if shown:
        print("\r\033[K", end="", file=sys.stderr)
    return [{"config": "dense" if steps == 1 else f"nstep{steps}",
             "steps": steps,
             "length": length,
             "queries": length,
             "seconds": times[steps, length]} for steps, length in cases]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("program")
    reporting.arguments(parser)
    parser.add_argument("--lengths", help="comma-separated, in keys")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    lengths = LENGTHS
    if arguments.lengths:
        if not all(word.isdecimal() and int(word) > 0 for word in arguments.lengths.split(",")):
            parser.error(f"--lengths {arguments.lengths}: integers >= 1, separated by commas")
        lengths = [int(word) for word in arguments.lengths.split(",")]
    if arguments.repeats < 1:
        parser.error(f"--repeats {arguments.repeats}: an integer >= 1")

    begin = time.monotonic()
    records = measure(arguments.program, lengths, arguments.repeats)
    command = COMMAND
    if arguments.lengths:
        command += f" --lengths {arguments.lengths}"
    if arguments.repeats != parser.get_default("repeats"):
        command += f" --repeats {arguments.repeats}"
    reporting.write(arguments, {
        "command": command,
        "device": reporting.processor(),
        "shape": {"batch": 1, "num_heads": 1, "num_kv_heads": 1, "head_dim": HEAD_DIM,
                  "dtype": "float", "seed": 1},
        "records": records,
        "seconds": time.monotonic() - begin})


if __name__ == "__main__":
    main()
