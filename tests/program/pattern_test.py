#!/usr/bin/env python3
"""Patterns of other attentions: verify, explain, map and scale.

Usage: pattern_test.py PROGRAM [unittest arguments]
"""

import json

import program
from program import Case, run


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
        self.refuses(["explain", "--position", (1 << 24) - 1, "--pattern", "strided", "--stride", 1],
                     "--position 16777215: a query with at most 1000000 spans to show")
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

    def test_queries_of_more_spans_than_there_is_room_for(self):
        length = 1 << 48
        for options in (["strided", "--stride", 1], ["combiner-fixed", "--block", 1],
                        ["bigbird", "--block", 1, "--random", 10**11, "--start", length - 16]):
            self.refuses(["verify", "--length", length, "--pattern", *options],
                         f"--length {length}: queries with at most 16777216 spans")

    def test_a_seed_of_queries(self):
        """It is taken whether or not a pattern has random blocks; they change with it."""
        found = [self.json("scale", "--pattern", "bigbird,moba", "--lengths", "2Ki,4Ki,8Ki",
                           "--samples", 64, "--seed", seed)["runs"] for seed in (1, 2)]
        for one, other in zip(*found):
            self.assertNotEqual(one["points"], other["points"])
        self.assertTrue(found[1][0]["schedule"].endswith("seed 2)"))

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


if __name__ == "__main__":
    program.main()
