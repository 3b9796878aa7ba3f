#!/usr/bin/env python3
"""Breaks the reference on purpose, one edit at a time, and asserts that the unit tests notice.

Usage: mutants.py BUILD_FOLDER [NAME...]

A mutant is one edit of one source file. Its file is compiled anew, linked with the unit tests'
objects in front of the intact library, and the tests are run: they must fail. The same with an
empty edit must pass.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

REFERENCE = pathlib.Path(__file__).resolve().parent.parent / "reference"
TIMEOUT = 300  # seconds for one run of the tests


class Mutant(NamedTuple):
    name: str
    file: str
    old: str  # occurs once in the file
    new: str


MUTANTS = [
    # Exact powers
    Mutant("single-precision stripes", "power.cpp",
           "  Index m = truncated(std::pow(real(base), real(a) / real(b)));",
           "  return static_cast<Index>(std::exp(static_cast<float>(a) / static_cast<float>(b) *\n"
           "                                     std::log(static_cast<float>(base))));\n"
           "  Index m = 0;"),
    Mutant("double-precision stripes never settled", "power.cpp",
           "  while (m > 1 && !at_most({{m, b}}, {{base, a}})) --m;\n"
           "  while (at_most({{m + 1, b}}, {{base, a}})) ++m;\n", ""),
    Mutant("stripes settled from below only", "power.cpp",
           "  while (m > 1 && !at_most({{m, b}}, {{base, a}})) --m;\n", ""),
    Mutant("reach rounded down", "power.cpp",
           "  while (!at_most({{u, b}, {n, a}}, {{reach, b}, {v, b}})) ++reach;\n", ""),
    Mutant("reach not brought down", "power.cpp",
           "  while (reach > 1 && at_most({{u, b}, {n, a}}, {{reach - 1, b}, {v, b}})) --reach;\n",
           "  ++reach;\n"),
    Mutant("bounds taken for values", "power.cpp",
           "  if (!at_most(bound_of(a, Rounding::down), bound_of(b, Rounding::up))) return false;\n"
           "  return value_of(a) <= value_of(b);",
           "  return false;"),
    Mutant("root rounded down", "power.cpp",
           "  while (saturated_power(root, degree) < value) ++root;\n", ""),
    Mutant("floating point below all integers", "power.cpp",
           "std::clamp(value, -kLimit, kLimit)", "std::min(value, kLimit)"),
    # Memory
    Mutant("the limit of the group itself alone", "host_memory.cpp",
           "if (group.empty() || group == \".\") break;", "break;"),
    Mutant("what a group uses forgotten", "host_memory.cpp",
           "*limit - std::max<Index>(0, used - reclaimable)", "*limit + 0 * (used - reclaimable)"),
    Mutant("what a group would give back forgotten", "host_memory.cpp",
           "used - reclaimable", "used - 0 * reclaimable"),
    Mutant("a container's group sought in its host", "host_memory.cpp",
           ".lexically_relative(of.top);", ".relative_path();"),
    Mutant("the address space not limited", "host_memory.cpp",
           "left_of_address_space(root).value_or(machine)", "machine"),
    # The schedule
    Mutant("window one short", "schedule.cpp",
           "schedule_.level(1).exponent) - 1;", "schedule_.level(1).exponent) - 2;"),
    Mutant("window ignores the start", "schedule.cpp",
           "std::min(std::max(start, begin), query + 1)", "std::min(begin, query + 1)"),
    Mutant("first searched stripe off by one", "schedule.cpp",
           "cut.first_ = schedule_.window_index + 1;", "cut.first_ = schedule_.window_index + 2;"),
    Mutant("oldest anchor missed", "schedule.cpp",
           "std::upper_bound(stripes.begin(), stripes.end(), n)",
           "std::lower_bound(stripes.begin(), stripes.end(), n)"),
    Mutant("forward clip forgotten", "schedule.cpp",
           "std::max(window_, a - reach_.forward)",
           "std::max<Index>(0, a - reach_.forward)"),
    Mutant("backward reach one short", "schedule.cpp",
           "a + reach_.backward + 1", "a + reach_.backward"),
    Mutant("tight span one short", "schedule.cpp",
           "std::min(length_, anchor(i + 1))", "std::min(length_, anchor(i + 1) - 1)"),
    Mutant("span not clipped at the segment's begin", "schedule.cpp",
           "return {anchor(i), std::min(length_, anchor(i + 1))};",
           "return {anchor(i), anchor(i + 1)};"),
    Mutant("even stride rounded down", "schedule.cpp",
           "cut.stride_ = (n + parts - 1) / parts;", "cut.stride_ = n / parts;"),
    Mutant("even parts of the wrong level", "schedule.cpp",
           "ceil_root(n, steps() - m + 1)", "ceil_root(n, steps() - m + 2)"),
    Mutant("even level searches the window too", "schedule.cpp",
           "plain_window() ? query + 1 - window_length_ : query + 1", "query + 1"),
    Mutant("search although the window has all", "schedule.cpp",
           "if (n <= window_length_) return {start, start};",
           "if (n < window_length_) return {start, start};"),
    Mutant("default backward factor of the level below", "schedule.cpp",
           "return {rule, make_rational(M), make_rational(M),",
           "return {rule, make_rational(M), make_rational(M - 1),"),
    Mutant("greedy path not greedy", "schedule.cpp",
           "ceil_root(offset + 2, left) - 1", "ceil_root(offset + 1, left)"),
    # The checker and the counts
    Mutant("oldest span not looked into", "segment_checker.cpp",
           "cut.last() <= known.bad && settled(m + 1, cut.span(cut.last()).length())",
           "cut.last() <= known.bad"),
    Mutant("unclipped tight spans not looked into", "segment_checker.cpp",
           "cut.last() <= known.bad && settled", "settled"),
    Mutant("gap of one key overlooked", "segment_checker.cpp",
           "cut.reach().backward + cut.reach().forward + 1;",
           "cut.reach().backward + cut.reach().forward + 2;"),
    Mutant("holes looked for behind the first wide gap", "segment_checker.cpp",
           "(std::upper_bound(widest.begin(), end, reached) - widest.begin()) - 1;",
           "(std::upper_bound(widest.begin(), end, reached) - widest.begin());"),
    Mutant("unclipped power spans not looked into", "segment_checker.cpp",
           "return oldest < newest || settled(m + 1, backward + forward + 1);", "return true;"),
    Mutant("holes of inner spans forgotten", "segment_checker.cpp",
           "if (hole.near + span.near > near) reached.push_back({near, span.near + hole.near});\n"
           "      near = span.near + hole.far;",
           "(void)hole;"),
    Mutant("hole at the oldest keys forgotten", "segment_checker.cpp",
           "if (settled_to < n) holes.push_back({settled_to, n});", ""),
    Mutant("closing factor does not close", "coverage.cpp",
           "return make_rational(high, kDecimals);", "return make_rational(low, kDecimals);"),
    Mutant("sample without the last query", "coverage.cpp",
           "std::vector<Index> offsets{eligible - 1};", "std::vector<Index> offsets;"),
    Mutant("span list: newest keys not checked", "coverage.cpp", "    hole(query + 1);\n", ""),
    Mutant("span list: overlaps shrink the reach", "coverage.cpp",
           "reached = std::max(reached, candidates[at].span.end);",
           "reached = candidates[at].span.end;"),
    Mutant("multiplicity without the window", "coverage.cpp", "!window.empty()) add(window);",
           "window.empty()) add(window);"),
    Mutant("work counts the window's stripes", "work.cpp",
           "totals.add(of(m + 1, length), cut.count(), copies);",
           "totals.add(of(m + 1, length), cut.last(), copies);"),
    Mutant("choices count the window's stripes", "work.cpp",
           "most.front() = cut.count();", "most.front() = cut.last();"),
    Mutant("the bound counts the window's keys", "work.cpp",
           "eligible - plan.window(query, start).length();", "eligible;"),
    Mutant("a bound although a key is excluded", "work.cpp",
           "if (SegmentChecker(plan).covered(query, start)) work.ratio", "work.ratio"),
    Mutant("the bound of one path for several", "work.cpp",
           "std::pow(static_cast<long double>(top_k), N - 1);", "1.0L;"),
    Mutant("pairs counted in 64 bits", "count.cpp",
           "if (__builtin_add_overflow(value_, other.value_, &value_)) "
           "throw std::overflow_error(kRange);",
           "value_ = static_cast<std::uint64_t>(value_ + other.value_);"),
    Mutant("a product of counts wraps", "count.cpp",
           "if (__builtin_mul_overflow(a.value_, b.value_, &product.value_)) {",
           "product.value_ = a.value_ * b.value_;\n  if (false) {"),
    Mutant("a count of 2^63 in 63 bits", "count.cpp",
           "if (value_ > static_cast<Wide>(INT64_MAX)) return std::nullopt;", ""),
    # Span-search
    Mutant("inner level measured from the wrong end", "search_row.hpp",
           "segment.end - 1 - cut.anchor(i)", "segment.begin + cut.anchor(i)"),
    Mutant("tie goes to the newer key", "search_row.hpp",
           "a.anchor < b.anchor", "a.anchor > b.anchor"),
    Mutant("tie goes to the later parent", "search_row.hpp",
           "a.parent < b.parent", "a.parent > b.parent"),
    Mutant("NaN kept", "search_row.hpp", "  if (std::isnan(candidate.score)) return;\n", ""),
    Mutant("gate over the last level's scores", "search_row.hpp",
           "kept[parent].score + score(m, anchor, span)", "score(m, anchor, span)"),
    Mutant("one path too few", "search_row.hpp",
           "static_cast<std::size_t>(plan.schedule().top_k);",
           "std::max<std::size_t>(1, static_cast<std::size_t>(plan.schedule().top_k) - 1);"),
    Mutant("search scale forgotten", "span_search.cpp",
           "return args.search_scale *", "return 1.0 *"),
    # Attention
    Mutant("heads mapped to KV heads in turn", "shape.hpp",
           "head / (shape_.num_heads / shape_.num_kv_heads)", "head % shape_.num_kv_heads"),
    Mutant("start ignored", "shape.hpp", "shape_.start ? shape_.start[batch(row)] : 0", "0"),
    Mutant("keys of the window counted twice", "attend_row.hpp",
           "  if (!window.empty()) span.end = std::min(span.end, window.begin);\n", ""),
    Mutant("softmax of nothing", "attend_row.hpp",
           "    weights.clear();\n    return max;\n", ""),
    Mutant("log-sum-exp in base 2", "attend_row.hpp",
           "return max + std::log(sum);", "return max + std::log2(sum);"),
    Mutant("gates over unused slots", "combine.cpp",
           "const Index count = args.count[row];\n    double max",
           "const Index count = args.slots;\n    double max"),
    Mutant("gates not normalized", "combine.cpp", "gate[slot] /= sum;", "gate[slot] /= 1;"),
    Mutant("chunks forget their position", "attention.cpp",
           "whole.keys, d, rows.position(row),", "whole.keys, d, whole.query_offset,"),
    Mutant("no path, no output", "shape.hpp",
           "  for (Index& kept : count) kept = std::max<Index>(kept, 1);\n", ""),
    # The comparison and its yardstick
    Mutant("a difference that is no number passes", "compare.cpp",
           "    if (std::isnan(error)) error = kInfinity;\n", ""),
    Mutant("the mean is not judged", "compare.cpp", " && got.mean <= mean_limit();", ";"),
    Mutant("a broken yardstick excuses all", "compare.cpp",
           "return measured && numbers", "return numbers"),
    Mutant("any span of a real anchor passes", "compare.cpp",
           "path && (path->span == span ||", "path && (true ||"),
    Mutant("a path may come twice", "compare.cpp",
           "if (other.anchors == path->anchors) ++report_.duplicates;", "(void)other;"),
    Mutant("submitted scores not recomputed", "compare.cpp",
           "  if (!close(score, path.score, path.bound)) ++report_.wrong_scores;\n", ""),
    Mutant("order of the paths not judged", "compare.cpp", "++report_.unordered;", "{}"),
    Mutant("regret not judged", "compare.cpp", "if (!(regret <= 1)) ++report_.regretted;", ""),
    Mutant("the first level's regret forgotten", "row_oracle.hpp",
           "regret = std::max(regret, regret_of(path, thresholds_[at(m - 1)]));",
           "regret = regret_of(path, thresholds_[at(m - 1)]);"),
    Mutant("an anchor nearby passes", "row_oracle.hpp",
           "if (low > cut.last() || cut.anchor(low) != distance)", "if (low > cut.last())"),
    Mutant("a bound that excuses anything", "row_oracle.hpp",
           "terms * 0x1p-24 * scale", "terms * 0x1p-10 * scale"),
    Mutant("the best score for the k-th best", "row_oracle.hpp",
           "sure[top_k - 1]->score", "sure[0]->score"),
    Mutant("plain weights not rounded", "plain.cpp", "rounded = round_(w);", "rounded = w;"),
    Mutant("window joined half and half", "plain.cpp",
           "(join.first * output + join.second *", "(0.5F * output + 0.5F *"),
    Mutant("merged log-sum-exp forgotten", "plain.cpp", "  lse = join.lse;\n", ""),
    # Accumulation and gradients
    Mutant("decay after the input", "accumulation.cpp",
           "H.row(i) = a(t) * H.row(i) + x_t[i] * b(t);",
           "H.row(i) = a(t) * (H.row(i) + x_t[i] * b(t));"),
    Mutant("padding accumulated", "accumulation.cpp",
           "std::clamp<Index>(start - args.offset, 0, args.length)",
           "std::clamp<Index>(0 * start, 0, args.length)"),
    Mutant("state gradient not decayed", "accumulation.cpp", "          G *= head.a(t);\n", ""),
    Mutant("softmax gradient without its mean", "gradients.cpp",
           "scale * w * (d_weight - mean)", "scale * w * d_weight"),
    Mutant("softmax gradient without its scale", "gradients.cpp",
           "scale * w * (d_weight - mean)", "w * (d_weight - mean)"),
    Mutant("gate gradient without its mean", "gradients.cpp",
           "(gradients.scores[at(slot)] - mean)", "gradients.scores[at(slot)]"),
    Mutant("gate gradient reaches the last level alone", "gradients.cpp",
           "for (Index m = 0; m < levels; ++m) {", "for (Index m = levels - 1; m < levels; ++m) {"),
]


def compile_commands(build):
    """The compiler's arguments for each source file of the reference."""
    commands = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = pathlib.Path(entry["file"])
        if source.parent == REFERENCE:
            commands[source.name] = shlex.split(entry["command"])
    return commands


