"""Packed sequences, one behind the other in one call, against each of them alone."""

import numpy as np
import pytest

import multistep
from multistep import Schedule

from test_attention import arrays

LENGTHS = [7, 0, 1, 20, 2]
BOUNDS = np.cumsum([0, *LENGTHS])
ROWS = BOUNDS[-1] + 3  # some behind the last
SCHEDULES = [Schedule(steps=3, window_index=1), Schedule.preset("released"), Schedule(steps=1)]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=str)


def parts():
    return [slice(begin, end) for begin, end in zip(BOUNDS, BOUNDS[1:]) if begin < end]


def alone(given, rows):
    *qkv, routing = given
    return [x[:, :, rows] for x in qkv] + [[level[:, :, rows] for level in routing]]


@each_schedule
def test_attend(schedule):
    given = arrays(schedule, queries=ROWS)
    search_keys = arrays(schedule, queries=ROWS, seed=5)[1]
    found = multistep.attend(*given, schedule, search_keys=search_keys, cu_seqlens=BOUNDS)
    for rows in parts():
        want = multistep.attend(*alone(given, rows), schedule,
                                search_keys=search_keys[:, :, rows])
        used = want.scores > -np.inf
        spans = want.spans + used[..., None] * rows.start
        anchors = want.anchors + used[..., None] * rows.start
        for got, expected in zip(found, want._replace(spans=spans, anchors=anchors)):
            assert np.array_equal(got[:, :, rows], expected)
    behind = [array[:, :, BOUNDS[-1]:] for array in found]
    for array, value in zip(behind, (0, -np.inf, -np.inf, 0, -np.inf, -1)):
        assert (array == value).all()
    output = multistep.attention(*given, schedule, search_keys=search_keys,
                                 cu_seqlens=BOUNDS.tolist(), dtype="float32")
    assert np.array_equal(output, found.output.astype(np.float32))


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


@pytest.mark.parametrize("options, error", [
    ({"start": 1}, "^start or length: None beside cu_seqlens$"),
    ({"query_offset": 2}, "^query_offset 2: 0 beside cu_seqlens$"),
])
def test_what_goes_not_with_them(options, error):
    schedule = Schedule()
    given = arrays(schedule, queries=10, keys=12)
    with pytest.raises(ValueError, match=error):
        multistep.attention(*given, schedule, cu_seqlens=[0, 4], **options)


def test_one_batch_and_one_sequence_to_compare():
    schedule = Schedule()
    with pytest.raises(ValueError, match="^batch 2: 1 beside cu_seqlens$"):
        multistep.attention(*arrays(schedule, batch=2), schedule, cu_seqlens=[0, 4])
    with pytest.raises(ValueError, match="^start or length: None beside cu_seqlens$"):
        multistep.decode(*arrays(schedule), schedule, length=30, cu_seqlens=[0, 4])
    given = arrays(schedule)
    with pytest.raises(ValueError, match="^cu_seqlens: here one sequence at a time$"):
        multistep.compare(multistep.attend(*given, schedule), *given, schedule, cu_seqlens=[0, 4])
