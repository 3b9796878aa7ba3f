"""Lists of runs. What comes first is worth most, so that a list that is not finished is of use: all
models with one seed, then all with the next."""

from dataclasses import replace

from .models import Model
from .training import HELPS, Run, Stage

KI = 1024
SEEDS = (1, 2, 3, 4, 5)
WINDOW = 16  # keys, of the rules that count them; stripes have windows of 15 keys, with three steps 26
STRIPES = {2: 3, 3: 2, 4: 1}  # window_index by N


def searching(rule, steps, accumulation="ema", **changes):
    """A model whose window is like the others'."""
    striped = rule in ("nstep", "paper", "window")
    return Model(rule, steps, accumulation, window_index=STRIPES[steps] if striped else WINDOW,
                 **changes)


DENSE, ALONE = Model("dense", 1), searching("window", 2, None)
RANDOM = searching("random", 2, None)
BLOCKS = searching("aligned", 2, "parts", own_routing=False)  # MoBA's selection
MODELS = (
    DENSE, *(searching("even", steps) for steps in (2, 3, 4)), BLOCKS, RANDOM, ALONE,
    *(searching("nstep", steps) for steps in (2, 3, 4)), searching("paper", 2),
    *(searching("aligned", steps, "parts") for steps in (2, 3, 4)))


def curriculum(last, most=2000):
    """Lengths from 512 on, each four times the one before, in batches of as many tokens."""
    lengths = [512]
    while lengths[-1] < last:
        lengths.append(min(4 * lengths[-1], last))
    return tuple(Stage(length, max(4, 32 * KI // length), most) for length in lengths)


def doubled(first, last):
    """Lengths, each twice the one before."""
    lengths = [first]
    while lengths[-1] < last:
        lengths.append(2 * lengths[-1])
    return tuple(lengths)


def tiny():
    """What two minutes of a processor show: recall in 64 keys, by models of one layer."""
    shape = {"layers": 1, "width": 32}
    models = (Model("dense", 1, **shape), Model("even", 2, "ema", **shape),
              Model("even", 3, "ema", **shape), Model("aligned", 2, "parts", **shape),
              Model("random", 2, **shape), Model("window", 2, window_index=2, **shape))
    return [Run("tiny", model, seed, (Stage(64, 32, 600),), (64,), rate=1e-2, enough=0.8)
            for seed in SEEDS[:3] for model in models]


def smallest():
    """The headline's beginning, for ten minutes: recall up to 2Ki keys, one seed."""
    return [Run("recall", model, 1, curriculum(2 * KI), doubled(512, 8 * KI))
            for model in (searching("even", 2), RANDOM, DENSE, searching("even", 3))]


def lengths():
    """Steps until a length is solved from random weights, without a curriculum."""
    models = (DENSE, *(searching("even", steps) for steps in (2, 3, 4)))
    return [Run("recall", model, seed, (Stage(length, max(4, 32 * KI // length), 4000),), (length,))
            for seed in SEEDS for length in doubled(512, 8 * KI) for model in models]


def headline():
    """Every model along the curriculum to 64Ki keys, measured up to four times as many."""
    return [Run(task, model, seed, curriculum(64 * KI), doubled(512, 256 * KI))
            for seed in SEEDS for task in ("recall", "needles") for model in MODELS]


def needle():
    """One needle, one question a sequence: the least there is to learn from."""
    models = (DENSE, *(searching("even", steps) for steps in (2, 3)), BLOCKS, RANDOM)
    return [Run("needle", model, seed, curriculum(64 * KI, 4000), doubled(512, 256 * KI))
            for seed in SEEDS for model in models]


def ablations():
    """One thing changed at a time in even, N = 2 and 3, to 4Ki keys: what the search looks at,
    top_k, and helps beside the loss."""
    runs = []
    for seed in SEEDS:
        for steps in (2, 3):
            first = Run("recall", searching("even", steps), seed, curriculum(4 * KI),
                        doubled(512, 16 * KI))
            models = [replace(first.model, accumulation=one) for one in (None, "ssd")]
            models += [replace(first.model, top_k=top_k) for top_k in (1, 4, 8)]
            models.append(replace(first.model, layers=4))
            runs += [first, *(replace(first, model=model) for model in models),
                     *(replace(first, help=one) for one in HELPS)]
    return runs


PLANS = {plan.__name__: plan for plan in (tiny, smallest, headline, lengths, needle, ablations)}
