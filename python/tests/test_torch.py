"""The operators for PyTorch, on the CPU."""

import contextlib
import ctypes
import re
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import multistep  # noqa: E402
import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402
from multistep._problem import (Arguments, Attended, Derivatives, Kept,  # noqa: E402
                                shapes_found)
from multistep._recurrence import Recurrence  # noqa: E402
from multistep.torch import kernels, operators, positions  # noqa: E402
from multistep.torch import tables as of_devices  # noqa: E402
from paging import in_pages  # noqa: E402

S = Schedule(steps=3)


def make(schedule=S, queries=40, dtype=torch.float32, d=8, **options):
    generator = torch.Generator().manual_seed(0)

    def array(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    arrays = [array(2, heads, queries, d) for heads in (4, 2, 2, *[4] * (schedule.steps - 1))]
    for x in arrays:
        x.requires_grad_(options.get("requires_grad", False))
    return (*arrays[:3], arrays[3:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16],
                         ids=str)
def test_tensors_are_numpy_arrays(dtype):
    q, k, v, routing = make(dtype=dtype)
    found = multistep.attend(q, k, v, routing, S)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    kinds = (dtype, wide, wide, torch.int64, wide, torch.int64)
    assert tuple(part.dtype for part in found) == kinds
    want = multistep.attend(*(x.to(wide).numpy() for x in (q, k, v)),
                            [x.to(wide).numpy() for x in routing], S)
    for got, expected in zip(found, want):
        assert torch.equal(got, torch.from_numpy(expected).to(got.dtype))
    assert torch.equal(multistep.attention(q, k, v, routing, S), found.output)
    assert torch.equal(mt.attention(q, k, v, torch.stack(routing), S), found.output)


def test_layouts():
    q, k, v, routing = make()
    want = mt.attention(q, k, v, routing, S)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, *routing)]
    assert torch.equal(mt.attention(*turned[:3], turned[3:], S), want)
    bits = [x.bfloat16().transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v, *routing)]
    dense = [x.contiguous() for x in bits]
    assert torch.equal(mt.attention(*bits[:3], bits[3:], S),
                       mt.attention(*dense[:3], dense[3:], S))


def test_decode_and_accumulate():
    q, k, v, routing = make()
    whole = mt.attention(q, k, v, routing, S)
    newest = [torch.stack([x[0, :, 20:21], x[1, :, 39:40]]) for x in (q, *routing)]
    for length in (torch.tensor([21, 40]), torch.tensor([21, 40], dtype=torch.int32)):
        found = multistep.decode(newest[0], k, v, newest[1:], S, length=length)
        assert torch.equal(found, torch.stack([whole[0, :, 20:21], whole[1, :, 39:40]]))
    x, b, c = torch.randn(3, 1, 2, 9, 4).unbind(0)
    a = torch.rand(1, 2, 9)
    r, state = multistep.accumulate(x, a, b, c)
    want, last = multistep.accumulate(x.numpy(), a.numpy(), b.numpy(), c.numpy())
    assert np.array_equal(r.numpy(), want.astype(np.float32))
    assert np.array_equal(state.numpy(), last.astype(np.float32))
    start = torch.tensor([3], dtype=torch.int32)
    assert torch.equal(mt.accumulate(x, a, b, c, start=start)[0][:, :, :3], torch.zeros(1, 2, 3, 4))


