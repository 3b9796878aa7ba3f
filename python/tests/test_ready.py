"""Calls that go past the operator, on CPU tensors that stand for those of a GPU."""

import contextlib
import gc
import weakref

import pytest

torch = pytest.importorskip("torch")

from test_torch import oracle_as_kernels  # noqa: E402, F401
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.overrides import BaseTorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402
from multistep._problem import arguments  # noqa: E402
from multistep.torch import kernels, ready  # noqa: E402

S = Schedule(2, window_index=1, top_k=3)


@pytest.fixture
def made(oracle_as_kernels, monkeypatch):  # noqa: F811
    """The functions that made each call."""
    calls = []
    monkeypatch.setattr(kernels, "on_current_device", lambda q: type(q) is torch.Tensor)
    monkeypatch.setattr(ready, "_calls", {})
    for name in ("attention", "attention_again", "attention_backward", "attention_backward_again"):
        def told(*arguments, name=name, call=getattr(kernels, name)):
            calls.append(name)
            return call(*arguments)

        monkeypatch.setattr(kernels, name, told)
    return calls


def given(seed=0, queries=20):
    torch.manual_seed(seed)
    q, k, v, r = (torch.randn(2, heads, queries, 8).half() for heads in (4, 2, 2, 4))
    return {"q": q, "k": k, "v": v, "routing_queries": [r], "schedule": S}


def call(seed=0, **more):
    arrays = {**given(seed), **more}
    positional = [arrays.pop(name) for name in ("q", "k", "v", "routing_queries", "schedule")]
    return (mt.decode if "length" in arrays else mt.attention)(*positional, **arrays)


def turned(x):
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def shifted(x):
    return torch.empty(x.numel() + 1, dtype=x.dtype)[1:].view(x.shape).copy_(x)


FEW = given(1, 7)
OTHERS = {  # what makes another call of given()
    "top_k": {"top_k": 1}, "type of top_k": {"top_k": 3.0},
    "softmax_scale": {"softmax_scale": 0.25}, "search_scale": {"search_scale": 0.5},
    "type of a scale": {"search_scale": 1},
    "schedule": {"schedule": Schedule(2, top_k=3)}, "its top_k": {"schedule": S.with_top_k(2)},
    "shape": {"q": FEW["q"], "routing_queries": FEW["routing_queries"]},
    "query_offset": {"q": FEW["q"], "routing_queries": FEW["routing_queries"], "query_offset": 4},
    "strides of q": {"q": turned(given()["q"])}, "strides of k": {"k": turned(given()["k"])},
    "strides of routing": {"routing_queries": [turned(given()["q"])]},
    "address": {"v": shifted(given()["v"])}, "search_keys": {"search_keys": given(1)["k"]},
    "start": {"start": torch.tensor([0, 5])}, "integer": {"start": 3},
    "dtype of start": {"start": torch.tensor([0, 5], dtype=torch.int32)},
    "length": {"length": torch.tensor([20, 9])}, "integer length": {"length": 20}}


def test_the_like_are_made_again(made):
    for name, other in ({"": {}} | OTHERS).items():
        for seed in (0, 1, 2):
            made.clear()
            found = call(seed, **other)
            copied = name == "address"  # which nothing is kept of
            assert made == ["attention" if seed == 0 or copied else "attention_again"], name
            with BaseTorchFunctionMode():
                assert torch.equal(found, call(seed, **other))
    made.clear()
    call(), call(kernels="plain")
    assert made == ["attention_again", "attention"]


def test_positions_are_read_in_every_call(made):
    length = torch.tensor([20, 9])
    for _ in range(3):
        with BaseTorchFunctionMode():
            want = call(length=length)
        assert torch.equal(call(length=length), want)
        length -= 2
    assert made == ["attention", "attention_again", "attention_again"]


def leaves(seed=0, **more):
    """Arrays with gradients: q, k, v, the routing queries, search keys if any."""
    arrays = {**given(seed), **more}
    names = ["q", "k", "v", "routing_queries", *(["search_keys"] if "search_keys" in more else [])]
    flat = [one for name in names
            for one in (arrays[name] if name == "routing_queries" else [arrays[name]])]
    return [one.detach().requires_grad_() for one in flat]


def attend(inputs, **more):
    keys = {"search_keys": inputs[4]} if len(inputs) > 4 else {}
    return mt.attend(*inputs[:3], inputs[3:4], **{"schedule": S, **more, **keys})


def by_all(found, seed=0):
    """Derivatives by everything that has any."""
    torch.manual_seed(seed)
    return {name: torch.randn(one.shape).to(one.dtype) for name, one in found._asdict().items()
            if one.is_floating_point()}


def back(found, inputs, names=("output",), seed=0):
    by = by_all(found, seed)
    return torch.autograd.grad([getattr(found, name) for name in names], inputs,
                               [by[name] for name in names], retain_graph=True)


