#!/usr/bin/env python3
"""`multistep compare` and `multistep bench` as their users meet them, with and without a GPU.

Usage: gpu_program_test.py PROGRAM [unittest arguments]

What needs a GPU is skipped, and counted, where the program ends with 77: no such device.
"""

import json
import subprocess
import sys
import unittest

PROGRAM = ""
SMALL = ("--heads", 4, "--kv-heads", 2, "--head-dim", 64)


def run(*arguments):
    return subprocess.run([PROGRAM, *map(str, arguments)], text=True, capture_output=True,
                          timeout=600)


class Case(unittest.TestCase):
    def refuses(self, arguments, message):
        """Exit 2, nothing on standard output, one line on standard error."""
        done = run(*arguments)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(done.stderr, f"multistep {arguments[0]}: {message}\n")

    def json(self, *arguments):
        """The result of a run that passes; without a GPU one line says so, and the test skips."""
        done = run(*arguments, "--json")
        if done.returncode == 77:
            self.assertEqual(done.stdout, "")
            self.assertRegex(done.stderr, rf"^multistep {arguments[0]}: "
                                          r"(built without CUDA|no CUDA driver|no CUDA device|"
                                          r"driver of CUDA .*|no kernels for this chip .*)\n$")
            self.skipTest(done.stderr.strip())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)


class Compare(Case):
    def test_every_schedule_passes(self):
        for schedule in (["--preset", "paper", "--window-index", 31], ["--preset", "released"],
                         ["--steps", 3], ["--preset", "even", "--steps", 3], ["--steps", 1]):
            for rung in ("fast", "plain"):
                with self.subTest(schedule=schedule, rung=rung):
                    result = self.json("compare", "--length", 3000, "--queries", 70, *SMALL,
                                       *schedule, "--rung", rung)
                    self.assertIs(result["pass"], True)
                    self.assertTrue(all(stage["pass"] for stage in result["stages"]))
                    self.assertEqual((result["rung"], result["rows"]), (rung, 64))

    def test_every_kind_of_inputs_passes(self):
        for kind in ("random", "clustered", "hot", "needle"):
            for dtype in ("bf16", "fp16"):
                with self.subTest(kind=kind, dtype=dtype):
                    result = self.json("compare", "--length", "4Ki", *SMALL, "--inputs", kind,
                                       "--dtype", dtype)
                    self.assertIs(result["pass"], True)
                    self.assertEqual(result["rows"], 4)

    def test_the_table(self):
        if run("compare", "--length", 100).returncode == 77:
            self.skipTest("no GPU")
        done = run("compare", "--length", 1000, *SMALL)
        self.assertEqual((done.returncode, done.stdout.splitlines()[-1]),
                         (0, "PASS, 4 of 4 rows looked at"))
        for word in ("search", "span attention", "combination", "attention: output", "end to end",
                     "regret"):
            self.assertIn(word, done.stdout)

    def test_bad_options(self):
        length = "an integer in [1, 2147483646], as 1000, 1k, 1Ki, 1M, ..."
        for options, message in [
            ([], "--length is required"),
            (["--length", "0"], f"--length 0: {length}"),
            (["--length", "2Gi"], f"--length 2Gi: {length}"),
            (["--length", "9", "--queries", "10"], "--queries 10: an integer in [1, 9]"),
            (["--length", "9", "--kv-heads", "3"], "--kv-heads 3: a divisor of --heads 32"),
            (["--length", "9", "--head-dim", "257"], "--head-dim 257: an integer in [1, 256]"),
            (["--length", "9", "--dtype", "float"], "--dtype float: bf16 or fp16"),
            (["--length", "9", "--start", "9"], "--start 9: an integer in [0, 8]"),
            (["--length", "9", "--inputs", "zeros"],
             "--inputs zeros: random, clustered, hot or needle"),
            (["--length", "9", "--rung", "slow"], "--rung slow: fast or plain"),
            (["--length", "9", "--sample", "0"],
             "--sample 0: an integer in [1, 65536], as 1000, 1k, 1Ki, 1M, ..."),
            (["--length", "9", "--seed", ""], "--seed '': a value"),
            (["--length", "9", "--preset", "fast"],
             "--preset fast: nstep, even, aligned, paper or released"),
        ]:
            with self.subTest(options=options):
                self.refuses(["compare", *options], message)

    def test_shapes_that_do_not_fit_are_refused(self):
        done = run("compare", "--length", 2**31 - 2, "--head-dim", 256)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep compare: --length 2147483646: the oracle takes "
                                      r"\S+ GiB, at most \S+ GiB fit this machine\n$")
        done = run("compare", "--length", "16Mi", "--queries", "all", "--gradients")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep compare: --gradients --length 16777216 --queries "
                                      r"16777216: the oracle takes \S+ GiB, at most \S+ GiB fit this "
                                      r"machine\n$")

    def test_gradients_are_judged_beside_the_values(self):
        for options in [["--steps", 3], ["--steps", 1], ["--preset", "paper", "--dtype", "fp16"]]:
            with self.subTest(options=options):
                result = self.json("compare", "--length", 600, "--queries", 100, *SMALL,
                                   "--gradients", *options)
                self.assertIs(result["pass"], True)
                stages = [stage["stage"] for stage in result["stages"]]
                for stage in ["output", "d query", "d key", "d value"]:
                    self.assertIn(stage, [name.replace("attention: ", "") for name in stages])
                self.assertGreater(result["keys"], 0)


