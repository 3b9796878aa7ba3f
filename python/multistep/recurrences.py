"""Recurrences of other attentions: higher-order linear attention of second order and log-linear
attention. Both are accumulations, one behind the other or side by side, so that they take what
``multistep.accumulate`` takes, NumPy arrays in double or tensors, with its kernels and gradients.

They are causal streams of rows, and can stand for the keys in the search:

>>> import numpy as np, multistep
>>> from multistep.recurrences import second_order
>>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 100, 8))
>>> stream, _ = second_order(k, k, k, inner=0.9, outer=0.81)
>>> found = multistep.attend(q, k, v, [q], multistep.Schedule(), search_keys=stream)
>>> found.output.shape
(1, 2, 100, 8)

The same in C++, as single recurrences, masked products and an associative scan:
``reference/include/multistep/recurrences.hpp``.
"""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from ._arrays import converted, is_tensor
from ._rational import integer, number
from .functions import _for_torch, _tensor, accumulate
from .schedule import MAX_LENGTH

Decays = Union[float, Any, None]
"""[batch, num_heads, length], each in [0, 1]; one number for all of them; None: 1."""

Doubles = npt.NDArray[np.float64]

_MOST_LEVELS = 63  # a part of the last one is any number of 63 bits


def second_order(q: Any, k: Any, v: Any, *, form: str = "symmetric", inner: Decays = None,
                 outer: Decays = None, epsilon: Optional[float] = None,
                 initial: Optional[tuple[Any, Any]] = None) -> tuple[Any, tuple[Any, Any]]:
    """Higher-order linear attention of second order (Zhang, Qin, Wang, Gu, arXiv 2510.27258), a
    row at a time. With s = inner_t and r = outer_t:

        symmetric (section 3)     S = s S + k k^T,  N = r N + (S q) v^T,    o = N^T q
        asymmetric (section 6)    P = s P + k v^T,  E = r E + k (P^T q)^T,  o = E^T q

    Without decays the outputs are (L * (W W^T)) V and (L * (W W)) V, where L is 1 on and below the
    diagonal, 0 above it, * is entry by entry and W = L * (Q K^T). ``second_order_dense`` is the
    same with decays.

    Args:
        q, k: [batch, num_heads, length, head_dim].
        v: [batch, num_heads, length, value_dim].
        form: "symmetric" or "asymmetric".
        inner, outer: decays of the first and of the second state, in [0, 1]: a number, or an array
            [batch, num_heads, length]; None: no decay.
        epsilon: outputs are divided by the same sum with 1 for v, plus this; None: they are not.
        initial: what an earlier call gave behind the output, to go on from.

    Returns:
        o [batch, num_heads, length, value_dim], and the two final states. In double of NumPy
        arrays.

    Raises ValueError for shapes that do not fit, a decay outside [0, 1] or another form.
    """
    xp, q, k, v = _given(q, k, v)
    s, r = _decays(xp, "inner", inner, v), _decays(xp, "outer", outer, v)
    _check_form(form)
    if epsilon is not None:
        v = _with_ones(xp, v)
    first, second = _two_states(initial)
    if form == "symmetric":
        own, first = accumulate(k, s, k, q, initial=first)
        output, second = accumulate(v, r, own, q, initial=second)
    else:
        own, first = accumulate(v, s, k, q, initial=first)
        output, second = accumulate(own, r, k, q, initial=second)
    return _divided(output, epsilon), (first, second)


def second_order_dense(q: Any, k: Any, v: Any, *, form: str = "symmetric", inner: Decays = None,
                       outer: Decays = None, epsilon: Optional[float] = None) -> Doubles:
    """The outputs of ``second_order`` as masked products of NumPy arrays, in memory that grows with
    the square of the length. A = Q K^T; I and R hold the products of the inner and outer decays
    over (column, row], and 0 above the diagonal:

        symmetric    (R * (A (I * A)^T)) V
        asymmetric   (R * A) (I * A) V
    """
    _, q, k, v = _given(*map(_on_host, ("q", "k", "v"), (q, k, v)))
    I, R = (_mask(_decays(np, name, decays, v))  # noqa: E741
            for name, decays in (("inner", inner), ("outer", outer)))
    _check_form(form)
    if epsilon is not None:
        v = _with_ones(np, v)
    A = q @ k.swapaxes(-1, -2)
    if form == "symmetric":
        output = (R * (A @ (I * A).swapaxes(-1, -2))) @ v
    else:
        output = (R * A) @ ((I * A) @ v)
    dense: Doubles = _divided(output, epsilon)
    return dense


