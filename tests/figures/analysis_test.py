#!/usr/bin/env python3
"""What is said about results is true of data whose exponents, crossovers and floors are known.

Usage: PYTHONPATH=. analysis_test.py [unittest arguments]
"""

import json
import math
import pathlib
import random
import tempfile
import unittest

import sample_results
from plots import figures, fits, make, results
from plots.figures import (accuracy, audit, cheapest, counted, crossover, exponents, needles, oracle,
                           relatives, stages, timed, training, training_curve)
from plots.fits import Point
from plots.plot import FilePlot

LENGTHS = [2**k for k in range(12, 24)]


def power(exponent, noise=0.0, seed=5, lengths=LENGTHS):
    generator = random.Random(seed)
    return [Point(n, 1e-6 * n**exponent * math.exp(generator.gauss(0, noise)), noise)
            for n in lengths]


class Fits(unittest.TestCase):
    def test_exact_power_laws(self):
        for steps in (1, 2, 3, 4, 7):
            fit = fits.fit_power(power(1 + 1 / steps))
            self.assertAlmostEqual(fit.exponent, 1 + 1 / steps, 9)
            self.assertLess(fit.high - fit.low, 1e-9)
            self.assertLess(fit.residual, 1e-9)
            self.assertEqual((fit.first, fit.last, fit.points), (2**12, 2**23, 12))
            self.assertAlmostEqual(fit(5000), 1e-6 * 5000 ** (1 + 1 / steps), 9)

    def test_interval_holds_the_right_exponent_and_no_wrong_one(self):
        for steps in (1, 2, 3, 4):
            fit = fits.fit_power(power(1 + 1 / steps, noise=0.03, seed=steps))
            self.assertTrue(fit.holds(1 + 1 / steps), fit)
            for wrong in (1, 2, 3, 4):
                if wrong != steps:
                    self.assertFalse(fit.holds(1 + 1 / wrong), (steps, wrong, fit))

    def test_intervals_cover(self):
        # 95 % intervals of 200 noisy sets: of so few points a bootstrap's are somewhat narrow.
        held = sum(fits.fit_power(power(1.5, noise=0.05, seed=seed), draws=400).holds(1.5)
                   for seed in range(200))
        self.assertGreater(held, 200 * 0.85)

    def test_noise_widens(self):
        widths = [fit.high - fit.low for fit in
                  (fits.fit_power(power(1.5, noise)) for noise in (0.001, 0.01, 0.1))]
        self.assertLess(widths[0] * 5, widths[1])
        self.assertLess(widths[1] * 5, widths[2])

    def test_repeats_are_resampled(self):
        steady = [Point(n, float(n), repeats=(float(n),) * 5) for n in LENGTHS]
        spread = [Point(n, float(n), repeats=tuple(n * f for f in (0.8, 0.9, 1, 1.1, 1.2)))
                  for n in LENGTHS]
        first, second = map(fits.fit_power, (steady, spread))
        self.assertLess(first.high - first.low, 1e-9)
        self.assertGreater(second.high - second.low, 0.01)
        self.assertTrue(second.holds(1))

    def test_seeded(self):
        points = power(1.5, 0.05)
        first = fits.fit_power(points)
        self.assertIs(fits.fit_power(points[::-1]), first)  # remembered
        fits._fit.cache_clear()
        self.assertEqual(fits.fit_power(points), first)
        self.assertNotEqual(fits.fit_power(points, seed=1).low,
                            fits.fit_power(points, seed=2).low)

    def test_too_few_lengths(self):
        self.assertIsNone(fits.fit_power(power(1, lengths=[1, 2])))
        self.assertIsNone(fits.fit_power(power(1, lengths=[8, 8, 8, 16])))
        self.assertIsNone(fits.fit_fixed(power(1, lengths=[1, 2]), 0.5))

    def test_local_slopes(self):
        bent = [Point(n, n if n < 2**16 else n**2 / 2**16) for n in LENGTHS]
        slopes = fits.local_slopes(bent)
        self.assertAlmostEqual(slopes[0][1], 1)
        self.assertAlmostEqual(slopes[-1][1], 2)
        self.assertAlmostEqual(slopes[0][0], 2**12.5)
        self.assertEqual(len(slopes), len(bent) - 1)
        self.assertEqual(len(fits.local_slopes(bent, apart=4)), len(bent) - 2)

    def test_fixed_costs(self):
        fixed = fits.fit_fixed([Point(n, 3e-5 + 2e-8 * n**0.5) for n in LENGTHS], 0.5)
        self.assertAlmostEqual(fixed.fixed, 3e-5, 9)
        self.assertAlmostEqual(fixed.scale, 2e-8, 12)
        self.assertLess(fixed.residual, 1e-6)
        self.assertAlmostEqual(fixed.share(6e-5), 0.5, 6)
        self.assertEqual(fits.fit_fixed(power(0.9), 0.5).fixed, 0)  # grows too fast for one


