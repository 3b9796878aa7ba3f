"""Decoding over a cache whose keys lie on several ranks, against one process."""

import os
import time

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed")

import multistep  # noqa: E402
import multistep.distributed as md  # noqa: E402
import torch.distributed as dist  # noqa: E402
from multistep.distributed import Layout  # noqa: E402
from ranks import Ranks  # noqa: E402
from shards import (LENGTH, SCHEDULES, bound, cuts_of, differences, make,  # noqa: E402
                    pieces_of, sharded)


def decode_case(rank, world, name, options):
    """Decoding of all cuts of a problem; what is wrong with it."""
    schedule, options = SCHEDULES[name], dict(options)
    nan = options.pop("nan", False)
    make_options = {key: options.pop(key) for key in ("dtype", "coarse", "queries")
                    if key in options}
    q, k, v, routing, search_keys = make(schedule, **make_options)
    length = torch.tensor(options.pop("length", [LENGTH, LENGTH - 37]))
    if nan:  # in scratch: behind the lengths, and before the start
        for b, end in enumerate(length.tolist()):
            for array in (k, v, search_keys):
                array[b, :, end:] = array[b, :, :options["start"][b]] = float("nan")
    options["start"] = torch.tensor(options.get("start", [0, 0]))
    if options.pop("searched", False):
        options["search_keys"] = search_keys
    want = multistep.attend(q, k, v, routing, schedule, length=length, **options)
    wrong, different = [], 0.0
    for cuts in cuts_of(world, LENGTH):
        here = dict(options)
        if "search_keys" in here:
            here["search_keys"], = sharded(rank, cuts, search_keys)
        ks, vs = sharded(rank, cuts, k, v)
        got = md.attend(q, ks, vs, routing, schedule, length=length, key_offset=cuts[rank], **here)
        limit = bound(want, k, v, q, LENGTH, world)
        wrong += [f"{cuts}: {one}" for one in differences(got, want, limit)]
        if schedule.steps > 1:  # and bit for bit what its pieces give, merged in rank order
            by_hand = pieces_of(schedule, q, k, v, routing, cuts, length=length, **options)
            if not (torch.equal(by_hand.output.to(q.dtype), got.output)
                    and torch.equal(by_hand.lse.to(got.lse.dtype), got.lse)):
                wrong.append(f"{cuts}: other bits than its pieces")
        different = max(different, (got.output - want.output).nan_to_num().abs().max().item())
    output = md.decode(q, ks, vs, routing, schedule, length=length, key_offset=cuts[rank], **here)
    if not torch.equal(output, got.output):
        wrong.append("decode gives another output than attend")
    return wrong, different


DECODE = [
    ("nstep2", {}), ("even4", {"queries": 5}),
    ("even, aligned twice", {}), ("paper", {"search_scale": 0.5, "softmax_scale": 0.3}),
    ("dense", {}), ("nstep3", {"start": [5, 60], "nan": True, "length": [100, 70]}),
    ("nstep3", {"start": [0, 3], "nan": True, "length": [9, 12]}),  # most shards hold scratch alone
    ("nstep3", {"coarse": True, "top_k": 4}), ("even4", {"coarse": True, "searched": True}),
    ("nstep2", {"length": [0, 1], "queries": 1}), ("nstep3", {"length": [1, 0]}),
    ("aligned3", {"searched": True, "start": [1, 2]}),
    ("nstep3", {"dtype": torch.float32}), ("nstep2", {"dtype": torch.bfloat16}),
    ("nstep3", {"dtype": torch.float16, "queries": 1}),
]


@pytest.mark.parametrize("name, options", DECODE, ids=lambda one: str(one))
def test_decode(ranks, name, options):
    found = ranks.run(decode_case, name, options)
    assert not sum((wrong for wrong, _ in found), [])
    different = {one for _, one in found}
    assert len(different) == 1  # every rank has the same output
    if ranks.world > 2 and name == "dense":
        assert different != {0.0}  # or the bound would not have been tried


def nan_key_case(rank, world):
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing, _ = make(schedule)
    k[:, :, 90] = float("nan")
    v[:, :, 17] = float("nan")
    cuts = next(cuts_of(world, LENGTH))
    got = md.attend(q, *sharded(rank, cuts, k, v), routing, schedule, length=LENGTH,
                    key_offset=cuts[rank])
    want = multistep.attend(q, k, v, routing, schedule, length=LENGTH)
    assert want.output.isnan().any()
    return differences(got, want, bound(want, k, v, q, LENGTH, world))


