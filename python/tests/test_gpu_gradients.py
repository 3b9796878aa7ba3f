"""The kernels' gradients from Python: against the oracle's in float64, on the same 16-bit values
and at the selection that the kernels found."""

import functools
import gc
import time

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402
from multistep._problem import Arguments, Derivatives, Kept  # noqa: E402
from multistep._recurrence import Recurrence, WalkGradients  # noqa: E402
from multistep.torch import operators  # noqa: E402

from test_gpu import SCHEDULES, make  # noqa: E402

pytestmark = pytest.mark.gpu

OPS = torch.ops.multistep
# Shares and derivatives of logits are rounded to 16 bits once before they are summed, and sums once
# after: of each tensor's largest value, 2 roundings and 2 for what cancels.
LIMITS = {torch.bfloat16: 4 * 2.0**-8, torch.float16: 4 * 2.0**-11}


def leaves(arrays):
    """q, k, v, routing queries .. of their own."""
    q, k, v, routing = arrays
    return [x.detach().clone().requires_grad_() for x in (q, k, v, *routing)]


def attention(schedule, q, k, v, *routing, **options):
    return mt.attention(q, k, v, list(routing), schedule, **options)


def weights(like, seed=9):
    generator = torch.Generator(device="cuda").manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device="cuda").to(like.dtype)


def wide(tensor):
    """On the CPU, without rounding."""
    if tensor is None:
        return None
    tensor = tensor.detach().cpu()
    return tensor.double() if tensor.is_floating_point() else tensor.long()


def near(name, got, want, dtype):
    got, largest = wide(got), want.abs().max()
    assert got.isfinite().all(), name
    assert (got - want).abs().max() <= LIMITS[dtype] * largest, \
        f"{name}: {(got - want).abs().max() / largest:.3g} of the largest"
    assert (got - want).abs().mean() <= LIMITS[dtype] / 2 * want.abs().mean() + 1e-9, name
    if name == "v":  # other gradients of 0 may be sums that cancel
        assert not got[want == 0].any(), "what nobody looked at has gradient 0"


def check(arrays, schedule, weigh, dtype, **options):
    """Gradients of sums of what ``attend`` gives, weighed, against the oracle's."""
    inputs = leaves(arrays)
    keys = options.pop("search_keys", None)
    if keys is not None:
        inputs.append(keys.detach().clone().requires_grad_())
    levels = schedule.steps - 1
    q, k, v, *routing = inputs[: 3 + levels]
    keys = inputs[-1] if keys is not None else None
    found = mt.attend(q, k, v, routing, schedule, search_keys=keys, **options)
    weighed = [(one, weights(one)) if wanted else None for one, wanted in
               zip((found.output, found.lse, found.window_lse, found.scores), weigh)]
    loss = sum(torch.where(one > -torch.inf, one * weight, 0).float().sum()
               for one, weight in filter(None, weighed))
    got = torch.autograd.grad(loss, inputs, allow_unused=True)
    given = Arguments(*map(wide, (q, k, v)), list(map(wide, routing)), schedule,
                      search_keys=wide(keys), **{
                          name: wide(value) if isinstance(value, torch.Tensor) else value
                          for name, value in options.items()})
    want = OPS.attention_backward(
        *(pair and wide(torch.where(pair[0] > -torch.inf, pair[1], 0)) for pair in weighed),
        *map(wide, (found.spans, found.scores, found.anchors)), None, None,
        *operators.operands(given))
    want = [*want[:3], *want[3], *([want[4]] if keys is not None else [])]
    names = ["q", "k", "v", *(f"routing {m}" for m in range(levels)), "search keys"]
    for name, one, other in zip(names, got, want):
        near(name, one, other, dtype)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [64, 128, 40])
def test_the_output(name, dtype, d):
    schedule = SCHEDULES[name]
    arrays = make(schedule, batch=2, d=d, dtype=dtype, queries=137)
    check(arrays, schedule, (1, 0, 0, 0), dtype)


