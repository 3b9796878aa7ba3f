#!/usr/bin/env python3
"""What training costs beside what a reader has: PyTorch's SDPA (FlashAttention and cuDNN) and
multistep.torch.attention, forward and forward + backward, in one run on one GPU.

    sdpa_times.py --output FILE [--lengths 16384,65536]
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import multistep.torch
from multistep import Schedule

HEADS, KV_HEADS, HEAD_DIM = 32, 2, 128
SDPA = {"FlashAttention": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
OURS = {"A": Schedule.preset("paper", window_index=31), "nstep2": Schedule(2),
        "nstep3": Schedule(3), "aligned2": Schedule.preset("aligned", 2),
        "aligned3": Schedule.preset("aligned", 3)}


def median_ms(work: Callable[[], Any], repeats: int = 7) -> float:
    """Of so many runs after two."""
    times = []
    for repeat in range(repeats + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if repeat > 1:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def measured(name: str, length: int, attend: Callable[..., Tensor], leaves: list[Tensor],
             by_output: Tensor) -> dict[str, Any]:
    def forward() -> Tensor:
        with torch.no_grad():
            return attend(*leaves)

    def both() -> None:
        torch.autograd.grad(attend(*leaves), leaves, by_output)

    gc.collect()  # what was measured before is not held
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    record = {"name": name, "length": length, "forward_ms": median_ms(forward),
              "forward_backward_ms": median_ms(both)}
    record["peak_bytes"] = torch.cuda.max_memory_allocated() - held  # beside inputs
    print(record, file=sys.stderr)
    return record


def lengths(text: str) -> list[int]:
    """Of the option."""
    found = [int(one) if one.isdecimal() else 0 for one in text.split(",")]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text}: integers >= 1, separated by commas")
    return found


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=lengths, default="16384,65536")
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--commit", help="where this is no git checkout")
    parser.add_argument("--dirty", choices=("yes", "no"), default="no")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(77, "sdpa_times.py: no CUDA device\n")
    commit = given.commit or subprocess.run(["git", "rev-parse", "HEAD"], check=True, text=True,
                                            capture_output=True).stdout.strip()
    records = []
    for length in given.lengths:
        torch.manual_seed(1)

        def array(heads: int) -> Tensor:
            return torch.randn(1, heads, length, HEAD_DIM, device="cuda", dtype=torch.bfloat16,
                               requires_grad=True)

        q, k, v, by_output = array(HEADS), array(KV_HEADS), array(KV_HEADS), array(HEADS).detach()
        for name, schedule in OURS.items():
            routing = [array(HEADS) for _ in range(schedule.steps - 1)]
            records.append(measured(name, length, lambda q, k, v, *routing: (
                multistep.torch.attention(q, k, v, list(routing), schedule)),
                [q, k, v, *routing], by_output))
        wide = [one.detach().repeat_interleave(HEADS // KV_HEADS, 1).requires_grad_()
                for one in (k, v)]
        for name, backend in SDPA.items():
            with sdpa_kernel(backend):
                records.append(measured(name, length, lambda q, k, v: (
                    torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)),
                    [q, *wide], by_output))
    listed = ",".join(map(str, given.lengths))
    result = {"command": f"experiments/sdpa_times.py --lengths {listed}", "commit": commit,
              "dirty": given.dirty, "device": torch.cuda.get_device_name(),
              "torch": torch.__version__,
              "shape": {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM,
                        "dtype": "bfloat16"},
              "records": records}
    partial = given.output.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.rename(given.output)


if __name__ == "__main__":
    run()
