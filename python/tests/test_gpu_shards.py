"""Shards of a context on GPUs: the pieces on one, and ranks of NCCL on two."""

import pytest

torch = pytest.importorskip("torch")

import multistep  # noqa: E402
import multistep.distributed as md  # noqa: E402
import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402
from multistep.distributed import Layout  # noqa: E402
from shards import cuts_of, pieces_of, sharded  # noqa: E402
from test_gpu import make  # noqa: E402

pytestmark = pytest.mark.gpu
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")

SCHEDULES = {
    "nstep3": Schedule(steps=3, window_index=1),
    "even4": Schedule.preset("even", 4, window_index=5),
    "aligned3": Schedule.preset("aligned", 3, window_index=5),
    "paper": Schedule.preset("paper", window_index=3),
    "dense": Schedule(steps=1),
}
KEYS = 3000


def problem(name, queries, d=128, dtype=torch.bfloat16):
    schedule = SCHEDULES[name]
    return schedule, make(schedule, batch=2, heads=8, queries=queries, keys=KEYS, d=d, dtype=dtype)


def same_selection(got, want):
    """Bit for bit."""
    return all(torch.equal(getattr(got, field), getattr(want, field))
               for field in ("spans", "scores", "anchors"))


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "dense"])
@pytest.mark.parametrize("queries, d, kernels", [(1, 128, "automatic"), (70, 64, "automatic"),
                                                 (3, 40, "plain")])
def test_pieces(name, queries, d, kernels):
    schedule, (q, k, v, routing) = problem(name, queries, d)
    length = torch.tensor([KEYS, KEYS - 700], device="cuda")
    want = mt.attend(q, k, v, routing, schedule, length=length, kernels=kernels)
    for world in (1, 2, 5):
        for cuts in cuts_of(world, KEYS):
            got = pieces_of(schedule, q, k, v, routing, cuts, length=length, capacity=KEYS,
                            kernels=kernels)
            assert same_selection(got, want), cuts
        report = multistep.compare(got, q, k, v, routing, schedule, length=length.cpu().numpy())
        assert report, f"\n{report}"


def test_pieces_do_not_wait():
    schedule, (q, k, v, routing) = problem("nstep3", 1)
    length = torch.tensor([KEYS, KEYS - 700], device="cuda")
    new = torch.randn(2, 2, 1, 128, device="cuda", dtype=k.dtype)

    def step():
        md.append(k, new, key_offset=0, length=length)
        return pieces_of(schedule, q, k, v, routing, [0, 900, KEYS], length=length, capacity=KEYS)

    want = step()  # makes the tables
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert same_selection(got, want) and torch.equal(got.output, want.output)


def test_wrong_dtypes_are_refused():
    schedule, (q, k, v, routing) = problem("nstep3", 1)
    with pytest.raises(TypeError, match="^spans of dtype int64: int32 here$"):
        md.attend_items(q, k, v, schedule, torch.zeros(2, 8, 1, 2, 2, dtype=torch.int64,
                                                       device="cuda"), key_offset=0, length=9)
    with pytest.raises(TypeError, match="^capacity None: an integer beside a length on the device"):
        md.search_level(routing[0], k, schedule, 1, key_offset=0,
                        length=torch.tensor([9, 9], device="cuda"))


def decode_on_gpus(rank, world, name, queries):
    """Decoding, twice without waiting, and as a captured graph that follows the length."""
    schedule, (q, k, v, routing) = problem(name, queries)
    wrong = []
    for cuts in cuts_of(world, KEYS):
        ks, vs = (x.contiguous() for x in sharded(rank, cuts, k, v))
        length = torch.tensor([KEYS, KEYS - 700], device="cuda")

        def step():
            return md.attend(q, ks, vs, routing, schedule, key_offset=cuts[rank], length=length,
                             capacity=KEYS)

        got, want = step(), mt.attend(q, k, v, routing, schedule, length=length)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        again = step()
        torch.cuda.set_sync_debug_mode("default")
        if not (same_selection(got, want) and torch.equal(got.output, again.output)):
            wrong.append(f"{cuts}: another selection, or another output again")
        report = multistep.compare(got, q, k, v, routing, schedule, length=length.cpu().numpy())
        if not report:
            wrong.append(f"{cuts}: {report}")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        length -= 100
        graph.replay()
        want = mt.attend(q, k, v, routing, schedule, length=length)
        if not same_selection(captured, want):
            wrong.append(f"{cuts}: the graph has another selection")
        torch.cuda.synchronize()
        del graph
    return wrong