@pytest.mark.parametrize("name", ["nstep3", "released", "dense"])
def test_scores_and_log_sum_exps(name):
    """What a routing loss and a z-loss look at, alone and beside the output."""
    schedule = SCHEDULES[name]
    arrays = make(schedule, batch=2, queries=90)
    for weigh in ((1, 1, 1, 1), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
        check(arrays, schedule, weigh, torch.bfloat16)


@pytest.mark.parametrize("top_k", [1, 3, 8])
def test_start_offset_scales_and_search_keys(top_k):
    schedule = Schedule(steps=3, window_index=2)
    q, k, v, routing = make(schedule, batch=2, queries=70, keys=333)
    search_keys = make(schedule, batch=2, queries=333, seed=1)[1]
    for tail in (k, v, search_keys):
        tail[:, :, 300:] = 0
    check((q, k, v, routing), schedule, (1, 1, 1, 1), torch.bfloat16, query_offset=230,
          softmax_scale=0.2, search_scale=0.5, top_k=top_k, search_keys=search_keys,
          start=torch.tensor([0, 250], device="cuda"))


def test_long():
    schedule = SCHEDULES["nstep2"]
    arrays = make(schedule, queries=2500, heads=4, kv_heads=1, d=128)
    check(arrays, schedule, (1, 0, 0, 0), torch.bfloat16, top_k=4)


def test_what_lies_behind_the_last_query_may_be_nan():
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing = make(schedule, queries=50, keys=80)
    given = leaves((q, k, v, routing))
    want = torch.autograd.grad(attention(schedule, *given).sum(), given)
    with torch.no_grad():
        given[1][:, :, 50:] = given[2][:, :, 50:] = torch.nan
    got = torch.autograd.grad(attention(schedule, *given).sum(), given)
    assert all(torch.equal(*pair) for pair in zip(got, want))
    assert not got[1][:, :, 50:].any() and not got[2][:, :, 50:].any()


def test_two_runs_are_the_same_bits():
    for name in ("nstep3", "released", "dense"):
        schedule = SCHEDULES[name]
        given = leaves(make(schedule, batch=2, queries=700))
        weight = weights(given[0])
        runs = [torch.autograd.grad(attention(schedule, *given), given, weight) for _ in range(3)]
        for other in runs[1:]:
            assert all(torch.equal(*pair) for pair in zip(runs[0], other)), name


def test_frozen_inputs():
    schedule = SCHEDULES["nstep2"]
    given = leaves(make(schedule))
    whole = torch.autograd.grad(attention(schedule, *given).sum(), given)
    for i, one in enumerate(given):
        alone = [x if x is one else x.detach() for x in given]
        got, = torch.autograd.grad(attention(schedule, *alone).sum(), one)
        assert torch.equal(got, whole[i])


def test_strided_inputs_and_an_expanded_derivative():
    schedule = SCHEDULES["nstep3"]
    dense = leaves(make(schedule, d=40))
    turned = [x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
              for x in dense]
    found = [torch.autograd.grad(attention(schedule, *given).sum(), given)
             for given in (dense, turned)]
    assert all(torch.equal(*pair) for pair in zip(*found))


def test_opcheck():
    schedule = SCHEDULES["nstep3"]
    q, k, v, *routing = leaves(make(schedule, queries=65))
    given = (schedule.text, None, None, 1.0, 0, None, None)
    torch.library.opcheck(OPS.attention.default,
                          (q, k, v, routing, *given, None, None, None, "automatic", True))
    q, k, v, *routing = (x.detach() for x in (q, k, v, *routing))
    found = mt.attend(q, k, v, routing, schedule)
    at = (found.spans, found.scores, found.anchors, found.output, found.window_lse)
    for by, keys in (((q, None, None, found.scores.clamp(-9)), None), ((q, None, None, None), k)):
        torch.library.opcheck(OPS.attention_backward.default,
                              (*by, *at, q, k, v, routing, *given, keys, None, None, "automatic"))
    x, b, c = (torch.randn(1, 2, 40, 16, device="cuda").bfloat16() for _ in range(3))
    a, first = torch.rand(1, 2, 40, device="cuda"), torch.randn(1, 2, 16, 16, device="cuda")
    for by_output, by_state, initial in ((x, first, first), (None, first, None), (x, None, None)):
        torch.library.opcheck(OPS.accumulate_backward.default,
                              (by_output, by_state, x, a, b, c, initial, None, 0))
    torch.library.opcheck(OPS.accumulate.default,
                          (x.clone().requires_grad_(), a, b, c, first, None, 0))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_fullgraph(backend):
    if backend == "inductor":
        pytest.importorskip("triton")
    torch._dynamo.reset()
    schedule = SCHEDULES["nstep3"]
    given = leaves(make(schedule, queries=128))

    def layer(q, *rest):
        return attention(schedule, q * 2, *rest) + 1

    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    weight = weights(given[0])
    got = torch.autograd.grad(compiled(*given), given, weight)
    want = torch.autograd.grad(layer(*given), given, weight)
    for one, other in zip(got, want):
        torch.testing.assert_close(one, other, rtol=2**-7, atol=2**-7)


def test_autocast():
    schedule = SCHEDULES["nstep3"]
    narrow = leaves(make(schedule))
    given = [x.detach().float().requires_grad_() for x in narrow]
    with torch.autocast("cuda", torch.bfloat16):
        output = attention(schedule, *given)
    assert output.dtype == torch.bfloat16
    got = torch.autograd.grad(output.sum(), given)
    want = torch.autograd.grad(attention(schedule, *narrow).sum(), narrow)
    assert all(one.dtype == torch.float32 and torch.equal(one, other.float())
               for one, other in zip(got, want))


def test_checkpoint():
    schedule = SCHEDULES["released"]
    given = leaves(make(schedule, queries=300))
    layer = functools.partial(attention, schedule)
    want = torch.autograd.grad(layer(*given).sum(), given)
    got = torch.autograd.grad(checkpoint(layer, *given, use_reentrant=False).sum(), given)
    assert all(torch.equal(*pair) for pair in zip(got, want))


def test_graph_capture_of_forward_and_backward():
    schedule = SCHEDULES["nstep3"]
    given = leaves(make(schedule, queries=300))
    weight = weights(given[0])

    def step():
        output = attention(schedule, *given)
        return output, *torch.autograd.grad(output, given, weight)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for seed in (0, 1):
        with torch.no_grad():
            for one, other in zip(given, leaves(make(schedule, queries=300, seed=seed))):
                one.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(*pair) for pair in zip(found, step()))


