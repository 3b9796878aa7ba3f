"""What PyTorch does to the operators: gradients, which go past them where the forward did, and
vmap, which maps over their batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .._problem import Arguments, Attended, Derivatives, Gradients, Kept
from .._recurrence import Recurrence, WalkGradients
from . import operators as _operators  # which are defined there
from . import kernels, ready

_TENSOR = object()  # stands for one that PyTorch keeps


def _take(value: Any, tensors: list[Tensor]) -> Any:
    """An operand without its tensors, which are appended to a list."""
    if isinstance(value, (list, tuple)):
        return [_take(one, tensors) for one in value]
    if not isinstance(value, Tensor):
        return value
    tensors.append(value)
    return _TENSOR


def _give(value: Any, tensors: Iterator[Tensor]) -> Any:
    """And back, from them in order."""
    if isinstance(value, list):
        return [_give(one, tensors) for one in value]
    return next(tensors) if value is _TENSOR else value


def _keep(ctx: Any, operands: Sequence[Any]) -> None:
    """Keeps operands of an operator's gradient. No function here may refer to itself beside tensors:
    that cycle would hold them until Python collects its garbage."""
    tensors: list[Tensor] = []
    ctx.operands = _take(operands, tensors)
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _kept(ctx: Any) -> list[Any]:
    tensors = iter(ctx.saved_tensors)
    return [_give(one, tensors) for one in ctx.operands]


def will_go_back(operands: Sequence[Any]) -> bool:
    """Will an operator with these be differentiated?"""
    if not torch.is_grad_enabled():
        return False
    tensors = [one for operand in operands
               for one in (operand if isinstance(operand, list) else [operand])]
    return any(isinstance(one, Tensor) and one.requires_grad for one in tensors)


def _keep_for_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Runs at the forward, where a gradient that there is not is refused."""
    *operands, details = inputs
    given, found = Arguments(*operands), Attended(*output)
    if not details:
        raise NotImplementedError("multistep: no gradients of the operator without details")
    if given.length is not None and given.q.device.type == "cuda":
        raise NotImplementedError("multistep: no gradients on the GPU where a length is given; use "
                                  "query_offset, or torch.no_grad()")
    _keep(ctx, [*_kept_of(found), *operands])
    ctx.mark_non_differentiable(found.spans, found.anchors)


def _kept_of(found: Attended) -> Kept:
    return Kept(found.spans, found.scores, found.anchors, found.output, found.window_lse)


def _derivatives(by_output: Optional[Tensor], by_lse: Optional[Tensor],
                 by_window_lse: Optional[Tensor], _: Any, by_scores: Optional[Tensor], __: Any
                 ) -> Derivatives:
    """By the fields of an ``Attended``."""
    return Derivatives(by_output, by_lse, by_window_lse, by_scores)


def _by_operator(by: Derivatives, *kept: Any) -> Gradients:
    """Search keys that are none have no gradient."""
    found = Gradients(*torch.ops.multistep.attention_backward(*by, *kept))
    searched = Arguments(*kept[len(Kept._fields):]).search_keys
    return found._replace(search_keys=None) if searched is None else found


def _attention_gradient(ctx: Any, *by: Any) -> tuple[Any, ...]:
    gradients = dict.fromkeys(Arguments._fields)
    gradients.update(_by_operator(_derivatives(*by), *_kept(ctx))._asdict())
    return (*gradients.values(), None)


class PastOperator(torch.autograd.Function):
    """Attention that goes past its operator, which takes PyTorch longer than the kernels take for
    a few thousand keys. It is given what finds an ``Attended``, the arguments, and the tensors among
    them that have gradients."""

    @staticmethod
    def forward(ctx: Any, find: Callable[[], Attended], given: Arguments,
                *tensors: Optional[Tensor]) -> tuple[Tensor, ...]:
        found = find()
        *inputs, search_keys = tensors
        ctx.save_for_backward(*_kept_of(found), given.start, given.cu_seqlens, given.cu_seqlens_k,
                              search_keys, *inputs)
        ctx.given = given._replace(
            q=None, k=None, v=None, routing_queries=[], start=None, search_keys=None,
            cu_seqlens=None, cu_seqlens_k=None,
            schedule=_operators.schedule_of(given.schedule.text, given.top_k))
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(found.spans, found.anchors)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *by: Any) -> tuple[Any, ...]:
        kept = ctx.saved_tensors  # asked for once: hooks may give them no second time
        *at, start, cu_seqlens, cu_seqlens_k, search_keys, q, k, v = kept[:_FIXED]
        given = ctx.given._replace(
            q=q, k=k, v=v, routing_queries=[*kept[_FIXED:]], start=start, search_keys=search_keys,
            cu_seqlens=cu_seqlens, cu_seqlens_k=cu_seqlens_k)
        found = _gradients(_derivatives(*by), Kept(*at), given)
        return (None, None, found.q, found.k, found.v, *found.routing_queries, found.search_keys)


