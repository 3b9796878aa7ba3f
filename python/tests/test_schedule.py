"""Schedules, their paths and the checker against SPEC 10 and the definitions."""

import copy
import gc
import json
import pickle
import weakref
from decimal import Decimal
from fractions import Fraction

import definitions
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import schedules

import multistep
from multistep import Schedule, verify_spans


def test_known_answers():
    s = Schedule()
    assert s.anchors(19).tolist() == [19, 16, 11, 4]
    assert s.spans(19).tolist() == [[17, 20], [12, 17], [5, 12], [0, 5]]
    power = Schedule(rule="power", backward=2)
    assert power.spans(19).tolist() == [[10, 20], [7, 17], [2, 12], [0, 5]]
    three = Schedule(steps=3)
    assert three.anchors(29).tolist() == [29, 22, 3]
    assert three.anchors(29, inside=[22]).tolist() == [22, 18, 14, 10, 6]
    assert three.spans(29, inside=(22,)).tolist() == [[19, 23], [15, 19], [11, 15], [7, 11], [4, 7]]
    tight = Schedule(steps=3, rule="tight")
    assert tight.spans(29, inside=(22,)).tolist() == [[20, 23], [15, 20], [8, 15], [4, 8]]


def test_known_answers_of_aligned_parts():
    three = Schedule.preset("aligned", 3)
    assert three.spans(29).tolist() == [[24, 30], [16, 24], [8, 16], [0, 8]]
    assert three.anchors(29).tolist() == [29, 23, 15, 7]
    assert three.spans(29, inside=[29]).tolist() == [[28, 30], [26, 28], [24, 26]]
    assert three.spans(19).tolist() == [[16, 20], [8, 16], [0, 8]]
    two = Schedule(rule="aligned", window_index=3)
    assert two.spans(29, start=5).tolist() == [[24, 27], [20, 24], [16, 20], [12, 16], [8, 12],
                                               [5, 8]]
    assert two.window(29, start=5) == (27, 30)
    for steps, mebi, ten in ((2, (1024,), (4096,)), (3, (8192, 64), (65536, 256)),
                             (4, (32768, 1024, 32), (131072, 2048, 32))):
        s = Schedule.preset("aligned", steps)
        assert s.part_lengths(2**20) == mebi and s.part_lengths(10_000_000) == ten
    assert two.part_lengths(32) == (4,) and two.part_lengths(33) == (8,)
    mixed = Schedule(5, ["aligned", "aligned", "tight", "aligned"])
    assert mixed.part_lengths(1000) == (256, 64, None, None)
    assert Schedule(1).part_lengths(9) == ()
    with pytest.raises(ValueError, match="length 0"):
        two.part_lengths(0)


@pytest.mark.parametrize("steps, default, tight, even, aligned", [
    (2, (64, 127), (64, 127), (64, 64), (64, 64)),
    (3, (229, 27), (215, 51), (256, 16), (256, 16)),
    (4, (466, 12), (363, 37), (512, 8), (512, 8)),
    (5, (821, 7), (511, 27), (900, 5), (1024, 4))])
def test_final_spans_at_4095(steps, default, tight, even, aligned):
    for s, (count, longest) in ((Schedule(steps), default), (Schedule(steps, "tight"), tight),
                                (Schedule.preset("even", steps), even),
                                (Schedule.preset("aligned", steps), aligned)):
        spans = s.final_spans(4095)
        assert len(spans) == count
        assert (spans[:, 1] - spans[:, 0]).max() == longest


def test_released():
    s = Schedule.preset("released")
    assert s == Schedule(steps=2, rule="power", exponent="20/11", backward=3, forward=1,
                         span_exponent="11/20", window_index=65, top_k=3)
    begin, end = s.window(10_000)
    assert end - begin == 2032
    stripes = 1_000_000 - s.anchors(10**6 - 1)
    assert [stripes[i - 66] for i in (360, 410, 425)] == [44444, 56300, 60102]
    assert len(s.anchors(2**20 - 1)) == 2048 - 65
    assert s.verify(20_000)


def test_work():
    for s, least, mean, most, ratio in ((Schedule(), 1025, 2389.3, 3071, 1.167),
                                        (Schedule(3), 105, 363.9, 450, 1.194),
                                        (Schedule.preset("even", 3), 284, 304.8, 305, 1.000)):
        work = s.work(2**20)
        assert (work.min, round(work.mean, 1), work.max) == (least, mean, most)
        assert round(work.ratio, 3) == ratio
    assert Schedule(window_index=40).work(100).mean is None


