"""Streams, masked products, chunks, derivatives, and what is said of the papers' decays."""

import numpy as np
import pytest

import multistep
from multistep.recurrences import (log_linear, log_linear_dense, second_order,
                                   second_order_dense)

FORMS = ("symmetric", "asymmetric")
LENGTHS = (0, 1, 2, 3, 8, 13)


def problem(length, seed=1):
    """q, k, v, weights of 7 levels, and decays, 0 and 1 among them."""
    rng = np.random.default_rng(seed)
    q, k = rng.standard_normal((2, 2, 3, length, 4))
    decays = rng.integers(0, 9, (2, 2, 3, length)) / 8
    return (q, k, rng.standard_normal((2, 3, length, 5)), rng.standard_normal((2, 3, length, 7)),
            *decays)


def close(got, want):
    assert got.shape == want.shape
    assert np.abs(got - want).max(initial=0) <= 1e-12 * np.abs(want).max(initial=1)


def weight(decays, far, near):
    """[batch, heads]: the product over (far, near]."""
    return decays[:, :, far + 1:near + 1].prod(-1)


def scores(q, t, k, s):
    return (q[:, :, t] * k[:, :, s]).sum(-1)


def over_pairs(q, k, v, form, inner, outer):
    """Numerators and denominators, a pair of keys at a time."""
    output, below = np.zeros(v.shape), np.zeros((*v.shape[:3], 1))
    for t in range(v.shape[2]):
        for j in range(t + 1):
            for i in range(j + 1):
                w = (weight(outer, j, t) * weight(inner, i, j) * scores(q, j, k, i)
                     * scores(q, t, k, i if form == "symmetric" else j))[..., None]
                output[:, :, t] += w * v[:, :, j if form == "symmetric" else i]
                below[:, :, t] += w
    return output, below


def over_keys(q, k, v, weights, a):
    output = np.zeros(v.shape)
    for t in range(v.shape[2]):
        for s in range(t + 1):
            w = weights[:, :, t, (t ^ s).bit_length()] * weight(a, s, t) * scores(q, t, k, s)
            output[:, :, t] += w[..., None] * v[:, :, s]
    return output


def fenwick(q, k, v, weights, a):
    """The recurrence of log-linear attention: buckets fold at the lowest set bit."""
    output = np.zeros(v.shape)
    states = np.zeros((7, *v.shape[:2], k.shape[3], v.shape[3]))
    for t in range(v.shape[2]):
        if t:
            fold = (t & -t).bit_length()
            states[fold] = states[:fold].sum(0)
            states[:fold] = 0
        states *= a[:, :, t, None, None]
        states[0] = k[:, :, t, :, None] * v[:, :, t, None, :]
        output[:, :, t] = np.einsum("bhl,lbhij,bhi->bhj", weights[:, :, t], states, q[:, :, t])
    return output


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", LENGTHS)
def test_second_order_is_the_sum_over_pairs(form, length):
    q, k, v, _, inner, outer = problem(length)
    ones = np.ones_like(inner)
    for decays in ({"inner": inner, "outer": outer}, {"outer": outer}, {"inner": inner}, {}):
        want, below = over_pairs(q, k, v, form, decays.get("inner", ones),
                                 decays.get("outer", ones))
        close(second_order(q, k, v, form=form, **decays)[0], want)
        close(second_order_dense(q, k, v, form=form, **decays), want)
    want, below = over_pairs(abs(q), abs(k), v, form, inner, outer)
    for epsilon in (0.0, 0.5):
        options = {"form": form, "inner": inner, "outer": outer, "epsilon": epsilon}
        close(second_order(abs(q), abs(k), v, **options)[0], want / (below + epsilon))
        close(second_order_dense(abs(q), abs(k), v, **options), want / (below + epsilon))


@pytest.mark.parametrize("length", (*LENGTHS, 33))
def test_log_linear_is_the_masked_product(length):
    q, k, v, weights, a, _ = problem(length)
    want = over_keys(q, k, v, weights, a)
    close(fenwick(q, k, v, weights, a), want)
    close(log_linear(q, k, v, weights, a=a)[0], want)
    close(log_linear_dense(q, k, v, weights, a=a), want)
    want = over_keys(q, k, v, weights, np.ones_like(a))
    close(log_linear(q, k, v, weights)[0], want)
    close(log_linear_dense(q, k, v, weights), want)


def test_one_decay_for_all_rows_is_a_number():
    q, k, v, weights, a, _ = problem(20)
    first, second = np.full_like(a, 0.9), np.full_like(a, 0.7)
    for function in (lambda *_, **options: second_order(*_, **options)[0], second_order_dense):
        close(function(q, k, v, inner=0.9, outer=0.7),
              function(q, k, v, inner=first, outer=second))
    close(log_linear(q, k, v, weights, a=0.9)[0], log_linear_dense(q, k, v, weights, a=first))


