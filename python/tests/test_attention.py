"""The oracle through the binding against the definitions."""

import definitions
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

import multistep
from multistep import Schedule

ml_dtypes = pytest.importorskip("ml_dtypes")


def arrays(schedule, batch=1, heads=2, kv_heads=1, queries=30, keys=None, d=8, seed=0):
    rng = np.random.default_rng(seed)
    keys = queries if keys is None else keys
    q = rng.standard_normal((batch, heads, queries, d))
    k, v = rng.standard_normal((2, batch, kv_heads, keys, d))
    return q, k, v, [rng.standard_normal(q.shape) for _ in range(schedule.steps - 1)]


@settings(deadline=None, max_examples=80)
@given(problems())
def test_attention(problem):
    schedule, (q, k, v, routing), options = problem
    want, kept = definitions.attention(q, k, v, routing, schedule, **options)
    found = multistep.attend(q, k, v, routing, schedule, **options)
    assert found.output.dtype == np.float64
    assert np.array_equal(found.output, multistep.attention(q, k, v, routing, schedule, **options))
    np.testing.assert_allclose(found.output, want, rtol=1e-9, atol=1e-12)
    scale = options["softmax_scale"] or q.shape[3] ** -0.5
    group = q.shape[1] // k.shape[1]
    for (b, h, i), paths in kept.items():
        t = options["query_offset"] + i
        lo = int(np.broadcast_to(options["start"], len(q))[b])
        wb, we = definitions.window(schedule, t, lo)

        def log_sum_exp(first, past):
            logits = scale * (k[b, h // group][first:past].astype(float) @ q[b, h, i].astype(float))
            return np.logaddexp.reduce(logits) if past > first else -np.inf

        np.testing.assert_allclose(found.window_lse[b, h, i], log_sum_exp(wb, we), rtol=1e-9,
                                   atol=1e-12)
        for slot in range(schedule.top_k):
            if slot < len(paths):
                score, chain, begin, end = paths[slot]
                assert found.anchors[b, h, i, slot].tolist() == list(chain)
                if end > begin:
                    assert found.spans[b, h, i, slot].tolist() == [begin, end]
                np.testing.assert_allclose(found.scores[b, h, i, slot], score, rtol=1e-9,
                                           atol=1e-12)
            else:
                begin = end = 0
                assert found.spans[b, h, i, slot].tolist() == [0, 0]
                assert found.scores[b, h, i, slot] == -np.inf
                assert (found.anchors[b, h, i, slot] == -1).all()
            outside = end if we <= wb else min(end, wb)
            np.testing.assert_allclose(found.lse[b, h, i, slot], log_sum_exp(begin, outside),
                                       rtol=1e-9, atol=1e-12)


def test_chunks_and_decoding_give_the_rows_of_the_whole():
    s = Schedule(steps=3, window_index=1)
    q, k, v, routing = arrays(s, batch=2, queries=50)
    whole = multistep.attention(q, k, v, routing, s)
    part = multistep.attention(q[:, :, 20:35], k, v, [routing[0][:, :, 20:35],
                                                      routing[1][:, :, 20:35]], s, query_offset=20)
    assert np.array_equal(part, whole[:, :, 20:35])
    k, v = k.copy(), v.copy()
    k[0, :, 31:] = v[0, :, 31:] = np.nan  # behind the cache's length
    k[1, :, 44:] = v[1, :, 44:] = np.nan
    newest = [np.stack([x[0, :, 30:31], x[1, :, 43:44]]) for x in (q, *routing)]
    found = multistep.decode(newest[0], k, v, newest[1:], s, length=[31, 44])
    assert np.array_equal(found, np.stack([whole[0, :, 30:31], whole[1, :, 43:44]]))
    one = multistep.decode(newest[0], np.nan_to_num(k), np.nan_to_num(v), newest[1:], s, length=31)
    assert np.array_equal(one[0], whole[0, :, 30:31])


@settings(deadline=None, max_examples=80)
@given(problems(), st.data())
def test_decode(problem, data):
    """Sequences of any length, none and fewer than there are queries among them."""
    schedule, (q, k, v, routing), options = problem
    del options["query_offset"]
    batch, queries, keys = q.shape[0], q.shape[2], k.shape[2]
    lengths = [data.draw(st.integers(0, keys)) for _ in range(batch)]
    start = np.broadcast_to(options.pop("start"), batch)
    search_keys = options.pop("search_keys")
    found = multistep.attend(q, k, v, routing, schedule, length=lengths, start=start,
                             search_keys=search_keys, **options)
    assert np.array_equal(found.output, multistep.decode(
        q, k, v, routing, schedule, length=lengths, start=start, search_keys=search_keys,
        **options))
    for b in range(batch):
        of = slice(b, b + 1)
        first = lengths[b] - queries
        want, _ = definitions.attention(
            q[of], k[of], v[of], [level[of] for level in routing], schedule, query_offset=first,
            start=start[b], search_keys=None if search_keys is None else search_keys[of], **options)
        np.testing.assert_allclose(found.output[of], want, rtol=1e-9, atol=1e-12)
        without_keys = max(int(start[b]) - first, 0)
        assert (found.output[b, :, :without_keys] == 0).all()
        assert (found.lse[b, :, :without_keys] == -np.inf).all()
        assert (found.window_lse[b, :, :without_keys] == -np.inf).all()
        assert (found.anchors[b, :, :without_keys] == -1).all()
        assert (found.spans[b, :, :without_keys] == 0).all()
        assert (found.scores[b, :, :without_keys] == -np.inf).all()


def test_no_keys_at_all():
    s = Schedule(steps=3)
    q, k, v, routing = arrays(s, queries=2)
    for length in (0, [0], np.array([0])):
        found = multistep.decode(q, k[:, :, :0], v[:, :, :0], routing, s, length=length)
        assert (found == 0).all() and found.shape == q.shape
    nan = np.full_like(k, np.nan)
    assert (multistep.decode(q, nan, nan, routing, s, length=0) == 0).all()
    assert (multistep.attention(q, nan, nan, routing, s, start=2) == 0).all()


def test_lengths_far_apart():
    s = Schedule()
    q, k, v, routing = arrays(s, batch=2, queries=1, keys=3000)
    found = multistep.decode(q, k, v, routing, s, length=[1, 3000])
    for b, length in enumerate((1, 3000)):
        one = multistep.decode(*(x[b : b + 1] for x in (q, k, v)), [routing[0][b : b + 1]], s,
                               length=length)
        assert np.array_equal(found[b], one[0])


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_attention_to_parts_of_the_keys_merges_to_attention_to_all(kind):
    """Dense attention of the last query, which sees all of every part."""
    s = Schedule(1)
    q, k, v, _ = arrays(s, batch=2, heads=4, kv_heads=2, queries=5, keys=40)
    if kind == "torch":
        torch = pytest.importorskip("torch")
        q, k, v = map(torch.from_numpy, (q, k, v))
    whole = multistep.attend(q, k, v, [], s, query_offset=35)
    cuts = (0, 7, 7, 30, 35)  # the second has no keys
    parts = [multistep.attend(q, k[:, :, a:b], v[:, :, a:b], [], s, length=np.array([b - a] * 2))
             for a, b in zip(cuts, cuts[1:])]
    rows = [(part.output[:, :, 4], part.window_lse[:, :, 4]) for part in parts]
    last = multistep.attend(q, k[:, :, 35:], v[:, :, 35:], [], s)
    rows.append((last.output[:, :, 4], last.window_lse[:, :, 4]))
    rows[1][0][...] = np.nan
    stack = np.stack if kind == "numpy" else torch.stack
    output, lse = multistep.merge(*map(stack, zip(*rows)))
    np.testing.assert_allclose(output, whole.output[:, :, 4], rtol=1e-12)
    np.testing.assert_allclose(lse, whole.window_lse[:, :, 4], rtol=1e-12)
    nothing = multistep.merge(*(stack([x[1], x[1]]) for x in zip(*rows)))
    assert (nothing[0] == 0).all() and (nothing[1] == -np.inf).all()


def maker(kind):
    return np.asarray if kind == "numpy" else pytest.importorskip("torch").from_numpy


INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("outputs, lses, output, lse", [
    ([[INF, 2], [3, 4]], [-1e5, 0], [3, 4], 0),  # weight 0: not looked at
    ([[NAN, 2], [3, 4]], [0, 1e5], [3, 4], 1e5),
    ([[1, 2], [NAN, INF]], [0, -INF], [1, 2], 0),
    ([[INF, 2], [3, 4]], [0, 0], [INF, 3], np.log(2)),
    ([[NAN, 2], [3, 4]], [-50, 0], [NAN, 4], 0),
    ([[1, 2], [NAN, 4]], [INF, 1], [1, 2], INF),  # equal ones share, infinite or not
    ([[1, 2], [3, 4]], [INF, INF], [2, 3], INF),
    ([[1, 2], [3, 4]], [NAN, -INF], [NAN, NAN], NAN),
    ([[NAN, 2], [3, INF]], [-INF, -INF], [0, 0], -INF),
    ([[3e38, 2], [3e38, 4]], [0, 0], [3e38, 3], np.log(2)),  # no sum overflows
    ([[INF, 2], [0, 3], [3, 4]], [0, 400, 800], [3, 4], 800),  # nor counts on the way alone
], ids=str)
def test_merge_of_what_is_not_finite(kind, outputs, lses, output, lse):
    merged = multistep.merge(*(maker(kind)(np.array(x, np.float32)) for x in (outputs, lses)))
    np.testing.assert_allclose(merged[0], output, rtol=1e-6)
    np.testing.assert_allclose(merged[1], lse, rtol=1e-6)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_merge_refuses(kind):
    def merge(outputs, lses, *dtypes):
        multistep.merge(*(maker(kind)(np.zeros(shape, dtype))
                          for shape, dtype in zip((outputs, lses), dtypes or (float, float))))

    for outputs, lses in (((3,), (3,)), ((0, 3, 4), (0, 3)), ((2, 3, 0), (2, 3))):
        with pytest.raises(ValueError, match=r"outputs of shape .*: \[parts, .., head_dim\], 1 of"):
            merge(outputs, lses)
    with pytest.raises(ValueError, match=r"lses of shape \(3,\): \(2,\) here"):
        merge((2, 3), (3,))
    for name, *dtypes in (("outputs", int, float), ("lses", float, int)):
        with pytest.raises(TypeError, match=f"{name} of dtype int64: float64, float32, float16 or"):
            merge((2, 3), (2,), *dtypes)


def test_storage_types_are_widened_exactly():
    s = Schedule()
    q, k, v, routing = arrays(s)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        small = [x.astype(dtype) for x in (q, k, v, *routing)]
        found = multistep.attention(*small[:3], small[3:], s)
        want = multistep.attention(*(x.astype(np.float32) for x in small[:3]),
                                   [small[3].astype(np.float32)], s)
        assert found.dtype == np.float64 and np.array_equal(found, want)
        stored = multistep.attention(*small[:3], small[3:], s, dtype=dtype)
        assert stored.dtype == dtype and np.array_equal(stored, want.astype(dtype))


def test_top_k_and_dense():
    s = Schedule(steps=3)
    q, k, v, routing = arrays(s)
    assert np.array_equal(multistep.attention(q, k, v, routing, s, top_k=4),
                          multistep.attention(q, k, v, routing, s.with_top_k(4)))
    dense = multistep.attention(q, k, v, [], Schedule(1))
    mask = np.tril(np.ones((30, 30), bool))
    logits = np.where(mask, q @ np.swapaxes(k, 2, 3) * 8**-0.5, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    want = weights / weights.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(dense, want, rtol=1e-12)


def test_routing_queries_in_every_form():
    for s in (Schedule(), Schedule(steps=3)):
        q, k, v, routing = arrays(s)
        want = multistep.attention(q, k, v, routing, s)
        assert np.array_equal(multistep.attention(q, k, v, tuple(routing), s), want)
        assert np.array_equal(multistep.attention(q, k, v, np.stack(routing), s), want)
    q, k, v, routing = arrays(Schedule())
    assert np.array_equal(multistep.attention(q, k, v, routing[0], Schedule()),
                          multistep.attention(q, k, v, routing, Schedule()))


def test_infinite_logits_and_scores_count_as_their_limit():
    q, k, v, routing = arrays(Schedule())
    q[..., 0], routing[0][..., 0] = 1, 1
    k[0, 0, [3, 20], 0] = INF
    dense = multistep.attend(q, k, v, [], Schedule(1))
    assert np.array_equal(dense.output[0, :, 3:20], np.broadcast_to(v[0, 0, 3], (2, 17, 8)))
    np.testing.assert_allclose(dense.output[0, :, 20:], np.broadcast_to(
        (v[0, 0, 3] + v[0, 0, 20]) / 2, (2, 10, 8)), rtol=1e-12)
    assert (dense.window_lse[..., 3:] == INF).all() and np.isfinite(dense.window_lse[..., :3]).all()
    found = multistep.attend(q, k, v, routing, Schedule(rule="even", top_k=1))
    seen = (found.scores[..., 0] == INF)
    assert seen.any() and np.isin(found.anchors[..., 0, 0][seen], [3, 20]).all()
    assert np.isfinite(found.output).all()
    k[0, 0, 3, 1] = -INF
    assert np.isnan(multistep.attention(q, k, v, [], Schedule(1))[0, :, 3:]).any()


def test_a_nan_stays_in_its_row():
    s = Schedule(steps=2, window_index=1)
    q, k, v, routing = arrays(s)
    clean = multistep.attention(q, k, v, routing, s)
    q[0, 0, 7] = np.nan
    found = multistep.attention(q, k, v, routing, s)
    assert np.isnan(found[0, 0, 7]).all()
    found[0, 0, 7] = clean[0, 0, 7]
    assert np.array_equal(found, clean)


@settings(deadline=None, max_examples=30)
@given(problems())
def test_accumulate(problem):
    _, (q, k, _, _), options = problem
    rng = np.random.default_rng(0)
    x, b, c = q, rng.standard_normal((2, *q.shape[:3], 3)), None
    b, c = (y.astype(q.dtype) for y in b)
    a = rng.random(q.shape[:3]).astype(q.dtype)
    first = rng.standard_normal((*q.shape[:2], q.shape[3], 3))
    want, state = definitions.accumulate(x.astype(float), a.astype(float), b.astype(float),
                                         c.astype(float), first, options["start"],
                                         options["query_offset"])
    found, last = multistep.accumulate(x, a, b, c, initial=first, start=options["start"],
                                       offset=options["query_offset"])
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(last, state, rtol=1e-9, atol=1e-12)
    cut = x.shape[2] // 2
    r1, middle = multistep.accumulate(x[:, :, :cut], a[:, :, :cut], b[:, :, :cut], c[:, :, :cut],
                                      initial=first, start=options["start"],
                                      offset=options["query_offset"])
    r2, end = multistep.accumulate(x[:, :, cut:], a[:, :, cut:], b[:, :, cut:], c[:, :, cut:],
                                   initial=middle, start=options["start"],
                                   offset=options["query_offset"] + cut)
    assert np.array_equal(np.concatenate([r1, r2], 2), found) and np.array_equal(end, last)