@pytest.fixture(scope="module")
def gpus():
    from ranks import Ranks

    group = Ranks(2, seconds=120, backend="nccl")
    yield group
    group.close()


@two_gpus
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("queries", [1, 9])
def test_decode(gpus, name, queries):
    assert not sum(gpus.run(decode_on_gpus, name, queries), [])


def attention_on_gpus(rank, world, name):
    """Prefill and gradients beside those of one GPU, but for the roundings of bfloat16."""
    schedule = SCHEDULES[name]
    q, k, v, routing = make(schedule, heads=8, queries=1000, d=64)
    weights = torch.randn(q.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(5))
    arrays = [x.requires_grad_() for x in (q, k, v, *routing)]
    want = mt.attend(q, k, v, routing, schedule)
    (want.output.float() * weights).sum().backward()
    wrong = []
    for layout in (Layout.contiguous([1000 // world] * world), Layout.head_tail(1000, world),
                   Layout.contiguous([0] * (world - 1) + [1000])):
        own = [layout.shard(x.detach(), rank).requires_grad_() for x in arrays]
        got = md.attend(own[0], own[1], own[2], own[3:], schedule, layout=layout)
        (got.output.float() * layout.shard(weights, rank)).sum().backward()
        for field in ("spans", "scores", "anchors"):
            if not torch.equal(getattr(got, field), layout.shard(getattr(want, field), rank)):
                wrong.append(f"{layout.rows}: {field}")
        if not torch.allclose(got.output.float(), layout.shard(want.output, rank).float(),
                              rtol=2.0**-6, atol=2.0**-6):
            wrong.append(f"{layout.rows}: output")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        again = md.attention(own[0], own[1], own[2], own[3:], schedule, layout=layout)
        torch.autograd.grad(again.float().sum(), own)
        torch.cuda.set_sync_debug_mode("default")
        for i, (a, b) in enumerate(zip(own, arrays)):
            error = (a.grad.float() - layout.shard(b.grad, rank).float()).abs()
            if error.numel() and error.max() > 2.0**-6 * b.grad.float().abs().max():
                wrong.append(f"{layout.rows}: gradient {i} differs by {error.max():.3g}")
    return wrong


@two_gpus
@pytest.mark.parametrize("name", SCHEDULES)
def test_attention(gpus, name):
    assert not sum(gpus.run(attention_on_gpus, name), [])


def in_turn_on_gpus(rank, world, name):
    """Keys that pass by: the selection of one GPU, and its output but for roundings."""
    schedule = SCHEDULES[name]
    q, k, v, routing = make(schedule, heads=8, queries=1000, d=64)
    want, wrong = mt.attend(q, k, v, routing, schedule), []
    for layout in (Layout.contiguous([1000 // world] * world), Layout.head_tail(1000, world),
                   Layout.contiguous([0] * (world - 1) + [1000])):
        q_here, k_here, v_here, *routing_here = (layout.shard(x, rank) for x in (q, k, v, *routing))
        got = md.attend(q_here, k_here, v_here, routing_here, schedule, layout=layout, in_turn=True)
        if not same_selection(got, type(want)(*(layout.shard(field, rank) for field in want))):
            wrong.append(f"{layout.rows}: another selection")
        if not torch.allclose(got.output.float(), layout.shard(want.output, rank).float(),
                              rtol=2.0**-6, atol=2.0**-6):
            wrong.append(f"{layout.rows}: output")
    return wrong


@two_gpus
@pytest.mark.parametrize("name", SCHEDULES)
def test_keys_in_turn(gpus, name):
    assert not sum(gpus.run(in_turn_on_gpus, name), [])


def unequal_case(rank, world):
    """Without a layout the ranks say how many rows they have."""
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing = make(schedule, queries=100)
    if rank == 1:
        k = k[:, :, 1:]
    md.attention(q, k, v, routing, schedule)


@two_gpus
def test_all_ranks_refuse_together(gpus):
    found = gpus.outcomes(unequal_case)
    assert "v of shape" in found[1][1] and "rank 1 refused its arguments" in found[0][1]
