#!/usr/bin/env python3
"""The C++ checker and the proved one (proofs/checker/Checker.v, extracted) answer alike: covered, or
the same first hole, for seeded schedules of which many fail.

Usage: proofs_test.py PROGRAM CHECKER

Exits with 77 where CHECKER has not been built, as `./bootstrap proofs` does where Coq can be had,
and fails where it has been built from other sources than proofs/ has now.
"""

import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

COUNT = 300    # schedules of all rules but aligned
ALIGNED = 200  # schedules with aligned levels, among others
PROOFS = pathlib.Path(__file__).resolve().parents[2] / "proofs"

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


def for_checker(question):
    """The line of proofs/checker/checker.ml."""
    words = [str(question.length), str(question.start), str(question.window)]
    for level in question.levels:
        values = {"tight": level[:2], "power": level}.get(level.rule, level[:1])
        words.append(":".join(values))
    return " ".join(words)


def for_program(question):
    """The arguments of `multistep`."""
    words = ["verify", "--json", "--length", question.length, "--start", question.start,
             "--steps", len(question.levels) + 1, "--window-index", question.window]
    if question.levels:
        words += ["--exponent", question.levels[0].exponent]
        for option in ("rule", "backward", "forward", "span_exponent"):
            values = [getattr(level, option) for level in question.levels]
            words += ["--" + option.replace("_", "-"), ",".join(values)]
    return [str(word) for word in words]


def ask_checker(checker, questions):
    """The first hole of each question, or None."""
    lines = "".join(for_checker(question) + "\n" for question in questions)
    done = subprocess.run([checker], input=lines, text=True, capture_output=True, timeout=300)
    answers = done.stdout.splitlines()
    if done.returncode or len(answers) != len(questions):
        sys.exit(f"{checker}: {len(answers)} answers to {len(questions)} questions, exit code "
                 f"{done.returncode}: {done.stderr}")
    return [None if answer == "covered" else tuple(map(int, answer.split()))
            for answer in answers]


def ask_program(program, question):
    done = subprocess.run([program, *for_program(question)], text=True, capture_output=True,
                          timeout=300)
    if done.returncode not in (0, 1):
        sys.exit(f"{program} {' '.join(for_program(question))}: {done.stderr}")
    report = json.loads(done.stdout)
    first = report["first_excluded"]
    if report["covered"] is not (first is None) or done.returncode != (first is not None):
        sys.exit(f"{program}: verdict, first hole and exit code disagree for {question}")
    return first and (first["position"], first["key"])


def mismatches(questions, proved, tested):
    return [f"{for_checker(question)}\n  proved {a or 'covered'}, multistep {b or 'covered'}"
            for question, a, b in zip(questions, proved, tested, strict=True) if a != b]


def wrong_answers(answer):
    """What a checker gone wrong might say instead."""
    if answer is None:
        return [(0, 0)]
    query, key = answer
    return [None, (query + 1, key), (query, key + 1)]


def stale(built):
    """The files of PROOFS that differ from their copies in the folder of the build, and those that
    only one of the two has."""
    def texts(folder):
        return {str(path.relative_to(folder)): path.read_bytes()
                for path in [*folder.glob("*/*.v"), *folder.glob("*/checker.ml")]}
    ours, theirs = texts(PROOFS), texts(pathlib.Path(built))
    return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))


def unnoticed():
    """Where a stale build passes: copies of the sources with one file changed, added or missing."""
    problems = []
    for name in ("checker/Checker.v", "checker/checker.ml", "theory/Other.v"):
        for text in (None, "(* *)\n"):
            with tempfile.TemporaryDirectory() as folder:
                copy = pathlib.Path(folder) / "proofs"
                shutil.copytree(PROOFS, copy)
                planted = copy / name
                if text is None:
                    planted.unlink(missing_ok=True)
                else:
                    planted.write_text(text)
                expected = [] if name == "theory/Other.v" and text is None else [name]
                if stale(copy) != expected:
                    problems.append(f"{name}, {text!r}: {stale(copy)} are stale")
    return problems


def main():
    program, checker = sys.argv[1:]
    if not os.path.exists(checker):
        print(f"1 test of the proofs skipped: no {checker}; ./bootstrap proofs builds it")
        return 77
    if differ := stale(pathlib.Path(checker).parent):
        print(f"{checker}: built from other sources, {', '.join(differ)}; run ./bootstrap proofs")
        return 1
    begin = time.monotonic()
    questions = [question for question, _ in KNOWN] + [seeded(seed) for seed in range(COUNT)]
    questions += [seeded_aligned(seed) for seed in range(ALIGNED)]
    proved = ask_checker(checker, questions)
    tested = [ask_program(program, question) for question in questions]

    problems = mismatches(questions, proved, tested)
    known = [answer for _, answer in KNOWN]
    problems += mismatches(questions[:len(KNOWN)], proved[:len(KNOWN)], known)

    # That the comparison can fail: every answer, one at a time, replaced by wrong ones.
    for at, answer in enumerate(proved):
        for wrong in wrong_answers(answer):
            planted = proved[:at] + [wrong] + proved[at + 1:]
            if len(mismatches(questions, planted, proved)) != 1:
                problems.append(f"{for_checker(questions[at])}: {wrong} passes for {answer}")

    problems += unnoticed()

    holes = []
    for begin_at, count in ((len(KNOWN), COUNT), (len(KNOWN) + COUNT, ALIGNED)):
        holes.append(sum(answer is not None for answer in proved[begin_at:begin_at + count]))
        if 3 * min(holes[-1], count - holes[-1]) < count:
            problems.append(f"{holes[-1]} of {count} seeded schedules fail; a third must, a third "
                            "must not")
    if problems:
        print("\n".join(problems))
        return 1
    print(f"{len(questions)} schedules, {holes[0]} of {COUNT} seeded ones with holes and {holes[1]} of "
          f"{ALIGNED} with aligned levels, answered alike in {time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
