"""The layer: what it computes, continues and learns."""

import copy
import functools

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402

S = Schedule(steps=3, window_index=1)
LAYERS = {
    "keys": {},
    "keys, rotary": {"rotary": 100.0, "bias": True},
    "average": {"accumulation": "ema", "rotary": 100.0},
    "state space": {"accumulation": "ssd", "state": 3},
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(name="average", seed=0, schedule=S, **options):
    torch.manual_seed(seed)
    return mt.MultiStepAttention(12, 4, 2, 6, schedule, dtype=torch.float64,
                                 **{**LAYERS[name], **options})


def sequence(length=30, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, 12, generator=generator, dtype=torch.float64)


def gradients(call, layer, x):
    output = call(x)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return torch.autograd.grad((output * weight).sum(), list(layer.parameters()))


def turned(x):
    """Rotary embedding once more, in complex numbers."""
    turn = 100.0 ** (-torch.arange(3, dtype=torch.float64) / 3)
    angles = torch.arange(x.shape[2], dtype=torch.float64)[:, None] * turn
    whole = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([whole.real, whole.imag], -1)


@every_layer
def test_what_it_computes(name):
    layer, x = make(name), sequence()
    q, k, v, *routing = (projection(x).view(2, 30, -1, 6).transpose(1, 2) for projection in
                         (layer.q, layer.k, layer.v, *layer.routing))
    keys = None
    if name == "average":
        decay = layer.decay.sigmoid()[:, None]
        seen = [(1 - decay) * k[:, :, 0]]
        for t in range(1, 30):
            seen.append(decay * seen[-1] + (1 - decay) * k[:, :, t])
        keys = torch.stack(seen, 2)
    if name == "state space":
        a, b, c = layer.gates(x).view(2, 30, 2, 7).transpose(1, 2).split([1, 3, 3], -1)
        state = torch.zeros(2, 2, 6, 3, dtype=torch.float64)
        seen = []
        for t in range(30):
            decay = a[:, :, t].sigmoid()
            state = decay[..., None] * state + \
                k[:, :, t, :, None] * ((1 - decay) * b[:, :, t])[:, :, None]
            seen.append((state * c[:, :, t, None]).sum(-1))
        keys = torch.stack(seen, 2)
    if "rotary" in LAYERS[name]:
        q, k, *routing = map(turned, (q, k, *routing))
        keys = None if keys is None else turned(keys)
    found = mt.attention(q, k, v, routing, S, search_keys=keys, search_scale=6**-0.5)
    torch.testing.assert_close(layer(x), layer.out(found.transpose(1, 2).reshape(2, 30, 24)))


@every_layer
def test_gradients(name):
    layer, x = make(name), sequence(9, 1).requires_grad_()
    names, values = zip(*layer.named_parameters())

    def call(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    # Differences along random directions: of every entry they take a minute.
    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


@every_layer
@pytest.mark.parametrize("chunks", [[30], [1] * 30, [7, 1, 1, 13, 8]], ids=str)
def test_a_cache_goes_on(name, chunks):
    layer, x = make(name), sequence()
    start = torch.tensor([0, 4])
    with torch.no_grad():
        cache = layer.new_cache(2, 40)
        for room in (cache.k, cache.v, cache.search_keys):
            if room is not None:
                room.fill_(torch.nan)
        found = torch.cat([layer(chunk, start=start, cache=cache)
                           for chunk in x.split(chunks, 1)], 1)
        torch.testing.assert_close(found, layer(x, start=start), rtol=1e-12, atol=1e-12)
        assert cache.length == 30
        with pytest.raises(ValueError, match="^cache of 40 keys: 60 here$"):
            layer(x, cache=cache)
    with pytest.raises(RuntimeError, match="^multistep: no gradients through a cache"):
        layer(x, cache=cache)


@every_layer
def test_padding_is_as_if_it_were_not_there(name):
    """Positions are told apart by their distances alone."""
    layer, x = make(name), sequence(20)
    padded = torch.cat([torch.full((1, 9, 12), torch.nan), x[:1, 9:]], 1)
    found = layer(torch.cat([padded, x[1:]]).nan_to_num(50), start=torch.tensor([9, 0]))
    torch.testing.assert_close(found[0, 9:], layer(x[:1, 9:])[0])
    torch.testing.assert_close(found[1], layer(x[1:])[0])


@every_layer
def test_checkpoint_and_compile(name):
    layer, x = make(name), sequence()
    want = gradients(layer, layer, x)
    again = functools.partial(checkpoint, layer, use_reentrant=False)
    torch._dynamo.reset()
    for call in (again, torch.compile(layer, fullgraph=True, backend="aot_eager"),
                 torch.compile(again, fullgraph=True, backend="aot_eager")):
        for got, expected in zip(gradients(call, layer, x), want):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@every_layer
def test_autocast(name):
    layer, x = make(name).float(), sequence().float()
    wide = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    assert all(one.dtype == torch.float32 and one.isfinite().all()
               for one in gradients(lambda _: found, layer, x))
    # Scores of 8 bits choose other spans now and then: the outputs are alike, not close.
    assert (found - wide).square().mean() < 0.05 * wide.square().mean()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        cache = layer.new_cache(2, 30, dtype=torch.bfloat16)
        assert torch.equal(torch.cat([layer(x[:, :11], cache=cache),
                                      layer(x[:, 11:], cache=cache)], 1).isfinite(),
                           torch.ones_like(found, dtype=torch.bool))


@pytest.mark.parametrize("steps", [2, 3])
def test_where_it_begins(steps):
    """Logits and scores of unit variance: no gate and no key has all the weight."""
    layer = mt.MultiStepAttention(256, 4, schedule=Schedule(steps))
    x = torch.nn.functional.layer_norm(torch.randn(2, 300, 256), (256,))
    q, k, *routing = (projection(x).view(2, 300, 4, 64) for projection in
                      (layer.q, layer.k, *layer.routing))
    for one in (q, *routing):
        assert 0.9 < ((one * k.roll(1, 1)).sum(-1) * layer.search_scale).std() < 1.1
    assert 0.9 < layer.v(x).std() < 1.1
    averaged = mt.MultiStepAttention(16, 4, accumulation="ema", schedule=Schedule(steps))
    assert torch.allclose(1 / (1 - averaged.decay.sigmoid()),
                          torch.tensor([4, 4 * 16**(1 / 3), 4 * 16**(2 / 3), 64]))


def test_options():
    for bad, message in (({"embed_dim": 10, "num_heads": 4}, "num_heads 4: divides embed_dim 10"),
                         ({"num_kv_heads": 3}, "num_kv_heads 3: divides num_heads 4"),
                         ({"head_dim": 5, "rotary": 1e4}, "head_dim 5: even"),
                         ({"accumulation": "mean"}, "accumulation 'mean': None, 'ema' or 'ssd'")):
        with pytest.raises(ValueError, match=f"^{message}") as caught:
            mt.MultiStepAttention(**{"embed_dim": 12, "num_heads": 4, **bad})
        assert "\n" not in str(caught.value)
    layer, x = make(), sequence()
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    other = make(seed=5)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert not torch.allclose(make(search_scale=1.0)(x), layer(x))
    assert not torch.allclose(make(softmax_scale=1.0)(x), layer(x))
    assert make(schedule=Schedule(1))(x).shape == x.shape


class Model(torch.nn.Module):
    """Two blocks of a transformer."""

    def __init__(self, tokens=8, width=16):
        super().__init__()
        self.embed = torch.nn.Embedding(tokens, width)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(3))
        self.layers = torch.nn.ModuleList(
            mt.MultiStepAttention(width, 2, 1, schedule=Schedule(), accumulation=kind,
                                  rotary=100.0) for kind in (None, "ema"))
        self.head = torch.nn.Linear(width, tokens)

    def forward(self, tokens):
        x = self.embed(tokens)
        for norm, layer in zip(self.norms, self.layers):
            x = x + layer(norm(x))
        return self.head(self.norms[2](x))


def test_it_learns():
    """To tell the token three before: nothing but attention has it."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(60):
        tokens = torch.randint(8, (16, 24))
        loss = torch.nn.functional.cross_entropy(model(tokens)[:, 3:].flatten(0, 1),
                                                 tokens[:, :-3].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2 and losses[-1] < 0.5, losses
    assert all(parameter.grad is not None for parameter in model.parameters())


def train_in_parallel(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    layer = make(seed=rank)  # rank 0's counts
    parallel = DistributedDataParallel(layer)
    parallel(sequence(batch=4)[2 * rank : 2 * rank + 2]).square().mean().backward()
    torch.save([parameter.grad for parameter in layer.parameters()], f"{folder}/{rank}")
    dist.destroy_process_group()


def test_distributed_data_parallel(tmp_path):
    mp.spawn(train_in_parallel, (str(tmp_path),), nprocs=2)
    layer = make(seed=0)
    layer(sequence(batch=4)).square().mean().backward()
    for rank in range(2):
        for got, parameter in zip(torch.load(tmp_path / str(rank)), layer.parameters()):
            assert got is not None
            torch.testing.assert_close(got, parameter.grad)


@every_layer
def test_packed_sequences_are_as_each_alone(name):
    """Positions are told apart by their distances alone."""
    layer, x = make(name), sequence(20, batch=1)
    bounds = torch.tensor([0, 8, 8, 9, 18])
    found = layer(x, cu_seqlens=bounds)
    for begin, end in zip(bounds, bounds[1:]):
        if begin < end:
            torch.testing.assert_close(found[:, begin:end], layer(x[:, begin:end]))
    with pytest.raises(ValueError, match="^cache: None beside cu_seqlens$"), torch.no_grad():
        layer(x, cu_seqlens=bounds, cache=layer.new_cache(1, 40))