def log_linear(q: Any, k: Any, v: Any, weights: Any, *, a: Decays = None, initial: Any = None,
               offset: int = 0) -> tuple[Any, Any]:
    """Log-linear attention (Guo, Yang, Goel, Xing, Dao, Kim, arXiv 2506.04761, section 3): linear
    attention with a state for each bucket of a Fenwick tree, and a weight for each state.

    A key s is at level 0 of its own query, and otherwise at the level that is the bit length of
    t xor s for query t: o_t is the sum over s <= t of
    weights[t, level] (product of a over (s, t]) (q_t . k_s) v_s.

    Here a level is an accumulation: in parts of 2^level keys, which begin at its multiples, the
    older half is written and the newer half reads.

    Args:
        q, k: [batch, num_heads, length, head_dim].
        v: [batch, num_heads, length, value_dim].
        weights: [batch, num_heads, length, levels], the paper's lambda; levels >= 1 + the bit
            length of the last position, those of later chunks included.
        a: decays in [0, 1], a number or an array [batch, num_heads, length]; None: no decay.
        initial: what an earlier call gave behind the output, to go on from.
        offset: position of row 0.

    Returns:
        o [batch, num_heads, length, value_dim], and the final states [batch, num_heads, levels,
        value_dim, head_dim]. In double of NumPy arrays.

    Raises ValueError for shapes that do not fit, too few levels or a decay outside [0, 1].
    """
    xp, q, k, v, weights = _given(q, k, v, weights)
    a = _decays(xp, "a", a, v)
    levels, length = weights.shape[-1], v.shape[2]
    offset = integer("offset", offset, 0, MAX_LENGTH)
    at = offset + np.arange(length)
    _check_levels(levels, offset + length)
    if initial is not None:
        _require_state("initial", initial, (*v.shape[:2], levels, v.shape[3], q.shape[3]))

    def only(rows: npt.NDArray[np.bool_], array: Any) -> Any:
        """The array with 0 in the other rows."""
        kept = rows.reshape((length,) + (1,) * (array.ndim - 3))
        return xp.where(kept if xp is np else xp.as_tensor(kept, device=array.device), array, 0.0)

    output, states = xp.zeros_like(v), []
    for level in range(levels):
        part = at % (1 << level)
        newer = part >= (1 << level) // 2
        older = ~newer if level else newer
        read, state = accumulate(only(older, v), only(part > 0, a), k, q,
                                 initial=None if initial is None else initial[:, :, level])
        output = output + weights[..., level:level + 1] * only(newer, read)
        states.append(state)
    return output, xp.stack(states, 2)


def log_linear_dense(q: Any, k: Any, v: Any, weights: Any, *, a: Decays = None) -> Doubles:
    """The outputs of ``log_linear`` from position 0 on as a masked product of NumPy arrays, in
    memory that grows with the square of the length."""
    _, q, k, v, weights = _given(*map(_on_host, ("q", "k", "v", "weights"), (q, k, v, weights)))
    at = np.arange(v.shape[2])
    _check_levels(weights.shape[-1], len(at))
    levels = np.frexp(at[:, None] ^ at)[1]  # bit lengths
    mask = _mask(_decays(np, "a", a, v)) * weights[:, :, at[:, None], levels]
    dense: Doubles = (mask * (q @ k.swapaxes(-1, -2))) @ v
    return dense


def _on_host(name: str, array: Any) -> Doubles:
    return np.asarray(converted(name, array), np.float64)


