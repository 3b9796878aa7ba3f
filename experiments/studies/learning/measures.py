"""What a trained model gets right, and whether its searches find what it is asked for."""

import statistics
import time

import numpy as np
import torch

DEPTHS = 5  # equal parts of the context, oldest first
TOKENS = 1 << 20  # at a length, in sequences of [LEAST, MOST]
LEAST, MOST = 8, 128
TOGETHER = 1 << 18  # tokens of a batch
RANKED = 64  # queries whose anchors are ranked, at a length


def autocast(device):
    """bf16 on the GPU, where the kernels are of short types."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def paths(layer, batch):
    """By head: whether the value that each query asks for lies in its window or a span that it
    keeps, and the gates of those spans; bool and float [size, heads, queries]."""
    found = layer.found[-1]
    place, size = batch.places.to(found.spans.device)[:, None, :, None], len(batch.tokens)
    spans = found.spans[:, :, batch.asked]
    holds = (spans[..., 0] <= place) & (place < spans[..., 1])
    scores = found.scores[:, :, batch.asked].float()
    gates = scores.softmax(-1).masked_fill(~holds, 0).sum(-1)
    begins = [layer.schedule.window(t)[0] for t in batch.asked.tolist()]
    begins = torch.tensor(begins, device=place.device)
    windows = (place[..., 0] >= begins).expand(size, spans.shape[1], -1)
    return (holds.any(-1) | windows).cpu(), gates.cpu()


def ranks(layer, batch, most):
    """Of up to ``most`` queries, by level: how many anchors of the level's segment, the right one
    below level 1, have a better score than the right one, by head, and how many there are. Where
    several paths lead to a value the best anchor counts. int [levels, samples, heads + 1]."""
    routing, keys, _ = layer.found
    levels = [[] for _ in routing]
    queries = [(i, j) for j in range(len(batch.asked)) for i in range(len(batch.tokens))]
    for i, j in queries[:most]:
        t, place = int(batch.asked[j]), int(batch.places[i, j])
        found = [path.anchors for path in layer.schedule.path(t, place) if path.anchors]
        if not found:
            continue  # in the window alone
        for level, ranked in enumerate(levels):
            inside = found[0][:level]
            anchors = layer.schedule.anchors(t, inside=inside)
            right = np.isin(anchors, [path[level] for path in found if path[:level] == inside])
            scores = torch.einsum("hd,hcd->hc", routing[level][i, :, t].float(),
                                  keys[i][:, torch.from_numpy(anchors).to(keys.device)].float())
            scores = scores.cpu().numpy()
            best = scores[:, right].max(1, keepdims=True)
            ranked.append([*(scores > best).sum(1).tolist(), len(anchors)])
    return levels


@torch.no_grad()
def measured(model, task, length, seed, device, size=None):
    """One row of the grid: what a run's record holds for a length."""
    size = size or min(max(TOKENS // length, LEAST), MOST)
    most = max(1, min(size, TOGETHER // length))
    right, shares, times = [], [], []
    layers = [[[], [], [[] for _ in layer.routing or [0] * (layer.schedule.steps - 1)]]
              for layer in model.attentions]
    searches = model.attentions[0].model.rule not in ("dense", "window")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for at in range(0, size, most):
        batch = task.batch(length, min(most, size - at), (seed, length, at))
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        with autocast(device):
            said = model(batch.tokens.to(device), batch.asked.to(device)).argmax(-1).cpu()
        times.append((time.perf_counter() - begin) / len(batch.tokens))
        right.append(said == batch.labels)
        shares.append((batch.places - 1) / (length - 2 * len(batch.asked)))
        for layer, (kept, mass, levels) in zip(model.attentions, layers):
            if layer.model.rule == "dense":
                continue
            for into, one in zip((kept, mass), paths(layer, batch)):
                into.append(one)
            left = RANKED - (len(levels[0]) if searches else RANKED)
            for into, one in zip(levels, ranks(layer, batch, left) if left > 0 else ()):
                into += one
    right, depth = torch.cat(right).flatten(), torch.cat(shares).flatten()
    depth = (depth * DEPTHS).long().clamp(max=DEPTHS - 1)
    row = {"length": length, "sequences": size, "accuracy": right.double().mean().item(),
           "depths": [{"right": int(right[depth == part].sum()), "asked": int((depth == part).sum())}
                      for part in range(DEPTHS)],
           "seconds": statistics.median(times),
           "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
           "layers": []}
    for kept, mass, levels in layers:
        if not kept:
            continue
        kept, mass = torch.cat(kept), torch.cat(mass).double()
        by_head = kept.double().mean((0, 2))
        row["layers"].append({
            "found": kept.any(1).double().mean().item(), "found_by_head": by_head.tolist(),
            "gate_by_head": mass.mean((0, 2)).tolist(),
            "levels": [ranked_level(level, int(by_head.argmax())) for level in levels if level]})
    return row


def ranked_level(ranked, head):
    """Of a level's right anchors in a head: the middle of their ranks, from 0, the share that no
    more than one anchor of the segment is ahead of, and the mean number of anchors."""
    ranked = np.array(ranked)
    place = ranked[:, head]
    return {"median_rank": float(np.median(place)), "of_best_two": float((place < 2).mean()),
            "anchors": float(ranked[:, -1].mean()), "samples": len(ranked)}
