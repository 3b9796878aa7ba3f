"""Gradients as training asks for them: at what the forward found, under autocast, checkpoints and
torch.compile. That they are right, test_torch.py and test_transforms.py show by differences."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

import multistep  # noqa: E402
import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402
from multistep._problem import Arguments  # noqa: E402
from multistep.torch import calls  # noqa: E402

S = Schedule(steps=3, window_index=1)
NAMES = ("q", "k", "v", "routing 1", "routing 2", "search keys")


def make(dtype=torch.float64, queries=30, seed=0):
    """q, k, v, two levels of routing queries and search keys, leaves."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, queries, 8, generator=generator, dtype=torch.float64)
            .to(dtype).requires_grad_() for heads in (4, 2, 2, 4, 4, 2)]


def attend(arrays, **options):
    q, k, v, *routing, keys = arrays
    return mt.attend(q, k, v, routing, S, search_keys=keys, **options)


def attention(arrays, **options):
    q, k, v, *routing, keys = arrays
    return mt.attention(q, k, v, routing, S, search_keys=keys, **options)


def gradients(layer, arrays):
    """Of a loss to which every output counts."""
    output = layer(arrays)
    weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    return torch.autograd.grad((output * weight.to(output.dtype)).sum(), arrays)


def all_equal(got, want):
    for name, one, other in zip(NAMES, got, want):
        assert torch.equal(one, other), name


def test_they_are_taken_at_what_the_forward_found(monkeypatch):
    """A forward that keeps one span, of the two that it was to keep."""
    arrays = make()
    want = gradients(lambda arrays: attention(arrays, top_k=1), arrays)
    found = attend([x.detach() for x in arrays])
    alone = attend([x.detach() for x in arrays], top_k=1)
    unused = {"spans": 0, "scores": -torch.inf, "anchors": -1}
    kept = {name: torch.cat([getattr(alone, name), torch.full_like(getattr(alone, name), value)], 3)
            for name, value in unused.items()}
    other = found._replace(output=alone.output, **kept)
    other = multistep.Attended(*(x.numpy() for x in other))
    monkeypatch.setattr(multistep.oracle, "attention", lambda *_, **__: other)
    for name, got, expected in zip(NAMES, gradients(attention, arrays), want):
        torch.testing.assert_close(got, expected, msg=name)


def test_what_is_kept():
    arrays = make()
    found = attend([x.detach() for x in arrays])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.detach()) or x,
                                                  lambda x: x):
        output = attention(arrays)
    wanted = [found.spans, found.scores, found.anchors, found.output, found.window_lse, *arrays]
    assert len(kept) == len(wanted) and all(torch.equal(*pair) for pair in zip(kept, wanted))
    assert output.grad_fn is not None
    q, k, v, *routing, _ = arrays
    given = Arguments(q, k, v, routing, S)
    assert calls.attended(given, False).spans.numel()
    with torch.no_grad():
        assert attention(arrays).grad_fn is None
        assert not calls.attended(given, False).spans.numel()  # nothing is found for nobody
    frozen = [x.detach() for x in arrays[:5]]
    assert attention([*frozen, arrays[5]]).requires_grad


def test_the_operator_alone_has_none_without_details():
    q, k, v, *routing, _ = make()
    given = (q, k, v, routing, S.text, None, None, 1.0, 0, *5 * [None], "automatic")
    with pytest.raises(NotImplementedError, match="^multistep: no gradients .*without details$"):
        torch.ops.multistep.attention(*given, False)
    assert torch.ops.multistep.attention(*given, True)[0].requires_grad


def test_opcheck_of_the_operators_that_go_back():
    arrays = [x.detach() for x in make(torch.float32)]
    q, k, v, *routing, keys = arrays
    found = attend(arrays)
    at = (found.spans, found.scores, found.anchors, None, None)
    for by, more in (((q, found.lse.clamp(-9), None, None), keys),
                     ((None, None, None, found.scores.clamp(-9)), None)):
        torch.library.opcheck(
            torch.ops.multistep.attention_backward.default,
            (*by, *at, q, k, v, routing, S.text, None, None, 1.0, 0, None, None, more,
             None, None, "automatic"))
    a, first = torch.rand(2, 4, 30), torch.rand(2, 4, 8, 8)
    for by_output, by_state, initial in ((q, first, first), (None, first, None), (q, None, None)):
        torch.library.opcheck(torch.ops.multistep.accumulate_backward.default,
                              (by_output, by_state, q, a, routing[0], routing[1], initial, None, 0))


@pytest.mark.parametrize("layer", [attention, lambda x: checkpoint(attention, x,
                                                                   use_reentrant=False)],
                         ids=["plain", "checkpoint"])