def test_holes():
    report = Schedule(rule="power", backward=1, forward=1).verify(2000)
    assert not report and not report.covered
    assert (report.excluded_queries, report.excluded_pairs) == (922, 13434)
    hole = report.first_excluded
    assert (hole.position, hole.key, hole.gap) == (7, 0, (0, 1))
    assert hole.closing_backward == Fraction(10607, 10000)
    assert Schedule(rule="power", backward="1.0607", forward=1).path(7, 0)
    first = Schedule(rule="power", backward="19/10", forward=0).verify(1000).first_excluded
    assert first.position == 898
    sharp = Schedule(rule="power", exponent="5/2", backward=3, span_exponent="1/2")
    assert sharp.verify(200).first_excluded.position == 83
    assert "NOT COVERED  922 of 2000" in repr(report) and "closed by" in repr(report)


def test_report_has_the_fields_of_the_json():
    report = Schedule(steps=3).verify(10_000, queries=50, progress=False)
    found = json.loads(report.to_json())
    assert list(found) == ["schedule", "length", "start", "steps", "covered", "queries_checked",
                           "excluded_queries", "excluded_pairs", "first_excluded", "work",
                           "seconds"]
    assert list(found["work"]) == ["min", "mean", "max", "lower_bound", "ratio"]
    assert found["queries_checked"] == 50 and report.covered and report
    assert "COVERED      50 queries" in repr(report)
    with pytest.raises(AttributeError):
        report.covered = False


def test_great_lengths():
    assert Schedule(steps=3).verify(10**12, queries=100)
    assert Schedule(steps=3).path(10**12, 12345)[0].spans[-1][0] <= 12345
    assert Schedule.preset("released").verify(10**6)


@settings(deadline=None, max_examples=60)
@given(schedules(min_steps=2), st.data())
def test_paths_and_spans(s, data):
    t = data.draw(st.integers(0, 50))
    start = data.draw(st.integers(0, t))
    want = [p for p in definitions.paths(s, t, start) if p[2] > p[1]]
    wb, we = definitions.window(s, t, start)
    assert s.window(t, start=start) == (wb, we) or we <= wb
    spans = s.final_spans(t, start=start, window=False)
    assert sorted(map(tuple, spans.tolist())) == sorted((b, e) for _, b, e in want)
    level = definitions.cut(s, 1, *definitions.searched(s, t, start))
    assert s.anchors(t, start=start).tolist() == [a for a, _, _ in level]
    key = data.draw(st.integers(start, t))
    through = s.path(t, key, start=start)
    reached = [p for p in want if p[1] <= key < p[2]]
    assert sorted(p.anchors for p in through if p.anchors) == sorted(p[0] for p in reached)
    assert any(not p.anchors for p in through) == (wb <= key < we)
    counts = s.multiplicity(t, start=start)
    assert counts.shape == (t + 1 - start,)
    assert counts[key - start] == len(through)


@settings(deadline=None, max_examples=40)
@given(schedules(), st.integers(1, 60), st.data())
def test_verify(s, length, data):
    start = data.draw(st.integers(0, length - 1))
    report = s.verify(length, start=start, progress=False)
    first, pairs, queries = None, 0, 0
    for t in range(start, length):
        seen = np.zeros(length, bool)
        for begin, end in [definitions.window(s, t, start),
                           *((b, e) for _, b, e in definitions.paths(s, t, start))]:
            seen[max(begin, 0):max(end, 0)] = True
        missing = np.flatnonzero(~seen[start:t + 1]) + start
        pairs += len(missing)
        queries += len(missing) > 0
        if len(missing) and first is None:
            first = (t, missing[0])
    assert report.covered == (pairs == 0)
    assert (report.excluded_pairs, report.excluded_queries) == (pairs, queries)
    assert report.queries_checked == length - start
    hole = report.first_excluded
    assert (hole and (hole.position, hole.key)) == first
    assert s.verify(length, queries=10**6, start=start).excluded_pairs == pairs


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.data())
def test_verify_spans(length, data):
    rows = data.draw(st.lists(st.integers(0, length - 1).flatmap(
        lambda t: st.tuples(st.just(t), st.integers(0, t))), min_size=1, max_size=30))
    query = np.array([t for t, _ in rows], np.int64)
    begin = np.array([b for _, b in rows], np.int64)
    end = np.array([data.draw(st.integers(b + 1, t + 1)) for t, b in rows], np.int64)
    report = verify_spans(query, begin, end, length)
    excluded = 0
    for t in set(query.tolist()):
        seen = {key for q, b, e in zip(query, begin, end) if q == t for key in range(b, e)}
        excluded += t + 1 - len(seen)
    assert report.excluded_pairs == excluded
    assert report.queries_checked == len(set(query.tolist()))