@pytest.mark.parametrize("schedule", [S, Schedule(1)], ids=str)
def test_decoding_of_keys_in_pages(schedule):
    q, k, v, routing = make(schedule)
    newest = (q[:, :, -1:], [x[:, :, -1:] for x in routing])
    search_keys = torch.randn_like(k)
    for lengths, size in (([17, 40], 16), ([0, 5], 32)):
        pools, table = in_pages((k, v, search_keys), lengths, size)
        for own in (False, True):
            def decode(k, v, search_keys, q=newest[0], own=own, length=torch.tensor(lengths),
                       **pages):
                return mt.decode(q, k, v, newest[1], schedule, length=length,
                                 search_keys=search_keys if own else None, **pages)

            want = decode(k, v, search_keys)
            assert torch.equal(decode(*pools, block_table=table), want)
            assert torch.equal(decode(*pools, block_table=table.long()), want)
            compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")
            assert torch.equal(compiled(*pools, block_table=table), want)
    for spoilt, error, message in (
            ({"block_table": table[:1]}, ValueError, "block_table of shape"),
            ({"block_table": table[0]}, ValueError, "block_table of shape"),
            ({"block_table": table.float()}, TypeError, "block_table of torch.float32"),
            ({"block_table": table.tolist()}, TypeError, "block_table of type list"),
            ({"k": pools[0][:, :, :8], "v": pools[0][:, :, :8]}, ValueError, "page_size 8"),
            ({"k": pools[0][:, :, :24], "v": pools[0][:, :, :24]}, ValueError, "page_size 24"),
            ({"k": pools[0][0]}, ValueError, "k_cache of shape"),
            ({"v": pools[0][:1]}, ValueError, "v_cache of shape"),
            ({"q": newest[0].clone().requires_grad_()}, NotImplementedError, "no gradients")):
        given = {"k": pools[0], "v": pools[1], "search_keys": None, "own": False,
                 "block_table": table}
        with pytest.raises(error, match=message):
            decode(**{**given, **spoilt})


@pytest.mark.parametrize("schedule", [Schedule(), S, Schedule(1), Schedule(window_index=1)],
                         ids=str)
def test_gradients(schedule):
    q, k, v, routing = make(schedule, 12, torch.float64, requires_grad=True)

    def layer(q, k, v, *routing):
        return mt.attention(q, k, v, list(routing), schedule)

    assert torch.autograd.gradcheck(layer, (q, k, v, *routing))
    keys = torch.randn_like(k, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, keys, r: mt.attention(q, k, v, [r, *routing[1:]], schedule, search_keys=keys,
                                        query_offset=0, start=2),
        (q, keys, routing[0])) if routing else True


def test_gradients_of_long_rows_are_summed_over_pieces():
    schedule = Schedule()
    q, k, v, routing = make(schedule, 1100, torch.float64, d=4, requires_grad=True)
    weight = torch.randn_like(q)
    (mt.attention(q, k, v, routing, schedule) * weight).sum().backward()
    whole = [x.grad.clone() for x in (q, k, v, routing[0])]
    sums = [torch.zeros_like(x) for x in whole]
    for first in range(0, 1100, 100):
        rows = slice(first, first + 100)
        parts = [x.detach().requires_grad_() for x in
                 (q[:, :, rows], k, v, routing[0][:, :, rows])]
        out = mt.attention(*parts[:3], parts[3:], schedule, query_offset=first)
        (out * weight[:, :, rows]).sum().backward()
        for total, part, at in zip(sums, parts, (rows, slice(None), slice(None), rows)):
            total[:, :, at] += part.grad
    for got, want in zip(whole, sums):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_gradients_of_accumulate():
    shapes = ((1, 2, 7, 4), (1, 2, 7), (1, 2, 7, 3), (1, 2, 7, 3), (1, 2, 4, 3))
    x, a, b, c, first = (torch.rand(shape, dtype=torch.float64, requires_grad=True)
                         for shape in shapes)
    assert torch.autograd.gradcheck(
        lambda x, a, b, c, first: mt.accumulate(x, a * 0.9, b, c, initial=first),
        (x, a, b, c, first))
    assert torch.autograd.gradcheck(lambda x, b: mt.accumulate(x, a.detach() * 0.9, b, c)[0],
                                    (x, b))


@pytest.mark.parametrize("schedule", [S, Schedule(1), Schedule(window_index=1)], ids=str)
def test_gradients_of_all_that_is_found(schedule):
    q, k, v, routing = make(schedule, 9, torch.float64, requires_grad=True)
    found = mt.attend(q, k, v, routing, schedule)
    assert not (found.spans.requires_grad or found.anchors.requires_grad)

    def layer(q, k, v, *routing):
        parts = mt.attend(q, k, v, list(routing), schedule)
        return [torch.where(x.isneginf(), 0, x) for x in (parts.lse, parts.window_lse,
                                                          parts.scores, parts.output)]

    assert torch.autograd.gradcheck(layer, (q, k, v, *routing))
    alone, = torch.autograd.grad(found.window_lse.sum(), q, retain_graph=True)
    every, = torch.autograd.grad(found.window_lse.sum() + 0 * found.output.sum(), q)
    assert torch.equal(alone, every)


