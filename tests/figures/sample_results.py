"""A folder of small made-up results, with the fields of real ones and exponents that are known."""

import json
import pathlib
import random

from plots.results import BENCHES, CONFIGS, CONTEXTS, KI, MI, SCHEDULES, TEN_MILLION

HEADS, KV_HEADS, DIM = 32, 2, 128
COMMON = {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": "no", "seed": 1,
          "seconds": 1.5}
DEVICE = {"name": "Sample H100", "compute_capability": 90, "multiprocessors": 132,
          "sm_mhz_measured": 1980.0, "l2_mib": 50.0, "cuda": "13.0"}
LENGTHS = dict(zip(CONTEXTS, (4 * KI, 16 * KI, 64 * KI, 256 * KI, MI, 4 * MI, TEN_MILLION)))
DESCRIBED = {config: text for text, config in SCHEDULES.items()}


def bench_record(config, phase, length, queries, stage, l2, seconds, pairs):
    return {"config": config, "schedule": DESCRIBED[config], "steps": CONFIGS[config].steps,
            "top_k": 3 if config == "B" else 2, "phase": phase, "length": length,
            "queries": queries, "stage": stage, "graph": phase == "decode", "l2": l2,
            "median_ms": seconds * 1e3, "low_ms": seconds * 0.98e3, "high_ms": seconds * 1.03e3,
            "repeats": 50, "useful_tflops": 4 * DIM * pairs / seconds * 1e-12,
            "dense_equivalent_tflops": None,
            "bytes": 2 * 2 * DIM * pairs / HEADS * KV_HEADS if phase == "decode" else None,
            "share_of_copy_bandwidth": None, "workspace_bytes": 0,
            "compared": {"pass": True, "rows": 16}}


def bench_records(phase, length, configs):
    """Times of which a known part is fixed and the rest grows as the schedule's work."""
    queries = {"decode": 1, "whole": length,
               "prefill": min(length, 32 * KI if length <= 4 * MI else 8 * KI)}[phase]
    context = length - (queries - 1) / 2
    records = []
    for config in configs:
        work = 2 * context ** float(CONFIGS[config].growth)  # keys a query
        pairs = HEADS * queries * work
        if config == "dense":
            pairs /= 2
            seconds = pairs * 4 * DIM / 600e12 + 4e-6
            if phase == "decode":
                seconds = 10e-6 + length * 2 * 2 * DIM * KV_HEADS / 2.5e12
        else:
            fixed = {"decode": 15e-6, "prefill": queries * 20e-9, "whole": queries * 20e-9}[phase]
            seconds = fixed + pairs * 4 * DIM / (200e12 if phase != "decode" else 2e12)
        if phase == "decode":
            for l2 in ("cold", "warm"):
                records.append(bench_record(config, phase, length, 1, "attention", l2,
                                            seconds * (1 if l2 == "cold" else 0.9), pairs))
            continue
        if phase == "prefill" and config != "dense":
            for stage, share in (("search", 0.3), ("span attention", 0.4),
                                 ("window, combine", 0.2)):
                records.append(bench_record(config, phase, length, queries, stage, "cold",
                                            seconds * share, pairs * share / 2))
        records.append(bench_record(config, phase, length, queries, "attention", "cold", seconds,
                                    pairs))
    return records


def bench(records, command):
    return {**COMMON, "command": command, "device": DEVICE, "copy_bytes_per_second": 3e12,
            "shape": {"batch": 1, "num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_dim": DIM,
                      "start": 0, "dtype": "bf16", "inputs": "random"},
            "dense": "N = 1, by this project's own kernel", "records": records, "skipped": [],
            "failed": []}


def train_bench():
    """Backward is twice forward, and both together take 3.1 times as long."""
    records = []
    for length in (16 * KI, 64 * KI, 128 * KI):
        for config in ("A", "B", "nstep2", "nstep3", "even2", "dense"):
            whole = bench_records("whole", length, [config])[-1]
            for stage, share in (("forward", 1), ("backward", 2), ("forward, backward", 3.1)):
                times = {f"{which}_ms": share * whole[f"{which}_ms"]
                         for which in ("median", "low", "high")}
                records.append({**whole, **times, "phase": "train", "stage": stage})
    return bench(records, "build/gpu/multistep bench --phases train --json")


