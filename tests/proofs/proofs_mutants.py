#!/usr/bin/env python3
"""Breaks the definitions of proofs/ on purpose, one edit at a time, and asserts that the library's
answers then differ from theirs: what the cross-check compares holds every part of the definitions.

Usage: proofs_mutants.py ANSWERS BUILT [NAME...]

A mutant is one edit of a definition. The definitions alone, without what is proved of them, are
extracted and compiled anew; so is the unbroken text, which must answer as the library does.
Exits with 77 where BUILT has no checker, or there is no Coq.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from proofs_test import PROOFS, ask
from questions import KNOWN, asked, far, of_exponents, of_options, powers, seeded, span_lists, trees

sys.path.insert(0, str(PROOFS))
from gate import STATED, sentences

SCHEDULE, CHECKER = "statements/Schedule.v", "checker/Checker.v"
SPANS = "checker/SpanChecker.v"
FILES = [SCHEDULE, "checker/SpanLists.v", CHECKER, SPANS, "checker/Extract.v"]


class Mutant(NamedTuple):
    name: str
    file: str
    old: str  # occurs once in the file
    new: str


MUTANTS = [
    # Exact powers
    Mutant("roots one too large", SCHEDULE, "if m' ^ b <=? x then m' else m", "m'"),
    Mutant("roots of exact powers too small", SCHEDULE, "if m' ^ b <=? x", "if m' ^ b <? x"),
    Mutant("ceilings of exact roots too large", SCHEDULE, "if m ^ b <? x", "if m ^ b <=? x"),
    Mutant("ceilings rounded down", SCHEDULE, "ceil_div (x y : Z) : Z := - (- x / y)",
           "ceil_div (x y : Z) : Z := x / y"),
    Mutant("a factor's denominator forgotten", SCHEDULE,
           "ceil_div (ceil_root (den q) (num c ^ den q * n ^ num q)) (den c)",
           "ceil_root (den q) (num c ^ den q * n ^ num q)"),
    Mutant("exponents upside down", SCHEDULE, "root (den e) (i ^ num e)",
           "root (num e) (i ^ den e)"),
    Mutant("parts rounded down", SCHEDULE, "Z.log2_up (h", "Z.log2 (h"),
    Mutant("parts of another length", SCHEDULE, "steps_left - 1) 2).", "steps_left) 2)."),
    # Segments and stripes
    Mutant("the newest key not searched", SCHEDULE,
           "Segment (t + 1 - start) (t + 1) (t + 1 - start)",
           "Segment (t - start) t (t - start)"),
    Mutant("the window not nominal", SCHEDULE, "(ends n - w) (nominal n - w)",
           "(ends n - w) (nominal n)"),
    Mutant("the last stripe beyond the segment", SCHEDULE, "((n + 1) ^ den e - 1)",
           "((n + 2) ^ den e - 1)"),
    Mutant("the oldest anchor missed", SCHEDULE, "((n + 1) ^ den e - 1)", "(n ^ den e - 1)"),
    Mutant("even stripes one too few", SCHEDULE, "Even => (n - 1) / stride steps_left n + 1",
           "Even => (n - 1) / stride steps_left n"),
    Mutant("even stripes at the old end of their parts", SCHEDULE,
           "Even => (i - 1) * stride steps_left n + 1",
           "Even => i * stride steps_left n"),
    Mutant("aligned anchors at the old end of their parts", SCHEDULE,
           "(part_at steps_left n i + 1) * part steps_left n) + 1",
           "part_at steps_left n i * part steps_left n) + 1"),
    Mutant("parts counted from another key", SCHEDULE, "(ends n - 1) / part steps_left n - (i - 1)",
           "ends n / part steps_left n - (i - 1)"),
    # The window
    Mutant("the window one key longer", SCHEDULE, "floor_power (w + 1) e - 1\n",
           "floor_power (w + 1) e\n"),
    Mutant("an even window one key longer", SCHEDULE, "| Even | Aligned => w\n",
           "| Even | Aligned => w + 1\n"),
    Mutant("stripe w searched again", SCHEDULE, "| Tight _ | Power _ _ _ _ => w + 1",
           "| Tight _ | Power _ _ _ _ => Z.max 1 w"),
    Mutant("even level 1 cuts the window too", SCHEDULE,
           "| Even | Aligned => last_stripe steps_left l (beyond w n)",
           "| Even | Aligned => last_stripe steps_left l n"),
    Mutant("even parts of all keys", SCHEDULE,
           "let s := stride steps_left (n - w) in\n      Span (w",
           "let s := stride steps_left n in\n      Span (w"),
    # Spans
    Mutant("tight spans one key too long", SCHEDULE, "(Z.min n (floor_power (i + 1) e - 1))",
           "(Z.min n (floor_power (i + 1) e))"),
    Mutant("tight spans one key too short", SCHEDULE, "(Z.min n (floor_power (i + 1) e - 1))",
           "(Z.min n (floor_power (i + 1) e - 2))"),
    Mutant("the oldest tight span not clipped", SCHEDULE, "(Z.min n (floor_power (i + 1) e - 1))",
           "(floor_power (i + 1) e - 1)"),
    Mutant("backward reach one short", SCHEDULE, "(Z.min n (floor_power i e + ceil_power b n q))",
           "(Z.min n (floor_power i e + ceil_power b n q - 1))"),
    Mutant("forward reach one short", SCHEDULE, "e - 1 - ceil_power f n q))",
           "e - ceil_power f n q))"),
    Mutant("forward reach into the window", SCHEDULE, "Span (Z.max (window l w) (floor",
           "Span (Z.max 0 (floor"),
    Mutant("forward reach clipped one past the window", SCHEDULE, "Span (Z.max (window l w) (floor",
           "Span (Z.max (window l w + 1) (floor"),
    Mutant("the oldest even part not clipped", SCHEDULE, "(w + Z.min (n - w) (i * s))",
           "(w + i * s)"),
    Mutant("even parts overlap", SCHEDULE, "Span (w + (i - 1) * s) (w + Z.min",
           "Span (w + (i - 1) * s - 1) (w + Z.min"),
    Mutant("the oldest aligned part not clipped", SCHEDULE, "(ends n - Z.max (ends n - n) (j * s))",
           "(ends n - j * s)"),
    Mutant("the newest aligned part not clipped", SCHEDULE,
           "Span (ends n - Z.min (ends n - w) ((j + 1) * s))",
           "Span (ends n - (j + 1) * s)"),
    Mutant("a clipped part by its own length", SCHEDULE,
           "| Aligned => part steps_left (beyond w n)\n    end.",
           "| Aligned => size s\n    end."),
    Mutant("a segment ends where the one above does", SCHEDULE,
           "Segment (size s) (ends n - near s)\n    match",
           "Segment (size s) (ends n)\n    match"),
    # The checker
    Mutant("the oldest key never missing", CHECKER,
           "newest (n - 1) with\n  | Some d => Some (t, t - d)",
           "newest (n - 2) with\n  | Some d => Some (t, t - d)"),
    Mutant("the last query not checked", CHECKER, "let count := Z.to_nat (len - start) in",
           "let count := Z.to_nat (len - start - 1) in"),
    Mutant("the window's keys searched", CHECKER,
           "let newest := Z.max 0 (window_of s) in\n  let spans",
           "let newest := 0 in\n  let spans"),
    Mutant("levels below keep the window", CHECKER, "| None => reached ls 0 n\n",
           "| None => reached ls 1 n\n"),
    # The checker of span lists
    Mutant("the query's own key forgotten", SPANS, "(Z.to_nat (t + 1 - start))",
           "(Z.to_nat (t - start))"),
    Mutant("the last query of a list forgotten", SPANS, "(range start (Z.to_nat (len - start)))",
           "(range start (Z.to_nat (len - 1 - start)))"),
    Mutant("the spans of newer queries too", SPANS, "fst r =? t", "fst r <=? t"),
    Mutant("queries without spans checked", SPANS, "  | [] => []\n  | spans =>", "  | spans =>"),
    Mutant("keys from the first on", SPANS, "(range start (Z.to_nat (t + 1 - start)))",
           "(range 0 (Z.to_nat (t + 1)))"),
]


def questions():
    """Contexts with holes and without, choices and powers, mixed so that a mutant soon differs."""
    kinds = [[asked("context", question) for question in [known for known, _ in KNOWN]
              + [seeded(seed) for seed in range(60)]],
             [asked("context", question._replace(length=query + 1))
              for question in of_options()[:60]
              for query in range(question.start, question.start + 6)],
             trees(of_exponents()[:40]), trees(of_options()[:60]), powers(), far()[1:], span_lists()]
    return [line for at in range(40) for kind in kinds for line in kind[at::40]]


def text_of(mutant, folder):
    """What Coq extracts the checker from: the sentences of FILES that define something, without
    statements and proofs, with the mutant's edit."""
    kept = []
    for name in FILES:
        path = folder / pathlib.Path(name).name
        text = (PROOFS / name).read_text()
        path.write_text(text.replace(mutant.old, mutant.new) if name == mutant.file else text)
        proving = False
        for sentence in sentences(path):
            word = sentence.split()[0]
            proving = word in STATED or proving
            if not proving and not sentence.startswith("From Multistep"):
                kept.append(sentence + ".\n")
            proving = proving and word not in ("Qed", "Defined")
    return "".join(kept)


