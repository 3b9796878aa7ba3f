"""What the Python experiments share: where a result comes from, and how it is written."""

import json
import os
import pathlib
import platform


def arguments(parser):
    """Where an experiment writes to, and what was built."""
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--commit", default="unknown")
    parser.add_argument("--dirty", choices=("yes", "no"), default="no")


def processor():
    """The processor: its name, as the system tells it, and the cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {"name": name, "cores": len(os.sched_getaffinity(0))}


def write(given, result):
    """A result behind its commit, whole or not at all."""
    command = result.pop("command")
    result = {"command": command, "commit": given.commit, "dirty": given.dirty, **result}
    partial = given.output.with_name(given.output.name + ".partial")
    partial.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    partial.replace(given.output)
