#!/usr/bin/env python3
"""Is a schedule of one's own complete? Where not, which key is lost, and what would get it back?"""

from multistep import Schedule, verify_spans

LENGTH = 20_000

# Stripes at i^2 keys back, spans that reach 3/2 n^(1/2) back and n^(1/2) forward.
mine = Schedule(rule="power", exponent=2, backward="3/2", forward=1, span_exponent="1/2")
report = mine.verify(LENGTH)
print(report, "\n")
hole = report.first_excluded
assert hole is not None and not mine.path(hole.position, hole.key)

# The report says what closes that gap; the whole length may want more.
factor = hole.closing_backward
while not (better := Schedule(rule="power", backward=factor, forward=1)).verify(LENGTH):
    factor = better.verify(LENGTH).first_excluded.closing_backward
print(f"with backward = {factor}:\n{better.verify(LENGTH)}\n")
print("query", hole.position, "reaches key", hole.key, "by", better.path(hole.position, hole.key))

# Anybody's kernel: the spans that its queries can choose from, as arrays.
rows = [(t, begin, end) for t in range(300) for begin, end in mine.final_spans(t).tolist()]
query, begin, end = zip(*rows)
print("\n" + repr(verify_spans(query, begin, end, 300)))
