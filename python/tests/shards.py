"""Problems of which ranks, or shards, have parts, and how results may differ from one process's."""

import multistep
import multistep.distributed as md
import numpy as np
import torch
from multistep import Schedule
from multistep.distributed import Items, LevelPaths

SCHEDULES = {
    "nstep2": Schedule(top_k=3),
    "nstep3": Schedule(steps=3, window_index=1),
    "even4": Schedule.preset("even", 4, window_index=3),
    "aligned3": Schedule.preset("aligned", 3, window_index=2),
    "even, aligned twice": Schedule(steps=4, rule=("even", "aligned", "aligned")),
    "paper": Schedule.preset("paper", window_index=2),
    "dense": Schedule(steps=1),
}
LENGTH = 120
FIELDS = multistep.Attended._fields


def make(schedule, *, queries=2, keys=LENGTH, d=8, dtype=torch.float64, seed=0, coarse=False):
    """q, k, v, routing queries and search keys of two sequences."""
    generator = torch.Generator().manual_seed(seed)

    def array(*shape):
        if coarse:
            return torch.randint(-1, 2, shape, generator=generator).to(dtype)
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    q, routing = array(2, 4, queries, d), [array(2, 4, queries, d) for _ in
                                           range(schedule.steps - 1)]
    return q, array(2, 2, keys, d), array(2, 2, keys, d), routing, array(2, 2, keys, d)


def cuts_of(world, keys):
    """Borders of shards: even, uneven, one key each but for the last, and with empty ones first,
    last and between."""
    rng = np.random.default_rng(world)
    yield [keys * r // world for r in range(world + 1)]
    yield [0, *sorted(rng.integers(0, keys + 1, world - 1).tolist()), keys]
    yield [*range(world), keys]
    yield [0, *[keys // 2] * (world - 1), keys]
    if world < 4:
        yield [0] * world + [keys]
        yield [0] + [keys] * world


def bound(want, k, v, q, length, world):
    """What the merge may change of an output (merge_items): spans and windows are no longer than
    the context."""
    lses = torch.cat([want.lse.flatten(), want.window_lse.flatten()])
    largest = lses[lses.isfinite()].abs().max().item() if lses.isfinite().any() else 0
    return 2.0**-53 * (4 * largest + 2 * length + world + 16) * v.nan_to_num().abs().max().item()


def differences(got, want, limit):
    """Fields that are not as they must be: selections have the same bits."""
    wrong = []
    for name in FIELDS:
        a, b = getattr(got, name), getattr(want, name)
        if a.dtype != b.dtype or a.shape != b.shape:
            wrong.append(f"{name}: {a.dtype} {tuple(a.shape)} for {b.dtype} {tuple(b.shape)}")
        elif name in ("spans", "scores", "anchors"):
            if not torch.equal(a, b):
                wrong.append(f"{name} differ in {int((a != b).sum())}")
        else:
            near = limit + (0 if a.dtype == torch.float64 else torch.finfo(a.dtype).eps * b.abs())
            good = (a == b) | ((a - b).abs() <= near) | (a.isnan() & b.isnan())
            if not good.all():
                wrong.append(f"{name} differs by {(a - b)[~good].abs().max():.3g}, {limit:.3g}")
    return wrong


def sharded(rank, cuts, *arrays):
    """The rank's keys of each."""
    return [array[:, :, cuts[rank]:cuts[rank + 1]] for array in arrays]


def pieces_of(schedule, q, k, v, routing, cuts, *, length, start=None, search_keys=None, top_k=None,
              search_scale=1.0, softmax_scale=None, **place):
    """The pieces by hand, without a group: what a framework with an engine of its own does."""
    schedule = schedule.with_top_k(top_k)
    keys, shards = k if search_keys is None else search_keys, list(zip(cuts, cuts[1:]))
    place, parents = {**place, "length": length, "start": start}, None
    for level in range(1, schedule.steps):
        found = [md.search_level(routing[level - 1], keys[:, :, a:b], schedule, level, parents,
                                 key_offset=a, search_scale=search_scale, **place)
                 for a, b in shards]
        parents = md.merge_paths(LevelPaths(*map(torch.stack, zip(*found))), parents)
    merged = []
    for spans in (parents.spans, None):
        parts = [md.attend_items(q, k[:, :, a:b], v[:, :, a:b], schedule, spans, key_offset=a,
                                 softmax_scale=softmax_scale, **place) for a, b in shards]
        merged.append(md.merge_items(Items(*map(torch.stack, zip(*parts)))))
    spans, window = merged
    output = md.combine_items(parents, spans, window, schedule, num_kv_heads=k.shape[1],
                              kernels=place.get("kernels", "automatic"))
    return multistep.Attended(output, spans.lse, window.lse[..., 0], *parents)
