#!/usr/bin/env python3
"""What the proofs are held to beyond compiling.

  gate.py SOURCES          the texts: what sentences they are made of, that each theorem of
                           Results*.v has a sentence, which README.md repeats, and an example that
                           uses it, and each statement there its Print Assumptions
  gate.py SOURCES --readme makes the tables of README.md from the sentences above the theorems
  gate.py SOURCES BUILT    also what Coq answered when it compiled Results*.v in BUILT, kept in
                           statements/Results*.log there, that no definition in statements/ proves
                           something, and what coqchk finds in all compiled modules

Prints every theorem, example and lemma with what it rests on, or the first thing that is wrong.
"""

import collections
import functools
import itertools
import pathlib
import re
import subprocess
import sys
import tempfile

from concurrent.futures import ThreadPoolExecutor

# Only theorems about real numbers may rest on axioms, and only on those with which Coq's library
# builds its real numbers:
REAL = {"Softmax", "RoundedMean", "ResultsSoftmax"}
ALLOWED = {
    "ClassicalDedekindReals.sig_forall_dec",  # the order of two reals is decided ...
    "ClassicalDedekindReals.sig_not_dec",     # ... classically
    "FunctionalExtensionality.functional_extensionality_dep",  # a real is a cut, a function
    "Classical_Prop.classic",  # the library's logarithm
}
LONGEST = 400  # lines of a file
CLOSED = "Closed under the global context"

# The first words of a file's sentences. No other command states, assumes, prints or loads anything.
COMMANDS = {"From", "Import", "Open", "Definition", "Fixpoint", "Inductive", "Record", "Coercion",
            "Ltac", "Theorem", "Corollary", "Lemma", "Example", "Proof", "Qed", "Defined"}
THEOREMS = {"Theorem", "Corollary"}
STATED = THEOREMS | {"Lemma", "Example"}
DEFINED = {"Definition", "Fixpoint"}
# Where a sentence must be of one form: what makes the program of the checker changes nothing in it,
# and nothing in a file of results can print what looks like an answer of Coq.
FORMS = {"From": r"From (Multistep|Coq) Require( Import)?( [\w.]+)+",
         "Print": r"Print Assumptions [\w'.]+",
         "Extraction": r'Extraction (Language OCaml|"coverage.ml"( \w+)+)'}
LIBRARY = {"Extraction", "ExtrOcamlBasic"}  # of all that Coq's library has for extraction
FORBIDDEN = r"(?<![\w'])(idtac|admit|give_up|Extr\w+)(?![\w'])"

Statement = collections.namedtuple("Statement", "kind name text")


def complain(problem):
    sys.exit(f"gate: {problem}")


def code(text):
    """A .v file without its comments, which nest, and where a string hides what would end them."""
    kept, depth, begin = [], 0, 0
    for token in re.finditer(r'\(\*|\*\)|"[^"]*"', text):
        if depth == 0:
            kept.append(text[begin:token.start()])
        begin = token.end()
        if token[0] == "(*":
            depth += 1
        elif depth == 0:
            kept.append(token[0])  # a string, or the end of "(intros *)"
        elif token[0] == "*)":
            depth -= 1
            kept.append(" ")
    return "".join([*kept, text[begin:]])


def sentences(path):
    """The sentences of a file, without the bullets and braces, "2: {" among them, before them."""
    before = r"^([-+*{}\s]|(\d+|\[\s*[\w']+\s*\]|\w+|!)\s*:\s*\{)+"
    for sentence in re.split(r"\.(?=\s|$)", code(path.read_text())):
        words = " ".join(re.sub(before, "", sentence).split())
        if words:
            yield words


def check_sentences(name, path):
    proving = False
    for sentence in sentences(path):
        word = re.match(r"[A-Z]\w*|#\[|", sentence)[0]
        allowed = COMMANDS if not proving else {"Qed", "Defined"}
        if "/Results" in name and not proving:
            allowed = allowed | {"Print"}
        if name == "checker/Extract.v":
            allowed = allowed | {"Extraction"}
        if word not in allowed and (word or not proving):
            complain(f"{name}: {sentence[:60]}: a sentence here begins with "
                     + ", ".join(sorted(allowed)))
        elif word in FORMS and not re.fullmatch(FORMS[word], sentence):
            complain(f"{name}: {sentence[:60]}: not of the form {FORMS[word]}")
        elif '"' in sentence and word != "Extraction":
            complain(f"{name}: {sentence[:60]}: no proof needs a string")
        for forbidden in re.findall(FORBIDDEN, sentence):
            if word not in FORMS or forbidden not in LIBRARY:
                complain(f"{name}: {forbidden}")
        # A "with" that no "match" has begins a second statement or definition.
        if (name.startswith("statements/") and word in STATED | DEFINED
                and len(re.findall(r"\bwith\b", sentence))
                > len(re.findall(r"\bmatch\b", sentence))):
            complain(f"{name}: {sentence[:60]}: a second one behind with")
        proving = word == "Proof" or proving and not word


