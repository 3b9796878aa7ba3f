"""Plant and probe on kernels with known holes, and the authors' names."""

from fractions import Fraction

import numpy as np
import pytest

import multistep
from multistep import Schedule, probe


def kernel(schedule, **options):
    return lambda q, k, v, routing: multistep.attention(q, k, v, routing, schedule, **options)


def holes(schedule, length):
    return {(t, key) for t in range(length)
            for key in np.flatnonzero(schedule.multiplicity(t) == 0).tolist()}


@pytest.mark.parametrize("schedule", [
    Schedule(), Schedule(steps=3), Schedule.preset("even", 3), Schedule.preset("aligned", 3),
    Schedule.preset("paper"),
    Schedule.preset("released", window_index=3), Schedule(1), Schedule(window_index=4),
], ids=str)
def test_whole_schedules_are_reached(schedule):
    report = probe(kernel(schedule), 90, steps=schedule.steps)
    assert report, report
    assert report.pairs == 90 * 91 // 2 and "REACHED" in repr(report)


@pytest.mark.parametrize("schedule", [
    Schedule(rule="power", backward=1, forward=1),
    Schedule(rule="power", backward="19/10", forward=0, top_k=1),
    Schedule(rule="power", exponent="5/2", backward=3, span_exponent="1/2"),
    Schedule(steps=3, rule=["power", "even"], backward="1/2", forward=0),
    Schedule(steps=3, rule=["aligned", "power"], backward="1/2", forward=0),
], ids=str)
def test_holes_are_found_exactly(schedule):
    report = probe(kernel(schedule), 100, steps=schedule.steps, schedule=schedule)
    assert set(map(tuple, report.unreached.tolist())) == holes(schedule, 100)
    assert bool(report) == (not holes(schedule, 100))


def test_black_boxes():
    short = Schedule(rule="power", backward=1, forward=1)
    report = probe(kernel(short), 100)  # without a word about its schedule
    assert report.unreached[0].tolist() == [7, 0] and not report
    assert "NOT REACHED" in repr(report)
    assert set(map(tuple, report.unreached.tolist())) == holes(short, 100)


def test_a_kernel_that_forgets_the_oldest_key():
    def forgets(q, k, v, routing):
        v = v.copy()
        v[:, :, 0] = 0
        return multistep.attention(q, k, v, routing, Schedule())

    report = probe(forgets, 40)
    assert report.unreached.tolist() == [[t, 0] for t in range(40)]


def test_a_kernel_that_sees_the_future():
    def leaks(q, k, v, routing):
        return multistep.attention(q, k, v, routing, Schedule()) + np.roll(v, -1, axis=2)

    report = probe(leaks, 20)
    assert not report and [18, 19] in report.acausal.tolist() and "NOT CAUSAL" in repr(report)


def test_a_leak_in_one_head_alone_is_seen():
    def leaks(q, k, v, routing):
        output = multistep.attention(q, k, v, routing, Schedule())
        output[:, 0, :-1] += v[:, 0, 1:]
        return output

    report = probe(leaks, 20, num_heads=4, num_kv_heads=2)
    assert not report and [18, 19] in report.acausal.tolist()


def dense(mask):
    """Dense attention of the queries that ``mask`` [L, L] lets through, N = 1 without a search."""
    def candidate(q, k, v, routing):
        logits = np.where(mask, q @ np.swapaxes(k, 2, 3) / 8, -np.inf)
        with np.errstate(invalid="ignore"):  # a query that sees nothing
            weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
            return weights / weights.sum(axis=-1, keepdims=True) @ v
    return candidate


def causal(length, further=0):
    return np.tril(np.ones((length, length), bool), further)


def test_a_causal_mask_that_is_off_by_one_is_seen():
    for pairs in ("auto", [(20, 3)], [(t, t) for t in range(40)]):
        report = probe(dense(causal(40)), 40, pairs, steps=1)
        assert report, f"{pairs}\n{report}"
        report = probe(dense(causal(40, 1)), 40, pairs, steps=1)
        assert not report, pairs
        assert all(key == query + 1 for query, key in report.acausal.tolist())
    assert not len(report.unreached)


@pytest.mark.parametrize("tile", [16, 64, 128])
def test_a_tile_that_is_seen_whole_is_seen(tile):
    """Causality by tiles: whoever sees a tile's first key sees all of it."""
    at = np.arange(300)
    seen = at[None, :] // tile <= at[:, None] // tile
    report = probe(dense(seen), 300, [(130, 5), (70, 2)], steps=1)
    assert not report and len(report.acausal), f"\n{report}"


