"""Schedules and questions about them, as proofs/checker/checker.ml, tests/proofs/answers.cpp and
the program take them."""

import collections
import random

COUNT = 300    # schedules of all rules but aligned
ALIGNED = 200  # schedules with aligned levels, among others

# Level of a schedule: a rule and, where the rule uses them, exponent, factors, span exponent.
Level = collections.namedtuple("Level", "rule exponent backward forward span_exponent")
Question = collections.namedtuple("Question", "length start window levels")


def paper(exponent="2", backward="2", forward="0", span_exponent="1/2"):
    return (Level("power", exponent, backward, forward, span_exponent),)


def of_rules(*rules):
    """Levels that use no rational, or default exponents alone, M of a tight one."""
    return tuple(Level(rule, str(len(rules) + 1 - at), "1", "0", "1/2")
                 for at, rule in enumerate(rules))


# SPEC 10, SPEC 14, and the edges: dense attention, a single key, windows over everything.
KNOWN = [
    (Question(2000, 0, 0, paper(backward="1", forward="1")), (7, 0)),
    (Question(1000, 0, 0, paper(backward="19/10")), (898, 0)),
    (Question(898, 0, 0, paper(backward="19/10")), None),
    (Question(200, 0, 0, paper(exponent="5/2", backward="3")), (83, 0)),
    (Question(1000, 0, 0, paper()), None),
    (Question(200, 30, 2, paper("20/11", "3", "1", "11/20")), None),
    (Question(100, 0, 0, ()), None),
    (Question(1, 0, 0, paper()), None),
    (Question(50, 0, 60, (Level("even", "3", "3", "0", "2/3"), *paper())), None),
    (Question(300, 0, 0, of_rules("aligned")), None),
    (Question(300, 5, 3, of_rules("aligned")), None),
    (Question(300, 0, 0, of_rules("aligned", "aligned")), None),
    (Question(200, 7, 2, of_rules("aligned", "even")), None),
    (Question(200, 7, 2, of_rules("tight", "aligned")), None),
    (Question(200, 7, 2, of_rules("even", "aligned", "tight", "aligned")), None),
    (Question(50, 0, 60, of_rules("aligned", "aligned")), None),
    # Holes below aligned parts and above them; the first hangs on the nominal length of a clipped
    # part: by its own length it would be (32, 16).
    (Question(50, 7, 0, (*of_rules("aligned", "aligned"), *paper(backward="1"))), (32, 8)),
    (Question(200, 5, 3, (*of_rules("aligned"), *paper(backward="1/2"))), (12, 5)),
    (Question(200, 5, 0, (*paper(backward="1"), *of_rules("aligned"))), (12, 5)),
]


def seeded(seed):
    """A schedule of up to 5 steps, its factors around the M that closes every length."""
    draw = random.Random(seed)
    steps = draw.choice([1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5])
    # Mixed rules, or the power rule alone, which alone can fail.
    rules = draw.choice([["tight", "power", "power", "even"], ["power"]])
    return drawn(draw, steps, lambda: draw.choice(rules))


def seeded_aligned(seed):
    """The same with an aligned level, a power level, and up to two more, in any order or the aligned
    ones first: where parts lie, and how long a clipped one nominally is, shows in the holes."""
    draw = random.Random(COUNT + seed)
    more = ["aligned", "aligned", "power", "power", "tight", "even"]
    rules = ["aligned", "power", *draw.choices(more, k=draw.choice([0, 0, 1, 1, 2]))]
    draw.shuffle(rules)
    if draw.random() < 0.5:
        rules.sort(reverse=True)  # the last is level 1's
    return drawn(draw, len(rules) + 1, rules.pop)


