#!/usr/bin/env python3
"""Breaks the installed package, one line at a time in a copy, and expects a test to notice.

Usage: mutants.py [NAME ...]    all, or those whose file or line contains a name
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import multistep

TESTS = pathlib.Path(__file__).resolve().parent
PACKAGE = pathlib.Path(multistep.__file__).parent
try:
    import torch  # noqa: F401
    HAS_TORCH = True
except ImportError:
    HAS_TORCH = False

# file, a line's part, what it becomes, the test file that must fail
MUTANTS = [
    ("_rational.py", "if meant != Fraction(value):", "if False:", "test_schedule.py"),
    ("_rational.py", "if not low <= number <= high:", "if not low <= number:", "test_schedule.py"),
    ("schedule.py", "begin <= key < end else []", "begin < key < end else []",
     "test_schedule.py"),
    ("schedule.py", "return [single, *defaults[1:]]", "return [single] * len(defaults)",
     "test_schedule.py"),
    ("schedule.py", "first is None, checked", "True, checked", "test_schedule.py"),
    ("reports.py", "count if count < 2**63", "count if count < 2**65", "test_schedule.py"),
    ("_plot.py", '"pdf.fonttype": 42', '"pdf.fonttype": 3', "test_schedule.py"),
    ("_memory.py", "sum(cache(1, 1))", "sum(cache(1, batch))", "test_schedule.py"),
    ("_memory.py", '"bfloat16": 2', '"bfloat16": 4', "test_schedule.py"),
    ("_arrays.py", 'np.require(self.array, self.wide, ["C", "A"])', "self.array",
     "test_arguments.py"),
    ("_arrays.py", "bits <<= np.uint32(16)", "bits <<= np.uint32(15)", "test_attention.py"),
    ("oracle.py", "{host.storage}: {storage} like q", "{host.storage}", "test_arguments.py"),
    ("functions.py", "int(lengths[b]) - queries", "int(lengths[0]) - queries",
     "test_attention.py"),
    ("functions.py", "found.spans if return_spans else None", "None", "test_attention.py"),
    ("comparison.py", "passed = passed and bad == 0", "passed = True", "test_compare.py"),
    ("comparison.py", "bool(self.stages) and all(self.stages)", "bool(self.stages)",
     "test_compare.py"),
    ("comparison.py", "2 * self.undecided > self.rows", "False", "test_compare.py"),
    ("comparison.py", "return value.clone()", "return value", "test_compare.py"),
    ("comparison.py", 'value.copy(order="K") if isinstance(value, np.ndarray)',
     "value if isinstance(value, np.ndarray)", "test_compare.py"),
    ("comparison.py", 'np.isnan(submitted["lse"][used])', 'np.isinf(submitted["lse"][used])',
     "test_compare.py"),
    ("comparison.py", "np.isnan(scores)", "np.isnan(scores[:0])", "test_compare.py"),
    ("comparison.py", '(name in ("combination", "output") and undecided == len(sample))', "False",
     "test_compare.py"),
    ("comparison.py", "worst // width % slots, worst % width", "0, 0", "test_compare.py"),
    ("comparison.py", 'head % sizes.heads', '0', "test_compare.py"),
    ("probing.py", "_PLANTS = (_newer,", "_PLANTS = (_newest,", "test_probe.py"),
    ("probing.py", "if query < key}", "if query < 0}", "test_probe.py"),
    ("probing.py", "(distance > _MOVED).all(axis=1)", "(distance >= 0).all(axis=1)",
     "test_probe.py"),
    ("probing.py", "(distance > _MOVED).any(axis=1)", "(distance > _MOVED).all(axis=1)",
     "test_probe.py"),
    ("probing.py", "own = m if m < _ATTEND else m + 1", "own = 0", "test_probe.py"),
    ("schedule.py", "if not len(columns[0]):", "if False:", "test_schedule.py"),
    ("torch.py", "integer(name, value, 0, high), dtype=torch.int64",
     "int(value), dtype=torch.int64", "test_torch.py"),
    ("authors.py", "np.where(none, 0, last + 1)", "np.where(none, 0, last)", "test_probe.py"),
    ("_operators.py", "ctx.mark_non_differentiable(*output[1:])", "pass", "test_torch.py"),
    ("_operators.py", "dkeys if ctx.has_keys else None, None)", "None, None)", "test_torch.py"),
    ("_operators.py", "dq, dk, dv, list(levels.unbind(0))", "dq, dk, dk, list(levels.unbind(0))",
     "test_torch.py"),
    ("_operators.py", "q.new_empty((*slots, 2), dtype=torch.int32)",
     "q.new_empty((*slots, 2), dtype=torch.int64)", "test_torch.py"),
]


def survives(folder, file, line, change, test):
    """Do the tests still pass?"""
    copy = folder / "multistep"
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text()
    if text.count(line) != 1:
        sys.exit(f"mutants: {file} has {text.count(line)} times {line!r}, not once")
    (copy / file).write_text(text.replace(line, change))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", TESTS / test,
         "-k", "not leaks"], env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"mutants: {test} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def main():
    chosen = [m for m in MUTANTS if (HAS_TORCH or m[3] != "test_torch.py")
              and (len(sys.argv) == 1 or any(name in m[0] + m[1] for name in sys.argv[1:]))]
    left = 0
    with tempfile.TemporaryDirectory() as folder:
        for file, line, change, test in chosen:
            alive = survives(pathlib.Path(folder), file, line, change, test)
            left += alive
            print(f"{'SURVIVES' if alive else 'caught  '}  {file}: {line} -> {change}", flush=True)
    print(f"{len(chosen) - left} of {len(chosen)} mutants caught")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
