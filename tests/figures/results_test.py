#!/usr/bin/env python3
"""The committed results hold what experiments/schema.json says, and agree with what is known; and
the check itself notices a field that is missing, misspelt, of the wrong kind or out of range.

Usage: results_test.py [unittest arguments]
"""

import copy
import json
import unittest

from schema import ROOT, problems, schema_of

RESULTS = ROOT / "results"


def result(name):
    return json.loads((RESULTS / name).read_text())


class Committed(unittest.TestCase):
    def test_every_file_holds_what_the_schema_says(self):
        files = sorted(RESULTS.rglob("*.json"))
        self.assertTrue(files)
        for file in files:
            name = file.relative_to(RESULTS).as_posix()
            with self.subTest(file=name):
                schema = schema_of(name)
                self.assertIsNotNone(schema, "a pattern of experiments/schema.json for it")
                self.assertEqual(problems(json.loads(file.read_text()), schema)[:10], [])

    def test_no_file_is_left_half_written(self):
        self.assertEqual(list(RESULTS.rglob("*.partial")), [])

    def test_scaling_adds_up(self):
        document = result("cpu/scaling.json")
        lengths = [point["length"] for point in document["runs"][0]["points"]]
        self.assertEqual((lengths[0], lengths[-1]), (2**10, 2**40))
        for run in document["runs"]:
            with self.subTest(config=run["config"]):
                self.assertEqual([point["length"] for point in run["points"]], lengths)
                for point in run["points"]:
                    self.assertAlmostEqual(point["drawn_work"] / (point["anchors_scored"]
                                                                  + point["keys_attended"]), 1)
                    if point["ratio"] is None:  # the window has every key
                        self.assertEqual((run["config"], point["choices"]), ("released", 0))
                        continue
                    self.assertAlmostEqual(point["ratio"], point["choices"] / point["lower_bound"])
                    self.assertGreaterEqual(point["ratio"], 1 - 1e-12)  # no scheme is below it
                self.assertAlmostEqual(run["fit"]["exponent"], run["fit"]["theory"], delta=0.06)
        steps = {length: [one["steps"] for one in document["last_query"]
                          if (one["rule"], one["length"]) == ("even", length)]
                 for length in lengths}
        for length, found in steps.items():
            self.assertEqual(found, list(range(1, length.bit_length())))
        for one in document["last_query"]:  # SPEC 2.5.8
            self.assertGreaterEqual(one["work"], one["lower_bound"] * (1 - 1e-12))
        # SPEC 10: the mean work of one path at 2^20.
        mean = {(one["rule"], one["steps"]): one["work"] for one in document["last_query"]
                if one["length"] == 2**20}
        for key, known in {("nstep", 2): 2389.3, ("nstep", 3): 363.9, ("nstep", 4): 154.2,
                           ("even", 2): 2048.0, ("even", 3): 304.8}.items():
            self.assertAlmostEqual(mean[key], known, delta=0.05)

    def test_audit_agrees_with_what_is_known(self):
        document = result("cpu/audit.json")
        stripes = {(one["exponent"], one["method"], one["limit"]): one
                   for one in document["exponents"]}
        for one in stripes.values():
            self.assertAlmostEqual(one["share"], one["wrong"] / one["stripes"])
            self.assertEqual(one["first_wrong"] is None, one["wrong"] == 0)
            self.assertEqual(one["largest_error"] > 0, one["wrong"] > 0)
        # With each step rounded correctly; a C library whose expf is not always may differ by one.
        million = stripes["20/11", "float exp(log)", 10**6]
        self.assertEqual((million["stripes"], million["wrong"]), (1995, 359))
        ten = stripes["20/11", "float exp(log)", 10**7]
        self.assertEqual((ten["stripes"], ten["wrong"], ten["largest_error"]), (7079, 4661, 23))
        for one in document["coverage"]:
            self.assertEqual(one["covered"], one["excluded_pairs"] == 0)
            self.assertEqual(one["covered"], one["excluded_queries"] == 0)
            self.assertEqual(one["covered"], one["first_excluded"] is None)
            self.assertEqual(one["covered"], one["least_slack"] >= 0)
            if one["method"] == "exact" or one["rule"] == "tight":
                self.assertTrue(one["covered"], one["schedule"])

    def test_perfect_routing_finds_every_needle(self):
        document = result("cpu/needles.json")
        self.assertTrue(any(one["noise"] == 0 for one in document["records"]))
        for one in document["records"] + document["baselines"]:
            self.assertLessEqual(one["found"], one["trials"])
        for one in document["records"]:
            if one["noise"] == 0:
                self.assertEqual(one["found"], one["trials"])
        self.assertTrue(all("baseline" in one for one in document["baselines"]))
        self.assertFalse(any("baseline" in one for one in document["records"]))


    def test_relatives(self):
        """SPEC 12, where the parameters are its own; the schedules reach every key in one layer."""
        document = result("cpu/relatives.json")
        found = {one["name"]: one for one in document["records"]}
        self.assertEqual((document["length"], len(found)), (257, len(document["records"])))
        for name, pairs, first, layers in [
                ("window", 29161, [16, 0], 18), ("block-diagonal", 30976, [16, 0], None),
                ("strided", 27225, [17, 0], 2), ("fixed", 23232, [16, 0], 2),
                ("log-sparse", 31094, [3, 0], 8), ("combiner-fixed", 0, None, 1),
                ("nsa", 0, None, 1), ("moba", 0, None, 1), ("dsa", 0, None, 1)]:
            one = found[name]
            self.assertEqual((one["excluded_pairs"], one["first_excluded"], one["layers"]),
                             (pairs, first, layers), name)
        for one in document["records"]:
            self.assertLessEqual(one["excluded_pairs"] + one["averaged_pairs"], 257 * 258 // 2)
            self.assertEqual(one["excluded_pairs"] == 0, one["layers"] == 1)
            self.assertEqual(one["excluded_pairs"] == 0, one["first_excluded"] is None)
            lengths = [point["length"] for point in one["points"]]
            self.assertEqual(lengths, sorted(set(lengths)))
            if one["group"] == "schedules":
                self.assertEqual((one["layers"], one["averaged_pairs"]), (1, 0))


def places(value, where=()):
    """Every place of a document, of lists the first entry alone."""
    yield where
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*where, name))
    if isinstance(value, list) and value:
        yield from places(value[0], (*where, 0))


