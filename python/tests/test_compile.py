"""torch.compile goes through the operators whatever is a symbol, and compiles no more than twice."""

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

import multistep  # noqa: E402
import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402

S = Schedule(steps=3)


@pytest.fixture(autouse=True)
def nothing_compiled_yet():
    torch._dynamo.reset()


def make(queries=1, keys=40, seed=0, requires_grad=False):
    """q, k, v and the routing queries of S."""
    generator = torch.Generator().manual_seed(seed)

    def array(heads, length):
        values = torch.randn(2, heads, length, 8, generator=generator, dtype=torch.float64)
        return values.requires_grad_(requires_grad)

    return array(4, queries), array(2, keys), array(2, keys), [array(4, queries) for _ in range(2)]


def decode(arrays, **options):
    return mt.attend(*arrays, S, length=arrays[1].shape[2], **options)


def attention(arrays, **options):
    return mt.attend(*arrays, S, **options)


LAYERS = [decode, attention]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dynamic", [True, None], ids=["dynamic", "automatic"])
def test_top_k_may_be_a_symbol(layer, dynamic):
    compiled = torch.compile(lambda arrays, n: layer(arrays, top_k=n),
                             fullgraph=True, backend="aot_eager", dynamic=dynamic)
    arrays = make(5)
    for top_k in (2, 3, 1, 7, None):
        got, want = compiled(arrays, top_k), layer(arrays, top_k=top_k)
        assert torch.equal(got.output, want.output) and got.spans.shape == want.spans.shape
        assert torch.equal(got.spans, want.spans)


def test_growing_lengths_and_offsets_compile_twice():
    layers = {
        "a length": lambda arrays, n: mt.decode(*arrays, S, length=n),
        "an offset": lambda arrays, n: mt.attention(*arrays, S, query_offset=n),
        "a start": lambda arrays, n: mt.attention(*arrays, S, query_offset=39, start=n),
        "lengths": lambda arrays, n: mt.decode(*arrays, S, length=torch.tensor([n, 40])),
        "a chunk": lambda arrays, n: mt.attention(arrays[0], arrays[1][:, :, : n + 1],
                                                  arrays[2][:, :, : n + 1], arrays[3], S,
                                                  query_offset=n),
        "the generic function": lambda arrays, n: multistep.decode(*arrays, S, length=n),
    }
    for name, layer in layers.items():
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(layer, fullgraph=True, backend=counter)
        arrays = make()
        for n in range(4, 30):
            assert torch.equal(compiled(arrays, n), layer(arrays, n)), name
        assert counter.frame_count <= 2, name


def test_a_growing_cache_compiles_twice():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda q, k, v, routing: mt.attention(
        q, k, v, routing, S, query_offset=k.shape[2] - 1), fullgraph=True, backend=counter)
    for keys in range(5, 40):
        arrays = make(1, keys)
        assert torch.equal(compiled(*arrays), mt.attention(*arrays, S, query_offset=keys - 1))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("layer", LAYERS)
def test_inputs_that_require_grad(layer):
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(make(4, requires_grad=True)).output, layer(make(4)).output)
    got, want = make(4, requires_grad=True), make(4, requires_grad=True)
    output = compiled(got).output  # nobody has to go back
    assert torch.equal(output.detach(), layer(make(4)).output)
    output.square().sum().backward()
    layer(want).output.square().sum().backward()
    for one, other in zip((*got[:3], *got[3]), (*want[:3], *want[3])):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, other.grad)


def test_accumulate():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x, a, n: mt.accumulate(x, a, x, x, offset=n, start=9)[0],
                             fullgraph=True, backend=counter)
    x = torch.randn(1, 2, 8, 3, dtype=torch.float64, requires_grad=True)
    a = torch.rand(1, 2, 8, dtype=torch.float64)
    for n in range(4, 20):
        want = mt.accumulate(x, a, x, x, offset=n, start=9)[0]
        assert torch.equal(compiled(x, a, n), want)
    assert counter.frame_count <= 2
    compiled(x, a, 4).sum().backward()
    assert x.grad is not None
