#!/usr/bin/env python3
"""The experiments without a GPU: rounded arithmetic, planted needles, times of the oracle, and the
script that makes results/cpu/.

Usage: experiments_test.py PROGRAM [unittest arguments]
"""

import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest
from fractions import Fraction

import program
from program import Case, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
sys.path.insert(0, str(ROOT / "tests/figures"))
from schema import problems, schema_of  # noqa: E402

COMMIT = "0123456789" * 4


def single(value):
    """The nearest number of single precision."""
    return struct.unpack("f", struct.pack("f", value))[0]


class Rounded:
    """Rounded arithmetic again, by the formulas that `audit` prints."""

    NAMES = {"expf": lambda x: single(math.exp(x)), "logf": lambda x: single(math.log(x)),
             "exp2f": lambda x: single(2.0**x), "log2f": lambda x: single(math.log2(x)),
             "powf": lambda x, y: single(x**y), "pow": math.pow, "exp": math.exp, "log": math.log}

    def __init__(self, method):
        self.stripe_text, self.reach_text = method["stripe"], method["reach"]

    def value(self, text, **numbers):
        """A formula's innermost value; in single precision every step is rounded."""
        inner = text.partition("(")[2].removesuffix(")")
        added = float(inner.rpartition(" + ")[2]) if " + " in inner else 0.0
        inner = inner.partition(" + ")[0]
        factor = 1.0
        if inner.startswith("c * "):
            inner, factor = inner.removeprefix("c * "), numbers["c"]
        if not any(name in inner for name in ("expf", "exp2f", "powf")):
            return factor * eval(inner, dict(self.NAMES), numbers) + added
        numbers = {name: single(float(number)) for name, number in numbers.items()}
        names = dict(self.NAMES)
        for name in ("expf", "exp2f"):  # the product before the exponential is rounded too
            names[name] = lambda x, of=self.NAMES[name]: of(single(x))
        power = eval(inner, names, numbers)
        return single(single(single(factor) * power) + single(added))

    def stripe(self, i, e):
        if "^" in self.stripe_text:
            return floor_power(i, e)
        return math.floor(self.value(self.stripe_text, i=i, e=float(e)))

    def reach(self, c, n, q):
        if "^" in self.reach_text:  # the smallest B with (B v)^b >= u^b n^a
            reach = math.floor(float(c) * n**float(q))
            while (reach * c.denominator) ** q.denominator < (
                    c.numerator**q.denominator * n**q.numerator):
                reach += 1
            return reach
        return math.ceil(self.value(self.reach_text, c=float(c), n=n, q=float(q)))


def floor_power(base, exponent):
    """floor(base^exponent) in integers."""
    power = base**exponent.numerator
    root = round(power ** (1 / exponent.denominator))
    while root**exponent.denominator > power:
        root -= 1
    while (root + 1) ** exponent.denominator <= power:
        root += 1
    return root


