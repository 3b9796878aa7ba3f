#!/usr/bin/env python3
"""Every figure is drawn from the program's output, and refuses what is not.

Usage: plots_test.py PROGRAM [unittest arguments]
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
PLOTS = pathlib.Path(__file__).resolve().parents[2] / "plots"
MAGIC = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}


def plotter():
    """A Python that has matplotlib: the first on the path need not."""
    for python in (sys.executable, "python3", "/usr/bin/python3"):
        try:
            if subprocess.run([python, "-c", "import matplotlib"],
                              capture_output=True).returncode == 0:
                return python
        except OSError:
            pass
    raise RuntimeError("no python3 with matplotlib")


class Plots(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.python = plotter()

    def data(self, name, *arguments):
        path = self.folder / name
        subprocess.run([PROGRAM, *arguments, "--output", path], check=True)
        return path

    def draw(self, script, *arguments):
        return subprocess.run([self.python, PLOTS / script, *arguments, "--output",
                               self.folder / "figure"], capture_output=True, text=True)

    def draws(self, script, *arguments):
        done = self.draw(script, *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for form, magic in MAGIC.items():
            self.assertTrue((self.folder / f"figure.{form}").read_bytes().startswith(magic))

    def test_stripes(self):
        self.draws("stripes.py", self.data("map.csv", "map", "--length", "24", "--steps", "3"))

    def test_multiplicity(self):
        self.draws("multiplicity.py", self.data("a.csv", "map", "--length", "16"),
                   self.data("b.csv", "map", "--length", "16", "--rule", "power", "--backward", "0"))

    def test_scaling(self):
        self.draws("scaling.py", self.data("scale.json", "scale", "--lengths", "64,128,256", "--json"))

    def test_bad_input(self):
        bad = self.folder / "bad.csv"
        bad.write_text("query,key\n1,2\n")
        for script in ("stripes.py", "multiplicity.py", "scaling.py"):
            done = self.draw(script, bad)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
            self.assertIn("bad.csv", done.stderr)
            self.assertEqual(list(self.folder.glob("figure*")), [])


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
