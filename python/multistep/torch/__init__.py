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

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._arrays import check_parts, require_float
from .._problem import (Arguments, Attended, Options, a_length, arguments, checked, each,
                        takes_options)
from .._rational import integer
from .._recurrence import Recurrence
from ..schedule import MAX_LENGTH, Schedule
from . import autograd, operators, positions, tables  # noqa: F401 (gradients register themselves)

if TYPE_CHECKING:
    from typing_extensions import Unpack


@takes_options
def attention(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
              schedule: Schedule, *, query_offset: int = 0, **options: Unpack[Options]) -> Tensor:
    """Multi-step attention on tensors of one device; see ``multistep.attention``.

    CUDA: float16 or bfloat16, head_dim up to 256, contexts up to 2^31 - 2. Tensors that are not
    contiguous are copied.
    """
    given = arguments("attention", q, k, v, routing_queries, schedule, options,
                      query_offset=query_offset)
    output: Tensor = attended(given, False).output
    return output


@takes_options
def decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, length: Union[int, Tensor], **options: Unpack[Options]
           ) -> Tensor:
    """Attention of the newest queries over a preallocated cache; see ``multistep.decode``.

    On CUDA ``length`` [batch] stays on the device: a captured graph follows it as it grows.
    """
    _require_tensors(q=q, k_cache=k_cache, v_cache=v_cache)
    given = arguments("decode", q, k_cache, v_cache, routing_queries, schedule, options,
                      length=a_length(length))
    output: Tensor = attended(given, False).output
    return output


@takes_options
def attend(q: Tensor, k: Tensor, v: Tensor, routing_queries: Sequence[Tensor],
           schedule: Schedule, *, query_offset: int = 0, length: Union[int, Tensor, None] = None,
           **options: Unpack[Options]) -> Attended:
    """``attention``, or with ``length`` ``decode``, and what was found on the way; see
    ``multistep.attend``. Log-sum-exps and scores are float32 (float64 beside float64), and have
    gradients as the output does."""
    given = arguments("attend", q, k, v, routing_queries, schedule, options,
                      query_offset=query_offset, length=length)
    return attended(given, True)


def attended(given: Arguments, details: bool) -> Attended:
    """What the operator finds; without ``details`` all but the output has no elements."""
    each(_require_tensor, given)
    if not torch.compiler.is_compiling():  # where numbers may be symbols
        given = checked(given)
    given = given._replace(length=positions.read("length", given.length, given.q),
                           start=positions.read("start", given.start, given.q))
    found = _call(torch.ops.multistep.attention, *operators.operands(given), details)
    return Attended(*found)


def merge(outputs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
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
               start: Union[int, Tensor, None] = None, offset: int = 0) -> tuple[Tensor, Tensor]:
    """The scalar-decay recurrence on tensors of one device; see ``multistep.accumulate``. On CUDA
    head_dim and state are at most 256."""
    return accumulated(Recurrence(x, a, b, c, initial, start, offset))


def accumulated(given: Recurrence) -> tuple[Tensor, Tensor]:
    """What the operator finds."""
    _require_tensors(x=given.x, a=given.a, b=given.b, c=given.c)
    if given.initial is not None:
        _require_tensors(initial=given.initial)
    if not torch.compiler.is_compiling():
        given = given._replace(offset=integer("offset", given.offset, 0, MAX_LENGTH))
    given = given._replace(start=positions.read("start", given.start, given.x))
    output, state = _call(torch.ops.multistep.accumulate, *given)
    return output, state


def prepare(schedule: Schedule, length: int, device: Union[str, torch.device] = "cuda") -> None:
    """Makes the schedule's tables for ``length`` keys on a device ahead of time: what the first
    call with so many keys would do, which allocates and waits. They serve every ``top_k``."""
    tables.require_usable()
    with torch.cuda.device(device):
        tables.device_schedule(schedule, length, torch.cuda.current_device())


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


def _require_tensors(**named: Any) -> None:
    """Raises TypeError naming the first that is no tensor."""
    for name, value in named.items():
        _require_tensor(name, value)


def _require_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} of type {type(value).__name__}: a tensor")
