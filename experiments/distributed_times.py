#!/usr/bin/env python3
"""What a context costs that lies on several GPUs, beside the same on one: a decoding step in a CUDA
graph, and forward + backward. Under torchrun, a process a GPU.

    torchrun --nproc-per-node 2 distributed_times.py --output FILE [--configs A,nstep3]
        [--decode 65536,1048576] [--train 65536]
"""

import argparse
import statistics
import sys
import time

import reporting
import torch
import torch.distributed as dist
from query_times import SCHEDULES, microseconds
from sdpa_times import HEAD_DIM, HEADS, KV_HEADS, lengths

import multistep.torch
from multistep import distributed


def array(heads, length, seed, grad=False):
    """The same on every rank."""
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(1, heads, length, HEAD_DIM, device="cuda", dtype=torch.bfloat16,
                       generator=generator, requires_grad=grad)


def together(work, repeats=7):
    """Median seconds of runs that all ranks begin together, of the slowest one."""
    times = []
    for repeat in range(repeats + 2):
        dist.barrier()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took = torch.tensor(time.perf_counter() - begin, device="cuda")
        dist.all_reduce(took, dist.ReduceOp.MAX)
        if repeat > 1:
            times.append(took.item())
    return statistics.median(times)


def decoding(name, length):
    """Keys in equal parts; and all of them on every GPU, each alone."""
    schedule, ranks, rank = SCHEDULES[name], dist.get_world_size(), dist.get_rank()
    q, *routing = (array(HEADS, 1, seed) for seed in range(schedule.steps))
    k, v = (array(KV_HEADS, length, 8 + seed) for seed in range(2))
    at = torch.tensor([length], device="cuda", dtype=torch.int32)
    first, last = (length * part // ranks for part in (rank, rank + 1))
    shards = [one[:, :, first:last].contiguous() for one in (k, v)]

    def alone():
        return multistep.torch.decode(q, k, v, routing, schedule, length=at)

    def sharded():
        return distributed.decode(q, *shards, routing, schedule, key_offset=first, length=at,
                                  capacity=length)

    with torch.no_grad():
        apart = (alone() - sharded()).abs().max().item()
        times = {"one_us": microseconds(alone)}
        dist.barrier()
        times["all_us"] = microseconds(sharded)
        times["all_eager_us"] = together(sharded) * 1e6
    return {"name": name, "phase": "decode", "length": length, **times, "largest_difference": apart}


def training(name, length):
    schedule, ranks = SCHEDULES[name], dist.get_world_size()
    layout = distributed.Layout.head_tail(length, ranks)
    rows = layout.rows[dist.get_rank()]

    def both(length, attend):
        leaves = [array(heads, length, seed, grad=True) for seed, heads in
                  enumerate([HEADS, KV_HEADS, KV_HEADS] + [HEADS] * (schedule.steps - 1))]
        by_output = array(HEADS, length, 9)

        def step():
            torch.autograd.grad(attend(leaves[0], *leaves[1:3], leaves[3:]), leaves, by_output)

        torch.cuda.reset_peak_memory_stats()
        return together(step) * 1e3, torch.cuda.max_memory_allocated()

    one, one_bytes = both(length, lambda q, k, v, routing: multistep.torch.attention(
        q, k, v, routing, schedule))
    every, bytes_of_rank = both(rows, lambda q, k, v, routing: distributed.attention(
        q, k, v, routing, schedule, layout=layout))
    return {"name": name, "phase": "train", "length": length, "one_ms": one, "all_ms": every,
            "one_bytes": one_bytes, "bytes_of_rank": bytes_of_rank}


def run():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", default="A,nstep2,nstep3")
    parser.add_argument("--decode", type=lengths, default="65536,1048576,10000000")
    parser.add_argument("--train", type=lengths, default="65536")
    reporting.arguments(parser)
    given = parser.parse_args()
    if torch.cuda.device_count() < 2:
        parser.exit(77, "distributed_times.py: fewer than two CUDA devices\n")
    names = given.configs.split(",")
    if unknown := set(names) - set(SCHEDULES):
        parser.error(f"--configs {','.join(sorted(unknown))}: of {','.join(SCHEDULES)}")
    dist.init_process_group("nccl")
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    records = []
    for measure, sizes in ((decoding, given.decode), (training, given.train)):
        for length in sizes:
            for name in names:
                torch.cuda.empty_cache()
                records.append(measure(name, length))
                if dist.get_rank() == 0:
                    print(records[-1], file=sys.stderr, flush=True)
    if dist.get_rank() == 0:
        reporting.write(given, {
            "command": f"torchrun --nproc-per-node {dist.get_world_size()} "
                       f"experiments/distributed_times.py --configs {given.configs}",
            "ranks": dist.get_world_size(), "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "shape": {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM,
                      "dtype": "bfloat16"},
            "records": records})
    dist.destroy_process_group()


if __name__ == "__main__":
    run()
