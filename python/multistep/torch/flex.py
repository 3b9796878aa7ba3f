"""Kept spans as masks of FlexAttention (``torch.nn.attention.flex_attention``): span attention by
somebody else's code, to check it by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Union

import torch
from torch import Tensor

from .._rational import integer
from ..schedule import MAX_LENGTH, Schedule
from . import calls, positions

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def span_mask(spans: Tensor, schedule: Schedule, *, query_offset: Union[int, Tensor] = 0,
              start: Union[int, Tensor] = 0) -> Mask:
    """Which keys queries attend to, as a ``mask_mod``: those of the spans and of the window.

    Args:
        spans: integers [batch, num_heads, L_q, n, 2], as ``attend`` gives them: of all slots, whose
            keys are then one set, or of slot s alone, ``spans[..., s:s + 1, :]``, with which
            softmax attention is the J_s of SPEC 4. [0, 0) holds no key.
        schedule: the one that they are of; the window is its.
        query_offset: the first query's position, or one for each sequence, integers [batch]:
            beside ``decode`` it is ``length - L_q``.
        start: the first eligible key, likewise. A packed sequence of [begin, end) is
            ``spans[:, :, begin:end]`` with both at ``begin``.

    Returns mask(b, h, query, key): bool, of integer tensors that broadcast; queries count from the
    first, keys from 0. It holds on to n + 1 spans a query, on their device. Raises ValueError for
    other shapes. Source: SPEC 2.4 and 4; ``reference/stages/``.
    """
    calls.require_tensor("spans", spans)
    positions.require_integers("spans", spans)
    if spans.dim() != 5 or spans.shape[-1] != 2:
        raise ValueError(f"spans of shape {tuple(spans.shape)}: [batch, num_heads, L_q, n, 2]")
    spans = spans.detach().long()
    batch, _, queries, slots, _ = spans.shape
    first = _by_sequence("query_offset", query_offset, batch, spans.device)
    oldest = _by_sequence("start", start, batch, spans.device)
    ends = first + torch.arange(1, queries + 1, device=spans.device)  # [batch, L_q]
    longest = int(ends.max()) if ends.numel() else 0
    # The last position's window is as long as any.
    newest, behind = schedule.window(longest - 1) if longest > 0 else (0, 0)
    window = behind - newest
    windows = torch.stack([torch.maximum(ends - window, oldest), ends], -1)
    every = torch.cat([spans, windows[:, None, :, None].expand(-1, spans.shape[1], -1, -1, -1)], 3)

    def mask(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        def holds(slot: int) -> Tensor:
            return (every[b, h, query, slot, 0] <= key) & (key < every[b, h, query, slot, 1])

        held = holds(slots)  # the window; then one by one, as compiled masks know no sums
        for slot in range(slots):
            held = held | holds(slot)
        return held

    return mask


def span_block_mask(spans: Tensor, schedule: Schedule, keys: int, *,
                    query_offset: Union[int, Tensor] = 0, start: Union[int, Tensor] = 0,
                    block_size: int = 128) -> BlockMask:
    """``span_mask`` over ``keys`` keys as the ``block_mask`` of ``flex_attention``, by
    ``create_block_mask``: on the way there is a bool for each head's query and key.

    With key and value heads shared, ``flex_attention`` wants ``enable_gqa=True``; its ``scale`` is
    ``softmax_scale``. On a CPU it goes forward alone.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    mask = span_mask(spans, schedule, query_offset=query_offset, start=start)
    batch, heads, queries = spans.shape[:3]
    if not queries:
        raise ValueError("spans of no queries: one at least")
    return create_block_mask(mask, batch, heads, queries, integer("keys", keys, 1, MAX_LENGTH),
                             device=str(spans.device),
                             BLOCK_SIZE=integer("block_size", block_size, 1, MAX_LENGTH))


def _by_sequence(name: str, value: Union[int, Tensor], batch: int, device: torch.device) -> Tensor:
    """[batch, 1]"""
    if not isinstance(value, Tensor):
        value = torch.full((batch,), integer(name, value, 0, MAX_LENGTH))
    positions.require_integers(name, value)
    positions.require_one_each(name, value, batch)
    return value.to(device=device, dtype=torch.int64)[:, None]
