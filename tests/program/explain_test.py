#!/usr/bin/env python3
"""`multistep explain` and `map`.

Usage: explain_test.py PROGRAM [unittest arguments]
"""

import csv
import io

import program
from program import Case


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

    def test_an_excluded_key_of_a_long_context(self):
        """The spans between the newest key and it are millions."""
        tree = self.json("explain", "--position", "4000000000000", "--key", 2, "--rule", "power",
                         "--backward", "1/2", code=1)
        self.assertEqual([node["span"] for node in tree["anchors"]],
                         [{"begin": 2_999_999, "end": 4_000_001}, {"begin": 0, "end": 2}])

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


if __name__ == "__main__":
    program.main()
