"""Attention where queries and keys are sharded alike, and its gradients, against one process."""

import os
import time
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed")

import multistep  # noqa: E402
import multistep.distributed as md  # noqa: E402
from multistep.distributed import Layout  # noqa: E402
from multistep.distributed.exchange import Exchange  # noqa: E402
from ranks import Ranks  # noqa: E402
from shards import FIELDS, SCHEDULES, bound, cuts_of, differences, make  # noqa: E402


def layouts_of(world, length):
    rng = np.random.default_rng(world)
    for cuts in list(cuts_of(world, length))[:4]:
        yield Layout.contiguous(np.diff(cuts).tolist())
    yield Layout.head_tail(length, world)
    order = rng.permutation(length)
    yield Layout(np.split(order, sorted(rng.integers(0, length + 1, world - 1))))
    yield Layout([np.arange(r, length, world) for r in range(world)])


def whole_case(schedule, dtype, options):
    """One process: what is found, and gradients of a loss by all of it."""
    length = 23
    q, k, v, routing, search_keys = make(schedule, queries=length, keys=length, dtype=dtype, seed=7)
    if "cu_seqlens" in options:
        q, k, v, search_keys, *routing = (x[:1] for x in (q, k, v, search_keys, *routing))
    arrays = [x.clone().requires_grad_() for x in (q, k, v, search_keys, *routing)]
    generator = torch.Generator().manual_seed(9)
    weights = torch.randn(q.shape, generator=generator, dtype=torch.float64).to(dtype)
    return arrays, weights


def loss_of(found, weights):
    """Every output counts."""
    size = sum(torch.where(one.isfinite(), one, 0).square().sum()
               for one in (found.lse, found.window_lse, found.scores))
    return (found.output * weights).sum() + 0.1 * size


def attention_case(rank, world, name, options):
    schedule, options, wrong = SCHEDULES[name], dict(options), []
    dtype, searched = options.pop("dtype", torch.float64), options.pop("searched", False)
    arrays, weights = whole_case(schedule, dtype, options)
    length = weights.shape[2]
    q, k, v, search_keys, *routing = arrays
    want = multistep.attend(q, k, v, routing, schedule, **options,
                            search_keys=search_keys if searched else None)
    loss_of(want, weights).backward()
    for i, layout in enumerate(layouts_of(world, length)):
        own = [layout.shard(x.detach(), rank).requires_grad_() for x in arrays]
        q, k, v, search_keys, *routing = own
        here = {**options, "search_keys": search_keys if searched else None}
        if i:  # the first is the default
            here["layout"] = layout
        got = md.attend(q, k, v, routing, schedule, **here)
        for field in FIELDS:
            a, b = getattr(got, field), layout.shard(getattr(want, field), rank)
            if not torch.equal(a, b) or a.dtype != b.dtype:
                wrong.append(f"{i}: {field}")
        if not i and not torch.equal(md.attention(q, k, v, routing, schedule, **here), got.output):
            wrong.append("attention gives another output than attend")
        loss_of(got, layout.shard(weights, rank)).backward()
        limit = 1e-13 if dtype == torch.float64 else 1e-5
        for j, (a, b) in enumerate(zip(own, arrays)):
            used = j != 3 or searched
            if (a.grad is None, b.grad is None) != (not used, not used):
                wrong.append(f"{i}: gradient {j} of nothing, or none")
            if a.grad is None or b.grad is None:
                continue
            expected = layout.shard(b.grad, rank)
            error = (a.grad - expected).abs()
            if not (error <= limit * b.grad.abs().max()).all():
                wrong.append(f"{i}: gradient {j} differs by {error.max():.3g}")
    return wrong


ATTENTION = [
    ("nstep3", {}), ("nstep2", {"searched": True, "search_scale": 0.5}), ("dense", {}),
    ("aligned3", {"start": torch.tensor([3, 9])}), ("nstep3", {"dtype": torch.float32}),
    ("nstep3", {"cu_seqlens": [0, 7, 7, 8, 20]}),
    ("even4", {"cu_seqlens": [0, 23], "searched": True}),
]


@pytest.mark.parametrize("name, options", ATTENTION, ids=lambda one: str(one))
def test_attention(ranks, name, options):
    assert not sum(ranks.run(attention_case, name, options), [])