def test_more_pairs_than_64_bits_hold():
    half = 2**47
    newest = half + np.arange(2**17)  # each query without 2^47 keys: 2^64 pairs
    begin = np.full(2**17, half)
    report = verify_spans(newest, begin, newest + 1, 2 * half)
    assert not report and not report.covered and report.first_excluded.gap == (0, half)
    assert (report.excluded_pairs, report.excluded_queries) == (2**64, 2**17)
    assert report.to_dict()["excluded_pairs"] == str(2**64)
    assert f"{2**64} pairs in all" in repr(report)
    begin[0] -= 1
    report = verify_spans(newest[:2**16], begin[:2**16], newest[:2**16] + 1, 2 * half)
    assert report.to_dict()["excluded_pairs"] == report.excluded_pairs == 2**63 - 1
    alone = Schedule(rule="power", exponent=64, backward=0, forward=0)
    assert alone.verify(2 * half, queries=100_000).excluded_pairs == 14058552688311026805


def test_the_lower_bound_is_of_what_it_bounds():
    even = Schedule.preset("even", 3, window_index=60_000).work(100_000)  # the window's keys apart
    assert even.lower_bound == pytest.approx(3 * 40_000 ** (1 / 3)) and even.ratio >= 1
    stripes = Schedule(window_index=63).work(10_000)
    assert stripes.lower_bound == pytest.approx(2 * (10_000 - 4095) ** 0.5) and stripes.ratio >= 1
    assert Schedule.preset("released").work(2032) == (None,) * 5
    failing = Schedule(rule="power", backward="19/10").verify(899)
    assert failing.work.ratio is None and failing.work.lower_bound == pytest.approx(2 * 899**0.5)
    assert "of a query that reaches every key, as the last one does not" in repr(failing)
    assert "mean work is 1." in repr(Schedule(3).verify(899))


def test_the_schedules_own_spans_verify():
    s = Schedule(steps=3, window_index=2)
    rows = [(t, b, e) for t in range(200) for b, e in s.final_spans(t).tolist()]
    report = verify_spans(*np.array(rows).T, 200)
    assert report.covered and report.queries_checked == 200 and report.steps is None
    fewer = [row for row in rows if row[0] != 77 or row[1] > 3]
    report = verify_spans(*np.array(fewer).T, 200)
    assert not report and report.first_excluded.position == 77


def test_rationals():
    same = [Schedule(exponent=x) for x in ("20/11", Fraction(20, 11), "40/22")]
    assert len(set(same)) == 1
    assert Schedule(span_exponent="0.55") == Schedule(span_exponent=Decimal("0.55"))
    assert Schedule(exponent=2.0) == Schedule(exponent=2) == Schedule(exponent=np.int64(2))
    assert Schedule(backward=2.5) == Schedule(backward="5/2")  # a float that is what it says
    with pytest.raises(ValueError, match=r"0\.5500000000000000444; write '0\.55' or "
                                         r"Fraction\(11, 20\)"):
        Schedule(span_exponent=0.55)
    for name, bad in (("exponent", 20 / 11), ("backward", float("nan")), ("backward", -1),
                      ("forward", "-1/2"), ("exponent", "1/2"), ("exponent", "x"),
                      ("exponent", "1/0"), ("exponent", ""), ("span_exponent", "3/2"),
                      ("backward", "1e3"), ("backward", 10**12), ("forward", Decimal("inf")),
                      ("backward", "1" * 100)):
        with pytest.raises(ValueError, match=name.replace("_", "[-_]")):
            Schedule(**{name: bad})
    for bad in (True, None.__class__, [[]], {}):
        with pytest.raises(TypeError):
            Schedule(steps=3, backward=[bad, 1])


def test_arguments_that_are_refused():
    for arguments in ({"steps": 0}, {"steps": 65}, {"rule": "loose"}, {"top_k": 0},
                      {"top_k": 65}, {"window_index": -1}, {"rule": ["tight"] * 3},
                      {"steps": 3, "backward": [1, 2, 3]}, {"steps": 3, "rule": ["tight"] * 4}):
        with pytest.raises(ValueError) as error:
            Schedule(**arguments)
        assert "\n" not in str(error.value)
    s = Schedule()
    for call in (lambda: s.anchors(-1), lambda: s.anchors(2**48), lambda: s.path(5, 6),
                 lambda: s.verify(0), lambda: s.verify(2**48 + 1), lambda: s.verify(5, "some"),
                 lambda: s.verify(5, 0), lambda: s.verify(5, start=5), lambda: s.window(3, start=4),
                 lambda: s.anchors(9, inside=(7,)), lambda: s.anchors(9, inside=(9, 9)),
                 lambda: Schedule.preset("nine"), lambda: Schedule.preset("paper", 3),
                 lambda: Schedule(1).anchors(3), lambda: Schedule(exponent=1).verify(2**40),
                 lambda: Schedule(steps=5).final_spans(2**40)):
        with pytest.raises(ValueError) as error:
            call()
        assert "\n" not in str(error.value)
    for call in (lambda: s.verify(2.5), lambda: s.anchors("3"), lambda: s.verify(None),
                 lambda: Schedule(steps=True), lambda: Schedule.preset("nstep", banana=1)):
        with pytest.raises(TypeError):
            call()


