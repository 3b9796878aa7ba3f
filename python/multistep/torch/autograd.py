"""What PyTorch does to the operators: gradients, and vmap, which maps over their batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from .._problem import Arguments
from .._recurrence import Recurrence
from . import operators

_TENSOR = object()  # stands for one that PyTorch keeps


def _keep(ctx: Any, operands: Sequence[Any]) -> None:
    """Keeps an operator's arguments for its gradient. Runs at the forward, where one that there is
    not is refused: whoever will not go back says torch.no_grad()."""
    if operands[0].device.type == "cuda":
        raise NotImplementedError("multistep: no gradients on the GPU yet; use torch.no_grad() or "
                                  "CPU tensors")
    tensors: list[Tensor] = []

    def take(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [take(one) for one in value]
        if not isinstance(value, Tensor):
            return value
        tensors.append(value)
        return _TENSOR

    ctx.operands = take(operands)
    ctx.save_for_backward(*tensors)


def _kept(ctx: Any) -> list[Any]:
    tensors = iter(ctx.saved_tensors)

    def give(value: Any) -> Any:
        if isinstance(value, list):
            return [give(one) for one in value]
        return next(tensors) if value is _TENSOR else value

    return list(map(give, ctx.operands))


def _keep_for_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *operands, details = inputs
    _keep(ctx, operands)
    _, lse, window_lse, spans, scores, anchors = output
    ctx.mark_non_differentiable(*([spans, anchors] if details else
                                  [lse, window_lse, spans, scores, anchors]))
    ctx.set_materialize_grads(False)


def _attention_gradient(ctx: Any, by_output: Optional[Tensor], by_lse: Optional[Tensor],
                        by_window_lse: Optional[Tensor], _: Any, by_scores: Optional[Tensor],
                        __: Any) -> tuple[Any, ...]:
    given = Arguments(*_kept(ctx))
    dq, dk, dv, levels, dkeys = torch.ops.multistep.attention_backward(
        by_output, by_lse, by_window_lse, by_scores, *given)
    gradients = dict.fromkeys(Arguments._fields)
    gradients.update(q=dq, k=dk, v=dv, routing_queries=list(levels.unbind(0)),
                     search_keys=None if given.search_keys is None else dkeys)
    return (*gradients.values(), None)


def _keep_for_accumulate(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs)


def _accumulate_gradient(ctx: Any, by_output: Optional[Tensor], by_state: Optional[Tensor]
                         ) -> tuple[Any, ...]:
    given = Recurrence(*_kept(ctx))
    x = given.x
    if by_output is None:
        by_output = torch.zeros_like(x)
    if by_state is None:
        by_state = x.new_zeros((x.shape[0], x.shape[1], x.shape[3], given.b.shape[3]))
    dx, da, db, dc, first = torch.ops.multistep.accumulate_backward(by_output, by_state, *given)
    return dx, da, db, dc, None if given.initial is None else first, None, None


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


def _batched(operator: Any, batch_dims: tuple[int, ...], info: Any, in_dims: tuple[Any, ...],
             *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The operator under vmap; ``batch_dims`` say where its results have the batch."""
    size = info.batch_size
    results = operator(*[_fold(*one, size) for one in zip(arguments, in_dims)])
    return tuple(result.unflatten(dim, (size, result.shape[dim] // size))
                 for result, dim in zip(results, batch_dims)), batch_dims


def _register(operator: Any, batch_dims: tuple[int, ...], gradient: Callable[..., Any],
              keep: Optional[Callable[..., None]] = None) -> None:
    operator.register_autograd(gradient, setup_context=keep)
    torch.library.register_vmap(operator, functools.partial(_batched, operator, batch_dims))


_register(operators.attention, (0,) * 6, _attention_gradient, _keep_for_attention)
_register(operators.attention_backward, (0, 0, 0, 1, 0), _no_second_gradient)
_register(operators.accumulate, (0, 0), _accumulate_gradient, _keep_for_accumulate)
_register(operators.accumulate_backward, (0, 0, 0, 0, 0), _no_second_gradient)
