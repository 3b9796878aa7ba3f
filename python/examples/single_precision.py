#!/usr/bin/env python3
"""Audits stripes computed as kernels are tempted to: exp(log(i) * exponent) in single precision."""

import numpy as np

from multistep import Schedule

LENGTH = 10_000_000

schedule = Schedule(rule="power", exponent="20/11", backward=3, forward=1, span_exponent="11/20")
exact = LENGTH - schedule.anchors(LENGTH - 1)  # stripe i lies floor(i^(20/11)) keys back
i = np.arange(1, len(exact) + 1, dtype=np.float32)
single = np.floor(np.exp(np.log(i) * np.float32(20 / 11))).astype(np.int64)

for limit in (10**6, LENGTH):
    within = exact <= limit
    off = np.abs(single - exact)[within]
    print(f"stripes below {limit:>8}: {within.sum()}, wrong {np.count_nonzero(off)} "
          f"({np.mean(off > 0):.0%}), by up to {off.max()} positions")
worst = int(np.argmax(np.abs(single - exact)))
print(f"worst: stripe {worst + 1} is {exact[worst]}, single precision says {single[worst]}")
assert np.any(single != exact)

# A float as the exponent would be such a slip, and is refused.
try:
    Schedule(exponent=20 / 11)
except ValueError as error:
    print("ValueError:", error)