def drawn(draw, steps, rule):
    """A schedule whose levels have the rules that `rule` gives, one after the other."""
    levels = []
    for M in range(steps, 1, -1):
        exponent = str(M)
        if M == steps:  # --exponent is level 1's
            exponent = draw.choice([exponent, exponent, "20/11", "3/2", "5/2", "7/3", "1"])
        backward = draw.choice([f"{M}", f"{10 * M - 1}/10", f"{M}/2", "5/3", "1", "2/3", "1/2"])
        forward = draw.choice(["0", "0", "1", "1/2", "2/3"])
        span_exponent = draw.choice([f"{M - 1}/{M}"] * 3 + ["1/2", "11/20"])
        levels.append(Level(rule(), exponent, backward, forward, span_exponent))
    length = draw.choice([draw.randint(1, 80), draw.randint(80, 300), draw.choice([256, 257])])
    start = draw.choice([0, 0, draw.randrange(length // 2 + 1)])
    return Question(length, start, draw.choice([0, 0, 0, 1, 2, 5]), tuple(levels))


def asked(what, question, number=None):
    """The line of proofs/checker/checker.ml about a context, or about one of its queries."""
    words = [what, str(question.length if number is None else number), str(question.start),
             str(question.window)]
    for level in question.levels:
        values = {"tight": level[:2], "power": level}.get(level.rule, level[:1])
        words.append(":".join(values))
    return " ".join(words)


def options(question):
    """The options of `multistep` for a schedule."""
    words = ["--steps", len(question.levels) + 1, "--window-index", question.window]
    if question.levels:
        words += ["--exponent", question.levels[0].exponent]
        for option in ("rule", "backward", "forward", "span_exponent"):
            values = [getattr(level, option) for level in question.levels]
            words += ["--" + option.replace("_", "-"), ",".join(values)]
    return [str(word) for word in words]


def short(question):
    """The same of at most 50 keys, for every choice of every query to be listed."""
    length = min(question.length, 50)
    return question._replace(length=length, start=min(question.start, length // 4))


def of_options():
    """Short schedules of two steps and more that the program's options can say. In dense attention
    all keys are the window's for the library, and none for Schedule.v."""
    several = [*(question for question, _ in KNOWN), *map(seeded, range(30)),
               *map(seeded_aligned, range(30))]
    return [short(question) for question in several if question.levels]


def of_exponents():
    """Short schedules with exponents of their own below level 1: the program has no option for
    them."""
    several = []
    for seed in range(60):
        question = short(seeded(seed) if seed % 2 else seeded_aligned(seed))
        draw = random.Random(seed)
        levels = [level._replace(exponent=draw.choice(["20/11", "3/2", "5/2", "1", "2"]))
                  for level in question.levels]
        several.append(question._replace(levels=tuple(levels[-3:])))
    return [question for question in several if question.levels]


def trees(schedules):
    """What each query of short schedules chooses from."""
    return [asked("tree", question, query) for question in schedules
            for query in range(question.start, question.length)]


FAR = [Question(10**6, 0, 0, of_rules("tight")), Question(10**6, 0, 100, of_rules("even")),
       Question(10**6, 12345, 0, of_rules("aligned")), Question(10**6, 0, 0, paper()),
       Question(10**6, 0, 0, paper(backward="19/10")),
       Question(10**6, 7, 3, paper("3/2", "1", "1")),
       Question(10**6, 0, 0, of_rules("tight", "even")),
       Question(10**6, 0, 0, of_rules("aligned", "aligned"))]


def far():
    """Queries of a million keys: the last, and one with a stripe just in its segment."""
    lines = [asked("query", Question(0, 0, 65, paper("20/11", "3", "1", "11/20")), 10**6)]
    for question in FAR:
        for query in (question.length - 1, 999**2 - 2):
            lines += [asked("tree", question, query), asked("query", question, query)]
    return lines


def span_lists():
    """Lists of spans at random, of a few queries of a context."""
    lines = []
    for seed in range(40):
        draw = random.Random(seed)
        length = draw.randint(1, 30)
        start = draw.randrange(length)
        words = ["spans", length, start]
        for _ in range(draw.randint(0, 12)):
            query = draw.randrange(start, length)
            begin = draw.randint(start, query)
            words.append(f"{query}:{begin}:{draw.randint(begin + 1, query + 1)}")
        lines.append(" ".join(map(str, words)))
    return lines


def powers():
    """Powers and roots up to 2^48, of perfect ones, their neighbours, and at random."""
    draw, lines = random.Random(1), []
    exponents = [(1, 1), (3, 2), (20, 11), (2, 1), (5, 2), (7, 3), (3, 1), (5, 1), (47, 1)]
    factors = ["1/2", "1", "19/10", "2", "3", "5/3", "10"]
    for _ in range(400):
        n = draw.choice([2**draw.randint(0, 48), draw.randint(1, 2**48), 10**draw.randint(0, 14)])
        up, down = draw.choice(exponents)
        lines.append(f"floor {round(n ** (down / up))} {up}/{down}")
        degree = draw.randint(1, 8)
        value = abs(round(n ** (1 / degree)) ** degree + draw.randint(-1, 1))
        lines.append(f"root {value} {degree}")
        lines.append(f"part {degree + 1} {max(1, n - draw.randint(0, 1))}")
        span_exponent = draw.choice([f"{degree}/{degree + 1}", "11/20", "1/2", "0", "1"])
        lines.append(f"ceil {draw.choice(factors)} {draw.choice([n, value])} {span_exponent}")
    return lines
