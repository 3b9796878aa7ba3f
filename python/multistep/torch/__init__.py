"""The operators for PyTorch: on CUDA tensors the kernels on the current stream, on CPU tensors the
oracle.

``torch.ops.multistep.attention`` and ``.accumulate`` are custom operators with fake kernels, so
that ``torch.compile(fullgraph=True)`` goes through them; a scale is a constant of compiled code,
which each new value compiles anew. On CUDA nothing waits for the device: after a first call, which
makes a schedule's tables (or ``prepare``), calls can be captured in CUDA graphs. Gradients exist on
the CPU, by the oracle. The kernels have none yet: inputs that require grad are refused at the
forward, unless under ``torch.no_grad()``. ``torch.vmap`` maps over the operators; torch.func.grad
and its kin, forward mode and second derivatives are refused.
"""

from collections.abc import Sequence
from typing import Any, Callable, List, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import oracle
from . import kernels as _kernels
from . import operators as _operators  # noqa: F401 (the operators register themselves)
from .._arrays import check_parts, integers, require_float
from .._rational import integer
from ..oracle import Attended
from ..schedule import Schedule


def attention(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
              schedule: Schedule, *, top_k: Optional[int] = None,
              softmax_scale: Optional[float] = None, search_scale: float = 1.0,
              query_offset: int = 0, start: Union[int, Tensor, None] = None,
              search_keys: Optional[Tensor] = None) -> Tensor:
    """Multi-step attention on tensors of one device; see ``multistep.attention``.

    CUDA: float16 or bfloat16, head_dim up to 256, contexts up to 2^31 - 2. Tensors that are not
    contiguous are copied.
    """
    output: Tensor = _attend(q, k, v, routing_queries, schedule, top_k, softmax_scale,
                             search_scale, query_offset, None, start, search_keys, False)[0]
    return output


def decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, length: Union[int, Tensor], top_k: Optional[int] = None,
           softmax_scale: Optional[float] = None, search_scale: float = 1.0,
           start: Union[int, Tensor, None] = None, search_keys: Optional[Tensor] = None) -> Tensor:
    """Attention of the newest queries over a preallocated cache; see ``multistep.decode``.

    On CUDA ``length`` [batch] stays on the device: a captured graph follows it as it grows.
    """
    _require_tensors(q=q, k_cache=k_cache, v_cache=v_cache)
    output: Tensor = _attend(q, k_cache, v_cache, routing_queries, schedule, top_k, softmax_scale,
                             search_scale, 0, _lengths(length, q), start, search_keys, False)[0]
    return output


def attend(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, top_k: Optional[int] = None,
           softmax_scale: Optional[float] = None, search_scale: float = 1.0,
           query_offset: int = 0, length: Union[int, Tensor, None] = None,
           start: Union[int, Tensor, None] = None, search_keys: Optional[Tensor] = None
           ) -> Attended:
    """``attention``, or with ``length`` ``decode``, and what was found on the way; see
    ``multistep.attend``. Log-sum-exps and scores are float32 (float64 beside float64), and have
    gradients as the output does."""
    given = None if length is None else _lengths(length, q)
    return Attended(*_attend(q, k, v, routing_queries, schedule, top_k, softmax_scale, search_scale,
                             query_offset, given, start, search_keys, True))


def _attend(q: Any, k: Any, v: Any, routing_queries: Any, schedule: Schedule,
            top_k: Optional[int], softmax_scale: Optional[float], search_scale: float,
            query_offset: int, length: Optional[Tensor], start: Any, search_keys: Any,
            details: bool) -> Any:
    _require_tensors(q=q, k=k, v=v, search_keys=search_keys)
    _require_settings(top_k, softmax_scale, search_scale, query_offset)
    return _call(torch.ops.multistep.attention, q, k, v, _levels(routing_queries), _text(schedule),
                 top_k, softmax_scale, search_scale, query_offset, length,
                 _positions("start", start, q), search_keys, details)


def _lengths(length: Any, q: Any) -> Tensor:
    _require_tensors(q=q)
    given = _positions("length", length, q)
    assert given is not None
    return given


def merge(outputs: Tensor, lses: Tensor) -> Tuple[Tensor, Tensor]:
    """Attention to the union of disjoint sets of keys; see ``multistep.merge``. In float32 (float64
    where one of the two is), with gradients, on any device."""
    _require_tensors(outputs=outputs, lses=lses)
    for name, tensor in (("outputs", outputs), ("lses", lses)):
        require_float(name, str(tensor.dtype).removeprefix("torch."))
    check_parts(outputs.shape, lses.shape)
    given = lses.to(torch.promote_types(torch.float32, lses.dtype))
    largest = given.detach().amax(0)
    largest = torch.where(largest.isneginf(), 0, largest)  # of no keys at all
    # Equals weigh 1: never exp(inf - inf).
    weights = torch.where(given.isposinf(), 0, given - largest).exp()
    total = weights.sum(0)
    some = total != 0
    divisor = torch.where(some, total, 1)
    lse = torch.where(some, divisor.log() + largest, -torch.inf)
    shares = (weights / divisor).unsqueeze(-1)
    parts = torch.where(shares == 0, 0, outputs)  # whatever a part without weight holds
    output = (shares * parts).sum(0)
    return output.to(outputs.dtype), lse.to(lses.dtype)