class Crossings(unittest.TestCase):
    lengths = [2**k for k in range(8, 20, 2)]

    def cross(self, ours, theirs):
        return crossover.crossing([Point(n, ours(n)) for n in self.lengths],
                                 [Point(n, theirs(n)) for n in self.lengths])

    def test_interpolated(self):
        # n^1.5 * 64 = n^2 at n = 4096, between the lengths 2^12 and 2^14 or on one of them.
        found = self.cross(lambda n: 64.5 * n**1.5, lambda n: n**2)
        self.assertAlmostEqual(found.length, 64.5**2, 3)
        self.assertFalse(found.always)
        self.assertAlmostEqual(found.ratio, 2**9 / 64.5)

    def test_always_and_never(self):
        self.assertTrue(self.cross(lambda n: n, lambda n: 2 * n).always)
        never = self.cross(lambda n: 2 * n, lambda n: n)
        self.assertEqual((never.length, never.always), (None, False))

    def test_last_of_several(self):
        wave = {2**8: 1, 2**10: 3, 2**12: 1, 2**14: 3, 2**16: 3, 2**18: 3}
        found = self.cross(lambda n: 2, lambda n: wave[n])
        self.assertTrue(2**12 < found.length < 2**14)
        ends_behind = self.cross(lambda n: 2, lambda n: {**wave, 2**18: 1}[n])
        self.assertIsNone(ends_behind.length)

    def test_common_lengths_alone(self):
        found = crossover.crossing([Point(1, 1), Point(2, 1)], [Point(2, 5), Point(4, 1)])
        self.assertEqual((found.first, found.last, found.always), (2, 2, True))
        self.assertIsNone(crossover.crossing([Point(1, 1)], [Point(2, 1)]))


def record(**changes):
    report = results.Report("sample", sample_results.DEVICE, 3e12, 32, 2, 128, ())
    known = {"config": "A", "schedule": sample_results.DESCRIBED["A"], "steps": 2, "top_k": 2,
             "phase": "prefill", "length": 4096, "queries": 256, "stage": "search", "l2": "cold",
             "median": 1e-3, "low": 9e-4, "high": 11e-4, "repeats": 50, "flops": 0.0,
             "bytes": None, "report": report}
    return results.Record(**{**known, **changes})


