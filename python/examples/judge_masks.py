#!/usr/bin/env python3
"""Which keys do other attentions exclude? Masks by their definitions, in NumPy, and the checker."""

import numpy as np

from multistep import verify_pattern, verify_spans

LENGTH, BLOCK = 257, 16
query, key = np.arange(LENGTH)[:, None], np.arange(LENGTH)
block, own = np.arange(-(-LENGTH // BLOCK)), query // BLOCK
past = key <= query


def strided(stride):
    """Sparse Transformer: the last ``stride`` keys, and every ``stride``-th. No content decides."""
    return past & ((query - key <= stride) | ((query - key) % stride == 0))


def best_blocks(scores, top_k):
    """The keys of each query's ``top_k`` blocks of best scores [LENGTH, blocks]."""
    scores = np.where(block > own, -np.inf, scores)
    best = np.argsort(-scores, axis=1)[:, :top_k]
    return past & (key // BLOCK == best[:, :, None]).any(axis=1)


def moba(scores, top_k=3):
    """MoBA: the gate's best blocks, the query's own always among them."""
    return best_blocks(np.where(block == own, np.inf, scores), top_k)


def nsa(scores, top_k=4, window=16):
    """NSA: the best blocks, the first and the last two always among them, and a window. What it has
    only compressed is left out here."""
    always = (block == 0) | (block == own) | (block == own - 1)
    return best_blocks(np.where(always, np.inf, scores), top_k) | past & (query - key < window)


def any_choice(attention):
    """All that content can choose: whatever block the scores like best."""
    return np.any([attention(np.tile(block == liked, (LENGTH, 1))) for liked in block], axis=0)


def judge(name, mask):
    """The runs of a mask's rows are spans."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8))
    rows, begin = np.nonzero(edges == 1)
    report = verify_spans(rows, begin, np.nonzero(edges == -1)[1], LENGTH)
    print(f"{name:18}{'COVERED' if report else 'NOT COVERED':13}{report.excluded_pairs:6} pairs out")
    return report


known = {"strided": {"stride": 16}, "moba": {"block": BLOCK}, "nsa": {"block": BLOCK, "top_k": 4}}
masks = {"strided": strided(16), "moba": any_choice(moba), "nsa": any_choice(nsa)}
for name, mask in masks.items():
    theirs, ours = judge(name, mask), verify_pattern(name, LENGTH, **known[name])
    assert theirs.excluded_pairs == ours.excluded_pairs
    assert theirs.first_excluded == ours.first_excluded

# What one choice leaves out the checker finds as well, and what a layer more brings back.
drawn = np.random.default_rng(0).standard_normal((LENGTH, len(block)))
for attention in (moba, nsa):
    assert not judge(f"{attention.__name__}, once", attention(drawn))
print(verify_pattern("strided", LENGTH, stride=16, layers="closure"))
