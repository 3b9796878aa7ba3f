#!/usr/bin/env python3
"""Judges kernels that are broken on purpose, and shows what the reports say."""

import numpy as np

import multistep

schedule = multistep.Schedule(steps=3, window_index=2)
rng = np.random.default_rng(0)
q, routing_1, routing_2 = rng.standard_normal((3, 1, 4, 512, 64), np.float32)
k, v = rng.standard_normal((2, 1, 2, 512, 64), np.float32)
problem = (q, k, v, [routing_1, routing_2])


def right(q, k, v, routing_queries):
    """A kernel in float32: the oracle stands in for it."""
    return multistep.attend(q, k, v, routing_queries, schedule, dtype=np.float32)._asdict()


def one_key_short(q, k, v, routing_queries):
    """Loses the newest key of every span, a slip of one in a loop's bound."""
    found = right(q, k, v, routing_queries)
    found["spans"] = found["spans"] - (found["spans"] > 0) * np.array([0, 1])
    return found


def no_window(q, k, v, routing_queries):
    """Chooses the right spans, and forgets the window."""
    found = right(q, k, v, routing_queries)
    without = multistep.Schedule(steps=3)
    found["output"] = multistep.attention(q, k, v, routing_queries, without)
    return found


for kernel in (right, one_key_short, no_window):
    report = multistep.compare(kernel, *problem, schedule)
    print(f"{kernel.__name__}: {kernel.__doc__}\n\n{report}\n")
    assert bool(report) == (kernel is right)

# A black box, by what it does alone: spans that do not reach back far enough.
short = multistep.Schedule(rule="power", backward=1, forward=1)
report = multistep.probe(lambda q, k, v, r: multistep.attention(q, k, v, r, short), 200)
print(report)
assert len(report.unreached) == short.verify(200).excluded_pairs