def test_gradients_of_merge():
    outputs = torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    lses = torch.randn(3, 2, 4, dtype=torch.float64).masked_fill(
        torch.arange(4) == 1, -torch.inf)  # rows without any key
    lses[0] = -torch.inf
    lses.requires_grad_()

    def layer(outputs, lses):
        output, lse = mt.merge(outputs, lses)
        return output, torch.where(lse.isneginf(), 0, lse)

    torch.autograd.backward(layer(outputs, lses), [torch.ones(2, 4, 5), torch.ones(2, 4)])
    assert outputs.grad.isfinite().all() and lses.grad.isfinite().all()
    some = lses.detach()[1:, :, [0, 2, 3]].requires_grad_()
    assert torch.autograd.gradcheck(layer, (outputs.detach()[1:, :, [0, 2, 3]].requires_grad_(),
                                            some))
    for dtype in (torch.bfloat16, torch.float32):
        merged = mt.merge(outputs.detach().to(dtype), lses.detach().float())
        assert (merged[0].dtype, merged[1].dtype) == (dtype, torch.float32)
    with pytest.raises(ValueError, match="lses of shape"):
        mt.merge(outputs, lses[0])


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad):
    q, k, v, routing = make(queries=20, requires_grad=requires_grad)
    ops = torch.ops.multistep
    torch.library.opcheck(ops.attention.default, (q, k, v, routing, S.text, None, None, 1.0, 0,
                                                  None, None, None, None, None, "automatic",
                                                  True))
    start = torch.tensor([0, 3], dtype=torch.int32)
    torch.library.opcheck(ops.attention.default, (q, k, v, routing, S.text, 4, 0.2, 0.5, 0, None,
                                                  start, k.detach().clone(), None, None, "plain",
                                                  requires_grad))
    x, a, b, c = (torch.rand(1, 2, 9, 4), torch.rand(1, 2, 9), torch.rand(1, 2, 9, 3),
                  torch.rand(1, 2, 9, 3))
    x.requires_grad_(requires_grad)
    torch.library.opcheck(ops.accumulate.default, (x, a, b, c, None, None, 0))
    torch.library.opcheck(ops.accumulate.default, (x, a, b, c, torch.rand(1, 2, 4, 3), None, 5))
    length = torch.tensor([18, 0])
    newest = [x.detach()[:, :, :3].clone().requires_grad_(requires_grad) for x in (q, *routing)]
    torch.library.opcheck(ops.attention.default, (newest[0], k, v, newest[1:], S.text, None, None,
                                                  1.0, 0, length, None, None, None, None,
                                                  "automatic", True))


@pytest.mark.parametrize("of", [mt, multistep], ids=["torch", "generic"])
def test_compile_fullgraph(of):
    def layer(q, k, v, routing):
        return of.attention(torch.tanh(q), k, v, routing, S, top_k=3).square()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    arrays = make()
    assert torch.equal(compiled(*arrays), layer(*arrays))
    q, k, v, routing = make(requires_grad=True)
    compiled(q, k, v, routing).sum().backward()
    grads = [x.grad.clone() for x in (q, k, v, *routing)]
    for x in (q, k, v, *routing):
        x.grad = None
    layer(q, k, v, routing).sum().backward()
    for got, x in zip(grads, (q, k, v, *routing)):
        torch.testing.assert_close(got, x.grad)
    other = make(queries=56)  # another length: no graph break
    assert torch.equal(compiled(*other), layer(*other))


def test_meta_tensors():
    q, k, v, routing = (x if isinstance(x, list) else x.to("meta") for x in make())
    found = mt.attend(q, k, v, [r.to("meta") for r in routing], S)
    assert [tuple(x.shape[3:]) for x in found] == [(8,), (2,), (), (2, 2), (2,), (2, 2)]
    assert all(x.shape[:3] == q.shape[:3] for x in found)