def repeating_case(rank, world, dtype):
    """Gradients by keys and values, twice, and what they are: those of every run of rows, added in
    float32 within a rank and then in rank order."""
    schedule, found = SCHEDULES["nstep3"], []
    arrays, weights = whole_case(schedule, dtype, {})
    layout = Layout.head_tail(weights.shape[2], world)
    for _ in range(2):
        own = [layout.shard(x.detach(), rank).requires_grad_() for x in arrays]
        q, k, v, _, *routing = own
        loss_of(md.attend(q, k, v, routing, schedule, layout=layout),
                layout.shard(weights, rank)).backward()
        found.append((k.grad, v.grad))
    q, k, v, _, *routing = (x.detach() for x in arrays)
    total = []
    for other in range(world):
        part = [torch.zeros(k.shape) for _ in range(2)]
        for run in layout.runs(other):
            rows = slice(run.first, run.first + run.rows.stop - run.rows.start)
            keys = [k.clone().requires_grad_(), v.clone().requires_grad_()]
            loss_of(multistep.attend(q[:, :, rows], *keys, [x[:, :, rows] for x in routing],
                                     schedule, query_offset=run.first),
                    weights[:, :, rows]).backward()
            part = [one + by.grad for one, by in zip(part, keys)]
        total = [one + by for one, by in zip(total, part)] if total else part
    expected = [layout.shard(one, rank).to(dtype) for one in total]
    return [torch.equal(a, b) for pair in (found[1], expected) for a, b in zip(found[0], pair)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_repeat_and_add_in_float32(ranks, dtype):
    assert all(sum(ranks.run(repeating_case, dtype), []))


def passing_case(rank, world, name, options):
    """Keys in turn: the same selection, and outputs within the bound of as many merges as an item
    can have parts."""
    schedule, options, wrong = SCHEDULES[name], dict(options), []
    dtype, searched = options.pop("dtype", torch.float64), options.pop("searched", False)
    arrays = [x.detach() for x in whole_case(schedule, dtype, options)[0]]
    q, k, v, search_keys, *routing = arrays
    length = q.shape[2]
    want = multistep.attend(q, k, v, routing, schedule, **options,
                            search_keys=search_keys if searched else None)
    for i, layout in enumerate(layouts_of(world, length)):
        runs = sum(1 for one in range(world) for _ in layout.runs(one))
        limit = runs * bound(want, k, v, q, length, 2)
        q_here, k_here, v_here, search_here, *routing_here = (layout.shard(x, rank)
                                                              for x in arrays)
        arguments = q_here, k_here, v_here, routing_here, schedule
        here = {**options, "search_keys": search_here if searched else None, "in_turn": True}
        if i:  # the first is the default
            here["layout"] = layout
        got = md.attend(*arguments, **here)
        if runs == 1 and not torch.equal(got.output, layout.shard(want.output, rank)):
            wrong.append(f"{i}: one rank's keys give another output")
        own = multistep.Attended(*(layout.shard(field, rank) for field in want))
        wrong += [f"{i}: {one}" for one in differences(got, own, limit)]
        if not torch.equal(md.attention(*arguments, **here), got.output):
            wrong.append(f"{i}: attention gives another output than attend")
    return wrong


@pytest.mark.parametrize("name, options", ATTENTION, ids=lambda one: str(one))
def test_keys_in_turn(ranks, name, options):
    assert not sum(ranks.run(passing_case, name, options), [])


def held_case(rank, world):
    """The most tensors of other ranks that stay held: gloo's own threads let go of one a little
    after it is there."""
    exchange, alive, most = Exchange(None), weakref.WeakSet(), 0
    new_empty, end = torch.Tensor.new_empty, time.monotonic() + 20

    def counted(self, *shape, **options):
        tensor = new_empty(self, *shape, **options)
        alive.add(tensor)
        return tensor

    def look(of, keys):
        nonlocal most
        while len(alive) > 2 and time.monotonic() < end:
            time.sleep(0.01)
        most = max(most, len(alive))
        assert keys.flatten().tolist() == [of] * of

    torch.Tensor.new_empty = counted
    try:
        exchange.pass_by("numbers", [torch.full((1, 1, rank, 1), rank)], range(world), look)
    finally:
        torch.Tensor.new_empty = new_empty
    return most


def test_two_ranks_keys_are_held(ranks):
    assert max(ranks.run(held_case)) == min(2, ranks.world - 1)


def test_the_kernels_integers_stay_theirs():
    """int32, and what is not used stays."""
    spans = torch.tensor([[2, 5], [0, 0]], dtype=torch.int32)
    anchors = torch.tensor([[4], [-1]], dtype=torch.int32)
    found = md.sharded._moved(multistep.Attended(None, None, None, spans, None, anchors), 7)
    assert found.spans.dtype == found.anchors.dtype == torch.int32
    assert found.spans.tolist() == [[9, 12], [0, 0]] and found.anchors.tolist() == [[11], [-1]]


def twice_case(rank, world):
    """A gradient of a gradient."""
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, queries=5, keys=5)
    output = md.attention(q, k.requires_grad_(), v, routing, schedule)
    by_k, = torch.autograd.grad(output.square().sum(), k, create_graph=True)
    by_k.square().sum().backward()


def test_no_gradients_of_gradients(three):
    for good, error in three.outcomes(twice_case):
        assert not good and ("once_differentiable" in error or "gradients of gradients" in error)


def kernels_case(rank, world, in_turn):
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, queries=5, keys=5)
    return md.attention(q, k, v, routing, schedule, in_turn=in_turn,
                        kernels="fast" if rank == 1 else "automatic")


@pytest.mark.parametrize("in_turn", [False, True])
def test_kernels_that_there_are_not(three, in_turn):
    found = three.outcomes(kernels_case, in_turn)
    for rank, (good, error) in enumerate(found):
        assert not good and error.startswith("ValueError: kernels 'fast'" if rank == 1 else
                                             "ValueError: attention: rank 1 refused"), error


