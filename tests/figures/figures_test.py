#!/usr/bin/env python3
"""Every figure of results is drawn from small made-up ones: pictures that are not blank, with fonts
embedded, captions with the data's numbers; one page of all; and pages that agree with them.

Usage: figures_test.py [unittest arguments]
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zlib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "experiments"), str(HERE)]

import sample_results  # noqa: E402
from plots_test import plotter  # noqa: E402

# Each figure, what it cannot be drawn without, and a number of the samples in its caption.
FIGURES = {
    "counted": ("cpu/scaling.json", "1.5000 [1.5000, 1.5000]"),
    "cheapest": ("cpu/scaling.json", "N = 28 does the least"),
    "timed": ("h100/context_10M.json", "decode, A (paper), N = 2"),
    "crossover": ("h100/whole.json", "is overtaken. Decode: A (paper), N = 2 at 16.8Ki, 61.5 times as fast at 10M"),
    "stages": ("h100/context_64Ki.json",
               "search 33%, span attention 44%, window, combine 22%"),
    "oracle": ("cpu/oracle.json", "1.500 [1.492, 1.508], nstep, N = 2"),
    "accuracy": ("h100/accuracy.json", "576 of 576 comparisons of a stage pass"),
    "audit": ("cpu/audit.json", "query 898, key 1"),
    "needles": ("cpu/needles.json", "24000 of 24000 needles (100.00%)"),
}


def ink(path):
    """Share of a PNG's bytes, as differences between neighbours, that are not 0: of a blank page
    hardly any."""
    data, at, packed = path.read_bytes(), 8, b""
    while at < len(data):
        length = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    pixels = zlib.decompress(packed)
    return 1 - pixels.count(0) / len(pixels)


class Drawn:
    """The sample results and what is drawn of them, once for all tests."""

    def __init__(self, folder):
        self.python = plotter()
        self.folder = folder
        self.results = sample_results.write(folder / "results")
        self.drawn = folder / "figures"
        self.drawn.mkdir()
        self.done = {name: self.draw(name, self.drawn / name) for name in FIGURES}
        self.table = subprocess.run(
            [sys.executable, ROOT / "experiments/exponents.py", "--results", self.results,
             "--output", self.drawn / "exponents.md"], capture_output=True, text=True)
        self.page = subprocess.run([self.python, ROOT / "plots/page.py", "--output", self.drawn],
                                   capture_output=True, text=True)

    def draw(self, name, output, results=None, *more):
        return subprocess.run([self.python, ROOT / f"plots/{name}.py", "--results",
                               results or self.results, "--output", output, *more],
                              capture_output=True, text=True)


def setUpModule():
    global ALL
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    ALL = Drawn(pathlib.Path(folder.name))


class Figures(unittest.TestCase):
    def setUp(self):
        vars(self).update(vars(ALL))
        self.draw = ALL.draw

    def test_drawn(self):
        for name, done in self.done.items():
            with self.subTest(name):
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertGreater(ink(self.drawn / f"{name}.png"), 0.01)
                self.assertIn(b"<svg", (self.drawn / f"{name}.svg").read_bytes())

    def test_fonts_are_embedded(self):
        for name in FIGURES:
            with self.subTest(name):
                pdf = (self.drawn / f"{name}.pdf").read_bytes()
                self.assertTrue(pdf.startswith(b"%PDF"))
                self.assertGreater(pdf.count(b"/FontDescriptor"), 0)
                self.assertEqual(pdf.count(b"/Type /FontDescriptor"), pdf.count(b"/FontFile2 "))
                self.assertNotIn(b"/Type3", pdf)

    def test_width_is_a_paper_s(self):
        for name in FIGURES:
            with self.subTest(name):
                svg = (self.drawn / f"{name}.svg").read_text()
                inches = float(re.search(r'width="([\d.]+)pt"', svg)[1]) / 72
                self.assertIn(round(inches, 2), (3.35, 7.0))

    def test_captions(self):
        for name, (_, number) in FIGURES.items():
            with self.subTest(name):
                caption = (self.drawn / f"{name}.md").read_text()
                self.assertIn(number, caption)
                self.assertIn("commit `0123456789`", caption)
                self.assertNotIn("nan", caption.lower().replace("finance", ""))

    def test_same_results_same_bytes(self):
        again = self.folder / "again"
        self.draw("audit", again)
        for form in ("pdf", "svg", "png", "md"):
            self.assertEqual(again.with_suffix(f".{form}").read_bytes(),
                             (self.drawn / f"audit.{form}").read_bytes(), form)

    def test_missing_results(self):
        for name, (needed, _) in FIGURES.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as scratch:
                copy = pathlib.Path(scratch) / "results"
                shutil.copytree(self.results, copy)
                (copy / needed).unlink()
                done = self.draw(name, pathlib.Path(scratch) / "figure", copy)
                self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
                self.assertIn(f"{needed}: missing; `./bootstrap experiments", done.stderr)
                self.assertEqual(list(pathlib.Path(scratch).glob("*figure*")), [])

    def test_partial_results(self):
        with tempfile.TemporaryDirectory() as scratch:
            copy = pathlib.Path(scratch) / "results"
            shutil.copytree(self.results, copy)
            for length in ("4Ki", "16Ki", "1Mi", "4Mi", "10M"):
                (copy / f"h100/context_{length}.json").unlink()
            for name in ("timed", "crossover", "stages"):
                done = self.draw(name, pathlib.Path(scratch) / name, copy, "--partial")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
            shutil.rmtree(copy / "h100")
            done = self.draw("timed", pathlib.Path(scratch) / "none", copy, "--partial")
            self.assertEqual(done.returncode, 2)
            self.assertIn("no results for this figure", done.stderr)

    def test_page(self):
        self.assertEqual((self.table.returncode, self.page.returncode, self.page.stderr),
                         (0, 0, ""))
        page = (self.drawn / "index.html").read_text()
        for name in (*FIGURES, "exponents"):
            title = (self.drawn / f"{name}.md").read_text().splitlines()[0][2:]
            self.assertIn(f'<h2 id="{name}">{title}</h2>', page)
        self.assertEqual(page.count("<img "), len(FIGURES))
        for place in re.findall(r'(?:src|href)="([^"]{,20})', page):
            self.assertRegex(place, "^(data:|#)")  # nothing from elsewhere
        self.assertNotRegex(page, r"<script|@import|url\(")
        self.assertIn("commit <code>0123456789</code>", page)

    def test_page_without_figures(self):
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run([self.python, ROOT / "plots/page.py", "--output", scratch],
                                  capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
            pathlib.Path(scratch, "bad.md").write_text("no title")
            done = subprocess.run([self.python, ROOT / "plots/page.py", "--output", scratch],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 2)
            self.assertIn("bad.md:1: the caption starts with #", done.stderr)


class Readme(unittest.TestCase):
    """The blocks of README.md and docs/results.md, in a copy with the sample results."""

    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        for folder in ("experiments", "plots"):  # both tell what draws a picture
            shutil.copytree(ROOT / folder, self.root / folder,
                            ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ALL.results, self.root / "results")
        shutil.copy(ROOT / "results/cpu/benchmarks.json", self.root / "results/cpu")
        shutil.copy(ROOT / "README.md", self.root)
        shutil.copytree(ROOT / "docs", self.root / "docs")
        self.page = self.root / "docs/results.md"

    def readme(self, *arguments):
        return subprocess.run([sys.executable, self.root / "experiments/readme.py", *arguments],
                              capture_output=True, text=True)

    def disagrees(self, text):
        done = self.readme("--check")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)
        self.assertIn(text, done.stderr)

    def test_check(self):
        self.disagrees("results/cpu/counted.png: not of these results")
        done = self.readme("--pictures", ALL.drawn)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.readme("--check").returncode, 0)
        text = self.page.read_text()
        for part in ("](../results/cpu/counted.png)", "](../results/h100/timed.png)",
                     "](../results/h100/crossover.png)", "| nstep, N = 3 | 1.333 | 1.333 [1.333, ",
                     "| A (paper), N = 2 | "):
            self.assertIn(part, text)

        # A page is changed, or a picture, or a result.
        self.page.write_text(text.replace("1.333 [1.333,", "1.334 [1.333,", 1))
        self.disagrees("docs/results.md: its tables and findings")
        self.page.write_text(text)
        readme = self.root / "README.md"
        text = readme.read_text()
        readme.write_text(text.replace("A decoded token: ", "A decoded token: only ", 1))
        self.disagrees("README.md: its tables and findings")
        readme.write_text(text)
        shutil.copy(self.root / "results/h100/timed.png",
                    self.root / "results/h100/crossover.png")
        self.disagrees("results/h100/crossover.png: not of these results")
        shutil.copy(ALL.drawn / "crossover.png", self.root / "results/h100")
        self.assertEqual(self.readme("--check").returncode, 0)
        drawing = self.root / "plots/timed.py"
        code = drawing.read_text()
        drawing.write_text(code + "# another picture\n")
        self.disagrees("results/cpu/counted.png: not of these results")
        drawing.write_text(code)
        path = self.root / "results/h100/context_1Mi.json"
        bench = json.loads(path.read_text())
        bench["records"][0]["median_ms"] *= 1.01
        path.write_text(json.dumps(bench))
        self.disagrees("results/h100/timed.png: not of these results")
        done = self.readme("--pictures", ALL.drawn)
        self.assertEqual(done.returncode, 1)
        self.assertIn("timed.png: not of these results; `./bootstrap figures` draws it",
                      done.stderr)

    def test_without_results(self):
        shutil.rmtree(self.root / "results/h100")
        done = self.readme("--pictures", ALL.drawn)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.readme("--check").returncode, 0)
        self.assertNotIn("results/h100/timed.png", self.page.read_text())

    def test_usage(self):
        done = self.readme("--pictures")
        self.assertEqual((done.returncode, done.stderr),
                         (1, "readme.py --pictures: --check or --pictures FOLDER\n"))


if __name__ == "__main__":
    unittest.main()