@pytest.mark.parametrize("cuts", [(0,), (1,), (8,), (13,), (5, 6, 32), range(1, 33)])
def test_chunks_go_on(cuts):
    q, k, v, weights, inner, outer = problem(33)
    edges = [0, *cuts, 33]
    for options in ({"form": "symmetric"}, {"form": "asymmetric", "epsilon": 0.25}):
        whole, state = second_order(q, k, v, inner=inner, outer=outer, **options)
        kept, parts = None, []
        for rows in map(slice, edges, edges[1:]):
            part, kept = second_order(q[:, :, rows], k[:, :, rows], v[:, :, rows],
                                      inner=inner[:, :, rows], outer=outer[:, :, rows],
                                      initial=kept, **options)
            parts.append(part)
        close(np.concatenate(parts, 2), whole)
        for got, want in zip(kept, state):
            close(got, want)
    whole, state = log_linear(q, k, v, weights, a=inner)
    kept, parts = None, []
    for rows in map(slice, edges, edges[1:]):
        part, kept = log_linear(q[:, :, rows], k[:, :, rows], v[:, :, rows], weights[:, :, rows],
                                a=inner[:, :, rows], initial=kept, offset=rows.start)
        parts.append(part)
    close(np.concatenate(parts, 2), whole)
    close(kept, state)


def test_a_decay_as_the_paper_means_it():
    """W = L * decay^(t - i) * A: the masked products are decayed in either form, and so is the
    recurrence with S and C decayed once a row."""
    q, k, v, *_ = problem(21)
    g, at = 0.75, np.arange(21)
    W = np.tril(g ** np.maximum(at[:, None] - at, 0) * (q @ k.swapaxes(-1, -2)))
    close(second_order(q, k, v, inner=g * g, outer=g)[0], np.tril(W @ W.swapaxes(-1, -2)) @ v)
    close(second_order(q, k, v, form="asymmetric", inner=g, outer=g)[0], W @ W @ v)
    S, C, G, rows = np.zeros((2, 3, 4, 4)), np.zeros((2, 3, 4, 5)), np.zeros((2, 3, 4, 5)), []
    for t in range(21):
        row, key, value = (x[:, :, t, :, None] for x in (q, k, v))
        G = g * g * G + key @ (key.swapaxes(-1, -2) @ (g * C))
        S = g * S + key @ key.swapaxes(-1, -2)
        C = g * C + row @ value.swapaxes(-1, -2)
        rows.append((row.swapaxes(-1, -2) @ (S @ C - G))[:, :, 0])
    close(second_order(q, k, v, inner=g, outer=g * g)[0], np.stack(rows, 2))


@pytest.mark.parametrize("function", [
    lambda q, k, v, w, s, r: second_order(q, k, v, inner=s, outer=r)[0],
    lambda q, k, v, w, s, r: second_order(q, k, v, inner=s, outer=r, form="asymmetric")[0],
    lambda q, k, v, w, s, r: second_order(q * q, k * k, v, inner=s, outer=r, epsilon=0.5)[0],
    lambda q, k, v, w, s, r: log_linear(q, k, v, w, a=s)[0]])
def test_gradients_of_tensors_by_central_differences(function):
    torch = pytest.importorskip("torch")
    q, k, v, weights, inner, outer = problem(6)
    inner, outer = 0.25 + inner / 2, 0.25 + outer / 2  # so that neighbours are decays too
    arrays = [q[:1, :2], k[:1, :2], v[:1, :2], weights[:1, :2], inner[:1, :2], outer[:1, :2]]
    given = [torch.tensor(array, requires_grad=True) for array in arrays]
    output = function(*given)
    np.testing.assert_allclose(output.detach().numpy(), function(*arrays), rtol=1e-12, atol=1e-12)
    by = np.random.default_rng(2).standard_normal(output.shape)
    got = torch.autograd.grad(output, given, torch.tensor(by), allow_unused=True)
    step = 2.0**-12
    for array, gradient in zip(arrays, got):
        want = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            here = array[place]
            at = []
            for offset in (1, -1, 2, -2):
                array[place] = here + offset * step
                at.append((by * function(*arrays)).sum())
            array[place] = here
            want[place] = (8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * step)
        if gradient is None:
            assert not want.any()
        else:
            np.testing.assert_allclose(gradient.numpy(), want, rtol=1e-9, atol=1e-9)


def test_short_types_and_tensors_of_them():
    q, k, v, weights, inner, _ = problem(12)
    short = [array.astype(np.float16) for array in (q, k, v)]
    close(second_order(*short)[0], second_order(*(array.astype(float) for array in short))[0])
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(array, dtype=torch.bfloat16) for array in (q, k, v)]
    got = second_order(*tensors, inner=0.9, outer=0.5, epsilon=3.0)[0]
    assert got.dtype == torch.bfloat16
    assert log_linear(*tensors, torch.tensor(weights).bfloat16(), a=0.9)[0].dtype == torch.bfloat16
    with pytest.raises(TypeError, match="^k of type ndarray: a tensor"):
        second_order(tensors[0], k, tensors[2])
    with pytest.raises(TypeError, match="^inner of type ndarray: a tensor"):
        second_order(*tensors, inner=inner)