def accumulate(x: Tensor, a: Tensor, b: Tensor, c: Tensor, *, initial: Optional[Tensor] = None,
               start: Union[int, Tensor, None] = None, offset: int = 0) -> Tuple[Tensor, Tensor]:
    """The scalar-decay recurrence on tensors of one device; see ``multistep.accumulate``. On CUDA
    head_dim and state are at most 256."""
    _require_tensors(x=x, a=a, b=b, c=c, initial=initial)
    if not torch.compiler.is_compiling():
        offset = integer("offset", offset, 0, 2**48)
    output, state = _call(torch.ops.multistep.accumulate, x, a, b, c, initial,
                          _positions("start", start, x), offset)
    return output, state


def prepare(schedule: Schedule, length: int, device: Union[str, torch.device] = "cuda") -> None:
    """Makes the schedule's tables for ``length`` keys on a device ahead of time: what the first
    call with so many keys would do, which allocates and waits. They serve every ``top_k``."""
    _kernels.require_usable()
    with torch.cuda.device(device):
        _kernels.device_schedule(schedule, length, torch.cuda.current_device())


_unpack_dual: Callable[[Tensor], Any] = forward_ad.unpack_dual


def _call(operator: Any, *arguments: Any) -> Any:
    """Calls an operator; what PyTorch's transforms cannot do with it is refused in one line."""
    for argument in arguments:
        for tensor in argument if isinstance(argument, list) else [argument]:
            if isinstance(tensor, Tensor) and _unpack_dual(tensor).tangent is not None:
                raise NotImplementedError("multistep: no forward-mode derivatives; use .backward() "
                                          "or torch.autograd.grad")
    try:
        return operator(*arguments)
    except RuntimeError as error:
        if "functorch transforms" in str(error):
            raise NotImplementedError("multistep: not under torch.func.grad and its kin; use "
                                      ".backward() or torch.autograd.grad") from None
        raise


def _levels(routing_queries: Union[Tensor, Sequence[Tensor]]) -> List[Tensor]:
    """One tensor per search level, from a sequence, a stack, or for N = 2 the one tensor."""
    if isinstance(routing_queries, Tensor):
        if routing_queries.dim() == 5:
            return list(routing_queries.unbind(0))
        return [routing_queries]
    if not isinstance(routing_queries, Sequence) or isinstance(routing_queries, str):
        raise TypeError(f"routing_queries of type {type(routing_queries).__name__}: a sequence of "
                        "tensors, one per search level")
    for m, level in enumerate(routing_queries):
        if not isinstance(level, Tensor):
            raise TypeError(f"routing_queries[{m}] of type {type(level).__name__}: a tensor")
    return list(routing_queries)


def _text(schedule: Schedule) -> str:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule of type {type(schedule).__name__}: a multistep.Schedule")
    return schedule.text


def _require_tensors(**named: Any) -> None:
    """Raises TypeError naming the first that is no tensor; what may be left out is None."""
    optional = ("search_keys", "initial")
    for name, value in named.items():
        if not (isinstance(value, Tensor) or value is None and name in optional):
            raise TypeError(f"{name} of type {type(value).__name__}: a tensor")


def _require_settings(top_k: Any, softmax_scale: Any, search_scale: Any, query_offset: Any
                      ) -> None:
    """Raises for what the operator would refuse in its own words. Compiled code is not looked at:
    its numbers may be symbols."""
    if torch.compiler.is_compiling():
        return
    if top_k is not None:
        integer("top_k", top_k, 1, 64)
    if softmax_scale is not None:
        oracle.number("softmax_scale", softmax_scale)
    oracle.number("search_scale", search_scale)
    integer("query_offset", query_offset, 0, 2**48 - 1)


def _positions(name: str, value: Any, beside: Tensor) -> Optional[Tensor]:
    """One position per sequence; an integer counts for all. Tensors are left to the operator: on
    the device nobody looks at them."""
    if isinstance(value, Tensor) or value is None and name == "start":
        return value
    if beside.dim() < 1:
        raise ValueError(f"array of shape {tuple(beside.shape)}: one row per sequence, as {name}")
    if torch.compiler.is_compiling() and isinstance(value, int) and not isinstance(value, bool):
        return torch.full((beside.shape[0],), value, dtype=torch.int64, device=beside.device)
    high = 2**31 - 2 if beside.device.type == "cuda" else 2**48  # where positions are int32
    if isinstance(value, (list, tuple, np.ndarray)):
        array = integers(name, value)
        if array.shape != (beside.shape[0],):
            raise ValueError(f"{name} of shape {array.shape}: an integer, or integers of shape "
                             f"({beside.shape[0]},), one per sequence")
        return torch.tensor([integer(name, one, 0, high) for one in array.tolist()],
                            dtype=torch.int64, device=beside.device)
    return torch.full((beside.shape[0],), integer(name, value, 0, high), dtype=torch.int64,
                      device=beside.device)
