"""The stages one by one, on tensors of one device, as shards of a context need them: on CUDA the
kernels on the current stream, on CPU tensors the oracle. On CUDA nothing waits for the device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .. import _core, _stages
from .._problem import Sizes
from .._stages import Items, LevelPaths, Paths, Place
from . import kernels, positions
from .tables import device_schedule


def search_level(query: Tensor, keys: Tensor, place: Place, level: int, parents: Optional[Paths],
                 search_scale: float, rung: str) -> LevelPaths:
    """One level's best paths among the anchors that the shard holds."""
    if query.device.type != "cuda":
        found = _stages.search_level(query.detach(), keys.detach(), place, level, parents,
                                     search_scale)
        return LevelPaths(*map(torch.from_numpy, found))
    with torch.cuda.device(query.device):
        query = kernels.dense("routing_query", query, query, kernels.DTYPES)
        keys = kernels.dense("search_keys", keys, query, (query.dtype,))
        rows, top_k = query.shape[:3], place.schedule.top_k
        found = _no_paths(query, (*rows, top_k))
        if query.shape[2]:
            above = {} if parents is None else {
                "parents": _integers("parents.spans", parents.spans, query),
                "parent_scores": _floats("parents.scores", parents.scores, query)}
            kernels.launch(
                _core.CudaSpanSearch(), query, **_shape(query, keys, place), kernels=rung,
                level=level, routing_queries=[query] * (place.schedule.steps - 1),
                search_keys=keys, search_scale=search_scale, **above, **found._asdict())
        return found


def best_paths(found: LevelPaths) -> LevelPaths:
    """The best of [shards, ..], in the one order of paths."""
    if found.scores.device.type != "cuda":
        return LevelPaths(*map(torch.from_numpy, _stages.merge_paths(found)))
    with torch.cuda.device(found.scores.device):
        shards, *rows, top_k = found.scores.shape
        best = _no_paths(found.scores, (*rows, top_k))
        given = LevelPaths(*(
            _floats(name, tensor, found.scores) if name == "scores" else
            _integers(name, tensor, found.scores) for name, tensor in found._asdict().items()))
        kernels.launch(
            _core.CudaMergePaths(), found.scores, shards=shards,
            rows=best.scores.numel() // top_k, top_k=top_k, **given._asdict(),
            **{f"merged_{name}": tensor for name, tensor in best._asdict().items()})
        return best


def from_parents(best: LevelPaths, parents: Optional[Paths]) -> Paths:
    """The paths that a level's best make with what is above them."""
    anchors = best.anchors.unsqueeze(-1)
    if parents is not None:
        of = best.ranks.clamp(min=0).long().unsqueeze(-1)
        above = parents.anchors.gather(-2, of.expand(*of.shape[:-1], parents.anchors.shape[-1]))
        anchors = torch.cat([torch.where(anchors < 0, -1, above), anchors], -1)
    return Paths(best.spans, best.scores, anchors)


def merge_paths(found: LevelPaths, parents: Optional[Paths]) -> Paths:
    """The best of [shards, ..], in the one order of paths, and where they come from."""
    return from_parents(best_paths(found), parents)


def attend_items(q: Tensor, k: Tensor, v: Tensor, place: Place, spans: Optional[Tensor],
                 softmax_scale: Optional[float], rung: str, into: Optional[Items] = None) -> Items:
    """Attention to the keys of every item that the shard holds; without spans, to the window. On
    CUDA what is found is written ``into`` memory that was made for it."""
    if q.device.type != "cuda":
        found = _stages.attend_items(q.detach(), k.detach(), v.detach(), place, spans,
                                     softmax_scale)
        return Items(*map(torch.from_numpy, found))
    with torch.cuda.device(q.device):
        q = kernels.dense("q", q, q, kernels.DTYPES)
        k, v = (kernels.dense(name, one, q, (q.dtype,)) for name, one in (("k", k), ("v", v)))
        slots = 1 if spans is None else spans.shape[3]
        items = into or Items(*side_by_side(*items_like(q, slots), device=q.device))
        if q.shape[2]:
            kernels.launch(
                _core.CudaSpanAttention(), q, **_shape(q, k, place), kernels=rung, q=q, k=k, v=v,
                slots=slots, spans=None if spans is None else _integers("spans", spans, q),
                softmax_scale=softmax_scale, **items._asdict())
        return items


