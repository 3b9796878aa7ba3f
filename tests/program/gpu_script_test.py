#!/usr/bin/env python3
"""experiments/gpu.sh with a program that stands in for the real one: what it asks for, what it
keeps, and how it goes on after it was cut off."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Notes every call; fails as the file `fate` tells: {"at": number of calls, "code": exit code}.
PROGRAM = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path(__file__).parent
log = here / "calls"
calls = log.read_text().splitlines() if log.exists() else []
log.write_text("\\n".join([*calls, " ".join(sys.argv[1:])]) + "\\n")
fate = here / "fate"
code = 0
if fate.exists():
    told = json.loads(fate.read_text())
    code = told["code"] if len(calls) + 1 == told["at"] else 0
if code > 1:
    sys.exit(code)
words = dict(zip(sys.argv, sys.argv[1:]))
result = {{"device": {{"name": "NVIDIA H100 80GB HBM3"}}, "seed": 1, "pass": code == 0}}
if sys.argv[1] == "bench":
    result.update(commit=words["--commit"], dirty=words["--dirty"], failed=[1] * code)
text = json.dumps(result)
pathlib.Path(words["--output"]).write_text(text) if "--output" in words else print(text)
sys.exit(code)
"""


class Script(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.root / "experiments").mkdir()
        shutil.copy(ROOT / "experiments/gpu.sh", self.root / "experiments")
        self.build = self.root / "build"
        self.build.mkdir()
        program = self.build / "multistep"
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        self.results = self.root / "results/h100"

    def run_script(self, *parts, commit="c1", dirty="no"):
        done = subprocess.run([self.root / "experiments/gpu.sh", self.build, *parts],
                              capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin", "COMMIT": commit, "DIRTY": dirty})
        return done

    def calls(self):
        """What the program was asked since the last time, without the question for the device."""
        log = self.build / "calls"
        lines = log.read_text().splitlines()
        log.unlink()
        return [line for line in lines if "--length 256 --json" not in line]

    def fate(self, at, code):
        (self.build / "fate").write_text(json.dumps({"at": at, "code": code}))

    def test_benches(self):
        self.assertEqual(self.run_script("bench").returncode, 0)
        calls = self.calls()
        self.assertEqual(len(calls), 9)
        self.assertIn("--phases decode,prefill --lengths 10M --configs "
                      "A,B,nstep2,nstep3,nstep4,even2,even3,even4,aligned2,aligned3,aligned4,dense --commit c1 "
                      "--dirty no",
                      calls[6])
        self.assertIn("--phases whole --whole-lengths 4Ki,8Ki,16Ki,32Ki,64Ki", calls[7])
        self.assertIn("--phases train --whole-lengths 16Ki,64Ki,128Ki --configs "
                      "A,B,nstep2,nstep3,even2,aligned2,aligned3,dense --commit", calls[8])
        self.assertEqual({path.name for path in self.results.iterdir()},
                         {f"context_{n}.json" for n in ("4Ki", "16Ki", "64Ki", "256Ki", "1Mi",
                                                        "4Mi", "10M")} | {"whole.json", "train.json"})

    def test_goes_on(self):
        self.fate(at=4, code=137)  # the question for the device is the first call
        self.assertEqual(self.run_script("bench").returncode, 1)
        self.assertEqual(len(self.calls()), 9)
        self.fate(at=0, code=0)
        self.assertEqual(self.run_script("bench").returncode, 0)
        self.assertEqual(len(self.calls()), 1)  # the one that was cut off
        self.assertEqual(self.run_script("bench").returncode, 0)
        self.assertEqual(self.calls(), [])
        self.run_script("bench", commit="c2")
        self.assertEqual(len(self.calls()), 9)
        self.run_script("bench", commit="c2", dirty="yes")
        self.assertEqual(len(self.calls()), 9)  # no commit tells what that was

    def test_a_failed_case_is_asked_again(self):
        self.fate(at=2, code=1)
        self.assertEqual(self.run_script("bench").returncode, 1)
        self.calls()
        self.fate(at=0, code=0)
        self.assertEqual(self.run_script("bench").returncode, 0)
        self.assertEqual(len(self.calls()), 1)

    def test_accuracy(self):
        self.fate(at=30, code=137)
        self.assertEqual(self.run_script("accuracy").returncode, 137)
        self.assertEqual(len(self.calls()), 29)
        self.assertFalse((self.results / "accuracy.json").exists())
        self.fate(at=0, code=0)
        self.assertEqual(self.run_script("accuracy").returncode, 0)
        calls = self.calls()
        self.assertEqual(len(calls), 96 - 28)
        self.assertIn("--length 1Mi --queries 256 --sample 64 --dtype fp16 --inputs needle "
                      "--steps 3", calls[-1])
        accuracy = json.loads((self.results / "accuracy.json").read_text())
        self.assertEqual((len(accuracy["runs"]), accuracy["commit"], accuracy["dirty"],
                          accuracy["command"], accuracy["seed"]),
                         (96, "c1", "no", "experiments/gpu.sh build accuracy", 1))
        self.assertEqual([path.name for path in self.results.iterdir()], ["accuracy.json"])
        self.assertEqual(self.run_script("accuracy").returncode, 0)
        self.assertEqual(self.calls(), [])

    def test_a_failed_comparison_is_kept_and_told(self):
        self.fate(at=5, code=1)
        done = self.run_script("accuracy")
        self.assertEqual(done.returncode, 1)
        self.assertIn("FAIL  4Ki bf16 random --steps 3", done.stdout)
        self.assertEqual(len(json.loads((self.results / "accuracy.json").read_text())["runs"]), 96)

    def test_a_sweep_with_a_cliff_is_kept_and_asked_again(self):
        self.fate(at=2, code=1)
        self.assertEqual(self.run_script("sweep").returncode, 1)
        self.assertEqual(json.loads((self.results / "sweep.json").read_text())["failed"], [1])
        self.assertEqual(self.calls(), [
            "bench --sweep --commit c1 --dirty no --json --output results/h100/sweep.json"])
        self.fate(at=0, code=0)
        self.assertEqual(self.run_script("sweep").returncode, 0)
        self.assertEqual(len(self.calls()), 1)
        self.assertEqual(self.run_script("sweep").returncode, 0)
        self.assertEqual(self.calls(), [])

    def test_no_gpu_and_usage(self):
        self.fate(at=1, code=77)
        self.assertEqual(self.run_script("bench").returncode, 77)
        self.fate(at=0, code=0)
        done = self.run_script("bench", "speed")
        self.assertEqual((done.returncode, done.stderr), (
            2, "experiments/gpu.sh speed: tests, compare, bench, accuracy, training, sweep or "
            "learning\n"))


if __name__ == "__main__":
    unittest.main()