@pytest.mark.parametrize("compiled", [False, True])
def test_checkpoint_and_compile(layer, compiled):
    arrays = make()
    if compiled:
        torch._dynamo.reset()
        layer = torch.compile(layer, fullgraph=True, backend="aot_eager")
    all_equal(gradients(layer, arrays), gradients(attention, arrays))


def test_one_backward_of_two_losses():
    """A routing loss by the scores and a z-loss by the log-sum-exps, beside the output's."""
    arrays = make()

    def losses(arrays):
        found = attend(arrays)
        used = found.scores > -torch.inf
        return [found.output.square().sum(), torch.where(used, found.scores, 0).square().sum(),
                torch.where(found.lse > -torch.inf, found.lse, 0).square().sum()]

    whole = torch.autograd.grad(sum(losses(arrays)), arrays)
    parts = [torch.autograd.grad(loss, arrays, retain_graph=True) for loss in losses(arrays)]
    for name, got, *rest in zip(NAMES, whole, *parts):
        torch.testing.assert_close(got, sum(rest), msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast(dtype, compiled):
    arrays = make(torch.float32)
    layer = attention
    if compiled:
        torch._dynamo.reset()
        layer = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype):
        output = layer(arrays)
        mixed = attention([arrays[0].to(dtype), *arrays[1:]])
        wide = attention(make())
    narrow = [x.detach().to(dtype).requires_grad_() for x in arrays]
    want = attention(narrow)
    assert output.dtype == dtype and torch.equal(output, want) and torch.equal(mixed, want)
    assert wide.dtype == torch.float64
    got = torch.autograd.grad(output.sum(), arrays)
    assert all(x.dtype == torch.float32 for x in got)
    all_equal(got, [x.float() for x in torch.autograd.grad(want.sum(), narrow)])


def test_autocast_of_accumulate():
    torch.manual_seed(0)
    x, b, c = torch.randn(3, 1, 2, 9, 4)
    a, first = torch.rand(1, 2, 9), torch.randn(1, 2, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = mt.accumulate(x, a, b, c, initial=first)
    want = mt.accumulate(x.bfloat16(), a, b.bfloat16(), c.bfloat16(), initial=first)
    assert output.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert torch.equal(output, want[0]) and torch.equal(state, want[1])


def test_a_training_step_leaves_no_garbage():
    """A reference cycle would hold its tensors, gigabytes on a GPU, until Python counts many
    objects."""
    q, routing, k, v = (torch.randn(1, 2, 64, 16, requires_grad=True) for _ in range(4))
    gc.collect()
    gc.disable()
    try:
        product = q * 1
        held = weakref.ref(product)
        mt.attention(product, k, v, [routing], Schedule()).sum().backward()
        del product
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("schedule", [S, Schedule(steps=1)], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("of_keys", [None, [5, 0, 3, 40]], ids=["alike", "own"])
def test_packed_sequences(schedule, compiled, of_keys):
    """Gradients of one call, by everything that it returns, are those of one call a sequence."""
    lengths, behind = [9, 1, 0, 14], 2
    generator = torch.Generator().manual_seed(3)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    q, *routing = (random(1, 4, sum(lengths) + behind, 6) for _ in range(schedule.steps))
    k, v, keys = (random(1, 2, sum(of_keys or lengths) + behind, 6) for _ in range(3))
    inputs = [q, k, v, *routing, keys]

    def loss(q, k, v, *rest, **options):
        *routing, keys = rest
        found = mt.attend(q, k, v, routing, schedule, search_keys=keys, **options)
        seen = [torch.where(one > -torch.inf, one, 0) for one in
                (found.output, found.lse, found.window_lse, found.scores)]
        return sum((one * one).sum() for one in seen)

    bounds = torch.tensor([0, *lengths]).cumsum(0)
    options = {"cu_seqlens": bounds}
    if of_keys:
        options["cu_seqlens_k"] = torch.tensor([0, *of_keys]).cumsum(0)
    call = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
    got = torch.autograd.grad(call(*inputs, **options), inputs, allow_unused=True)
    whole = 0
    for count, keys_here, end, last in zip(lengths, of_keys or lengths, bounds[1:],
                                           [*options.values()][-1][1:]):
        count = min(count, keys_here)
        parts = (x[:, :, end - count:end] if x.shape[1] == 4 else x[:, :, last - keys_here:last]
                 for x in inputs)
        whole += loss(*parts, query_offset=keys_here - count) if count else 0
    want = torch.autograd.grad(whole, inputs, allow_unused=True)
    assert all(one is not None for one in got[:3])
    for one, other in zip(got, want):
        if one is None or other is None:
            assert not any(x is not None and x.any() for x in (one, other))
            continue
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        assert not one[:, :, -behind:].any()