class Bench(Case):
    def test_times_behind_a_comparison(self):
        result = self.json("bench", "--lengths", "2Ki", "--configs", "A,nstep3,dense", "--phases",
                           "decode,prefill,whole", "--whole-lengths", 512, "--chunk", 256,
                           "--repeats", 5, *SMALL, "--commit", "0123abc", "--dirty", "yes")
        self.assertEqual((result["commit"], result["dirty"]), ("0123abc", "yes"))
        self.assertIn(" bench --lengths 2Ki ", result["command"])
        self.assertEqual(result["failed"], [])
        self.assertGreater(result["copy_bytes_per_second"], 0)
        seen = set()
        for record in result["records"]:
            seen.add((record["config"], record["phase"], record["stage"], record["l2"]))
            self.assertIs(record["compared"]["pass"], True)
            self.assertTrue(0 < record["low_ms"] <= record["median_ms"] <= record["high_ms"])
        for config in ("A", "nstep3", "dense"):
            for what in (("decode", "attention", "cold"), ("decode", "attention", "warm"),
                         ("prefill", "attention", "cold"), ("whole", "attention", "cold")):
                self.assertIn((config, *what), seen)
        for stage in ("search", "span attention", "window, combine"):
            self.assertIn(("A", "prefill", stage, "cold"), seen)

    def test_bad_options_of_a_sweep(self):
        for options, message in [
            (["--phases", "decode,train"], "--phases train: decode or prefill with --sweep"),
            (["--whole-lengths", "4Ki"],
             "--whole-lengths 4Ki: none of --sweep, which takes decode and prefill"),
            (["--configs", "C"],
             "--configs C: A, B, dense, paper, released, or nstepN, evenN, alignedN, tightN with N in "
             "[2, 64]"),
            (["--chunk", "0"],
             "--chunk 0: an integer in [1, 2147483646], as 1000, 1k, 1Ki, 1M, ..."),
            (["--lengths", ""], "--lengths '': a value"),
            (["--start", "64Ki"], "--start 64Ki: an integer in [0, 65535], as 1000, 1k, 1Ki, 1M, ..."),
            (["--dirty", "maybe"], "--dirty maybe: yes or no"),
        ]:
            with self.subTest(options=options):
                self.refuses(["bench", "--sweep", *options], message)

    def test_a_sweep_does_not_fit_this_machine(self):
        done = run("bench", "--sweep", "--lengths", 2**30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep bench: --length \d+: the oracle takes "
                                      r"\S+ GiB, at most \S+ GiB fit this machine\n$")

    def test_a_sweep_judges_every_step(self):
        """Whether so small a shape has cliffs is not asked here: it may end with 1."""
        done = run("bench", "--sweep", "--lengths", "2Ki", "--configs", "nstep3,dense", "--chunk",
                   64, "--repeats", 5, "--head-dim", 64, "--heads", 8, "--json")
        if done.returncode == 77:
            self.assertRegex(done.stderr, r"^multistep bench: .+\n$")
            self.assertEqual(done.stdout, "")
            self.skipTest(done.stderr.strip())
        result = json.loads(done.stdout)
        self.assertEqual(done.returncode, 1 if result["failed"] else 0)
        self.assertEqual(len(result["failed"]), len(done.stderr.splitlines()))
        known = [(config, phase, axis) for config in ("nstep3", "dense")
                 for phase in ("decode", "prefill")
                 for axis in ("head_dim", "group", "batch", "layout", "inputs", "outputs", "keys")]
        axes = [(one["config"], one["phase"], one["axis"]) for one in result["axes"]]
        for one in [*known, ("dense", None, "queries"), ("nstep3", "decode", "top_k")]:
            self.assertIn(one, axes)
        cliffs = 0
        for axis in result["axes"]:
            values = [call["value"] for call in axis["calls"]]
            self.assertEqual([(step["from"], step["to"]) for step in axis["steps"]],
                             list(zip(values, values[1:])))
            for call in axis["calls"]:
                self.assertIs(call["compared"]["pass"], True)
                self.assertTrue(0 < call["low_ms"] <= call["median_ms"] <= call["high_ms"])
                self.assertTrue(min(call["bytes"], call["products"]) > 0)
            for one, other, step in zip(axis["calls"], axis["calls"][1:], axis["steps"]):
                self.assertAlmostEqual(step["ratio"], other["median_ms"] / one["median_ms"])
                self.assertEqual(step["pass"], step["why"] == "")
                if step["factor"] > result["largest_factor"]:
                    self.assertIs(step["pass"], False)
                cliffs += not step["pass"]
        self.assertEqual(len(result["failed"]), cliffs)

    def test_bad_options(self):
        for options, message in [
            (["--configs", "C"],
             "--configs C: A, B, dense, paper, released, or nstepN, evenN, alignedN, tightN with N in "
             "[2, 64]"),
            (["--configs", "A,,B"], "--configs 'A,,B': values separated by commas, none empty"),
            (["--phases", "tune"], "--phases tune: decode, prefill, whole or train"),
            (["--lengths", "1x"], "--lengths 1x: an integer in [1, 2147483646], as 1000, 1k, 1Ki, "
                                  "1M, ..."),
            (["--repeats", "1"],
             "--repeats 1: an integer in [5, 10000], as 1000, 1k, 1Ki, 1M, ..."),
            (["--dirty", "maybe"], "--dirty maybe: yes or no"),
            (["--head-dim", "0"], "--head-dim 0: an integer in [1, 256]"),
        ]:
            with self.subTest(options=options):
                self.refuses(["bench", "--lengths", "64Ki", *options] if "--lengths" not in options
                             else ["bench", *options], message)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
