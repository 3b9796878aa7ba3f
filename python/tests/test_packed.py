"""Packed sequences, one behind the other in one call, against each of them alone."""

import numpy as np
import pytest

import multistep
from multistep import Schedule

from test_attention import arrays

BEHIND = 3  # rows behind the last
LENGTHS = [7, 0, 1, 20, 2, 4]
OF_KEYS = [30, 3, 1, 8, 0, 25]  # fewer than queries, none, and such that nobody looks at
SCHEDULES = [Schedule(steps=3, window_index=1), Schedule.preset("released"), Schedule(steps=1)]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def bounds_of(lengths):
    return np.cumsum([0, *lengths])


def packed(lengths, of_keys):
    """The bounds, and of every sequence its queries that have keys, and its keys."""
    options = {"cu_seqlens": bounds_of(lengths)}
    if of_keys is not None:
        options["cu_seqlens_k"] = bounds_of(of_keys)
    parts = [(slice(end - min(rows, keys), end), slice(last - keys, last)) for rows, keys, end, last
             in zip(lengths, of_keys or lengths, bounds_of(lengths)[1:],
                    bounds_of(of_keys or lengths)[1:])]
    return options, [(rows, keys) for rows, keys in parts if rows.start < rows.stop]


def alone(schedule, given, search_keys, rows, keys):
    q, k, v, routing = given
    cut = [q[:, :, rows], k[:, :, keys], v[:, :, keys], [level[:, :, rows] for level in routing]]
    return multistep.attend(*cut, schedule, search_keys=search_keys[:, :, keys],
                            query_offset=cut[1].shape[2] - cut[0].shape[2])


@each_schedule
@pytest.mark.parametrize("of_keys", [None, OF_KEYS, [0] * 6], ids=["alike", "own", "none"])
def test_attend(schedule, of_keys):
    sizes = {"queries": sum(LENGTHS) + BEHIND, "keys": sum(of_keys or LENGTHS) + BEHIND}
    given = arrays(schedule, **sizes)
    search_keys = arrays(schedule, **sizes, seed=5)[1]
    for array in (*given[1:3], search_keys):
        array[:, :, sum(of_keys or LENGTHS):] = np.nan
    options, parts = packed(LENGTHS, of_keys)
    found = multistep.attend(*given, schedule, search_keys=search_keys, **options)
    without_keys = np.ones(sizes["queries"], bool)
    for rows, keys in parts:
        without_keys[rows] = False
        want = alone(schedule, given, search_keys, rows, keys)
        used = want.scores > -np.inf
        spans = want.spans + used[..., None] * keys.start
        anchors = want.anchors + used[..., None] * keys.start
        for got, expected in zip(found, want._replace(spans=spans, anchors=anchors)):
            assert np.array_equal(got[:, :, rows], expected)
    assert without_keys.sum() >= BEHIND
    for array, value in zip(found, (0, -np.inf, -np.inf, 0, -np.inf, -1)):
        assert (array[:, :, without_keys] == value).all()
    output = multistep.attention(
        *given, schedule, search_keys=search_keys, dtype="float32",
        **{name: bounds.tolist() for name, bounds in options.items()})
    assert np.array_equal(output, found.output.astype(np.float32))


def test_what_a_sequence_holds_reaches_no_other():
    schedule = Schedule(steps=3, window_index=1)
    given = arrays(schedule, queries=sum(LENGTHS), keys=sum(OF_KEYS))
    options, parts = packed(LENGTHS, OF_KEYS)
    want = multistep.attention(*given, schedule, **options)
    rows, keys = parts[2]
    for array in given[1:3]:
        array[:, :, keys] = np.nan
    found = multistep.attention(*given, schedule, **options)
    assert np.isnan(found[:, :, rows]).all()
    found[:, :, rows] = want[:, :, rows]
    assert np.array_equal(found, want)


@pytest.mark.parametrize("bounds, error", [
    ([0], r"^cu_seqlens of shape \(1,\): \[sequences \+ 1\]"),
    ([[0, 4]], r"^cu_seqlens of shape \(1, 2\): "),
    ([0, 6, 4], "^cu_seqlens 4 after 6: they do not decrease$"),
    ([1, 6], "^cu_seqlens from 1 to 6: from 0 to at most 10"),
    ([0, 11], "^cu_seqlens from 0 to 11: from 0 to at most 10"),
])
def test_bounds_are_refused(bounds, error):
    schedule = Schedule()
    with pytest.raises(ValueError, match=error):
        multistep.attention(*arrays(schedule, queries=10), schedule, cu_seqlens=bounds)


@pytest.mark.parametrize("bounds, error", [
    ([0, 4], r"^cu_seqlens_k of shape \(2,\): \(3,\) like cu_seqlens$"),
    ([0, 6, 4], "^cu_seqlens_k 4 after 6: they do not decrease$"),
    ([1, 6, 7], "^cu_seqlens_k from 1 to 7: from 0 to at most 8, the rows of k$"),
    ([0, 6, 9], "^cu_seqlens_k from 0 to 9: from 0 to at most 8, the rows of k$"),
])
def test_bounds_of_keys_are_refused(bounds, error):
    schedule = Schedule()
    given = arrays(schedule, queries=10, keys=8)
    assert multistep.attention(*given, schedule, cu_seqlens=[0, 3, 10], cu_seqlens_k=[0, 0, 8]).any()
    with pytest.raises(ValueError, match=error):
        multistep.attention(*given, schedule, cu_seqlens=[0, 3, 10], cu_seqlens_k=bounds)
    with pytest.raises(ValueError, match="^query_offset 0: an integer in "):
        multistep.attention(*given, schedule, cu_seqlens=[0, 3, 8])


@pytest.mark.parametrize("options, error", [
    ({"start": 1}, "^start or length: None beside cu_seqlens$"),
    ({"query_offset": 2}, "^query_offset 2: 0 beside cu_seqlens$"),
    ({"cu_seqlens": None, "cu_seqlens_k": [0, 4]},
     "^cu_seqlens None: of the queries beside cu_seqlens_k$"),
])
def test_what_goes_not_with_them(options, error):
    schedule = Schedule()
    given = arrays(schedule, queries=10, keys=12)
    with pytest.raises(ValueError, match=error):
        multistep.attention(*given, schedule, **{"cu_seqlens": [0, 4], **options})


def test_one_batch_and_one_sequence_to_compare():
    schedule = Schedule()
    with pytest.raises(ValueError, match="^batch 2: 1 beside cu_seqlens$"):
        multistep.attention(*arrays(schedule, batch=2), schedule, cu_seqlens=[0, 4])
    with pytest.raises(ValueError, match="^start or length: None beside cu_seqlens$"):
        multistep.decode(*arrays(schedule), schedule, length=30, cu_seqlens=[0, 4])
    given = arrays(schedule)
    with pytest.raises(ValueError, match="^cu_seqlens: here one sequence at a time$"):
        multistep.compare(multistep.attend(*given, schedule), *given, schedule, cu_seqlens=[0, 4])