def check_texts(sources):
    listed = (sources / "_CoqProject").read_text().splitlines()
    for path in sorted(sources.glob("*/*.v")):
        name = str(path.relative_to(sources))
        if len(path.read_text().splitlines()) > LONGEST:
            complain(f"{name}: more than {LONGEST} lines")
        if name not in listed:
            complain(f"{name}: not in _CoqProject")
        if re.fullmatch(r"statements/(?!Schedule\.v|Results\w*\.v).*", name):
            complain(f"{name}: statements/ has Schedule.v and Results*.v alone")
        check_sentences(name, path)


def results(folder):
    return sorted(folder.glob("statements/Results*.v"))


@functools.cache
def read_results(path):
    """The statements of a file of results, in order, and the names that it asks Coq about, with how
    many statements before; complains where one of them is not proved at once."""
    stated, asked = [], []
    open_proof = None

    def settle():
        if open_proof:
            complain(f"{path.name}: {open_proof} without a proof")

    for sentence in sentences(path):
        word, name = [*re.split(r"[ :({]+", sentence), ""][:2]
        if word in STATED:
            settle()
            open_proof = name
            stated.append([word, name, sentence])
        elif word == "Print":
            settle()
            open_proof = None
            asked.append((len(stated), sentence.split()[-1]))
        elif word in ("Qed", "Defined"):
            if not open_proof:
                complain(f"{path.name}: a proof of no theorem, lemma or example")
            open_proof = None
        elif open_proof:
            stated[-1][2] += " " + sentence
    settle()
    return [Statement(*each) for each in stated], asked


def check_order(path):
    """Each theorem, its example, which uses it, and "Print Assumptions NAME.", in this order; and
    the same question for each lemma and example, before the next theorem."""
    stated, asked = read_results(path)
    theorem, waiting, shown = None, [], ""
    for at, statement in enumerate([*stated, Statement("Theorem", None, "")]):
        for _, name in (question for question in asked if question[0] == at):
            if name not in waiting:
                complain(f"{path.name}: Print Assumptions {name} out of place")
            else:
                waiting.remove(name)
            if name == theorem and not re.search(rf"(?<![\w'.]){name}(?![\w'])", shown):
                complain(f"{path.name}: {name} without an example that uses it")
        if statement.kind in THEOREMS:
            for name in waiting:
                complain(f"{path.name}: {name} without its Print Assumptions")
            theorem, waiting, shown = statement.name, [], ""
        if statement.kind == "Example":
            shown += " " + statement.text
        waiting.append(statement.name)


# Above a theorem: its sentence, its sections of SPEC.md, and its part of the C++.
SAID = re.compile(r"^\(\*\* ((?:(?!\*\)).)+?\.)\n {4}SPEC ([\d., ]+); ((?:(?!\*\)).)+?)\. \*\)\n"
                  r"(?:Theorem|Corollary) ([\w']+)", re.M | re.S)
HEAD = ["| in words | Coq name | SPEC | C++ |", "|---|---|---|---|"]


def table(path):
    """The lines of README.md about a file of results, made from what stands above its theorems."""
    said = {match[4]: match for match in SAID.finditer(path.read_text())}
    rows = []
    for _, name, _ in (each for each in read_results(path)[0] if each.kind in THEOREMS):
        if name not in said:
            complain(f"{path.name}: {name} without its sentence, SPEC section and C++ above it")
        words, spec, counterpart = (" ".join(said[name][part].split()) for part in (1, 2, 3))
        rows.append(f"| {words} | `{name}` | {spec} | {counterpart} |")
    return HEAD + rows


def check_readme(sources, rewrite):
    """README.md has a heading for each file of results, with the file's table below it."""
    readme = sources / "README.md"
    kept, wanted, found, file = [], {}, collections.defaultdict(list), None
    for line in readme.read_text().splitlines():
        heading = re.match(r"#+ (?:.*`(Results\w*\.v)`)?", line)
        if heading:
            file = heading[1]
            if file and not (sources / "statements" / file).exists():
                complain(f"{file}: a heading of README.md, no file")
            if file:
                wanted[file] = table(sources / "statements" / file)
        if file and line.startswith("|"):
            if not found[file]:
                kept += wanted[file]
            found[file].append(line)
        else:
            kept.append(line)
    for path in results(sources):
        if path.name not in wanted:
            complain(f"{path.name}: README.md has no heading for it")
        elif not found[path.name]:
            complain(f"{path.name}: README.md has no table below its heading")
    if rewrite:
        readme.write_text("\n".join(kept) + "\n")
        return
    for file, lines in wanted.items():
        for is_line, line in itertools.zip_longest(found[file], lines, fillvalue="no more"):
            if is_line != line:
                complain(f"README.md: {is_line}: {file} says {line}; gate.py {sources} --readme "
                         "makes the tables anew")


