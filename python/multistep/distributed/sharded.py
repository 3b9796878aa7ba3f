"""Attention where queries and keys are sharded alike, for prefill and training: the keys are
gathered, their gradients summed over ranks in float32, or they pass by in turn (SPEC 13)."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import _arrays
from .._problem import Arguments, Attended, check_shapes, checked, each
from ..torch import autograd, calls
from . import passing
from .exchange import Exchange, agree, is_on_host
from .layout import Layout
from .pieces import require_kernels


def attended(given: Arguments, exchange: Exchange, layout: Optional[Layout], in_turn: bool,
             details: bool) -> Attended:
    """What this rank's queries find."""
    on_host = is_on_host(given.q)
    bounds: list[int] = []

    def check() -> dict[str, Any]:
        nonlocal given
        given = checked(each(calls.taken, given))
        bounds.extend(_bounds(given))
        return {"in_turn": in_turn, **_alike(given, layout, exchange, in_turn)}

    if on_host or layout is None:
        device = None if on_host else given.q.device
        ranks = agree(exchange, "attention", check, ("rows",), device)
        layout = layout or Layout.contiguous([rank["rows"] for rank in ranks])
    else:
        check()
    if bounds and bounds[-1] > layout.length:  # on every rank alike
        raise ValueError(f"cu_seqlens to {bounds[-1]}: to at most {layout.length}, the rows of all "
                         "ranks")
    pieces = list(layout.pieces(exchange.rank, bounds))
    if in_turn:
        with torch.no_grad():
            parts = passing.attended(given, exchange, layout, pieces)
        return _together([_moved(found, piece.keys.start)
                          for found, piece in zip(parts, pieces)], details)
    shards = [given.k, given.v, *([] if given.search_keys is None else [given.search_keys])]
    gathered = _Gather.apply(exchange, layout, [piece.keys for piece in pieces], *shards)
    # Split, not sliced: the gradients of slices are wholes of zeros that are added up.
    rows = [piece.rows.stop - piece.rows.start for piece in pieces]
    q, *routing = ([*one.split(rows, 2)] for one in (given.q, *given.routing_queries))
    parts = []
    for i, piece in enumerate(pieces):
        k, v, *search = gathered[i * len(shards):(i + 1) * len(shards)]
        found = calls.attended(given._replace(
            q=q[i], k=k, v=v, routing_queries=[level[i] for level in routing],
            search_keys=search[0] if search else None, query_offset=piece.first, cu_seqlens=None,
            start=piece.keys.stop - piece.keys.start if piece.nobodys else given.start), details)
        parts.append(_moved(found, piece.keys.start) if details else found)
    return _together(parts, details)


def _together(parts: list[Attended], details: bool) -> Attended:
    """The rows of all pieces; without ``details`` of the output alone."""
    if len(parts) == 1:
        return parts[0]
    if not details:
        return Attended(torch.cat([one.output for one in parts], 2), *5 * [None])
    return Attended(*(torch.cat(fields, 2) if fields[0].dim() > 2 else fields[0]
                      for fields in zip(*parts)))


def _alike(given: Arguments, layout: Optional[Layout], exchange: Exchange, in_turn: bool
           ) -> dict[str, Any]:
    """Checks a rank's arguments; what all ranks must have alike, and its number of rows."""
    rows = given.q.shape[2] if given.q.dim() == 4 else 0
    if given.length is not None or given.query_offset:
        raise ValueError("length or query_offset: none where queries and keys are sharded alike; "
                         "decode() has replicated queries")
    sizes = check_shapes(given._replace(cu_seqlens=None))
    calls.require_like_q(given)
    require_kernels(given.kernels, given.q)
    if in_turn and autograd.will_go_back([*given[:4], given.search_keys]):
        raise NotImplementedError("multistep: no gradients where keys pass by in turn; gather "
                                  "them, or use torch.no_grad()")
    if sizes.keys != rows:
        raise ValueError(f"k of {sizes.keys} rows: {rows} here, those of q")
    if layout is not None and len(layout.rows) != exchange.ranks:
        raise ValueError(f"layout of {len(layout.rows)} ranks: {exchange.ranks} here")
    if layout is not None and layout.rows[exchange.rank] != rows:
        raise ValueError(f"q of {rows} rows: {layout.rows[exchange.rank]} of rank {exchange.rank} "
                         "in the layout")
    start = given.start.tolist() if isinstance(given.start, Tensor) else given.start
    back = [torch.is_grad_enabled() and one is not None and one.requires_grad
            for one in (given.k, given.v, given.search_keys)]
    return {"rows": rows, "q": (sizes.batch, sizes.heads, sizes.head_dim, given.q.dtype),
            "k": sizes.kv_heads, "schedule": given.schedule.text, "start": start,
            "top_k": given.schedule.with_top_k(given.top_k).top_k,
            "scales": (given.softmax_scale, given.search_scale), "cu_seqlens": _bounds(given),
            "search_keys": given.search_keys is None, "requires_grad": back,
            "layout": None if layout is None else layout.digest}