def test_a_nan_key_reaches_who_looks_at_it(ranks):
    assert not sum(ranks.run(nan_key_case), [])


def growing_case(rank, world, at_once):
    """A cache that grows across the borders of its shards."""
    schedule, room = SCHEDULES["nstep3"], 4
    q, k, v, routing, _ = make(schedule, queries=world * room, keys=world * room)
    caches = [torch.full((2, 2, room, 8), float("nan"), dtype=torch.float64) for _ in range(2)]
    wrong = []
    for done in range(0, world * room - at_once + 1, at_once):
        rows, length = slice(done, done + at_once), done + at_once
        for cache, whole in zip(caches, (k, v)):
            md.append(cache, whole[:, :, rows], key_offset=rank * room, length=length)
            held = whole[:, :, :length][:, :, rank * room:(rank + 1) * room]
            if not torch.equal(cache[:, :, :held.shape[2]], held):
                wrong.append(f"cache at {length}")
            if not cache[:, :, held.shape[2]:].isnan().all():
                wrong.append(f"cache behind {length}")
        newest = [level[:, :, rows] for level in routing]
        got = md.attend(q[:, :, rows], *caches, newest, schedule, key_offset=rank * room,
                        length=torch.tensor([length, length]))
        want = multistep.attend(q[:, :, rows], k, v, newest, schedule, length=length)
        wrong += differences(got, want, bound(want, k, v, q, length, world))
    return wrong


@pytest.mark.parametrize("at_once", [1, 3, 12])
def test_growing(ranks, at_once):
    assert not sum(ranks.run(growing_case, at_once), [])


def counting_case(rank, world, keys):
    """Numbers of bytes that this rank sends in each exchange of a call."""
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing, _ = make(schedule, keys=keys, dtype=torch.float32)
    cuts, sent, send = next(cuts_of(world, keys)), [], dist.all_gather_into_tensor

    def counted(output, given, **options):
        sent.append(given.numel() * given.element_size())
        return send(output, given, **options)

    dist.all_gather_into_tensor = counted
    try:
        md.decode(q, *sharded(rank, cuts, k, v), routing, schedule, key_offset=cuts[rank],
                  length=keys)
    finally:
        dist.all_gather_into_tensor = send
    return sent


def test_exchanges_do_not_grow_with_the_context(three):
    short, long = three.run(counting_case, 60), three.run(counting_case, 600)
    rows, top_k, d = 2 * 4 * 2, 2, 8
    paths, items = rows * top_k * 5 * 8, rows * (1 + top_k) * (d + 1) * 8
    assert short == long == [[32 * 8, paths, paths, items]] * 3


def compare_case(rank, world, keys):
    """A decoding and a prefill in float32, judged as anybody's kernel is."""
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing, search_keys = make(schedule, dtype=torch.float32)
    cuts = next(cuts_of(world, LENGTH))
    shards = sharded(rank, cuts, k, v, search_keys)
    options = {"length": LENGTH, "search_scale": 0.5}
    found = md.attend(q, *shards[:2], routing, schedule, key_offset=cuts[rank],
                      search_keys=shards[2], **options)
    report = multistep.compare(found, q, k, v, routing, schedule, search_keys=search_keys,
                               **options)
    return bool(report), str(report)


def test_compare_judges_decoding(three):
    for good, report in three.run(compare_case, LENGTH):
        assert good, report


def test_no_group():
    q, k, v, routing, _ = make(SCHEDULES["nstep2"])
    with pytest.raises(RuntimeError, match="^multistep: no process group; "):
        md.decode(q, k, v, routing, SCHEDULES["nstep2"], key_offset=0, length=3)


def some_ranks_case(rank, world):
    """A group of ranks 0 and 2."""
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing, _ = make(schedule)
    group, cuts, own = dist.new_group([0, 2]), [0, 50, LENGTH], rank // 2
    if rank == 1:
        with pytest.raises(ValueError, match="^group: this process is no rank of it$"):
            md.decode(q, k, v, routing, schedule, group=group, key_offset=0, length=LENGTH)
        return []
    got = md.attend(q, *sharded(own, cuts, k, v), routing, schedule, group=group, length=LENGTH,
                    key_offset=cuts[own])
    want = multistep.attend(q, k, v, routing, schedule, length=LENGTH)
    wrong = differences(got, want, bound(want, k, v, q, LENGTH, 2))
    layout = Layout.contiguous([0, 2])  # the other of them is not the group's rank 1 of all
    rows = [layout.shard(x, own) for x in (q, k[:, :, :2], v[:, :, :2], *routing)]
    in_turn = md.attention(*rows[:3], rows[3:], schedule, group=group, layout=layout, in_turn=True)
    rows[1].requires_grad_()
    output = md.attention(*rows[:3], rows[3:], schedule, group=group, layout=layout)
    output.sum().backward()
    if not torch.equal(output, layout.shard(multistep.attention(
            q, k[:, :, :2], v[:, :, :2], routing, schedule), own)) or rows[1].grad is None:
        wrong.append("attention")
    if not torch.equal(in_turn, output):
        wrong.append("attention with keys in turn")
    return wrong


