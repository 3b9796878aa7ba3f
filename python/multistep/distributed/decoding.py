"""Decoding where the keys of a context are sharded (SPEC 13)."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from .._problem import Arguments, Attended, check_shapes, checked, each
from .._rational import integer
from .._stages import Items, LevelPaths, Paths, Place
from ..torch import autograd, calls, stages
from .exchange import Exchange, agree, is_on_host, pack, unpack
from .pieces import place_of, require_kernels


def decoded(given: Arguments, exchange: Exchange, key_offset: Any, capacity: Optional[int]
            ) -> Attended:
    """What the ranks find together."""
    if is_on_host(given.q):
        given, place = _agreed(given, exchange, key_offset, capacity)
    else:
        given, place = _place(given, key_offset, capacity)
    with torch.no_grad():
        return _attended(given, exchange, place)


def _place(given: Arguments, key_offset: Any, capacity: Optional[int]
           ) -> tuple[Arguments, Place]:
    """The arguments as the stages take them."""
    given = checked(each(calls.taken, given))
    if given.cu_seqlens is not None:
        raise ValueError("cu_seqlens: of attention(); decoding takes one sequence per row")
    require_kernels(given.kernels, given.q)
    check_shapes(given)
    tensors = [given.q, given.k, given.v, *given.routing_queries, given.search_keys]
    if autograd.will_go_back(tensors):
        raise NotImplementedError("multistep: no gradients of distributed decoding; use attention, "
                                  "or torch.no_grad()")
    calls.require_like_q(given)
    schedule = given.schedule.with_top_k(given.top_k)
    return given, place_of(schedule, given.q, given.k, key_offset, given.length, given.start,
                           capacity)


def _agreed(given: Arguments, exchange: Exchange, key_offset: Any, capacity: Optional[int]
            ) -> tuple[Arguments, Place]:
    """The same, where all ranks have looked at it: no rank waits for one that has refused, and
    every key has one owner."""
    found: list[tuple[Arguments, Place]] = []

    def check() -> dict[str, Any]:
        given_here, place = _place(given, key_offset, capacity)
        found.append((given_here, place))
        q, k = given_here.q, given_here.k
        start = None if place.start is None else place.start.tolist()
        return {"key_offset": place.key_offset, "keys": k.shape[2], "q": (q.shape, q.dtype),
                "k": (k.shape[0], k.shape[1]), "schedule": place.schedule.text,
                "top_k": place.schedule.top_k, "length": place.length.tolist(), "start": start,
                "scales": (given_here.softmax_scale, given_here.search_scale),
                "search_keys": given_here.search_keys is None}

    shards = agree(exchange, "decode", check, ("key_offset", "keys"))
    given, place = found[0]
    end = 0
    for rank, shard in enumerate(shards):
        if shard["key_offset"] != end:
            raise ValueError(f"key_offset {shard['key_offset']} of rank {rank}: {end}, where the "
                             "keys of the ranks before it end")
        end += shard["keys"]
    for length in place.length.tolist():
        integer("length", length, 0, end)
    return given, place


def _attended(given: Arguments, exchange: Exchange, place: Place) -> Attended:
    q, rung, levels = given.q, given.kernels, place.schedule.steps - 1
    keys = given.k if given.search_keys is None else given.search_keys

    def attend(spans: Optional[Tensor], into: Items) -> Items:
        return stages.attend_items(q, given.k, given.v, place, spans, given.softmax_scale, rung,
                                   into)

    likes = [*stages.items_like(q, 1)]
    if levels:
        likes += stages.items_like(q, place.schedule.top_k)
    of_window, *of_spans = _as_items(stages.side_by_side(*likes, device=q.device))
    window: Optional[Items] = None
    paths: Optional[Paths] = None
    for level in range(1, levels + 1):
        found = stages.search_level(given.routing_queries[level - 1], keys, place, level, paths,
                                    given.search_scale, rung)
        lists = exchange.gather(f"gather of the paths of level {level}", pack(found))
        if window is None:
            window = attend(None, of_window)  # while the lists are on their way
        paths = stages.merge_paths(LevelPaths(*unpack(lists.wait(), found)), paths)
    items = [window or attend(None, of_window)]
    if paths is not None:
        items.append(attend(paths.spans, *of_spans))
    sent = [one for item in items for one in item]
    parts = exchange.gather("exchange of items", pack(sent)).wait()
    return found_of(given, place, paths,
                    list(map(stages.merge_items, _as_items(unpack(parts, sent)))))


def _as_items(tensors: list[Tensor]) -> list[Items]:
    """Outputs and log-sum-exps by turns."""
    return list(map(Items, tensors[::2], tensors[1::2]))


def found_of(given: Arguments, place: Place, paths: Optional[Paths], items: list[Items]
             ) -> Attended:
    """What ``attend`` gives, from merged paths, None where there are no levels, and merged items:
    the window's, and beside paths those of the spans."""
    window = items[0]
    if paths is None:
        paths = _none(window, place)
        output, lse = window.output.squeeze(-2), torch.full_like(paths.scores, -torch.inf)
    else:
        spans = items[1]
        output = stages.combine(paths, spans, window, place, given.k.shape[1], given.kernels)
        lse = spans.lse
    wide = torch.float64 if given.q.dtype == torch.float64 else torch.float32
    return Attended(output.to(given.q.dtype), lse.to(wide), window.lse.squeeze(-1).to(wide),
                    paths.spans, paths.scores.to(wide), paths.anchors)


def _none(window: Items, place: Place) -> Paths:
    """What a schedule without levels keeps."""
    shape = (*window.lse.shape[:3], place.schedule.top_k)
    integers = torch.int32 if window.lse.device.type == "cuda" else torch.int64
    return Paths(window.lse.new_zeros((*shape, 2), dtype=integers),
                 window.lse.new_full(shape, -torch.inf),
                 window.lse.new_zeros((*shape, 0), dtype=integers))
