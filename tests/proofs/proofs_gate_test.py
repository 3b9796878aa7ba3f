#!/usr/bin/env python3
"""proofs/gate.py lets the proofs pass and fails on each thing that it is there to find, planted in
a copy of the sources or in made-up answers of Coq to its theorems. Needs no Coq.

Usage: proofs_gate_test.py
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PROOFS = pathlib.Path(__file__).resolve().parents[2] / "proofs"

CLOSED = "Closed under the global context\n"
REAL = """Axioms:
ClassicalDedekindReals.sig_not_dec : forall P : Prop, {~ ~ P} + {~ P}
FunctionalExtensionality.functional_extensionality_dep
  : forall (A : Type) (B : A -> Type) (f g : forall x : A, B x),
    (forall x : A, f x = g x) -> f = g
"""

SAID = "(** It is so.\n    SPEC 2; `that`. *)\n"
THEOREM = SAID + "Theorem whole : True.\nProof. exact I. Qed.\n"
EXAMPLE = "Example shown : True.\nProof. exact whole. Qed.\n"
ASKED = "Print Assumptions whole.\n"
SHOWN = "Print Assumptions shown.\n"
IN_ORDER = THEOREM + EXAMPLE + ASKED + SHOWN
OTHER = IN_ORDER.replace("whole", "other").replace("shown", "seen")
LEMMA = THEOREM.replace("Theorem whole", "Lemma part")
PART = "part without its Print Assumptions"
SECOND = THEOREM.replace("True", "True with false : False")
SENTENCE = ": a sentence here begins with"

# (what the gate says, Results.v)
ORDERS = {
    "in order": (None, IN_ORDER + OTHER),
    "no Print Assumptions": ("whole without its Print Assumptions",
                             THEOREM + EXAMPLE + SHOWN + OTHER),
    "none at the end": ("whole without its Print Assumptions", OTHER + THEOREM + EXAMPLE + SHOWN),
    "none for a corollary": ("whole without its", IN_ORDER.replace("Theorem", "Corollary")
                             .replace(ASKED, "")),
    "after an attribute": ("#[local] Theorem whole : True" + SENTENCE, "#[local] " + IN_ORDER),
    "a global theorem": ("Global Theorem whole : True" + SENTENCE, "Global " + IN_ORDER),
    "none on a proof's line": ("whole without its", IN_ORDER.replace(
        "Qed.\n", "Qed. " + THEOREM.replace("whole", "other"), 1)),
    "none for an example": ("shown without its Print Assumptions", THEOREM + EXAMPLE + ASKED),
    "none for an example of one's own": ("seen without its",
                                         IN_ORDER + EXAMPLE.replace("shown", "seen")),
    "none for a lemma": (PART, LEMMA + IN_ORDER),
    "none for a lemma on a proof's line": (PART, IN_ORDER.replace("Qed.\n", f"Qed. {LEMMA}", 1)),
    "a lemma in two lines": (PART, LEMMA.replace("Lemma ", "Lemma\n  ") + IN_ORDER),
    "a lemma that is asked about": (None, LEMMA + ASKED.replace("whole", "part") + IN_ORDER),
    "all on one line": (None, "\n".join(SAID + each.removeprefix(SAID).replace("\n", " ")
                                        for each in (IN_ORDER, OTHER))),
    "no sentence": ("whole without its sentence", IN_ORDER.removeprefix(SAID)),
    "an empty sentence": ("whole without its sentence", IN_ORDER.replace("It is so.", "")),
    "a sentence without a section": ("whole without its sentence",
                                     IN_ORDER.replace("SPEC 2; ", "")),
    "a sentence without a number": ("whole without its sentence", IN_ORDER.replace("2;", "two;")),
    "a sentence without C++": ("whole without its sentence", IN_ORDER.replace("; `that`", "")),
    "a sentence further above": ("whole without its sentence",
                                 IN_ORDER.replace(SAID, SAID + "Definition one := 1.\n")),
    "another theorem's sentence": ("other without its sentence",
                                   IN_ORDER + OTHER.removeprefix(SAID)),
    "a sentence in two lines": (None, IN_ORDER.replace("It is so.", "It\n    is so.")),
    "match in a statement": (None, IN_ORDER.replace(
        "whole : True", "whole : match 0 with 0 => True | _ => False end")),
    "a second statement": ("Theorem whole : True with false : False: a second one",
                           SECOND + EXAMPLE + ASKED + SHOWN),
    "a second definition": ("f (n : nat) : nat := n with g : True := I: a second one", IN_ORDER
                            + "Fixpoint f (n : nat) : nat := n with g : True := I.\n"),
    "a proof of a definition": ("a proof of no theorem",
                                IN_ORDER + THEOREM.replace("Theorem", "Definition")),
    "a theorem that is a term": ("whole without a proof",
                             IN_ORDER.replace(".\nProof. exact I. Qed.", " := I.", 1)),
    **{word: (f"{word} whole : True{SENTENCE}", IN_ORDER + THEOREM.replace("Theorem", word))
       for word in ("Fact", "Remark", "Proposition", "Property", "Instance", "Let")},
    "a goal": ("Goal True" + SENTENCE, IN_ORDER + "Goal True.\n"),
    "a program": ("Program Theorem whole : True" + SENTENCE, "Program " + IN_ORDER),
    "in a module": ("Module M" + SENTENCE, f"Module M.\n{IN_ORDER}"),
    "in a comment": ("whole without its", THEOREM + EXAMPLE + f"(* {ASKED} *)\n"),
    "of another theorem": ("Print Assumptions other out of place",
                           THEOREM + EXAMPLE + ASKED.replace("whole", "other")),
    "no example": ("whole without an example", THEOREM + ASKED),
    "an example of something else": ("whole without an example that uses it", THEOREM
                                     + EXAMPLE.replace("whole", "I") + ASKED + SHOWN),
    "an example that has its name in a comment": ("whole without an example that uses it", THEOREM
        + EXAMPLE.replace("exact whole", "(* whole *) exact I") + ASKED + SHOWN),
    "an example of a longer name": ("whole without an example that uses it", THEOREM
        + EXAMPLE.replace("exact whole", "exact whole'") + ASKED + SHOWN),
    "another theorem's example": ("whole without an example", OTHER + THEOREM + ASKED),
}

# (what the gate says, the file of results, Coq's answers to its theorems whole and other, of which
# the examples rest on nothing)
ANSWERS = {
    "integers on the reals' axioms": ("Results.whole: a theorem about integers rests on Classical",
                                      "Results", [REAL, CLOSED]),
    "an axiom of one's own": ("ResultsSoftmax.other: rests on anything_goes",
                              "ResultsSoftmax", [REAL, f"{REAL}anything_goes : False\n"]),
    "an unchecked guard": ("Results.other: a theorem about integers rests on loop",
                           "Results", [CLOSED, "Axioms:\nloop is assumed to be guarded.\n"]),
    "an example on an axiom": ("Results.shown: a theorem about integers rests on boom",
                               "Results", [f"{CLOSED}Axioms:\nboom : False\n", ""]),
    "a section's variable": ("Results.whole: Section Variables", "Results",
                             ["Section Variables:\nn : Z\n", CLOSED]),
    "an answer too few": ("3 answers to 4", "Results", [CLOSED, ""]),
    "an answer too many": ("5 answers to 4", "Results", [2 * CLOSED, CLOSED]),
    "no answer": ("0 answers to 4", "Results", []),
    "no log": ("Results.log: not in", "Results", None),
}

# (what the gate says, what is added to a file of a copy)
TEXTS = {
    "nothing": (None, ""),
    "words in comments": (None, "(* Admitted. (* Axiom x : False. *) admit *)\n"),
    "strings in comments": (None, '(* "*)" Axiom x : False. "(*" *)\n'),
    "words within words": (None, "Definition Parameterless' := 0.\n"),
    "an axiom between strings": ('"(*"%string: no proof needs a string',
                                 'Definition a := "(*"%string.\nAxiom hole : False.\n'),
    "Admitted": ("Admitted", "Lemma hole : False. Proof. Admitted.\n"),
    "admit": ("admit", "Lemma hole : False. Proof. admit. Qed.\n"),
    "Axiom": ("Axiom hole : False", "Axiom hole : False.\n"),
    "after a comment": ("Axiom hole", "(* (* *) *) Axiom hole : False. (* *)\n"),
    "in a proof": ("Axiom hole", "Lemma a : True. Proof. - { Axiom hole : False. exact I. }\n"),
    "in a goal's braces": (
        "Axiom hole", "Lemma a : True. Proof. 1: { Axiom hole : False. exact I. } Qed.\n"),
    "in a named goal's braces": (
        "Axiom hole", "Lemma a : True. Proof. [one] : { - Axiom hole : False. exact I. } Qed.\n"),
    "behind what ends no comment": (
        "Axiom hole", "Lemma a : True. Proof. (intros *). exact I. Qed. Axiom hole : False. (* *)\n"),
    "Parameter": ("Local Parameter", "Local Parameter hole : False.\n"),
    **{word: (f"{word} hole : False", f"{word} hole : False.\n") for word in (
        "Axioms", "Conjecture", "Variable", "Hypothesis", "Parameters", "Variables")},
    "Context": ("Context (boom : False)", "Context (boom : False).\n"),
    "an attribute": ("#[global]Context", "#[global]Context (boom : False).\n"),
    "behind a lemma": ("Variables boom",
                       "Lemma one : True. Proof. exact I. Qed. Variables boom : False.\n"),
    "a section": ("Section S", "Section S.\n"),
    "Declare Module": ("Declare Module", "Declare\t Module M : B.\n"),
    "no guard": ("Unset Guard Checking", "Unset Guard\n  Checking.\n"),
    "no guard, by attribute": ("#[bypass_check(guard)]",
                               "#[bypass_check(guard)]\nFixpoint f n := f n.\n"),
    "another file": ("Load other", "Load other.\n"),
    "a plugin": ("Declare ML Module", "Declare ML Module foo.\n"),
    "another library": ("not of the form", "From Hole Require Import False.\n"),
    "idtac": ("idtac", "Lemma a : True. Proof. idtac. exact I. Qed.\n"),
    "a message": ("no proof needs a string", 'Lemma a : True. Proof. time "x" exact I. Qed.\n'),
    "a hidden extraction": ("Extraction Inline", "Extraction Inline Z.leb.\n"),
    "an extraction of integers": ("ExtrOcamlZInt", "From Coq Require ExtrOcamlZInt.\n"),
    "long": (f"more than {400} lines", "(* *)\n" * 401),
}

FORGED = """Theorem whole : 1 = 2.
Proof. idtac "Closed under the global context". destruct boom. Qed.