def test_one_key_that_leaks_is_seen():
    leak = causal(200)
    leak[63, 64] = True
    report = probe(dense(leak), 200, "all", steps=1)
    assert report.acausal.tolist() == [[63, 64]] and not report


def in_one_sequence(sequence, fault):
    """A right kernel, but for one sequence of the batch, which ``fault`` computes."""
    def candidate(q, k, v, routing):
        output, wrong = (one(q, k, v, routing) for one in (dense(causal(20)), fault))
        output[sequence : sequence + 1] = wrong[sequence : sequence + 1]
        return output
    return candidate


@pytest.mark.parametrize("batch", [None, 3, 16])
def test_a_fault_in_one_sequence_of_a_batch_is_seen(batch):
    """One pair that is missed, and one that leaks, in each sequence alone."""
    options = {} if batch is None else {"batch": batch}
    sizes = set()

    def watched(q, k, v, routing):
        sizes.add(len(q))
        return dense(causal(20))(q, k, v, routing)

    assert probe(watched, 20, steps=1, **options)
    size, = sizes
    hole, leak = causal(20), causal(20)
    hole[11, 3], leak[7, 8] = False, True
    for sequence in range(size):
        for pairs in ("all", [(11, 3), (7, 7)]):
            report = probe(in_one_sequence(sequence, dense(hole)), 20, pairs, steps=1, **options)
            assert report.unequal.tolist() == [[11, 3]] == report.unreached.tolist()
            assert "NOT EQUAL" in repr(report) and not report and not len(report.acausal)
            report = probe(in_one_sequence(sequence, dense(leak)), 20, pairs, steps=1, **options)
            assert report.acausal.tolist() == [[7, 8]] and not report
            assert not len(report.unreached)


def test_sequences_that_mix_are_seen():
    def mixes(q, k, v, routing):  # the last sequence's values for all
        return multistep.attention(q, k, np.broadcast_to(v[-1:], v.shape), routing, Schedule())

    assert not probe(mixes, 40)


def test_a_key_that_counts_in_the_denominator_alone_is_seen():
    def leaks(q, k, v, routing):
        weights = np.exp(q @ np.swapaxes(k, 2, 3) / 8)
        total = (weights * causal(40, 1)).sum(-1, keepdims=True)  # one key too many
        return weights * causal(40) / total @ v

    report = probe(leaks, 40, steps=1)
    assert not report and not len(report.unreached)
    assert report.acausal.tolist() == [[t, t + 1] for t in range(39)]


def test_a_query_that_sees_nothing_has_not_seen_the_future():
    report = probe(dense(causal(20, -1)), 20, steps=1)
    assert report.not_finite > 0 and not len(report.acausal)

    report = probe(lambda *given: np.nan_to_num(dense(causal(20, -1))(*given)), 20, steps=1)
    assert report.unreached.tolist() == [[t, t] for t in range(20)] and not len(report.acausal)


@pytest.mark.parametrize("fault", ["kv head", "half of the dimensions", "one dimension"])
def test_wrong_heads_and_missing_dimensions_are_seen(fault):
    def wrong(q, k, v, routing):
        if fault == "kv head":  # h % num_kv_heads
            v = v[:, [0, 1, 2, 0, 1, 2]]
            k = np.repeat(k, 2, axis=1)
        output = multistep.attention(q, k, v, routing, Schedule())
        if fault == "half of the dimensions":
            output[..., 4:] = 0
        if fault == "one dimension":
            output[:, 3, :, 7] = 0
        return output

    report = probe(wrong, 20, num_heads=6, num_kv_heads=3, head_dim=8)
    assert len(report.unreached) == 210 and not len(report.acausal)


@pytest.mark.parametrize("schedule", [
    Schedule(3, ["power", "even"], exponent=[3, 2], backward=1, forward=2,
             span_exponent=["1/3", "1/2"], top_k=1),
    Schedule(3, "power", backward=1, top_k=1), Schedule(4, top_k=1),
], ids=str)
def test_paths_of_more_levels_are_led_exactly(schedule):
    for length in (8, 40):
        report = probe(kernel(schedule), length, schedule=schedule)
        assert set(map(tuple, report.unreached.tolist())) == holes(schedule, length)