class Audit(Case):
    def test_the_known_stripes(self):
        result = self.json("audit", "--lengths", "1M,10M", "--exponents", "20/11", "--preset",
                           "even", "--rule", "tight")
        known = {(one["method"], one["limit"]): (one["stripes"], one["wrong"], one["largest_error"])
                 for one in result["exponents"]}
        # 358 with a C library's expf, which rounds stripe 1579 the other way.
        self.assertEqual(known["float exp(log)", 10**6], (1995, 359, 2))
        self.assertEqual(known["float exp(log)", 10**7], (7079, 4661, 23))
        self.assertEqual(known["double pow", 10**6][1], 0)

    def test_stripes_by_their_formulas(self):
        exponents = [Fraction(text) for text in ("2", "20/11", "3/2", "9/5", "5/2", "3")]
        result = self.json("audit", "--lengths", "20k", "--preset", "paper")
        methods = {method["name"]: Rounded(method) for method in result["methods"]}
        self.assertEqual(len(result["exponents"]), len(exponents) * (len(methods) - 2))
        for one in result["exponents"]:
            e = Fraction(one["exponent"])
            wrong, i = [], 1
            while (exact := floor_power(i, e)) <= 20_000:
                computed = methods[one["method"]].stripe(i, e)
                if computed != exact:
                    wrong.append((i, exact, computed))
                i += 1
            with self.subTest(exponent=one["exponent"], method=one["method"]):
                self.assertEqual((one["stripes"], one["wrong"]), (i - 1, len(wrong)))
                self.assertEqual(one["largest_error"],
                                 max((abs(a - b) for _, a, b in wrong), default=0))
                first = one["first_wrong"]
                self.assertEqual(first and tuple(first.values()), wrong[0] if wrong else None)

    def holes(self, rounded, b, f, q, e, w, length):
        """(excluded queries, excluded pairs, first query, its first key), key by key."""
        window = floor_power(w + 1, e) - 1
        stripes = [rounded.stripe(i, e) for i in range(w + 1, length + 1)]
        queries, pairs, first = 0, 0, None
        for n in range(1, length + 1):
            back, front = rounded.reach(b, n, q), rounded.reach(f, n, q)
            held = [distance < window for distance in range(n)]
            for stripe in stripes:
                if stripe > n:
                    break
                for distance in range(max(window, stripe - 1 - front), min(n, stripe + back)):
                    held[distance] = True
            if not all(held):
                queries += 1
                pairs += held.count(False)
                oldest = max(distance for distance in range(n) if not held[distance])
                first = first or (n - 1, n - 1 - oldest)
        return queries, pairs, first

    def test_coverage_key_by_key(self):
        for b, f, q, e, w in ((1, 1, "1/2", "2", 0), ("19/10", 0, "1/2", "2", 3),
                              (1, "1/2", "9/20", "20/11", 5), ("3/2", 0, "1/3", "3/2", 0)):
            b, f, q, e = map(Fraction, (b, f, q, e))
            result = self.json("audit", "--lengths", 400, "--exponents", 2, "--rule", "power",
                               "--backward", b, "--forward", f, "--span-exponent", q, "--exponent",
                               e, "--window-index", w)
            methods = {method["name"]: Rounded(method) for method in result["methods"]}
            self.assertEqual(len(result["coverage"]), len(methods))
            for one in result["coverage"]:
                first = one["first_excluded"]
                with self.subTest(backward=b, exponent=e, method=one["method"]):
                    self.assertEqual(
                        (one["excluded_queries"], one["excluded_pairs"],
                         first and (first["position"], first["key"])),
                        self.holes(methods[one["method"]], b, f, q, e, w, 400))
                    self.assertEqual(one["harmless"], one["excluded_pairs"] == 0)

    def test_exact_arithmetic_is_what_verify_says(self):
        audit = self.json("audit", "--lengths", "2000", "--rule", "power", "--backward", 1,
                          "--forward", 1)["coverage"][0]
        self.assertEqual((audit["method"], audit["excluded_queries"], audit["excluded_pairs"]),
                         ("exact", 922, 13434))
        self.assertEqual(audit["first_excluded"],
                         {"position": 7, "key": 0, "gap": {"begin": 0, "end": 1}})

    def test_what_costs_keys_and_what_does_not(self):
        harmless = {(one["schedule"], one["method"]): one
                    for one in self.json("audit", "--lengths", "1M", "--exponents", 2)["coverage"]}
        self.assertTrue(harmless["released", "float exp(log)"]["harmless"])
        self.assertTrue(harmless["tight, e = 20/11", "float exp(log)"]["harmless"])
        self.assertFalse(harmless["least reach, e = 3/2", "float exp(log)"]["harmless"])
        # Rounded to the nearest, the first searched stripe moves away from the window.
        self.assertEqual(harmless["released", "float exp(log) + 0.5"]["first_excluded"]["position"],
                         2032)

    def test_powers_that_no_integer_holds(self):
        """3^40 passes 2^63 and, in single precision, 10^40 every number: beyond, whatever it is."""
        for exponent, length in ((40, "1k"), (64, "1k"), ("63/2", "1M")):
            result = self.json("audit", "--lengths", length, "--exponents", exponent, "--exponent",
                               exponent, memory=2 << 30)
            self.assertEqual({(one["stripes"], one["wrong"]) for one in result["exponents"]},
                             {(1, 0)})
            self.assertEqual({one["covered"] for one in result["coverage"]}, {True})

    def test_tables_that_do_not_fit_are_refused(self):
        done = run("audit", "--lengths", "128M", "--exponent", 1, memory=1 << 30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep audit: --lengths 128000000: its \w+ take 0\.95 "
                                      r"GiB, at most 0\.\d\d GiB fit this machine\n$")

    def test_text_and_bad_options(self):
        text = self.answer("audit", "--lengths", "1000", "--exponents", "2", "--preset", "paper")
        self.assertIn("float exp(log)", text)
        self.refuses(["audit", "--lengths", "0"], "--lengths 0: an integer in [1, 1073741824], as "
                                                  "1000, 1k, 1Ki, 1M, ...")
        self.refuses(["audit", "--exponents", "1/2"],
                     "--exponents 1/2: a rational in [1, 64] with a denominator of at most 10000")
        self.refuses(["audit", "--exponents", "two"],
                     "--exponents two: a rational in [1, 64] with a denominator of at most 10000")
        self.refuses(["audit", "--steps", "3"],
                     "--steps 3: rounding is audited of two steps, tight or power")
        for rule in ("even", "aligned"):
            self.refuses(["audit", "--preset", rule],
                         f"--rule {rule}: rounding is audited of two steps, tight or power")