def options(other):
    """What of another call is no array with gradients."""
    return {name: value for name, value in other.items()
            if name not in ("q", "k", "v", "routing_queries", "search_keys")}


def test_gradients_of_the_like_are_made_again(made):
    for name, other in ({"": {}} | OTHERS).items():
        if "length" in other:
            continue
        for seed in (0, 1, 2):
            made.clear()
            inputs = leaves(seed, **other)
            if name == "address":
                inputs[2] = shifted(inputs[2].detach()).requires_grad_()
            found = attend(inputs, **options(other))
            got = back(found, inputs)
            copied = name == "address"  # which nothing is kept of
            copied_back = copied or "strides" in name
            like_another = name in ("type of a scale", "integer")  # once they are checked
            assert made == [
                "attention" if seed == 0 or copied else "attention_again",
                "attention_backward" if copied_back or seed == 0 and not like_another
                else "attention_backward_again"], name
            with BaseTorchFunctionMode():
                watched = attend(inputs, **options(other))
                want = back(watched, inputs)
            assert len(made) == 2
            assert all(map(torch.equal, got, want)), name
            assert all(torch.equal(one, another.to(one.dtype))
                       for one, another in zip(found, watched)), name


def test_derivatives_by_whatever_is_found(made):
    inputs = leaves()
    found = attend(inputs)
    with BaseTorchFunctionMode():
        watched = attend(inputs)
    assert not found.spans.requires_grad and not found.anchors.requires_grad
    for names in (["output"], ["lse"], ["scores", "window_lse"], [*by_all(found)], ["lse"]):
        for seed in (1, 2):
            got = back(found, inputs, names, seed)
            assert all(map(torch.equal, got, back(watched, inputs, names, seed))), names
    assert made[1:] == [f"attention_backward{again}" for again in
                        ("", "_again", "", "_again", "", "_again", "", "_again", "_again", "_again")]


def test_a_derivative_that_has_to_be_copied(made):
    inputs = leaves()
    with BaseTorchFunctionMode():
        want = torch.autograd.grad(attend(inputs).output.sum(), inputs)
    for _ in range(3):
        got = torch.autograd.grad(attend(inputs).output.sum(), inputs)
        assert all(map(torch.equal, got, want))
    assert "attention_backward_again" not in made


def test_gradients_of_some(made):
    """Of arrays with gradients, others without, and one that is used twice."""
    q, k, v, r = leaves()
    for i in range(4):
        inputs = [one if i == j else one.detach() for j, one in enumerate((q, k, v, r))]
        got = back(attend(inputs), inputs[i:i + 1])
        with BaseTorchFunctionMode():
            assert torch.equal(*got, *back(attend(inputs), inputs[i:i + 1]))
    found = attend([q, k, k, q])
    assert all(one.isfinite().all() for one in back(found, [q, k]))
    assert attend([x.detach() for x in (q, k, v, r)]).output.grad_fn is None
    with torch.no_grad():
        assert attend([q, k, v, r]).output.grad_fn is None


def test_a_call_with_gradients_is_none_without(made):
    """It writes more."""
    inputs = leaves()
    mt.attention(*inputs[:3], inputs[3:], S)
    assert [key[0] for key in ready._calls] == ["attend"]
    ready._calls.clear(), made.clear()
    for gradients in (True, False, True, False):
        with torch.set_grad_enabled(gradients):
            assert mt.attention(*inputs[:3], inputs[3:], S).requires_grad == gradients
    assert made == ["attention", "attention", "attention_again", "attention_again"]


