#!/usr/bin/env python3
"""What other attentions' patterns and the schedules here reach, and the work that they count.

Usage: relatives.py PROGRAM --output FILE [--commit HASH] [--dirty yes|no]

Reach is told of a short context with small parameters, so that patterns show; work of lengths from
1Ki to 1Mi, with the parameters of the papers and one path of a schedule. Writes JSON, whole or not
at all.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time

import reporting

COMMAND = "experiments/relatives.py"
LENGTH = 257  # of reach
LENGTHS = [1 << power for power in range(10, 21)]  # of work
SAMPLES = 1024  # queries counted of a length

# By what decides which keys a query has: the patterns, with their small parameters.
PATTERNS = {
    "positions": {
        "window": "--window 16", "block-diagonal": "--block 16", "strided": "--stride 16",
        "fixed": "--stride 16 --summary 4", "log-sparse": "", "longformer": "--window 16",
        "bigbird": "--block 4 --globals 1 --window 3 --random 2"},
    "averages": {"combiner-fixed": "--block 16", "log-linear": "", "linear": ""},
    "content": {
        "routing": "", "reformer": "", "nsa": "--block 16", "moba": "--block 16", "dsa": "",
        "zeta": "--block 16", "biformer": ""}}
SCHEDULES = {f"{preset}, N = {steps}": f"--preset {preset} --steps {steps}"
             for preset in ("nstep", "aligned") for steps in (2, 3, 4)}


def answer(program, *arguments):
    """The JSON of a command; a context that is not covered is an answer too."""
    done = subprocess.run([program, *arguments, "--json"], capture_output=True, text=True,
                          check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{COMMAND}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def verified(program, length, options):
    return answer(program, "verify", "--length", str(length), *shlex.split(options))


def reach(program, options):
    """Of one layer, and how many layers it takes to reach every key; None: it never does."""
    report = verified(program, LENGTH, options)
    first = report["first_excluded"]
    return {"excluded_pairs": report["excluded_pairs"],
            "first_excluded": first and [first["position"], first["key"]],
            "averaged_pairs": report.get("averaged_pairs", 0),
            "layers": verified(program, LENGTH, f"{options} --layers closure")["layers"]["needed"]}


def counted(program, options, work):
    """The work of all queries by length."""
    run, = answer(program, "scale", "--lengths", ",".join(map(str, LENGTHS)),
                  "--samples", str(SAMPLES), *shlex.split(options))["runs"]
    return {"counted": run["schedule"],
            "points": [{"length": point["length"], "work": point[work]}
                       for point in run["points"]]}


def records(program):
    for group, patterns in PATTERNS.items():
        for name, options in patterns.items():
            yield {"name": name, "group": group, "options": options,
                   **reach(program, f"--pattern {name} {options}"),
                   **counted(program, f"--pattern {name}", "work")}
    for name, options in SCHEDULES.items():
        yield {"name": name, "group": "schedules", "options": options, **reach(program, options),
               **counted(program, f"{options} --top-k 1", "drawn_work")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("program")
    reporting.arguments(parser)
    arguments = parser.parse_args()
    begin = time.monotonic()
    found = list(records(arguments.program))
    reporting.write(arguments, {"command": COMMAND, "length": LENGTH, "samples": SAMPLES,
                                "records": found, "seconds": time.monotonic() - begin})


if __name__ == "__main__":
    main()