Example shown : 1 = 2.
Proof. exact whole. Qed.

(* "*)" Print Assumptions whole. Print Assumptions shown. "(*" *)
"""

# Falsehoods planted in a copy of the proofs: (what the gate says, the file, what stands there, or
# None for its end, what takes its place).
FALSEHOODS = {
    "an axiom hidden between strings": (
        'ResultsRounded.v: Definition a := "(*"%string: no proof needs a string',
        "statements/ResultsRounded.v", None,
        'Definition a := "(*"%string.\nAxiom boom : False.\nDefinition b := "*)"%string.\n'),
    "an answer forged": (
        'ResultsRounded.v: idtac "Closed under the global context": no proof needs a string',
        "statements/ResultsRounded.v", None, FORGED),
    "a question in a comment": (
        "ResultsRounded.v: any_stripes_partition without its Print Assumptions",
        "statements/ResultsRounded.v", "Print Assumptions any_stripes_partition.",
        '(* "*)" Print Assumptions any_stripes_partition. "(*" *)'),
    "an example that does not use its theorem": (
        "Results.v: numerals_have_their_value without an example that uses it",
        "statements/Results.v",
        "exact (numerals_have_their_value 3 12 ltac:(lia) ltac:(lia)).", "computed."),
    "an operation of the program replaced": (
        "Extract.v: Extract Inlined Constant Z.leb", "checker/Extract.v", None,
        'Extract Inlined Constant Z.leb => "(fun _ _ -> true)".\n'),
    "integers of the machine": (
        "Extract.v: ExtrOcamlZInt", "checker/Extract.v",
        "ExtrOcamlBasic.", "ExtrOcamlBasic ExtrOcamlZInt."),
    "a row that differs from its sentence": (
        "README.md: | A greedy numeral", "README.md", "| The greedy numeral", "| A greedy numeral"),
    "a row of another name": (
        "`digits` | 2.5.1 | `greedy_path` |: Results.v says | The greedy numeral", "README.md",
        "`numerals_have_their_value`", "`digits`"),
    "a row of another section": (
        "README.md: | So every such schedule", "README.md",
        "`partitions_cover` | 2.5.1", "`partitions_cover` | 2.5.2"),
    "a theorem without a row": (
        "Results.v says | So every such schedule", "README.md",
        "| So every such schedule covers every length. | `partitions_cover` | 2.5.1 "
        "| `verify_all` |\n", ""),
    "a row without a theorem": (
        "README.md: | So is this. | `this` | 2.5.1 | `that` |: ResultsSoftmax.v says no more",
        "README.md", "\n## What is trusted", "| So is this. | `this` | 2.5.1 | `that` |\n"
        "\n## What is trusted"),
    "a sentence changed": (
        "Results.v says | A greedy numeral", "statements/Results.v", "(** The greedy numeral",
        "(** A greedy numeral"),
    "a theorem without a sentence": (
        "Results.v: numerals_have_their_value without its sentence", "statements/Results.v",
        "(** The greedy numeral", "(* The greedy numeral"),
    "a sentence without its section": (
        "Results.v: partitions_cover without its sentence", "statements/Results.v",
        "SPEC 2.5.1; `verify_all`. *)", "`verify_all`. *)"),
    "no heading": (
        "ResultsRounded.v: README.md has no heading", "README.md",
        "### Stripes that are not powers: `ResultsRounded.v`", "### Stripes that are not powers"),
}


def gate(*arguments):
    done = subprocess.run([PROOFS / "gate.py", *arguments], text=True, capture_output=True)
    return done.returncode, done.stderr.splitlines()


def problem(case, expected, answer):
    """Where the gate has not said what it must: nothing, or one line with what is expected."""
    code, said = answer
    right = answer == (0, []) if expected is None else (
        code == 1 and len(said) == 1 and expected in said[0])
    return [] if right else [f"{case}: exit code {code}, {said}; expected {expected!r}"]


def sources(folder, case, name, text):
    """A folder with one file of results, and the README.md that it should have."""
    copy = pathlib.Path(folder) / case
    (copy / "statements").mkdir(parents=True)
    (copy / f"statements/{name}.v").write_text(text)
    (copy / "_CoqProject").write_text(f"statements/{name}.v\n")
    theorems = dict.fromkeys(re.findall(r"(?:Theorem|Corollary) (whole|other)\b", text))
    (copy / "README.md").write_text(
        f"### Results: `{name}.v`\n| in words | Coq name | SPEC | C++ |\n|---|---|---|---|\n"
        + "".join(f"| It is so. | `{theorem}` | 2 | `that` |\n" for theorem in theorems))
    return copy


def planted(folder, case, name, old, new):
    """A copy of the proofs with one file changed."""
    copy = pathlib.Path(folder) / case
    shutil.copytree(PROOFS, copy)
    text = (copy / name).read_text()
    if old is not None and text.count(old) != 1:
        sys.exit(f"{case}: {text.count(old)} places in {name}, not 1")
    (copy / name).write_text(text + new if old is None else text.replace(old, new))
    return copy


def main():
    problems = problem("the proofs as they are", None, gate(PROOFS))
    with tempfile.TemporaryDirectory() as folder:
        for case, (expected, text) in TEXTS.items():
            copy = sources(folder, case, "Results", IN_ORDER)
            (copy / "theory").mkdir()
            (copy / "theory/Other.v").write_text(text)
            (copy / "_CoqProject").write_text("statements/Results.v\ntheory/Other.v\n")
            problems += problem(case, expected, gate(copy))
        copy = sources(folder, "unlisted file", "Results", IN_ORDER)
        (copy / "_CoqProject").write_text("")
        problems += problem("unlisted file", "Results.v: not in _CoqProject", gate(copy))
        for case, (expected, text) in ORDERS.items():
            problems += problem(case, expected, gate(sources(folder, case, "Results", text)))

        for case, (expected, name, answers) in ANSWERS.items():
            copy = sources(folder, case, name, IN_ORDER + OTHER)
            if answers is not None:
                (copy / f"statements/{name}.log").write_text(
                    "".join(answer + CLOSED for answer in answers))
            problems += problem(case, expected, gate(copy, copy))
        copy = sources(folder, "no theorem", "Results", "")
        (copy / "statements/Results.log").touch()
        problems += problem("no theorem", "no theorem", gate(copy, copy))

        for case, (expected, *plant) in FALSEHOODS.items():
            problems += problem(case, expected, gate(planted(folder, case, *plant)))
        case = "the tables made anew"
        copy = planted(folder, case, "README.md", "| The greedy numeral", "| A greedy numeral")
        problems += problem(case, None, gate(copy, "--readme"))
        if (copy / "README.md").read_text() != (PROOFS / "README.md").read_text():
            problems.append(f"{case}: not what they were")
        case = "a results file renamed away"
        copy = planted(folder, case, "_CoqProject", "ResultsFactor.v", "FactorResults.v")
        renamed = (copy / "statements/ResultsFactor.v").rename(copy / "statements/FactorResults.v")
        problems += problem(
            case, "FactorResults.v: statements/ has Schedule.v and Results*.v alone", gate(copy))
        renamed.unlink()
        case = "a results file removed"
        problems += problem(case, "ResultsFactor.v: a heading of README.md, no file", gate(copy))
    count = sum(map(len, (TEXTS, ORDERS, ANSWERS, FALSEHOODS))) + 6
    print("\n".join(problems) or f"{count} cases")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
