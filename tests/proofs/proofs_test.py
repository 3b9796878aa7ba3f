#!/usr/bin/env python3
"""The program, the library and the definitions of proofs/ (extracted, with the proved checker)
answer alike: the same first hole, choices, powers and spans, for seeded schedules of which many
fail.

Usage: proofs_test.py PROGRAM ANSWERS CHECKER

Exits with 77 where CHECKER has not been built, as `./bootstrap proofs` does where Coq can be had,
and fails where it has been built from other sources than proofs/ has now.
"""

import csv
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from questions import (ALIGNED, COUNT, FAR, KNOWN, asked, far, of_exponents, of_options, options,
                       powers, seeded, seeded_aligned, span_lists, trees)

PROOFS = pathlib.Path(__file__).resolve().parents[2] / "proofs"


def ask(program, lines):
    """A program's answer to each line."""
    done = subprocess.run([program], input="".join(line + "\n" for line in lines), text=True,
                          capture_output=True, timeout=900)
    answers = done.stdout.splitlines()
    if done.returncode or len(answers) != len(lines):
        sys.exit(f"{program}: {len(answers)} answers to {len(lines)} questions, exit code "
                 f"{done.returncode}: {done.stderr}")
    return answers


def verify(program, *arguments, stdin=None):
    """What `multistep verify` reports, and its first hole as the checker says it."""
    words = [program, "verify", "--json", *map(str, arguments)]
    done = subprocess.run(words, input=stdin, text=True, capture_output=True, timeout=300)
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(words)}: {done.stderr}")
    report = json.loads(done.stdout)
    first = report["first_excluded"]
    if report["covered"] is not (first is None) or done.returncode != (first is not None):
        sys.exit(f"{' '.join(words)}: verdict, first hole and exit code disagree")
    return report, "covered" if first is None else f"{first['position']} {first['key']}"


def of_context(question):
    return ["--length", question.length, "--start", question.start, *options(question)]


def mismatches(lines, proved, tested):
    return [f"{line}\n  proved {a[:500]}, tested {b[:500]}"
            for line, a, b in zip(lines, proved, tested, strict=True) if a != b]


def wrong_answers(answer):
    """What a checker gone wrong might say instead."""
    if answer == "covered":
        return ["0 0"]
    query, key = map(int, answer.split())
    return ["covered", f"{query + 1} {key}", f"{query} {key + 1}"]


def choices(tree):
    """The window's first key and the choices [level, stripe, anchor, begin, end] of a tree."""
    window, *nodes = tree.split()
    return int(window), [tuple(map(int, node.split(":"))) for node in nodes]


def expected_map(question, answers):
    """The rows of `multistep map` that the trees of all queries make, all of text."""
    rows = []
    for query, tree in enumerate(answers):
        window, nodes = choices(tree)
        row = [[query, key, int(key >= window)] for key in range(query + 1)]
        for level in range(1, len(question.levels) + 1):
            of_level = [node[2:] for node in nodes if node[0] == level]
            for key in range(query + 1):
                holding = [at for at, (_, begin, end) in enumerate(of_level) if begin <= key < end]
                row[key] += [sum(anchor == key for anchor, _, _ in of_level), len(holding),
                             holding[0] if holding else -1]
        rows += row
    return [[str(value) for value in row] for row in rows]


def final_spans(question, answers):
    """What every query can reach: (query, begin, end) of the final spans and of the window."""
    spans = []
    for query, tree in enumerate(answers, question.start):
        window, nodes = choices(tree)
        spans += [(query, *node[3:]) for node in nodes if node[0] == len(question.levels)]
        spans += [(query, window, query + 1)] if window <= query else []
    return spans


