#!/usr/bin/env python3
"""`multistep scale`: counted work, and its exponents.

Usage: scale_test.py PROGRAM [unittest arguments]
"""

import csv
import io

import program
from program import Case, run


class Scale(Case):
    LENGTHS = "4Ki,16Ki,64Ki,256Ki"

    def test_the_exponents(self):
        result = self.json("scale", "--lengths", self.LENGTHS, "--samples", 512)
        self.assertEqual([run["steps"] for run in result["runs"]], [1, 2, 3, 4])
        for run_ in result["runs"]:
            fit = run_["fit"]
            self.assertAlmostEqual(fit["theory"], 1 + 1 / run_["steps"], places=12)
            self.assertAlmostEqual(fit["exponent"], fit["theory"], delta=0.06)
            self.assertTrue(fit["low"] <= fit["exponent"] <= fit["high"])
            for point in run_["points"]:
                self.assertEqual(point["drawn_work"],
                                 point["anchors_scored"] + point["keys_attended"])

    def test_the_theory_of_other_exponents(self):
        """The step with most choices tells; what is counted comes near."""
        for theory, *options in (
                (1 + 1 / 2, "--steps", 3, "--rule", "tight", "--exponent", 2),  # 1/2, 1/4, 1/4
                (1 + 2 / 3, "--steps", 3, "--exponent", "3/2"),  # 2/3, 1/6, 1/6
                (1 + 3 / 8, "--steps", 3, "--exponent", 4),  # 1/4, 3/8, 3/8
                (1 + 1 / 2, "--steps", 2, "--rule", "power", "--backward", 0)):  # 1/2, 0
            with self.subTest(options=options):
                fit = self.json("scale", *options, "--lengths", "64Ki,1Mi,16Mi", "--samples",
                                256)["runs"][0]["fit"]
                self.assertAlmostEqual(fit["theory"], theory, places=12)
                self.assertAlmostEqual(fit["exponent"], theory, delta=0.06)

    def test_the_lower_bound_is_of_the_choices_and_not_of_drawn_work(self):
        """Random paths do less than the bound; what the steps offer does not."""
        for top_k in (1, 2, 5):
            for run_ in self.json("scale", "--steps", "2,3,4", "--lengths", "4Ki,64Ki,1Mi",
                                  "--samples", 64, "--top-k", top_k)["runs"]:
                for point in run_["points"]:
                    with self.subTest(run=run_["label"], top_k=top_k, length=point["length"]):
                        self.assertGreaterEqual(point["ratio"], 1)
                        self.assertAlmostEqual(point["ratio"],
                                               point["choices"] / point["lower_bound"])
                        if (top_k, run_["steps"]) == (1, 3):
                            self.assertLess(point["drawn_work"], point["lower_bound"])

    def test_choices_and_bound_of_few_queries(self):
        # Even parts of 1, ..., 8 keys: 1, 2, 2, 2, 3, 3, 3, 3, of up to 1, 1, 2, 2, 2, 2, 3, 3.
        point = self.json("scale", "--preset", "even", "--steps", 2, "--lengths", "2,4,8")[
            "runs"][0]["points"][2]
        self.assertEqual(point["choices"], 19 + 2 * 16)
        self.assertAlmostEqual(point["lower_bound"], sum(2 * (2 * n) ** 0.5 for n in range(1, 9)))

    def test_no_ratio_where_a_key_is_excluded_or_none_is_searched(self):
        failing = self.json("scale", "--steps", 2, "--rule", "power", "--backward", 1, "--forward", 1,
                            "--lengths", "4,8,16")["runs"][0]["points"]
        self.assertIsNotNone(failing[0]["ratio"])
        self.assertEqual([point["ratio"] for point in failing[1:]], [None, None])
        windows = ("scale", "--preset", "released", "--lengths", "64,128,256")
        self.assertEqual([(point["choices"], point["lower_bound"], point["ratio"])
                          for point in self.json(*windows)["runs"][0]["points"]], [(0, 0, None)] * 3)
        self.assertIn(" -\n", self.answer(*windows))
        self.assertIn(",0,0.0,\n", self.answer(*windows, "--csv"))

    def test_too_many_segments_are_refused(self):
        self.refuses(["scale", "--steps", "17", "--rule", "power", "--lengths", "1k,2k,1000000000000",
                      "--samples", "2"],
                     "--lengths 1000000000000: its segments have more than 1000000 different "
                     "lengths; shorten the sequence")

    def test_the_presets_of_two_steps(self):
        result = self.json("scale", "--preset", "released", "--lengths", "4Ki,8Ki,16Ki")
        self.assertEqual([run["steps"] for run in result["runs"]], [2])

    def test_csv_and_bad_options(self):
        rows = list(csv.DictReader(io.StringIO(self.answer(
            "scale", "--lengths", "64,128,256", "--steps", 2, "--csv"))))
        self.assertEqual([row["length"] for row in rows], ["64", "128", "256"])
        self.assertEqual([row["queries"] for row in rows], ["64", "128", "256"])
        self.refuses(["scale", "--lengths", "8,4,2"], "--lengths 8,4,2: lengths in ascending order")
        self.refuses(["scale", "--lengths", "4,8"], "--lengths 4,8: a fit needs at least 3 lengths")


    def test_named_schedules_and_the_last_query(self):
        arguments = ("scale", "--configs", "dense,nstep2,even3,tight4,paper,released", "--lengths",
                     "1Ki,64Ki,1Mi", "--samples", 64, "--last-query", "--commit", "abc")
        result = self.json(*arguments)
        self.assertEqual([(run["config"], run["rule"], run["steps"]) for run in result["runs"]],
                         [("dense", "dense", 1), ("nstep2", "nstep", 2), ("even3", "even", 3),
                          ("tight4", "tight", 4), ("paper", "paper", 2), ("released", "released", 2)])
        for run_, theory in zip(result["runs"], [2, 1.5, 1 + 1 / 3, 1.25, 1.5, 1.55]):
            self.assertAlmostEqual(run_["fit"]["theory"], theory, places=12)
        self.assertEqual(result["runs"][3]["schedule"], "N = 4 (tight, tight, tight), stripes i^4")
        self.assertEqual((result["commit"], result["dirty"]), ("abc", "no"))
        self.assertEqual(result["command"], "multistep " + " ".join(map(str, arguments[:-2]))
                         + " --json")
        work = {(one["length"], one["rule"], one["steps"]): one["work"]
                for one in result["last_query"]}
        self.assertEqual(len(work), 3 * (10 + 16 + 20))  # N = 1 ... log2 L
        for rule, steps, known in (("nstep", 2, 2389.3), ("nstep", 3, 363.9), ("nstep", 4, 154.2),
                                   ("even", 2, 2048), ("even", 3, 304.8), ("even", 1, 2**20),
                                   ("aligned", 2, 2048), ("aligned", 3, 320)):
            self.assertAlmostEqual(work[2**20, rule, steps], known, delta=0.05)
        for other in (1, 3):
            self.assertEqual(self.json(*arguments, threads=other)["runs"], result["runs"])

    def test_bad_names(self):
        names = "A, B, dense, paper, released, or nstepN, evenN, alignedN, tightN with N in [2, 64]"
        for name in ("nstep1", "even65", "tight", "nstep2x", "C"):
            self.refuses(["scale", "--configs", f"even2,{name}"], f"--configs {name}: {names}")
        self.refuses(["scale", "--last-query"], "--last-query: with --json alone")
        self.refuses(["scale", "--dirty", "maybe"], "--dirty maybe: yes or no")
        self.assertEqual(run("scale", "--configs", "even2", "--steps", "2").returncode, 2)


if __name__ == "__main__":
    program.main()
