"""Patterns of other attentions, and layers of anything, beside matrices of what each reaches."""

import json

import numpy as np
import pytest

import multistep
from multistep import Layers, Schedule, verify_pattern, verify_spans

SIXTEEN = {  # SPEC 12: parameters, pairs left out of 33153, the first, layers until there is none
    "window": ({"window": 16}, 29161, (16, 0), 18),
    "block-diagonal": ({"block": 16}, 30976, (16, 0), None),
    "strided": ({"stride": 16}, 27225, (17, 0), 2),
    "fixed": ({"stride": 16, "summary": 1}, 29040, (16, 0), 2),
    "log-sparse": ({}, 31094, (3, 0), 8),
    "combiner-fixed": ({"block": 16}, 0, None, 1),
    "nsa": ({"block": 16}, 0, None, 1),
    "moba": ({"block": 16}, 0, None, 1),
    "dsa": ({}, 0, None, 1),
}


def causal(reached):
    return np.tril(reached)


def holes(reached, start=0):
    """Pairs left out, and the first."""
    missing = np.argwhere(causal(~reached)[start:, start:]) + start
    return len(missing), tuple(missing[0]) if len(missing) else None


def found(report):
    hole = report.first_excluded
    return report.excluded_pairs, hole and (hole.position, hole.key)


def through(one, layers):
    reached = one
    for _ in range(layers - 1):
        reached = reached | (one.astype(int) @ reached.astype(int) > 0)
    return reached


def strided(length, stride):
    distance = np.arange(length)[:, None] - np.arange(length)
    return causal((distance <= stride) | (distance % stride == 0))


@pytest.mark.parametrize("name", SIXTEEN)
def test_known_answers(name):
    parameters, pairs, first, layers = SIXTEEN[name]
    report = verify_pattern(name, 257, **parameters)
    assert found(report) == (pairs, first) and report.covered == (pairs == 0) == bool(report)
    assert report.layers is None and report.steps is None and report.work is None
    closure = verify_pattern(name, 257, layers="closure", **parameters)
    assert closure.layers == Layers(layers or 1, layers, layers or 1)
    assert closure.covered == (layers is not None)


def test_every_pattern_has_defaults():
    assert set(SIXTEEN) < set(multistep.pattern_names()) and len(multistep.pattern_names()) == 17
    for name in multistep.pattern_names():
        report = verify_pattern(name, 100)
        assert report.queries_checked == 100 and report.schedule.startswith(f"pattern {name}")


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_are_products(start, layers):
    one = strided(90, 5)
    one[:, :start] = one[:start] = False
    report = verify_pattern("strided", 90, start=start, stride=5, layers=layers)
    assert found(report) == holes(through(one, layers), start)
    assert report.layers.number == layers
    if layers == 1:
        assert found(verify_pattern("strided", 90, start=start, stride=5)) == found(report)


def test_layers_of_schedules():
    schedule = Schedule(rule="power", backward=1, forward=1)
    one = np.zeros((200, 200), bool)
    for t in range(200):
        for begin, end in schedule.final_spans(t):
            one[t, begin:end] = True
    assert found(schedule.verify(200)) == found(schedule.verify(200, layers=1)) == holes(one)
    assert schedule.verify(200, layers="closure").layers == Layers(2, 2, 2)
    assert Schedule(3).verify(200, layers=4).layers == Layers(4, 1, 1)
    with pytest.raises(ValueError, match="queries 5: 'all' where layers are followed"):
        schedule.verify(200, 5, layers=2)


def test_layers_of_spans():
    query = np.arange(40)
    begin = np.maximum(query - 2, 0)
    report = verify_spans(query, begin, query + 1, 40, layers=3)
    assert found(report) == holes(causal(np.subtract.outer(query, query) <= 6))
    assert verify_spans(query, begin, query + 1, 40, layers="closure").layers.needed == 20
    with pytest.raises(ValueError, match="spans: none of query 0"):
        verify_spans(query[1:], begin[1:], query[1:] + 1, 40, layers=3)


def test_averages_and_work():
    report = verify_pattern("combiner-fixed", 64, block=8)
    assert report and report.averaged_pairs == 8 * 8 * sum(range(8))
    assert report.pattern_work.attended == sum(t % 8 + 1 + t // 8 for t in range(64))
    moba = verify_pattern("moba", 64, block=8, top_k=2)
    assert moba.averaged_pairs == 0 and moba.pattern_work.scored == 8 * sum(range(8))
    assert moba.pattern_work[2:] == ((224 + moba.pattern_work.attended) / 64, 7, 16)
    assert "averaged     1792 of the pairs are in averages alone" in repr(report)
    assert "averaged" not in repr(moba)
    assert "work         of a query: mean " in repr(moba)
    assert "at most 7 scored and 16 attended" in repr(moba)


def test_reports_as_json():
    plain = json.loads(verify_pattern("strided", 50, stride=4).to_json())
    assert list(plain)[-4:] == ["first_excluded", "work", "averaged_pairs", "seconds"]
    assert list(plain["work"]) == ["scored", "attended", "mean", "most_scored", "most_attended"]
    layered = json.loads(verify_pattern("window", 50, window=8, layers=9).to_json())
    assert layered["layers"] == {"number": 9, "needed": 7, "fixed_point": 7}
    assert "layers" not in json.loads(Schedule(3).verify(50).to_json())


@pytest.mark.parametrize("name, layers, told", [
    ("window", "closure", "18, and not fewer"), ("window", 20, "20; 18 are enough"),
    ("window", 2, "2"), ("dsa", 1, "1, one is enough"), ("dsa", 3, "3; one is enough"),
    ("block-diagonal", "closure", "1; from 1 on, none adds a pair")])
def test_layers_in_words(name, layers, told):
    report = verify_pattern(name, 257, layers=layers, **SIXTEEN[name][0])
    assert f"\nlayers       {told}\n" in repr(report)


@pytest.mark.parametrize("call, message", [
    (lambda: verify_pattern("windows", 9), "pattern windows: window, block-diagonal, "),
    (lambda: verify_pattern("window", 9, block=3), "block 3: pattern window has window"),
    (lambda: verify_pattern("window", 9, top_k=3), "top-k 3: pattern window has window"),
    (lambda: verify_pattern("window", 9, window=0), r"window 0: an integer in \[1, "),
    (lambda: verify_pattern("window", 0), r"length 0: an integer in \[1, "),
    (lambda: verify_pattern("window", 9, start=9), r"start 9: an integer in \[0, 8\]"),
    (lambda: verify_pattern("window", 9, layers="all"), "layers 'all': 'closure' or an integer"),
    (lambda: verify_pattern("window", 9, layers=0), r"layers 0: an integer in \[1, 65536\]"),
    (lambda: verify_pattern("window", 65537, layers=2),
     r"length 65537: an integer in \[1, 65536\] where layers are followed")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_parameter_is_an_integer():
    with pytest.raises(TypeError, match="window 2.5"):
        verify_pattern("window", 9, window=2.5)