def test_what_autograd_keeps(made):
    inputs = leaves()
    want = back(attend(inputs), inputs)
    packed = []

    def pack(tensor):
        packed.append(tensor)
        return turned(tensor) if tensor.dim() == 4 else tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = attend(inputs)
    assert len(packed) == 4 + 5  # the arrays, and what was found
    made.clear()
    assert all(map(torch.equal, back(found, inputs), want)) and made == ["attention_backward"]
    found = attend(inputs)
    with torch.no_grad():
        inputs[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        back(found, inputs)


def test_what_is_computed_anew(made):
    """Checkpoints give what was kept once."""
    inputs = leaves()
    want = back(attend(inputs), inputs)
    made.clear()
    output = checkpoint(lambda *inputs: attend(inputs).output, *inputs, use_reentrant=False)
    by = by_all(attend([one.detach() for one in inputs]))["output"]
    assert all(map(torch.equal, torch.autograd.grad(output, inputs, by), want))
    assert made == [*3 * ["attention_again"], "attention_backward_again"]


def test_nothing_is_kept_longer_than_the_output(made):
    inputs = leaves()
    gc.disable()
    try:
        found = attend(inputs)
        output = weakref.ref(found.output)
        del found
        assert output() is None
    finally:
        gc.enable()


def test_who_watches_sees_the_gradient_s_operator(made):
    inputs = leaves()
    found = attend(inputs)
    made.clear()
    with torch.autograd.profiler.profile():
        back(found, inputs)
    assert made == []
    with pytest.raises(NotImplementedError, match="no gradients of gradients"):
        first, = torch.autograd.grad(found.output.sum(), inputs[:1], create_graph=True)
        first.sum().backward()
    assert made == []


def test_gradients_that_there_are_not_are_the_operator_s_to_refuse(made):
    inputs = leaves()
    for _ in range(2):
        attend(inputs, length=torch.tensor([20, 9]))
    assert made == []


def refusal(arguments):
    with pytest.raises((TypeError, ValueError)) as caught:
        call(**arguments)
    return type(caught.value), str(caught.value)


def test_a_call_that_was_right_lets_no_wrong_one_through(made):
    x = given()
    wrong = [
        {"top_k": True}, {"top_k": 2.5}, {"top_k": 0}, {"top_k": 65}, {"softmax_scale": "1"},
        {"softmax_scale": float("nan")}, {"search_scale": True}, {"query_offset": False},
        {"query_offset": 1}, {"query_offset": -1}, {"kernels": "slow"}, {"routing_queries": []},
        {"routing_queries": x["routing_queries"] * 2}, {"q": x["q"].bfloat16()},
        {"q": x["q"].float()}, {"q": x["q"][0]}, {"q": x["q"].numpy()}, {"k": x["k"][:, :, 1:]},
        {"k": x["k"].float()}, {"v": x["v"].bfloat16()}, {"v": x["v"][..., :4]},
        {"search_keys": x["q"]}, {"routing_queries": [x["k"]]},
        {"start": torch.tensor([0.0, 5.0])}, {"start": torch.tensor([0, 5, 6])},
        {"start": [0, -1]}, {"start": True}, {"length": torch.tensor([[20, 9]])},
        {"length": torch.tensor([True, False])}, {"length": -1}, {"length": None},
        {"length": torch.tensor([20, 9]), "cu_seqlens": torch.tensor([0, 20])},
        {"cu_seqlens": torch.tensor([0, 20])}, {"offset": 0}, {"top_k": [1]}, {"k": [x["k"]]},
        {"search_scale": [1.0]}, {"search_keys": [x["k"]]}]
    fresh = []
    for one in wrong:
        ready._calls.clear()
        fresh.append(refusal(one))
    for right in ({}, {"top_k": 1}, {"start": torch.tensor([0, 5])}, {"query_offset": 0},
                  {"length": torch.tensor([20, 9])}, {"search_keys": x["k"]}):
        for _ in range(2):
            call(**right)
    made.clear()
    assert [refusal(one) for one in wrong] == fresh
    assert "attention_again" not in made


def key(x, details=False, **more):
    given = arguments("attention", **(x | more), options={})
    return ready.key_of("attend" if details else "attention", *given[:3], *given.routing_queries,
                        *given[4:])


@contextlib.contextmanager
def autocast():
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


@pytest.mark.parametrize("watch", [
    BaseTorchFunctionMode, TorchDispatchMode, autocast, torch.autograd.profiler.profile,
    torch.autograd.forward_ad.dual_level], ids=lambda watch: watch.__name__)
def test_who_watches_sees_the_operator(made, watch):
    x = given()
    with watch():
        found = key(x)
    assert found is None and key(x) is not None


def test_what_is_no_plain_tensor_sees_the_operator(made):
    x = given()
    q = x["q"]
    assert key(x) and key(x) != key(x, True)
    for one in (torch.nn.Parameter(q), torch._neg_view(q), q.to_sparse(), q.to("meta"), object()):
        assert key(x, q=one) is None and key(x, k=one) is None
    with torch.inference_mode():
        assert key(x, q=q + 0) == key(x)
    seen = []
    torch.vmap(lambda q: seen.append(key(x, q=q)) or q)(q[None])
    torch.jit.trace(lambda q: seen.append(key(x, q=q)) or q, q, check_trace=False)
    assert seen == [None, None]


def test_a_pytorch_that_does_not_tell_who_watches_sees_the_operator(made, monkeypatch):
    monkeypatch.setattr(ready, "_TELLS", False)
    for _ in range(2):
        call()
    assert not made and not ready._calls


def test_few_calls_are_kept(made, monkeypatch):
    monkeypatch.setattr(ready, "_MOST", 2)
    for top_k in (1, 2, 3, 4, 4, 1):
        call(top_k=top_k)
        assert len(ready._calls) <= 2
    assert made == [*["attention"] * 4, "attention_again", "attention"]


def test_calls_that_are_kept_compile_nothing_again(made):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    q, k, v, routing = (torch.randn(2, heads, 20, 8) for heads in (4, 2, 2, 4))
    compiled = torch.compile(lambda q: mt.attention(q, k, v, [routing], S), fullgraph=True,
                             backend=counter)
    for top_k in (1, 2, 3):
        call(top_k=top_k)
        assert len(ready._calls) == top_k and compiled(q).shape == q.shape
    assert counter.frame_count == 1