def build(mutant, folder):
    (folder / "Mutant.v").write_text(text_of(mutant, folder))
    shutil.copy(PROOFS / "checker/checker.ml", folder)
    for command in (["coqc", "-q", "Mutant.v"],
                    ["ocamlopt", "-o", "check", "coverage.mli", "coverage.ml", "checker.ml"]):
        done = subprocess.run(command, cwd=folder, text=True, capture_output=True)
        if done.returncode:
            sys.exit(f"{mutant.name}: {done.stderr}")
    return folder / "check"


def first_difference(checker, lines, wanted):
    """The first question that a checker answers otherwise, or fails at."""
    for at in range(0, len(lines), 150):
        done = subprocess.run([checker], input="".join(line + "\n" for line in lines[at:at + 150]),
                              text=True, capture_output=True, timeout=600)
        answers = done.stdout.splitlines()
        answers += [None] * 150  # of one that failed
        for line, answer, want in zip(lines[at:at + 150], answers, wanted[at:at + 150]):
            if answer != want:
                return line
    return None


def main():
    library, built, *names = sys.argv[1:]
    if not (pathlib.Path(built) / "check").exists() or not shutil.which("coqc"):
        print(f"1 test of the definitions' mutants skipped: no {built}/check or no Coq; "
              "./bootstrap proofs has both")
        return 77
    wanted = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    for mutant in wanted:
        if (places := (PROOFS / mutant.file).read_text().count(mutant.old)) != 1:
            sys.exit(f"{mutant.name}: {places} places in {mutant.file}, not 1")
    lines = questions()
    answers = ask(library, lines)
    intact = Mutant("(none)", SCHEDULE, "", "")
    survivors = []

    def attempt(mutant):
        with tempfile.TemporaryDirectory() as folder:
            return mutant, first_difference(build(mutant, pathlib.Path(folder)), lines, answers)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, line in pool.map(attempt, [intact, *wanted]):
            if (line is None) != (mutant is intact):
                survivors.append(mutant.name)
            print(f"{mutant.name:46} " + ("answers as the library does" if line is None else line),
                  flush=True)
    print(f"{len(wanted)} mutants, {len(survivors)} of them not caught", *survivors, sep="; ")
    return bool(survivors or not wanted)


if __name__ == "__main__":
    sys.exit(main())
