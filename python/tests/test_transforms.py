"""What PyTorch does to functions: gradients, vmap, torch.func. What is not supported says so in one
line."""

import pytest

torch = pytest.importorskip("torch")

import torch.autograd.forward_ad as forward_ad  # noqa: E402

import multistep  # noqa: E402
import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402

S = Schedule(steps=3, window_index=1)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def make(batch=3, queries=5, keys=12, schedule=S):
    """q, k, v and the routing queries."""
    q = random(batch, 4, queries, 6)
    k, v = random(2, batch, 2, keys, 6, seed=1)
    return q, k, v, list(random(schedule.steps - 1, *q.shape, seed=2))


@pytest.mark.parametrize("schedule", [Schedule(), S, Schedule(1)], ids=str)
def test_gradients_of_decode(schedule):
    q, k, v, routing = make(schedule=schedule)
    length = torch.tensor([12, 3, 0])  # two queries stand before key 0, five in the third
    start = torch.tensor([4, 0, 0])
    keys = random(*k.shape, seed=3)

    def layer(q, k, v, *routing):
        return mt.decode(q, k, v, list(routing), schedule, length=length, start=start)

    arrays = [x.clone().requires_grad_() for x in (q, k, v, *routing)]
    assert torch.autograd.gradcheck(layer, arrays)
    if routing:
        assert torch.autograd.gradcheck(
            lambda q, keys: mt.decode(q, k, v, routing, schedule, length=length, search_keys=keys),
            (q.clone().requires_grad_(), keys.requires_grad_()))
    layer(*arrays).sum().backward()
    assert all((x.grad[2] == 0).all() for x in arrays)
    assert (arrays[0].grad[1, :, :2] == 0).all() and (arrays[1].grad[1, :, 3:] == 0).all()


def test_gradients_of_decode_are_those_of_attention():
    q, k, v, routing = (x if isinstance(x, list) else x for x in make(batch=1))
    weight = random(*q.shape, seed=4)
    found = []
    for layer in (lambda *x: mt.decode(*x[:3], list(x[3:]), S, length=9),
                  lambda *x: mt.attention(*x[:3], list(x[3:]), S, query_offset=4)):
        arrays = [x.clone().requires_grad_() for x in (q, k, v, *routing)]
        (layer(*arrays) * weight).sum().backward()
        found.append([x.grad for x in arrays])
    assert all(torch.equal(one, other) for one, other in zip(*found))


def one_by_one(function, dims, *arguments):
    """What vmap is to give."""
    size = next(x.shape[d] for x, d in zip(arguments, dims) if d is not None)
    return torch.stack([function(*[x if d is None else x.select(d, i)
                                   for x, d in zip(arguments, dims)]) for i in range(size)])


@pytest.mark.parametrize("dims", [(0, 0, 0, 0), (0, None, None, None), (2, 1, None, 3),
                                  (None, 0, 0, None)], ids=str)
def test_vmap(dims):
    q, k, v, routing = make()
    layers = {
        "attention": lambda q, k, v, r: mt.attend(q, k, v, [r, routing[1]], S).output,
        "decode": lambda q, k, v, r: mt.decode(q, k, v, [routing[0], r], S,
                                               length=torch.tensor([12, 7, 2])),
        "accumulate": lambda q, k, v, r: mt.accumulate(q, torch.full((3, 4, 5), 0.5).double(), r,
                                                       r, start=2)[0],
    }
    given = [x if d is None else torch.stack([x, x.roll(1), -x], d)
             for x, d in zip((q, k, v, routing[0]), dims)]
    for name, layer in layers.items():
        if name == "accumulate" and dims[0] is None:
            continue
        got = torch.vmap(layer, in_dims=dims)(*given)
        assert torch.equal(got, one_by_one(layer, dims, *given)), name


def test_vmap_of_positions():
    q, k, v, routing = make()
    lengths = torch.tensor([[12, 7, 2], [0, 1, 5]])
    found = torch.vmap(lambda n: mt.decode(q, k, v, routing, S, length=n, start=n // 3))(lengths)
    assert torch.equal(found, torch.stack([mt.decode(q, k, v, routing, S, length=n, start=n // 3)
                                           for n in lengths]))


def test_vmap_of_a_gradient():
    """A Jacobian at once: the operator that goes back is mapped over."""
    q, k, v, routing = make(batch=1, queries=2)
    x, a = random(1, 2, 4, 3), torch.full((1, 2, 4), 0.5).double()
    for layer, given in ((lambda q: mt.attention(q, k, v, routing, S, query_offset=3), q),
                         (lambda x: mt.accumulate(x, a, x, x)[0], x)):
        given.requires_grad_()
        output = layer(given)
        rows = torch.eye(output.numel(), dtype=torch.float64).view(-1, *output.shape)

        def back(row, output=output, given=given):
            return torch.autograd.grad(output, given, row, retain_graph=True)[0]

        assert torch.equal(torch.vmap(back)(rows), torch.stack([back(row) for row in rows]))


def test_a_gradient_of_vmap():
    q, k, v, routing = make()
    twice = torch.stack([q, -q]).requires_grad_()
    torch.vmap(lambda q: mt.attention(q, k, v, routing, S))(twice).square().sum().backward()
    for sign, got in zip((1, -1), twice.grad):
        alone = (sign * q).requires_grad_()
        mt.attention(alone, k, v, routing, S).square().sum().backward()
        assert torch.equal(got, alone.grad)


Q, K, V, ROUTING = make()
LAYERS = {
    "attention": lambda q: mt.attention(q, K, V, ROUTING, S),
    "generic": lambda q: multistep.attention(q, K, V, ROUTING, S),
    "decode": lambda q: mt.decode(q, K, V, ROUTING, S, length=12),
    "accumulate": lambda q: mt.accumulate(q, torch.full(q.shape[:3], 0.5).double(), q, q)[0],
}


def dual(layer):
    with forward_ad.dual_level():
        layer(forward_ad.make_dual(Q, Q))


def double(layer):
    q = Q.clone().requires_grad_()
    first, = torch.autograd.grad(layer(q).square().sum(), q, create_graph=True)
    torch.autograd.grad(first.sum(), q)


REFUSED = {
    "grad": (lambda f: torch.func.grad(lambda q: f(q).sum())(Q), "torch.func.grad and its kin"),
    "vjp": (lambda f: torch.func.vjp(f, Q)[1](Q), "torch.func.grad and its kin"),
    "jacrev": (lambda f: torch.func.jacrev(lambda q: f(q).sum())(Q), "torch.func.grad and its kin"),
    "mapped": (lambda f: torch.vmap(torch.func.grad(lambda q: f(q).sum()))(torch.stack([Q, Q])),
               "torch.func.grad and its kin"),
    "jvp": (lambda f: torch.func.jvp(f, (Q,), (Q,)), "forward-mode derivatives"),
    "jacfwd": (lambda f: torch.func.jacfwd(lambda q: f(q).sum())(Q), "forward-mode derivatives"),
    "dual": (dual, "forward-mode derivatives"),
    "double": (double, "gradients of gradients"),
    "hessian": (lambda f: torch.autograd.functional.hessian(lambda q: f(q).square().sum(), Q),
                "gradients of gradients"),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("transform", REFUSED)
def test_what_is_not_supported_says_so_in_one_line(layer, transform):
    act, message = REFUSED[transform]
    with pytest.raises(NotImplementedError, match=f"^multistep: n.*{message}") as caught:
        act(LAYERS[layer])
    assert "\n" not in str(caught.value)