def merge_items(parts: Items) -> Items:
    """Attention to the union of [shards, ..], whose sets of keys are disjoint, in that order."""
    output, lse = parts
    if output.device.type != "cuda":
        shards, *shape = output.shape
        found = _core.merge(output.reshape(shards, -1, shape[-1]).contiguous().numpy(),
                            lse.reshape(shards, -1).contiguous().numpy())
        return Items(torch.from_numpy(found[0]).view(shape),
                     torch.from_numpy(found[1]).view(shape[:-1]))
    with torch.cuda.device(output.device):
        output = kernels.dense("output", output, output, kernels.DTYPES)
        merged = Items(torch.empty_like(output[0]), torch.empty_like(lse[0]))
        kernels.launch(
            _core.CudaMergeAttention(), output, dtype=kernels.name_of(output.dtype),
            shards=output.shape[0], rows=merged.lse.numel(), head_dim=output.shape[-1],
            outputs=output, lses=_floats("lse", lse, output), **merged._asdict())
        return merged


def combine(paths: Paths, spans: Items, window: Items, place: Place, kv_heads: int, rung: str
            ) -> Tensor:
    """The output [batch, num_heads, L_q, head_dim] of items and windows (one slot)."""
    output, lse = window.output.squeeze(-2), window.lse.squeeze(-1)
    if output.device.type != "cuda":
        return torch.from_numpy(_stages.combine(paths, spans, Items(output, lse)))
    with torch.cuda.device(output.device):
        output = kernels.dense("window.output", output, output, kernels.DTYPES)
        combined = torch.empty_like(output)
        if output.shape[2]:
            keys = output.new_empty((output.shape[0], kv_heads, 0, output.shape[3]))
            kernels.launch(
                _core.CudaCombine(), output, **_shape(output, keys, place), kernels=rung,
                slots=paths.scores.shape[-1], spans=_integers("paths.spans", paths.spans, output),
                scores=_floats("paths.scores", paths.scores, output),
                span_outputs=kernels.dense("spans.output", spans.output, output, (output.dtype,)),
                span_lses=_floats("spans.lse", spans.lse, output), window_output=output,
                window_lse=_floats("window.lse", lse, output), output=combined)
        return combined


def _integers(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    return kernels.dense(name, tensor, like, (torch.int32,))


def _floats(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    return kernels.dense(name, tensor, like, (torch.float32,))


Like = tuple[Sequence[int], torch.dtype]
_ALIGNED = 16  # bytes, as the kernels want it


def items_like(q: Tensor, slots: int) -> tuple[Like, Like]:
    """What a query's items are on CUDA."""
    return ((*q.shape[:3], slots, q.shape[3]), q.dtype), ((*q.shape[:3], slots), torch.float32)


def side_by_side(*likes: Like, device: torch.device) -> list[Tensor]:
    """Memory for tensors, one behind the other in a piece that can be sent as it is."""
    sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in likes]
    starts = list(itertools.accumulate(map(padded, sizes), initial=0))
    memory = torch.empty(starts[-1], dtype=torch.uint8, device=device)
    return [memory[start:start + size].view(dtype).view(shape)
            for start, size, (shape, dtype) in zip(starts, sizes, likes)]


def padded(size: int) -> int:
    """Bytes that a tensor takes among others."""
    return -(-size // _ALIGNED) * _ALIGNED


def memory_of(tensors: Sequence[Tensor]) -> Optional[Tensor]:
    """The bytes of tensors that ``side_by_side`` made, together; None where others did."""
    storage, at = tensors[0].untyped_storage(), 0
    for one in tensors:
        if (one.untyped_storage().data_ptr() != storage.data_ptr() or not one.is_contiguous()
                or one.storage_offset() * one.element_size() != at):
            return None
        at += padded(one.nbytes)
    if at != storage.nbytes():
        return None
    return torch.empty(0, dtype=torch.uint8, device=tensors[0].device).set_(storage)


def _no_paths(like: Tensor, shape: tuple[int, ...]) -> LevelPaths:
    """Memory for what the kernels write."""
    return LevelPaths(*side_by_side(((*shape, 2), torch.int32), (shape, torch.float32),
                                    (shape, torch.int32), (shape, torch.int32),
                                    device=like.device))


def _shape(q: Tensor, k: Tensor, place: Place) -> dict[str, Any]:
    """What the kernels are told of sizes, positions and the schedule."""
    sizes = Sizes(q.shape[0], q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3])
    longest = max(place.longest, place.key_offset + sizes.keys, 1)
    return {**sizes._asdict(), "key_offset": place.key_offset, "dtype": kernels.name_of(q.dtype),
            "length": positions.on_device("length", place.length, q),
            "start": positions.on_device("start", place.start, q),
            "schedule": device_schedule(place.schedule, longest, torch.cuda.current_device())}
