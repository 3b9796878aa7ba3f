#!/usr/bin/env python3
"""Trains small models on tasks whose answers are known, and measures whether their searches learn.

Usage: run.py --plan NAME --device cpu|cuda --output FILE [--minutes COUNT] [--first COUNT] [--list]
              [--commit HASH] [--dirty yes|no]

Runs of FILE that the plan has are kept, of whatever commit, and others added, each whole. After
--minutes it stops, within a run too: the same command goes on there, from a checkpoint beside FILE.
--first takes the first runs of the plan alone; --list tells which are done.

Needs PyTorch and the package. Writes JSON, whole or not at all.
"""

import argparse
import json
import math
import pathlib
import sys
import time

import torch

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[at]) for at in (1, 2)]
import reporting
from learning.plans import PLANS
from learning.training import progress, train

COMMAND = "experiments/studies/learning/run.py"


def done_before(output, device):
    """What an output file holds already, of the same kind of device."""
    if not output.exists():
        return [], 0.0
    before = json.loads(output.read_text())
    if before["device"]["name"] != device["name"]:
        sys.exit(f"{COMMAND}: {output}: of {before['device']['name']}, here is {device['name']}")
    return before["runs"], before["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    reporting.arguments(parser)
    parser.add_argument("--plan", choices=PLANS, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--first", type=int)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if not given.minutes >= 0:
        parser.error(f"--minutes {given.minutes}: a number >= 0")
    if given.first is not None and given.first < 1:
        parser.error(f"--first {given.first}: an integer >= 1")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.exit(77, f"{COMMAND}: no CUDA device\n")
    device = reporting.processor()
    if given.device == "cuda":
        device = {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    begin = time.monotonic()
    runs, spent = done_before(given.output, device)
    done, plan = {run["digest"] for run in runs}, PLANS[given.plan]()[:given.first]
    if given.list:
        for run in plan:
            print("done" if run.digest in done else "    ", run)
        return
    command = f"{COMMAND} --plan {given.plan} --device {given.device}"
    if given.first is not None:
        command += f" --first {given.first}"
    for run in plan:
        if run.digest in done:
            continue
        checkpoint = given.output.with_name(f"{given.output.name}.{run.digest}.checkpoint")
        record = train(run, given.device, checkpoint, begin + 60 * given.minutes, progress(run))
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        if record is None:
            break
        runs.append({**record, "commit": given.commit, "dirty": given.dirty})
        done.add(run.digest)
        reporting.write(given, {
            "command": command, "device": device, "torch": torch.__version__, "runs": runs,
            "seconds": spent + time.monotonic() - begin})
        checkpoint.unlink(missing_ok=True)
        last = record["grid"][-1] if record["grid"] else {"length": 0, "accuracy": 0.0}
        print(f"{run}: {'solved' if record['solved'] else 'not solved'} in {record['steps']} steps, "
              f"{record['seconds']:.0f} s; accuracy {last['accuracy']:.3f} at {last['length']}",
              flush=True)
    left = sum(run.digest not in done for run in plan)
    print(f"{len(plan) - left} of {len(plan)} runs of {given.plan} are done")


if __name__ == "__main__":
    main()
