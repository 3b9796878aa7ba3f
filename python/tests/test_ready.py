"""Calls that go past the operator, on CPU tensors that stand for those of a GPU."""

import contextlib

import pytest

torch = pytest.importorskip("torch")

from test_torch import oracle_as_kernels  # noqa: E402, F401
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.overrides import BaseTorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

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
    for name in ("attention", "attention_again"):
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
    return ready.key_of(arguments("attention", **(x | more), options={}), details)


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
    q, grows = x["q"], x["q"].clone().requires_grad_()
    assert key(x) and key(x) != key(x, True)
    for one in (grows, torch.nn.Parameter(q), torch._neg_view(q), q.to_sparse(), q.to("meta"),
                object()):
        assert key(x, q=one) is None and key(x, k=one) is None
    with torch.no_grad():
        assert key(x, q=grows) == key(x)
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
