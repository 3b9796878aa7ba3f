"""Search keys by part: means, sums, MoBA's blocks and a tree of means."""

import numpy as np
import pytest

import multistep
from multistep import Schedule, part_pooling


def pooled(keys, part, **options):
    """[batch, heads, length, head_dim], by the recurrence."""
    return multistep.accumulate(keys, *part_pooling(part, *keys.shape[:3], **options),
                                start=options.get("start", 0),
                                offset=options.get("offset", 0))[0]


@pytest.mark.parametrize("options, of", [
    ({}, lambda keys: keys.mean(axis=0)),
    ({"pooling": "sum"}, lambda keys: keys.sum(axis=0)),
    ({"pooling": "sum", "decay": 0.75},
     lambda keys: (0.75 ** np.arange(len(keys))[::-1, None] * keys).sum(axis=0)),
    ({"decay": 0.5}, lambda keys: np.average(keys, 0, 0.5 ** np.arange(len(keys))[::-1])),
    ({"decay": 0.0}, lambda keys: keys[-1])])
def test_each_key_carries_its_part_up_to_it(options, of):
    keys = np.random.default_rng(1).standard_normal((2, 3, 45, 5))
    start = np.array([0, 11])
    got = pooled(keys, 8, start=start, **options)
    for b, t in np.ndindex(2, 45):
        begin = max(t - t % 8, start[b])
        for h in range(3):
            want = of(keys[b, h, begin:t + 1]) if t >= start[b] else np.zeros(5)
            np.testing.assert_allclose(got[b, h, t], want, rtol=1e-12, atol=1e-12)


def test_chunks_go_on():
    keys = np.random.default_rng(2).standard_normal((1, 2, 40, 4))
    whole, state = multistep.accumulate(keys, *part_pooling(8, 1, 2, 40))
    for cut in (1, 8, 13, 39):
        first, kept = multistep.accumulate(keys[:, :, :cut], *part_pooling(8, 1, 2, cut))
        rest, last = multistep.accumulate(keys[:, :, cut:],
                                          *part_pooling(8, 1, 2, 40 - cut, offset=cut),
                                          initial=kept, offset=cut)
        np.testing.assert_allclose(np.concatenate([first, rest], axis=2), whole, rtol=1e-12)
        np.testing.assert_allclose(last, state, rtol=1e-12)


def test_means_of_whole_parts_are_exact_in_half_precision():
    found = part_pooling(16, 1, 1, 64, dtype=np.float16)
    assert found.a.dtype == found.c.dtype == np.float16
    assert set(found.a.ravel().tolist()) == {0, 1} and (found.b == 1).all()
    assert (found.c[0, 0, 15::16, 0].astype(float) == 1 / 16).all()


def test_arguments_that_are_refused():
    for arguments in ({"part": 0}, {"pooling": "median"}, {"decay": -0.1}, {"decay": 1.5},
                      {"decay": float("nan")}, {"batch": 0}, {"offset": -1}, {"start": [0, 0]}):
        with pytest.raises(ValueError) as error:
            part_pooling(**{"part": 4, "batch": 1, "num_heads": 1, "length": 8, **arguments})
        assert "\n" not in str(error.value)


def test_two_steps_with_means_are_moba():
    """A query scores the mean of each block of S keys and takes the best k; of its own block those
    up to itself."""
    rng = np.random.default_rng(3)
    keys, values = rng.standard_normal((2, 1, 1, 128, 8))
    queries = rng.standard_normal((1, 1, 128, 8))
    s = Schedule(rule="aligned", top_k=3)
    for size, low, high in ((4, 9, 32), (8, 33, 128)):  # contexts with this size of block
        assert s.part_lengths(low) == s.part_lengths(high) == (size,)
        found = multistep.attend(queries, keys, values, [queries], s,
                                 search_keys=pooled(keys, size))
        for t in range(low - 1, high):
            blocks = [(b, min(b + size, t + 1)) for b in range(0, t + 1, size)]
            scores = [queries[0, 0, t] @ keys[0, 0, b:e].mean(axis=0) for b, e in blocks]
            best = np.argsort(scores)[::-1][:3]
            assert [blocks[i] for i in best] == list(map(tuple, found.spans[0, 0, t].tolist()))
            np.testing.assert_allclose(found.scores[0, 0, t], np.sort(scores)[::-1][:3], rtol=1e-9)


def test_moba_with_its_own_block_forced():
    """The own block is the window, and the best k - 1 are chosen of the whole ones before it."""
    rng = np.random.default_rng(4)
    keys, values = rng.standard_normal((2, 1, 1, 128, 8))
    queries = rng.standard_normal((1, 1, 128, 8))
    size = 8
    means = pooled(keys, size)
    for t in (47, 48, 63, 100, 126, 127):
        s = Schedule(rule="aligned", window_index=t % size + 1, top_k=2)
        past = t - t % size
        assert s.part_lengths(past) == (size,)
        row = queries[:, :, t:t + 1]
        found = multistep.attend(row, keys, values, [row], s, query_offset=t, search_keys=means)
        scores = [row[0, 0, 0] @ keys[0, 0, b:b + size].mean(axis=0) for b in range(0, past, size)]
        best = np.argsort(scores)[::-1][:2]
        assert s.window(t) == (past, t + 1)
        assert found.spans[0, 0, 0].tolist() == [[size * i, size * (i + 1)] for i in best]


def test_three_steps_with_means_are_a_tree():
    """Blocks by their means, then the small blocks inside the chosen ones by theirs: a beam of k
    over sums of scores. The means of either level have their own half of head_dim."""
    rng = np.random.default_rng(5)
    keys, first, second = rng.standard_normal((3, 1, 1, 300, 8))
    s = Schedule.preset("aligned", 3, top_k=2)
    outer, inner = s.part_lengths(200)
    assert s.part_lengths(300) == (outer, inner) == (32, 4)
    none = np.zeros_like(keys)
    search_keys = np.concatenate([pooled(keys, outer), pooled(keys, inner)], axis=-1)
    wide = np.concatenate([keys, none], axis=-1)
    found = multistep.attend(wide, wide, wide, [np.concatenate([first, none], axis=-1),
                                                np.concatenate([none, second], axis=-1)], s,
                             search_keys=search_keys)

    def mean(span):
        return keys[0, 0, span[0]:span[1]].mean(axis=0)

    def blocks(begin, end, size):
        return [(b, min(b + size, end)) for b in range(begin, end, size)]

    for t in range(199, 300):
        kept = sorted(((first[0, 0, t] @ mean(span), span) for span in blocks(0, t + 1, outer)),
                      reverse=True)[:2]
        kept = sorted(((score + second[0, 0, t] @ mean(span), span) for score, parent in kept
                       for span in blocks(*parent, inner)), reverse=True)[:2]
        assert [list(span) for _, span in kept] == found.spans[0, 0, t].tolist()
        np.testing.assert_allclose(found.scores[0, 0, t], [score for score, _ in kept], rtol=1e-9)