def test_probe_refuses():
    s = Schedule(6)
    for options, message in (({"head_dim": 5, "schedule": s}, "head_dim 5: an integer >= 6"),
                             ({"steps": 0}, "steps 0"), ({"steps": 3, "schedule": s}, "steps 3"),
                             ({"num_heads": 3, "num_kv_heads": 2}, "num_kv_heads 2: divides"),
                             ({"dtype": int}, "dtype int64"), ({"schedule": "even"}, "schedule")):
        with pytest.raises((ValueError, TypeError), match=message):
            probe(kernel(s), 10, **options)
    with pytest.raises(MemoryError, match="probe of 4194304 keys"):
        probe(kernel(s), 2**22, [(9, 0)], head_dim=2**16)


def test_a_batch_that_memory_has_no_room_for_is_lowered(monkeypatch):
    monkeypatch.setattr("multistep.judging.plants.memory_bytes", lambda: 2**20)
    sizes = []

    def watched(q, k, v, routing):
        sizes.append(len(q))
        return multistep.attention(q, k, v, routing, Schedule())

    assert probe(watched, 20, num_heads=2, head_dim=16, batch=16) and max(sizes) < 16


@pytest.mark.parametrize("at_rest, planted", [(np.nan, np.nan), (0, np.inf)])
def test_what_is_not_finite_is_not_reached(at_rest, planted):
    report = probe(lambda q, k, v, routing: np.full_like(q, planted if k.any() else at_rest), 10)
    assert len(report.unreached) == 55 and report.not_finite > 0 and not report


def test_pairs_heads_storage_types_and_the_last_query():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    s = Schedule(steps=3)
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        report = probe(kernel(s), 600, pairs=[(599, 0), (599, 300), (7, 7)], steps=3, dtype=dtype,
                       num_heads=4, num_kv_heads=2, head_dim=8)
        assert report and report.pairs == 3, report
    report = probe(kernel(s, query_offset=299), 300, steps=3, last_only=True)
    assert report and report.pairs == 64
    assert probe(kernel(Schedule()), 1000, pairs=5)
    for bad in ([(1, 2)], [(10**6, 0)], [[1]], "none", 0, np.zeros((2, 2))):
        with pytest.raises((ValueError, TypeError)):
            probe(kernel(s), 100, pairs=bad, steps=3)
    with pytest.raises(ValueError, match="head_dim 3"):
        probe(kernel(s), 100, head_dim=3)
    with pytest.raises(ValueError, match="candidate's output of shape"):
        probe(lambda q, k, v, routing: q[..., :2], 10)


def test_authors_names():
    q1, q2 = np.zeros((1, 2, 5, 4)), np.ones((1, 2, 5, 4))
    found = multistep.from_authors(Q1=q1, Q2=q2, cache_position=np.arange(7, 12), sw_index=65,
                                   num_spans=3, backward_factor=3.0, forward_factor=1.0,
                                   span_power=0.55, search_power=0.55,
                                   qstart=np.array([[4, -1]]), qend=np.array([[9, -1]]))
    assert found["schedule"] == Schedule.preset("released")
    assert found["q"] is q2 and found["routing_queries"][0] is q1
    assert (found["query_offset"], found["top_k"]) == (7, 3)
    assert found["spans"].tolist() == [[[4, 10], [0, 0]]]
    back = multistep.to_authors(found["schedule"], spans=found["spans"], q=q2,
                                routing_queries=[q1], query_offset=7, queries=5)
    assert back["qstart"].tolist() == [[4, -1]] and back["qend"].tolist() == [[9, -1]]
    assert back["search_power"] == Fraction(11, 20) == back["span_power"]
    assert back["cache_position"].tolist() == [7, 8, 9, 10, 11]
    again = multistep.from_authors(**{name: back[name] for name in (
        "sw_index", "num_spans", "backward_factor", "forward_factor", "span_power",
        "inv_search_power_int")})
    assert again["schedule"] == found["schedule"]
    assert multistep.from_authors(inv_search_power_int=2)["schedule"] == Schedule.preset("paper")
    for bad in ({"qstart": q1}, {"cache_position": np.array([3, 5])}, {"search_power": 0},
                {"num_spans": 0}):
        with pytest.raises(ValueError):
            multistep.from_authors(**bad)
    assert multistep.from_authors(qstart=[1], qend=[2])["spans"].tolist() == [[1, 3]]
    for bad in ([1.0], [True], np.array([1.5])):
        with pytest.raises(TypeError, match="qstart of dtype"):
            multistep.from_authors(qstart=bad, qend=[2])
    with pytest.raises(TypeError, match="colour"):
        multistep.from_authors(colour=1)
    with pytest.raises(ValueError, match="power rule"):
        multistep.to_authors(Schedule(3))
