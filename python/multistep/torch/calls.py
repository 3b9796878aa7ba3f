"""Calls of the operators with what callers gave."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._problem import Arguments, Attended, checked, each
from .._rational import integer
from .._recurrence import Recurrence
from ..schedule import MAX_LENGTH
from . import autograd, kernels, operators, positions, ready


def attended(given: Arguments, details: bool, block_table: Optional[Tensor] = None) -> Attended:
    """What the operator finds; without ``details`` all but the output has no elements, or counts
    for nothing: gradients are taken at what was found. With keys in pages there is the output
    alone."""
    if block_table is None and not torch.compiler.is_compiling():  # what is traced is guarded
        inputs = (given.q, given.k, given.v, *given.routing_queries, given.search_keys)
        goes_back = autograd.will_go_back(inputs)
        key = None
        if not (goes_back and given.length is not None):  # which the operator refuses
            key = ready.key_of("attend" if details or goes_back else "attention", *inputs,
                               *given[4:])
        if key and goes_back:
            given = _placed(checked(each(taken, given)))
            return Attended(*autograd.PastOperator.apply(
                functools.partial(_past_operator, key, given, True), given, *inputs))
        if key:
            return _past_operator(key, given, details)
    given = each(taken, given)
    if not torch.compiler.is_compiling():  # where numbers may be symbols
        given = checked(given)
    given = _placed(given)
    operands = operators.operands(given)
    if block_table is not None:
        require_tensors(block_table=block_table)
        if autograd.will_go_back(operands):
            raise NotImplementedError("multistep: no gradients where keys lie in pages; use "
                                      "torch.no_grad()")
        output = _call(torch.ops.multistep.decode_in_pages, *operands, block_table)
        return Attended(output, *5 * [None])
    found = _call(torch.ops.multistep.attention, *operands,
                  details or autograd.will_go_back(operands))
    return Attended(*found)


def _past_operator(key: tuple[Any, ...], given: Arguments, details: bool) -> Attended:
    """What the operator would find, for which arguments like these are checked once."""
    if known := ready.find(key):
        results = operators.results_on_device(operators.operands(given), details)
        kernels.attention_again(known, _placed(given), results)
        return results
    given = _placed(checked(each(taken, given)))
    results, known = operators.attention_on_device(operators.operands(given), details)
    if known:
        ready.keep(key, known)
    return results


def _placed(given: Arguments) -> Arguments:
    """The arguments with tensors of positions."""
    if all(one is None or type(one) is Tensor
           for one in (given.length, given.start, given.cu_seqlens, given.cu_seqlens_k)):
        return given
    return given._replace(
        length=positions.read("length", given.length, given.q),
        start=positions.read("start", given.start, given.q),
        cu_seqlens=positions.boundaries("cu_seqlens", given.cu_seqlens, given.q),
        cu_seqlens_k=positions.boundaries("cu_seqlens_k", given.cu_seqlens_k, given.q))


def accumulated(given: Recurrence) -> tuple[Tensor, Tensor]:
    """What the operator finds."""
    require_tensors(x=given.x, a=given.a, b=given.b, c=given.c)
    if given.initial is not None:
        require_tensors(initial=given.initial)
    given = given._replace(x=_autocast(given.x), b=_autocast(given.b), c=_autocast(given.c))
    if not torch.compiler.is_compiling():
        given = given._replace(offset=integer("offset", given.offset, 0, MAX_LENGTH))
    given = given._replace(start=positions.read("start", given.start, given.x))
    output, state = _call(torch.ops.multistep.accumulate, *given)
    return output, state


_unpack_dual: Callable[[Tensor], Any] = forward_ad.unpack_dual


def _call(operator: Any, *arguments: Any) -> Any:
    """Calls an operator; what PyTorch's transforms cannot do with it is refused in one line."""
    # Outside forward_ad.dual_level() there are none to look for, and the look takes a while.
    for argument in arguments if forward_ad._current_level >= 0 else ():
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


def require_tensors(**named: Any) -> None:
    """Raises TypeError naming the first that is no tensor."""
    for name, value in named.items():
        require_tensor(name, value)


def require_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} of type {type(value).__name__}: a tensor")


def require_like_q(given: Arguments) -> None:
    """Raises TypeError where a tensor has another dtype or device than q."""
    def check(name: str, tensor: Tensor) -> Tensor:
        if (tensor.dtype, tensor.device) != (given.q.dtype, given.q.device):
            raise TypeError(f"{name} of {tensor.dtype} on {tensor.device}: {given.q.dtype} on "
                            f"{given.q.device} like q")
        return tensor

    each(check, given)


def taken(name: str, value: Any) -> Tensor:
    """A tensor among the arguments, in the dtype of autocast."""
    require_tensor(name, value)
    return _autocast(value)


def _autocast(tensor: Tensor) -> Tensor:
    """In the dtype of torch.autocast, which leaves float64 alone."""
    kind = tensor.device.type
    if kind not in ("cpu", "cuda") or not torch.is_autocast_enabled(kind):
        return tensor
    narrow = tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(torch.get_autocast_dtype(kind)) if narrow else tensor