def test_another_stream():
    schedule = SCHEDULES["nstep2"]
    given = leaves(make(schedule, queries=512))
    want = torch.autograd.grad(attention(schedule, *given).sum(), given)
    late = [torch.zeros_like(x).requires_grad_() for x in given]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)
        with torch.no_grad():
            for one, source in zip(late, given):
                one.copy_(source)
        got = torch.autograd.grad(attention(schedule, *late).sum(), late)
        torch.cuda.current_stream().synchronize()
    assert all(torch.equal(*pair) for pair in zip(got, want))


def test_memory_comes_back():
    schedule = SCHEDULES["released"]
    given = leaves(make(schedule, queries=256))

    def step():
        torch.autograd.grad(attention(schedule, *given).sum(), given)

    step()
    gc.collect()  # what other tests left
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(20):
        step()
    torch.cuda.synchronize()
    for _ in range(200):  # autograd's own thread may let go of the last step a little later
        if torch.cuda.memory_allocated() == before:
            break
        time.sleep(0.05)
    assert torch.cuda.memory_allocated() == before


def test_no_queries():
    schedule = SCHEDULES["nstep2"]
    given = leaves(make(schedule, queries=0, keys=64))
    got = torch.autograd.grad(attention(schedule, *given).sum(), given)
    assert [x.shape for x in got] == [x.shape for x in given] and not got[1].any()