def test_a_group_of_some_ranks(three):
    assert not sum(three.run(some_ranks_case), [])


def refusing_case(rank, world, change):
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing, _ = make(schedule)
    cuts = [0, 40, 80, 120]
    options = {"key_offset": cuts[rank], "length": LENGTH}
    k, v = sharded(rank, cuts, k, v)
    if change == "alike":
        options["length"] = 150
    elif change == "fast":
        options["kernels"] = "fast"
    elif change == "packed":
        options["cu_seqlens"] = [0, 120]
    elif rank == 1:
        if change == "offset":
            options["key_offset"] = 39
        elif change == "value":
            options["top_k"] = 65
        elif change == "length":
            options["length"] = 119
        elif change == "dtype":
            v = v.float()
        elif change == "call":
            return md.attention(q[:, :, :0], k[:, :, :0], v[:, :, :0],
                                [level[:, :, :0] for level in routing], schedule)
        elif change == "gradient":
            q.requires_grad_()
        elif change == "no length":
            options["length"] = None
        elif change == "layout":
            return md.attend(q, k, v, routing, schedule, layout=Layout.contiguous([120]), **options)
    return md.decode(q, k, v, routing, schedule, **options)


@pytest.mark.parametrize("change, own, others", [
    ("offset", "ValueError: key_offset 39 of rank 1: 40, where the keys", None),
    ("value", "ValueError: top_k 65: ", "ValueError: decode: rank 1 refused its arguments"),
    ("dtype", "TypeError: v of torch.float32", "ValueError: decode: rank 1 refused its arguments"),
    ("length", "ValueError: length [119, 119] on rank 1: rank 1 has another than rank 0",
     "ValueError: length [120, 120] on rank "),
    ("call", "ValueError: attention: rank 1 makes another", "ValueError: decode: rank 1 makes"),
    ("gradient", "NotImplementedError: multistep: no gradients", "ValueError: decode: rank 1"),
    ("no length", "TypeError: length None: an integer", "ValueError: decode: rank 1 refused its"),
    ("layout", "ValueError: layout, in_turn: None and False", "ValueError: decode: rank 1 refused"),
    ("fast", "ValueError: kernels 'fast': of CUDA tensors", None),
    ("packed", "ValueError: cu_seqlens: of attention()", None),
    ("alike", "ValueError: length 150: an integer in [0, 120]", None),
])
def test_all_ranks_refuse_together(three, change, own, others):
    for rank, (good, error) in enumerate(three.outcomes(refusing_case, change)):
        assert not good and error.startswith(own if rank == 1 or others is None else others), error


def dying_case(rank, world, how, told):
    """A late rank comes when the others have told that it is late, or it has waited for long."""
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing, _ = make(schedule)
    cuts = [0, 40, 80, 120]
    if rank == 1:
        search, levels = md.decoding.stages.search_level, []

        def dies(*arguments):
            levels.append(arguments)
            if len(levels) == 2:
                if how == "killed":
                    os._exit(1)
                end = time.monotonic() + 60
                while time.monotonic() < end and len(os.listdir(told)) < 2:
                    time.sleep(0.1)
            return search(*arguments)

        md.decoding.stages.search_level = dies
    try:
        md.decode(q, *sharded(rank, cuts, k, v), routing, schedule, key_offset=cuts[rank],
                  length=LENGTH)
    except RuntimeError as error:
        open(os.path.join(told, str(rank)), "w").close()
        return str(error)
    return "nothing"


@pytest.mark.parametrize("how", ["killed", "late"])
def test_a_rank_that_dies(how, tmp_path):
    group = Ranks(3, seconds=10)
    try:
        found = group.outcomes(dying_case, how, str(tmp_path))
    finally:
        group.close()
    assert how == "late" or found[1] is None
    for rank in (0, 2):
        _, error = found[rank]
        assert error.startswith(f"multistep: gather of the paths of level 2 on rank {rank} of 3: "
                                "a rank has died, or was later than the group's time-out (")
        assert "\n" not in error
