"""Trains a model along a curriculum; stopped at any step, it goes on as if it had not been."""

import hashlib
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import Optional

import torch
from torch import nn

from .measures import autocast, measured
from .models import Model, Transformer
from .tasks import TASKS

BETAS = (0.9, 0.98)  # of Adam
WARM = 100  # steps in which its rate rises
MEAN = 20  # batches, all of them new, over which accuracies are averaged
HELPS = ("top_k", "noise", "entropy", "distillation")
EARLY = 1000  # steps of what helps early
SAVED = 60.0  # seconds between checkpoints


@dataclass(frozen=True)
class Stage:
    """A length of a curriculum: trained at until it is solved, or its steps run out."""

    length: int
    batch: int
    most: int
    """Steps."""


@dataclass(frozen=True)
class Run:
    """A line of a plan."""

    task: str
    model: Model
    seed: int
    stages: tuple[Stage, ...]
    lengths: tuple[int, ...]
    """To be measured at."""
    rate: float = 3e-3
    enough: float = 0.75
    """Of the answers, on average over MEAN batches: then a length is solved."""
    further: int = 500
    """Steps at the last length after it is solved."""
    help: Optional[str] = None
    """One of HELPS; None: the loss of the answers alone.
    top_k: eight paths are kept in the first EARLY steps. noise: routing queries have random numbers
    added of half their size, falling to none at EARLY, which is noise on path scores. entropy: so
    long, gates are rewarded for being even. distillation: in the first stage 16 paths are kept, and
    gates learn each span's share of dense attention's mass, which is exp(LSE)."""

    def __str__(self):
        lengths = ", ".join(str(stage.length) for stage in self.stages)
        return "; ".join((self.task, f"{self.model}, {self.model.layers} layers", lengths,
                          *([self.help] if self.help else []),
                          *([f"rate {self.rate}"] if self.rate != Run.rate else []),
                          f"seed {self.seed}"))

    @property
    def digest(self):
        """Tells this run from all others."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


class Training:
    """A run between two steps: all that a checkpoint holds."""

    def __init__(self, run, device):
        self.run, self.device, self.task = run, device, TASKS[run.task]
        torch.manual_seed(run.seed)
        self.model = Transformer(run.model, self.task).to(device)
        self.adam = torch.optim.Adam(self.model.parameters(), run.rate, BETAS)
        self.stages = []  # records of those begun
        self.recent = []  # accuracies of the stage's last batches
        self.curve = []  # [step, loss, accuracy], means over MEAN steps
        self.sums = [0, 0.0, 0.0]
        self.grid = []  # what is measured
        self.total, self.diverged = 0, False
        self.seconds = 0.0

    KEPT = ("stages", "recent", "curve", "sums", "grid", "total", "diverged", "seconds")

    def save(self, path):
        """Whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        torch.save({"model": self.model.state_dict(), "adam": self.adam.state_dict(),
                    **{name: getattr(self, name) for name in self.KEPT}}, partial)
        os.replace(partial, path)

    def load(self, path):
        """What was saved of the same run."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state.pop("model"))
        self.adam.load_state_dict(state.pop("adam"))
        vars(self).update(state)

    @property
    def trained(self):
        """Whether the last stage is solved and trained further, or its steps have run out."""
        if self.diverged or not self.at_last:
            return self.diverged
        solved = self.stages[-1]["solved"]
        return self.over if solved is None else (
            self.stages[-1]["steps"] == solved + self.run.further)

    @property
    def over(self):
        """Whether the stage is solved or its steps have run out."""
        stage = self.stages[-1]
        return stage["solved"] is not None or (
            stage["steps"] == self.run.stages[len(self.stages) - 1].most)

    @property
    def at_last(self):
        """Whether the last length is trained at."""
        return len(self.stages) == len(self.run.stages)

    def step(self):
        """One batch."""
        begin = time.perf_counter()
        if not self.stages or (self.over and not self.at_last):
            stage = self.run.stages[len(self.stages)]
            self.stages.append({"length": stage.length, "batch": stage.batch, "steps": 0,
                                "solved": None, "seconds": 0.0, "peak_bytes": None})
            self.recent = []
        stage = self.stages[-1]
        stage["steps"] += 1
        self.total += 1
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        loss, accuracy = self.learn(self.task.batch(
            stage["length"], stage["batch"], (self.run.seed, len(self.stages), stage["steps"])))
        if self.device == "cuda":
            stage["peak_bytes"] = max(stage["peak_bytes"] or 0, torch.cuda.max_memory_allocated())
        if not math.isfinite(loss):
            self.diverged = True
            return
        self.recent = [*self.recent, accuracy][-MEAN:]
        if stage["solved"] is None and len(self.recent) == MEAN and (
                sum(self.recent) >= self.run.enough * MEAN):
            stage["solved"] = stage["steps"]
        count, losses, accuracies = self.sums
        self.sums = [count + 1, losses + loss, accuracies + accuracy]
        if self.sums[0] == MEAN:
            self.curve.append([self.total, self.sums[1] / MEAN, self.sums[2] / MEAN])
            self.sums = [0, 0.0, 0.0]
        stage["seconds"] += time.perf_counter() - begin

    def learn(self, batch):
        """Loss and accuracy of a batch, by which the weights move."""
        run, early = self.run, max(0.0, 1 - (self.total - 1) / EARLY)
        torch.manual_seed(self.total)
        for layer in self.model.attentions:
            layer.top_k = 8 if run.help == "top_k" and early else None
            layer.noise = 0.5 * early if run.help == "noise" else 0.0
            if run.help == "distillation" and len(self.stages) == 1:
                layer.top_k = 16
        for group in self.adam.param_groups:
            group["lr"] = run.rate * min(1.0, self.total / WARM)
        labels = batch.labels.to(self.device)
        with autocast(self.device):
            said = self.model(batch.tokens.to(self.device), batch.asked.to(self.device))
        loss = nn.functional.cross_entropy(said.float().flatten(0, 1), labels.flatten())
        whole = loss
        if run.help == "entropy" and early:
            whole = loss - 0.05 * early * sum(map(evenness, self.found()))
        if run.help == "distillation" and len(self.stages) == 1:
            whole = loss + 0.1 * sum(map(distillation, self.found()))
        self.adam.zero_grad()
        whole.backward()
        self.adam.step()
        for layer in self.model.attentions:
            layer.top_k, layer.noise, layer.found = None, 0.0, None
        return loss.item(), (said.argmax(-1) == labels).double().mean().item()

    def found(self):
        """What attend gave in each layer."""
        return [layer.found[-1] for layer in self.model.attentions]

    def record(self):
        """What a result holds of it."""
        run = self.run
        return {"run": str(run), "digest": run.digest, "task": run.task,
                "model": {"label": str(run.model), **asdict(run.model),
                          "schedule": repr(run.model.schedule)},
                "seed": run.seed, "rate": run.rate, "enough": run.enough,
                "further": run.further, "help": run.help,
                "curriculum": [stage.length for stage in run.stages],
                "steps": sum(stage["solved"] or stage["steps"] for stage in self.stages),
                "solved": self.at_last and self.stages[-1]["solved"] is not None,
                "diverged": self.diverged, "stages": self.stages, "curve": self.curve,
                "grid": self.grid, "seconds": self.seconds}


def used(found):
    """Rows with several paths, and scores whose unused slots weigh nothing."""
    some = found.scores > -math.inf
    return some.sum(-1) > 1, torch.where(some, found.scores.float(), -1e9)


def evenness(found):
    """The mean entropy of gates, of the most there can be with two paths."""
    rows, scores = used(found)
    shares = scores.log_softmax(-1)
    return -(shares.exp() * shares).sum(-1)[rows].mean() / math.log(2)


def distillation(found):
    """Cross entropy of gates and the spans' shares of dense attention's mass."""
    rows, scores = used(found)
    mass = torch.where(found.lse.isfinite(), found.lse.float(), -1e9).detach().softmax(-1)
    return -(mass * scores.log_softmax(-1)).sum(-1)[rows].mean()


def train(run, device, checkpoint, deadline, say=None):
    """The record of a run; None where the deadline (of time.monotonic) came first, or a checkpoint
    was left for the next call. ``say`` is told of progress."""
    training = Training(run, device)
    if checkpoint.exists():
        training.load(checkpoint)
    began, saved, before = time.monotonic(), time.monotonic(), training.seconds

    def pause():
        training.seconds = before + time.monotonic() - began
        training.save(checkpoint)

    while not training.trained:
        if time.monotonic() > deadline:
            pause()
            return None
        training.step()
        if say and training.total % MEAN == 0 and training.curve:
            _, loss, accuracy = training.curve[-1]
            say(f"length {training.stages[-1]['length']}, step {training.total}, "
                f"loss {loss:.3f}, accuracy {accuracy:.3f}")
        if time.monotonic() > saved + SAVED:
            pause()
            saved = time.monotonic()
    for length in run.lengths[len(training.grid):] if not training.diverged else ():
        if time.monotonic() > deadline:
            pause()
            return None
        training.grid.append(measured(training.model, training.task, length, run.seed, device))
        if say:
            say(f"measured at {length}: accuracy {training.grid[-1]['accuracy']:.3f}")
        pause()
    training.seconds = before + time.monotonic() - began
    return training.record()


def progress(name):
    """Tells of a run in one line of a terminal; elsewhere now and then, in lines of their own."""
    shown, last = sys.stderr.isatty(), [0.0]

    def say(text):
        if shown:
            print(f"\r\033[K{name}: {text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() > last[0] + 10:
            print(f"{name}: {text}", file=sys.stderr, flush=True)
            last[0] = time.monotonic()

    return say