def check_answers(sources, built):
    """What Coq answered to the questions in its files of results: axioms stand at the beginning of
    a line, their types behind or indented below."""
    for path in sorted(sources.glob("*/*.v")):
        name = path.relative_to(sources)
        if not (built / name).exists() or (built / name).read_text() != path.read_text():
            complain(f"{name}: not what {built} was built from")
    for path in results(sources):
        log = built / "statements" / f"{path.stem}.log"
        if not log.exists():
            complain(f"{log.name}: not in {log.parent}")
        stated, asked = read_results(path)
        kinds = {statement.name: statement.kind for statement in stated}
        answers = re.split(rf"^(?=(?:{CLOSED}|[A-Z][A-Za-z ]*:)$)", log.read_text(), flags=re.M)
        if answers[0] or len(answers) - 1 != len(asked):
            complain(f"{log.name}: {len(answers) - 1} answers to {len(asked)}")
        for (_, name), answer in zip(asked, answers[1:]):
            head, *lines = answer.splitlines()
            axioms = [line.split()[0] for line in lines if line.strip() and not line[0].isspace()]
            if (head == CLOSED) == bool(axioms) or head not in (CLOSED, "Axioms:"):
                complain(f"{path.stem}.{name}: {head}")
            for axiom in axioms:
                if path.stem not in REAL:
                    complain(f"{path.stem}.{name}: a theorem about integers rests on {axiom}")
                elif axiom not in ALLOWED:
                    complain(f"{path.stem}.{name}: rests on {axiom}")
            indent = "" if kinds[name] in THEOREMS else "  "
            print(f"{indent + path.stem + '.' + name:47}",
                  f"axioms: {', '.join(axioms)}" if axioms else CLOSED)


def folders(built):
    return [word for folder in sorted({path.parent for path in built.glob("*/*.vo")})
            for word in ("-Q", str(folder), "Multistep")]


def check_definitions(sources, built):
    """No definition of statements/ has a proposition for its type: it would state one unasked."""
    names = [f"{path.stem}.{sentence.split()[1]}" for path in sorted(sources.glob("statements/*.v"))
             for sentence in sentences(path) if sentence.split()[0] in DEFINED]
    names = [re.match(r"[\w'.]+", name)[0] for name in names]
    question = "".join(f"""
Goal True. let t := type of @{name} in let s := type of t in
match eval hnf in s with Prop => idtac "{name}" | _ => idtac end. Abort.""" for name in names)
    modules = " ".join(path.stem for path in sources.glob("statements/*.v"))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "Asked.v"
        file.write_text(f"From Multistep Require {modules}.{question}\n")
        done = subprocess.run(["coqc", "-q", *folders(built), file], text=True, capture_output=True)
    if done.returncode:
        complain(f"statements/: {' '.join(done.stderr.split())}")
    for name in done.stdout.split():
        complain(f"{name}: a definition that proves a proposition")


def check_kernel(built, modules):
    """coqchk, a program of its own, checks modules and all that they load, Coq's library with them,
    and tells all axioms there, and all that Coq was told not to check."""
    done = subprocess.run(["coqchk", "-silent", "-o", "-bytecode-compiler", "yes", *folders(built),
                           *(f"Multistep.{module}" for module in modules)],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    summary = re.findall(r"^\* ([^:]*): ?(.*(?:\n    .*)*)", done.stdout, re.M)
    if done.returncode or "Axioms" not in dict(summary):
        complain(f"coqchk: {' '.join(done.stdout.split())[-300:]}")
    for title, found in summary:
        for each in map(str.strip, found.split("\n")):
            real = {*modules} <= REAL and ".".join(each.split(".")[-2:]) in ALLOWED
            if each not in ("", "<none>", "Set is predicative") and not real:
                complain(f"coqchk: {title}: {each}")


def main():
    sources, *built = map(pathlib.Path, [word for word in sys.argv[1:] if word != "--readme"])
    check_texts(sources)
    for path in results(sources):
        check_order(path)
    check_readme(sources, "--readme" in sys.argv)
    if not any(read_results(path)[0] for path in results(sources)):
        complain("statements/: no theorem")
    if built:
        check_answers(sources, built[0])
        check_definitions(sources, built[0])
        modules = {path.stem for path in sources.glob("*/*.v")}
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda part: check_kernel(built[0], sorted(part)),
                          filter(None, (modules - REAL, modules & REAL))))


if __name__ == "__main__":
    main()