def no_gradient_case(rank, world):
    """Of queries alone; of values alone; none."""
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, queries=5, keys=5)
    found = []
    for wanted in ("q", "v", ""):
        own = {"q": q.clone(), "k": k.clone(), "v": v.clone()}
        if wanted:
            own[wanted].requires_grad_()
        output = md.attention(own["q"], own["k"], own["v"], routing, schedule)
        if wanted:
            output.sum().backward()
        found.append([one.grad is not None for one in own.values()] + [output.requires_grad])
    return found


def test_gradients_of_some(three):
    assert three.run(no_gradient_case) == [[[True, False, False, True], [False, False, True, True],
                                            [False] * 4]] * 3


def refusing_attention_case(rank, world, change):
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, queries=5, keys=5)
    options = {}
    if change == "bounds":
        q, k, v, *routing = (x[:1] for x in (q, k, v, *routing))
        options["cu_seqlens"] = [0, 9, 16]
    elif change == "bounds of keys":
        options.update(cu_seqlens=[0, 4], cu_seqlens_k=[0, 4])
    elif change == "layout":
        options["layout"] = Layout.contiguous([5, 5])
    elif change == "in turn":
        options["in_turn"] = rank == 1
    elif rank == 1:
        if change == "rows":
            k = k[:, :, 1:]
        elif change == "start":
            options["start"] = 2
        elif change == "gradient":
            k.requires_grad_()
        elif change == "schedule":
            schedule = None
        elif change == "option":
            options["dropout"] = 0.1
        elif change == "type":
            options["layout"] = [5, 5, 5]
        elif change == "offset":
            return md.attend(q, k, v, routing, schedule, key_offset=5)
    return md.attention(q, k, v, routing, schedule, **options)


@pytest.mark.parametrize("change, own, others", [
    ("rows", "ValueError: v of shape (2, 2, 5, 8): (2, 2, 4, 8)", "ValueError: attention: rank 1 "),
    ("start", "ValueError: start 2 on rank 1: rank 1 has another", "ValueError: start None on "),
    ("gradient", "ValueError: requires_grad [True, False", "ValueError: requires_grad [False, "),
    ("bounds", "ValueError: cu_seqlens to 16: to at most 15, the rows of all ranks", None),
    ("bounds of keys", "ValueError: cu_seqlens_k: of one device", None),
    ("layout", "ValueError: layout of 2 ranks: 3 here", None),
    ("in turn", "ValueError: in_turn True on rank 1: rank 1 ", "ValueError: in_turn False on "),
    ("schedule", "TypeError: schedule of type NoneType", "ValueError: attention: rank 1 refused"),
    ("option", "TypeError: attention() got an unexpected", "ValueError: attention: rank 1 refused"),
    ("type", "TypeError: layout of type list: a Layout", "ValueError: attention: rank 1 refused"),
    ("offset", "ValueError: key_offset 5, capacity None: 0", "ValueError: attention: rank 1 refused"),
])
def test_all_ranks_refuse_attention_together(three, change, own, others):
    found = three.outcomes(refusing_attention_case, change)
    for rank, (good, error) in enumerate(found):
        assert not good and error.startswith(own if rank == 1 or others is None else others), error


def leaving_case(rank, world):
    """Rank 1 leaves its backward out, and ends."""
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, queries=5, keys=5)
    output = md.attention(q, k.requires_grad_(), v, routing, schedule)
    if rank == 1:
        os._exit(0)
    try:
        output.sum().backward()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def gradient_in_turn_case(rank, world):
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, queries=5, keys=5)
    return md.attention(q, k.requires_grad_(), v, routing, schedule, in_turn=True)


def dying_in_turn_case(rank, world):
    """Rank 2 ends when rank 1's keys have come."""
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, queries=5, keys=5)
    if rank == 2:
        before, seen = md.passing.Queries.search, []

        def search(self, *arguments):
            seen.append(arguments)
            return os._exit(0) if len(seen) > 1 else before(self, *arguments)

        md.passing.Queries.search = search
    return md.attention(q, k, v, routing, schedule, in_turn=True)


def test_keys_in_turn_have_no_gradients(three):
    for good, error in three.outcomes(gradient_in_turn_case):
        assert not good and error.startswith("NotImplementedError: multistep: no gradients where")


def test_a_rank_that_dies_while_keys_pass_by():
    group = Ranks(3, seconds=10)
    try:
        found = group.outcomes(dying_in_turn_case)
    finally:
        group.close()
    for rank in (0, 1):
        assert found[rank][1].startswith("RuntimeError: multistep: keys "), found[rank]
        assert f"on rank {rank} of 3: a rank has died" in found[rank][1]


def test_a_backward_that_a_rank_leaves_out():
    group = Ranks(3, seconds=10)
    try:
        found = group.outcomes(leaving_case)
    finally:
        group.close()
    for rank in (0, 2):
        assert found[rank][1].startswith("multistep: sum of the gradients of keys and values on rank "
                                         f"{rank} of 3: a rank has died"), found[rank]
