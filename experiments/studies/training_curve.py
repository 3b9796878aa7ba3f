#!/usr/bin/env python3
"""Does training in bf16 on the kernels follow training in float64 on the oracle?

Two layers of multistep.torch.MultiStepAttention learn from random weights to repeat a sequence of
tokens, on the same data and from the same weights: on the CPU in float64 through the oracle, on a
GPU in bf16 (autocast, weights and Adam in float32) through the kernels. The controls are the
float64 run again from weights rounded to bf16 with another seed each: how far apart rounding alone
drives two right runs.

    training_curve.py --device cpu|cuda --output FILE [--steps N]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time

import torch
from torch import Tensor, nn

from multistep import Schedule
from multistep.torch import MultiStepAttention

TOKENS, WIDTH, LENGTH, PERIOD, BATCH = 16, 64, 192, 40, 4
LEARNING_RATE = 0.003
CONTROLS = 4
SEED = 1


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.layers = nn.ModuleList(
            MultiStepAttention(WIDTH, 2, 1, 64, schedule, rotary=1000.0, accumulation=kind)
            for schedule, kind in ((Schedule(window_index=2), None), (Schedule(3), "ema")))
        self.mixers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
            for _ in self.layers)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for i, (layer, mixer) in enumerate(zip(self.layers, self.mixers)):
            x = x + layer(self.norms[2 * i](x))
            x = x + mixer(self.norms[2 * i + 1](x))
        return self.head(self.norms[4](x))


def train(device: str, steps: int, rounded: int | None) -> list[float]:
    """Losses by step. With ``rounded`` weights are rounded to bf16 at random first, by that seed."""
    torch.manual_seed(SEED)
    model = Model().double()
    if rounded is not None:
        noise = torch.Generator().manual_seed(rounded)
        with torch.no_grad():
            for weight in model.parameters():
                # Half an ulp of bf16 either way, of every weight.
                weight *= 1 + 2**-8 * (torch.rand(weight.shape, generator=noise) - 0.5)
    if device == "cuda":
        model = model.float().cuda()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    data = torch.Generator().manual_seed(SEED)
    losses = []
    for step in range(steps):
        period = torch.randint(TOKENS, (BATCH, PERIOD), generator=data)
        tokens = period.repeat(1, -(-LENGTH // PERIOD))[:, :LENGTH].to(device)
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            said = model(tokens)[:, PERIOD - 1 : -1].flatten(0, 1)
        wide = said if said.dtype == torch.float64 else said.float()
        loss = nn.functional.cross_entropy(wide, tokens[:, PERIOD:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if sys.stderr.isatty() and step % 10 == 0:
            print(f"\rstep {step} of {steps}: loss {loss.item():.4f}", end="", file=sys.stderr)
    return losses


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--commit", help="where this is no git checkout")
    parser.add_argument("--dirty", choices=("yes", "no"), default="no")
    given = parser.parse_args()
    began = time.monotonic()
    git = ["git", "rev-parse", "HEAD"]
    commit = given.commit or subprocess.run(git, check=True, capture_output=True,
                                            text=True).stdout.strip()
    seeds = [None] if given.device == "cuda" else [None, *range(1, CONTROLS + 1)]
    runs = [{"rounded": seed, "losses": train(given.device, given.steps, seed)} for seed in seeds]
    cuda = given.device == "cuda"
    result = {
        "command": f"experiments/studies/training_curve.py --device {given.device} "
                   f"--steps {given.steps}",
        "commit": commit, "dirty": given.dirty, "seed": SEED,
        "seconds": round(time.monotonic() - began, 1),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "dtype": "bfloat16" if cuda else "float64", "torch": torch.__version__,
        "task": {"tokens": TOKENS, "width": WIDTH, "length": LENGTH, "period": PERIOD,
                 "batch": BATCH, "learning_rate": LEARNING_RATE},
        "runs": runs}
    partial = given.output.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.rename(given.output)


if __name__ == "__main__":
    run()
