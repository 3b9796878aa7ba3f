"""Small transformers that differ in their attention alone."""

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import nn

import multistep
import multistep.torch
from multistep.torch import MultiStepAttention

from blocks import Block


@dataclass(frozen=True)
class Model:
    """What is trained."""

    rule: str
    """dense, paper, nstep, even or aligned; window, which is nstep without its search; or random,
    even with a search that chooses at random."""
    steps: int = 2
    accumulation: Optional[str] = None
    """What the search looks at: None, "ema" or "ssd", as in MultiStepAttention; "parts", means of
    each level's parts, for aligned."""
    window_index: int = 0
    top_k: int = 2
    own_routing: bool = True
    """False: the search has the query in place of routing queries, as in MoBA."""
    layers: int = 2
    width: int = 128
    heads: int = 2

    @property
    def schedule(self):
        """Of its attention."""
        if self.rule == "dense":
            return multistep.Schedule(steps=1)
        rule = {"window": "nstep", "random": "even"}.get(self.rule, self.rule)
        return multistep.Schedule.preset(rule, steps=self.steps, top_k=self.top_k,
                                         window_index=self.window_index)

    def __str__(self):
        if self.rule in ("dense", "window", "random"):
            return self.rule
        parts = [self.rule, f"N = {self.steps}", self.accumulation or "keys"]
        if self.top_k != 2:
            parts.append(f"top_k {self.top_k}")
        return ", ".join(parts if self.own_routing else [*parts, "no routing queries"])


class Attention(MultiStepAttention):
    """The package's layer, with three searches more, and with what it found kept for measures.

    window: search keys are NaN, and what has no score is not selected (SPEC 3): each query sees its
    window alone. random: routing queries and search keys are random numbers that hang on the
    layer and the position alone, of scores so small that gates are equal: the work of a search that
    learns nothing. parts: means of each level's parts, side by side in head_dim. There are neither
    rotary positions nor a cache: the embedding tells what order there is.
    """

    def __init__(self, model, layer):
        super().__init__(model.width, model.heads, schedule=model.schedule,
                         accumulation={"parts": None}.get(model.accumulation, model.accumulation))
        self.model, self.layer = model, layer
        if model.rule in ("window", "random") or not model.own_routing:
            self.routing = nn.ModuleList()
        self.top_k = None  # another than the schedule's, for a while
        self.noise = 0.0  # of routing queries, over their own size
        self.found = None  # routing queries, search keys and what attend gives

    def forward(self, x):
        q, k, v, *routing = (layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                             .contiguous() for layer in (self.q, self.k, self.v, *self.routing))
        keys, levels = None, self.schedule.steps - 1
        if self.model.rule == "window":
            routing, keys = [q] * levels, torch.full_like(k, math.nan)
        elif self.model.rule == "random":
            seed = (self.layer << 32) + x.shape[1]
            fixed = torch.Generator(x.device).manual_seed(seed)
            keys, *routing = torch.randn(levels + 1, *k.shape[1:], device=x.device, dtype=k.dtype,
                                         generator=fixed)[:, None].expand(-1, *k.shape)
            routing = [one * 2.0**-10 for one in routing]
        elif not self.model.own_routing:
            routing = [q] * levels
        if self.model.accumulation == "parts":
            keys, routing = self._part_means(k, routing)
        elif self.accumulation is not None:
            keys = self._search_keys(x, k, None, 0, None, None)
        if self.noise:
            routing = [one + self.noise * one.detach().square().mean().sqrt()
                       * torch.randn_like(one) for one in routing]
        found = multistep.torch.attend(q, k, v, routing, self.schedule, top_k=self.top_k,
                                       search_scale=self.search_scale, search_keys=keys)
        self.found = routing, k if keys is None else keys, found
        return self.out(found.output.transpose(1, 2).flatten(2))

    def _part_means(self, k, routing):
        """Search keys, and routing queries that are zero in the places of other levels. Parts are
        those of the last query's context; earlier ones, whose parts may be shorter, see means that
        began before them."""
        batch, heads, length, _ = k.shape
        parts = self.schedule.part_lengths(max(1, length - self.model.window_index))
        size = -(-self.head_dim // len(parts) // 8) * 8  # rows of whole 16 bytes in short types
        means = []
        for one, part in zip(k.split(size, -1), parts):
            pooling = multistep.part_pooling(part, batch, heads, length, dtype="float32")
            means.append(multistep.torch.accumulate(
                one.contiguous(), *(torch.from_numpy(array).to(one) for array in pooling))[0])
        at = torch.arange(self.head_dim, device=k.device) // size
        return torch.cat(means, -1), [one * (at == level) for level, one in enumerate(routing)]


class Transformer(nn.Module):
    """Says a value at each position asked. Each token comes with the one before it, as after a
    short convolution: a value with its key. That is all that is told of positions."""

    def __init__(self, model, task):
        super().__init__()
        self.embed = nn.Embedding(task.tokens, model.width)
        self.before = nn.Linear(model.width, model.width, bias=False)
        self.blocks = nn.ModuleList(Block(model.width, Attention(model, layer))
                                    for layer in range(model.layers))
        self.norm = nn.LayerNorm(model.width)
        self.head = nn.Linear(model.width, task.values)

    @property
    def attentions(self):
        """The layers that search."""
        return [block.attention for block in self.blocks]

    def forward(self, tokens, asked):
        """Logits of values [size, queries, values]."""
        x = self.embed(tokens)
        x = x + nn.functional.pad(self.before(x)[:, :-1], (0, 0, 1, 0))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, asked]))