def test_compare_and_probe_take_tensors():
    q, k, v, routing = make(dtype=torch.bfloat16)

    def kernel(q, k, v, routing):
        return mt.attention(q, k, v, routing, S)

    assert multistep.compare(kernel, q, k, v, routing, S)
    assert not multistep.compare(lambda q, k, v, r: kernel(q, k, v.flip(2), r), q, k, v, routing, S)
    spans = mt.attend(q, k, v, routing, S).spans
    back = multistep.to_authors(spans=spans)
    assert torch.equal(multistep.from_authors(qstart=back["qstart"], qend=back["qend"])["spans"],
                       spans)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_probe_raises_no_false_alarm(dtype):
    def kernel(q, k, v, routing):
        return mt.attention(q, k, v, routing, S)

    def dense(q, k, v, routing):
        k, v = (x.repeat_interleave(3, dim=1) for x in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    for candidate, steps in ((kernel, 3), (dense, 1)):
        for head_dim in (16, 128):
            report = multistep.probe(candidate, 40, steps=steps, dtype=dtype, num_heads=6,
                                     num_kv_heads=2, head_dim=head_dim)
            assert report, report


def test_refused():
    q, k, v, routing = make()
    for arguments, error, message in (
            ((q, k.double(), v, routing), TypeError, "k of dtype float64: float32"),
            ((q.int(), k, v, routing), TypeError, "q of dtype int32"),
            ((q[0], k, v, routing), ValueError, "q of shape"),
            ((q, k, v, routing[:1]), ValueError, "routing_queries 1"),
            ((q.to_sparse(), k, v, routing), Exception, "."),
            ((q.to(torch.complex64), k, v, routing), TypeError, "complex64")):
        with pytest.raises(error, match=message):
            mt.attention(*arguments, S)
    with pytest.raises(TypeError, match="dtype"):
        multistep.attention(q, k, v, routing, S, dtype=np.float32)
    with pytest.raises(TypeError, match="k of type ndarray"):
        multistep.attention(q, k.numpy(), v, routing, S)
    with pytest.raises(TypeError, match="schedule"):
        mt.attention(q, k, v, routing, "released")
    if not multistep.has_cuda:
        assert re.fullmatch("built without CUDA: .+", multistep.cuda_status())
        with pytest.raises(RuntimeError, match="^multistep: built without CUDA: "):
            of_devices.max_context(0)
        with pytest.raises(RuntimeError, match="^multistep: built without CUDA: "):
            mt.prepare(S, 100)


def test_positions_are_checked_before_they_are_tensors():
    q, k, v, routing = make()
    newest = (q[:, :, :1], k, v, [x[:, :, :1] for x in routing])
    for bad in (1.5, True, "1", [1.5, 0], np.array([0.5, 1]), torch.tensor([0.5, 1])):
        with pytest.raises(TypeError, match="start") as caught:
            mt.attention(q, k, v, routing, S, start=bad)
        assert "\n" not in str(caught.value)
        with pytest.raises(TypeError, match="length"):
            mt.decode(*newest, S, length=bad)
    for bad in (-1, 2**49, [0], [0, -1]):
        with pytest.raises(ValueError, match="start"):
            mt.attention(q, k, v, routing, S, start=bad)
    with pytest.raises(ValueError, match="length"):
        mt.decode(*newest, S, length=41)
    assert not mt.attention(q, k, v, routing, S, start=2**40).any()
    for start in ([0, 3], np.array([0, 3]), np.array([0, 3], np.int32), torch.tensor([0, 3])):
        want = multistep.attention(*(x.numpy() for x in (q, k, v)), [x.numpy() for x in routing],
                                   S, start=np.array([0, 3]))
        assert torch.equal(mt.attention(q, k, v, routing, S, start=start),
                           torch.from_numpy(want).float())
        mt.decode(*newest, S, length=[21, 40], start=start)
    compiled = torch.compile(lambda q: mt.attention(q, k, v, routing, S, start=3), fullgraph=True,
                             backend="aot_eager")
    assert torch.equal(compiled(q), mt.attention(q, k, v, routing, S, start=3))


def test_wrong_types_are_named_in_one_line():
    q, k, v, routing = make()
    for call, message in (
            (lambda: mt.attention(q.numpy(), k, v, routing, S), "q of type ndarray"),
            (lambda: mt.attention(q, k, v, 5, S), "routing_queries of type int"),
            (lambda: mt.attention(q, k, v, [1, 2], S), r"routing_queries\[0\] of type int"),
            (lambda: mt.attention(q, k, v, routing, S, top_k=2.5), "top_k 2.5"),
            (lambda: mt.attention(q, k, v, routing, S, softmax_scale="0.5"), "softmax_scale '0.5'"),
            (lambda: mt.attention(q, k, v, routing, S, query_offset=0.5), "query_offset 0.5"),
            (lambda: mt.accumulate(q, 1, k, k), "a of type int")):
        with pytest.raises(TypeError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_positions_are_clamped_before_they_are_narrowed():
    far = torch.tensor([2**32 + 5, 2**31 - 1, 2**31 - 2, 7, -1, -2**40])
    assert positions.narrowed(far).tolist() == [2**31 - 2, 2**31 - 2, 2**31 - 2, 7, 0, 0]
    for dtype in (torch.int32, torch.int16, torch.uint8):
        narrow = positions.narrowed(torch.tensor([0, 100], dtype=dtype))
        assert narrow.dtype == torch.int32 and narrow.tolist() == [0, 100]
    for dtype in (torch.float32, torch.bool, torch.uint32, torch.uint64):
        with pytest.raises(TypeError, match="^length of torch.*: integers$"):
            positions.on_device("length", torch.zeros(2, dtype=dtype), far[:2])


def test_spans_past_31_bits(monkeypatch):
    q, k, v, routing = make(queries=1)
    far = np.full((2, 4, 1, 2, 2), [2**31 + 5, 2**47])
    found = multistep.oracle.attention(q, k, v, routing, S)._replace(spans=far)
    monkeypatch.setattr(multistep.oracle, "attention", lambda *_, **__: found)
    assert (mt.attend(q, k, v, routing, S).spans.numpy() == far).all()
    assert (mt.attend(q, k, v, routing, S, length=1).spans.numpy() == far).all()


def test_prepared_tables_serve_every_top_k(monkeypatch):
    made = []

    class Tables:
        def __init__(self, plan, top_k=1):
            if top_k == 1:
                made.append(plan)
            self.max_length, self.top_k, self._plan = plan.max_length, top_k, plan

        def with_top_k(self, top_k):
            return Tables(self._plan, top_k)

    monkeypatch.setattr(of_devices, "_core", types.SimpleNamespace(
        cuda_status=lambda: "", max_context=2**31 - 2, DeviceSchedule=Tables))
    monkeypatch.setattr(of_devices, "_tables", {})
    capturing = [False]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    schedule = Schedule(exponent="71/37")
    try:
        assert of_devices.device_schedule(schedule, 900, 0).top_k == 2
        capturing[0] = True
        for top_k in (1, 3, 64, 2):
            tables = of_devices.device_schedule(schedule.with_top_k(top_k), 700, 0)
            assert (tables.top_k, tables.max_length) == (top_k, 1024)
        with pytest.raises(RuntimeError, match="prepare"):
            of_devices.device_schedule(schedule, 5000, 0)
        with pytest.raises(RuntimeError, match="prepare"):
            of_devices.device_schedule(schedule, 900, 1)
        assert len(made) == 1
    finally:
        of_devices._usable.clear()


def test_the_kernels_say_why_they_cannot_be_used(monkeypatch):
    for reason in ("no driver", "no kernels for this chip"):
        monkeypatch.setattr(of_devices, "_core", types.SimpleNamespace(cuda_status=lambda: reason))
        with pytest.raises(RuntimeError, match=f"^multistep: {reason}$"):
            of_devices.max_context(0)


def at(address, shape, dtype, steps=(0, 0, 0)):
    """An array at an address, of which 0 is none: dense, or with so many values from one batch,
    head and row to the next."""
    bytes_of = np.dtype(dtype).itemsize
    if any(steps):
        strides = [step * bytes_of for step in (*steps, 1)]
        last = sum((size - 1) * stride for size, stride in zip(shape, strides))
        room = np.frombuffer((ctypes.c_char * (last + bytes_of)).from_address(address), dtype)
        return np.lib.stride_tricks.as_strided(room, shape, strides)
    room = (ctypes.c_char * (int(np.prod(shape)) * bytes_of)).from_address(address)
    return np.frombuffer(room, dtype).reshape(shape)


def put(address, values, dtype):
    """Writes values there, rounded as the operators do."""
    wanted = torch.from_numpy(values).to(dtype).numpy()
    at(address, wanted.shape, wanted.dtype)[...] = wanted


class OracleAsKernel:
    """Stands for the struct of a call: what is not set is as in the library."""

    start = length = search_keys = softmax_scale = None
    lse = window_lse = spans = scores = anchors = 0
    q_strides = k_strides = v_strides = search_keys_strides = 0, 0, 0
    routing_queries_strides = None
    workspace_size = 40

    def arrays(self, *names):
        """Arrays of q's or of k's shape."""
        of = {"k": (self.kv_heads, self.keys), "q": (self.heads, self.queries)}
        return [at(one, (self.batch, *of["k" if name.removeprefix("by_") in KEYS else "q"],
                         self.head_dim), np.float16, getattr(self, f"{name}_strides", (0, 0, 0)))
                if (one := getattr(self, name)) else None for name in names]

    def problem(self, workspace, size, stream):
        assert size == 40 and workspace and stream == 7 and self.dtype == "float16"
        assert not any(one % 16 for one in (self.q, self.k, self.v, *self.routing_queries))
        q, k, v, keys = self.arrays("q", "k", "v", "search_keys")
        steps = self.routing_queries_strides or [(0, 0, 0)] * len(self.routing_queries)
        routing = [at(one, q.shape, np.float16, of_level)
                   for one, of_level in zip(self.routing_queries, steps)]
        start, length = (one and at(one, q.shape[:1], np.int32)
                         for one in (self.start, self.length))
        return multistep.oracle.problem(
            q, k, v, routing, self.schedule, softmax_scale=self.softmax_scale,
            search_scale=self.search_scale, query_offset=self.query_offset, length=length,
            start=start, search_keys=keys)

    def launch(self, *room):
        found = multistep.oracle._core.attention(self.problem(*room).inputs)
        dtypes = (torch.float16, torch.float32, torch.float32, torch.int32, torch.float32,
                  torch.int32)
        for name, values, dtype in zip(Attended._fields, found, dtypes):
            if address := getattr(self, name):
                put(address, values, dtype)


KEYS = ("k", "v", "search_keys")


class OracleAsGradient(OracleAsKernel):
    """The same for the gradient of attention."""

    by_output = by_lse = by_window_lse = by_scores = by_search_keys = 0

    def launch(self, *room):
        given = self.problem(*room)
        shapes = shapes_found((self.batch, self.heads, self.queries, self.head_dim),
                              self.schedule.top_k, self.schedule.steps - 1)
        found = [(name, dtype, getattr(shapes, name.removeprefix("by_"))) for name, dtype in (
            ("by_output", np.float16), ("by_lse", np.float32), ("by_window_lse", np.float32),
            ("by_scores", np.float32), ("spans", np.int32), ("scores", np.float32),
            ("anchors", np.int32))]
        arrays = [at(one, shape, dtype) if (one := getattr(self, name)) else None
                  for name, dtype, shape in found]
        if self.schedule.steps == 1:  # nothing was found that counts
            assert arrays[4:] == [None] * 3
            arrays[4:] = [np.zeros(shape, dtype) for _, dtype, shape in found[4:]]
        gradients = multistep.oracle.attention_backward(given, Derivatives(*arrays[:4]),
                                                        Kept(*arrays[4:]))
        for name in ("q", "k", "v", "search_keys"):
            if (values := getattr(gradients, name)) is not None:
                put(getattr(self, f"by_{name}"), values, torch.float16)
        assert gradients.search_keys is not None or not self.by_search_keys
        for address, values in zip(self.by_routing_queries, gradients.routing_queries):
            put(address, values, torch.float16)


class OracleAsWalk:
    """The same for accumulation."""

    start = initial = None
    workspace_size = 0

    def given(self, workspace, size, stream):
        assert size == 0 and stream == 7 and self.dtype == "float16"
        rows = (self.batch, self.heads, self.length)
        x, b, c = (at(one, (*rows, width), np.float16) for one, width in
                   ((self.x, self.head_dim), (self.b, self.state), (self.c, self.state)))
        return Recurrence(x, at(self.a, rows, np.float32), b, c,
                          self.initial and at(self.initial, self.state_shape(), np.float32),
                          self.start and at(self.start, rows[:1], np.int32), self.offset)

    def state_shape(self):
        return self.batch, self.heads, self.head_dim, self.state

    def launch(self, *room):
        output, final = multistep.oracle.accumulate(*self.given(*room))
        put(self.output, output, torch.float16)
        put(self.final_state, final, torch.float32)


class OracleAsWalkGradient(OracleAsWalk):
    """And for its gradient."""

    by_output = by_state = by_initial = 0

    def launch(self, *room):
        given = self.given(*room)
        by_output = at(self.by_output, given.x.shape, np.float16) if self.by_output else None
        by_state = at(self.by_state, self.state_shape(), np.float32) if self.by_state else None
        found = multistep.oracle.accumulate_backward(given, by_output, by_state)
        assert bool(self.by_initial) == (given.initial is not None)
        for name, values in found._asdict().items():
            if address := getattr(self, f"by_{name}"):
                put(address, values,
                    torch.float32 if name in ("a", "initial") else torch.float16)


class TorchWithoutDevice:
    """PyTorch as ``kernels`` is to see it: the real one, which may have a GPU, is left alone."""

    cuda = types.SimpleNamespace(device=lambda device: contextlib.nullcontext(),
                                 current_device=lambda: 0)
    _C = types.SimpleNamespace(_cuda_getCurrentRawStream=lambda device: 7)

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def oracle_as_kernels(monkeypatch):
    """Calls of the kernels without a GPU: the oracle reads the addresses."""
    monkeypatch.setattr(kernels, "_core", types.SimpleNamespace(
        CudaAttention=OracleAsKernel, CudaAttentionBackward=OracleAsGradient,
        CudaAccumulation=OracleAsWalk, CudaAccumulationBackward=OracleAsWalkGradient))
    monkeypatch.setattr(kernels, "max_context", lambda device: 1000)
    monkeypatch.setattr(kernels, "device_schedule", lambda schedule, length, device: schedule)
    monkeypatch.setattr(kernels, "torch", TorchWithoutDevice())


@pytest.mark.parametrize("details", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_kernels_get_what_was_given(oracle_as_kernels, steps, details):
    schedule = Schedule(steps, window_index=1, top_k=3)
    q, k, v, routing = make(schedule, queries=30, dtype=torch.float16)
    shifted = torch.empty(q.numel() + 1, dtype=q.dtype)[1:].view(q.shape).copy_(q)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v, *routing)]
    shapes = ((2, 4, 30, 3), (2, 4, 30), (2, 4, 30, 3, 2), (2, 4, 30, 3), (2, 4, 30, 3, steps - 1))
    dtypes = (torch.float32, torch.float32, torch.int32, torch.float32, torch.int32)
    for arrays in ((q, k, v, routing), (shifted, *turned[:2], turned[2:])):
        for more in ({}, {"length": torch.tensor([30, 7]), "softmax_scale": 0.25},
                     {"start": torch.tensor([0, 5], dtype=torch.int32), "search_scale": 0.5,
                      "search_keys": k.flip(2)}):
            results = Attended(torch.empty_like(q), *(
                torch.empty(shape if details else 0, dtype=dtype)
                for shape, dtype in zip(shapes, dtypes)))
            kernels.attention(Arguments(*arrays, schedule, **more), results)
            want = multistep.attend(*arrays, schedule, **more)
            for got, expected in zip(results[:6 if details else 1], want):
                assert torch.equal(got.to(expected.dtype), expected)


def test_arrays_are_read_where_they_lie(oracle_as_kernels):
    """Slices of a packed projection, [batch, L, heads, head_dim], part of a cache, one head of it."""
    schedule = Schedule(2, window_index=1, top_k=3)
    torch.manual_seed(0)
    packed = torch.randn(2, 30, 4 + 2 + 2 + 4, 8).half().transpose(1, 2)
    q, k, v, routing = packed.split([4, 2, 2, 4], 1)
    cache = torch.randn(2, 2, 50, 8).half()[:, :, 10:40]
    wide = torch.randn(2, 2, 30, 16).half()
    alone = torch.randn(3, 2, 30, 8).half()[1:2].transpose(0, 1)[:, :, ::2]  # [2, 1, 15, 8]
    for keys, values in ((k, v), (cache, v), (wide[..., :8], wide[..., 8:])):
        for one in (q, keys, values):
            assert kernels._rows("k", one, q, (q.dtype,)).data_ptr() == one.data_ptr()
        results = Attended(torch.empty_like(q).contiguous(), *[torch.empty(0)] * 5)
        kernels.attention(Arguments(q, keys, values, [routing], schedule), results)
        dense = multistep.attention(q.contiguous(), keys.contiguous(), values.contiguous(),
                                    [routing.contiguous()], schedule)
        assert torch.equal(results.output, dense)
    assert kernels._strides(alone) == (alone.stride(0), 8, 16)
    for copied in (wide[..., ::2], wide[..., 4:12], cache[..., :5], cache.mT,
                   cache[:, :, :1].expand(-1, -1, 30, -1)):
        assert kernels._rows("k", copied, q, (q.dtype,)).is_contiguous()


def test_the_walk_gets_what_was_given(oracle_as_kernels):
    torch.manual_seed(0)
    x, b, c = (torch.randn(2, 3, 20, width).half() for width in (8, 5, 5))
    a = torch.rand(2, 3, 20)
    turned = b.transpose(1, 2).contiguous().transpose(1, 2)
    for more in ({}, {"initial": torch.randn(2, 3, 8, 5), "offset": 2},
                 {"start": torch.tensor([0, 7])}):
        for decay, keys in ((a, b), (a.half(), turned)):
            found = kernels.accumulate(Recurrence(x, decay, keys, c, **more))
            want = multistep.accumulate(x, decay, keys, c, **more)
            assert all(torch.equal(*pair) for pair in zip(found, want))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_gradient_kernels_get_what_was_given(oracle_as_kernels, steps):
    schedule = Schedule(steps, window_index=1, top_k=3)
    q, k, v, routing = make(schedule, queries=30, dtype=torch.float16)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, *routing)]
    torch.manual_seed(0)
    ops, start = torch.ops.multistep, torch.tensor([0, 5], dtype=torch.int32)
    for arrays in ((q, k, v, routing), (*turned[:3], turned[3:])):
        for more in ({"search_keys": k.flip(2), "softmax_scale": 0.25}, {"start": start},
                     {"search_scale": 0.5}):
            given = Arguments(*arrays, schedule, **more)
            found = multistep.attend(*arrays, schedule, **more)
            every = Derivatives(torch.randn(q.shape).half(), *(
                torch.randn(part.shape) for part in (found.lse, found.window_lse, found.scores)))
            at = Kept(found.spans, found.scores, found.anchors)
            on_device = Kept(found.spans.int(), found.scores, found.anchors.int())
            for by in (every, Derivatives(torch.ones(1).half().expand(q.shape)),
                       Derivatives(by_scores=every.by_scores)):
                results = operators.empty_gradients(given)
                kernels.attention_backward(by, on_device, given, results)
                want = ops.attention_backward(*by, *at, *operators.operands(given))
                for got, expected in zip((*results[:3], *results[3], results[4]),
                                         (*want[:3], *want[3], want[4])):
                    assert torch.equal(got, expected)
    with pytest.raises(ValueError, match=r"^spans of shape \(1,\): \(2, 4, 30, 3, 2\) here$") \
            if steps > 1 else contextlib.nullcontext():
        kernels.attention_backward(every, on_device._replace(spans=torch.zeros(1)), given, results)


