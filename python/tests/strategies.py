"""Random schedules and problems for hypothesis."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from multistep import Schedule


@st.composite
def schedules(draw, max_steps=4, min_steps=1):
    steps = draw(st.integers(min_steps, max_steps))
    levels = steps - 1

    def column(values):
        return [draw(values) for _ in range(levels)]

    small = st.fractions(Fraction(1), Fraction(4), max_denominator=12)
    return Schedule(steps, column(st.sampled_from(["tight", "power", "even", "aligned"])), column(small),
                    column(st.fractions(0, 4, max_denominator=10)),
                    column(st.fractions(0, 2, max_denominator=10)),
                    column(st.fractions(0, 1, max_denominator=12)),
                    draw(st.integers(0, 5)), draw(st.integers(1, 4)))


@st.composite
def problems(draw, max_length=40):
    """A schedule, the arrays of attention and its options."""
    schedule = draw(schedules())
    batch, kv_heads, group = (draw(st.integers(1, 2)) for _ in range(3))
    queries = draw(st.integers(1, 12))
    offset = draw(st.integers(0, max_length))
    keys = offset + queries + draw(st.integers(0, 3))
    d = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))

    def array(*shape):
        return rng.standard_normal(shape).astype(dtype)

    q = array(batch, kv_heads * group, queries, d)
    k, v = array(batch, kv_heads, keys, d), array(batch, kv_heads, keys, d)
    routing = [array(*q.shape) for _ in range(schedule.steps - 1)]
    options = {"query_offset": offset, "search_scale": draw(st.sampled_from([1.0, 0.5])),
               "softmax_scale": draw(st.sampled_from([None, 0.3])),
               "start": draw(st.sampled_from([None, "some"]))}
    options["start"] = 0 if options["start"] is None else rng.integers(0, keys, batch)
    options["search_keys"] = array(*k.shape) if draw(st.booleans()) else None
    return schedule, (q, k, v, routing), options
