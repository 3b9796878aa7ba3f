#!/usr/bin/env python3
"""What `multistep verify` says of schedules.

Usage: verify_test.py PROGRAM [unittest arguments]
"""

import pathlib
import re

import program
from program import Case, run


class Verify(Case):
    def test_a_covering_schedule(self):
        report = self.json("verify", "--length", "1M", "--steps", 3)
        self.assertIs(report["covered"], True)
        self.assertEqual((report["length"], report["steps"]), (1_000_000, 3))
        self.assertEqual((report["queries_checked"], report["excluded_pairs"]), (1_000_000, 0))
        self.assertIsNone(report["first_excluded"])
        self.assertGreaterEqual(report["seconds"], 0)

    def test_work_beside_the_lower_bound(self):
        work = self.json("verify", "--length", "1Mi", "--steps", 2)["work"]
        self.assertEqual((work["min"], work["max"], work["lower_bound"]), (1025, 3071, 2048))
        self.assertAlmostEqual(work["mean"], 2389.3, places=1)
        self.assertAlmostEqual(work["ratio"], 1.167, places=3)

    def test_a_failing_schedule(self):
        arguments = ("verify", "--length", 2000, "--steps", 2, "--rule", "power", "--backward", 1,
                     "--forward", 1)
        report = self.json(*arguments, code=1)
        self.assertIs(report["covered"], False)
        self.assertEqual(report["excluded_queries"], 922)
        first = report["first_excluded"]
        self.assertEqual((first["position"], first["key"]), (7, 0))
        self.assertEqual(first["gap"], {"begin": 0, "end": 1})
        self.assertEqual(first["closing_backward"], 1.0607)
        text = self.answer(*arguments, code=1)
        self.assertIn("query 7, key 0", text)
        self.assertIn("--backward 1.0607", text)

    def test_decimals_are_exact_rationals(self):
        arguments = ("verify", "--length", 2000, "--rule", "power", "--forward", 0)
        decimal = self.json(*arguments, "--backward", "1.9", code=1)
        ratio = self.json(*arguments, "--backward", "19/10", code=1)
        self.assertEqual(decimal["first_excluded"], ratio["first_excluded"])
        self.assertEqual(decimal["first_excluded"]["position"], 898)

    def test_sampling_a_great_length(self):
        report = self.json("verify", "--length", 10**12, "--queries", 100, "--preset", "even",
                           "--steps", 4)
        self.assertEqual((report["covered"], report["queries_checked"]), (True, 100))
        for mixed in (("--preset", "aligned"), ("--rule", "aligned,tight,even"),
                      ("--rule", "even,aligned,tight")):
            report = self.json("verify", "--length", 10**12, "--queries", 20, "--steps", 4, *mixed)
            self.assertEqual((report["covered"], report["queries_checked"]), (True, 20))

    def test_aligned_parts(self):
        # Choices of 128, 128 and 64 where nothing is clipped: all paths do the same work.
        report = self.json("verify", "--length", "1Mi", "--preset", "aligned", "--steps", 3)
        self.assertEqual((report["covered"], report["queries_checked"]), (True, 2**20))
        work = report["work"]
        self.assertEqual((work["min"], work["mean"], work["max"]), (320, 320, 320))
        self.assertAlmostEqual(work["ratio"], 1.0499, delta=5e-5)
        self.assertIn("schedule     N = 3 (aligned, aligned)\n", self.answer(
            "verify", "--length", 100, "--preset", "aligned", "--steps", 3))

    def test_a_hole_below_and_above_aligned_parts(self):
        for rules in ("power,aligned", "aligned,power"):
            arguments = ("verify", "--length", 2000, "--steps", 3, "--rule", rules, "--forward", 0,
                         "--backward")
            first = self.json(*arguments, 1, code=1)["first_excluded"]
            parts = round(10_000 * first["closing_backward"])
            explain = ("explain", "--position", first["position"], "--key", first["key"],
                       *arguments[3:])
            self.assertTrue(self.json(*explain, f"{parts}/10000")["reachable"])
            self.assertFalse(self.json(*explain, f"{parts - 1}/10000", code=1)["reachable"])

    def test_start_and_dense(self):
        self.assertEqual(self.json("verify", "--length", 100, "--start", 40)["queries_checked"], 60)
        dense = self.json("verify", "--length", 100, "--steps", 1)
        self.assertEqual((dense["work"]["min"], dense["work"]["ratio"]), (100, 1))

    def test_a_window_that_has_every_key(self):
        work = self.json("verify", "--length", 100, "--preset", "released")["work"]
        self.assertEqual(work, dict.fromkeys(("min", "mean", "max", "lower_bound", "ratio")))

    def test_the_lower_bound_is_of_the_keys_outside_the_window(self):
        even = self.json("verify", "--length", "100k", "--preset", "even", "--steps", 3,
                         "--window-index", 60_000)["work"]
        self.assertAlmostEqual(even["lower_bound"], 3 * 40_000 ** (1 / 3))
        self.assertGreaterEqual(even["ratio"], 1)
        stripes = self.json("verify", "--length", 10_000, "--window-index", 63)["work"]
        self.assertAlmostEqual(stripes["lower_bound"], 2 * (10_000 - 64**2 + 1) ** 0.5)
        self.assertGreaterEqual(stripes["ratio"], 1)

    def test_no_ratio_to_a_bound_that_does_not_hold(self):
        arguments = ("verify", "--rule", "power", "--backward", "19/10", "--length")
        self.assertIsNone(self.json(*arguments, 899, code=1)["work"]["ratio"])
        self.assertIn("lower bound  60.0; of a query that reaches every key, as the last one does "
                      "not\n", self.answer(*arguments, 899, code=1))
        # The first hole is older, and the last query reaches all its keys.
        self.assertGreater(self.json(*arguments, 930, code=1)["work"]["ratio"], 1)

    def test_bad_options(self):
        big = "an integer in [1, 281474976710656], as 1000, 1k, 1Ki, 1M, ..."
        rational = "a rational >= 0 such as 20/11, 0.55 or 3"
        for options, message in [
            ([], "--length is required"),
            (["--length", "0"], f"--length 0: {big}"),
            (["--length", "9", "--spans", ""], "--spans '': a value"),
            (["--length", "9", "--backward", ""], "--backward '': a value"),
            (["--length", "1000000000000", "--queries", "1", "--steps", "17", "--rule", "power"],
             "--length 1000000000000: its segments have more than 1000000 different lengths; "
             "shorten the sequence"),
            (["--length", "-5"], f"--length -5: {big}"),
            (["--length", "12x"], f"--length 12x: {big}"),
            (["--length", "9" * 20], f"--length {'9' * 20}: {big}"),
            (["--length", "9G", "--steps", "65"], "--steps 65: an integer in [1, 64]"),
            (["--length", "9", "--steps", "2.5"], "--steps 2.5: an integer in [1, 64]"),
            (["--length", "9", "--top-k", "0"], "--top-k 0: an integer in [1, 64]"),
            (["--length", "9", "--start", "9"], "--start 9: an integer in [0, 8]"),
            (["--length", "9", "--backward", "-1"], f"--backward -1: {rational}"),
            (["--length", "9", "--forward", "nan"], f"--forward nan: {rational}"),
            (["--length", "9", "--forward", "1/0"], f"--forward 1/0: {rational}"),
            (["--length", "9", "--exponent", "0.5"],
             "--exponent 1/2: a rational in [1, 64] with a denominator of at most 10000"),
            (["--length", "9", "--span-exponent", "3/2"],
             "--span-exponent 3/2: a rational in [0, 1] with a denominator of at most 10000"),
            (["--length", "9", "--rule", "loose"], "--rule loose: tight, power, even or aligned"),
            (["--length", "9", "--rule", "even,even"],
             "--rule even,even: one value, or one for each of 1 levels"),
            (["--length", "9", "--rule", "even,", "--steps", "3"],
             "--rule 'even,': values separated by commas, none empty"),
            (["--length", "9", "--preset", "fast"],
             "--preset fast: nstep, even, aligned, paper or released"),
            (["--length", "9", "--preset", "paper", "--steps", "3"],
             "--steps 3: preset paper has 2 steps"),
            (["--length", "281474976710656", "--exponent", "1"],
             "--length 281474976710656: with stripe exponent 1 it needs more than 134217728 "
             "stripes; raise the exponent or shorten the sequence"),
        ]:
            with self.subTest(options=options):
                self.refuses(["verify", *options], message)

    def test_unknown_words(self):
        done = run("verifi")
        self.assertEqual((done.returncode, done.stderr),
                         (2, "multistep: verifi: verify, explain, map, memory, plan, attend, scale, "
                             "audit, needles, compare or bench\n"))
        for arguments in (["verify", "--length", "9", "--fast"], []):
            done = run(*arguments)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1))

    def test_help_names_theorems_that_there_are(self):
        proofs = pathlib.Path(__file__).resolve().parents[2] / "proofs/statements"
        proved = set(re.findall(r"^(?:Theorem|Corollary) (\w+)", "".join(
            file.read_text() for file in sorted(proofs.glob("*.v"))), re.MULTILINE))
        for command, names in (("verify", 6), ("scale", 1)):
            text = " ".join(self.answer(command, "--help").split())
            told = re.search(r"(?:Theorems of proofs/ behind the answers: (.*)|"
                             r"the theorem (\w+) of proofs/)", text)
            cited = re.findall(r"\b\w+_\w+\b", told[1] or told[2])
            self.assertEqual(len(cited), names)
            self.assertLessEqual(set(cited), proved)

    def test_help_has_an_example(self):
        self.assertIn("Exit codes", self.answer("--help"))
        for command in ("verify", "explain", "map", "memory", "plan", "attend", "scale", "audit",
                        "needles", "compare", "bench"):
            self.assertIn(f"  multistep {command} --", self.answer(command, "--help"))


if __name__ == "__main__":
    program.main()
