"""Lists of runs. What comes first is worth most, so that a list that is not finished is of use: all
models with one seed, then all with the next."""

from dataclasses import replace

from .models import Model
from .training import HELPS, Run, Stage

KI = 1024
SEEDS = (1, 2, 3, 4, 5)
FIRST = 128  # keys, where curricula begin
WINDOW = 16  # keys, of the rules that count them; stripes have 15, with three steps 26
STRIPES = {2: 3, 3: 2, 4: 1}  # window_index by N


def searching(rule, steps, accumulation="ema", **changes):
    """A model whose window is like the others'."""
    striped = rule in ("nstep", "paper", "window")
    return Model(rule, steps, accumulation, window_index=STRIPES[steps] if striped else WINDOW,
                 **changes)


DENSE, ALONE = Model("dense", 1), searching("window", 2, None)
RANDOM = searching("random", 2, None)
BLOCKS = searching("aligned", 2, "parts", own_routing=False)  # MoBA's selection
STEPS = tuple(searching("even", steps) for steps in (2, 3, 4))
OTHER_KEYS = tuple(searching("even", 2, one) for one in (None, "ssd"))  # not moving averages
CORE = (DENSE, *STEPS, *OTHER_KEYS, BLOCKS, RANDOM, ALONE)
RULES = (*(searching("nstep", steps) for steps in (2, 3, 4)), searching("paper", 2),
         *(searching("aligned", steps, "parts") for steps in (2, 3, 4)))


def stage(length, first, later=600):
    """Batches of as many tokens, a sequence at least; the first length takes most steps."""
    return Stage(length, max(1, 32 * KI // length), first if length == FIRST else later)


def upward(first, last, by=2):
    """Lengths, each so many times the one before, up to the last."""
    lengths = [first]
    while lengths[-1] < last:
        lengths.append(min(by * lengths[-1], last))
    return tuple(lengths)


def curriculum(last, first=1500):
    """Lengths from FIRST on, each four times the one before."""
    return tuple(stage(length, first) for length in upward(FIRST, last, 4))


def tiny():
    """What two minutes of a processor show: recall in 64 keys, by models of one layer."""
    shape = {"layers": 1, "width": 32}
    models = (Model("dense", 1, **shape), Model("even", 2, "ema", **shape),
              Model("even", 3, "ema", **shape), Model("aligned", 2, "parts", **shape),
              Model("random", 2, **shape), Model("window", 2, window_index=2, **shape))
    return [Run("tiny", model, seed, (Stage(64, 32, 800),), (64,), rate=1e-2, enough=0.8,
                further=0)
            for seed in SEEDS[:3] for model in models]


def whole(task, models, first=1500, seeds=SEEDS):
    """Along the curriculum to 64Ki keys, measured up to four times as many."""
    lengths = (*upward(FIRST, 64 * KI, 4), 128 * KI, 256 * KI)
    return [Run(task, model, seed, curriculum(64 * KI, first), lengths)
            for seed in seeds for model in models]


def headline():
    """Recall by N, beside what it is compared with."""
    return whole("recall", CORE)


def rules():
    """The same under the other rules."""
    return whole("recall", RULES)


def needles():
    """A few pairs in the haystack."""
    return whole("needles", (DENSE, *STEPS, BLOCKS, RANDOM), 3000)


def needle():
    """One pair, one question a sequence: the least there is to learn from."""
    return whole("needle", (DENSE, *STEPS[:2], RANDOM), 6000, SEEDS[:3])


def slower():
    """At a third of the rate, to 8Ki keys: by one layer, where no layer before can have brought a
    value nearer; some by two; and needles."""
    lengths, runs = upward(FIRST, 128 * KI, 4), []
    few = (DENSE, *STEPS[:2], RANDOM)
    rules = (model for model in RULES if model.steps == 2)
    searches = (DENSE, *STEPS, *OTHER_KEYS, *rules, BLOCKS, RANDOM)
    for seed in SEEDS:
        for task, models, layers in (("recall", searches, 1), ("needles", few, 1),
                                     ("recall", few, 2)):
            runs += [Run(task, replace(model, layers=layers), seed, curriculum(8 * KI), lengths,
                         rate=1e-3) for model in models]
    return runs


def smallest():
    """For ten minutes: of slower() recall by one layer, one seed: dense, two that learn, and one
    that chooses at random."""
    models = (DENSE, OTHER_KEYS[1], STEPS[0], RANDOM)
    return [run for run in slower() if run.task == "recall" and run.seed == 1
            and run.model in [replace(model, layers=1) for model in models]]


def lengths():
    """Steps until a length is solved from random weights, without a curriculum."""
    return [Run("recall", model, seed, (stage(length, 2000, 2000),), (length,), further=0)
            for seed in SEEDS for length in upward(FIRST, KI) for model in (DENSE, *STEPS)]


def ablations():
    """One thing changed at a time in even, N = 2 and 3, to 2Ki keys: what the search looks at,
    top_k, layers, helps beside the loss, and the rate."""
    runs = []
    for seed in SEEDS[:3]:
        for steps in (2, 3):
            first = Run("recall", searching("even", steps), seed, curriculum(2 * KI),
                        upward(FIRST, 8 * KI, 4))
            models = [replace(first.model, accumulation=one) for one in (None, "ssd")]
            models += [replace(first.model, top_k=top_k) for top_k in (1, 4, 8)]
            models += [replace(first.model, layers=layers) for layers in (1, 4)]
            runs += [first, *(replace(first, model=model) for model in models),
                     *(replace(first, help=one) for one in HELPS), replace(first, rate=1e-3)]
    return runs


PLANS = {plan.__name__: plan for plan in (
    tiny, smallest, headline, slower, lengths, rules, needles, needle, ablations)}
