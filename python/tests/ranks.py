"""Processes that are the ranks of a group, of gloo or NCCL, and run functions of the tests."""

import datetime
import multiprocessing
import os
import tempfile
import time

# The ranks are forked from a process that has PyTorch loaded and has done nothing with it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["numpy.random", "torch", "torch._dynamo", "multistep.distributed",
                                "pytest"])


def serve(rank, world, path, seconds, backend, channel):
    """Runs what comes through the channel as function(rank, world, *arguments)."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=f"file://{path}", rank=rank, world_size=world,
                            timeout=datetime.timedelta(seconds=seconds))
    while (task := channel.recv()) is not None:
        function, arguments = task
        try:
            channel.send((True, function(rank, world, *arguments)))
        except Exception as error:  # told to the test
            channel.send((False, f"{type(error).__name__}: {error}"))
    os._exit(0)  # a group that has failed may not end in peace


class Ranks:
    """A group of ``world`` ranks."""

    def __init__(self, world, seconds=30, backend="gloo"):
        self.world = world
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "group")
        self.channels, self.processes = [], []
        for rank in range(world):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=serve, daemon=True,
                                      args=(rank, world, path, seconds, backend, theirs))
            process.start()
            theirs.close()
            self.channels.append(ours)
            self.processes.append(process)

    def outcomes(self, function, *arguments, patience=100):
        """Of every rank (True, result), (False, error) or None where it has died."""
        for channel in self.channels:
            channel.send((function, arguments))
        end, found = time.monotonic() + patience, []
        for rank, channel in enumerate(self.channels):
            assert channel.poll(max(0, end - time.monotonic())), f"rank {rank} hangs"
            try:
                found.append(channel.recv())
            except EOFError:
                found.append(None)
        return found

    def run(self, function, *arguments):
        """The results, where no rank fails."""
        found = self.outcomes(function, *arguments)
        for rank, (good, result) in enumerate(found):
            assert good, f"rank {rank} of {self.world}: {result}"
        return [result for _, result in found]

    def close(self):
        for channel, process in zip(self.channels, self.processes):
            try:
                channel.send(None)
            except OSError:
                pass
            process.join(5)
            if process.is_alive():
                process.kill()
        self.folder.cleanup()


def execute(block, rank, world, path):
    """What torchrun does with a program, but for the store of its group."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.FileStore(path, world)
    init = dist.init_process_group
    dist.init_process_group = lambda backend: init(backend, store=store, rank=rank,
                                                   world_size=world)
    exec(block, {})
    os._exit(0)


def run_block(block, world, path):
    """Runs a program as ``world`` ranks; raises where one fails or hangs."""
    processes = [CONTEXT.Process(target=execute, args=(block, rank, world, str(path)), daemon=True)
                 for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * world