class Check(unittest.TestCase):
    """Wrong documents, made from the committed ones."""

    def setUp(self):
        self.files = [name for name in ("cpu/scaling.json", "cpu/oracle.json", "cpu/audit.json",
                                        "cpu/needles.json", "cpu/relatives.json",
                                        "cpu/training_curve.json",
                                        "h100/training_curve.json", "h100/sdpa.json",
                                        "h200/sweep.json")]

    def small(self, name):
        """The document with the first entries of its lists alone."""
        def cut(value):
            if isinstance(value, dict):
                return {key: cut(inner) for key, inner in value.items()}
            return [cut(inner) for inner in value[:3]] if isinstance(value, list) else value
        return cut(result(name))

    def edited(self, document, where, edit):
        changed = copy.deepcopy(document)
        holder = changed
        for step in where[:-1]:
            holder = holder[step]
        edit(holder, where[-1])
        return changed

    def refused(self, name, document, where, edit):
        wrong = self.edited(document, where, edit)
        self.assertNotEqual(problems(wrong, schema_of(name)), [], (name, where))

    def test_each_field_is_needed_and_of_a_kind(self):
        for name in self.files:
            document = self.small(name)
            self.assertEqual(problems(document, schema_of(name)), [])
            for where in places(document):
                if not where or isinstance(where[-1], int):
                    continue
                self.refused(name, document, where, lambda holder, key: holder.pop(key))
                self.refused(name, document, where,
                             lambda holder, key: holder.__setitem__(key, {"is": "wrong"}))
                self.refused(name, document, where,
                             lambda holder, key: holder.__setitem__(key + "_", holder.pop(key)))

    def test_numbers_have_ranges(self):
        for schema, wrong in (({"type": "integer"}, 1.5), ({"type": "integer"}, True),
                              ({"type": "integer", "minimum": 1}, 0),
                              ({"type": "number", "maximum": 1}, 1.1),
                              ({"type": "number", "exclusiveMinimum": 0}, 0),
                              ({"type": ["number", "null"]}, "1"), ({"enum": [True]}, 1),
                              ({"type": "string", "pattern": "^[0-9a-f]{40}$"}, "dc8ac6f"),
                              ({"type": "array", "minItems": 1}, [])):
            self.assertEqual(len(problems(wrong, schema)), 1, (schema, wrong))
        self.assertRaises(ValueError, problems, 1, {"oneOf": []})

    def test_a_file_without_a_schema_is_refused(self):
        self.assertIsNone(schema_of("cpu/notes.json"))
        self.assertIsNotNone(schema_of("h100/context_10M.json"))


if __name__ == "__main__":
    unittest.main()