class Floors(unittest.TestCase):
    def test_products(self):
        peak = 4096 * 132 * 1980e6
        floor = stages.floor_of(record(flops=peak / 10))
        self.assertAlmostEqual(floor.products, 0.1)
        self.assertEqual(floor.seconds, floor.products)

    def test_decoding_reads_what_was_counted(self):
        floor = stages.floor_of(record(phase="decode", queries=1, stage="attention", bytes=6e6))
        self.assertAlmostEqual(floor.seconds, 2e-6)

    def test_keys_of_the_first_level(self):
        for config, exponent in (("A", 2), ("nstep3", 3), ("nstep4", 4)):
            one = record(config=config, schedule=sample_results.DESCRIBED[config],
                         steps=results.CONFIGS[config].steps, length=40_000, queries=500)
            touched = set()
            for t in range(one.length - one.queries, one.length):
                i = 1
                while i**exponent <= t + 1:
                    touched.add(t + 1 - i**exponent)
                    i += 1
            self.assertLess(abs(stages.stripe_rows(one) / len(touched) - 1), 0.03, config)
        few = record(schedule="N = 2 (even)", length=10_000, queries=3)
        self.assertEqual(stages.stripe_rows(few), 300)
        self.assertEqual(stages.stripe_rows(record(queries=4096)), 4096)

    def test_traffic_of_the_stages(self):
        row = 256
        search = stages.floor_of(record()).traffic * 3e12
        self.assertAlmostEqual(search, 32 * 256 * (row + 24) + 2 * row * stages.stripe_rows(
            record()))
        pairs = 2 * 4096 * 50.0  # every key many times over
        spans = stages.floor_of(record(stage="span attention", flops=4 * 128 * pairs))
        self.assertAlmostEqual(spans.traffic * 3e12,
                               32 * 256 * (row + 2 * (row + 12)) + 2 * 2 * row * 4096)
        bare = stages.floor_of(record(stage="window, combine"))
        self.assertAlmostEqual(bare.traffic * 3e12, 32 * 256 * (2 * row + 2 * (row + 12) + 8))


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = sample_results.write(pathlib.Path(scratch) / "results")
        self.results = results.Results(self.folder)

    def change(self, name, change):
        path = self.folder / name
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def refused(self, text, call):
        with self.assertRaises(results.InputError) as caught:
            call(results.Results(self.folder))
        self.assertIn(text, str(caught.exception))
        self.assertEqual(str(caught.exception).count("\n"), 0)

    def test_bad_results(self):
        (self.folder / "cpu/oracle.json").unlink()
        self.refused("cpu/oracle.json: missing; `./bootstrap experiments` makes", oracle.caption)
        name = "h100/context_1Mi.json"
        self.change(name, lambda bench: bench["records"][3]["compared"].update({"pass": False}))
        self.refused("records[3]: a time without a passed", timed.caption)
        self.change(name, lambda bench: bench["records"][0].update(low_ms=0))
        self.refused("0 < low_ms <= median_ms <= high_ms", timed.caption)
        self.change(name, lambda bench: bench["records"][0].update(config="C"))
        self.refused("records[0].config C: one of dense, A", timed.caption)
        self.change(name, lambda bench: bench["records"][0].pop("queries"))
        self.refused("records[0].queries: missing", stages.caption)
        self.change(name, lambda bench: bench.pop("records"))
        self.refused("records: a list", stages.caption)
        (self.folder / name).write_text("{")
        self.refused("not JSON", crossover.caption)
        (self.folder / name).unlink()
        self.refused("experiments --device cuda` makes", crossover.caption)
        partial = results.Results(self.folder, partial=True)
        self.assertEqual({r.length for r in partial.records() if r.phase == "decode"},
                         set(sample_results.LENGTHS.values()) - {results.MI})

    def test_exponents_of_samples(self):
        found = {(run.rule, run.steps): counted.counted_fit(run).exponent
                 for run in counted.counted_runs(self.results)}
        for (rule, steps), exponent in found.items():
            want = 1.55 if rule == "released" else 1 + 1 / steps
            self.assertAlmostEqual(exponent, want, 6)
        records = self.results.records()
        for run in timed.timed_runs(records, "prefill"):
            if run.config != "dense":  # 20 ns a query were put in
                self.assertAlmostEqual(run.fixed.fixed, 20e-9, 11)
                self.assertEqual(timed.why(run, records).kind, "fixed")
                self.assertIn("fixed costs (queries in", timed.why(run, records).text)
        for run in timed.timed_runs(records, "whole")[1:]:
            self.assertAlmostEqual(run.fixed.fixed, 20e-9, 11)
        dense = timed.timed_runs(records, "whole")[0]
        self.assertEqual((dense.config, timed.why(dense, records).kind), ("dense", "work"))

    def test_a_vague_interval_is_no_agreement(self):
        generator = random.Random(2)
        records = []
        for n in LENGTHS[::3]:
            t = n**0.5 * math.exp(generator.gauss(0, 1))
            records.append(record(phase="decode", stage="attention", length=n, queries=1, median=t,
                                  low=t * 0.5, high=t * 2))
        run = timed.timed_runs(records, "decode")[0]
        self.assertTrue(run.fit.holds(0.5))
        self.assertEqual(timed.why(run, records).kind, "noise")
        self.change("cpu/oracle.json", lambda oracle: [
            one.update(seconds=[s * generator.uniform(0.1, 10) for s in one["seconds"]])
            for one in oracle["records"]])
        rows = oracle.oracle_rows(results.Results(self.folder))
        self.assertNotIn("as the work", [row[-1] for row in rows])

    def test_growth_beyond_the_work_is_told(self):
        records = [record(phase="decode", stage="attention", length=n, queries=1, median=n**0.8,
                          low=n**0.8, high=n**0.8) for n in LENGTHS]
        run = timed.timed_runs(records, "decode")[0]
        self.assertEqual(timed.why(run, records).kind, "cache")

    def test_chunks_of_another_size_are_left_out_of_fits(self):
        # Those that are a whole context, and the smaller ones at 10M keys.
        lengths = [p.x for p in fits.timed(self.results.records(), "prefill", "A")]
        self.assertEqual(lengths, [n * 1024 - (32 * 1024 - 1) / 2 for n in (64, 256, 1024, 4096)])

    def test_crossover_of_samples(self):
        found = {(race.ours, race.theirs): race.crossing
                 for race in crossover.races(self.results.records(), "decode")}
        lengths = list(sample_results.LENGTHS.values())
        ours, theirs = ({r.length: r.median for r in self.results.records()
                         if (r.phase, r.config, r.l2) == ("decode", config, "cold")}
                        for config in ("A", "dense"))
        at = found["A", "dense"].length
        below = max(n for n in lengths if n <= at)
        above = min(n for n in lengths if n > at)
        self.assertLess(theirs[below], ours[below])
        self.assertGreater(theirs[above], ours[above])
        self.assertIn("TB/s at", crossover.dense_rate(self.results.records(), "decode", at))
        text = crossover.caption(self.results).brief
        self.assertIn(f"Decode: A (paper), N = 2 at {results.about(at)}, ", text)
        self.assertIn("Prefill chunk: A (paper), N = 2 before 4Ki", text)

    def test_captions_tell_the_data(self):
        self.assertIn("24000 of 24000 needles (100.00%)", needles.caption(self.results).brief)
        self.change("cpu/needles.json", lambda needles: needles["records"][0].update(found=990))
        changed = needles.caption(results.Results(self.folder))
        self.assertIn("23990 of 24000", changed.brief)
        rounded = audit.caption(self.results)
        self.assertIn("660 of 1000 stripes up to 10M are wrong, by up to 23", rounded.brief)
        self.assertIn("here, as the spans reach further than the errors: paper; released. Not",
                      rounded.brief)
        self.assertIn("least reach (by float exp log)", rounded.brief)
        self.assertIn(("least reach", "float exp log", "1M", "4321", "query 898, key 1"),
                      rounded.tables[0].rows)
        errors = accuracy.caption(self.results)
        self.assertIn("576 of 576 comparisons", errors.brief)
        self.assertIn("differs from the oracle's in 0.25% of the rows", errors.brief)
        others = relatives.caption(self.results)
        self.assertIn("of 3 patterns of other attentions 1 (window) leave keys out, 1 (linear) have "
                      "some in averages alone, and in 1 (dsa)", others.brief)
        # At 64Ki half of it is scored; the mean of 2 sqrt(n) over n to L is nearly 4/3 sqrt(L).
        self.assertIn(("dsa", "0.0 %", "0.0 %", "1", "1.000 [1.000, 1.000]", "1.000", "32768",
                       "96.00"), [row[:8] for row in others.tables[0].rows])
        best = cheapest.caption(self.results)
        self.assertIn(("nstep", "1Mi", "14"), [row[:3] for row in best.tables[0].rows])

    def test_training_times_of_samples(self):
        times = {(one.name, one.length): one for one in training.kernel_times(self.results)}
        self.assertEqual(len(times), 18)
        for one in times.values():
            self.assertAlmostEqual(one.ratio, 2.1)
        rival = training.rival_times(self.results)[1]
        self.assertEqual((rival.name, rival.length, rival.both), ("cuDNN", 16384, 0.0128))
        brief = training.caption(self.results).brief
        nstep2 = times["nstep2", 128 * 1024].both
        self.assertIn(f"at 128Ki: A (paper), N = 2 in ", brief)
        self.assertIn(f"nstep, N = 2 in {results.duration(nstep2)}, {0.8192 / nstep2:.3g} times as "
                      "fast", brief)
        self.assertIn("as PyTorch's cuDNN, which takes 819 ms.", brief)
        table = training.tables(self.results)[0]
        self.assertEqual([row[0] for row in table.rows][0], "dense, N = 1")
        self.change("h100/train.json", lambda bench: bench["records"].pop(2))
        with self.assertRaises(KeyError):  # a case without one of its stages
            training.kernel_times(results.Results(self.folder))

    def curve(self, change=lambda run: None):
        """The curves after a change of the kernels' run."""
        self.change("h100/training_curve.json", lambda curve: change(curve["runs"][0]))
        return training_curve.curves(results.Results(self.folder))

    def test_limits_of_a_training_curve(self):
        found = self.curve()
        # The second control leaves at step 51, in means over ten: further than the first at 56.
        self.assertEqual([round(limit, 9) for limit in found.limits[:7]],
                         [0.02] * 5 + [0.024, 0.028])
        self.assertAlmostEqual(found.limits[-1], 0.04)
        self.assertIsNone(found.left(found.kernels))
        self.assertEqual(found.agreeing, 2)
        self.assertEqual(found.left(found.fault), 5)  # 0.011 a step, averaged: 0.022
        self.change("cpu/training_curve.json", lambda curve: [  # controls like it
            run.update(losses=curve["runs"][0]["losses"]) for run in curve["runs"]])
        found = self.curve()
        self.assertAlmostEqual(found.limits[0], 2 * 3 / 512)
        self.assertAlmostEqual(found.limits[-1], 2 * (3 - 0.02 * 94.5) / 512)

    def test_a_training_curve_that_leaves_is_told(self):
        def late(run):
            run["losses"][60:] = [loss + 0.1 for loss in run["losses"][60:]]

        found = self.curve(late)
        self.assertEqual(found.left(found.kernels), 63)
        brief = training_curve.caption(results.Results(self.folder)).brief
        self.assertRegex(brief, "further from the oracle's in float64 than the limit that bf16 sets, "
                                r"first at step 63 of 100 and most, 2\.8\d times, at step \d+\.")

        def lost(run):
            run["losses"][20] = math.nan

        found = self.curve(lost)
        self.assertEqual(found.left(found.kernels), 21)

    def test_training_curves_of_other_starts_are_refused(self):
        self.change("h100/training_curve.json",
                    lambda curve: curve["digests"].update(weights="2" * 64))
        self.refused("h100/training_curve.json: digests: not those of cpu/training_curve.json",
                     training_curve.caption)

    def test_one_table_of_exponents(self):
        table = exponents.table(self.results)
        rows = {row[0]: row for row in table.rows}
        self.assertEqual(rows["nstep, N = 3"][1:3], ("1.333", "1.333 [1.333, 1.333]"))
        self.assertEqual(rows["nstep, N = 4"][4], "–")  # not timed as a whole
        self.assertEqual(len(rows), 12)  # one a configuration
        text = " ".join(exponents.differences(self.results))
        self.assertIn("launches and steps that wait", text)
        self.assertIn("Counted work lies within 0.001 of 1 + 1/N", text)
        costs = {row[0]: row[1:] for row in exponents.fixed_costs(self.results).rows}
        self.assertEqual(costs["dense, N = 1"][1:], ("as the work; 1.00", "as the work; 2.00"))
        self.assertRegex(costs["nstep, N = 3"][0], r"^15 µs, 8\d% at 10M; 0.0\d$")

    def test_a_figure_needs_what_it_reads(self):
        for name, plot in figures.plots().items():
            if isinstance(plot, FilePlot):
                continue
            with self.subTest(name):
                read = results.Results(self.folder)
                plot.caption(read)
                self.assertEqual({source.file for source in read.sources}, set(plot.needs))
                for path, need in zip(plot.needed(self.folder), plot.needs):
                    away = path.rename(path.with_suffix(".away"))
                    self.refused(f"{need}: missing", plot.caption)
                    away.rename(path)

    def test_digest_is_of_what_is_needed(self):
        def digests():
            return {name: make.source(name, plot.needed(self.folder))
                    for name, plot in figures.plots().items()}

        before = digests()
        self.assertEqual(digests(), before)
        self.change("cpu/scaling.json", lambda scaling: scaling.update(seconds=9))
        after = digests()
        self.assertEqual({name for name in before if before[name] != after[name]},
                         {"counted", "cheapest", "exponents"})


class Words(unittest.TestCase):
    def test_numbers(self):
        self.assertEqual([results.size(n) for n in (4096, 65536, 10**7, 2**20, 2**40, 1000)],
                         ["4Ki", "64Ki", "10M", "1Mi", "1Ti", "1000"])
        self.assertEqual([results.about(n) for n in (5000, 10**7, 1.5 * 2**20, 100)],
                         ["4.88Ki", "10M", "1.5Mi", "100"])
        self.assertEqual([results.duration(s) for s in (2.5, 0.0123, 4.56e-5, 2e-8)],
                         ["2.5 s", "12.3 ms", "45.6 µs", "20 ns"])

    def test_commands_name_no_folder_of_a_machine(self):
        command = "/a/b/multistep bench --commit 12 --dirty no --json --output /a/c.json --seed 2"
        self.assertEqual(results.command_text(command), "multistep bench --json --seed 2")


if __name__ == "__main__":
    unittest.main()
