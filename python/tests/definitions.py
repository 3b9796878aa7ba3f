"""SPEC 2, 3, 4 and 5 once more, in NumPy and Python's whole numbers: slow, short, and written
without a look at the library."""

from fractions import Fraction
from math import ceil

import numpy as np


def root(n, b):
    """The largest m with m^b <= n."""
    m = int(round(n ** (1 / b))) if n < 2**50 else 1 << (n.bit_length() // b + 1)
    while m**b > n:
        m -= 1
    while (m + 1) ** b <= n:
        m += 1
    return m


def floor_power(i, e):
    return root(i**e.numerator, e.denominator)


def ceil_scaled(c, n, q):
    """The smallest B with (B v)^b >= u^b n^a."""
    u, v, a, b = c.numerator, c.denominator, q.numerator, q.denominator
    B = root(u**b * n**a, b) // v
    while (B * v) ** b < u**b * n**a:
        B += 1
    return B


def ceil_root(n, M):
    r = root(n, M)
    return r if r**M == n else r + 1


def part_length(n, M):
    """Two to the smallest c >= 0 with M (2c + 1) >= 2 (M - 1) log2 n."""
    c = 0
    while 1 << (M * (2 * c + 1)) < n ** (2 * M - 2):
        c += 1
    return 1 << c


def counts_keys(s):
    """Whether w is a number of keys."""
    return s.rules[0] in ("even", "aligned")


def window_length(s):
    if s.steps == 1:
        return 2**62
    w = s.window_index
    if w == 0 or counts_keys(s):
        return w
    return floor_power(w + 1, s.exponents[0]) - 1


def cut(s, m, begin, end, nominal=None):
    """[(anchor, begin, end)] of level m in the segment [begin, end), newest first, which counts for
    ``nominal`` keys (its own by default)."""
    n, M, rule, out = end - begin, s.steps - m + 1, s.rules[m - 1], []
    if n <= 0:
        return out
    W = window_length(s)
    if rule == "aligned":
        part = part_length(nominal or n, M)
        borders = [b for b in range(0, end, part) if begin < b]
        parts = list(zip([begin, *borders], [*borders, end]))
        return [(e - 1, b, e) for b, e in reversed(parts)]
    if rule == "even":
        stride = ceil(Fraction(n, ceil_root(n, M)))

        def P(i):
            return (i - 1) * stride + 1
    else:
        def P(i):
            return floor_power(i, s.exponents[m - 1])
    skip = s.window_index if m == 1 and not counts_keys(s) else 0
    i = skip + 1
    while P(i) <= n:
        a = end - P(i)
        if rule == "power":
            B = ceil_scaled(s.backward[m - 1], n, s.span_exponents[m - 1])
            F = ceil_scaled(s.forward[m - 1], n, s.span_exponents[m - 1])
            cap = end - 1 - W if m == 1 else end - 1
            out.append((a, max(begin, a - B), min(a + F, cap) + 1))
        else:
            out.append((a, max(begin, end - P(i + 1) + 1), a + 1))
        i += 1
    return out


def window(s, t, start):
    return (max(start, t - window_length(s) + 1), t + 1)


def searched(s, t, start):
    W = window_length(s)
    if s.steps == 1 or W >= t + 1 - start:
        return (start, start)
    return (start, t + 1 - W) if counts_keys(s) else (start, t + 1)


def nominal_below(s, m, nominal):
    """What level m + 1 takes its segments to have: None where it is their own keys."""
    return part_length(nominal, s.steps - m + 1) if s.rules[m - 1] == "aligned" else None


def paths(s, t, start=0):
    """[(anchors, begin, end)] of every path of query t."""
    def below(m, begin, end, nominal, anchors):
        for a, b, e in cut(s, m, begin, end, nominal):
            if m + 1 == s.steps:
                yield (*anchors, a), b, e
            elif e > b:
                within = nominal_below(s, m, nominal or end - begin)
                yield from below(m + 1, b, e, within, (*anchors, a))

    return [] if s.steps == 1 else list(below(1, *searched(s, t, start), None, ()))


def softmax(x):
    w = np.exp(x - np.max(x))
    return w / w.sum()


def search(s, t, start, routing, keys, scale):
    """The top_k best (score, anchors, begin, end): routing [N - 1, d], keys [L, d]."""
    kept = [(0.0, (), *searched(s, t, start), None)]
    for m in range(1, s.steps):
        found = [(score + scale * float(routing[m - 1] @ keys[a]), (*anchors, a), b, e,
                  nominal_below(s, m, nominal or end - begin), rank)
                 for rank, (score, anchors, begin, end, nominal) in enumerate(kept)
                 for a, b, e in cut(s, m, begin, end, nominal) if e > b or m + 1 == s.steps]
        found.sort(key=lambda c: (-c[0], c[1][-1], c[5]))
        kept = [c[:5] for c in found[: s.top_k]]
    return [c[:4] for c in kept] if s.steps > 1 else []


def attention(q, k, v, routing, s, softmax_scale=None, search_scale=1.0, query_offset=0, start=0,
              search_keys=None):
    """Output, and the kept (score, anchors, begin, end) of each row, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    routing = [np.asarray(x, np.float64) for x in routing]
    keys = k if search_keys is None else np.asarray(search_keys, np.float64)
    B, H, L, d = q.shape
    scale = d**-0.5 if softmax_scale is None else softmax_scale
    first = np.broadcast_to(start, B)
    out, kept = np.zeros(q.shape), {}
    for b, h, i in np.ndindex(B, H, L):
        g, t, lo = h // (H // k.shape[1]), query_offset + i, int(first[b])
        rows = [level[b, h, i] for level in routing]
        paths = search(s, t, lo, np.array(rows), keys[b, g], search_scale)
        kept[b, h, i] = paths
        wb, we = window(s, t, lo)
        parts = []
        for begin, end in [(p[2], p[3]) for p in paths] or [(0, 0)]:
            see = sorted({*range(begin, end), *range(wb, we)})
            if see:
                parts.append(softmax(scale * (k[b, g, see] @ q[b, h, i])) @ v[b, g, see])
            else:
                parts.append(np.zeros(d))
        gates = softmax(np.array([p[0] for p in paths])) if paths else [1.0]
        out[b, h, i] = sum(w * part for w, part in zip(gates, parts))
    return out, kept


def accumulate(x, a, b, c, initial=None, start=0, offset=0):
    B, H, L, d = x.shape
    out = np.zeros((B, H, L, d))
    state = np.zeros((B, H, d, b.shape[3])) if initial is None else np.array(initial, np.float64)
    first = np.broadcast_to(start, B)
    for i in range(L):
        for batch in range(B):
            if offset + i < first[batch]:
                continue
            state[batch] = a[batch, :, i, None, None] * state[batch] + \
                x[batch, :, i, :, None] * b[batch, :, i, None, :]
            out[batch, :, i] = np.einsum("hds,hs->hd", state[batch], c[batch, :, i])
    return out, state