def _given(q: Any, k: Any, v: Any, *weights: Any) -> tuple[Any, ...]:
    """NumPy or PyTorch, and the arrays: tensors as they are, others in double."""
    arrays = dict(zip(("q", "k", "v", "weights"), (q, k, v, *weights)))
    xp: Any = np
    if _for_torch(*arrays.values()):
        import torch as xp
    read = _on_host if xp is np else _tensor
    arrays = {name: read(name, array) for name, array in arrays.items()}
    shape = tuple(arrays["q"].shape)
    if len(shape) != 4 or min(shape[0], shape[1], shape[3]) < 1:
        raise ValueError(f"q of shape {shape}: [batch, num_heads, length, head_dim], all but the "
                         "length >= 1")
    for name, last in (("k", "head_dim"), ("v", "value_dim"), ("weights", "levels")):
        if name not in arrays:
            continue
        found = tuple(arrays[name].shape)
        if len(found) != 4 or found[:3] != shape[:3] or found[3] < 1 or (
                name == "k" and found != shape):
            wanted = shape if name == "k" else f"({shape[0]}, {shape[1]}, {shape[2]}, {last})"
            raise ValueError(f"{name} of shape {found}: {wanted} here")
    return (xp, *arrays.values())


def _decays(xp: Any, name: str, decays: Decays, like: Any) -> Any:
    """Decays for the rows of ``like``."""
    if decays is None:
        decays = 1.0
    if not is_tensor(decays) and np.ndim(decays) == 0:
        value = number(name, decays)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} {value}: a decay in [0, 1]")
        dtype = xp.float64 if like.dtype == xp.float64 else xp.float32
        return xp.zeros_like(like[..., 0], dtype=dtype) + value
    decays = _tensor(name, decays) if xp is not np else _on_host(name, decays)
    if tuple(decays.shape) != tuple(like.shape[:3]):
        raise ValueError(f"{name} of shape {tuple(decays.shape)}: a number, or "
                         f"{tuple(like.shape[:3])} here")
    if xp is np and (wrong := decays[(decays < 0) | (decays > 1)]).size:
        raise ValueError(f"{name} {wrong[0]}: a decay in [0, 1]")
    return decays


def _mask(decays: Doubles) -> Doubles:
    """The products of decays over (column, row], and 0 above the diagonal."""
    length = decays.shape[-1]
    mask = np.zeros((*decays.shape, length))
    for t in range(length):
        mask[..., t, :t] = decays[..., t, None] * mask[..., t - 1, :t]
        mask[..., t, t] = 1
    return mask


def _with_ones(xp: Any, v: Any) -> Any:
    return xp.concatenate([v, xp.ones_like(v[..., :1])], -1)


def _divided(output: Any, epsilon: Optional[float]) -> Any:
    if epsilon is None:
        return output
    return output[..., :-1] / (output[..., -1:] + number("epsilon", epsilon))


def _two_states(initial: Any) -> tuple[Any, Any]:
    if initial is None:
        return None, None
    if not isinstance(initial, (tuple, list)) or len(initial) != 2:
        raise TypeError(f"initial of type {type(initial).__name__}: the two states that an earlier "
                        "call gave")
    return initial[0], initial[1]


def _require_state(name: str, state: Any, shape: tuple[int, ...]) -> None:
    if not hasattr(state, "shape"):
        raise TypeError(f"{name} of type {type(state).__name__}: an array")
    if tuple(state.shape) != shape:
        raise ValueError(f"{name} of shape {tuple(state.shape)}: {shape} here")


def _check_form(form: str) -> None:
    if form not in ("symmetric", "asymmetric"):
        raise ValueError(f"form {form!r}: symmetric or asymmetric")


def _check_levels(levels: int, end: int) -> None:
    least = 1 + max(end - 1, 0).bit_length()
    if not least <= levels <= _MOST_LEVELS:
        raise ValueError(f"weights of {levels} levels: {least} to {_MOST_LEVELS} for positions below "
                         f"{end}")
