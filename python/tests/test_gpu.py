"""The kernels from Python: tensors in and out, streams, graphs, operators."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.overrides import BaseTorchFunctionMode  # noqa: E402

import multistep  # noqa: E402
import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402
from paging import in_pages  # noqa: E402

pytestmark = pytest.mark.gpu

SCHEDULES = {
    "nstep2": Schedule(),
    "nstep3": Schedule(steps=3),
    "even4": Schedule.preset("even", 4),
    "paper": Schedule.preset("paper", window_index=5),
    "released": Schedule.preset("released", window_index=7),
    "dense": Schedule(steps=1),
}


def make(schedule, *, batch=1, heads=4, kv_heads=2, queries=200, keys=None, d=64,
         dtype=torch.bfloat16, seed=0):
    """q, k, v and the routing queries, seeded."""
    generator = torch.Generator(device="cuda").manual_seed(seed)

    def array(*shape):
        return torch.randn(*shape, generator=generator, device="cuda").to(dtype)

    keys = queries if keys is None else keys
    q = array(batch, heads, queries, d)
    k, v = array(batch, kv_heads, keys, d), array(batch, kv_heads, keys, d)
    return q, k, v, [array(batch, heads, queries, d) for _ in range(schedule.steps - 1)]


def judged(found, arrays, schedule, **options):
    report = multistep.compare(found, *arrays, schedule, **options)
    assert report, f"\n{report}"
    return report


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("d", [64, 128, 40])
def test_attention_passes_comparison(name, dtype, d):
    schedule = SCHEDULES[name]
    arrays = make(schedule, batch=2, d=d, dtype=dtype, queries=137)
    found = mt.attend(*arrays, schedule)
    assert torch.equal(found.output, mt.attention(*arrays, schedule))
    assert found.output.dtype == dtype and found.output.is_cuda
    assert found.spans.dtype == torch.int32 and found.lse.dtype == torch.float32
    report = judged(found, arrays, schedule)
    if schedule.steps > 1:
        assert [stage.name for stage in report.stages] == ["search", "span lse", "window lse",
                                                           "output"]


def test_long_prefill_and_top_k():
    schedule = SCHEDULES["released"]
    arrays = make(schedule, queries=4096, heads=8, kv_heads=2, d=128)
    found = mt.attend(*arrays, schedule, top_k=4)
    assert found.spans.shape == (1, 8, 4096, 4, 2)
    judged(found, arrays, schedule, top_k=4, rows=400)


def test_start_offset_scales_and_search_keys():
    schedule = Schedule(steps=3, window_index=2)
    q, k, v, routing = make(schedule, batch=2, queries=70, keys=333)
    search_keys = make(schedule, batch=2, queries=333, seed=1)[1]
    k[:, :, 300:] = float("nan")  # behind the last query
    v[:, :, 300:] = float("nan")
    options = dict(query_offset=230, softmax_scale=0.2, search_scale=0.5,
                   start=torch.tensor([0, 250], device="cuda"), search_keys=search_keys)
    found = mt.attend(q, k, v, routing, schedule, **options)
    judged(found, (q, k, v, routing), schedule, **{**options, "start": np.array([0, 250])})


def test_arrays_that_are_not_contiguous():
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing = make(schedule)
    want = mt.attention(q, k, v, routing, schedule)
    scattered = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, routing[0])]
    assert not scattered[0].is_contiguous()
    assert torch.equal(mt.attention(*scattered[:3], scattered[3:], schedule), want)
    shifted = torch.empty(q.numel() + 1, dtype=q.dtype, device="cuda")[1:].view(q.shape)
    shifted.copy_(q)  # dense, but not 16-byte aligned
    assert torch.equal(mt.attention(shifted, k, v, routing, schedule), want)


def test_the_generic_function_takes_tensors():
    schedule = SCHEDULES["nstep2"]
    arrays = make(schedule)
    assert torch.equal(multistep.attention(*arrays, schedule), mt.attention(*arrays, schedule))


def test_current_stream():
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing = make(schedule, queries=512)
    want = mt.attention(q, k, v, routing, schedule)
    side = torch.cuda.Stream()
    late = torch.zeros_like(q)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late.copy_(q)  # not there yet when the call is made
        found = mt.attention(late, k, v, routing, schedule)
    assert not side.query(), "the call waited for the device"
    side.synchronize()
    assert torch.equal(found, want)


def test_graph_capture_and_replay():
    schedule = SCHEDULES["released"]
    q, k, v, routing = make(schedule, queries=300)
    want = mt.attention(q, k, v, routing, schedule)
    graph = torch.cuda.CUDAGraph()
    static = torch.zeros_like(q)
    with torch.cuda.graph(graph):
        found = mt.attention(static, k, v, routing, schedule)
    for source, expected in ((q, want), (2 * q, mt.attention(2 * q, k, v, routing, schedule))):
        static.copy_(source)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(found, expected)


def test_tables_cannot_be_made_while_capturing():
    schedule = Schedule(exponent="71/37")
    q, k, v, routing = make(schedule)
    with pytest.raises(RuntimeError, match="prepare"):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            mt.attention(q, k, v, routing, schedule)
    torch.cuda.synchronize()
    mt.prepare(schedule, k.shape[2])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mt.attention(q, k, v, routing, schedule)


@pytest.mark.parametrize("name", ["nstep2", "nstep3", "released", "dense"])
def test_decode_follows_the_length(name):
    schedule = SCHEDULES[name]
    q, k, v, routing = make(schedule, batch=2, queries=1, keys=900, d=128)
    for lengths in ([1, 900], [513, 77]):
        length = torch.tensor(lengths, dtype=torch.int32, device="cuda")
        found = mt.attend(q, k, v, routing, schedule, length=length)
        assert torch.equal(found.output, mt.decode(q, k, v, routing, schedule, length=length))
        judged(found, (q, k, v, routing), schedule, length=np.array(lengths))


def test_a_captured_decode_follows_a_growing_cache():
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing = make(schedule, queries=1, keys=600)
    length = torch.tensor([5], dtype=torch.int32, device="cuda")
    mt.prepare(schedule, 600)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = mt.decode(q, k, v, routing, schedule, length=length)
    for n in (5, 6, 599, 600):
        length.fill_(n)
        graph.replay()
        torch.cuda.synchronize()
        want = mt.decode(q, k, v, routing, schedule, length=n)
        assert torch.equal(found, want)


@pytest.mark.parametrize("name", ["nstep2", "nstep3", "dense"])
@pytest.mark.parametrize("details", [True, False])
def test_calls_past_the_operator_find_the_same(name, details):
    """Again and again, from threads with streams of their own."""
    schedule = SCHEDULES[name]
    problems = [make(schedule, batch=2, queries=1, keys=900, d=128, seed=i) for i in range(8)]
    length = torch.tensor([513, 900], device="cuda")  # of int64: a copy is what kernels read

    def calls(problem):
        with torch.cuda.stream(torch.cuda.Stream()):
            if not details:
                return [mt.decode(*problem, schedule, length=length) for _ in range(20)]
            return [x for _ in range(20) for x in mt.attend(*problem, schedule, length=length)]

    with BaseTorchFunctionMode():  # sees operators
        want = [list(mt.attend(*one, schedule, length=length)) for one in problems]
    torch.cuda.synchronize()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(calls, problems))
    torch.cuda.synchronize()
    for every, expected in zip(found, want):
        for i, one in enumerate(every):
            assert torch.equal(one, expected[i % 6 if details else 0])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("size", [16, 64, 256])
def test_decoding_of_keys_in_pages(name, size):
    schedule = SCHEDULES[name]
    lengths = [0, 900, 333]
    q, k, v, routing = make(schedule, batch=3, queries=1, keys=900, d=128)
    search_keys = make(schedule, batch=3, queries=900, d=128, seed=1)[1]
    length = torch.tensor(lengths, device="cuda")
    pools, table = in_pages((k, v, search_keys), lengths, size)
    turned = [pool.transpose(1, 2).contiguous().transpose(1, 2) for pool in pools]
    for own in (False, True):
        def decode(k, v, search_keys, own=own, **pages):
            return mt.decode(q, k, v, routing, schedule, length=length,
                             search_keys=search_keys if own else None, **pages)

        want = decode(k, v, search_keys)
        for given in (pools, turned):
            found = decode(*given, block_table=table)
            if schedule.steps > 1:
                assert torch.equal(found, want)
            else:  # other kernels take dense keys
                torch.testing.assert_close(found, want, rtol=2e-2, atol=1e-2)


def test_a_captured_decode_follows_growing_pages():
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing = make(schedule, batch=2, queries=1, keys=640)
    (k_pool, v_pool), full = in_pages((k, v), [640, 640], 64)
    length = torch.tensor([5, 70], dtype=torch.int32, device="cuda")
    table = full.clone()
    mt.prepare(schedule, table.shape[1] * 64)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = mt.decode(q, k_pool, v_pool, routing, schedule, length=length, block_table=table)
    for lengths in ([5, 70], [64, 65], [600, 0], [640, 640]):
        length.copy_(torch.tensor(lengths))
        table.fill_(-1)
        for b, n in enumerate(lengths):
            table[b, :-(-n // 64)] = full[b, :-(-n // 64)]
        graph.replay()
        assert torch.equal(found, mt.decode(q, k, v, routing, schedule, length=length))


def test_accumulate():
    torch.manual_seed(0)
    x, b, c = (torch.randn(2, 3, 700, width, device="cuda").bfloat16() for width in (64, 16, 16))
    a = torch.rand(2, 3, 700, device="cuda")
    first = torch.randn(2, 3, 64, 16, device="cuda")
    r, state = mt.accumulate(x, a, b, c, initial=first)
    want, want_state = multistep.accumulate(x.cpu(), a.cpu(), b.cpu(), c.cpu(),
                                            initial=first.cpu())
    scale = want.float().abs().max()
    assert (r.cpu().float() - want.float()).abs().max() <= 2**-7 * scale  # bf16 keeps 8 bits
    assert torch.allclose(state.cpu(), want_state, rtol=1e-4, atol=1e-4)
    half = [t[:, :, :350] for t in (x, a, b, c)]
    rest = [t[:, :, 350:] for t in (x, a, b, c)]
    r1, middle = mt.accumulate(*half, initial=first)
    r2, last = mt.accumulate(*rest, initial=middle, offset=350)
    assert torch.allclose(last, state, rtol=1e-4, atol=1e-4)
    assert (torch.cat([r1, r2], 2).float() - r.float()).abs().max() <= 2**-7 * scale


def test_opcheck():
    for schedule in (SCHEDULES["nstep3"], SCHEDULES["released"]):
        q, k, v, routing = make(schedule, queries=65)
        torch.library.opcheck(torch.ops.multistep.attention.default,
                              (q, k, v, routing, schedule.text, None, None, 1.0, 0, None, None,
                               None, None, None, "automatic", True))
        length = torch.tensor([60], dtype=torch.int32, device="cuda")
        torch.library.opcheck(torch.ops.multistep.attention.default,
                              (q[:, :, :1].contiguous(), k, v,
                               [level[:, :, :1].contiguous() for level in routing], schedule.text,
                               None, None, 1.0, 0, length, None, None, None, None, "automatic",
                               False))
    x = torch.randn(1, 2, 40, 16, device="cuda").bfloat16()
    b = torch.randn(1, 2, 40, 4, device="cuda").bfloat16()
    torch.library.opcheck(torch.ops.multistep.accumulate.default,
                          (x, torch.rand(1, 2, 40, device="cuda"), b, b.clone(), None, None, 0))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_fullgraph(backend):
    if backend == "inductor":
        pytest.importorskip("triton")
    schedule = SCHEDULES["nstep3"]
    q, k, v, routing = make(schedule, queries=128)

    def layer(q, k, v, routing):
        return mt.attention(q * 2, k, v, routing, schedule) + 1

    found = torch.compile(layer, fullgraph=True, backend=backend)(q, k, v, routing)
    assert torch.equal(found, layer(q, k, v, routing))


def test_the_kernels_can_be_used():
    assert multistep.cuda_status() == "ready"


def test_wide_lengths_and_starts_do_not_wrap():
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing = make(schedule, batch=2, queries=1, keys=90)
    whole = mt.decode(q, k, v, routing, schedule, length=90)
    far = torch.tensor([2**32 + 5, 90], device="cuda")
    last = torch.tensor([2**31 - 2, 90], dtype=torch.int32, device="cuda")
    assert torch.equal(mt.decode(q, k, v, routing, schedule, length=far),
                       mt.decode(q, k, v, routing, schedule, length=last))
    start = torch.tensor([2**32 + 5, 0], device="cuda")
    found = mt.decode(q, k, v, routing, schedule, length=90, start=start)
    assert not found[0].any() and torch.equal(found[1], whole[1])


def test_prepared_tables_serve_every_top_k():
    schedule = Schedule(exponent="73/37")
    q, k, v, routing = make(schedule)
    mt.prepare(schedule, k.shape[2])
    for top_k in (1, 5):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            mt.attention(q, k, v, routing, schedule, top_k=top_k)


def test_growing_lengths_compile_twice():
    from torch._dynamo.testing import CompileCounterWithBackend

    schedule = SCHEDULES["nstep2"]
    q, k, v, routing = make(schedule, queries=1, keys=90)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda n, top_k: mt.decode(q, k, v, routing, schedule, length=n,
                                                        top_k=top_k),
                             fullgraph=True, backend=counter)
    for n in range(5, 90, 7):
        assert torch.equal(compiled(n, 2), mt.decode(q, k, v, routing, schedule, length=n))
    assert counter.frame_count <= 2


def test_arguments_that_are_refused():
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing = make(schedule)
    refused = [
        ((q.float(), k.float(), v.float(), [routing[0].float()]), TypeError, "bfloat16 or float16"),
        ((q, k.half(), v, routing), TypeError, "k of dtype float16: bfloat16"),
        ((q, k[:, :, :50], v, routing), ValueError, "v of shape"),
        ((q, k, v, []), ValueError, "one array per search level"),
        ((q, k, v, [routing[0].cpu()]), Exception, "cpu"),
        ((q.cpu(), k, v, routing), Exception, "cuda|cpu"),
        ((q[0], k, v, routing), ValueError, "q of shape"),
        ((q[:, :3], k, v, [routing[0][:, :3]]), ValueError, "divides num_heads"),
        ((torch.zeros(1, 1, 4, 512, device="cuda").bfloat16(),) * 3 +
         ([torch.zeros(1, 1, 4, 512, device="cuda").bfloat16()],), ValueError, "head_dim"),
    ]
    for arguments, error, message in refused:
        with pytest.raises(error, match=message):
            mt.attention(*arguments, schedule)
    with pytest.raises(ValueError, match="query_offset 1"):
        mt.attention(q, k, v, routing, schedule, query_offset=1)
    with pytest.raises(ValueError, match="start"):
        mt.attention(q, k, v, routing, schedule, start=torch.zeros(3, device="cuda"))
    huge = torch.empty(1, dtype=torch.bfloat16, device="cuda").expand(1, 1, 2**45, 64)
    with pytest.raises((ValueError, RuntimeError)):
        mt.attention(huge, huge, huge, [huge], schedule)
    torch.cuda.synchronize()  # nothing of it was launched


def test_no_queries():
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing = make(schedule, queries=0, keys=64)
    assert mt.attention(q, k, v, routing, schedule).shape == (1, 4, 0, 64)


def test_memory_tells_the_scratch_of_a_call():
    for schedule in SCHEDULES.values():
        found = multistep.memory(4096, schedule, queries=512, dtype="float16")
        assert found.scratch_reason is None and found.scratch >= 0
    assert "float32" in multistep.memory(64, dtype="float32").scratch_reason


def test_memory_comes_back():
    schedule = SCHEDULES["released"]
    arrays = make(schedule, queries=256)
    mt.attend(*arrays, schedule)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        mt.attend(*arrays, schedule)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before


def test_compare_calls_a_kernel_and_catches_a_broken_one():
    schedule = SCHEDULES["nstep2"]
    arrays = make(schedule)
    assert multistep.compare(lambda q, k, v, r: mt.attention(q, k, v, r, schedule), *arrays,
                             schedule)
    shifted = multistep.compare(lambda q, k, v, r: mt.attention(q, k, v.roll(1, 2), r, schedule),
                                *arrays, schedule)
    assert not shifted and shifted.stage("output").worst is not None


def test_probe():
    schedule = SCHEDULES["nstep3"]
    whole = multistep.probe(lambda q, k, v, r: mt.attention(q, k, v, r, schedule), 96, steps=3,
                            dtype=torch.bfloat16, device="cuda")
    assert whole, whole
    short = Schedule(rule="power", backward=1, forward=1)
    report = multistep.probe(lambda q, k, v, r: mt.attention(q, k, v, r, short), 96,
                             dtype=torch.bfloat16, device="cuda", schedule=short)
    assert len(report.unreached) == short.verify(96).excluded_pairs
    assert report.unreached[0].tolist() == [7, 0]
