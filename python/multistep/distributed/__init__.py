"""Attention over a context whose keys lie on several ranks (SPEC 13): on CUDA tensors the kernels
and NCCL, on CPU tensors the oracle and gloo.

Each rank has consecutive keys [key_offset, key_offset + L_r) of L; L_r may differ, and be 0. Spans,
anchors and scores are bit-equal to one device's, whatever the number of ranks. ``decode`` has the
queries on every rank; ``attention`` has queries sharded as keys are, and gradients. ``attend`` is
both, with what was found on the way, which ``multistep.compare`` judges. The pieces that ``decode``
is made of are here too, for frameworks with an engine of their own: tensors in, tensors out.

Every rank calls the same functions with alike arguments. On the CPU, and in ``attention`` without a
layout, the ranks first tell one another what they were given: where one refuses its arguments, or
has others than rank 0, all raise. A rank that dies, or is later than the group's time-out, is a
RuntimeError on the others. docs/distributed.md tells more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

import torch.distributed as dist
from torch import Tensor

from .._problem import Attended, Options, arguments, required_length, takes_options
from .._stages import Items, LevelPaths, Paths
from ..schedule import Schedule
from . import decoding, sharded
from .exchange import Exchange, refusals_told
from .layout import Layout
from .pieces import (append, attend_items, combine_items, merge_items, merge_paths, search_level)

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_options
def decode(q: Tensor, k_shard: Tensor, v_shard: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, group: Optional[dist.ProcessGroup] = None, key_offset: int,
           length: Union[int, Tensor], capacity: Optional[int] = None, **options: Unpack[Options]
           ) -> Tensor:
    """Attention of the newest queries over a cache that is sharded; see ``multistep.decode``.

    Args:
        q, routing_queries: [batch, num_heads, L_q, head_dim], the same on every rank.
        k_shard, v_shard: [batch, num_kv_heads, L_r, head_dim]: this rank's part of the cache, whose
            row j is key ``key_offset`` + j. Rows past ``length`` may hold anything; ``append``
            writes new keys where they belong.
        group: a process group; the default group by default.
        key_offset: where the keys of the ranks before this one end.
        length: keys of each sequence on all ranks together, the queries' own among them: an integer
            or integers [batch]. Row i of sequence b stands at length[b] - L_q + i. On CUDA a tensor
            on the device is not looked at by the host.
        capacity: keys of all ranks' shards together; needed on CUDA beside a ``length`` on the
            device, which it bounds.
        search_keys: of k_shard's shape, sharded as it is. The other options are as in
            ``multistep.attention``; there is no cu_seqlens.

    Every level is one gather of [rows, top_k] paths, during the first of which the window is
    attended to; then one exchange of items (O, LSE). Two of these are the same bytes whatever the
    length. On CUDA no step waits for the device, and nothing is agreed on: that offsets and shapes
    fit together is the caller's to see to.

    Returns:
        [batch, num_heads, L_q, head_dim], on every rank. No gradients.

    Raises:
        ValueError, TypeError: one line naming the offender, its value and the range.
        RuntimeError: a rank has died, or was later than the group's time-out.
    """
    exchange = Exchange(group)
    with refusals_told(exchange, "decode", q, False):
        given = arguments("decode", q, k_shard, v_shard, routing_queries, schedule, options,
                          length=required_length(length))
    output: Tensor = decoding.decoded(given, exchange, key_offset, capacity).output
    return output


@takes_options
def attention(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
              schedule: Schedule, *, group: Optional[dist.ProcessGroup] = None,
              layout: Optional[Layout] = None, in_turn: bool = False, **options: Unpack[Options]
              ) -> Tensor:
    """Attention for prefill and training, queries and keys sharded alike; see
    ``multistep.attention``.

    Args:
        q, routing_queries: [batch, num_heads, L_r, head_dim]: this rank's rows.
        k, v: [batch, num_kv_heads, L_r, head_dim]: of the same positions.
        group: a process group; the default group by default.
        layout: which positions the rows of every rank are; by default the ranks' rows one behind
            the other, in which case the ranks ask one another how many they have, and wait.
        in_turn: for contexts whose keys have no room on one device. The ranks' keys pass by, one
            rank's after the other's, once for each search level and once for attention: a rank
            holds its own and those of two others. Outputs are merged as ``decode`` merges them, in
            rank order. No gradients.
        start: as in ``multistep.attention``, of the whole sequence.
        cu_seqlens: of the whole sequence, the same on every rank; it is read on the host. There is
            no cu_seqlens_k.
        search_keys: sharded as k is.

    Without ``in_turn`` keys, values and search keys are gathered (one exchange), and queries stay.
    The derivatives by keys, values and search keys go to their owners in one exchange and are added
    in float32 (float64 beside float64) in rank order, so that two runs give the same bits. Every
    rank, those without rows included, calls backward if one does, and asks for the same gradients.

    Returns:
        [batch, num_heads, L_r, head_dim], of this rank's rows.

    Raises as ``decode``.
    """
    exchange = Exchange(group)
    with refusals_told(exchange, "attention", q, layout is None):
        given = arguments("attention", q, k, v, routing_queries, schedule, options)
        _require_layout(layout)
    output: Tensor = sharded.attended(given, exchange, layout, in_turn, False).output
    return output


@takes_options
def attend(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, group: Optional[dist.ProcessGroup] = None,
           layout: Optional[Layout] = None, in_turn: bool = False, key_offset: int = 0,
           length: Union[int, Tensor, None] = None, capacity: Optional[int] = None,
           **options: Unpack[Options]) -> Attended:
    """``attention``, or with ``length`` ``decode``, and what was found on the way; see
    ``multistep.attend``. Spans and anchors are keys of the whole context."""
    exchange, whole = Exchange(group), length is None
    with refusals_told(exchange, "attention" if whole else "decode", q, whole and layout is None):
        given = arguments("attend", q, k, v, routing_queries, schedule, options, length=length)
        if not whole and (layout is not None or in_turn):
            raise ValueError("layout, in_turn: None and False beside a length, where queries are "
                             "not sharded")
        if whole and (key_offset or capacity is not None):
            raise ValueError(f"key_offset {key_offset}, capacity {capacity}: 0 and None without a "
                             "length")
        _require_layout(layout)
    if whole:
        return sharded.attended(given, exchange, layout, in_turn, True)
    return decoding.decoded(given, exchange, key_offset, capacity)


def _require_layout(layout: Any) -> None:
    if layout is not None and not isinstance(layout, Layout):
        raise TypeError(f"layout of type {type(layout).__name__}: a Layout, or None")


__all__ = ["Attended", "Items", "Layout", "LevelPaths", "Paths", "append", "attend",
           "attend_items", "attention", "combine_items", "decode", "merge_items", "merge_paths",
           "search_level"]
