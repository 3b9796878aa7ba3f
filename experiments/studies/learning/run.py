#!/usr/bin/env python3
"""Trains small models on tasks whose answers are known, and measures whether their searches learn.

Usage: run.py --plan NAME [NAME ...] --device cpu|cuda --output FILE [--minutes COUNT]
              [--workers COUNT] [--first COUNT] [--list] [--commit HASH] [--dirty yes|no]

Runs of FILE that the plans have are kept, of whatever commit, and others added, each whole. After
--minutes it stops, within a run too: the same command goes on there, from a checkpoint beside FILE.
--workers processes train at once, on all GPUs in turn: the same results, but times are of shared
ones. --first takes the first runs alone; --list tells which are done.

Needs PyTorch and the package. Writes JSON, whole or not at all.
"""

import argparse
import json
import math
import multiprocessing
import pathlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

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


def begin_worker(device, numbers):
    """Of several: it has one of the GPUs."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(numbers.get() % torch.cuda.device_count())


def begun_in_time(run, device, checkpoint, deadline):
    """Its record; None where the deadline came, before it began or within it."""
    return None if time.monotonic() > deadline else train(run, device, checkpoint, deadline)


def trained(runs, workers, device, checkpoint, deadline):
    """Each run and its record, as they end; a record is None where the deadline came, and then no
    other run begins."""
    if workers == 1:
        for run in runs:
            record = train(run, device, checkpoint(run), deadline, progress(run))
            yield run, record
            if record is None:
                return
        return
    spawning = multiprocessing.get_context("spawn")  # CUDA lives through no fork
    numbers = spawning.Queue()
    for number in range(workers):
        numbers.put(number)
    with ProcessPoolExecutor(workers, spawning, begin_worker, (device, numbers)) as pool:
        pending = {pool.submit(begun_in_time, run, device, checkpoint(run), deadline): run
                   for run in runs}
        for one in as_completed(pending):
            yield pending[one], one.result()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    reporting.arguments(parser)
    parser.add_argument("--plan", nargs="+", choices=PLANS, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first", type=int)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if not given.minutes >= 0:
        parser.error(f"--minutes {given.minutes}: a number >= 0")
    for name in ("workers", "first"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            parser.error(f"--{name} {getattr(given, name)}: an integer >= 1")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.exit(77, f"{COMMAND}: no CUDA device\n")
    device = reporting.processor()
    if given.device == "cuda":
        device = {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    begin = time.monotonic()
    runs, spent = done_before(given.output, device)
    done = {run["digest"] for run in runs}
    plan = {run.digest: run for name in given.plan for run in PLANS[name]()}  # some are in several
    plan = list(plan.values())[:given.first]
    if given.list:
        for run in plan:
            print("done" if run.digest in done else "    ", run)
        return
    command = f"{COMMAND} --plan {' '.join(given.plan)} --device {given.device}"
    for name in ("workers", "first"):
        if getattr(given, name) != parser.get_default(name):
            command += f" --{name} {getattr(given, name)}"

    def checkpoint(run):
        return given.output.with_name(f"{given.output.name}.{run.digest}.checkpoint")

    for run, record in trained([run for run in plan if run.digest not in done], given.workers,
                               given.device, checkpoint, begin + 60 * given.minutes):
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        if record is None:
            continue
        runs.append({**record, "workers": given.workers, "commit": given.commit,
                     "dirty": given.dirty})
        done.add(run.digest)
        reporting.write(given, {
            "command": command, "device": device, "torch": torch.__version__, "runs": runs,
            "seconds": spent + time.monotonic() - begin})
        checkpoint(run).unlink(missing_ok=True)
        last = record["grid"][-1] if record["grid"] else {"length": 0, "accuracy": 0.0}
        print(f"{run}: {'solved' if record['solved'] else 'not solved'} in {record['steps']} steps, "
              f"{record['seconds']:.0f} s; accuracy {last['accuracy']:.3f} at {last['length']}",
              flush=True)
    left = sum(run.digest not in done for run in plan)
    print(f"{len(plan) - left} of {len(plan)} runs of {' '.join(given.plan)} are done")


if __name__ == "__main__":
    main()
