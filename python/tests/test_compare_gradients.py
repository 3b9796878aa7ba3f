"""The report of compare on gradients, right ones and broken ones."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import multistep  # noqa: E402
import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402

S = Schedule(steps=3, window_index=2)
STAGES = ["d query", "d routing queries", "d key", "d value"]


def make(dtype=torch.float32, schedule=S, heads=4, queries=50, d=16):
    generator = torch.Generator().manual_seed(3)
    arrays = [torch.randn(2, n, queries, d, generator=generator).to(dtype)
              for n in (heads, 2, 2, *[heads] * (schedule.steps - 1))]
    return (*arrays[:3], arrays[3:])


def own(schedule=S, **options):
    def candidate(q, k, v, routing):
        return mt.attend(q, k, v, routing, schedule, **options)._asdict()
    return candidate


def gradients(arrays, schedule=S, change=lambda found: None, **options):
    """Of PyTorch, from the oracle's own derivatives, then changed."""
    def backward(by_output):
        q, k, v, routing = arrays
        leaves = [x.detach().requires_grad_() for x in (q, k, v, *routing)]
        output = mt.attention(*leaves[:3], leaves[3:], schedule, **options)
        by = list(torch.autograd.grad(output, leaves, by_output))
        found = {"q": by[0], "k": by[1], "v": by[2], "routing_queries": by[3:]}
        change(found)
        return found
    return backward


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16],
                         ids=str)
def test_right_gradients_pass(dtype):
    arrays = make(dtype)
    for how in ("autograd", gradients(arrays)):
        report = multistep.compare(own(), *arrays, S, gradients=how)
        assert report, report
        assert [stage.name for stage in report.stages][-4:] == STAGES
        assert report.verdict.startswith("PASS, 400 of 400 rows and 200 of 200 keys looked at")
        assert (report.keys, report.keys_of) == (200, 200)
        assert report.to_dict()["keys"] == 200


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("heads", [2, 8])
def test_the_gradients_of_pytorch_pass(dtype, heads):
    """Dense attention as PyTorch has it, a group's sums in float32: enable_gqa sums in q's type."""
    schedule = Schedule(steps=1)
    q, k, v, _ = make(dtype, schedule, heads=heads, queries=200, d=64)

    def grouped(*arrays):
        return [x[:, :, None].expand(-1, -1, heads // 2, -1, -1).flatten(1, 2) for x in arrays]

    def fused(q, k, v, routing):
        return torch.nn.functional.scaled_dot_product_attention(q, *grouped(k, v), is_causal=True)

    def eager(q, k, v, routing):
        k, v = grouped(k, v)
        logits = (q @ k.mT) * 64**-0.5
        logits = logits.float().masked_fill(torch.ones(200, 200).triu(1).bool(), -torch.inf)
        return logits.softmax(-1).to(q.dtype) @ v

    for candidate in (fused,) if dtype != torch.float32 else (fused, eager):
        report = multistep.compare(candidate, q, k, v, [], schedule, gradients="autograd")
        assert report, report
        assert [stage.name for stage in report.stages] == ["output", "d query", "d key", "d value"]


FAULTS = {
    "d query": lambda found: found["q"].mul_(1.1),
    "d key": lambda found: found["k"][:, :, -1].zero_(),
    "d value": lambda found: found["v"].mul_(2),
    "d routing queries": lambda found: found["routing_queries"].reverse(),
}


@pytest.mark.parametrize("stage", FAULTS)
def test_broken_gradients_fail_where_they_are(stage):
    arrays = make(torch.bfloat16)
    report = multistep.compare(own(), *arrays, S,
                               gradients=gradients(arrays, change=FAULTS[stage]))
    assert not report
    assert [one.name for one in report.stages if not one] == [stage]
    assert ("key" if stage in ("d key", "d value") else "query") in report.stage(stage).worst


def test_search_keys_have_gradients_of_their_own():
    arrays = make()
    keys = torch.randn(arrays[1].shape, generator=torch.Generator().manual_seed(4))

    def backward(by_output):
        leaf = keys.clone().requires_grad_()
        found = gradients(arrays, search_keys=keys)(by_output)
        output = mt.attention(*arrays, S, search_keys=leaf)
        return {**found, "search_keys": torch.autograd.grad(output, leaf, by_output)[0]}

    report = multistep.compare(own(search_keys=keys), *arrays, S, search_keys=keys,
                               gradients=backward)
    assert report and report.stage("d search keys"), report
    report = multistep.compare(own(search_keys=keys), *arrays, S, search_keys=keys,
                               gradients="autograd")
    assert report and "d search keys" in report.not_supplied


def test_some_gradients_of_numpy_arrays():
    arrays = make()
    q, k, v = (x.numpy() for x in arrays[:3])
    routing = [x.numpy() for x in arrays[3]]

    def backward(by_output):
        assert isinstance(by_output, np.ndarray) and by_output.dtype == np.float32
        return {"v": gradients(arrays)(torch.from_numpy(by_output))["v"].numpy()}

    found = multistep.attend(q, k, v, routing, S)._asdict()
    report = multistep.compare(found, q, k, v, routing, S, gradients=backward, rows=7)
    assert report, report
    assert report.not_supplied[-3:] == ("d query", "d routing queries", "d key")
    assert (report.rows, report.keys) == (7, 7)


def test_a_selection_is_the_candidates_own():
    arrays = make()
    found = {name: x.numpy() for name, x in own()(*arrays).items()}
    found["anchors"][0, 0, 40, 0] = found["anchors"][0, 0, 40, 1]  # of another path
    report = multistep.compare(found, *arrays, S, gradients=gradients(arrays))
    assert {stage.name for stage in report.stages if not stage} >= {"search", "d routing queries"}
    found["spans"][0, 0, 40, 0] = [45, 49]  # later keys
    report = multistep.compare(found, *arrays, S, gradients=gradients(arrays))
    assert {stage.name for stage in report.stages if not stage} >= {"search", "d query", "d key"}


def test_what_is_refused():
    arrays = make()
    for wrong, message, candidate in [
        (3, "gradients 3: a callable, or 'autograd'", own()),
        (lambda by: {}, "gradients: none by q, k, v", own()),
        (lambda by: {"w": by}, "gradient by 'w': q, k, v", own()),
        (lambda by: {"q": by[:1]}, r"gradient by q of shape \(1, 4, 50, 16\): \(2, 4, 50, 16\)",
         own()),
        (lambda by: {"routing_queries": [by]}, "gradient by routing_queries 1: one array per",
         own()),
        (lambda by: {"search_keys": arrays[1]}, "gradient by search_keys: a part of that by k",
         own()),
        ("autograd", "candidate: results already computed", own()(*arrays)),
        ("autograd", "candidate's output: a tensor that requires", lambda *a: a[0].detach()),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            multistep.compare(candidate, *arrays, S, gradients=wrong)
    with pytest.raises(TypeError, match=re.escape("q of type ndarray: a tensor, for autograd")):
        multistep.compare(own(), *(x.numpy() for x in arrays[:3]), [x.numpy() for x in arrays[3]],
                          S, gradients="autograd")
