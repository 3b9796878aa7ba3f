#!/usr/bin/env python3
"""A small model trains from one start on one sequence of batches: in float64 through the oracle, and
in bf16 through the kernels.

Usage: training_curve.py --device cpu|cuda --output FILE [--steps COUNT]
                         [--commit HASH] [--dirty yes|no]

cuda: the kernels in bf16. cpu: the oracle in float64; then the oracle in bf16, which is what bf16
alone does to the curve, from this start and from others that lie less than its rounding away; and
in float64 with a search that does not learn, which a comparison of curves should notice. bf16 is
autocast, with float32 weights that Adam moves; in float64 there is no autocast. Initial weights and
tokens come of integers by exact arithmetic, the same bits on every machine: the digests tell.

Needs PyTorch and the package. Writes JSON, whole or not at all.
"""

import argparse
import hashlib
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
from torch import nn

import multistep
from multistep.torch import MultiStepAttention

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import reporting
from blocks import Block
from draws import Draws

COMMAND = "experiments/studies/training_curve.py"
TOKENS, LENGTH, BATCH = 16, 256, 8
PERIODS = (16, 32)  # each sequence repeats random tokens after as many, drawn from this range
WIDTH, HEADS, KV_HEADS, HEAD_DIM = 64, 2, 1, 64
LAYERS = (  # schedule, accumulation
    (multistep.Schedule(steps=2, window_index=2), "ema"),
    (multistep.Schedule(steps=3, window_index=1), None),
)
RATE, BETAS = 4e-3, (0.9, 0.98)  # of Adam
STEPS = 500
WEIGHTS, DATA = 1, 2  # seeds
CONTROLS = (None, 3, 4, 5)  # seeds of how their starts are moved
BF16 = 2.0**-8  # from a number in [1, 2) to the next


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, MultiStepAttention(
            WIDTH, HEADS, KV_HEADS, HEAD_DIM, schedule, accumulation=accumulation,
            rotary=10000.0)) for schedule, accumulation in LAYERS)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@torch.no_grad()
def started(seen):
    """The model in float64 at its start: matrices of variance 1 / inputs, embeddings of 1; vectors
    as their layers begin, without biases."""
    model, draws = Model().double(), Draws(WEIGHTS)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            inputs = 1 if name == "embed.weight" else weight.shape[1]
            weight.copy_(draws.centred(weight.shape) * math.sqrt(3 / inputs))
            seen.update(weight.numpy().tobytes())
        elif name.endswith("bias"):
            weight.zero_()
    return model


@torch.no_grad()
def move(model, seed):
    """Weights move by less than half of what lies between neighbours in bf16."""
    draws = Draws(seed)
    for weight in model.parameters():
        weight.mul_(1 + BF16 / 4 * draws.centred(weight.shape))


def batches(steps, seen):
    """Tokens of each step, [batch, length]."""
    draws = Draws(DATA)
    low, high = PERIODS
    for _ in range(steps):
        periods = low + draws.below(high - low, BATCH)
        tokens = np.stack([np.resize(draws.below(TOKENS, int(period)), LENGTH)
                           for period in periods])
        seen.update(tokens.tobytes())
        yield torch.from_numpy(tokens)


def loss_of(model, tokens):
    """Cross entropy of what can be known: the tokens after the longest period."""
    begin = PERIODS[1]
    said = model(tokens)[:, begin - 1 : -1]
    return nn.functional.cross_entropy(said.flatten(0, 1), tokens[:, begin:].flatten())


def train(name, device, steps, *, narrow, moved=None, searches=True):
    """A run, and the digests of its weights before they are moved and of its tokens."""
    weights, seen = hashlib.sha256(), hashlib.sha256()
    model = started(weights)
    if moved is not None:
        move(model, moved)
    model.to(device, torch.float32 if narrow else torch.float64)
    if not searches:
        for block in model.blocks:
            block.attention.routing.requires_grad_(False)
    adam = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), RATE, BETAS,
                            foreach=False)
    losses, begin = [], time.monotonic()
    shown = sys.stderr.isatty()
    for step, tokens in enumerate(batches(steps, seen), 1):
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            loss = loss_of(model, tokens.to(device))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            sys.exit(f"{COMMAND}: {name}: loss {losses[-1]} at step {step}")
        if shown or step % 100 == 0:
            print(f"\r{name}: step {step} of {steps}, loss {losses[-1]:.4f}",
                  end="" if shown else "\n", file=sys.stderr, flush=True)
    if shown:
        print("\r\033[K", end="", file=sys.stderr)
    run = {"run": name, "dtype": "bfloat16" if narrow else "float64", "moved": moved,
           "losses": losses, "seconds": time.monotonic() - begin}
    return run, {"weights": weights.hexdigest(), "tokens": seen.hexdigest()}


def kernels():
    """Which ones the layers run; slow ones are refused."""
    plans = [multistep.plan(LENGTH, schedule, queries=LENGTH, batch=BATCH, num_heads=HEADS,
                            num_kv_heads=KV_HEADS, head_dim=HEAD_DIM) for schedule, _ in LAYERS]
    for plan in plans:
        if not plan.fast:
            sys.exit(f"{COMMAND}: no fast kernels\n{plan}")
    return [[name for stage in plan.stages for name in stage.kernels] for plan in plans]


def runs(device, steps):
    """All of a device, each with its digests."""
    if device == "cuda":
        yield train("kernels", device, steps, narrow=True)
        return
    yield train("oracle", device, steps, narrow=False)
    for seed in CONTROLS:
        yield train("control", device, steps, narrow=True, moved=seed)
    yield train("fault", device, steps, narrow=False, searches=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    reporting.arguments(parser)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    if given.steps < 1:
        parser.error(f"--steps {given.steps}: an integer >= 1")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.exit(77, f"{COMMAND}: no CUDA device\n")
    begin = time.monotonic()
    device = reporting.processor()
    planned = None
    if given.device == "cuda":
        device = {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        planned = kernels()
    found = list(runs(given.device, given.steps))
    command = f"{COMMAND} --device {given.device}"
    if given.steps != STEPS:
        command += f" --steps {given.steps}"
    reporting.write(given, {
        "command": command, "device": device, "torch": torch.__version__,
        "model": {"width": WIDTH, "num_heads": HEADS, "num_kv_heads": KV_HEADS,
                  "head_dim": HEAD_DIM, "layers": [
                      {"schedule": repr(schedule), "accumulation": accumulation}
                      for schedule, accumulation in LAYERS]},
        "task": {"tokens": TOKENS, "length": LENGTH, "batch": BATCH, "periods": PERIODS},
        "optimizer": {"name": "Adam", "rate": RATE, "betas": BETAS},
        "seeds": {"weights": WEIGHTS, "tokens": DATA},
        "digests": found[0][1], "kernels": planned, "runs": [run for run, _ in found],
        "seconds": time.monotonic() - begin})


if __name__ == "__main__":
    main()
