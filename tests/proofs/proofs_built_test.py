#!/usr/bin/env python3
"""proofs/gate.py fails on what only Coq can see: planted in a copy of the built proofs, or in two
small files that are compiled here.

Usage: proofs_built_test.py BUILT

Exits with 77 where BUILT is not there or Coq is not.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

from proofs_gate_test import IN_ORDER, PROOFS, gate, problem, sources

# A file beside small results: (what the gate says, options of coqc, the text that is compiled, the
# text that the gate sees)
LIBRARY = {
    "nothing": (None, [], "Definition one := 1.\n", None),
    "types in types": (
        "coqchk: Constants/Inductives relying on type-in-type: Multistep.Library.all",
        ["-type-in-type"], "Definition all := (fun T (A : T) => T) Type Type.\n", None),
    "an axiom that the text has not": ("coqchk: Axioms: Multistep.Library.hole", [],
                                       "Axiom hole : False.\n", "Definition one := 1.\n"),
}


def compiled(folder, name, options=()):
    """Compiles a file; what Coq prints goes into its log, as the build keeps it."""
    paths = [word for part in ("statements", "theory", "checker") if (folder / part).exists()
             for word in ("-Q", part, "Multistep")]
    done = subprocess.run(["coqc", "-q", *paths, *options, name], cwd=folder, text=True,
                          capture_output=True)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    (folder / name).with_suffix(".log").write_text(done.stdout)


def small(folder, case, options, text, seen):
    copy = sources(folder, case, "Results", IN_ORDER)
    (copy / "theory").mkdir()
    (copy / "theory/Library.v").write_text(text)
    (copy / "_CoqProject").write_text("statements/Results.v\ntheory/Library.v\n")
    compiled(copy, "statements/Results.v")
    compiled(copy, "theory/Library.v", options)
    (copy / "theory/Library.v").write_text(seen or text)
    return copy


def main():
    built = pathlib.Path(sys.argv[1])
    if not (built / "statements/Results.vo").exists() or not shutil.which("coqchk"):
        print(f"1 test of the gate skipped: no {built} or no Coq; ./bootstrap proofs has both")
        return 77
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        for case, (expected, *library) in LIBRARY.items():
            copy = small(folder, case, *library)
            problems += problem(case, expected, gate(copy, copy))

        texts, copy = (pathlib.Path(folder) / name for name in ("texts", "built"))
        shutil.copytree(PROOFS, texts)
        shutil.copytree(built, copy)
        name = "statements/ResultsRounded.v"
        with (texts / name).open("a") as file:
            file.write("Definition statement := forall n : nat, (n = n)%nat.\n"
                       "Definition unasked : statement := fun n => eq_refl.\n")
        problems += problem("built from another text", f"{name}: not what", gate(texts, copy))
        shutil.copy(texts / name, copy / name)
        compiled(copy, name)
        problems += problem("a definition that proves",
                            "ResultsRounded.unasked: a definition that proves a proposition",
                            gate(texts, copy))
    print("\n".join(problems) or f"{len(LIBRARY) + 2} cases")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