def users(file):
    """The source files that a change of `file` concerns."""
    if file.endswith(".cpp"):
        return {file}
    including = {path.name for path in REFERENCE.iterdir()
                 if path.is_file() and f'#include "{file}"' in path.read_text()}
    return set().union(*(users(name) for name in including))


def run_tests(build, link, mutant, folder):
    """Builds the mutant in `folder` and runs the tests; returns how they ended."""
    sources = folder / "reference"
    shutil.copytree(REFERENCE, sources)
    target = sources / mutant.file
    text = target.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {text.count(mutant.old)} places in {mutant.file}, not 1")
    target.write_text(text.replace(mutant.old, mutant.new))

    objects = []
    for name in sorted(users(mutant.file)):
        command = compile_commands(build)[name]
        command[command.index("-o") + 1] = str(folder / f"{name}.o")
        command[command.index("-c") + 1] = str(sources / name)
        command = [word for word in command if word != "-Werror"] + ["-O1", "-w"]
        subprocess.run(command, cwd=build, check=True)
        objects.append(str(folder / f"{name}.o"))
    program = folder / "tests"
    subprocess.run([link["compiler"], "-fopenmp", *shlex.split(link["flags"]), "-o", str(program),
                    *objects, *link["objects"], *link["libraries"]], check=True)
    try:
        done = subprocess.run([str(program), "--abort"], cwd=folder, timeout=TIMEOUT, text=True,
                              capture_output=True)
    except subprocess.TimeoutExpired:
        return "hangs", ""
    failed = re.search(r"^-{20,}\n(.+)", done.stdout, re.MULTILINE)
    return ("passes" if done.returncode == 0 else "fails"), failed.group(1) if failed else ""


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    link = json.loads((build / "mutants.json").read_text())
    wanted = [mutant for mutant in MUTANTS if not sys.argv[2:] or mutant.name in sys.argv[2:]]
    intact = Mutant("(none)", "power.cpp", MUTANTS[0].old, MUTANTS[0].old)
    survivors = []

    def attempt(mutant):
        with tempfile.TemporaryDirectory() as folder:
            return mutant, *run_tests(build, link, mutant, pathlib.Path(folder))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, end, test in pool.map(attempt, [intact, *wanted]):
            expected = "passes" if mutant is intact else "fails"
            if end != expected:
                survivors.append(mutant.name)
            verdict = {"fails": "caught by", "passes": "NOT CAUGHT", "hangs": "HANGS"}[end]
            if mutant is intact:
                verdict = "passes, as it must" if end == "passes" else f"{end} BY ITSELF in"
            print(f"{mutant.name:48} {verdict} {test}", flush=True)
    print(f"{len(wanted)} mutants, {len(survivors)} of them not caught", flush=True)
    return 1 if survivors or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
