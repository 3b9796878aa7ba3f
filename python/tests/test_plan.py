"""Which kernels a call gets, and callers who take no slower ones than the fast."""

import numpy as np
import pytest

import multistep
from multistep import Schedule

needs_kernels = pytest.mark.skipif(not multistep.has_cuda, reason="built without CUDA")


def kernels(plan):
    return {stage.stage: stage.kernels for stage in plan.stages}


@needs_kernels
def test_a_plan_needs_no_gpu():
    schedule = Schedule(steps=3)
    few = multistep.plan(2**20, schedule, chip="h100")
    assert few.fast and kernels(few) == {
        "search": ["search_few"], "attend": ["decode_pieces"], "combine": ["decode_pieces"]}
    many = multistep.plan(2**20, schedule, queries=4096, head_dim=64, chip="h100")
    assert many.fast and kernels(many)["attend"] == ["sort_pairs", "attend_tiles"]
    assert many.queries_at_once == 4096
    row = many.anchors_scored + 2 * many.keys_attended
    assert many.products == pytest.approx(32 * 4096 * 64 * row)
    assert "search       search_shared, order_pairs, search_parents, choose_rows\n" in str(many)


@needs_kernels
def test_a_plan_tells_why_not():
    wide = multistep.plan(4096, Schedule(top_k=64), head_dim=100, chip="h100")
    why = "head_dim 100: multiples of 8 up to 256 are built"
    assert not wide.fast and [stage.why for stage in wide.stages] == [why] * 3
    assert f"search       search_level (no faster one: {why})" in str(wide)
    for chip, head_dim, queries in (("h100", 128, "backward_queries"),
                                    ("h100", 192, "backward_warp_queries"),
                                    ("a100", 128, "backward_warp_queries")):
        plan = multistep.plan(4096, head_dim=head_dim, chip=chip)
        assert plan.fast and plan.backward.fast and plan.backward.kernels[0] == queries
    negative = multistep.plan(4096, softmax_scale=-1.0, chip="h100")
    assert negative.fast and negative.backward.why == "softmax_scale -1: above 0"
    with pytest.raises(ValueError, match="^chip tpu: h100 or a100$"):
        multistep.plan(4096, chip="tpu")


@pytest.mark.skipif(multistep.has_cuda, reason="built with CUDA")
def test_without_kernels_there_is_no_plan():
    with pytest.raises(RuntimeError, match="^multistep: built without CUDA"):
        multistep.plan(4096)


def test_a_plan_checks_its_shape():
    with pytest.raises(ValueError, match="^length 0: an integer in "):
        multistep.plan(0)
    with pytest.raises(ValueError, match="^queries 10: an integer in "):
        multistep.plan(9, queries=10)
    with pytest.raises(ValueError, match="^num_kv_heads 3: divides num_heads 32$"):
        multistep.plan(9, num_kv_heads=3)
    with pytest.raises(TypeError, match="^schedule of type int: a multistep.Schedule$"):
        multistep.plan(9, 3)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_oracle_is_no_fast_kernel(library):
    arrays = [np.ones((1, 1, 9, 4)) for _ in range(4)]
    if library == "torch":
        arrays = [pytest.importorskip("torch").from_numpy(array) for array in arrays]
    *qkv, routing = arrays
    for word in ("automatic", "plain"):
        multistep.attention(*qkv, [routing], Schedule(), kernels=word)
    with pytest.raises(ValueError, match="^kernels 'fast': of CUDA tensors; the oracle"):
        multistep.attention(*qkv, [routing], Schedule(), kernels="fast")
    with pytest.raises(ValueError, match="^kernels 'quick': automatic, fast or plain$"):
        multistep.attention(*qkv, [routing], Schedule(), kernels="quick")


@pytest.mark.gpu
def test_fast_kernels_or_none():
    torch = pytest.importorskip("torch")
    generator = torch.Generator(device="cuda").manual_seed(1)
    schedule = Schedule(steps=3)

    def arrays(d, queries):
        def array(heads, length):
            return torch.randn(1, heads, length, d, generator=generator, device="cuda",
                               dtype=torch.bfloat16)
        routing = [array(8, queries) for _ in range(2)]
        return array(8, queries), array(2, 700), array(2, 700), routing, schedule

    given = arrays(64, 300)
    options = {"query_offset": 400}
    plan = multistep.torch.plan(*given, **options)
    assert plan.fast and plan.stages[1].kernels in (
        ["sort_pairs", "attend_tiles"], ["sort_pairs", "attend_warp_tiles"])
    assert torch.equal(multistep.attention(*given, **options, kernels="fast"),
                       multistep.attention(*given, **options))
    fast, plain = (multistep.attend(*given, **options, kernels=word)
                   for word in ("automatic", "plain"))
    assert torch.equal(fast.spans, plain.spans)
    assert torch.allclose(fast.output.float(), plain.output.float(), atol=0.02)
    length = torch.tensor([700], device="cuda", dtype=torch.int32)
    one = arrays(64, 1)
    assert kernels(multistep.torch.plan(*one, length=length))["attend"] == ["decode_pieces"]
    multistep.decode(*one, length=length, kernels="fast")

    wide = arrays(100, 300)
    why = multistep.torch.plan(*wide, **options).stages[0].why
    assert why == "head_dim 100: multiples of 8 up to 256 are built"
    with pytest.raises(ValueError, match=f"no fast kernel takes the call: {why}"):
        multistep.attention(*wide, **options, kernels="fast")