def test_one_value_for_all_levels_or_one_each():
    s = Schedule(4, exponent="5/2", backward=7, span_exponent=["1/2", "1/3", "1/4"])
    assert s.exponents == (Fraction(5, 2), 3, 2)  # of level 1; the others keep theirs
    assert s.backward == (7, 7, 7) and s.forward == (0, 0, 0)
    assert s.span_exponents == (Fraction(1, 2), Fraction(1, 3), Fraction(1, 4))
    assert s.rules == ("tight", "even", "even") and Schedule(3, "power").rules == ("power",) * 2
    assert Schedule(3, exponent=[2, 3]).exponents == (2, 3)


def test_immutable_hashable_and_copied():
    s = Schedule.preset("released")
    with pytest.raises(AttributeError):
        s.top_k = 5
    for other in (pickle.loads(pickle.dumps(s)), copy.deepcopy(s), eval(repr(s)),
                  Schedule.from_text(s.text), s.with_top_k(3)):
        assert other == s and hash(other) == hash(s)
    assert s.with_top_k(4) != s and s.with_top_k(4).top_k == 4
    assert Schedule.from_text(Schedule(1).text) == Schedule(1) == eval(repr(Schedule(1)))


def test_plot():
    figures = pytest.importorskip("matplotlib.figure")
    ax = Schedule(rule="power", backward=1, forward=1).plot(30)
    assert ax.get_xlabel() == "key" and ax.get_ylabel() == "query"
    image = ax.images[0].get_array()
    assert image[7, 0] == 0 and image[7, 1] == 1 and np.isnan(np.ma.filled(image, np.nan)[0, 1])
    given = figures.Figure().add_subplot()
    assert Schedule().plot(10, ax=given) is given
    with pytest.raises(ValueError, match="length 5000"):
        Schedule().plot(5000)


def test_plots_embed_true_type_fonts(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    settings = dict(matplotlib.rcParams)
    figure = Schedule().plot(10).figure
    for kind in ("pdf", "ps", "png", "svg"):
        figure.savefig(tmp_path / f"plot.{kind}")
    pdf = (tmp_path / "plot.pdf").read_bytes()
    assert b"/Type3" not in pdf and pdf.count(b"/FontFile2 ") > 0
    assert b"/FontType 42" in (tmp_path / "plot.ps").read_bytes()
    assert dict(matplotlib.rcParams) == settings


def test_plots_are_not_kept_by_pyplot():
    """Which would hold them for good, and warn of the 21st."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figure = weakref.ref(Schedule().plot(4).figure)
    assert pyplot.get_fignums() == before
    gc.collect()
    assert figure() is None


def test_memory():
    model = multistep.memory(10**7, num_heads=2, num_kv_heads=2, head_dim=128, layers=6)
    assert model.bytes_per_token == 6 * 1024  # the authors' model
    assert (model.keys, model.values, model.search_keys) == (30_720_000_000, 30_720_000_000, 0)
    assert (model.scratch is None) == (model.scratch_reason is not None)
    own = multistep.memory(10, Schedule(3), batch=3, dtype=np.float64, search_keys=True)
    assert own.keys == own.values == own.search_keys == 10 * 3 * 2 * 128 * 8
    assert own.bytes_per_token == 3 * 2 * 128 * 8 and own.scratch is None
    assert multistep.memory(2**48, batch=2**16, layers=2**16).keys == 2**48 * 2**32 * 512
    with pytest.raises(AttributeError):
        own.keys = 1
    for bad, message in (({"num_kv_heads": 3}, "num_kv_heads 3"), ({"queries": 11}, "queries 11"),
                         ({"layers": 0}, "layers 0"), ({"head_dim": 1.5}, "head_dim 1.5"),
                         ({"dtype": "int8"}, "dtype int8"), ({"schedule": "nstep"}, "schedule")):
        with pytest.raises((ValueError, TypeError), match=message):
            multistep.memory(10, **bad)


def test_small_refusals():
    with pytest.raises(ValueError, match="0 spans"):
        verify_spans([], [], [], 10)
    s = Schedule(3)
    for t in (-1, 1.5, 2**48):
        for ask in (s.window, s.final_spans):
            with pytest.raises((ValueError, TypeError), match=f"query {t}"):
                ask(t)
    with pytest.raises(ValueError, match="inside"):
        s.anchors(29, inside=[22, 22])
    with pytest.raises(TypeError, match="rule 5"):
        Schedule(rule=5)
    with pytest.raises(TypeError, match="top_k 2.5"):
        s.with_top_k(2.5)