def test_a_length_on_the_device_is_refused_at_the_forward():
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing = make(schedule)

    def layer(q):
        return mt.decode(q, k, v, routing, schedule, length=200)

    want = layer(q)
    for call in (layer, torch.compile(layer, backend="aot_eager")):
        given = q.clone().requires_grad_()
        with pytest.raises(NotImplementedError, match="^multistep: no gradients .*length") as e:
            call(given)
        assert "\n" not in str(e.value)
        with torch.no_grad():
            assert torch.equal(call(given), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("length", [1, 63, 700])
def test_accumulate(dtype, length):
    torch.manual_seed(0)
    x, b, c = (torch.randn(2, 3, length, width, device="cuda").to(dtype).requires_grad_()
               for width in (64, 16, 16))
    a = (1 - torch.rand(2, 3, length, device="cuda") / 50).requires_grad_()  # reaches all rows
    first = torch.randn(2, 3, 64, 16, device="cuda").requires_grad_()
    start = torch.tensor([0, length // 3], device="cuda", dtype=torch.int32)
    for initial, weigh in ((first, (1, 1)), (None, (1, 0)), (first, (0, 1))):
        output, state = mt.accumulate(x, a, b, c, initial=initial, start=start)
        by = [weights(one) if weighed else None for one, weighed in zip((output, state), weigh)]
        inputs = [x, a, b, c] + ([] if initial is None else [initial])
        got = torch.autograd.grad(
            [one for one, weighed in zip((output, state), weigh) if weighed], inputs,
            [one for one in by if one is not None])
        want = WalkGradients(*OPS.accumulate_backward(
            *map(wide, by), *Recurrence(*map(wide, (x, a, b, c, initial, start)))))
        for name, one, other in zip(want._fields, got, want):
            near(name, one, other, dtype)
        again = torch.autograd.grad(
            [one for one, weighed in zip(mt.accumulate(x, a, b, c, initial=initial, start=start),
                                         weigh) if weighed],
            inputs, [one for one in by if one is not None])
        assert all(torch.equal(*pair) for pair in zip(got, again))


def test_search_keys_from_accumulate():
    """The whole chain: keys, averaged, searched; both devices' gradients by the keys and decays."""
    schedule = SCHEDULES["nstep2"]
    q, k, v, r = leaves(make(schedule, queries=100))
    a = torch.full((1, 2, 100), 0.8, device="cuda").requires_grad_()
    b = torch.full((1, 2, 100, 1), 0.2, device="cuda").bfloat16()
    keys, _ = mt.accumulate(k, a, b, torch.ones_like(b))
    found = mt.attend(q, k, v, [r], schedule, search_keys=keys)
    got = torch.autograd.grad(found.output.float().square().sum(), (k, a))
    by_output = wide(2 * found.output)
    by = OPS.attention_backward(
        by_output, None, None, None, *map(wide, found[3:]), None, None,
        *operators.operands(Arguments(*map(wide, (q, k, v)), [wide(r)], schedule,
                                      search_keys=wide(keys))))
    walk = WalkGradients(*OPS.accumulate_backward(by[4], None, *map(wide, (
        k, a, b, torch.ones_like(b))), None, None, 0))
    near("k", got[0], by[1] + walk.x, torch.bfloat16)
    near("a", got[1], walk.a, torch.bfloat16)


@pytest.mark.parametrize("name", SCHEDULES)
def test_packed_sequences(name):
    schedule = SCHEDULES[name]
    arrays = make(schedule, queries=330)
    bounds = torch.tensor([0, 100, 100, 101, 325], device="cuda")
    check(arrays, schedule, (1, 1, 1, 1), torch.bfloat16, cu_seqlens=bounds)
    found = mt.attend(*arrays, schedule, cu_seqlens=bounds.tolist())
    q, k, v, routing = arrays
    for begin, end in ((0, 100), (100, 101), (101, 325)):
        want = mt.attend(*(x[:, :, begin:end] for x in (q, k, v)),
                         [level[:, :, begin:end] for level in routing], schedule)
        assert torch.equal(found.scores[:, :, begin:end], want.scores)
    assert not found.output[:, :, 325:].any()
    assert "decode_pieces" not in str(mt.plan(*(x[:, :, :3] for x in (q, k, v)),
                                       [level[:, :, :3] for level in routing], schedule,
                                       cu_seqlens=[0, 3]))


@pytest.mark.parametrize("name", SCHEDULES)
def test_packed_sequences_with_keys_of_their_own(name):
    """New queries over longer caches; of one sequence more queries than keys, of one no keys."""
    schedule = SCHEDULES[name]
    lengths, of_keys = [100, 2, 0, 70, 1, 60], [1500, 2, 30, 40, 0, 700]
    arrays = make(schedule, queries=sum(lengths) + 5, keys=sum(of_keys) + 50)
    q, k, v, routing = arrays
    bounds, key_bounds = (torch.tensor([0, *each], device="cuda").cumsum(0)
                          for each in (lengths, of_keys))
    options = {"cu_seqlens": bounds, "cu_seqlens_k": key_bounds}
    check(arrays, schedule, (1, 1, 1, 1), torch.bfloat16, **options)
    found = mt.attend(*arrays, schedule, **options)
    for x in (k, v):
        x[:, :, sum(of_keys):] = torch.nan
    again = mt.attend(*arrays, schedule, **{name: bounds.tolist()
                                            for name, bounds in options.items()})
    assert all(map(torch.equal, again, found))
    assert "decode_pieces" not in str(mt.plan(*arrays, schedule, **options))
    without_keys = torch.ones(q.shape[2], dtype=torch.bool, device="cuda")
    for rows, keys, end, last in zip(lengths, of_keys, bounds.tolist()[1:],
                                     key_bounds.tolist()[1:]):
        here, there = slice(end - min(rows, keys), end), slice(last - keys, last)
        if here.start == here.stop:
            continue
        without_keys[here] = False
        want = mt.attend(q[:, :, here], k[:, :, there], v[:, :, there],
                         [level[:, :, here] for level in routing], schedule,
                         query_offset=keys - min(rows, keys))
        assert torch.equal(found.scores[:, :, here], want.scores)
    assert not found.output[:, :, without_keys].any()
    assert (found.window_lse[:, :, without_keys] == -torch.inf).all()
