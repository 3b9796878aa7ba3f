#!/usr/bin/env python3
"""What `multistep verify` says of lists of spans.

Usage: verify_spans_test.py PROGRAM [unittest arguments]
"""

import os
import subprocess
import tempfile

import program
from program import Case, run


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
            done = subprocess.run([program.PROGRAM, "verify", "--spans", "-", "--length", "8"], input=data,
                                  capture_output=True)
            self.assertEqual((done.returncode, done.stdout), (2, b""))
            self.assertRegex(done.stderr, rb"^[ -~]+\n$")
        with tempfile.TemporaryDirectory() as folder:  # nor those of its name
            path = os.path.join(os.fsencode(folder), b"\x1b[2J\xff.csv")
            with open(path, "wb") as file:
                file.write(b"3,0,4\n")
            for form in ([], ["--json"]):
                done = subprocess.run([program.PROGRAM, "verify", "--spans", path, "--length", "8", *form],
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


if __name__ == "__main__":
    program.main()