def sdpa():
    """PyTorch's: 4 ms forward at 16Ki and 16 ms both, as length squared."""
    records = []
    for length in (16 * KI, 64 * KI, 128 * KI):
        for name, share in (("A", 0.1), ("nstep2", 0.1), ("nstep3", 0.2), ("FlashAttention", 1),
                            ("cuDNN", 0.8)):
            forward = 4 * share * (length / (16 * KI)) ** 2
            records.append({"name": name, "length": length, "forward_ms": forward,
                            "forward_backward_ms": 4 * forward, "peak_bytes": length << 16})
    return {**COMMON, "command": "experiments/sdpa_times.py", "device": "Sample H100",
            "torch": "2.11.0", "records": records,
            "shape": {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": DIM, "dtype": "bfloat16"}}


def training_curve(device):
    """Losses fall from 3 in a line; controls lie 0.01 above, then 0.02 below, the kernels 0.015."""
    oracle = [3 - 0.02 * step for step in range(100)]

    def run(name, moved, gap, dtype="bfloat16"):
        return {"run": name, "dtype": dtype, "moved": moved, "seconds": 1.5,
                "losses": [loss + gap(step) for step, loss in enumerate(oracle)]}

    runs = {"cpu": [run("oracle", None, lambda step: 0, "float64"),
                    run("control", None, lambda step: 0.01),
                    run("control", 3, lambda step: -0.02 * (step >= 50)),
                    run("fault", None, lambda step: 0.011 * step, "float64")],
            "cuda": [run("kernels", None, lambda step: 0.015)]}
    return {**COMMON, "command": f"experiments/studies/training_curve.py --device {device}",
            "device": DEVICE if device == "cuda" else {"name": "Sample CPU", "cores": 2},
            "torch": "2.11.0", "model": {"width": 64, "num_heads": 2, "num_kv_heads": 1,
                                         "head_dim": 64, "layers": []},
            "task": {"tokens": 16, "length": 256, "batch": 8, "periods": [16, 32]},
            "optimizer": {"name": "Adam", "rate": 0.004, "betas": [0.9, 0.98]},
            "digests": {"weights": "0" * 64, "tokens": "1" * 64},
            "kernels": [["search_tiles"]] if device == "cuda" else None, "runs": runs[device]}


def learning_run(label, rule, steps, seed, curriculum, solved, accuracy):
    """Learns in 100 steps per N and 512 keys, and 2 more by each further seed; finds what it gets
    right."""
    taken = 100 * steps * curriculum[-1] // 512 + 2 * (seed - 2) if solved else 4000
    levels = [{"median_rank": 0.5, "of_best_two": 0.9, "anchors": 8.0, "samples": 64}] * (steps - 1)
    row = {"sequences": 32, "accuracy": accuracy, "seconds": 0.01 / steps, "peak_bytes": 1 << 30,
           "depths": [{"right": int(1000 * accuracy) - part, "asked": 1000} for part in range(5)],
           "layers": [] if rule == "dense" else [
               {"found": found, "found_by_head": [found], "gate_by_head": [found / 2],
                "levels": levels} for found in (accuracy, accuracy / 2)]}
    return {"run": f"recall; {label}; seed {seed}", "digest": f"{seed:016x}", "task": "recall",
            "model": {"label": label, "rule": rule, "steps": steps, "accumulation": None,
                      "window_index": 0, "top_k": 2, "own_routing": True, "layers": 2,
                      "width": 128, "heads": 2, "schedule": "Schedule()"},
            "seed": seed, "rate": 0.002, "enough": 0.9, "further": 0,
            "help": None, "curriculum": curriculum,
            "steps": taken, "solved": solved, "diverged": False,
            "stages": [{"length": length, "batch": 16, "steps": taken // len(curriculum),
                        "solved": taken // len(curriculum) if solved else None, "seconds": 1.5,
                        "peak_bytes": 1 << 30}
                       for length in curriculum],
            "curve": [[20, 2.0, 0.5]], "grid": [{"length": length, **row}
                                                for length in (512, 2048, 8192)],
            "seconds": 1.5, "commit": COMMON["commit"], "dirty": "no"}


def learning():
    """All learn but the random choice."""
    models = [("dense", "dense", 1, True, 0.99), ("even, N = 2, ema", "even", 2, True, 0.97),
              ("even, N = 3, ema", "even", 3, True, 0.95), ("random", "random", 2, False, 0.25)]
    runs = [learning_run(label, rule, steps, seed, curriculum, solved, accuracy)
            for curriculum in ([512, 2048], [512], [1024])
            for label, rule, steps, solved, accuracy in models for seed in (1, 2, 3)]
    result = {**COMMON, "command": "experiments/studies/learning/run.py --plan headline",
              "device": {"name": "Sample H100", "cuda": "13.0"}, "torch": "2.11.0", "runs": runs}
    del result["seed"]
    return result


def values(stage, worst):
    return {"stage": stage, "kind": "values", "pass": True, "max_error": worst * 1e-3,
            "max_limit": 1e-3, "mean_error": worst * 0.8e-4, "mean_limit": 1e-4, "nans": 0}


def selection(stage, worst, differing):
    return {"stage": stage, "kind": "selection", "pass": True, "rows": 100, "paths": 200,
            "score_error": worst, "mean_score_error": worst / 3, "regret": 0.01 * differing,
            "regret_score": 1e-6,
            "histogram": {"0": 100 - differing, "to 1/8": differing, "over 1": 0}}


def accuracy():
    generator = random.Random(3)
    runs = []
    for length in (4 * KI, 64 * KI, MI):
        for dtype in ("bf16", "fp16"):
            for inputs in ("random", "clustered", "hot", "needle"):
                for config in ("A", "B", "nstep2", "nstep3"):
                    near = generator.uniform(0.4, 0.6)
                    runs.append({"schedule": DESCRIBED[config], "steps": CONFIGS[config].steps,
                                 "top_k": 2, "seed": 1, "pass": True, "device": DEVICE,
                                 "shape": {"keys": length, "dtype": dtype, "inputs": inputs},
                                 "end_to_end": {"max_error": near * 2e-3, "judged": False,
                                                "mean_error": near * 1e-4},
                                 "stages": [selection("search", near / 100, config == "B"),
                                            values("span attention", near),
                                            values("span lse", near / 9),
                                            values("window, combine", near),
                                            selection("attention: spans", near / 100, 0),
                                            values("attention: output", near / 2)]})
    return {**COMMON, "command": "experiments/gpu.sh build/gpu accuracy", "device": DEVICE,
            "runs": runs}


def scaling():
    """Exact power laws: drawn work 3 * L^(1 + 1/N), and of a path 1.2 * N * L^(1/N)."""
    lengths = [2**k for k in range(10, 41)]
    runs = []
    for config, rule, steps in (("dense", "dense", 1), ("nstep2", "nstep", 2),
                                ("nstep3", "nstep", 3), ("nstep4", "nstep", 4),
                                ("even2", "even", 2), ("aligned2", "aligned", 2),
                                ("released", "released", 2)):
        growth = 1.55 if rule == "released" else 1 + 1 / steps
        points = [{"length": n, "queries": 64, "anchors_scored": n**growth,
                   "keys_attended": 2 * n**growth, "drawn_work": 3 * n**growth,
                   "choices": 3 * n ** (1 + 1 / steps), "lower_bound": 2 * n ** (1 + 1 / steps),
                   "ratio": None if rule == "released" and n < 2048 else 1.5} for n in lengths]
        runs.append({"config": config, "rule": rule, "steps": steps, "points": points})
    last = [{"length": n, "rule": rule, "steps": steps, "work": 1.2 * steps * n ** (1 / steps),
             "lower_bound": steps * n ** (1 / steps)}
            for n in lengths for rule in ("nstep", "even", "aligned")
            for steps in range(1, n.bit_length())]
    return {**COMMON, "command": "multistep scale --json", "runs": runs, "last_query": last}


def oracle():
    records = [{"config": f"nstep{steps}" if steps > 1 else "dense", "steps": steps, "length": n,
                "queries": n, "seconds": [1e-7 * n ** (1 + 1 / steps) * noise
                                          for noise in (0.99, 1, 1.02)]}
               for steps in (1, 2, 3, 4) for n in (1024, 4096, 16384, 65536)
               if steps > 1 or n <= 16384]
    return {**COMMON, "command": "multistep attend --json",
            "device": {"name": "Sample CPU", "cores": 2}, "records": records}


METHODS = ("float exp log", "float pow", "double pow")


def audit():
    shares = dict(zip(METHODS, (0.66, 0.2, 0.0)))
    exponents = [{"exponent": exponent, "method": method, "limit": 10_000_000, "stripes": 1000,
                  "wrong": round(1000 * shares[method]), "share": shares[method],
                  "largest_error": 23 if shares[method] else 0, "first_wrong": None}
                 for exponent in ("2", "20/11", "3/2") for method in METHODS]
    coverage = []
    for schedule in ("paper", "released", "least reach"):
        for method in ("exact", *METHODS):
            hole = schedule == "least reach" and method == "float exp log"
            coverage.append({"schedule": schedule, "method": method, "length": 1_000_000,
                             "covered": not hole, "excluded_pairs": 4321 if hole else 0,
                             "first_excluded": {"position": 898, "key": 1} if hole else None,
                             "harmless": not hole})
    return {**COMMON, "command": "multistep audit --json", "methods": list(METHODS),
            "exponents": exponents, "coverage": coverage}


def needles():
    lists = {"": [], "random": [], "blocks": []}
    for steps in (2, 3):
        for top_k in (1, 2, 4):
            for length in (4096, 65536):
                for noise in (0.0, 0.3, 1.0):
                    for depth in (0.25, 0.75):
                        for baseline, share in (("", 1 - noise / (1 + top_k)), ("random", 0.1),
                                                ("blocks", 0.02)):
                            lists[baseline].append({
                                "schedule": f"nstep{steps}", "steps": steps, "rule": "nstep",
                                "top_k": top_k, "length": length, "depth": depth, "noise": noise,
                                "trials": 1000, "found": round(1000 * share), "work": 99.0,
                                **({"baseline": baseline} if baseline else {})})
    return {**COMMON, "command": "multistep needles --json", "records": lists[""],
            "baselines": lists["random"] + lists["blocks"]}


def relatives():
    lengths = [KI << power for power in range(11)]

    def record(name, group, excluded, averaged, layers, work):
        return {"name": name, "group": group, "options": "", "excluded_pairs": excluded,
                "first_excluded": [16, 0] if excluded else None, "averaged_pairs": averaged,
                "layers": layers, "counted": name,
                "points": [{"length": length, "work": length * work(length)}
                           for length in lengths]}

    return {**COMMON, "command": "experiments/relatives.py", "length": 257, "samples": 1024,
            "records": [
                record("window", "positions", 29161, 0, None, lambda length: 512),
                record("linear", "averages", 0, 33153, 1, lambda length: 1),
                record("dsa", "content", 0, 0, 1, lambda length: length / 2),
                *(record(f"nstep, N = {steps}", "schedules", 0, 0, 1,
                         lambda length, steps=steps: steps * length ** (1 / steps))
                  for steps in (2, 3, 4))]}


def write(folder):
    """Writes the folder; returns it."""
    folder = pathlib.Path(folder)
    (folder / "cpu").mkdir(parents=True)
    (folder / "h100").mkdir()
    (folder / "h200").mkdir()
    for name in BENCHES:
        if name.endswith("whole.json"):
            configs = ("A", "B", "nstep2", "nstep3", "even2", "dense")
            records = [record for length in (4 * KI, 8 * KI, 16 * KI, 32 * KI, 64 * KI)
                       for record in bench_records("whole", length, configs)]
        else:
            length = LENGTHS[name.removeprefix("h100/context_").removesuffix(".json")]
            records = [record for phase in ("decode", "prefill")
                       for record in bench_records(phase, length, CONFIGS)
                       if (record["config"], phase, length) != ("dense", "prefill", TEN_MILLION)]
        document = bench(records, "build/gpu/multistep bench --json --output " + name)
        (folder / name).write_text(json.dumps(document))
    for name, document in (("h100/accuracy", accuracy()), ("cpu/scaling", scaling()),
                           ("cpu/oracle", oracle()), ("cpu/audit", audit()),
                           ("cpu/needles", needles()), ("cpu/relatives", relatives()),
                           ("h100/train", train_bench()),
                           ("h100/sdpa", sdpa()), ("cpu/training_curve", training_curve("cpu")),
                           ("h100/training_curve", training_curve("cuda")),
                           ("h200/learning", learning())):
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder
