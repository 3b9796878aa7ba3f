#!/usr/bin/env python3
"""The multistep program as its users meet it: output, exit codes, messages.

Usage: program_test.py PROGRAM [unittest arguments]
"""

import csv
import io
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""


def run(*arguments, stdin=None, threads=None, memory=None):
    """The program's end; `memory` limits its address space, in bytes."""
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)

    def limit():
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, text=True,
                          capture_output=True, env=environment, timeout=300, preexec_fn=limit)
    if memory and "ReserveShadowMemoryRange failed" in done.stderr:
        raise unittest.SkipTest("the address sanitizer takes more addresses for itself")
    return done


class Case(unittest.TestCase):
    def answer(self, *arguments, code=0, **options):
        """Standard output of a run that ends with `code` and complains about nothing."""
        done = run(*arguments, **options)
        self.assertEqual((done.returncode, done.stderr), (code, ""))
        return done.stdout

    def json(self, *arguments, **options):
        return json.loads(self.answer(*arguments, "--json", **options))

    def refuses(self, arguments, message, **options):
        """Exit 2, nothing on standard output, one line on standard error."""
        done = run(*arguments, **options)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(done.stderr, f"multistep {arguments[0]}: {message}\n")


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


class VerifySpans(Case):
    def spans(self, text, *options, code=0):
        return self.json("verify", "--spans", "-", "--length", 8, *options, stdin=text, code=code)

    def test_covered(self):
        report = self.spans("query,begin,end\n3,0,2\n3,2,4\n5,0,6\n")
        self.assertEqual((report["covered"], report["queries_checked"]), (True, 2))

    def test_a_hole(self):
        report = self.spans("3,2,4\r\n3,0,1\r\n", code=1)
        first = report["first_excluded"]
        self.assertEqual((first["position"], first["key"]), (3, 1))
        self.assertEqual(first["gap"], {"begin": 1, "end": 2})

    def test_start_excuses_older_keys(self):
        self.assertIs(self.spans("5,3,6\n", "--start", 3)["covered"], True)

    def test_what_map_says_is_what_verify_says(self):
        """The final spans of a failing schedule, given as a list, have the same first hole."""
        schedule = ("--rule", "power", "--backward", 1, "--forward", 1)
        rows = "query,begin,end\n"
        for position in range(16):
            tree = self.json("explain", "--position", position, *schedule)
            for node in tree["anchors"]:
                rows += f"{position},{node['span']['begin']},{node['span']['end']}\n"
        ours = self.json("verify", "--length", 16, *schedule, code=1)
        theirs = self.json("verify", "--spans", "-", "--length", 16, stdin=rows, code=1)
        for field in ("queries_checked", "excluded_queries", "excluded_pairs"):
            self.assertEqual(theirs[field], ours[field])
        self.assertEqual(theirs["first_excluded"]["gap"], ours["first_excluded"]["gap"])

    def test_bad_files(self):
        row = "query,begin,end"
        wanted = f"wanted three integers from 0 to 8, {row}"
        for text, message in [
            ("", "--spans -: no spans"),
            ("1" * 10000, f"-:1: found '{'1' * 40}...', {wanted}"),
            ("1,0,2" + " " * 1000 + "\n", f"-:1: found '1,0,2{' ' * 35}...', {wanted}"),
            ("1,0,2\x001\n", f"-:1: found '1,0,2\\x001', {wanted}"),
            ("1,0,\x00\x1b[2J\n", f"-:1: found '1,0,\\x00\\x1b[2J', {wanted}"),
            ("1,0,2\n\ufeff1,0,2\n", f"-:2: found '\\xef\\xbb\\xbf1,0,2', {wanted}"),
            (f"{row}\n", "--spans -: no spans"),
            (f"{row}\n{row}\n", f"-:2: found '{row}', {wanted}"),
            (f"{row}\n1,0\n", f"-:2: found '1,0', {wanted}"),
            (f"{row}\n1,0,2,3\n", f"-:2: found '1,0,2,3', {wanted}"),
            ("\n \n", "--spans -: no spans"),
            (f"\n{row}\n\n{row}\n", f"-:4: found '{row}', {wanted}"),
            ("1,0,2.0\n", f"-:1: found '1,0,2.0', {wanted}"),
            ("1,0,2 3\n", f"-:1: found '1,0,2 3', {wanted}"),
            ("1,0,9223372036854775808\n", f"-:1: found '1,0,9223372036854775808', {wanted}"),
            ("begin,query,end\n", f"-:1: found 'begin,query,end', {wanted}"),
            ("qu\u0435ry,begin,end\n", f"-:1: found 'qu\\xd0\\xb5ry,begin,end', {wanted}"),
            ("8,0,9\n", "-:1: query 8: an integer in [start 0, length 8)"),
            ("3,0,5\n", "-:1: span [0, 5) of query 3: start 0 <= begin < end <= query + 1"),
            ("3,2,2\n", "-:1: span [2, 2) of query 3: start 0 <= begin < end <= query + 1"),
        ]:
            with self.subTest(text=text):
                self.refuses(["verify", "--spans", "-", "--length", "8"], message, stdin=text)
        self.refuses(["verify", "--spans", "/no/such.csv", "--length", "8"],
                     f"--spans /no/such.csv: a readable file of {row}")

    def test_forms_that_other_programs_write(self):
        for text in ("\ufeffquery,begin,end\n3,0,2\n3,2,4\n5,0,6\n",
                     "\ufeff3,0,2\n3,2,4\n5,0,6",
                     "\n \nquery,begin,end\n\n3,0,2\n\r\n3,2,4\n\t\n5,0,6\n\n",
                     "Query,BEGIN,end\r\n3,0,2\r\n3,2,4\r\n5,0,6\r\n",
                     "query, begin, end\n3, 0, 2\n 3,\t2, 4 \n5 ,0,6\t\r\n"):
            with self.subTest(text=text):
                report = self.spans(text)
                self.assertEqual((report["covered"], report["queries_checked"]), (True, 2))

    def test_bytes_of_a_bad_file_do_not_reach_the_terminal(self):
        for data in (b"\xff\xfe3\x00,\x000\x00", b"\x9b31m\x07", b"3,0,\xc2\x9b2J\n", bytes(range(256))):
            done = subprocess.run([PROGRAM, "verify", "--spans", "-", "--length", "8"], input=data,
                                  capture_output=True)
            self.assertEqual((done.returncode, done.stdout), (2, b""))
            self.assertRegex(done.stderr, rb"^[ -~]+\n$")
        with tempfile.TemporaryDirectory() as folder:  # nor those of its name
            path = os.path.join(os.fsencode(folder), b"\x1b[2J\xff.csv")
            with open(path, "wb") as file:
                file.write(b"3,0,4\n")
            for form in ([], ["--json"]):
                done = subprocess.run([PROGRAM, "verify", "--spans", path, "--length", "8", *form],
                                      capture_output=True)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.assertRegex(done.stdout, rb"^[ -~\n]+$")

    def test_counts_that_64_bits_do_not_hold(self):
        """2^17 queries, each without 2^47 keys: 2^64 pairs. A number below 2^63, then a string."""
        half = 2**47
        for queries, spared, pairs in ((2**17, 0, str(2**64)), (2**16, 0, str(2**63)),
                                       (2**16, 1, 2**63 - 1)):
            rows = "".join(f"{half + i},{half - (spared if i == 0 else 0)},{half + i + 1}\n"
                           for i in range(queries))
            arguments = ("verify", "--spans", "-", "--length", 2 * half)
            report = self.json(*arguments, stdin=rows, code=1)
            self.assertEqual((report["covered"], report["excluded_pairs"]), (False, pairs))
            self.assertEqual(report["excluded_queries"], queries)
            self.assertIn(f" {pairs} pairs in all", self.answer(*arguments, stdin=rows, code=1))

    def test_a_sample_s_pairs_that_64_bits_do_not_hold(self):
        report = self.json("verify", "--length", 2**48, "--queries", "100k", "--rule", "power",
                           "--exponent", 64, "--backward", 0, "--forward", 0, code=1)
        self.assertEqual(report["excluded_pairs"], "14058552688311026805")

    def test_a_list_has_no_schedule(self):
        done = run("verify", "--spans", "-", "--length", 8, "--steps", 3, stdin="1,0,2\n")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))


class VerifyPattern(Case):
    SIXTEEN = {"window": ["--window", 16], "block-diagonal": ["--block", 16],
               "strided": ["--stride", 16], "fixed": ["--stride", 16, "--summary", 1],
               "log-sparse": [], "combiner-fixed": ["--block", 16], "nsa": ["--block", 16],
               "moba": ["--block", 16], "dsa": []}

    def pattern(self, name, *options, **keywords):
        return self.json("verify", "--length", 257, "--pattern", name, *self.SIXTEEN[name],
                         *options, **keywords)

    def test_the_known_answers(self):
        """SPEC 12: pairs left out and the first of them, layers until there is none."""
        for name, pairs, first, layers in [
                ("window", 29161, (16, 0), 18), ("block-diagonal", 30976, (16, 0), None),
                ("strided", 27225, (17, 0), 2), ("fixed", 29040, (16, 0), 2),
                ("log-sparse", 31094, (3, 0), 8), ("combiner-fixed", 0, None, 1),
                ("nsa", 0, None, 1), ("moba", 0, None, 1), ("dsa", 0, None, 1)]:
            with self.subTest(name=name):
                report = self.pattern(name, code=1 if pairs else 0)
                self.assertEqual(report["excluded_pairs"], pairs)
                self.assertIs(report["covered"], pairs == 0)
                hole = report["first_excluded"]
                self.assertEqual(hole and (hole["position"], hole["key"]), first)
                self.assertNotIn("layers", report)
                closure = self.pattern(name, "--layers", "closure", code=0 if layers else 1)
                self.assertEqual(closure["layers"]["needed"], layers)
                self.assertEqual(closure["layers"]["fixed_point"], layers or 1)
                self.assertIs(closure["covered"], layers is not None)

    def test_the_text(self):
        done = run("verify", "--length", 257, "--pattern", "strided", "--stride", 16)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, (
            r"^schedule     pattern strided \(stride 16\)\n"
            r"length       257, keys from 0\n"
            r"NOT COVERED  240 of 257 queries exclude a key, 27225 pairs in all\n"
            r"first hole   query 17, key 0, in the gap \[0, 1\)\n"
            r"work         of a query: mean 23\.1, at most 0 scored and 32 attended\n"
            r"time         \d+\.\d\d s\n$"))

    def test_layers_in_words(self):
        for options, words in [
                (["window", "--layers", "closure"], "18, and not fewer"),
                (["window", "--layers", 20], "20; 18 are enough"),
                (["window", "--layers", 2], "2"),
                (["dsa", "--layers", 1], "1, one is enough"),
                (["dsa", "--layers", 3], "3; one is enough"),
                (["block-diagonal", "--layers", "closure"], "1; from 1 on, none adds a pair"),
                (["block-diagonal", "--layers", 7], "7; from 1 on, none adds a pair")]:
            with self.subTest(options=options):
                done = run("verify", "--length", 257, "--pattern", *options[:1],
                           *self.SIXTEEN[options[0]], *options[1:])
                self.assertIn(f"\nlayers       {words}\n", done.stdout)

    def test_averages_are_reached_and_told(self):
        report = self.pattern("combiner-fixed")
        self.assertEqual(report["averaged_pairs"], 30976)
        self.assertIn("averaged     30976 of the pairs are in averages alone",
                      self.answer("verify", "--length", 257, "--pattern", "combiner-fixed",
                                  "--block", 16))
        self.assertEqual(self.pattern("moba")["averaged_pairs"], 0)

    def test_work(self):
        work = self.json("verify", "--length", 1024, "--pattern", "moba", "--block", 16)["work"]
        self.assertEqual((work["most_scored"], work["most_attended"]), (63, 48))
        self.assertEqual(work["scored"], 16 * sum(range(64)))
        self.assertEqual(work["mean"], (work["scored"] + work["attended"]) / 1024)

    def test_one_query(self):
        """Spans, and what a key is, against `map`; keys left out are in the gap that is told."""
        options = ("--pattern", "combiner-fixed", "--block", 4, "--start", 3)
        whole = self.json("explain", "--position", 14, *options)
        self.assertEqual(whole["selectable"], [{"begin": 12, "end": 15}])
        self.assertEqual(whole["averaged"],
                         [{"begin": b, "end": e} for b, e in ((3, 4), (4, 8), (8, 12))])
        self.assertEqual((whole["scored"], whole["attended"]), (0, 6))
        for key, averaged in ((3, True), (11, True), (12, False)):
            found = self.json("explain", "--position", 14, "--key", key, *options)
            self.assertEqual((found["reachable"], found["averaged_alone"]), (True, averaged))
        strided = ("explain", "--position", 40, "--pattern", "strided", "--stride", 16)
        found = self.json(*strided, "--key", 3, code=1)
        self.assertEqual((found["reachable"], found["gap"]), (False, {"begin": 0, "end": 8}))
        self.assertEqual(self.answer(*strided, "--key", 3, code=1),
                         "schedule   pattern strided (stride 16)\n"
                         "query      40, eligible keys [0, 41)\n"
                         "selectable [8, 9) [24, 41)\n"
                         "averaged   none\n"
                         "work       0 scored and 18 attended\n"
                         "key 3 is EXCLUDED: it is in the gap [0, 8)\n")
        self.assertIn("key 8 is attended to, or content can choose it",
                      self.answer(*strided, "--key", 8))
        self.assertIn("averaged   [0, 4) ... 8 more [36, 40)\n",
                      self.answer("explain", "--position", 40, "--pattern", "nsa", "--stride", 4,
                                  "--summary", 4, "--limit", 2))
        seeds = {self.answer("explain", "--position", 5000, "--pattern", "bigbird", "--seed", seed)
                 .splitlines()[2] for seed in range(4)}
        self.assertEqual(len(seeds), 4)
        self.refuses(["explain", "--position", 1 << 24, "--pattern", "dsa"],
                     "--position 16777216: an integer in [0, 16777215], as 1000, 1k, 1Ki, 1M, ...")
        self.refuses(["explain", "--position", 9, "--pattern", "dsa", "--steps", 3],
                     "--pattern excludes --steps")

    def test_map(self):
        for name, options in (("combiner-fixed", ["--block", 4]), ("moba", ["--block", 4])):
            table = self.json("map", "--length", 20, "--pattern", name, *options)
            self.assertEqual(table["columns"], ["query", "key", "selectable", "averages"])
            self.assertEqual([row[:2] for row in table["rows"]],
                             [[t, key] for t in range(20) for key in range(t + 1)])
            for t, key, selectable, averages in table["rows"]:
                own = key // 4 == t // 4
                self.assertEqual((selectable, averages),
                                 (1, 0) if own or name == "moba" else (0, 1), (name, t, key))

    def test_scale(self):
        """Counted on all queries it is what `verify` counts; the exponent is that of the work."""
        runs = self.json("scale", "--pattern", "moba,log-sparse", "--lengths", "64,128,256",
                         "--samples", 256)["runs"]
        self.assertEqual([one["pattern"] for one in runs], ["moba", "log-sparse"])
        for one in runs:
            for point in one["points"]:
                work = json.loads(run("verify", "--length", point["length"], "--pattern",
                                      one["pattern"], "--json").stdout)["work"]
                self.assertEqual((point["scored"], point["attended"]),
                                 (work["scored"], work["attended"]))
                self.assertEqual(point["work"], work["scored"] + work["attended"])
            self.assertLess(one["fit"]["low"], one["fit"]["exponent"])
        window, = self.json("scale", "--pattern", "window", "--window", 8, "--lengths",
                            "64Ki,128Ki,256Ki", "--samples", 16)["runs"]
        self.assertEqual(window["points"][0]["attended"], 8 * 65536)
        self.assertAlmostEqual(window["fit"]["exponent"], 1)
        csv_lines = self.answer("scale", "--pattern", "linear", "--lengths", "8,16,32",
                                "--csv").splitlines()
        self.assertEqual(csv_lines, ["pattern,length,queries,scored,attended,work",
                                     "linear,8,8,0,8,8", "linear,16,16,0,16,16",
                                     "linear,32,32,0,32,32"])
        self.assertIn("pattern linear\n        length       scored     attended         work\n",
                      self.answer("scale", "--pattern", "linear", "--lengths", "8,16,32"))
        for options, message in [
            (["linear", "--lengths", "1,2,32Mi"],
             "--lengths 32Mi: an integer in [1, 16777216], as 1000, 1k, 1Ki, 1M, ..."),
            (["linear,"], "--pattern 'linear,': values separated by commas, none empty"),
            (["linear", "--configs", "even2"], "--configs excludes --pattern"),
            (["linear", "--last-query", "--json"], "--last-query excludes --pattern"),
            (["linear", "--steps", "3"], "--pattern excludes --steps"),
            (["linear", "--stride", "3"], "--stride 3: pattern linear has no parameters"),
        ]:
            self.refuses(["scale", "--pattern", *options], message)

    def test_start(self):
        report = self.json("verify", "--length", 30, "--start", 10, "--pattern", "window",
                           "--window", 20)
        self.assertEqual((report["covered"], report["queries_checked"]), (True, 20))

    def test_layers_of_schedules_and_spans(self):
        schedule = ("--rule", "power", "--backward", 1, "--forward", 1)
        one = self.json("verify", "--length", 500, *schedule, code=1)
        same = self.json("verify", "--length", 500, *schedule, "--layers", 1, code=1)
        self.assertEqual(same["excluded_pairs"], one["excluded_pairs"])
        self.assertEqual(same["work"], one["work"])
        two = self.json("verify", "--length", 500, *schedule, "--layers", "closure")
        self.assertEqual((two["covered"], two["layers"]["needed"]), (True, 2))
        rows = "".join(f"{t},{max(0, t - 1)},{t + 1}\n" for t in range(8))
        spans = self.json("verify", "--spans", "-", "--length", 8, "--layers", "closure",
                          stdin=rows)
        self.assertEqual(spans["layers"], {"number": 7, "needed": 7, "fixed_point": 7})
        self.refuses(["verify", "--spans", "-", "--length", "8", "--layers", "2"],
                     "--spans: none of query 2; layers take those of every query",
                     stdin="0,0,1\n1,0,2\n")

    def test_bad_options(self):
        names = ("window, block-diagonal, strided, fixed, log-sparse, longformer, bigbird, "
                 "combiner-fixed, log-linear, linear, routing, reformer, nsa, moba, dsa, zeta, "
                 "biformer")
        for options, message in [
            (["--pattern", "windows"], f"--pattern windows: {names}"),
            (["--pattern", "window", "--block", "3"], "--block 3: pattern window has window"),
            (["--pattern", "window", "--top-k", "3"], "--top-k 3: pattern window has window"),
            (["--pattern", "window", "--seed", "3"], "--seed 3: pattern window has window"),
            (["--pattern", "log-sparse", "--block", "3"],
             "--block 3: pattern log-sparse has no parameters"),
            (["--pattern", "window", "--window", "0"],
             "--window 0: an integer in [1, 281474976710656], as 1000, 1k, 1Ki, 1M, ..."),
            (["--pattern", "window", "--window", "few"],
             "--window few: an integer in [1, 281474976710656], as 1000, 1k, 1Ki, 1M, ..."),
            (["--pattern", "nsa", "--top-k", "3"],
             "--top-k 3: an integer in [4, 281474976710656]"),
            (["--pattern", "fixed", "--stride", "4", "--summary", "5"],
             "--summary 5: an integer in [1, stride 4]"),
            (["--layers", "0"], "--layers 0: closure, or an integer in [1, 65536]"),
            (["--layers", "all"], "--layers all: closure, or an integer in [1, 65536]"),
            (["--block", "3"], "--block requires --pattern"),
            (["--pattern", "window", "--steps", "3"], "--pattern excludes --steps"),
            (["--pattern", "window", "--queries", "3"], "--queries excludes --pattern"),
            (["--layers", "2", "--queries", "3"], "--queries excludes --layers"),
            (["--spans", "-", "--pattern", "window"], "--spans excludes --pattern"),
        ]:
            with self.subTest(options=options):
                self.refuses(["verify", "--length", "9", *options], message)
        self.refuses(["verify", "--length", "65537", "--layers", "2"],
                     "--length 65537: an integer in [1, 65536] where layers are followed")


class Explain(Case):
    def test_the_tree(self):
        tree = self.json("explain", "--position", 29, "--steps", 3)
        self.assertEqual([node["anchor"] for node in tree["anchors"]], [29, 22, 3])
        inner = tree["anchors"][1]["children"]
        self.assertEqual([node["anchor"] for node in inner], [22, 18, 14, 10, 6])
        self.assertEqual(inner[4]["span"], {"begin": 4, "end": 7})

    def test_the_path_to_a_key(self):
        tree = self.json("explain", "--position", 29, "--steps", 3, "--key", 5)
        self.assertIs(tree["reachable"], True)
        self.assertEqual([node["anchor"] for node in tree["anchors"]], [22])
        self.assertEqual([node["anchor"] for node in tree["anchors"][0]["children"]], [6])

    def test_aligned_parts(self):
        arguments = ("explain", "--preset", "aligned", "--position", 29)
        tree = self.json(*arguments, "--steps", 3, "--key", 26)["anchors"]
        self.assertEqual((tree[0]["anchor"], tree[0]["span"]), (29, {"begin": 24, "end": 30}))
        (inner,) = tree[0]["children"]
        self.assertEqual((inner["anchor"], inner["span"]), (27, {"begin": 26, "end": 28}))
        tree = self.json(*arguments, "--start", 5, "--window-index", 3)
        self.assertEqual(tree["window"], {"begin": 27, "end": 30})
        self.assertEqual([(node["span"]["begin"], node["anchor"]) for node in tree["anchors"]],
                         [(24, 26), (20, 23), (16, 19), (12, 15), (8, 11), (5, 7)])

    def test_an_excluded_key(self):
        arguments = ("explain", "--position", 7, "--key", 0, "--rule", "power", "--backward", 1,
                     "--forward", 1)
        tree = self.json(*arguments, code=1)
        self.assertEqual((tree["reachable"], tree["gap"]), (False, {"begin": 0, "end": 1}))
        self.assertEqual(tree["anchors"][0]["span"], {"begin": 1, "end": 8})
        self.assertIn("EXCLUDED", self.answer(*arguments, code=1))

    def test_a_key_in_the_window(self):
        self.assertIn("the window has it", self.answer("explain", "--position", 9, "--key", 9,
                                                       "--window-index", 1))

    def test_long_segments_are_cut_short_in_text(self):
        text = self.answer("explain", "--position", "1M", "--limit", 4)
        self.assertEqual(text.count("level 1"), 4)
        self.assertIn("... 996 more", text)

    def test_bad_options(self):
        self.refuses(["explain", "--position", "9", "--key", "10"],
                     "--key 10: an integer in [0, 9]")
        self.refuses(["explain", "--position", str(10**12), "--exponent", "1"],
                     "--position 1000000000001: with stripe exponent 1 it needs more than 134217728 "
                     "stripes; raise the exponent or shorten the sequence")
        self.refuses(["explain", "--position", str(10**12), "--steps", "4"],
                     "--position 1000000000000: a query with at most 1000000 anchors to show; "
                     "--key shows the paths to one key")


class Map(Case):
    def test_final_spans_hold_every_key(self):
        rows = list(csv.DictReader(io.StringIO(self.answer("map", "--length", 40, "--steps", 3))))
        self.assertEqual(len(rows), 40 * 41 // 2)
        self.assertTrue(all(row["spans_2"] == "1" and row["window"] == "0" for row in rows))
        anchors = [int(row["key"]) for row in rows if row["query"] == "29" and row["anchors_1"] == "1"]
        self.assertEqual(anchors, [3, 22, 29])
        self.assertEqual([row["span_1"] for row in rows if row["query"] == "29"],
                         ["2"] * 4 + ["1"] * 19 + ["0"] * 7)

    def test_aligned_parts_stay_while_queries_move_on(self):
        rows = list(csv.DictReader(io.StringIO(self.answer(
            "map", "--length", 33, "--steps", 3, "--preset", "aligned"))))
        for query in range(16, 33):  # 14 to 38 keys have parts of 8 at level 1
            anchors = [int(row["key"]) for row in rows
                       if row["query"] == str(query) and row["anchors_1"] == "1"]
            self.assertEqual(anchors, sorted({7, 15, min(23, query), min(31, query), query}))

    def test_a_hole_shows(self):
        rows = csv.DictReader(io.StringIO(self.answer(
            "map", "--length", 8, "--rule", "power", "--backward", 1, "--forward", 1)))
        self.assertEqual([(row["query"], row["key"]) for row in rows if row["spans_1"] == "0"],
                         [("7", "0")])

    def test_a_map_too_large_is_refused(self):
        self.refuses(["map", "--length", "4096", "--steps", "64"],
                     "--length 4096: a map of at most 60000000 values; with 192 columns this one "
                     f"has {4096 * 4097 // 2 * 192}")

    def test_bad_length(self):
        self.refuses(["map", "--length", "4097"],
                     "--length 4097: an integer in [1, 4096], as 1000, 1k, 1Ki, 1M, ...")


class Attend(Case):
    def test_threads_do_not_change_a_bit(self):
        arguments = ("attend", "--length", 600, "--heads", 4, "--kv-heads", 2, "--steps", 3,
                     "--window-index", 1)
        sums = {self.json(*arguments, threads=threads)["checksum"] for threads in (1, 2, 5)}
        self.assertEqual(len(sums), 1)
        self.assertNotEqual(sums, {self.json(*arguments, "--seed", 2)["checksum"]})

    def test_one_step_is_dense(self):
        result = self.json("attend", "--length", 100, "--steps", 1, "--head-dim", 8)
        self.assertEqual(result["work"], {"anchors_scored": 0, "keys_attended": 5050,
                                          "share_of_dense": 1})

    def test_aligned_parts(self):
        # All are kept. Parts of 1, 2, 4 keys up to 2, 8, 32 keys of context.
        result = self.json("attend", "--length", 30, "--preset", "aligned", "--top-k", 64,
                           "--head-dim", 8)
        part = [1 if n <= 2 else 2 if n <= 8 else 4 for n in range(1, 31)]
        self.assertEqual(result["work"], {
            "anchors_scored": sum(-(-n // s) for n, s in enumerate(part, 1)),
            "keys_attended": 465, "share_of_dense": result["work"]["share_of_dense"]})

    def test_the_share_of_dense_counts_eligible_keys(self):
        result = self.json("attend", "--length", 100, "--start", 90, "--steps", 1, "--head-dim", 2)
        self.assertEqual(result["work"], {"anchors_scored": 0, "keys_attended": 55,
                                          "share_of_dense": 1})

    def test_bad_options(self):
        self.refuses(["attend", "--length", "9", "--heads", "3", "--kv-heads", "2"],
                     "--kv-heads 2: a divisor of --heads 3")
        self.refuses(["attend", "--length", "9", "--dtype", "half"], "--dtype half: float or double")
        done = run("attend", "--length", "64Gi")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep attend: --length 68719476736: the arrays take "
                                      r"\S+ GiB, at most \S+ GiB fit this machine\n$")


class Memory(Case):
    """`memory`, whose scratch is that of the kernels on the device, or null with a reason."""

    def test_the_authors_model_keeps_6_kib_a_token(self):
        arguments = ("memory", "--length", "10M", "--heads", 2, "--kv-heads", 2, "--layers", 6)
        result = self.json(*arguments)
        self.assertEqual(result["bytes_per_token"], 6 * 1024)
        self.assertEqual([result[name] for name in ("keys", "values", "search_keys")],
                         [30_720_000_000, 30_720_000_000, 0])
        self.assertEqual(result["scratch"] is None, result["scratch_reason"] is not None)
        text = self.answer(*arguments)
        self.assertIn("a token      6144 bytes, 6.00 KiB\n", text)
        self.assertIn("search keys  the keys\n", text)
        own = self.json(*arguments, "--search-keys", "--batch", 3, "--dtype", "double")
        self.assertEqual(own["search_keys"], 12 * 30_720_000_000)
        self.assertEqual(own["bytes_per_token"], 6 * 6 * 1024)
        self.assertIn("scratch      not known: ", self.answer(*arguments, "--dtype", "double"))

    def test_bytes_that_64_bits_do_not_hold(self):
        result = self.json("memory", "--length", 2**48, "--kv-heads", 32, "--layers", 1024)
        self.assertEqual(result["keys"], str(2**48 * 32 * 128 * 1024 * 2))
        self.assertEqual(result["bytes_per_token"], 2 * 32 * 128 * 1024 * 2)

    def test_bad_options(self):
        self.refuses(["memory", "--length", "9", "--dtype", "int8"],
                     "--dtype int8: bf16, fp16, float or double")
        self.refuses(["memory", "--length", "9", "--kv-heads", "5"],
                     "--kv-heads 5: a divisor of --heads 32")
        self.refuses(["memory", "--length", "9", "--queries", "10"],
                     "--queries 10: an integer in [1, 9]")


class Plan(Case):
    """`plan`, of a chip that need not be there."""

    def plan(self, *options, chip="h100", **expected):
        arguments = ("plan", "--chip", chip, *options)
        done = run(*arguments, "--json")
        if "built without CUDA" in done.stderr:
            self.skipTest("built without CUDA")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        result = json.loads(done.stdout)
        stages = {stage["stage"]: stage for stage in result["stages"]}
        self.assertEqual({name: stage["kernels"] for name, stage in stages.items()}, expected)
        self.assertEqual(result["fast"], all(stage["fast"] for stage in stages.values()))
        for stage in stages.values():
            self.assertEqual(stage["fast"], stage["why"] == "")
        return {name: stage["why"] for name, stage in stages.items()}

    def test_fast(self):
        pieces = {"attend": ["decode_pieces"], "combine": ["decode_pieces"]}
        tiles = {"attend": ["sort_pairs", "attend_tiles"], "combine": ["combine_row_pieces"]}
        self.plan("--length", "1Mi", "--steps", 4, search=["search_few"], **pieces)
        self.plan("--length", "1Mi", "--steps", 5, search=["search_few"] * 2, **pieces)
        self.plan("--length", "1Mi", "--steps", 1, attend=["attend_tiles"], combine=["merge_outputs"])
        self.plan("--length", "1Mi", "--steps", 1, "--queries", 129, combine=["attend_tiles"])
        chunk = ("--length", "1Mi", "--queries", "4Ki")
        self.plan(*chunk, "--steps", 3,
                  search=["search_shared", "order_pairs", "search_parents", "choose_rows"], **tiles)
        aligned = ("--preset", "aligned", "--steps", 3)
        self.plan(*chunk, *aligned,
                  search=["search_parts", "order_pairs", "search_parts", "choose_rows"], **tiles)
        self.plan("--length", "1Mi", "--queries", 320, *aligned,  # too few for the parents
                  search=["search_parts", "search_parents", "choose_rows"], **tiles)
        self.plan(*chunk, "--steps", 3, "--rule", "tight,aligned",
                  search=["search_shared", "order_pairs", "search_parents", "choose_rows"], **tiles)
        self.plan(*chunk, "--steps", 1, combine=["attend_tiles"])
        self.plan(*chunk, "--steps", 2, "--window-index", 4, search=["search_shared"],
                  attend=tiles["attend"], combine=["attend_tiles"])

    def test_where_rows_of_a_kv_head_are_more_than_64(self):
        heads = ("--heads", 32, "--kv-heads", 2)
        pieces = {"attend": ["decode_pieces"], "combine": ["decode_pieces"]}
        tiles = {"attend": ["sort_pairs", "attend_tiles"], "combine": ["attend_tiles"]}
        short = (*heads, "--length", "8Ki", "--preset", "released")
        self.plan(*short, "--queries", 4, search=["search_few"], **pieces)
        self.plan(*short, "--queries", 5, search=["search_few"], **tiles)
        # The longer the context, the more queries read less of it alone than tiles do.
        for length, last in ("64Ki", 9), ("1Mi", 20):
            long = (*heads, "--length", length, "--preset", "paper", "--window-index", 31)
            self.plan(*long, "--queries", last, search=["search_few"], **pieces)
            self.plan(*long, "--queries", 2 * last, search=["search_few"], **tiles)

    def test_why_not(self):
        plain = {"attend": ["span_attention"], "combine": ["combine_rows"]}
        shape = ("--length", "64Ki", "--preset", "released")
        for options, why in ((("--top-k", 17), "top_k 17: at most 16"),
                             (("--head-dim", 136),
                              "head_dim 136: multiples of 8 up to 128 are built")):
            for queries in (1, 4096):
                # With many paths a plain kernel searches, and tiles attend all the same.
                many = options[0] == "--top-k"
                stages = {"attend": ["sort_pairs", "attend_tiles"],
                          "combine": ["attend_tiles", "combine_row_pieces"]} if many else plain
                found = self.plan(*shape, *options, "--queries", queries, search=["search_level"],
                                  **stages)
                others = "" if many else why
                self.assertEqual(found, {"search": why, "attend": others, "combine": others})
        # Where Hopper's instructions are not there, other tiles.
        tiles = "attend_warp_tiles"
        self.plan(*shape, "--queries", 4096, chip="a100", search=["search_shared"],
                  attend=["sort_pairs", tiles], combine=[tiles])
        self.plan("--length", "64Ki", "--steps", 1, "--queries", 4096, chip="a100",
                  combine=[tiles])
        # Without clusters a group of 16 heads searches level 1 and the levels below it apart.
        self.plan("--length", "1Mi", "--steps", 4, chip="a100", search=["search_few"] * 2,
                  attend=["decode_pieces"], combine=["decode_pieces"])

    def test_the_text(self):
        if "built without CUDA" in run("plan", "--length", 9).stderr:
            self.skipTest("built without CUDA")
        text = self.answer("plan", "--length", "1Mi", "--top-k", 17, "--chip", "h100")
        self.assertIn("search       search_level (no faster one: top_k 17: at most 16)\n", text)
        self.assertRegex(text, r"work         a row scores \d+\.\d anchors and attends to ")
        self.refuses(["plan", "--length", "9", "--chip", "tpu"], "--chip tpu: h100 or a100")
        self.refuses(["plan", "--length", "9", "--preset", "released", "--steps", "1"],
                     "--steps 1: preset released has 2 steps")
        self.refuses(["plan", "--length", "9", "--dtype", "float"], "--dtype float: bf16 or fp16")
        self.refuses(["plan", "--length", "9", "--head-dim", "512"],
                     "head_dim 512: an integer in [1, 256]")


class MemoryOfTheProcess(Case):
    """What does not fit the process is refused before it is asked for."""

    def refuses_size(self, *arguments, what):
        done = run(*arguments, memory=1 << 30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, fr"^multistep {arguments[0]}: {what} take \d+\.\d\d GiB, at "
                                      r"most 0\.\d\d GiB fit this machine\n$")

    def test_arrays(self):
        self.refuses_size("attend", "--length", "1Mi", what="--length 1048576: the arrays")

    def test_stripes(self):
        self.refuses_size("verify", "--length", "134M", "--exponent", 1,
                          what="--length 134000000: its stripes")
        self.refuses_size("needles", "--lengths", "134M", "--exponent", 1, "--noise", 1,
                          what="--lengths 134000000: its stripes")

    def test_checkers(self):
        done = run("verify", "--length", 2**48, "--queries", "1M", "--preset", "paper", threads=64,
                   memory=2 << 30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep verify: --length 281474976710656: 64 checkers "
                                      r"take 16\.00 GiB, at most \S+ GiB fit this machine\n$")

    def test_maps(self):
        self.answer("map", "--length", 64, "--json", memory=1 << 30)
        done = run("map", "--length", 4096, "--steps", 2, "--json", memory=1 << 30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep map: --length 4096: the map takes \S+ GiB, ")


class Scale(Case):
    LENGTHS = "4Ki,16Ki,64Ki,256Ki"

    def test_the_exponents(self):
        result = self.json("scale", "--lengths", self.LENGTHS, "--samples", 512)
        self.assertEqual([run["steps"] for run in result["runs"]], [1, 2, 3, 4])
        for run_ in result["runs"]:
            fit = run_["fit"]
            self.assertEqual(fit["theory"], 1 + 1 / run_["steps"])
            self.assertAlmostEqual(fit["exponent"], fit["theory"], delta=0.06)
            self.assertTrue(fit["low"] <= fit["exponent"] <= fit["high"])
            for point in run_["points"]:
                self.assertEqual(point["drawn_work"],
                                 point["anchors_scored"] + point["keys_attended"])

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
        self.assertEqual([run["fit"]["theory"] for run in result["runs"]],
                         [2, 1.5, 1 + 1 / 3, 1.25, 1.5, 1.55])
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


class Output(Case):
    VERIFY = ("verify", "--length", 9, "--json")

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def refuses_place(self, path, reason, *arguments):
        self.refuses([*(arguments or self.VERIFY), "--output", str(path)],
                     f"--output {path}: a file that can be written ({reason})", stdin="")

    def entries(self):
        return sorted(entry.name for entry in self.folder.iterdir())

    def test_files_are_whole_or_absent(self):
        path = self.folder / "report.json"
        self.answer(*self.VERIFY, "--output", path)
        self.assertIs(json.loads(path.read_text())["covered"], True)
        self.assertEqual(self.entries(), [path.name])
        long = self.folder / ("x" * 255)
        self.answer(*self.VERIFY, "--output", long)
        self.assertIs(json.loads(long.read_text())["covered"], True)

    def test_a_place_that_cannot_be_written_is_refused_before_the_work(self):
        """It would take a day."""
        work = ("verify", "--length", "1000000000000", "--rule", "power", "--backward", 1)
        self.refuses_place("/no/such/folder/x", "No such file or directory", *work)
        self.refuses_place(self.folder, "Is a directory", *work)
        self.refuses_place(f"{self.folder}/x/", "No such file or directory", *work)
        self.refuses_place(self.folder / ("x" * 256), "File name too long", *work)
        self.refuses_place("/dev/fd/77", "Bad file descriptor", *work)
        self.refuses_place("/proc/self/fd/0", "Bad file descriptor", *work)
        loop = self.folder / "loop"
        loop.symlink_to(loop)
        self.refuses_place(loop, "Too many levels of symbolic links", *work)
        self.assertEqual(self.entries(), ["loop"])
        done = subprocess.run(f"exec '{PROGRAM}' {' '.join(map(str, work))} >&-", shell=True,
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (2, "multistep verify: standard output: "
                                                          "cannot be written (Bad file descriptor)\n"))

    def test_options_without_their_values(self):
        for option in ("--output", "--spans", "--length", "--seed"):
            self.refuses(["verify", "--length", "9", f"{option}=", "--json"], f"{option} '': a value")
        for command, option in (("scale", "--configs"), ("audit", "--exponents"), ("map", "--length"),
                                ("needles", "--commit"), ("attend", "--dtype"), ("bench", "--lengths")):
            self.refuses([command, f"{option}=", "--json"], f"{option} '': a value")
        done = subprocess.run([PROGRAM, "verify", "--length", "9", "--output", "--json"],
                              cwd=self.folder, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (2, "", "multistep verify: --output '--json': a value\n"))
        self.assertEqual(self.entries(), [])

    def test_links_are_followed_and_devices_written(self):
        file, link, device = (self.folder / name for name in ("file", "link", "device"))
        file.write_text("old")
        file.chmod(0o640)
        link.symlink_to("file")
        self.answer(*self.VERIFY, "--output", link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(file.stat().st_mode & 0o777, 0o640)
        self.assertIs(json.loads(file.read_text())["covered"], True)
        device.symlink_to("/dev/full")
        self.refuses_place(device, "No space left on device")
        self.assertTrue(pathlib.Path("/dev/full").is_char_device())

    def test_a_link_to_no_file_yet_is_followed(self):
        dangling, nowhere = self.folder / "dangling", self.folder / "nowhere"
        (self.folder / "inner").mkdir()
        dangling.symlink_to("inner/new")
        self.answer(*self.VERIFY, "--output", dangling)
        self.assertTrue(dangling.is_symlink())
        self.assertIs(json.loads((self.folder / "inner/new").read_text())["covered"], True)
        nowhere.symlink_to(self.folder / "absent/new")
        self.refuses_place(nowhere, "No such file or directory")
        self.assertTrue(nowhere.is_symlink())

    def test_streams_take_the_text_as_it_comes(self):
        for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            done = subprocess.run([PROGRAM, "verify", "--length", "9", "--json", "--output", name],
                                  cwd=self.folder, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIs(json.loads(done.stdout)["covered"], True)
        self.assertEqual(self.entries(), [])
        reader, pipe = os.pipe()  # as >(cat) makes one
        done = subprocess.run([PROGRAM, *map(str, self.VERIFY), "--output", f"/dev/fd/{pipe}"],
                              pass_fds=[pipe], capture_output=True, text=True)
        os.close(pipe)
        with open(reader) as read:
            self.assertIs(json.loads(read.read())["covered"], True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_standard_output_that_is_a_file_is_added_to(self):
        shared = self.folder / "shared"
        command = f"(echo first; '{PROGRAM}' verify --length 9 --output /dev/stdout; echo last)"
        subprocess.run(f"{command} > {shared}", shell=True, check=True)
        lines = shared.read_text().splitlines()
        self.assertEqual((lines[0], lines[1][:8], lines[-1]), ("first", "schedule", "last"))

    def test_a_closed_standard_error_is_no_place_for_files(self):
        """The next file that is opened would become it, and take messages and results alike."""
        path = self.folder / "report"
        subprocess.run(f"exec '{PROGRAM}' needles --lengths 8 --depths 1 --noise 0 --rule power "
                       f"--backward 1 --forward 1 --top-k 1 --json --output {path} 2>&-", shell=True)
        self.assertIs(json.loads(path.read_text())["perfect"], False)

    def test_progress_shows_on_a_terminal_and_is_gone_before_the_result(self):
        reader, terminal = os.openpty()
        with subprocess.Popen([PROGRAM, "scale", "--steps", "2", "--lengths", "8Gi,16Gi,32Gi,64Gi"],
                              stdout=terminal, stderr=terminal) as process:
            os.close(terminal)
            shown = b""
            try:
                while chunk := os.read(reader, 1 << 16):
                    shown += chunk
            except OSError:  # the terminal's other end is closed
                pass
        os.close(reader)
        self.assertEqual(process.returncode, 0)
        bar, _, result = shown.decode().rpartition("\033[K")
        self.assertIn("scale [", bar)
        self.assertTrue(result.startswith("all queries of a sequence"))

    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([PROGRAM, "verify", "--length", "9"], stdout=full,
                                  stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr),
                         (2, "multistep verify: standard output: cannot be written (No space left on "
                             "device)\n"))


if __name__ == "__main__":
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