@pytest.mark.parametrize("stream", [
    lambda k: second_order(k, k, k, inner=0.9, outer=0.81)[0],
    lambda k: second_order(k, k, k, form="asymmetric", inner=0.9, outer=0.9)[0],
    lambda k: log_linear(k, k, k, np.ones((*k.shape[:3], 8)), a=0.9)[0]])
def test_as_search_keys(stream):
    """The search scores the stream's rows, and no row depends on later keys."""
    rng = np.random.default_rng(3)
    keys, values = rng.standard_normal((2, 1, 2, 100, 8)) / 4
    queries = rng.standard_normal((1, 2, 100, 8))
    schedule = multistep.Schedule()
    search_keys = stream(keys)
    found = multistep.attend(queries, keys, values, [queries], schedule, search_keys=search_keys)
    for t in (20, 50, 99):
        kept = found.anchors[0, 0, t].ravel()
        kept = kept[kept >= 0]
        scores = search_keys[0, 0, kept] @ queries[0, 0, t]
        np.testing.assert_allclose(found.scores[0, 0, t, :len(kept)], scores, rtol=1e-9)
    other = keys.copy()
    other[:, :, 60:] += 1
    again = multistep.attend(queries, other, values, [queries], schedule, search_keys=stream(other))
    np.testing.assert_array_equal(again.output[:, :, :60], found.output[:, :, :60])
    assert (again.output[:, :, 60:] != found.output[:, :, 60:]).any()


def test_arguments_that_are_refused():
    q, k, v, weights, inner, _ = problem(9)
    for change, message in [
            ({"k": k[:, :, :8]}, "k of shape (2, 3, 8, 4): (2, 3, 9, 4) here"),
            ({"k": k[..., :3]}, "k of shape (2, 3, 9, 3): (2, 3, 9, 4) here"),
            ({"v": v[:1]}, "v of shape (1, 3, 9, 5): (2, 3, 9, value_dim) here"),
            ({"q": q[0]}, "q of shape (3, 9, 4): [batch, num_heads, length, head_dim]"),
            ({"form": "other"}, "form 'other': symmetric or asymmetric"),
            ({"inner": 1.5}, "inner 1.5: a decay in [0, 1]"),
            ({"outer": -inner - 1}, "outer -"),
            ({"outer": inner[0]}, "outer of shape (3, 9): a number, or (2, 3, 9) here")]:
        for function in (second_order, second_order_dense):
            with pytest.raises(ValueError) as error:
                function(**{"q": q, "k": k, "v": v, **change})
            assert str(error.value).startswith(message) and "\n" not in str(error.value)
    with pytest.raises(ValueError, match="^weights of 4 levels: 5 to 63 for positions below 9"):
        log_linear(q, k, v, weights[..., :4])
    with pytest.raises(ValueError, match="^weights of 4 levels: 5 to 63 for positions below 9"):
        log_linear_dense(q, k, v, weights[..., :4])
    with pytest.raises(ValueError, match="^weights of 7 levels: 8 to 63 for positions below 73"):
        log_linear(q, k, v, weights, offset=64)
    with pytest.raises(ValueError, match="^weights of shape"):
        log_linear(q, k, v, weights[:, :, :8])
    with pytest.raises(ValueError, match="^offset -1"):
        log_linear(q, k, v, weights, offset=-1)
    with pytest.raises(ValueError, match="^a 2.0"):
        log_linear_dense(q, k, v, weights, a=2 * np.ones((2, 3, 9)))
    with pytest.raises(TypeError, match="^inner None|^inner of dtype"):
        second_order(q, k, v, inner=np.ones((2, 3, 9), int))


def test_levels_that_just_suffice():
    q, k, v, weights, *_ = problem(9)
    close(log_linear(q, k, v, weights[..., :5])[0], log_linear_dense(q, k, v, weights[..., :5]))
    assert log_linear(q[:, :, :1], k[:, :, :1], v[:, :, :1], weights[:, :, :1, :1])[0].size


def test_what_an_earlier_call_gave_is_looked_at():
    q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 8, 4))
    weights = np.ones((1, 2, 8, 5))
    _, states = log_linear(q, k, v, weights)
    whole, _ = log_linear(*(np.tile(one, (1, 1, 2, 1)) for one in (q, k, v, weights)))
    for offset in (np.int64(8), 8.0):
        again, _ = log_linear(q, k, v, weights, initial=states, offset=offset)
        np.testing.assert_allclose(again, whole[:, :, 8:], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="^initial of shape .*: .* here"):
        log_linear(q, k, v, weights, initial=states[:, :, :4])
    with pytest.raises(TypeError, match="^initial of type list: an array"):
        log_linear(q, k, v, weights, initial=[states])
    for wrong in (0, states, (states,)):
        with pytest.raises(TypeError, match="^initial of type .*: the two states"):
            second_order(q, k, v, initial=wrong)
    with pytest.raises(ValueError, match="^weights of 64 levels: 4 to 63 for positions below 8"):
        log_linear(q, k, v, np.ones((1, 2, 8, 64)))
    log_linear(q, k, v, np.ones((1, 2, 8, 63)))
