"""What ranks tell one another: on NCCL with CUDA tensors, on gloo with those of the CPU. A rank
that has died, or does not answer within the group's time-out, is an error on all others."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import torch
import torch.distributed as dist
from torch import Tensor

from ..torch import kernels, stages


class Gathering:
    """An exchange on its way."""

    def __init__(self, wait: Callable[[], object], result: Tensor, sent: Tensor) -> None:
        self._wait, self._result = wait, result
        self._sent = sent  # stays until everybody has it

    def wait(self) -> Tensor:
        """[ranks, ..], in rank order. On CUDA the stream waits, and not the host."""
        self._wait()
        return self._result


class Exchange:
    """A process group as it is used here."""

    def __init__(self, group: Optional[dist.ProcessGroup]) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise RuntimeError("multistep: no process group; torch.distributed."
                               "init_process_group() comes first")
        self.group = group
        self.rank: int = dist.get_rank(group)
        self.ranks: int = dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group: this process is no rank of it")

    def gather(self, what: str, tensor: Tensor) -> Gathering:
        """Starts to gather the tensors of all ranks, which have one shape and dtype."""
        tensor = tensor.contiguous()
        result = tensor.new_empty((self.ranks, *tensor.shape))
        if self.ranks == 1 or not tensor.numel():
            return Gathering(lambda: result.copy_(tensor), result, tensor)
        work = self._named(what, lambda: dist.all_gather_into_tensor(
            result.view(-1), tensor.view(-1), group=self.group, async_op=True))
        return Gathering(lambda: self._named(what, work.wait), result, tensor)

    def pass_by(self, what: str, own: Sequence[Tensor], rows: Sequence[int],
                look: Callable[..., None]) -> None:
        """Calls ``look(rank, *tensors)`` with every rank's tensors [.., .., rows[rank], ..], in
        rank order. While it looks at one's the next one's are on their way, and no others are held.
        Every rank sees them all, whether it has use for them or not."""
        def start(rank: int) -> list[Gathering]:
            return [self._from(what, rank, one, rows[rank]) for one in own]

        coming = start(0)
        for rank in range(self.ranks):
            here = [one.wait() for one in coming]
            coming = start(rank + 1) if rank + 1 < self.ranks else []
            look(rank, *here)

    def _from(self, what: str, rank: int, own: Tensor, rows: int) -> Gathering:
        """Starts to tell all ranks what one of them has."""
        shape = (*own.shape[:2], rows, *own.shape[3:])
        tensor = own.contiguous() if rank == self.rank else own.new_empty(shape)
        if self.ranks == 1 or not tensor.numel():
            return Gathering(lambda: None, tensor, tensor)
        source = rank if self.group is None else dist.get_global_rank(self.group, rank)
        work = self._named(what, lambda: dist.broadcast(tensor, source, group=self.group,
                                                        async_op=True))
        return Gathering(lambda: self._named(what, work.wait), tensor, tensor)

    def sum_parts(self, what: str, parts: Sequence[Tensor]) -> Tensor:
        """parts[r] is this rank's share of what rank r gets: the sum of all ranks' shares, added in
        rank order, so that its bits repeat."""
        if self.ranks == 1:
            return parts[0]
        own = parts[self.rank]
        received = own.new_empty((self.ranks, *own.shape))
        sent = torch.cat([part.reshape(-1) for part in parts])
        self._named(what, lambda: dist.all_to_all_single(
            received.view(-1), sent, [own.numel()] * self.ranks, [part.numel() for part in parts],
            group=self.group))
        total = received[0]
        for part in received[1:]:
            total = total + part
        return total

    def _named(self, what: str, call: Callable[[], Any]) -> Any:
        """The call; where it fails, with the exchange and the rank in the message."""
        try:
            return call()
        except RuntimeError as error:
            reason = str(error).strip().split("\n", maxsplit=1)[0]
            raise RuntimeError(f"multistep: {what} on rank {self.rank} of {self.ranks}: a rank has "
                               f"died, or was later than the group's time-out ({reason})"
                               ) from error


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Their bytes, to be sent: where they lie, if that is side by side."""
    memory = stages.memory_of(tensors)
    if memory is None:
        copies = stages.side_by_side(*((one.shape, one.dtype) for one in tensors),
                                     device=tensors[0].device)
        for copy, one in zip(copies, tensors):
            copy.copy_(one)
        memory = stages.memory_of(copies)
    assert memory is not None
    return memory


def unpack(packed: Tensor, likes: Sequence[Tensor]) -> list[Tensor]:
    """And back, from [ranks, bytes]: tensors [ranks, ..] of the shapes and dtypes of others."""
    found, at = [], 0
    for like in likes:
        one = like.new_empty((len(packed), *like.shape))
        sent = kernels.in_wide_values(packed[:, at:at + like.nbytes])
        one.view(-1).view(sent.dtype).view(sent.shape).copy_(sent)
        found.append(one)
        at += stages.padded(like.nbytes)
    return found


def agree(exchange: Exchange, call: str, check: Callable[[], dict[str, Any]],
          own: Sequence[str] = (), device: Optional[torch.device] = None) -> list[dict[str, int]]:
    """Raises on every rank where one of them refuses its arguments, or where two differ in what has
    to be alike: the values that ``check`` returns, but for those that are ranks' own. Those are
    integers; returned for every rank. It waits for the others."""
    failure: Optional[Exception] = None
    values: dict[str, Any] = {}
    try:
        values = check()
    except (TypeError, ValueError, NotImplementedError) as error:
        failure = error
    alike = [name for name in values if name not in own]
    numbers = [failure is None, _number(call), _number(",".join(alike)),
               *(values.get(name, 0) for name in own), *(_number(values[name]) for name in alike)]
    row = torch.zeros(_NUMBERS, dtype=torch.int64)
    row[:len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    rows = exchange.gather(f"agreement on {call}", row.to(device or "cpu")).wait().tolist()
    if failure is not None:
        raise failure
    for rank, row_there in enumerate(rows):
        if not row_there[0]:
            raise ValueError(f"{call}: rank {rank} refused its arguments, and says why")
    for rank, row_there in enumerate(rows):
        if row_there[1:3] != rows[0][1:3]:
            raise ValueError(f"{call}: rank {rank} makes another call than rank 0")
        for i, name in enumerate(alike, 3 + len(own)):
            if row_there[i] != rows[0][i]:
                raise ValueError(f"{name} {values[name]} on rank {exchange.rank}: rank {rank} has "
                                 "another than rank 0; all are given the same")
    return [dict(zip(own, row_there[3:])) for row_there in rows]


def is_on_host(q: Any) -> bool:
    """Is it no CUDA tensor? Then ranks agree before they compute."""
    return not (isinstance(q, Tensor) and q.device.type == "cuda")


@contextlib.contextmanager
def refusals_told(exchange: Exchange, call: str, q: Any, asked: bool) -> Iterator[None]:
    """What a rank refuses in here, before the ranks agree, is told the others where they ask: with
    tensors of the CPU, and with others where it is ``asked``."""
    try:
        yield
    except (TypeError, ValueError) as error:
        refusal, on_host = error, is_on_host(q)

        def refuse() -> dict[str, Any]:
            raise refusal

        if on_host or asked:
            agree(exchange, call, refuse, device=None if on_host else q.device)
        raise


_NUMBERS = 32  # of a rank in an agreement


def _number(value: Any) -> int:
    """The same for equal values in every process."""
    return int.from_bytes(hashlib.sha256(str(value).encode()).digest()[:7], "big")
