#!/usr/bin/env python3
"""What new queries at the end of a context cost, by their number: multistep.torch.attention, one
call in a CUDA graph, beside PyTorch's FlashAttention for the same queries.

    query_times.py --output FILE [--configs A,nstep3] [--lengths 65536,1048576] [--queries 1,5,64]
"""

import argparse
import itertools
import statistics
import sys

import reporting
import torch
from sdpa_times import HEAD_DIM, HEADS, KV_HEADS, OURS, SDPA, lengths
from torch.nn.attention import sdpa_kernel

import multistep.torch
from multistep import Schedule

SCHEDULES = {**OURS, "B": Schedule.preset("released"), "dense": Schedule(1)}
REPEATS = 5


def microseconds(work):
    """Median of calls of a graph, each behind the last one."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(REPEATS + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times[1:])


def flash(q, k, v):
    """Heads of a KV head as rows of it; without a mask, so the newest queries see a few keys more
    than they should: the work of as many queries that all stand last."""
    rows = q.reshape(1, KV_HEADS, -1, HEAD_DIM)
    with sdpa_kernel(SDPA["FlashAttention"]):
        return torch.nn.functional.scaled_dot_product_attention(rows, k, v)


def run():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", default=",".join(SCHEDULES))
    parser.add_argument("--lengths", type=lengths, default="65536,1048576")
    parser.add_argument("--queries", type=lengths,
                        default="1,2,4,5,8,16,32,64,128,256,512,1024,4096")
    reporting.arguments(parser)
    given = parser.parse_args()
    names = given.configs.split(",")
    unknown = [name for name in names if name not in SCHEDULES]
    if unknown:
        parser.error(f"--configs {unknown[0]}: of {', '.join(SCHEDULES)}")
    if max(given.queries) > min(given.lengths):
        parser.error(f"--queries {max(given.queries)}: at most --lengths, {min(given.lengths)}")
    if not torch.cuda.is_available():
        parser.exit(77, "query_times.py: no CUDA device\n")
    torch.manual_seed(1)

    def array(*shape):
        return torch.randn(1, *shape, HEAD_DIM, device="cuda", dtype=torch.bfloat16)

    records = []
    for length in given.lengths:
        k, v = array(KV_HEADS, length), array(KV_HEADS, length)
        for name, queries in itertools.product([*names, "FlashAttention"], given.queries):
            if name in ("dense", "FlashAttention") and queries * length > 2**29:
                continue  # seconds
            q = array(HEADS, queries)
            if name == "FlashAttention":
                time = microseconds(lambda: flash(q, k, v))
            else:
                schedule = SCHEDULES[name]
                routing = [array(HEADS, queries) for _ in range(schedule.steps - 1)]
                time = microseconds(lambda: multistep.torch.attention(
                    q, k, v, routing, schedule, query_offset=length - queries))
            records.append({"config": name, "length": length, "queries": queries,
                            "microseconds": round(time, 2)})
            print(records[-1], file=sys.stderr)
    listed = lambda values: ",".join(map(str, values))  # noqa: E731
    reporting.write(given, {
        "command": f"experiments/query_times.py --configs {given.configs} "
                   f"--lengths {listed(given.lengths)} --queries {listed(given.queries)}",
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "shape": {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "dtype": "bfloat16"},
        "records": records})


if __name__ == "__main__":
    run()
