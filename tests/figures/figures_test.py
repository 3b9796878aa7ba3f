#!/usr/bin/env python3
"""Every figure of results is drawn from small made-up ones: pictures that are not blank, with fonts
embedded, captions with the data's numbers; one page of all; and pages that agree with them.

Usage: PYTHONPATH=. figures_test.py [unittest arguments]
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

import sample_results
from plots import figures, page
from plots.plot import FilePlot
from plots.results import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAPS = ROOT / "results/cpu/maps"
SHOWN = {name: plot for name, plot in figures.plots().items() if plot.place is not None}
DRAWN = [name for name, plot in SHOWN.items() if plot.draw]
# A number of the samples in a figure's caption.
NUMBERS = {
    "exponents": "| nstep, N = 3 | 1.333 | 1.333 [1.333, 1.333] |",
    "counted": "1.5000 [1.5000, 1.5000]",
    "cheapest": "N = 28 does the least",
    "relatives": "| window | 88.0 % | 0.0 % | never | 0.000 [0.000, 0.000] | 0.000 | 512 |",
    "timed": "decode, A (paper), N = 2",
    "crossover": "is overtaken. Decode: A (paper), N = 2 at 16.8Ki, 61.5 times as fast at 10M",
    "training": "| PyTorch's cuDNN | 12.8 ms (3.0) | 205 ms (3.0) | 819 ms (3.0) |",
    "training_curve": "from a loss of 3.000 to 1.125 and 1.110, never further apart than 0.75 of the limit",
    "learning": "| recall | even, N = 3, ema | 2 | 0.002 | 2Ki | 3 of 3 | 1200 [1195, 1205] | 0.950 "
                "[0.950, 0.950] | 0.5 of 8, 0.5 of 8 | 0.950 [0.950, 0.950] at 8Ki | "
                "0.946 at 512, 80% to 100% |",
    "stages": "search 33%, span attention 44%, window, combine 22%",
    "oracle": "1.500 [1.492, 1.508], nstep, N = 2",
    "accuracy": "576 of 576 comparisons of a stage pass",
    "audit": "query 898, key 1",
    "needles": "24000 of 24000 needles (100.00%)",
    "multiplicity": "failing: 56 of 2080 pairs of a query and a key excluded",
    "stripes": "97 on level 1, 419 on level 2",
    "parts": "124 on level 1, 452 on level 2",
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


def plots(*arguments, root=ROOT):
    """What `python3 -m plots` does in a checkout."""
    return subprocess.run([sys.executable, "-m", "plots", *arguments], cwd=root,
                          capture_output=True, text=True)


class Drawn:
    """The sample results and what is drawn of them, once for all tests."""

    def __init__(self, folder):
        self.folder = folder
        self.results = sample_results.write(folder / "results")
        shutil.copytree(MAPS, self.results / "cpu/maps")
        self.drawn = folder / "figures"
        self.drawn.mkdir()
        self.done = plots("all", "--results", self.results, "--output", self.drawn)


def setUpModule():
    global ALL
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    ALL = Drawn(pathlib.Path(folder.name))


class Figures(unittest.TestCase):
    def setUp(self):
        vars(self).update(vars(ALL))

    def test_drawn(self):
        self.assertEqual((self.done.returncode, self.done.stderr), (0, ""))
        for name in DRAWN:
            with self.subTest(name):
                least = 0.005 if name in ("stripes", "parts") else 0.01  # large cells of one colour
                self.assertGreater(ink(self.drawn / f"{name}.png"), least)
                self.assertIn(b"<svg", (self.drawn / f"{name}.svg").read_bytes())

    def test_fonts_are_embedded(self):
        for name in DRAWN:
            with self.subTest(name):
                pdf = (self.drawn / f"{name}.pdf").read_bytes()
                self.assertTrue(pdf.startswith(b"%PDF"))
                self.assertGreater(pdf.count(b"/FontDescriptor"), 0)
                self.assertEqual(pdf.count(b"/Type /FontDescriptor"), pdf.count(b"/FontFile2 "))
                self.assertNotIn(b"/Type3", pdf)

    def test_width_is_a_paper_s(self):
        for name in DRAWN:
            with self.subTest(name):
                svg = (self.drawn / f"{name}.svg").read_text()
                inches = float(re.search(r'width="([\d.]+)pt"', svg)[1]) / 72
                self.assertIn(round(inches, 2), (3.35, 7.0))

    def test_captions(self):
        for name, plot in SHOWN.items():
            with self.subTest(name):
                caption = (self.drawn / f"{name}.md").read_text()
                self.assertIn(NUMBERS.get(name, ""), caption)
                commit = (MAPS / "SOURCE").read_text()[8:18]
                self.assertIn(f"commit `{commit if isinstance(plot, FilePlot) else '0123456789'}`",
                              caption)
                self.assertNotIn("nan", caption.lower().replace("finance", ""))

    def test_same_results_same_bytes(self):
        again = self.folder / "again"
        for name in ("audit", "stripes"):
            plots(name, *SHOWN[name].usual(self.results), "--output", again)
            for form in ("pdf", "svg", "png", "md"):
                self.assertEqual(again.with_suffix(f".{form}").read_bytes(),
                                 (self.drawn / f"{name}.{form}").read_bytes(), form)

    def test_missing_results(self):
        for name, plot in SHOWN.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as scratch:
                copy = pathlib.Path(scratch) / "results"
                shutil.copytree(self.results, copy)
                (copy / plot.needs[0]).unlink()
                done = plots(name, *plot.usual(copy), "--output", pathlib.Path(scratch) / "figure")
                self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
                self.assertIn(f"{plot.needs[0]}: " + (
                    "No such file" if isinstance(plot, FilePlot)
                    else "missing; `./bootstrap experiments"), done.stderr)
                self.assertEqual(list(pathlib.Path(scratch).glob("*figure*")), [])

    def test_partial_results(self):
        with tempfile.TemporaryDirectory() as scratch:
            copy = pathlib.Path(scratch) / "results"
            shutil.copytree(self.results, copy)
            for length in ("4Ki", "16Ki", "1Mi", "4Mi", "10M"):
                (copy / f"h100/context_{length}.json").unlink()
            for name in ("timed", "crossover", "stages"):
                done = plots(name, "--results", copy, "--partial", "--output",
                             pathlib.Path(scratch) / name)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
            shutil.rmtree(copy / "h100")
            done = plots("timed", "--results", copy, "--partial", "--output",
                         pathlib.Path(scratch) / "none")
            self.assertEqual(done.returncode, 2)
            self.assertIn("no results for this figure", done.stderr)

    def test_what_is_not_measured_is_left_out(self):
        with tempfile.TemporaryDirectory() as scratch:
            copy, drawn = pathlib.Path(scratch) / "results", pathlib.Path(scratch) / "figures"
            drawn.mkdir()
            done = plots("all", "--results", copy, "--output", drawn)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))
            self.assertIn("no results of any figure", done.stderr)
            (copy / "cpu").mkdir(parents=True)
            shutil.copy(self.results / "cpu/oracle.json", copy / "cpu")
            shutil.copy(self.results / "cpu/training_curve.json", copy / "cpu")
            done = plots("all", "--results", copy, "--output", drawn)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn(f"training_curve: left out, as there is no {copy}/h100/training_curve",
                          done.stdout)
            self.assertEqual(re.findall('<h2 id="(.*?)"', (drawn / "index.html").read_text()),
                             ["oracle"])

    def test_page(self):
        text = (self.drawn / "index.html").read_text()
        self.assertEqual(re.findall('<h2 id="(.*?)">(.*?)</h2>', text), [
            (name, (self.drawn / f"{name}.md").read_text().splitlines()[0][2:]) for name in SHOWN])
        self.assertEqual(text.count("<img "), len(DRAWN))
        for place in re.findall(r'(?:src|href)="([^"]{,20})', text):
            self.assertRegex(place, "^(data:|#)")  # nothing from elsewhere
        self.assertNotRegex(text, r"<script|@import|url\(")
        self.assertIn("commit <code>0123456789</code>", text)

    def test_page_of_bad_captions(self):
        with tempfile.TemporaryDirectory() as scratch:
            with self.assertRaisesRegex(InputError, "bad.md: No such file"):
                page.write(pathlib.Path(scratch), ["bad"])
            pathlib.Path(scratch, "bad.md").write_text("no title")
            with self.assertRaisesRegex(InputError, "bad.md:1: the caption starts with #"):
                page.write(pathlib.Path(scratch), ["bad"])


class Readme(unittest.TestCase):
    """The blocks of README.md and docs/results.md, in a copy with the sample results."""

    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        shutil.copytree(ROOT / "plots", self.root / "plots",
                        ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ALL.results, self.root / "results")
        shutil.copy(ROOT / "results/cpu/benchmarks.json", self.root / "results/cpu")
        shutil.copy(ROOT / "README.md", self.root)
        shutil.copytree(ROOT / "docs", self.root / "docs")
        self.page = self.root / "docs/results.md"

    def readme(self, *arguments):
        return plots("readme", *arguments, root=self.root)

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
                     "| A (paper), N = 2 | ", "](../results/h100/training.png)",
                     "](../results/h100/training_curve.png)",
                     "| PyTorch's FlashAttention | 16 ms, 1 GiB | 256 ms, 4 GiB | "):
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
        path = self.root / "results/h100/context_1Mi.json"
        bench = json.loads(path.read_text())
        bench["records"][0]["median_ms"] *= 1.01
        path.write_text(json.dumps(bench))
        self.disagrees("results/h100/timed.png: not of these results")
        done = self.readme("--pictures", ALL.drawn)
        self.assertEqual(done.returncode, 1)
        self.assertIn("timed.png: not of these results; `./bootstrap figures` draws it",
                      done.stderr)

    def test_a_picture_is_of_its_code(self):
        self.assertEqual(self.readme("--pictures", ALL.drawn).returncode, 0)
        self.assertEqual(self.readme("--check").returncode, 0)
        def change(*files):
            for file in files:
                with (self.root / "plots" / file).open("a") as code:
                    code.write("# another picture\n")

        # No picture is of these.
        change("figures/stages.py", "figures/exponents.py", "figures/__init__.py", "make.py",
               "page.py", "readme.py")
        self.assertEqual(self.readme("--check").returncode, 0)
        # Of those that differ the first on the page is told.
        for file, stale in (("figures/multiplicity.py", "cpu/multiplicity.png"),
                            ("figures/crossover.py", "h100/crossover.png"),
                            ("figures/timed.py", "h100/timed.png"),
                            ("figures/training.py", "h100/training.png"),
                            ("figures/training_curve.py", "h100/training_curve.png"),
                            ("figures/counted.py", "cpu/counted.png"),
                            ("maps.py", "cpu/multiplicity.png"), ("fits.py", "cpu/counted.png"),
                            ("style.py", "cpu/counted.png"),
                            ("multistep.mplstyle", "cpu/counted.png")):
            with self.subTest(file):
                path = self.root / "plots" / file
                code = path.read_text()
                change(file)
                self.disagrees(f"results/{stale}: not of these results")
                path.write_text(code)

    def test_without_results(self):
        shutil.rmtree(self.root / "results/h100")
        done = self.readme("--pictures", ALL.drawn)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.readme("--check").returncode, 0)
        self.assertNotIn("results/h100/timed.png", self.page.read_text())

    def test_usage(self):
        done = self.readme("--pictures")
        self.assertEqual((done.returncode, done.stderr),
                         (2, "plots readme: argument --pictures: expected one argument\n"))


if __name__ == "__main__":
    unittest.main()