class Needles(Case):
    def test_perfect_routing_finds_every_needle(self):
        result = self.json("needles", "--configs", "nstep2,nstep3,nstep4,even3,tight3,paper,released",
                           "--lengths", "1000,4Ki", "--noise", "0")
        self.assertIs(result["perfect"], True)
        self.assertEqual(len(result["records"]), 7 * 3 * 2 * 8)
        for one in result["records"]:
            self.assertEqual(one["found"], one["trials"])
        trials = sum(one["trials"] for one in result["records"]
                     if (one["schedule"], one["top_k"], one["length"]) == ("nstep2", 1, 1000))
        self.assertEqual(trials, 1000)  # every key

    def test_a_schedule_with_a_hole_misses_needles(self):
        done = run("needles", "--lengths", 8, "--depths", 1, "--noise", 0, "--rule", "power",
                   "--backward", 1, "--forward", 1, "--top-k", 1, "--json")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "multistep needles: nstep2 at 8: 1 of 8 needles around depth "
                                      "0.5 not found, and nothing was noisy\n")
        result = json.loads(done.stdout)
        self.assertEqual((result["perfect"], result["records"][0]["found"]), (False, 7))

    def test_noise_and_baselines(self):
        arguments = ("needles", "--configs", "nstep2,nstep3", "--lengths", "16Ki", "--noise",
                     "0.1,0.4,100", "--top-k", "2")
        result = self.json(*arguments)
        def share(records, schedule, noise, baseline=None):
            mine = [one for one in records if (one["schedule"], one["noise"], one.get("baseline"))
                    == (schedule, noise, baseline)]
            return sum(one["found"] for one in mine) / sum(one["trials"] for one in mine)
        for schedule in ("nstep2", "nstep3"):
            shares = [share(result["records"], schedule, noise) for noise in (0.1, 0.4, 100)]
            self.assertGreater(shares[0], 0.99)
            self.assertGreater(shares[0], shares[1])
            self.assertGreater(shares[1], shares[2])
            # Pure noise keeps any spans: the share is what they hold, about 2 of n^(1/N) per step.
            self.assertLess(shares[2], 0.1)
            for baseline in ("random", "blocks"):
                self.assertLess(share(result["baselines"], schedule, 100, baseline), 0.1)
        # Few blocks hold all keys where there are two steps; no bounded number does where there are
        # three, and the oldest are those left out.
        self.assertGreater(share(result["baselines"], "nstep2", 0.1, "blocks"), 0.99)
        self.assertLess(share(result["baselines"], "nstep3", 0.1, "blocks"), 0.3)
        oldest = [one for one in result["baselines"] if one["depth"] > 0.5
                  and (one["schedule"], one["baseline"]) == ("nstep3", "blocks")]
        self.assertEqual({one["found"] for one in oldest}, {0})
        pairs = {(one["schedule"], one["noise"], one["depth"]): one for one in result["records"]}
        for one in result["baselines"]:
            own = pairs[one["schedule"], one["noise"], one["depth"]]
            if one["baseline"] == "random":
                self.assertEqual(one["anchors_scored"], own["anchors_scored"])
            self.assertAlmostEqual(one["work"], one["anchors_scored"] + one["keys_attended"])
            self.assertLess(one["work"], own["work"] * 1.05 + 4)
        for threads in (1, 3):
            self.assertEqual(self.json(*arguments, threads=threads)["records"], result["records"])
        self.assertNotEqual(self.json(*arguments, "--seed", 2)["records"], result["records"])

    def test_work_that_64_bits_do_not_hold(self):
        """2^17 trials, each attending 64 spans of all 2^40 keys."""
        one = self.json("needles", "--lengths", 2**40, "--exponent", 6, "--rule", "power",
                        "--backward", 10**9, "--forward", 10**9, "--span-exponent", 1, "--top-k", 64,
                        "--trials", 2**17, "--depths", 1, "--noise", 1)["records"][0]
        self.assertEqual((one["anchors_scored"], one["keys_attended"]), (101, 64 * 2**40))
        self.assertEqual(one["work"], 64 * 2**40 + 101)

    def test_help_claims_no_model(self):
        self.assertIn("claims nothing about the quality of any model",
                      self.answer("needles", "--help"))
        self.assertIn("claims nothing about the quality",
                      self.json("needles", "--lengths", 64, "--noise", 0)["note"])

    def test_bad_options(self):
        for options, message in (
                (["--noise", "-1"], "--noise -1: a number in [0, 1000]"),
                (["--noise", "nan"], "--noise nan: a number in [0, 1000]"),
                (["--noise", "0,,1"], "--noise '0,,1': values separated by commas, none empty"),
                (["--top-k", "1,65"], "--top-k 65: an integer in [1, 64]"),
                (["--lengths", "4"], "--lengths 4: keys, as many as --depths 8 or more"),
                (["--trials", "0"], "--trials 0: an integer in [1, 16777216], as 1000, 1k, 1Ki, "
                                    "1M, ..."),
                (["--configs", "C"], "--configs C: A, B, dense, paper, released, or nstepN, evenN, "
                                     "alignedN, tightN with N in [2, 64]")):
            self.refuses(["needles", *options], message)


