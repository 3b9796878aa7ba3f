"""A layer of multi-step attention for transformer blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn

from .._problem import Arguments
from .._recurrence import Recurrence
from ..schedule import Schedule
from . import calls

_MEMORIES = (4.0, 64.0)  # keys that accumulation averages at the start: first and last KV head's


@dataclasses.dataclass
class Cache:
    """What a layer keeps of sequences that it continues; ``MultiStepAttention.new_cache``."""

    k: Tensor
    """[batch, num_kv_heads, max_length, head_dim]"""
    v: Tensor
    search_keys: Optional[Tensor] = None
    """None where these are k."""
    state: Optional[Tensor] = None
    """Of the accumulation."""
    length: int = 0
    """Keys so far. To forget the last ones is to set it back, without accumulation."""

    def put(self, k: Tensor, v: Tensor, search_keys: Optional[Tensor]) -> None:
        """Appends keys."""
        last = self.length + k.shape[2]
        if last > self.k.shape[2]:
            raise ValueError(f"cache of {self.k.shape[2]} keys: {last} here")
        for room, new in ((self.k, k), (self.v, v), (self.search_keys, search_keys)):
            if room is not None and new is not None:
                room[:, :, self.length : last] = new
        self.length = last


class MultiStepAttention(nn.Module):
    """Causal self-attention that stands where an attention layer stands.

    Args:
        embed_dim: of the input and the output.
        num_heads, num_kv_heads: of queries, and of keys and values, num_heads by default.
        head_dim: embed_dim / num_heads by default.
        schedule: by default ``Schedule()``.
        accumulation: what the search looks at. None: the keys. "ema": their exponential moving
            average, whose decay every KV head learns. "ssd": a state space of them (SPEC 5), whose
            decays, inputs and outputs are projections of x.
        state: of "ssd", per KV head and channel.
        rotary: the base of rotary position embedding, 10000.0 for example; None: no embedding.
            Accumulation is of keys before it, and turned as if it all stood at the newest key.
        bias: of the projections.
        softmax_scale, search_scale: 1 / sqrt(head_dim) by default.

    Where x has unit variance, as after a norm, q, k, v, routing queries, logits and each level's
    scores begin with unit variance too: gates that rest on one span alone would send no gradient to
    the search, as scores without their scale would make them. Averages of keys are smaller.
    """

    def __init__(self, embed_dim: int, num_heads: int, num_kv_heads: Optional[int] = None,
                 head_dim: Optional[int] = None, schedule: Optional[Schedule] = None, *,
                 accumulation: Optional[str] = None, state: int = 16,
                 rotary: Optional[float] = None, bias: bool = False,
                 softmax_scale: Optional[float] = None, search_scale: Optional[float] = None,
                 device: Union[str, torch.device, None] = None,
                 dtype: Optional[torch.dtype] = None) -> None:
        super().__init__()
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(f"num_heads {num_heads}: divides embed_dim {embed_dim}")
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads {num_kv_heads}: divides num_heads {num_heads}")
        if accumulation not in (None, "ema", "ssd"):
            raise ValueError(f"accumulation {accumulation!r}: None, 'ema' or 'ssd'")
        if rotary is not None and self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim}: even beside rotary")
        self.schedule = Schedule() if schedule is None else schedule
        self.accumulation, self.state, self.rotary = accumulation, state, rotary
        self.softmax_scale = softmax_scale
        self.search_scale = self.head_dim**-0.5 if search_scale is None else search_scale

        def linear(outputs: int, inputs: int = embed_dim, bias: bool = bias) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias, device=device, dtype=dtype)

        width, kv_width = num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        self.q, self.k, self.v = linear(width), linear(kv_width), linear(kv_width)
        self.routing = nn.ModuleList(linear(width) for _ in range(self.schedule.steps - 1))
        self.out = linear(embed_dim, width)
        if accumulation == "ema":
            self.decay = nn.Parameter(torch.empty(self.num_kv_heads, device=device, dtype=dtype))
        elif accumulation == "ssd":
            self.gates = linear(self.num_kv_heads * (1 + 2 * state), bias=True)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        for layer in (self.q, self.k, self.v, *self.routing, self.out):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        low, high = (torch.tensor(memory).log().item() for memory in _MEMORIES)
        # sigmoid(log(m - 1)) = 1 - 1 / m is the decay that averages m keys
        decay = (torch.linspace(low, high, self.num_kv_heads).exp() - 1).log()
        if self.accumulation == "ema":
            self.decay.copy_(decay)
        elif self.accumulation == "ssd":
            # <c, b> begins near 1: a moving average, with what is random in it to learn from
            nn.init.normal_(self.gates.weight, std=(self.gates.in_features * self.state)**-0.5)
            by_head = self.gates.bias.view(self.num_kv_heads, -1)
            by_head.fill_(self.state**-0.5)
            by_head[:, 0] = decay

    def new_cache(self, batch: int, max_length: int, *, dtype: Optional[torch.dtype] = None
                  ) -> Cache:
        """Room for the keys of ``batch`` sequences, of the parameters' dtype by default: under
        autocast give its dtype."""
        shape = (batch, self.num_kv_heads, max_length, self.head_dim)

        def room() -> Tensor:
            return self.k.weight.new_zeros(shape, dtype=dtype)

        return Cache(room(), room(), None if self.accumulation is None else room())

    def forward(self, x: Tensor, *, start: Union[int, Sequence[int], Tensor, None] = None,
                cache: Optional[Cache] = None, cu_seqlens: Optional[Tensor] = None) -> Tensor:
        """Attention of x [batch, L, embed_dim] to itself, and to what the cache has of the sequence
        before it, under torch.no_grad(). ``start``: the first position of each sequence that
        counts, where they are padded on the left. ``cu_seqlens`` [sequences + 1]: x [1, L,
        embed_dim] is of packed sequences, as in ``multistep.attention``."""
        if cache is not None and torch.is_grad_enabled():
            raise RuntimeError("multistep: no gradients through a cache; use torch.no_grad()")
        if cache is not None and cu_seqlens is not None:
            raise ValueError("cache: None beside cu_seqlens")
        offset = 0 if cache is None else cache.length
        q, k, v, *routing = (layer(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                             for layer in (self.q, self.k, self.v, *self.routing))
        if torch.is_grad_enabled():  # what is kept for the backward pass would be copied there
            q, k, v, *routing = (one.contiguous() for one in (q, k, v, *routing))
        keys = None
        if self.accumulation is not None:
            keys = self._search_keys(x, k, start, offset, cache, cu_seqlens)
        if self.rotary is not None:
            turn = _Rotation(x, offset, self.head_dim, self.rotary)
            q, k, *routing = map(turn, (q, k, *routing))
            keys = None if keys is None else turn(keys)
        if cache is not None:
            cache.put(k, v, keys)
            k, v, keys = cache.k, cache.v, cache.search_keys
        given = Arguments(q, k, v, routing, self.schedule, None, self.softmax_scale,
                          self.search_scale, offset, start=start, search_keys=keys,
                          cu_seqlens=cu_seqlens)
        output: Tensor = calls.attended(given, False).output
        result: Tensor = self.out(output.transpose(1, 2).flatten(2))
        return result

    def _search_keys(self, x: Tensor, k: Tensor, start: Any, offset: int, cache: Optional[Cache],
                     cu_seqlens: Optional[Tensor]) -> Tensor:
        wide = torch.promote_types(k.dtype, torch.float32)  # of decays, which are near 1
        if self.accumulation == "ema":
            a = self.decay.to(wide).sigmoid()[:, None].expand(k.shape[:3])
            b = 1 - a.unsqueeze(-1)
            c = torch.ones_like(b)
        else:
            by_head = self.gates(x).unflatten(-1, (self.num_kv_heads, -1)).transpose(1, 2)
            a, b, c = by_head.split([1, self.state, self.state], -1)
            a = a.to(wide).sigmoid()
            a, b = a.squeeze(-1), (1 - a) * b
        if cu_seqlens is not None:  # each begins anew
            begins = torch.zeros(x.shape[1] + 1, dtype=torch.bool, device=x.device)
            begins = begins.index_fill(0, cu_seqlens.to(x.device, torch.int64), True)[:-1]
            a = torch.where(begins, 0, a)
        keys, state = calls.accumulated(Recurrence(
            k, a, b.to(k.dtype), c.to(k.dtype), None if cache is None else cache.state, start,
            offset))
        if cache is not None:
            cache.state = state
        return keys

    def extra_repr(self) -> str:
        return (f"{self.schedule!r}, num_kv_heads={self.num_kv_heads}, head_dim={self.head_dim}, "
                f"accumulation={self.accumulation!r}, rotary={self.rotary}")


class _Rotation:
    """Rotary position embedding: channels i and i + d/2 of position t are turned by
    t * base^(-2i/d), an angle that takes double at a million keys."""

    def __init__(self, x: Tensor, offset: int, head_dim: int, base: float) -> None:
        like: dict[str, Any] = {"device": x.device, "dtype": torch.float64}
        positions = torch.arange(x.shape[1], **like) + offset
        frequencies = base ** (torch.arange(0, head_dim, 2, **like) / -head_dim)
        angles = torch.outer(positions, frequencies)
        self.cos, self.sin = angles.cos(), angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        cos, sin = self.cos.to(wide), self.sin.to(wide)
        one, other = x.to(wide).chunk(2, -1)
        return torch.cat([one * cos - other * sin, other * cos + one * sin], -1).to(x.dtype)
