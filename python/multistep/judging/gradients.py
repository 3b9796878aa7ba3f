"""The gradients that a candidate hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import numpy.typing as npt

from .. import _core
from .._arrays import converted, is_tensor
from .._problem import Arguments, filled, levels
from ..oracle import Problem
from .candidates import copied, fields, to_host

NAMES = ("q", "k", "v", "routing_queries", "search_keys")
"""What there may be gradients by."""

Backward = Union[str, Callable[[Any], Any], None]


class Called(NamedTuple):
    """What a candidate gave, called with arguments of its own."""

    results: Any
    arguments: list[Any]  # q, k, v and the routing queries, which autograd knows


def call(candidate: Callable[..., Any], given: Arguments, routing_queries: Any,
         gradients: Backward) -> Called:
    """The candidate's results; for autograd all its arguments require gradients."""
    q, k, v = (copied(array) for array in (given.q, given.k, given.v))
    routing = copied(routing_queries)
    if gradients != "autograd":
        return Called(candidate(q, k, v, routing), [])
    for name, array in zip("qkv", (q, k, v)):
        if not is_tensor(array):
            raise TypeError(f"{name} of type {type(array).__name__}: a tensor, for autograd")
    tensors = [x.detach().requires_grad_() for x in
               (q, k, v, *levels(routing, given.schedule.steps - 1))]
    return Called(candidate(*tensors[:3], tensors[3:]), tensors)


def judged(gradients: Backward, called: Called, given: Arguments, problem: Problem, seed: int
           ) -> Optional[_core.Gradients]:
    """What the library judges: derivatives of a loss whose derivative by the output is random, in
    the type of q."""
    if gradients is None:
        return None
    by_output = _like(np.random.default_rng(seed).standard_normal(tuple(given.q.shape)), given.q)
    if gradients == "autograd":
        found = _autograd(called, by_output)
    elif callable(gradients):
        found = gradients(by_output)
    else:
        raise TypeError(f"gradients {gradients!r}: a callable, or 'autograd'")
    if not isinstance(found, Mapping):
        found = {name: getattr(found, name, None) for name in NAMES}
    for name in found:
        if name not in NAMES:
            raise ValueError(f"gradient by {name!r}: {', '.join(NAMES)} have one")
    if all(found.get(name) is None for name in NAMES):
        raise ValueError(f"gradients: none by {', '.join(NAMES)}")
    sizes = problem.sizes
    of_queries = (sizes.batch, sizes.heads, sizes.queries, sizes.head_dim)
    of_keys = (sizes.batch, sizes.kv_heads, sizes.keys, sizes.head_dim)
    if problem.arrays["search_keys"] is None and found.get("search_keys") is not None:
        raise ValueError("gradient by search_keys: a part of that by k, where k is searched")
    routing = found.get("routing_queries")
    routing = [] if routing is None else levels(routing, given.schedule.steps - 1)
    if routing and len(routing) != given.schedule.steps - 1:
        raise ValueError(f"gradient by routing_queries {len(routing)}: one array per search level, "
                         f"{given.schedule.steps - 1}")
    return filled(_core.Gradients(), output=_doubles("output", by_output, of_queries),
                  q=_doubles("q", found.get("q"), of_queries),
                  k=_doubles("k", found.get("k"), of_keys),
                  v=_doubles("v", found.get("v"), of_keys),
                  routing_queries=[_doubles(f"routing_queries[{m}]", level, of_queries)
                                   for m, level in enumerate(routing)],
                  search_keys=_doubles("search_keys", found.get("search_keys"), of_keys))


def _like(values: npt.NDArray[np.float64], array: Any) -> Any:
    """The values in the library, the type and the place of ``array``."""
    if is_tensor(array):
        import torch

        return torch.from_numpy(values).to(array.device, array.dtype)
    return values.astype(np.asarray(array).dtype)


def _autograd(called: Called, by_output: Any) -> dict[str, Any]:
    import torch

    if not called.arguments:
        raise TypeError("candidate: results already computed; a callable, for autograd")
    output = fields(called.results)["output"]
    if not is_tensor(output) or not output.requires_grad:
        raise ValueError("candidate's output: a tensor that requires gradients, for autograd")
    found = [torch.zeros_like(x) if by is None else by for x, by in zip(
        called.arguments,
        torch.autograd.grad(output, called.arguments, by_output, allow_unused=True))]
    return {"q": found[0], "k": found[1], "v": found[2], "routing_queries": found[3:] or None}


def _doubles(name: str, value: Any, shape: tuple[int, ...]) -> Optional[npt.NDArray[np.float64]]:
    if value is None:
        return None
    label = f"gradient by {name}"
    array = converted(label, to_host(value)).astype(np.float64, copy=False)
    if array.shape != shape:
        raise ValueError(f"{label} of shape {array.shape}: {shape} here")
    return array