class OracleTimes(Case):
    def test_every_schedule_and_repeat(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "oracle.json"
            command = [sys.executable, EXPERIMENTS / "oracle_times.py", program.PROGRAM,
                       "--output", path, "--lengths", "64,32768", "--repeats"]
            self.assertEqual(subprocess.run([*command, "0"], capture_output=True).returncode, 2)
            subprocess.run([*command, "2", "--commit", COMMIT], check=True)
            result = json.loads(path.read_text())
            self.assertEqual([entry.name for entry in path.parent.iterdir()], [path.name])
        self.assertEqual(problems(result, schema_of("cpu/oracle.json")), [])
        self.assertEqual((result["commit"], result["dirty"]), (COMMIT, "no"))
        self.assertEqual(result["command"],
                         "experiments/oracle_times.py --lengths 64,32768 --repeats 2")
        self.assertEqual([(one["config"], one["length"]) for one in result["records"]],
                         [("dense", 64), ("nstep2", 64), ("nstep3", 64), ("nstep4", 64),
                          ("nstep2", 32768), ("nstep3", 32768), ("nstep4", 32768)])
        for one in result["records"]:
            self.assertEqual((len(one["seconds"]), one["queries"]), (2, one["length"]))
            self.assertGreater(min(one["seconds"]), 0)


class Results(Case):
    def test_what_is_written_fits_the_schema(self):
        for name, *arguments in (
                ("scaling", "scale", "--last-query", "--samples", 9, "--lengths", "1Ki,2Ki,4Ki",
                 "--configs", "dense,nstep2,nstep3,paper"),
                ("audit", "audit", "--lengths", "1k"),
                ("needles", "needles", "--lengths", "1Ki", "--trials", 2)):
            with self.subTest(name=name):
                result = self.json(*arguments, "--commit", COMMIT, "--dirty", "no")
                self.assertEqual(problems(result, schema_of(f"cpu/{name}.json")), [])


class Making(unittest.TestCase):
    """experiments/cpu.sh with a program that only says how it was called."""

    STAND_IN = """#!/usr/bin/env bash
set -e
[ ! -e "$(dirname "$0")/broken" ] || exit 1
echo "$1" >> "$(dirname "$0")/calls"
said=multistep
while [ $# -gt 0 ]; do
  case $1 in
    --commit) commit=$2; shift ;;
    --dirty) dirty=$2; shift ;;
    --output) output=$2; shift ;;
    *) said="$said $1" ;;
  esac
  shift
done
printf '{"command": "%s", "commit": "%s", "dirty": "%s"}' "$said" "$commit" "$dirty" > "$output"
"""

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        program = self.folder / "multistep"
        program.write_text(self.STAND_IN)
        program.chmod(0o755)

    def make(self, *arguments, commit="abc", dirty="no", code=0):
        """What the program was called for."""
        calls = self.folder / "calls"
        calls.write_text("")
        environment = {**os.environ, "COMMIT": commit, "DIRTY": dirty,
                       "RESULTS": str(self.folder / "results")}
        done = subprocess.run([EXPERIMENTS / "cpu.sh", self.folder, *arguments], text=True,
                              capture_output=True, env=environment)
        self.assertEqual(done.returncode, code, done.stderr)
        return calls.read_text().split()

    def result(self, name):
        return json.loads((self.folder / "results" / f"{name}.json").read_text())

    def test_what_is_there_is_kept(self):
        every = ["scaling", "audit", "needles"]
        made = ["scale", "audit", "needles"]
        self.assertEqual(self.make(*every), made)
        self.assertEqual(self.make(*every), [])
        self.assertEqual(self.make("--fresh", "audit"), ["audit"])
        self.assertEqual(self.make(*every, commit="def"), made)
        self.assertEqual(self.result("audit")["commit"], "def")
        (self.folder / "results/needles.json").write_text("{")  # cut off, by whatever means
        self.assertEqual(self.make(*every, commit="def"), ["needles"])

    def test_an_interrupted_run_goes_on(self):
        self.make("scaling")
        (self.folder / "broken").touch()
        self.assertEqual(self.make("scaling", "audit", code=1), [])
        self.assertFalse((self.folder / "results/audit.json").exists())
        (self.folder / "broken").unlink()
        self.assertEqual(self.make("scaling", "audit"), ["audit"])

    def test_changed_sources_need_a_file_newer_than_the_program(self):
        self.make("audit", dirty="yes")
        self.assertEqual(self.make("audit", dirty="yes"), [])
        later = (self.folder / "results/audit.json").stat().st_mtime + 5
        os.utime(self.folder / "multistep", (later, later))
        self.assertEqual(self.make("audit", dirty="yes"), ["audit"])

    def test_other_words_are_refused(self):
        self.make("audits", code=2)
        done = subprocess.run([EXPERIMENTS / "cpu.sh", self.folder / "results"], text=True,
                              capture_output=True)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1))


if __name__ == "__main__":
    program.main()
