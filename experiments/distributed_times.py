#!/usr/bin/env python3
"""What a context costs that lies on several GPUs, beside the same on one: a decoding step in a CUDA
graph and its exchanges alone, forward + backward, and prefill with keys gathered or in turn. Under
torchrun, a process a GPU.

    torchrun --nproc-per-node 2 distributed_times.py --output FILE [--configs A,nstep3]
        [--decode 65536,1048576] [--train 65536] [--prefill 65536]
"""

import argparse
import functools
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
from multistep.distributed.exchange import Exchange


def array(heads, length, seed, grad=False):
    """The same on every rank."""
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(1, heads, length, HEAD_DIM, device="cuda", dtype=torch.bfloat16,
                       generator=generator, requires_grad=grad)


def together(work, calls=1, repeats=7):
    """Median seconds of a call, of ``calls`` that follow one another, which all ranks begin
    together; of the slowest one."""
    times = []
    for repeat in range(repeats + 2):
        dist.barrier()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        torch.cuda.synchronize()
        took = torch.tensor((time.perf_counter() - begin) / calls, device="cuda")
        dist.all_reduce(took, dist.ReduceOp.MAX)
        if repeat > 1:
            times.append(took.item())
    return statistics.median(times)


def gather_us(*shape, dtype):
    """Microseconds of a gather, of many in a graph, and the bytes of a rank."""
    exchange, sent, count = Exchange(None), torch.zeros(shape, dtype=dtype, device="cuda"), 16

    def work():
        for _ in range(count):
            exchange.gather("what is timed", sent).wait()

    return microseconds(work) / count, sent.numel() * sent.element_size()


def decoding(name, length):
    """Keys in equal parts; and, where there is room, all of them on every GPU, each alone."""
    schedule, ranks, rank = SCHEDULES[name], dist.get_world_size(), dist.get_rank()
    q, *routing = (array(HEADS, 1, seed) for seed in range(schedule.steps))
    at = torch.tensor([length], device="cuda", dtype=torch.int32)
    first, last = (length * part // ranks for part in (rank, rank + 1))
    memory = torch.cuda.get_device_properties("cuda").total_memory
    whole = 2 * KV_HEADS * length * HEAD_DIM * 2 * (1 + 1 / ranks) < 0.9 * memory
    if whole:
        k, v = (array(KV_HEADS, length, 8 + seed) for seed in range(2))
        shards = [one[:, :, first:last].contiguous() for one in (k, v)]
    else:
        shards = [array(KV_HEADS, last - first, 8 + 2 * rank + seed) for seed in range(2)]

    def alone():
        return multistep.torch.decode(q, k, v, routing, schedule, length=at)

    def sharded():
        return distributed.decode(q, *shards, routing, schedule, key_offset=first, length=at,
                                  capacity=length)

    record = {"name": name, "phase": "decode", "length": length}
    with torch.no_grad():
        if whole:
            record["one_us"] = microseconds(alone)
            record["largest_difference"] = (alone() - sharded()).abs().max().item()
        dist.barrier()
        record["all_us"] = microseconds(sharded)
        record["all_eager_us"] = together(sharded) * 1e6
    rows = (1, HEADS, 1)
    for what, shape, dtype in (("paths", (*rows, schedule.top_k, 5), torch.int32),
                               ("items", (*rows, schedule.top_k + 1, 2 * HEAD_DIM + 4),
                                torch.uint8)):
        record[f"{what}_us"], record[f"{what}_bytes"] = gather_us(*shape, dtype=dtype)
    return record


def leaves(schedule, length, grad):
    return [array(heads, length, seed, grad) for seed, heads in
            enumerate([HEADS, KV_HEADS, KV_HEADS] + [HEADS] * (schedule.steps - 1))]


def training(name, length):
    schedule = SCHEDULES[name]
    layout = distributed.Layout.head_tail(length, dist.get_world_size())

    def both(length, attend):
        given, by_output = leaves(schedule, length, True), array(HEADS, length, 9)

        def step():
            torch.autograd.grad(attend(given[0], *given[1:3], given[3:]), given, by_output)

        torch.cuda.reset_peak_memory_stats()
        return together(step, calls=4) * 1e3, torch.cuda.max_memory_allocated()

    one, one_bytes = both(length, lambda q, k, v, routing: multistep.torch.attention(
        q, k, v, routing, schedule))
    every, bytes_of_rank = both(
        layout.rows[dist.get_rank()], lambda q, k, v, routing: distributed.attention(
            q, k, v, routing, schedule, layout=layout))
    return {"name": name, "phase": "train", "length": length, "one_ms": one, "all_ms": every,
            "one_bytes": one_bytes, "bytes_of_rank": bytes_of_rank}


@torch.no_grad()
def prefill(name, length):
    schedule = SCHEDULES[name]
    layout = distributed.Layout.head_tail(length, dist.get_world_size())
    record = {"name": name, "phase": "prefill", "length": length}

    def timed(length, attend):
        q, k, v, *routing = leaves(schedule, length, False)
        torch.cuda.reset_peak_memory_stats()
        return together(lambda: attend(q, k, v, routing, schedule),
                        calls=4) * 1e3, torch.cuda.max_memory_allocated()

    record["one_ms"], record["one_bytes"] = timed(length, multistep.torch.attention)
    for prefix, in_turn in (("", False), ("turn_", True)):
        record[f"{prefix or 'all_'}ms"], record[f"{prefix}bytes_of_rank"] = timed(
            layout.rows[dist.get_rank()], functools.partial(distributed.attention, layout=layout,
                                                            in_turn=in_turn))
    return record


def _text(sizes):
    return ",".join(map(str, sizes))


def run():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", default="A,nstep2,nstep3")
    parser.add_argument("--decode", type=lengths, default="65536,1048576,10000000")
    parser.add_argument("--train", type=lengths, default="65536")
    parser.add_argument("--prefill", type=lengths, default="65536")
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
    for measure, sizes in ((decoding, given.decode), (training, given.train),
                           (prefill, given.prefill)):
        for length in sizes:
            for name in names:
                torch.cuda.empty_cache()
                records.append(measure(name, length))
                if dist.get_rank() == 0:
                    print(records[-1], file=sys.stderr, flush=True)
    if dist.get_rank() == 0:
        reporting.write(given, {
            "command": f"torchrun --nproc-per-node {dist.get_world_size()} "
                       f"experiments/distributed_times.py --configs {given.configs} "
                       f"--decode {_text(given.decode)} --train {_text(given.train)} "
                       f"--prefill {_text(given.prefill)}",
            "ranks": dist.get_world_size(), "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "shape": {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM,
                      "dtype": "bfloat16"},
            "records": records})
    dist.destroy_process_group()


if __name__ == "__main__":
    run()