def test_gradients_without_queries(oracle_as_kernels):
    q, k, v, routing = make(queries=30, dtype=torch.float16)
    none = [x[:, :, :0] for x in (q, *routing)]
    given = Arguments(none[0], k, v, none[1:], S)
    found = mt.attend(none[0], k, v, none[1:], S)
    results = operators.empty_gradients(given)
    kernels.attention_backward(Derivatives(none[0]), Kept(*found[3:]), given, results)
    assert not results.k.any() and not results.v.any()


def test_the_gradient_of_the_walk_gets_what_was_given(oracle_as_kernels):
    torch.manual_seed(0)
    x, b, c = (torch.randn(2, 3, 20, width).half() for width in (8, 5, 5))
    a, by_output, by_state = torch.rand(2, 3, 20), torch.randn_like(x), torch.randn(2, 3, 8, 5)
    turned = b.transpose(1, 2).contiguous().transpose(1, 2)
    for more in ({}, {"initial": torch.randn(2, 3, 8, 5), "offset": 2},
                 {"start": torch.tensor([0, 7])}):
        for by in ((by_output, by_state), (by_output, None), (None, by_state)):
            given = Recurrence(x, a, turned, c, **more)
            results = operators._empty_walk_gradients(given)
            kernels.accumulate_backward(*by, given, results)
            want = torch.ops.multistep.accumulate_backward(*by, *given)
            assert all(torch.equal(*pair) for pair in zip(results, want))