def check_lists(program, checker, question, answers, hole):
    """`map`, and `verify --spans` for all spans and for some, given what the definitions say that
    each query chooses from; and the number of pairs that `verify` counts."""
    problems = []
    if question.start == 0:
        words = [program, "map", "--length", str(question.length), *options(question)]
        done = subprocess.run(words, text=True, capture_output=True, check=True, timeout=300)
        got = list(csv.reader(io.StringIO(done.stdout)))[1:]
        if got != expected_map(question, answers):
            problems.append(f"map of {question} is another")
    spans = final_spans(question, answers)
    lines = [" ".join(map(str, ["spans", question.length, question.start,
                                *(":".join(map(str, row)) for row in rows)]))
             for rows in (spans, spans[::2], spans[1::3]) if rows]
    proved = ask(checker, lines)
    if proved[0].split(maxsplit=1)[1] != hole:
        problems.append(f"{lines[0][:100]} ...: {proved[0]}; of the context: {hole}")
    tested = []
    for line in lines:
        length, start, *rows = line.split()[1:]
        text = "query,begin,end\n" + "".join(row.replace(":", ",") + "\n" for row in rows)
        report, first = verify(program, "--spans", "-", "--length", length, "--start", start,
                               stdin=text)
        tested.append(f"{report['excluded_pairs']} {first}")
    report, first = verify(program, *of_context(question))
    return problems + mismatches([*lines, f"verify {question}"], [*proved, proved[0]],
                                 [*tested, f"{report['excluded_pairs']} {first}"])


def check_samples(program, checker, question, count, hole):
    """`verify --queries`: the hole that a sample finds is the oldest of its query; in a covered
    context none is found, and all queries find the first."""
    _, found = verify(program, *of_context(question), "--queries", count)
    if count >= question.length - question.start or hole == "covered":
        expected = hole
    else:
        # The last query is in every sample.
        query = int(found.split()[0]) if found != "covered" else question.length - 1
        expected, = ask(checker, [asked("query", question, query)])
    return mismatches([f"--queries {count} of {question}"], [expected], [found])


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
    program, library, checker = sys.argv[1:]
    if not os.path.exists(checker):
        print(f"1 test of the proofs skipped: no {checker}; ./bootstrap proofs builds it")
        return 77
    if differ := stale(pathlib.Path(checker).parent):
        print(f"{checker}: built from other sources, {', '.join(differ)}; run ./bootstrap proofs")
        return 1
    begin = time.monotonic()
    questions = [question for question, _ in KNOWN] + [seeded(seed) for seed in range(COUNT)]
    questions += [seeded_aligned(seed) for seed in range(ALIGNED)]
    lines = [asked("context", question) for question in questions]
    proved = ask(checker, lines)
    problems = mismatches(lines, proved, [verify(program, *of_context(question))[1]
                                          for question in questions])
    known = ["covered" if answer is None else "{} {}".format(*answer) for _, answer in KNOWN]
    problems += mismatches(lines[:len(KNOWN)], proved[:len(KNOWN)], known)

    # That the comparison can fail: every answer, one at a time, replaced by wrong ones.
    for at, answer in enumerate(proved):
        for wrong in wrong_answers(answer):
            planted = proved[:at] + [wrong] + proved[at + 1:]
            if len(mismatches(lines, planted, proved)) != 1:
                problems.append(f"{lines[at]}: {wrong} passes for {answer}")

    problems += unnoticed()

    holes = []
    for begin_at, count in ((len(KNOWN), COUNT), (len(KNOWN) + COUNT, ALIGNED)):
        holes.append(sum(answer != "covered" for answer in proved[begin_at:begin_at + count]))
        if 3 * min(holes[-1], count - holes[-1]) < count:
            problems.append(f"{holes[-1]} of {count} seeded schedules fail; a third must, a third "
                            "must not")

    # The structure, in the library and in what the program lists or is given.
    structure = [*powers(), *far(), *span_lists(), *trees(of_exponents())]
    problems += mismatches(structure, ask(checker, structure), ask(library, structure))
    for question in of_options():
        of_queries = trees([question])
        hole, *answers = ask(checker, [asked("context", question), *of_queries])
        problems += mismatches(of_queries, answers, ask(library, of_queries))
        problems += check_lists(program, checker, question, answers, hole)
    for question, hole in zip(questions[len(KNOWN):], proved[len(KNOWN):]):
        if question.start % 3 == 0:
            problems += check_samples(program, checker, question, 20, hole)
    for question in FAR:
        problems += check_samples(program, checker, question, 30, None)

    if problems:
        print("\n".join(problems))
        return 1
    print(f"{len(questions)} schedules, {holes[0]} of {COUNT} seeded ones with holes and {holes[1]} "
          f"of {ALIGNED} with aligned levels, {len(structure)} powers and lists of choices, "
          f"answered alike in {time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
