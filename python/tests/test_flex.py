"""Span attention by PyTorch's attentions alone, from spans and anchors: the masks of kept spans
under FlexAttention, which on a CPU goes forward alone, and under dense attention with gradients."""

from functools import partial

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.attention.flex_attention")

from torch.nn.attention.flex_attention import flex_attention  # noqa: E402

import multistep.torch as mt  # noqa: E402
from multistep import Schedule  # noqa: E402

SCHEDULES = [Schedule(), Schedule(steps=3, window_index=2, top_k=3), Schedule(steps=1),
             Schedule.preset("released", window_index=3), Schedule.preset("paper"),
             Schedule.preset("aligned", steps=3, window_index=5), Schedule(steps=4, top_k=4)]
CALLS = [{}, {"query_offset": 17}, {"start": torch.tensor([0, 23]), "query_offset": 8},
         {"softmax_scale": 0.2, "search_scale": 0.5}]
BATCH, HEADS, KV_HEADS, QUERIES, KEYS, DIM = 2, 4, 2, 30, 50, 8
near = partial(torch.testing.assert_close, rtol=1e-11, atol=1e-12)  # sums of 50 in float64


def make(schedule, device="cpu", dtype=torch.float64):
    """q, k, v, search keys of their own, and routing queries."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(HEADS, QUERIES), *[(KV_HEADS, KEYS)] * 3, *[(HEADS, QUERIES)] * (schedule.steps - 1)]
    return [torch.randn(BATCH, *shape, DIM, generator=generator, dtype=torch.float64)
            .to(device, dtype).requires_grad_() for shape in shapes]


def attend(schedule, q, k, v, keys, *routing, **options):
    return mt.attend(q, k, v, list(routing), schedule, search_keys=keys, **options)


def placed(options):
    return {name: options[name] for name in ("query_offset", "start") if name in options}


def dense(q, k, v, mask, scale):
    arange = partial(torch.arange, device=q.device)
    held = mask(arange(BATCH)[:, None, None, None], arange(HEADS)[:, None, None],
                arange(QUERIES)[:, None], arange(k.shape[2]))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, held, scale=scale,
                                                            enable_gqa=True)


def flex(q, k, v, mask, scale):
    return flex_attention(q, k, v, block_mask=mask, scale=scale, enable_gqa=True)


def path_scores(found, keys, routing, search_scale):
    """Of the anchors that were chosen, by the definition of SPEC 3."""
    keys = keys.repeat_interleave(HEADS // KV_HEADS, 1)
    b = torch.arange(BATCH, device=keys.device)[:, None, None, None]
    h = torch.arange(HEADS, device=keys.device)[:, None, None]
    scores = torch.zeros_like(found.scores)
    for level, query in enumerate(routing):
        chosen = keys[b, h, found.anchors[..., level].clamp(min=0)]
        scores = scores + search_scale * (query[..., None, :] * chosen).sum(-1)
    return torch.where(found.scores > -torch.inf, scores, -torch.inf)


def combined(found, joined, scores):
    """SPEC 4: the spans' softmax attentions by the gates; the window's where no span is kept."""
    none = found.scores[..., :1] == -torch.inf
    gates = torch.where(none, 0, scores).softmax(-1)
    return sum(gates[..., s:s + 1] * joined(s) for s in range(scores.shape[-1]))


@pytest.mark.parametrize("options", CALLS, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_flex_attention_gives_the_output(schedule, options):
    q, k, v, keys, *routing = [x.detach() for x in make(schedule)]
    found = attend(schedule, q, k, v, keys, *routing, **options)

    def joined(s):
        mask = mt.span_block_mask(found.spans[..., s:s + 1, :], schedule, KEYS, block_size=16,
                                  **placed(options))
        return flex(q, k, v, mask, options.get("softmax_scale"))

    near(combined(found, joined, found.scores), found.output)


@pytest.mark.parametrize("options", CALLS, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_dense_attention_gives_the_gradients(schedule, options):
    inputs = make(schedule)
    q, k, v, keys, *routing = inputs
    found = attend(schedule, *inputs, **options)

    def joined(s):
        mask = mt.span_mask(found.spans[..., s:s + 1, :], schedule, **placed(options))
        return dense(q, k, v, mask, options.get("softmax_scale"))

    scores = path_scores(found, keys, routing, options.get("search_scale", 1.0))
    near(scores, found.scores)
    output = combined(found, joined, scores)
    near(output, found.output)
    weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    leaves = inputs if schedule.steps > 1 else inputs[:3]  # nobody searches
    want = torch.autograd.grad((output * weight).sum(), leaves)
    for got, other in zip(torch.autograd.grad((found.output * weight).sum(), leaves), want):
        near(got, other)


def test_all_slots_are_one_set():
    schedule = Schedule(steps=3, window_index=1, top_k=3)
    q, k, v, keys, *routing = [x.detach() for x in make(schedule)]
    spans = attend(schedule, q, k, v, keys, *routing, query_offset=20).spans
    mask = mt.span_mask(spans, schedule, query_offset=20)
    for b, h, t in ((0, 0, 0), (1, 3, 29), (0, 2, 11)):
        begin, end = schedule.window(20 + t)
        held = set(range(begin, end)).union(*(range(*span) for span in spans[b, h, t].tolist()))
        at = (torch.tensor(x) for x in (b, h, t))
        assert mask(*at, torch.arange(KEYS)).nonzero().flatten().tolist() == sorted(held)


def test_decoding_and_packed_sequences():
    schedule = Schedule(steps=2, window_index=1)
    q, k, v, keys, *routing = [x.detach() for x in make(schedule)]
    length = torch.tensor([50, 31])
    found = attend(schedule, q, k, v, keys, *routing, length=length)

    def joined(s):
        mask = mt.span_block_mask(found.spans[..., s:s + 1, :], schedule, KEYS,
                                  query_offset=length - QUERIES)
        return flex(q, k, v, mask, None)

    near(combined(found, joined, found.scores), found.output)

    one = [x.detach()[:1, :, :QUERIES] for x in (q, k, v, keys, *routing)]
    begin, end = 12, QUERIES
    found = attend(schedule, *one, cu_seqlens=torch.tensor([0, begin, end]))
    mask = mt.span_mask(found.spans[:, :, begin:end, :1], schedule, query_offset=begin, start=begin)
    at = torch.arange(end - begin)[:, None], torch.arange(end)
    held = mask(torch.tensor(0), torch.tensor(0), *at)
    weights = (one[0][0, 0, begin:] @ one[1][0, 0].T * DIM**-0.5).where(held, -torch.inf)
    lse = torch.logaddexp(found.lse[0, 0, begin:, 0], found.window_lse[0, 0, begin:])
    near(weights.logsumexp(-1), lse)


def test_refused():
    spans = torch.zeros(2, 4, 30, 2, 2, dtype=torch.int64)
    for arguments, options, message in (
            ((spans[0], Schedule()), {}, r"spans of shape \(4, 30, 2, 2\)"),
            ((spans[..., :1], Schedule()), {}, "spans of shape"),
            ((spans, Schedule()), {"start": torch.zeros(3, dtype=torch.int64)}, r"start of shape \(3,\)"),
            ((spans, Schedule()), {"query_offset": -1}, "query_offset -1")):
        with pytest.raises(ValueError, match=message):
            mt.span_mask(*arguments, **options)
    with pytest.raises(ValueError, match="keys 0"):
        mt.span_block_mask(spans, Schedule(), 0)


@pytest.mark.gpu
@pytest.mark.parametrize("schedule", [SCHEDULES[1], SCHEDULES[3], SCHEDULES[5]], ids=str)
def test_flex_attention_gives_the_kernels_gradients(schedule):
    """At the kernels' selection and on the same 16-bit values, in float32."""
    inputs = make(schedule, "cuda", torch.bfloat16)
    found = attend(schedule, *inputs)
    q, k, v, keys, *routing = wide = [x.detach().float().requires_grad_() for x in inputs]

    def joined(s):
        mask = mt.span_block_mask(found.spans[..., s:s + 1, :], schedule, KEYS)
        return flex(q, k, v, mask, None)

    output = combined(found, joined, path_scores(found, keys, routing, 1.0))
    weight = torch.linspace(-1, 1, output.numel(), device="cuda").view(output.shape)
    want = output, *torch.autograd.grad((output * weight).sum(), wide)
    weighed = (found.output.float() * weight.bfloat16().float()).sum()
    # Roundings to bf16, as in test_gpu_gradients.py, and what cancels where paths share an anchor.
    for got, other in zip((found.output, *torch.autograd.grad(weighed, inputs)), want):
        assert (got.float() - other).abs().max() <= 4 * 2.0**-8 * other.abs().max() + 1e-3


def test_masks_are_of_integers():
    schedule = Schedule()
    spans = torch.zeros(1, 1, 3, 2, 2, dtype=torch.int32)
    with pytest.raises(TypeError, match="^spans of torch.float32: integers"):
        mt.span_mask(spans.float(), schedule)
    with pytest.raises(TypeError, match="^query_offset of torch.float32: integers"):
        mt.span_mask(spans, schedule, query_offset=torch.tensor([2.7]))
    with pytest.raises(ValueError, match="^spans of no queries"):
        mt.span_block_mask(spans[:, :, :0], schedule, 3)
    with pytest.raises(ValueError, match="^block_size 0: "):
        mt.span_block_mask(spans, schedule, 3, block_size=0)
