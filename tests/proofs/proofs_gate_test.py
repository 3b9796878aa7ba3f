#!/usr/bin/env python3
"""proofs/check_axioms.sh lets the proofs pass and fails on each thing that it is there to find,
planted in a copy of the sources or in made-up answers of Coq to its theorems. Needs no Coq.

Usage: proofs_gate_test.py
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

PROOFS = pathlib.Path(__file__).resolve().parents[2] / "proofs"
GATE = PROOFS / "check_axioms.sh"

CLOSED = "Closed under the global context\n"
REAL = """Axioms:
ClassicalDedekindReals.sig_not_dec : forall P : Prop, {~ ~ P} + {~ P}
FunctionalExtensionality.functional_extensionality_dep
  : forall (A : Type) (B : A -> Type) (f g : forall x : A, B x),
    (forall x : A, f x = g x) -> f = g
"""

THEOREM = "Theorem whole : True.\nProof. exact I. Qed.\n"
EXAMPLE = "Example shown : True.\nProof. exact I. Qed.\n"
ASKED = "Print Assumptions whole.\n"
SHOWN = "Print Assumptions shown.\n"
IN_ORDER = THEOREM + EXAMPLE + ASKED + SHOWN
OTHER = IN_ORDER.replace("whole", "other").replace("shown", "seen")
LEMMA = THEOREM.replace("Theorem whole", "Lemma part")
PART = "part without its Print Assumptions"
SECOND = THEOREM.replace("True", "True with false : False")

# (what the gate says, Results.v)
ORDERS = {
    "in order": (None, IN_ORDER + OTHER),
    "no Print Assumptions": ("whole without its Print Assumptions",
                             THEOREM + EXAMPLE + SHOWN + OTHER),
    "none at the end": ("whole without its Print Assumptions", OTHER + THEOREM + EXAMPLE + SHOWN),
    "none for a corollary": ("whole without its", IN_ORDER.replace("Theorem", "Corollary")
                             .replace(ASKED, "")),
    "none after an attribute": ("whole without its",
                                "#[local] " + IN_ORDER.replace(ASKED, "")),
    "none for a global theorem": ("whole without its", "Global " + IN_ORDER.replace(ASKED, "")),
    "none on a proof's line": ("other without its", IN_ORDER.replace(
        "Qed.\n", "Qed. " + THEOREM.replace("whole", "other"), 1)),
    "none for an example": ("shown without its Print Assumptions", THEOREM + EXAMPLE + ASKED),
    "none for an example of one's own": ("seen without its",
                                         IN_ORDER + EXAMPLE.replace("shown", "seen")),
    "none for a lemma": (PART, LEMMA + IN_ORDER),
    "none for a lemma after an attribute": (PART, "#[local]" + LEMMA + IN_ORDER),
    "none for a local lemma": (PART, "Local " + LEMMA + IN_ORDER),
    "none for a lemma on a proof's line": (PART, IN_ORDER.replace("Qed.\n", f"Qed. {LEMMA}", 1)),
    "a lemma in two lines": (PART, LEMMA.replace("Lemma ", "Lemma\n  ") + IN_ORDER),
    "a lemma that is asked about": (None, LEMMA + ASKED.replace("whole", "part") + IN_ORDER),
    "all on one line": (None, IN_ORDER.replace("\n", " ") + OTHER.replace("\n", " ")),
    "match in a statement": (None, IN_ORDER.replace(
        "whole : True", "whole : match 0 with 0 => True | _ => False end")),
    "a second statement": ("whole with a second statement", SECOND + EXAMPLE + ASKED + SHOWN),
    "a proof of a definition": ("a proof of no theorem",
                                IN_ORDER + THEOREM.replace("Theorem", "Definition")),
    "a theorem that is a term": ("whole without a proof",
                             IN_ORDER.replace(".\nProof. exact I. Qed.", " := I.", 1)),
    **{word: (f"{word}: only Theorem", IN_ORDER + THEOREM.replace("Theorem", word))
       for word in ("Fact", "Remark", "Proposition", "Property", "Instance", "Let")},
    "a goal": ("Goal: only Theorem", IN_ORDER + "Goal True.\nProof. exact I. Qed.\n"),
    "a program": ("Program: only Theorem", "Program " + IN_ORDER),
    "in a module": ("Module: only Theorem", f"Module M.\n{IN_ORDER}End M.\n"),
    "in a comment": ("whole without its", THEOREM + EXAMPLE + f"(* {ASKED} *)\n"),
    "of another theorem": ("Print Assumptions other out of place",
                           THEOREM + EXAMPLE + ASKED.replace("whole", "other")),
    "no example": ("whole without an example", THEOREM + ASKED),
    "another theorem's example": ("whole without an example", OTHER + THEOREM + ASKED),
}

# (what the gate says, the file of results, Coq's answers to its theorems whole and other, of which
# the examples rest on nothing)
ANSWERS = {
    "closed": (None, "Results", [CLOSED, CLOSED]),
    "on the reals' axioms": (None, "ResultsSoftmax", [REAL, REAL]),
    "integers on the reals' axioms": ("Results.whole: a theorem about integers rests on Classical",
                                      "Results", [REAL, CLOSED]),
    "an axiom of one's own": ("ResultsSoftmax.other: rests on anything_goes",
                              "ResultsSoftmax", [REAL, f"{REAL}anything_goes : False\n"]),
    "an unchecked guard": ("Results.other: a theorem about integers rests on loop",
                           "Results", [CLOSED, "Axioms:\nloop is assumed to be guarded.\n"]),
    "an example on an axiom": ("Results.shown: a theorem about integers rests on boom",
                               "Results", [f"{CLOSED}Axioms:\nboom : False\n", ""]),
    "a section's variable": ("rests on Section", "Results",
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
    "words within words": (None, "Definition Parameterless' := 0.\n"),
    "Admitted": ("Admitted", "Lemma hole : False. Proof. Admitted.\n"),
    "admit": ("admit", "Lemma hole : False. Proof. admit. Abort.\n"),
    "Axiom": ("Axiom", "Axiom hole : False.\n"),
    "after a comment": ("Axiom", "(* (* *) *) Axiom hole : False. (* *)\n"),
    "Parameter": ("Parameter", "Local Parameter hole : False.\n"),
    "Conjecture": ("Conjecture", "Conjecture hole : False.\n"),
    "Context": ("Context", "Context (boom : False).\n"),
    "Context with an attribute": ("Context", "#[global]Context (boom : False).\n"),
    "Variable": ("Variable", "Local Variable boom : False.\n"),
    "Variables": ("Variables", "Lemma one : True. Proof. exact I. Qed. Variables boom : False.\n"),
    "Hypothesis": ("Hypothesis", "Hypothesis boom : False.\n"),
    "Hypotheses in a section": ("Hypotheses", "Section S.\nHypotheses boom : False.\nEnd S.\n"),
    "Declare Module": ("Declare Module", "Module Type B. End B.\nDeclare\t Module M : B.\n"),
    "Declare Instance": ("Declare Instance", "Declare Instance boom : Inhabited.\n"),
    "no guard": ("Unset Guard Checking", "Unset Guard\n  Checking.\n"),
    "no positivity": ("Unset Positivity Checking", "Unset Positivity Checking.\n"),
    "no guard, by attribute": ("bypass_check", "#[bypass_check(guard)]\nFixpoint f n := f n.\n"),
    "long": ("more than 400 lines", "(* *)\n" * 401),
}


def gate(*arguments):
    done = subprocess.run([GATE, *arguments], text=True, capture_output=True)
    return done.returncode, done.stderr


def problem(case, expected, answer):
    code, said = answer
    right = (code, said) == (0, "") if expected is None else code == 1 and expected in said
    return [] if right else [f"{case}: exit code {code}, {said!r}; expected {expected!r}"]


def sources(folder, case, name, text):
    """A folder with one file of results."""
    copy = pathlib.Path(folder) / case
    (copy / "statements").mkdir(parents=True)
    (copy / f"statements/{name}.v").write_text(text)
    (copy / "_CoqProject").write_text(f"statements/{name}.v\n")
    return copy


def main():
    problems = problem("the proofs as they are", None, gate(PROOFS))
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "proofs"
        (copy / "statements").mkdir(parents=True)
        for name in ("statements/Schedule.v", "_CoqProject"):
            shutil.copy(PROOFS / name, copy / name)
        target = copy / "statements/Schedule.v"
        text = target.read_text()
        for case, (expected, planted) in TEXTS.items():
            target.write_text(text + planted)
            problems += problem(case, expected, gate(copy))
        target.write_text(text)
        (copy / "statements/Unlisted.v").touch()
        problems += problem("unlisted file", "Unlisted.v: not in _CoqProject", gate(copy))

        for case, (expected, planted) in ORDERS.items():
            copy = sources(folder, case, "Results", planted)
            problems += problem(case, expected, gate(copy))
        for case, (expected, name, answers) in ANSWERS.items():
            copy = sources(folder, case, name, IN_ORDER + OTHER)
            if answers is not None:
                (copy / f"statements/{name}.log").write_text("".join(answer + CLOSED for answer in answers))
            problems += problem(case, expected, gate(copy, copy))
        copy = sources(folder, "no theorem", "Results", "")
        (copy / "statements/Results.log").touch()
        problems += problem("no theorem", "no theorem", gate(copy, copy))
    print("\n".join(problems) or f"{len(TEXTS) + len(ORDERS) + len(ANSWERS) + 3} cases")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