_FIXED = len(Kept._fields) + 7  # tensors that are kept whatever the schedule


def _gradients(by: Derivatives, at: Kept, given: Arguments) -> Gradients:
    """Past the operator, where nobody sees it. (It says that there are no second derivatives.)"""
    key = None if torch.is_grad_enabled() else ready.key_of(
        "backward", *given[:3], *given.routing_queries, *given[4:], *by, *at)
    if key is None:
        return _by_operator(by, *at, *_operators.operands(given))
    results = _operators.empty_gradients(given)
    if known := ready.find(key):
        kernels.attention_backward_again(known, by, at, given, results)
    elif known := kernels.attention_backward(by, at, given, results):
        ready.keep(key, known)
    return results if given.search_keys is not None else results._replace(search_keys=None)


def _keep_for_accumulate(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs)


def _accumulate_gradient(ctx: Any, by_output: Optional[Tensor], by_state: Optional[Tensor]
                         ) -> tuple[Any, ...]:
    given = Recurrence(*_kept(ctx))
    found = WalkGradients(*torch.ops.multistep.accumulate_backward(by_output, by_state, *given))
    gradients = found if given.initial is not None else found._replace(initial=None)
    return (*gradients, None, None)


def _no_second_gradient(ctx: Any, *_: Any) -> None:
    raise NotImplementedError("multistep: no gradients of gradients")


def _fold(argument: Any, mapped: Any, size: int) -> Any:
    """An argument whose mapped dimension has become part of its batch, which stands first."""
    if isinstance(argument, (list, tuple)):
        dims = mapped if isinstance(mapped, (list, tuple)) else [None] * len(argument)
        return [_fold(one, dim, size) for one, dim in zip(argument, dims)]
    if not isinstance(argument, Tensor):
        return argument
    spread = argument.expand(size, *argument.shape) if mapped is None else \
        argument.movedim(mapped, 0)
    return spread.flatten(0, 1)


def _unfold(result: Any, size: int) -> Any:
    """And back, of a result."""
    if isinstance(result, (list, tuple)):
        return type(result)(_unfold(one, size) for one in result)
    return result.unflatten(0, (size, result.shape[0] // size))


def _mapped(operator: Any, info: Any, in_dims: tuple[Any, ...], *arguments: Any
            ) -> tuple[Any, int]:
    """The operator under vmap."""
    size = info.batch_size
    folded = [_fold(*one, size) for one in zip(arguments, in_dims)]
    return _unfold(tuple(operator(*folded)), size), 0


def _mapped_attention(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, int]:
    """Only below vmap can be seen whether there will be gradients."""
    def operator(*folded: Any) -> Any:
        *operands, details = folded
        return torch.ops.multistep.attention(*operands, details or will_go_back(operands))

    return _mapped(operator, info, in_dims, *arguments)


def _register(name: str, gradient: Callable[..., Any], keep: Optional[Callable[..., None]] = None,
              mapped: Optional[Callable[..., Any]] = None) -> None:
    operator = _operators.defined(name)
    torch.library.register_autograd(operator, gradient, setup_context=keep)
    torch.library.register_vmap(operator, mapped or functools.partial(_mapped, operator))


_register("attention", _attention_gradient, _keep_for_attention, _mapped_attention)
_register("attention_backward", _no_second_gradient)
_register("accumulate", _accumulate_gradient, _keep_for_accumulate)
_register("accumulate_backward", _no_second_gradient)
