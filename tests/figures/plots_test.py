#!/usr/bin/env python3
"""Every figure is drawn from the program's output, and refuses what is not.

Usage: plots_test.py PROGRAM [unittest arguments]
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
ROOT = pathlib.Path(__file__).resolve().parents[2]
MAGIC = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}


class Plots(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def data(self, name, *arguments):
        path = self.folder / name
        subprocess.run([PROGRAM, *arguments, "--output", path], check=True)
        return path

    def python(self, *arguments):
        return subprocess.run([sys.executable, *arguments], cwd=self.folder, capture_output=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)

    def draw(self, name, *arguments):
        return self.python("-m", "plots", name, *arguments, "--output", "figure")

    def drawn(self, done, stem="figure"):
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for form, magic in MAGIC.items():
            self.assertTrue((self.folder / f"{stem}.{form}").read_bytes().startswith(magic))

    def draws(self, name, *arguments):
        self.drawn(self.draw(name, *arguments))

    def test_stripes(self):
        self.draws("stripes", self.data("map.csv", "map", "--length", "24", "--steps", "3"))

    def test_multiplicity(self):
        self.draws("multiplicity", self.data("a.csv", "map", "--length", "16"),
                   self.data("b.csv", "map", "--length", "16", "--rule", "power", "--backward", "0"))

    def test_queries(self):
        path = self.data("map.csv", "map", "--length", "24", "--steps", "3")
        self.draws("stripes", path, "--queries", "8:24")
        self.assertIn("Queries 8 to 23: 0 pairs", (self.folder / "figure.md").read_text())
        for queries, said in (("8:", "8:: a range A:B"), ("8:25", "a range within 0:24")):
            done = self.draw("stripes", path, "--queries", queries)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
            self.assertIn(said, done.stderr)

    def test_scaling_as_the_readme_has_it(self):
        self.data("scale.json", "scale", "--lengths", "64,128,256", "--json")
        command = re.search(r"^ {4}python3 (-m plots .*?)  ", (ROOT / "README.md").read_text(), re.M)
        self.drawn(self.python(*shlex.split(command[1])), "scaling")

    def test_no_such_figure(self):
        for names in ([], ["time"]):
            done = self.python("-m", "plots", *names)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
            self.assertIn("a figure of accuracy, audit, ", done.stderr)

    def test_bad_input(self):
        bad = self.folder / "bad.csv"
        bad.write_text("query,key\n1,2\n")
        for name in ("stripes", "multiplicity", "scaling"):
            done = self.draw(name, bad)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
            self.assertIn("bad.csv", done.stderr)
            self.assertEqual(list(self.folder.glob("figure*")), [])


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
