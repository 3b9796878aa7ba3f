"""The pieces of decoding on shards, for frameworks with an engine of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor

from .._arrays import check_parts
from .._problem import one_of
from .._rational import integer, number
from .._stages import Items, LevelPaths, Paths, Place
from ..schedule import MAX_LENGTH, Schedule
from ..torch import calls, positions, stages


def search_level(routing_query: Tensor, search_keys: Tensor, schedule: Schedule, level: int,
                 parents: Optional[Paths] = None, *, key_offset: int, length: Union[int, Tensor],
                 start: Union[int, Tensor, None] = None, search_scale: float = 1.0,
                 capacity: Optional[int] = None, kernels: str = "automatic") -> LevelPaths:
    """The best ``top_k`` paths of one search level among the anchors that a shard holds.

    Args:
        routing_query: [batch, num_heads, L_q, head_dim], of this level.
        search_keys: [batch, num_kv_heads, L_r, head_dim]: row j is key ``key_offset`` + j.
        level: in [1, N - 1].
        parents: what ``merge_paths`` gave for the level above; None at level 1.
        key_offset, length, capacity: as in ``decode``.
        start, search_scale, kernels: as in ``multistep.attention``.
    """
    place = _place(routing_query, search_keys, schedule, key_offset, length, start, capacity,
                   kernels)
    level = integer("level", level, 1, schedule.steps - 1)
    if (parents is None) != (level == 1):
        raise ValueError(f"parents of level {level}: the merged paths of the level above; None at "
                         "level 1")
    if parents is not None:
        _require_paths("parents", parents, (*routing_query.shape[:3], schedule.top_k), level - 1)
    with torch.no_grad():
        return stages.search_level(routing_query, search_keys, place, level, parents,
                                   number("search_scale", search_scale), kernels)


def merge_paths(shards: LevelPaths, parents: Optional[Paths] = None) -> Paths:
    """The best ``top_k`` of the paths that shards kept at one level: better score first; of equals
    the smaller key, then the parent ranked first. It is what one device would have kept, bit for
    bit, whatever the order of the shards.

    Args:
        shards: arrays [shards, batch, num_heads, L_q, top_k, ..]: what ``search_level`` gave on
            each, stacked.
        parents: what it was given there.
    """
    shape = shards.scores.shape
    if len(shape) != 5 or not shape[0]:
        raise ValueError(f"scores of shape {tuple(shape)}: [shards, batch, num_heads, L_q, top_k], "
                         "one shard at least")
    for name, tensor in shards._asdict().items():
        _require_shape(name, tensor, (*shape, 2) if name == "spans" else shape)
    if parents is not None:
        _require_paths("parents", parents, shape[1:], parents.anchors.shape[-1])
    with torch.no_grad():
        return stages.merge_paths(shards, parents)


def attend_items(q: Tensor, k: Tensor, v: Tensor, schedule: Schedule,
                 spans: Optional[Tensor] = None, *, key_offset: int, length: Union[int, Tensor],
                 start: Union[int, Tensor, None] = None, softmax_scale: Optional[float] = None,
                 capacity: Optional[int] = None, kernels: str = "automatic") -> Items:
    """Attention to the keys of every item that a shard holds (SPEC 4).

    Args:
        q: [batch, num_heads, L_q, head_dim].
        k, v: [batch, num_kv_heads, L_r, head_dim]: row j is key ``key_offset`` + j.
        spans: [batch, num_heads, L_q, slots, 2], as ``Paths`` has them: each is an item, without
            the keys of the query's window. None: the one item is the window.
        key_offset, length, capacity: as in ``decode``.
        start, softmax_scale, kernels: as in ``multistep.attention``.
    """
    place = _place(q, k, schedule, key_offset, length, start, capacity, kernels)
    _require_shape("v", v, k.shape)
    if spans is not None:
        slots = spans.shape[3] if spans.dim() == 5 and spans.shape[3] else 1
        _require_shape("spans", spans, (*q.shape[:3], slots, 2))
    with torch.no_grad():
        return stages.attend_items(q, k, v, place, spans, softmax_scale, kernels)


def merge_items(shards: Items) -> Items:
    """Attention to the union of what shards attended to, from arrays [shards, .., slots, ..]
    stacked: weighed by exp(LSE), in their order. A part that weighs nothing may hold anything.

    The merge rounds: beside one device's, with u the unit roundoff of the LSE (2^-53, and 2^-24 on
    CUDA), n keys of an item, l its largest |LSE| and R shards, an output differs by at most
    u (4 l + 2 n + R + 16) max|v|, on CUDA also by 2^-8 max|v| in bfloat16, 2^-11 in float16, as
    parts are in the storage type; the LSE by u (l + 2 n + R + 16). An item that one shard holds
    alone has the same bits.
    """
    check_parts(shards.output.shape, shards.lse.shape)
    with torch.no_grad():
        return stages.merge_items(shards)


def combine_items(paths: Paths, spans: Items, window: Items, schedule: Schedule, *,
                  num_kv_heads: int, kernels: str = "automatic") -> Tensor:
    """The output [batch, num_heads, L_q, head_dim] from the paths, the merged items of their spans
    and the window's (one slot): spans joined with the window, mixed by the softmax of the scores.
    float64, and on CUDA the storage type."""
    shape = spans.output.shape
    if len(shape) != 5:
        raise ValueError(f"spans.output of shape {tuple(shape)}: [batch, num_heads, L_q, top_k, "
                         "head_dim]")
    _require_shape("spans.lse", spans.lse, shape[:4])
    _require_paths("paths", paths, shape[:4], schedule.steps - 1)
    _require_shape("window.output", window.output, (*shape[:3], 1, shape[4]))
    _require_shape("window.lse", window.lse, (*shape[:3], 1))
    length = torch.zeros(shape[0], dtype=torch.int64, device=spans.output.device)
    place = Place(schedule.with_top_k(paths.scores.shape[-1]), 0, length)
    with torch.no_grad():
        return stages.combine(paths, spans, window, place, num_kv_heads, kernels)


def append(cache: Tensor, new: Tensor, *, key_offset: int, length: Union[int, Tensor]) -> None:
    """Writes those of the newest keys, or values, that a shard of the cache owns, and leaves the
    rest alone. On CUDA nothing waits for the device.

    Args:
        cache: [batch, num_kv_heads, L_r, head_dim], row j of key ``key_offset`` + j; written to.
        new: [batch, num_kv_heads, n, head_dim], the same on every rank.
        length: keys of each sequence with the new ones, which stand at length - n + i: an integer
            or integers [batch].
    """
    calls.require_tensors(cache=cache, new=new)
    batch, heads, rows, head_dim = cache.shape
    count = new.shape[2]
    if new.shape != (batch, heads, count, head_dim):
        raise ValueError(f"new of shape {tuple(new.shape)}: {(batch, heads, 'n', head_dim)} here")
    if not rows or not count:
        return
    end = positions.read("length", length, cache)
    assert end is not None
    first = (end.to(cache.device).long() - count - key_offset).unsqueeze(1)  # a row of the cache
    # New keys outside the shard are written where the nearest one inside is, as that one: all
    # writes of a row are the same. Where none is inside, the row is written as it was.
    at = (first + torch.arange(count, device=cache.device)).clamp(0, rows - 1)
    source = (at - first).clamp(0, count - 1)
    owned = ((first < rows) & (first + count > 0))[..., None, None]
    sequence = torch.arange(batch, device=cache.device).unsqueeze(1)
    by_row, new_by_row = cache.transpose(1, 2), new.transpose(1, 2)
    by_row[sequence, at] = torch.where(owned, new_by_row[sequence, source], by_row[sequence, at])


def _place(q: Any, k: Any, schedule: Schedule, key_offset: int, length: Union[int, Tensor],
           start: Union[int, Tensor, None], capacity: Optional[int], kernels: str) -> Place:
    """Where things stand, of checked shapes."""
    calls.require_tensors(q=q, k=k)
    require_kernels(kernels, q)
    for name, tensor in (("q", q), ("k", k)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)}: [batch, heads, length, "
                             "head_dim]")
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3] or q.shape[1] % k.shape[1]:
        raise ValueError(f"k of shape {tuple(k.shape)}: batch {q.shape[0]} and head_dim "
                         f"{q.shape[3]} like q, a number of heads that divides {q.shape[1]}")
    return place_of(schedule, q, k, key_offset, length, start, capacity)


def _require_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tensor.shape != tuple(shape):
        raise ValueError(f"{name} of shape {tuple(tensor.shape)}: {tuple(shape)} here")


def _require_paths(name: str, paths: Paths, slots: Sequence[int], levels: int) -> None:
    """Paths of [batch, num_heads, L_q, top_k]."""
    for field, shape in zip(Paths._fields, ((*slots, 2), slots, (*slots, levels))):
        _require_shape(f"{name}.{field}", getattr(paths, field), shape)


def require_kernels(kernels: str, q: Tensor) -> None:
    """Raises ValueError where there are none such for q's device."""
    one_of("kernels", kernels, ("automatic", "fast", "plain"))
    if kernels == "fast" and q.device.type != "cuda":
        raise ValueError("kernels 'fast': of CUDA tensors; the oracle computes on these")


def place_of(schedule: Schedule, q: Tensor, k: Tensor, key_offset: Any, length: Any, start: Any,
             capacity: Any) -> Place:
    """Where the queries and the keys of a shard stand."""
    limit = positions.MAX_POSITION if q.device.type == "cuda" else MAX_LENGTH
    offset = integer("key_offset", key_offset, 0, limit - k.shape[2])
    longest = 0
    length_there, start_there = (positions.read(name, value, q)
                                 for name, value in (("length", length), ("start", start)))
    if q.device.type == "cuda":
        length_there, start_there = (positions.on_device(name, value, q) for name, value in
                                     (("length", length_there), ("start", start_there)))
        if capacity is None and isinstance(length, Tensor) and length.device.type == "cuda":
            raise TypeError("capacity None: an integer beside a length on the device, the keys of "
                            "all ranks")
        bound = torch.as_tensor(length if capacity is None else capacity)
        longest = integer("capacity", int(bound.max()) if bound.numel() else 0, 0, limit)
    return Place(schedule, offset, length_there, start_there, longest)