def _bounds(given: Arguments) -> list[int]:
    """Where the packed sequences begin, and the last one ends; nothing where there are none."""
    if given.cu_seqlens_k is not None:
        raise ValueError("cu_seqlens_k: of one device")
    if given.cu_seqlens is None:
        return []
    bounds: list[int] = _arrays.integers("cu_seqlens", given.cu_seqlens.cpu() if isinstance(
        given.cu_seqlens, Tensor) else given.cu_seqlens).tolist()
    if len(bounds) < 2 or bounds[0] or sorted(bounds) != bounds:
        raise ValueError(f"cu_seqlens {bounds}: from 0, not decreasing, one sequence at least")
    if given.q.shape[0] != 1 or given.start is not None:
        raise ValueError("batch and start: 1 and None beside cu_seqlens")
    return bounds


class _Gather(torch.autograd.Function):
    """Keys of all ranks: for every piece its part of each of the shards' wholes. Backward sums what
    the pieces' calls give, and then what the ranks do, in float32 or float64."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, layout: Layout, keys: list[slice],
                *shards: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange, ctx.layout, ctx.keys = exchange, layout, keys
        ctx.set_materialize_grads(False)
        own = torch.stack(shards)  # [arrays, batch, num_kv_heads, rows, head_dim]
        ctx.like = own.new_empty((*own.shape[:3], 0, own.shape[4]))
        if own.shape[3] < max(layout.rows):
            padded = own.new_zeros((*own.shape[:3], max(layout.rows), own.shape[4]))
            padded[:, :, :, :own.shape[3]] = own
            own = padded
        ranks = exchange.gather("gather of keys and values", own).wait()
        whole = layout.whole([one[:, :, :, :rows] for one, rows in zip(ranks, layout.rows)], 3)
        return tuple(array[:, :, part] for part in keys for array in whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *by: Optional[Tensor]) -> tuple[Any, ...]:
        layout, like = ctx.layout, ctx.like
        arrays, batch, heads, _, head_dim = like.shape
        wide = torch.float64 if like.dtype == torch.float64 else torch.float32
        total = like.new_empty((arrays, batch, heads, layout.length, head_dim), dtype=wide)
        for array in range(arrays):
            given = [(keys, one) for keys, one in zip(ctx.keys, by[array::arrays])
                     if one is not None]
            of_all = bool(given) and given[0][0] == slice(0, layout.length)
            total[array] = given.pop(0)[1] if of_all else 0
            for keys, one in given:
                total[array, :, :, keys] += one
        parts = [layout.shard(total, rank, 3) for rank in range(len(layout.rows))]
        own = ctx.exchange.sum_parts("sum of the gradients of keys and values", parts)
        return (None, None, None, *own.to(like.dtype))


def _moved(found: Attended, by: int) -> Attended:
    """Spans and anchors among the keys of all sequences; unused slots stay."""
    used = found.spans[..., 1:] > found.spans[..., :1]
    return found._replace(spans=torch.where(used, found.spans + by, found.spans),
                          anchors=torch.where(found.anchors < 0, -1, found.anchors + by))
