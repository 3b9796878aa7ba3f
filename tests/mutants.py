#!/usr/bin/env python3
"""Breaks the reference and the judge of sweeps on purpose, one edit at a time, and asserts that the
unit tests notice.

Usage: [MUTANTS_PART=I/N] mutants.py BUILD_FOLDER [NAME...]    all, those so named, or part I of N

A mutant is one edit of one source file. Its file is compiled anew, linked with the unit tests'
objects in front of the intact libraries, and the tests are run, the nearest first: they must fail.
The same with an empty edit must pass.
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

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "reference"
EXPERIMENTS = ROOT / "experiments"
TIMEOUT = 120  # seconds for one run of the tests

# Catch2 tells of a signal with memory that it allocates: where a mutant has broken the heap it
# would wait forever for a lock. Without its handlers the signal ends the program.
NO_HANDLERS = """#include <signal.h>
extern "C" int sigaction(int, const struct sigaction*, struct sigaction*) noexcept { return 0; }
"""


class Mutant(NamedTuple):
    name: str
    file: str  # below reference/, or experiments/ where it is of bench/
    old: str  # occurs once in the file
    new: str


MUTANTS = [
    # Exact powers
    Mutant("single-precision stripes", "schedule/power.cpp",
           "  Index m = truncated(std::pow(real(base), real(a) / real(b)));",
           "  return static_cast<Index>(std::exp(static_cast<float>(a) / static_cast<float>(b) *\n"
           "                                     std::log(static_cast<float>(base))));\n"
           "  Index m = 0;"),
    Mutant("double-precision stripes never settled", "schedule/power.cpp",
           "  while (m > 1 && !at_most({{m, b}}, {{base, a}})) --m;\n"
           "  while (at_most({{m + 1, b}}, {{base, a}})) ++m;\n", ""),
    Mutant("stripes settled from below only", "schedule/power.cpp",
           "  while (m > 1 && !at_most({{m, b}}, {{base, a}})) --m;\n", ""),
    Mutant("reach rounded down", "schedule/power.cpp",
           "  while (!at_most({{u, b}, {n, a}}, {{reach, b}, {v, b}})) ++reach;\n", ""),
    Mutant("reach not brought down", "schedule/power.cpp",
           "  while (reach > 1 && at_most({{u, b}, {n, a}}, {{reach - 1, b}, {v, b}})) --reach;\n",
           "  ++reach;\n"),
    Mutant("bounds taken for values", "schedule/power.cpp",
           "  if (!at_most(bound_of(a, Rounding::down), bound_of(b, Rounding::up))) return false;\n"
           "  return value_of(a) <= value_of(b);",
           "  return false;"),
    Mutant("root rounded down", "schedule/power.cpp",
           "  while (saturated_power(root, degree) < value) ++root;\n", ""),
    Mutant("floating point below all integers", "schedule/power.cpp",
           "std::clamp(value, -kLimit, kLimit)", "std::min(value, kLimit)"),
    # Memory
    Mutant("the limit of the group itself alone", "support/host_memory.cpp",
           "if (group.empty() || group == \".\") break;", "break;"),
    Mutant("what a group uses forgotten", "support/host_memory.cpp",
           "*limit - std::max<Index>(0, used - reclaimable)", "*limit + 0 * (used - reclaimable)"),
    Mutant("what a group would give back forgotten", "support/host_memory.cpp",
           "used - reclaimable", "used - 0 * reclaimable"),
    Mutant("a container's group sought in its host", "support/host_memory.cpp",
           ".lexically_relative(of.top);", ".relative_path();"),
    Mutant("the address space not limited", "support/host_memory.cpp",
           "left_of_address_space(root).value_or(machine)", "machine"),
    # The schedule
    Mutant("window one short", "schedule/schedule.cpp",
           "schedule_.level(1).exponent) - 1;", "schedule_.level(1).exponent) - 2;"),
    Mutant("window ignores the start", "schedule/schedule.cpp",
           "std::min(std::max(start, begin), query + 1)", "std::min(begin, query + 1)"),
    Mutant("first searched stripe off by one", "schedule/schedule.cpp",
           "cut.first_ = schedule_.window_index + 1;", "cut.first_ = schedule_.window_index + 2;"),
    Mutant("oldest anchor missed", "schedule/schedule.cpp",
           "std::upper_bound(stripes.begin(), stripes.end(), n)",
           "std::lower_bound(stripes.begin(), stripes.end(), n)"),
    Mutant("forward clip forgotten", "schedule/schedule.cpp",
           "std::max(window_, a - reach_.forward)",
           "std::max<Index>(0, a - reach_.forward)"),
    Mutant("backward reach one short", "schedule/schedule.cpp",
           "a + reach_.backward + 1", "a + reach_.backward"),
    Mutant("tight span one short", "schedule/schedule.cpp",
           "std::min(length_, anchor(i + 1))", "std::min(length_, anchor(i + 1) - 1)"),
    Mutant("span not clipped at the segment's begin", "schedule/schedule.cpp",
           "return {anchor(i), std::min(length_, anchor(i + 1))};",
           "return {anchor(i), anchor(i + 1)};"),
    Mutant("even stride rounded down", "schedule/schedule.cpp",
           "cut.stride_ = (n + parts - 1) / parts;", "cut.stride_ = n / parts;"),
    Mutant("even parts of the wrong level", "schedule/schedule.cpp",
           "ceil_root(n, steps() - m + 1)", "ceil_root(n, steps() - m + 2)"),
    Mutant("even level searches the window too", "schedule/schedule.cpp",
           "window_counts_keys() ? query + 1 - window_length_ : query + 1", "query + 1"),
    Mutant("search although the window has all", "schedule/schedule.cpp",
           "if (n <= window_length_) return",
           "if (n < window_length_) return"),
    Mutant("aligned parts' borders one key off", "schedule/schedule.cpp",
           "(segment.end - 1) % cut.stride_ + 1;", "segment.end % cut.stride_ + 1;"),
    Mutant("the part that the segment's begin clips not counted", "schedule/schedule.cpp",
           "(n + cut.short_ + cut.stride_ - 1) / cut.stride_;",
           "(n + cut.stride_ - 1) / cut.stride_;"),
    Mutant("a clipped part cut by its own length", "schedule/schedule.cpp",
           "rule_ == Rule::aligned ? Segment(keys, stride_) : Segment(keys);", "Segment(keys);"),
    Mutant("aligned parts twice as long from their last length on", "schedule/schedule.cpp",
           "std::lower_bound(longest.begin(), longest.end(), nominal)",
           "std::upper_bound(longest.begin(), longest.end(), nominal)"),
    Mutant("aligned parts of the power below, not of the nearest", "schedule/schedule.cpp",
           "make_rational(steps_left * (2 * c + 1), 2 * (steps_left - 1))",
           "make_rational(steps_left * c, steps_left - 1)"),
    Mutant("an aligned level searches the window too", "schedule/schedule.cpp",
           "!has_stripes(schedule_.level(1).rule);", "schedule_.level(1).rule == Rule::even;"),
    Mutant("where a segment lies never matters", "schedule/schedule.cpp",
           "const Index begin = segment.begin % longest;", "const Index begin = 0 * longest;"),
    Mutant("where a segment lies matters to an aligned level alone", "schedule/schedule.cpp",
           ": static_cast<Index>(std::bit_ceil(static_cast<std::uint64_t>(n)));", ": 1;"),
    Mutant("segments told apart without their nominal length", "schedule/schedule.cpp",
           "aligned ? segment.nominal : n);", "n);"),
    Mutant("even parts alike wherever they lie", "schedule/schedule.cpp",
           "(rule == Rule::even && !place_matters(m + 1));", "rule == Rule::even;"),
    Mutant("the oldest key for the anchor", "schedule/walk.cpp",
           "key_of(stripe), cut_.below(stripe)}", "cut_.below(stripe).begin, cut_.below(stripe)}"),
    Mutant("default backward factor of the level below", "schedule/schedule.cpp",
           "return {rule, make_rational(M), make_rational(M),",
           "return {rule, make_rational(M), make_rational(M - 1),"),
    Mutant("greedy path not greedy", "schedule/schedule.cpp",
           "ceil_root(offset + 2, left) - 1", "ceil_root(offset + 1, left)"),
    # The checker and the counts
    Mutant("oldest span not looked into", "schedule/segment_checker.cpp",
           "cut.last() <= known.bad && settled(m + 1, cut.below(cut.last()))",
           "cut.last() <= known.bad"),
    Mutant("unclipped tight spans not looked into", "schedule/segment_checker.cpp",
           "cut.last() <= known.bad && settled", "settled"),
    Mutant("gap of one key overlooked", "schedule/segment_checker.cpp",
           "cut.reach().backward + cut.reach().forward + 1;",
           "cut.reach().backward + cut.reach().forward + 2;"),
    Mutant("holes looked for behind the first wide gap", "schedule/segment_checker.cpp",
           "(std::upper_bound(widest.begin(), end, reached) - widest.begin()) - 1;",
           "(std::upper_bound(widest.begin(), end, reached) - widest.begin());"),
    Mutant("unclipped power spans not looked into", "schedule/segment_checker.cpp",
           "return oldest < newest || settled(m + 1, cut.below(newest));", "return true;"),
    Mutant("more places than are remembered refused", "schedule/segment_checker.cpp",
           "known.other_segments.clear();", "{}"),
    Mutant("choices refused for queries before", "schedule/work.cpp",
           "[](auto& m) { m.clear(); }", "[](auto&) {}"),
    Mutant("segments of other queries never forgotten", "schedule/segment_checker.cpp",
           "    memory(m) = std::move(fresh);", ""),
    Mutant("tight spans settled once wherever they lie", "schedule/segment_checker.cpp",
           "  if (plan_.place_matters(m + 1)) return covered_each(m, cut);\n  Memory", "  Memory"),
    Mutant("power spans settled once wherever they lie", "schedule/segment_checker.cpp",
           "  if (plan_.place_matters(m + 1)) return covered_each(m, cut);\n\n", ""),
    Mutant("holes of inner spans forgotten", "schedule/segment_checker.cpp",
           "if (hole.near + span.near > near) reached.push_back({near, span.near + hole.near});\n"
           "      near = span.near + hole.far;",
           "(void)hole;"),
    Mutant("hole at the oldest keys forgotten", "schedule/segment_checker.cpp",
           "if (settled_to < cut.length()) holes.push_back({settled_to, cut.length()});", ""),
    Mutant("closing factor does not close", "schedule/coverage.cpp",
           "return make_rational(high, kDecimals);", "return make_rational(low, kDecimals);"),
    Mutant("sample without the last query", "schedule/coverage.cpp",
           "std::vector<Index> offsets{eligible - 1};", "std::vector<Index> offsets;"),
    Mutant("span list: newest keys not checked", "schedule/gaps.cpp",
           "  if (reached < eligible.end) found.push_back({reached, eligible.end});\n", ""),
    Mutant("span list: overlaps shrink the reach", "schedule/gaps.cpp",
           "reached = std::max(reached, span.end);", "reached = span.end;"),
    Mutant("multiplicity without the window", "schedule/coverage.cpp", "!window.empty()) add(window);",
           "window.empty()) add(window);"),
    Mutant("work counts the window's stripes", "schedule/work.cpp",
           "totals.add(of(m + 1, cut.below(i)), cut.count(), copies);",
           "totals.add(of(m + 1, cut.below(i)), cut.last(), copies);"),
    Mutant("choices count the window's stripes", "schedule/work.cpp",
           "most.front() = cut.count();", "most.front() = cut.last();"),
    Mutant("the bound counts the window's keys", "schedule/work.cpp",
           "eligible - plan.window(query, start).length();", "eligible;"),
    Mutant("a bound although a key is excluded", "schedule/work.cpp",
           "if (SegmentChecker(plan).covered(query, start)) work.ratio", "work.ratio"),
    Mutant("the bound of one path for several", "schedule/work.cpp",
           "std::pow(static_cast<long double>(top_k), N - 1);", "1.0L;"),
    Mutant("pairs counted in 64 bits", "schedule/count.cpp",
           "if (__builtin_add_overflow(value_, other.value_, &value_)) "
           "throw std::overflow_error(kRange);",
           "value_ = static_cast<std::uint64_t>(value_ + other.value_);"),
    Mutant("a product of counts wraps", "schedule/count.cpp",
           "if (__builtin_mul_overflow(a.value_, b.value_, &product.value_)) {",
           "product.value_ = a.value_ * b.value_;\n  if (false) {"),
    Mutant("a count of 2^63 in 63 bits", "schedule/count.cpp",
           "if (value_ > static_cast<Wide>(INT64_MAX)) return std::nullopt;", ""),
    # Progress
    Mutant("the wish to stop not heard", "support/watch.hpp",
           "    if (stopped_) throw Cancelled();\n", ""),
    Mutant("the end not told", "support/watch.hpp", "    next_ = 0;\n", ""),
    Mutant("no look up from one query", "support/watch.hpp", "    watch_->look();\n", ""),
    Mutant("tables made to their end", "schedule/schedule.cpp",
           "    if (i % kBlock == 0) watch.add(kBlock);\n", ""),
    Mutant("attention goes on", "stages/attention.cpp",
           "      watch.add(count);\n    };\n  });\n  watch.finish();\n  const auto threads",
           "    };\n  });\n  const auto threads"),
    # Span-search
    Mutant("inner level measured from the wrong end", "schedule/walk.cpp",
           "end_ - 1 - cut_.anchor(stripe)", "end_ - cut_.length() + cut_.anchor(stripe)"),
    Mutant("tie goes to the newer key", "stages/search_row.hpp",
           "a.anchor < b.anchor", "a.anchor > b.anchor"),
    Mutant("tie goes to the later parent", "stages/search_row.hpp",
           "a.parent < b.parent", "a.parent > b.parent"),
    Mutant("NaN kept", "stages/search_row.hpp", "  if (std::isnan(candidate.score)) return;\n", ""),
    Mutant("gate over the last level's scores", "stages/search_row.hpp",
           "parents[parent].score + score(m, choice.key, choice.span)", "score(m, choice.key, choice.span)"),
    Mutant("one path too few", "stages/search_row.hpp",
           "static_cast<std::size_t>(plan.schedule().top_k);",
           "std::max<std::size_t>(1, static_cast<std::size_t>(plan.schedule().top_k) - 1);"),
    Mutant("search scale forgotten", "stages/search.cpp",
           "return args.search_scale *", "return 1.0 *"),
    # Attention
    Mutant("heads mapped to KV heads in turn", "stages/shape.hpp",
           "head / (shape_.num_heads / shape_.num_kv_heads)", "head % shape_.num_kv_heads"),
    Mutant("start ignored", "stages/shape.hpp", "shape_.start ? shape_.start[batch(row)] : 0", "0"),
    Mutant("keys of the window in the span too", "stages/attend_row.hpp",
           "outside_window(args.spans[slot], window)", "args.spans[slot]"),
    Mutant("softmax of nothing", "stages/attend_row.hpp",
           "    weights.clear();\n    return max;\n", ""),
    Mutant("log-sum-exp in base 2", "stages/attend_row.hpp",
           "return max + std::log(sum);", "return max + std::log2(sum);"),
    Mutant("gates over unused slots", "stages/combine.cpp",
           "const Index count = args.count[row];\n    double max",
           "const Index count = args.slots;\n    double max"),
    Mutant("gates not normalized", "stages/combine.cpp", "gate[slot] /= sum;", "gate[slot] /= 1;"),
    Mutant("chunks forget their position", "stages/part.hpp",
           "rows.position(row) + count, 0))", "rows.position(0) + count, 0))"),
    Mutant("lengths ignored", "stages/shape.hpp",
           "shape_.length ? shape_.length[batch(row)] - shape_.queries : shape_.query_offset",
           "shape_.query_offset"),
    Mutant("every sequence as long as the first", "stages/shape.hpp",
           "shape_.length[batch(row)] - shape_.queries", "shape_.length[0] - shape_.queries"),
    Mutant("a length behind the keys", "stages/shape.hpp",
           "      require_within(\"length\", s.length[b], 0, s.key_offset ? kMaxLength : s.keys);\n", ""),
    Mutant("plan for the first sequence alone", "stages/shape.hpp",
           "*std::max_element(shape.length, shape.length + shape.batch)", "shape.length[0]"),
    Mutant("no path, no output", "stages/combine.cpp",
           "if (args.count[row] == 0) sum = items.window();", ""),
    Mutant("window and span joined half and half", "stages/softmax.hpp",
           "    first /= sum;\n    second /= sum;\n", "    first = second = 0.5;\n"),
    Mutant("merged log-sum-exp forgotten", "stages/attend.cpp",
           "merged.lse[at(row)] = max + std::log(sum);", "merged.lse[at(row)] = max;"),
    Mutant("what counts nothing counts as NaN", "stages/softmax.hpp",
           "(second == 0 ? 0 : second * b)", "second * b"),
    Mutant("parts are weighed by the last one", "stages/attend.cpp",
           "if (std::isnan(lse(part)) || lse(part) > max) max = lse(part);",
           "max = lse(part);"),
    Mutant("parts are merged unweighed", "stages/attend.cpp",
           "const double share = weight(lse(part), max) / sum;",
           "const double share = 1 / static_cast<double>(args.parts);"),
    Mutant("a part that weighs nothing is merged", "stages/attend.cpp",
           "if (share == 0) continue;  // such", "// such"),
    Mutant("log-sum-exps of a part put into another", "stages/attention.cpp",
           "result.window_lse.begin() + row);", "result.window_lse.begin());"),
    # The judge
    Mutant("a difference that is no number passes", "judge/values.cpp",
           "return std::isnan(error) ? kInfinity : std::max", "return std::max"),
    Mutant("the mean is not judged", "judge/values.cpp",
           "std::max(quotient(max_error, max_limit), quotient(mean_error, mean_limit()))",
           "quotient(max_error, max_limit)"),
    Mutant("the maximum is not judged", "judge/values.cpp",
           "std::max(quotient(max_error, max_limit), quotient(mean_error, mean_limit()))",
           "quotient(mean_error, mean_limit())"),
    Mutant("NaN values are not judged", "judge/values.cpp",
           "return std::isnan(error) ? kInfinity : ", "return "),
    Mutant("a broken yardstick excuses all", "judge/values.cpp",
           "return std::isfinite(limit) && limit > 0 ?", "return limit > 0 ?"),
    Mutant("a NaN of the oracle forbids every value", "judge/values.cpp",
           "  if (std::isnan(want)) return true;\n", ""),
    Mutant("an infinity passes wherever the value is large", "judge/values.cpp",
           "return std::isinf(stored) && got == stored;", "return std::isinf(got);"),
    Mutant("one value has the mean luck of many", "judge/values.cpp",
           "return 1 + 1 / std::sqrt(std::max(1.0, values));", "return 0 * values + 1;"),
    Mutant("zeros beside a value even out its luck", "judge/values.cpp",
           "row.luck_values = equal_values(row.mean_luck, luck_squares);",
           "row.luck_values = number;"),
    Mutant("what is explained excuses all", "judge/values.cpp",
           ": std::max(0.0, error);", ": (slack > 0 ? 0 : error);"),
    Mutant("rows are judged together alone", "judge/values.cpp",
           "report.ratio = std::max({report.ratio, worst, all.ratio()});",
           "report.ratio = std::max(report.ratio, all.ratio());"),
    Mutant("heads are not judged apart", "judge/values.cpp",
           "    report.ratio = std::max(report.ratio, ratio);\n", ""),
    Mutant("luck counts in full for any number of rows", "judge/values.cpp",
           "mean(base) + share * share_of_luck(", "mean(base) + share_of_luck("),
    Mutant("a loud value hides the others of its row", "judge/values.cpp",
           "std::isnan(own) ? limit : std::min(limit, own)", "limit"),
    Mutant("a value's own luck counts for nothing", "judge/values.cpp",
           "kLuckOfValue * finite(values.luck[i])", "0"),
    Mutant("subnormal numbers are judged", "judge/values.cpp",
           "storage == Storage::float16 ? 0x1p-24 : 0x1p-126", "0"),
    Mutant("a flushed weight is an error", "judge/rounding.cpp",
           "    if (weights[j] < kFlushed * largest) flushed += term;\n", ""),
    Mutant("any small weight may be flushed", "judge/rounding.cpp",
           "weights[j] < kFlushed * largest", "weights[j] < 0x1p-100 * largest"),
    Mutant("normal numbers are not told from 0", "judge/values.cpp",
           "0x1p-24 : 0x1p-126", "0x1p-23 : 0x1p-125"),
    Mutant("rows before a fault are blamed for it", "judge/values.cpp",
           "if (worst <= 1 && ratio > worst_head) {", "if (false) {"),
    Mutant("any span of a real anchor passes", "judge/selection.cpp",
           "path && (path->span == span ||", "path && (true ||"),
    Mutant("a path may come twice", "judge/selection.cpp",
           "if (other.anchors == path->anchors) ++report_.duplicates;", "(void)other;"),
    Mutant("submitted scores not recomputed", "judge/selection.cpp",
           "  if (!within_tolerance(score, path.score, path.bound)) ++report_.wrong_scores;\n", ""),
    Mutant("order of the paths not judged", "judge/selection.cpp", "++report_.unordered;", "{}"),
    Mutant("regret not judged", "judge/selection.cpp",
           "if (!(regret.largest <= 1)) ++report_.regretted;", ""),
    Mutant("the first level's regret forgotten", "judge/possible_paths.hpp",
           "regret.largest = std::max(regret.largest, regret_of(path, threshold));",
           "regret.largest = regret_of(path, threshold);"),
    Mutant("siblings of a path with an unsure parent forgotten", "judge/possible_paths.hpp",
           "add(family, offered);", ""),
    Mutant("children of unsure parents not missed", "judge/possible_paths.hpp",
           "others.resize(std::min(others.size(), at(more)));", "others.clear();"),
    Mutant("an anchor nearby passes", "schedule/walk.cpp",
           "if (low == past || key_of(low) != key)", "if (low == past)"),
    Mutant("a bound that excuses anything", "judge/possible_paths.hpp",
           "terms * 0x1p-24 * scale", "terms * 0x1p-10 * scale"),
    Mutant("the best score for the k-th best", "judge/possible_paths.hpp",
           "paths.back()->score", "paths.front()->score"),
    Mutant("the yardstick's weights not rounded", "judge/yardstick.cpp",
           "round_to(storage, w);", "w;"),
    Mutant("a yardstick that is off", "judge/yardstick.cpp",
           "for (float& x : item.output) x /= sum;", "for (float& x : item.output) x /= sum * 1.1F;"),
    Mutant("rounding of the logits forgotten", "judge/rounding.cpp",
           "return kSingle * (std::sqrt(d / 6) * norm + (std::sqrt(d) / 3 + 2) * std::abs(product));",
           "return 0 * (norm + d + product);"),
    Mutant("rounding of handed-in items not forgiven", "judge/row_judge.cpp",
           "allowed.add_slack(c, share * rounding_of(storage_, part.output[c]));", ""),
    Mutant("a row with unusable spans passes", "judge/row_judge.cpp",
           "      findings_.values[kOutput] = wrong_row();\n", ""),
    Mutant("items with unusable spans pass", "judge/row_judge.cpp",
           "findings_.values[kSpanAttention] = findings_.values[kSpanLse] = wrong_row();", ""),
    Mutant("rows that hang on rounding are judged by chance", "judge/row_judge.cpp",
           "chosen.decided = static_cast<Index>(kept.size()) == oracle.count();",
           "chosen.decided = true;"),
    Mutant("undecided rows count as judged", "judge/judge.cpp",
           "report.undecided += row.undecided;", ""),
    Mutant("more than half undecided passes", "judge/report.cpp", "2 * undecided <= rows &&", ""),
    Mutant("what is found in all rows does not count", "judge/report.cpp",
           "return found && (selection", "return (selection"),
    Mutant("bounds that bound nothing", "judge/all_rows.cpp",
           "std::abs(value) > bound[c]", "false"),
    Mutant("rows that meet a NaN are held to none", "judge/all_rows.cpp",
           "    if (!clean_[at(row)]) continue;\n", ""),
    Mutant("the last row left out of samples", "judge/sample.cpp",
           "  if (wanted > 1) rows.insert(total - 1);\n", ""),
    # The judge of gradients
    Mutant("the gate's derivative without its mean passes", "judge/gradient_row.cpp",
           "term.factor = slot.gate * (slot.delta - mean_) + given;",
           "term.factor = slot.gate * slot.delta + given;"),
    Mutant("scores given a derivative are judged without", "judge/gradient_row.cpp",
           "mixture.score(s, by.scores ? by.scores[slot] : 0)", "mixture.score(s, 0)"),
    Mutant("the window once for every slot passes", "judge/gradient_row.cpp",
           "      item.share += slot.gate * slot.window;\n", "      item.share += slot.window;\n"),
    Mutant("derivatives by the window's log-sum-exp passed over", "judge/gradient_row.cpp",
           "    item.shift -= d_lse;\n", ""),
    Mutant("a query without a path has no gradient", "judge/gradient_row.cpp",
           "      item.share = item.plain_share = 1;\n", ""),
    Mutant("d logits not rounded by the yardstick, nor by luck", "judge/gradient_row.cpp",
           "size * of_value * of_along, rounded);", "size * of_value * of_along);"),
    Mutant("a flushed factor is an error", "judge/gradient_row.cpp",
           "p < kFlushed || std::abs(x) < kFlushed;", "x == 0;"),
    Mutant("a deviation that excuses any derivative by a logit", "judge/gradient_row.cpp",
           "terms.by_shift = scale * p * item.shift_deviation;",
           "terms.by_shift = scale * p * (std::abs(item.shift) + item.share);"),
    Mutant("the parts of a gradient not forgiven", "judge/gradient_sum.cpp",
           "(parts_ > 1 ? of_parts_[c] : 0)", "0 * of_parts_[c]"),
    Mutant("two roundings that meet are refused", "judge/gradient_sum.cpp",
           "constexpr double kFew = 1.5;", "constexpr double kFew = 0.5;"),
    Mutant("any part of a gradient may be missing", "judge/gradient_sum.cpp",
           "if (term.lost > 0) slack_ += term.lost * x.abs();",
           "slack_ += std::abs(term.factor) * x.abs();"),
    Mutant("every level's routing judged by the first's anchors", "judge/judge_gradients.cpp",
           "selection_.top_k * levels_ + m;", "selection_.top_k * levels_;"),
    Mutant("d search keys by the first level alone", "judge/judge_gradients.cpp",
           "args_.routing_queries[at(use.level)]", "args_.routing_queries[0]"),
    Mutant("d key without the search's part", "judge/judge_gradients.cpp",
           "args_.search_keys ? search : key;", "search;"),
    Mutant("anything where nobody looked", "judge/all_gradients.cpp",
           "      found.not_zero += zero && *x != 0;\n", ""),
    Mutant("NaN gradients not looked for", "judge/all_gradients.cpp",
           "!std::isfinite(*x) && !overflows;", "false && !overflows;"),
    Mutant("what a NaN reaches must be finite", "judge/all_gradients.cpp",
           "clean_rows_.push_back(inputs.clean(row) &&", "clean_rows_.push_back(true ||"),
    Mutant("derivatives that are NaN not seen", "judge/all_gradients.cpp",
           "finite(by.output, d, d) &&", "true &&"),
    Mutant("a NaN reaches other heads' rows", "judge/all_gradients.cpp",
           "clean_rows_.push_back(inputs.clean(row)", "clean_rows_.push_back(inputs.clean(0)"),
    Mutant("gradients of heads judged together", "judge/judge_gradients.cpp",
           "heads.push_back(sample[at(i / levels)] / length);", "heads.push_back(0 * i);"),
    Mutant("a span of later keys has gradients", "judge/judge_gradients.cpp",
           "span.end <= all.position(row) + 1", "span.end <= args.shape.keys"),
    Mutant("d search keys where there are none", "judge/judge_gradients.cpp",
           "require(!submitted.search_keys || args.search_keys,", "require(true,"),
    Mutant("a selection of all slots", "judge/judge_gradients.cpp",
           "given.anchors[(row * top_k + count) * levels] >= 0", "true"),
    Mutant("the window's keys nobody's", "judge/key_uses.cpp",
           "  items.push_back(window);\n", "  items.push_back({});\n"),
    Mutant("the window's keys twice in gradients", "judge/key_uses.cpp",
           "outside_window(selection.spans[at(row * selection.top_k + s)], window)",
           "selection.spans[at(row * selection.top_k + s)]"),
    Mutant("a key beside a span is looked at", "judge/key_uses.cpp",
           "--uses.items[at(keys.end)];", "--uses.items[at(std::min(total, keys.end + 1))];"),
    Mutant("anchors nobody's", "judge/key_uses.cpp", "++uses.anchors[at(key)];", "(void)key;"),
    Mutant("of a key's uses the last forgotten", "judge/key_uses.cpp",
           "uses[s].items.push_back({row, item});",
           "if (uses[s].items.empty() || item > 0) uses[s].items.push_back({row, item});"),
    Mutant("a sample without the key most chosen", "judge/key_uses.cpp",
           "    insert(largest(uses.anchors, begin, end));\n", ""),
    Mutant("a sample without what nobody looks at", "judge/key_uses.cpp",
           "if (unseen < uses.items.begin() + end) insert", "if (false) insert"),
    Mutant("what is not 0 does not count", "judge/report.cpp", " + whole.not_zero", ""),
    # Accumulation and gradients
    Mutant("decay after the input", "stages/accumulate.cpp",
           "H.row(i) = a(t) * H.row(i) + x_t[i] * b(t);",
           "H.row(i) = a(t) * (H.row(i) + x_t[i] * b(t));"),
    Mutant("padding accumulated", "stages/accumulate.cpp",
           "std::clamp<Index>(start - args.offset, 0, args.length)",
           "std::clamp<Index>(0 * start, 0, args.length)"),
    Mutant("state gradient not decayed", "stages/accumulate.cpp", "          G *= head.a(t);\n", ""),
    Mutant("softmax gradient without its mean", "stages/attend.cpp",
           "(d_weights[j] - mean + d_lse)", "(d_weights[j] + d_lse)"),
    Mutant("a shard's keys counted from 0", "stages/shape.hpp",
           "shape_.keys + key - held().begin", "shape_.keys + key"),
    Mutant("a shard searches beyond its end", "stages/shape.hpp",
           "return {first, first + shape_.keys};", "return {first, first + shape_.keys + 1};"),
    Mutant("a shard's segments nominally as long as they are", "stages/shards.cpp",
           "segment = choice->span;", "segment = Segment(Span{choice->span});"),
    Mutant("the last shard's paths lost", "stages/shards.cpp",
           "shard < args.shards; ++shard", "shard < args.shards - (args.shards > 1); ++shard"),
    Mutant("parents' scores forgotten by shards", "stages/shards.cpp",
           "args.level == 1 ? 0 : args.parent_scores[slot]", "0"),
    Mutant("windows of the first sequence for all", "stages/attend.cpp",
           "row / shape.queries % shape.num_heads == 0", "row % shape.num_heads == 0"),
    Mutant("softmax gradient without its scale", "stages/attend.cpp",
           "scale * weights[j] * (d_weights", "weights[j] * (d_weights"),
    Mutant("log-sum-exps have no gradient", "stages/attend.cpp",
           "lse_gradient ? lse_gradient[slot] : 0", "0"),
    Mutant("gate gradient without its mean", "stages/combine.cpp", "(d_score - mean)", "d_score"),
    Mutant("a span's share has no gradient", "stages/combine.cpp",
           "gradients.lses[at(slot)] = g * join.first", "gradients.lses[at(slot)] = 0"),
    Mutant("the window's share has no gradient", "stages/combine.cpp",
           "gradients.window_lse[at(row)] += g", "gradients.window_lse[at(row)] += 0 * g"),
    Mutant("gate gradient reaches the last level alone", "stages/search.cpp",
           "for (Index m = 0; m < selection.levels; ++m) {",
           "for (Index m = selection.levels - 1; m < selection.levels; ++m) {"),
    Mutant("a given selection is not taken", "stages/attention.cpp",
           "selection = given ? std::move(*given) : span_search(search_of(part));",
           "selection = span_search(search_of(part));"),
    Mutant("gradients by returned scores forgotten", "stages/attention.cpp",
           "  add(from(by_result.scores, chosen.top_k), by_items.scores);\n", ""),
    # Patterns of other attentions, and layers
    Mutant("pattern: window one longer", "patterns/positions.cpp",
           "  row.keep({row.query - p[\"window\"] + 1, row.query + 1});\n}",
           "  row.keep({row.query - p[\"window\"], row.query + 1});\n}"),
    Mutant("pattern: blocks count from the first eligible key", "patterns/positions.cpp",
           "row.keep({row.query - row.query % p[\"block\"], row.query + 1});",
           "row.keep({row.query - (row.query - row.start) % p[\"block\"], row.query + 1});"),
    Mutant("pattern: strided band of l keys", "patterns/positions.cpp",
           "row.keep({row.query - stride, row.query + 1});",
           "row.keep({row.query - stride + 1, row.query + 1});"),
    Mutant("pattern: strided without its oldest column", "patterns/positions.cpp",
           "key >= row.start; key -= stride", "key > row.start; key -= stride"),
    Mutant("pattern: fixed without the block that the start is in", "patterns/positions.cpp",
           "const Index oldest = row.start - row.start % stride;",
           "const Index oldest = row.start;"),
    Mutant("pattern: fixed summaries at the blocks' begin", "patterns/positions.cpp",
           "row.keep({begin + stride - p[\"summary\"], begin + stride});",
           "row.keep({begin, begin + p[\"summary\"]});"),
    Mutant("pattern: log-sparse misses the largest power", "patterns/positions.cpp",
           "distance <= row.query; distance *= 2", "distance < row.query; distance *= 2"),
    Mutant("pattern: combiner's averages are keys", "patterns/averages.cpp",
           "row.average({begin, begin + block});", "row.keep({begin, begin + block});"),
    Mutant("pattern: longformer's globals forgotten", "patterns/positions.cpp",
           "  row.keep({0, p[\"globals\"]});\n", ""),
    Mutant("pattern: dilated window one longer", "patterns/positions.cpp",
           "i < p[\"window\"] && key >=", "i <= p[\"window\"] && key >="),
    Mutant("pattern: bigbird's window without the own block", "patterns/positions.cpp",
           "std::max<Index>(0, own + 1 - p[\"window\"]);",
           "std::max<Index>(0, own - p[\"window\"]);"),
    Mutant("pattern: random blocks drawn for each query", "patterns/positions.cpp",
           "static_cast<std::uint64_t>(own));", "static_cast<std::uint64_t>(row.query));"),
    Mutant("pattern: random blocks whatever the seed", "patterns/positions.cpp",
           "mixed_bits(mixed_bits(seed + kRandomStride) +", "mixed_bits(mixed_bits(0 * seed) +"),
    Mutant("pattern: a block drawn twice", "patterns/positions.cpp",
           "if (!numbers.insert(draw).second) numbers.insert(last);", "numbers.insert(draw);"),
    Mutant("pattern: log-linear without its largest bucket", "patterns/averages.cpp",
           "for (Index end = row.query; end > 0; end &= end - 1)",
           "for (Index end = row.query; (end & (end - 1)) > 0; end &= end - 1)"),
    Mutant("pattern: zeta searches its own chunk", "patterns/routed.cpp",
           "{row.start, row.query - row.query % p[\"block\"]}", "{row.start, row.query + 1}"),
    Mutant("pattern: zeta without its mean", "patterns/routed.cpp",
           "  row.average({row.start, row.query + 1});\n", ""),
    Mutant("pattern: one round of hashing", "patterns/routed.cpp",
           "round < p[\"random\"]; ++round", "round < 1; ++round"),
    Mutant("pattern: biformer's own region not scored", "patterns/routed.cpp",
           "row.count_scored(row.query / block - row.start / block + 1);",
           "row.count_scored(row.query / block - row.start / block);"),
    Mutant("pattern: a compressed block before it is past", "patterns/routed.cpp",
           "begin + summary <= row.query + 1", "begin + summary <= row.query + 2"),
    Mutant("pattern: compressed blocks of padding alone", "patterns/routed.cpp",
           "const Index first = row.start < summary ? 0 : (row.start - summary) / stride + 1;",
           "const Index first = row.start < summary ? 0 : (row.start - summary) / stride + 2;"),
    Mutant("pattern: moba's own block not among its k", "patterns/routed.cpp",
           "row.count_attended(p[\"top-k\"] - 1, block, earlier.length());",
           "row.count_attended(p[\"top-k\"], block, earlier.length());"),
    Mutant("pattern: moba scores its own block", "patterns/routed.cpp",
           "row.count_scored(own / block - row.start / block);",
           "row.count_scored(own / block - row.start / block + 1);"),
    Mutant("pattern: more chosen than there are", "patterns/row_builder.hpp",
           "most > keys / part ? keys : most * part", "most * part"),
    Mutant("pattern: keys told twice counted twice", "patterns/row_builder.hpp",
           "    row_.attended += eligible();\n",
           "    for (const Span& span : kept_) row_.attended += span.length();\n"
           "    if (kept_.empty()) row_.attended += eligible();\n"
           "    if (!kept_.empty()) return std::move(row_);\n"),
    Mutant("pattern: keys before the start", "patterns/row_builder.hpp",
           "std::max(span.begin, start)", "std::max<Index>(span.begin, 0)"),
    Mutant("pattern: averages not reached", "patterns/pattern.cpp",
           "spans.insert(spans.end(), row.averaged.begin(), row.averaged.end());", ""),
    Mutant("pattern: averages without what is excluded", "patterns/pattern.cpp",
           "for (const Span& hole : holes) averaged -= hole.length();", ""),
    Mutant("pattern: the last of the busiest queries", "patterns/pattern.cpp",
           "if (other.most() > most() ||", "if (other.most() >= most() ||"),
    Mutant("pattern: any parameter taken", "patterns/pattern.cpp",
           "require(std::find(known.begin(), known.end(), parameter) != known.end(),",
           "require(true,"),
    Mutant("pattern: a default beyond its limit", "patterns/pattern.cpp",
           "Index value = std::min(paper, limit);", "Index value = paper;"),
    Mutant("tally: the last hole for the first", "schedule/gaps.cpp",
           "if (other.first_query >= first_query) return;",
           "if (other.first_query < first_query && first_query != kNone) return;"),
    Mutant("layers: what a layer brought is not handed on", "patterns/layers.cpp",
           "Bits grown = row(query);", "Bits grown(words_of(query + 1));"),
    Mutant("layers: squared, not one more", "patterns/layers.cpp",
           "const Bits& spans = one_[static_cast<std::size_t>(query)];",
           "const Bits& spans = row(query);"),
    Mutant("layers: rows grown already", "patterns/layers.cpp",
           "begin >= 0; begin -= block) {\n",
           "begin >= 0; begin -= block) {\n"
           "      if (begin > 0) row(begin - 1) = grown_row(begin - 1);\n"),
    Mutant("layers: unions of the first layer kept", "patterns/layers.cpp",
           "    unions_.resize(1);\n", "    if (unions_.size() > 1) return;\n"),
    Mutant("layers: unions of half their rows", "patterns/layers.cpp",
           "      join(level[i], below[2 * i]);\n", ""),
    Mutant("layers: spans moved to the begin of their word", "patterns/layers.cpp",
           "<< (at % kWord);", "<< (at % 1);"),
    Mutant("layers: one more than are needed", "patterns/layers.cpp",
           "  report.layers = 1;\n", "  report.layers = 2;\n"),
    Mutant("layers: the fixed point one later", "patterns/layers.cpp",
           "      report.fixed_point = report.layers;\n      break;",
           "      report.fixed_point = report.layers + 1;\n      break;"),
    Mutant("layers: holes count from the start", "patterns/layers.cpp",
           "excluded.first_query += start;", "excluded.first_query += 0;"),
    Mutant("layers: averages not handed on", "patterns/layers.cpp",
           "row.selectable.insert(row.selectable.end(), row.averaged.begin(), row.averaged.end());",
           ""),
    Mutant("layers: spans of some queries taken", "patterns/layers.cpp",
           "require(!rows[query].empty(),", "require(true,"),
    # Recurrences of other attentions
    Mutant("second order: the outer decay of the asymmetric form forgotten",
           "relatives/second_order.cpp",
           "second = head.outer[t] * second + k.transpose() * gathered;",
           "second = second + k.transpose() * gathered;"),
    Mutant("second order: the inner decay for the outer one", "relatives/second_order.cpp",
           "second = head.outer[t] * second + gathered.transpose() * v;",
           "second = head.inner[t] * second + gathered.transpose() * v;"),
    Mutant("second order: a row gathered before its own key", "relatives/second_order.cpp",
           "      first = head.inner[t] * first + k.transpose() * read.row(t);\n"
           "      const Vector gathered = q * first;\n",
           "      const Vector gathered = head.inner[t] * q * first;\n"
           "      first = head.inner[t] * first + k.transpose() * read.row(t);\n"),
    Mutant("second order: the masked product without the inner mask",
           "relatives/second_order.cpp", "decay_mask(head.inner).cwiseProduct(A);", "A;"),
    Mutant("second order: the masked product of the other form", "relatives/second_order.cpp",
           "A * inner.transpose()", "A * inner"),
    Mutant("second order: epsilon forgotten", "relatives/second_order.cpp",
           ".array() + *epsilon_;", ".array() + 0 * *epsilon_;"),
    Mutant("second order: the scan joins the row before, not the half before",
           "relatives/second_order.cpp", "seen[at((t & ~(w - 1)) - 1)]", "seen[at(t - 1)]"),
    Mutant("second order: the scan stops a block early", "relatives/second_order.cpp",
           "w < head.v.rows(); w *= 2", "2 * w < head.v.rows(); w *= 2"),
    Mutant("second order: Y joined as the paper's decayed sum", "relatives/stretch.hpp",
           "newer.outer * older.Y + older.inner * newer.Y,", "newer.outer * older.Y + newer.Y,"),
    Mutant("second order: a row's own inner decay not in Y", "relatives/stretch.hpp",
           "inner * Y, Y * X}", "Y, Y * X}"),
    Mutant("second order: older and newer confused in a join", "relatives/stretch.hpp",
           "newer.Y * older.X", "older.Y * newer.X"),
    Mutant("log-linear: levels of t - s", "relatives/log_linear.cpp", "(query ^ key)",
           "(query - key)"),
    Mutant("log-linear: buckets fold a level short", "relatives/log_linear.cpp",
           "level <= b; ++level", "level < b; ++level"),
    Mutant("log-linear: a folded bucket kept", "relatives/log_linear.cpp",
           "          states[at(level)] = nothing;\n", ""),
    Mutant("log-linear: the new key decays too", "relatives/log_linear.cpp",
           "states[0] = k.row(t)", "states[0] = a[t] * k.row(t)"),
    Mutant("log-linear: one level fewer suffices", "relatives/log_linear.cpp",
           "? 1 + log_linear_level", "? log_linear_level"),
    Mutant("recurrences: a decay over [column, row]", "relatives/rows.hpp",
           "decays[t] * mask.row(t - 1).head(t);", "decays[t - 1] * mask.row(t - 1).head(t);"),
    Mutant("recurrences: decays above 1 taken", "relatives/rows.hpp",
           "decays[t] < 0 || decays[t] > 1", "decays[t] < 0"),
    Mutant("recurrences: the arrays of the first head for all", "relatives/rows.hpp",
           "array + head * length * width", "array + 0 * head * length * width"),
    # Sweeps
    Mutant("the smaller call may be slower", "bench/sweep_judge.cpp",
           "  if (!(step.factor <= kLargestFactor)) {",
           "  if (rises && !(step.factor <= kLargestFactor)) {"),
    Mutant("work explains nothing", "bench/sweep_judge.cpp",
           "std::max({1.0, slow.bytes / fast.bytes, slow.products / fast.products})", "1.0"),
    Mutant("less work asks for less time", "bench/sweep_judge.cpp",
           "std::max({1.0, slow.bytes", "std::max({slow.bytes"),
    Mutant("a call without a time is judged", "bench/sweep_judge.cpp",
           "if (!is_measure(call.milliseconds)) return fmt::format(\"{} has no time\", call.value);",
           "if (!is_measure(call.milliseconds)) return \"\";"),
    Mutant("plain kernels excuse each other", "bench/sweep_judge.cpp",
           "step.why = !one.pass() && !(one.factor < other.factor) ? one.why : other.why;", ""),
    Mutant("the first of two plain calls judged alone", "bench/sweep_judge.cpp",
           "one.why : other.why;", "one.why : \"\";"),
]


class Workshop:
    """What all mutants are built with; `folder` holds what is made once."""

    def __init__(self, build, folder):
        self.build = build
        self.folder = folder
        self.link = json.loads((build / "mutants.json").read_text())
        self.commands = {}  # the compiler's arguments for each source file of the reference
        for entry in json.loads((build / "compile_commands.json").read_text()):
            source = pathlib.Path(entry["file"])
            for home in (REFERENCE, EXPERIMENTS):
                if source.is_relative_to(home):
                    self.commands[str(source.relative_to(home))] = shlex.split(entry["command"])
        self.outer = folder / "outer.hpp"  # every header from outside, compiled once
        included = {line for path in REFERENCE.rglob("*.?pp")
                    for line in re.findall("^#include <.*>", path.read_text(), re.MULTILINE)}
        self.outer.write_text("\n".join(sorted(included)) + "\n")
        some = MUTANTS[0].file
        self.compile(some, self.outer, f"{self.outer}.gch", ["-x", "c++-header"])
        handlers = folder / "no_handlers.cpp"
        handlers.write_text(NO_HANDLERS)
        self.no_handlers = str(folder / "no_handlers.o")
        self.compile(some, handlers, self.no_handlers)

    def compile(self, name, source, built, options=(), home=REFERENCE, copy=REFERENCE):
        """Compiles `source` as the file `name` is compiled, but faster, and with the headers of
        `copy` instead of those of `home`."""
        command = [word.replace(f"-I{home}", f"-I{copy}")
                   for word in self.commands[name] if word != "-Werror"]
        command[command.index("-o") + 1] = str(built)
        at = command.index("-c")
        command[at:] = [*options, "-c", str(source), "-O1", "-w"]
        subprocess.run(command, cwd=self.build, check=True)

    def build_tests(self, mutant, folder):
        """The unit tests with the mutant, made in `folder`."""
        home = home_of(mutant.file)
        sources = folder / home.name
        shutil.copytree(home, sources)
        target = sources / mutant.file
        target.write_text(target.read_text().replace(mutant.old, mutant.new))
        objects = [self.no_handlers]
        for name in sorted(users(mutant.file)):
            objects.append(str(folder / f"{name.replace('/', '_')}.o"))
            options = ["-include", str(self.outer)] if home == REFERENCE else []
            self.compile(name, sources / name, objects[-1], options, home, sources)
        program = folder / "tests"
        subprocess.run([self.link["compiler"], "-fopenmp", *shlex.split(self.link["flags"]),
                        "-o", str(program), *objects, *self.nearest_first(mutant.file),
                        *self.link["libraries"]], check=True)
        return program

    def nearest_first(self, file):
        """The tests' objects, in the order in which Catch2 then runs them."""
        def shared(test):
            name = os.path.normpath(test).partition("unit_tests.dir/")[2]
            return len(os.path.commonprefix([name, file]))
        return sorted(self.link["objects"], key=shared, reverse=True)


def home_of(file):
    """The folder that a mutant's file is below."""
    return EXPERIMENTS if file.startswith("bench/") else REFERENCE


def users(file):
    """The source files that a change of `file` concerns: of a header those of its own folder, which
    compute with it; where there are none, all."""
    if file.endswith(".cpp"):
        return {file}
    including = {str(path.relative_to(REFERENCE)) for path in REFERENCE.rglob("*.?pp")
                 if f'#include "{file}"' in path.read_text()}
    found = set().union(*(users(name) for name in including))
    return {name for name in found if name.split("/")[0] == file.split("/")[0]} or found


def run_tests(program):
    """How the tests end, and at which."""
    patient = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # others run at the same time
    try:
        done = subprocess.run([str(program), "--abort", "--order", "decl"], cwd=program.parent,
                              env=patient, timeout=TIMEOUT, text=True, capture_output=True)
    except subprocess.TimeoutExpired:
        return "hangs", ""
    if done.returncode < 0:
        return "fails", f"signal {-done.returncode}"
    failed = re.search(r"^-{20,}\n(.+)", done.stdout, re.MULTILINE)
    return ("passes" if done.returncode == 0 else "fails"), failed.group(1) if failed else ""


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    wanted = [mutant for mutant in MUTANTS if not sys.argv[2:] or mutant.name in sys.argv[2:]]
    intact = Mutant("(none)", "schedule/power.cpp", MUTANTS[0].old, MUTANTS[0].old)
    for mutant in wanted:
        if (places := (home_of(mutant.file) / mutant.file).read_text().count(mutant.old)) != 1:
            sys.exit(f"{mutant.name}: {places} places in {mutant.file}, not 1")
    part, parts = map(int, os.environ.get("MUTANTS_PART", "0/1").split("/"))
    wanted = wanted[part::parts]
    survivors = []

    def attempt(mutant):
        with tempfile.TemporaryDirectory() as folder:
            return mutant, *run_tests(workshop.build_tests(mutant, pathlib.Path(folder)))

    with tempfile.TemporaryDirectory() as common, ThreadPoolExecutor(os.cpu_count()) as pool:
        workshop = Workshop(build, pathlib.Path(common))
        for mutant, end, test in pool.map(attempt, [intact, *wanted]):
            expected = "passes" if mutant is intact else "fails"
            if end != expected:
                survivors.append(mutant.name)
            verdict = {"fails": "caught by", "passes": "NOT CAUGHT", "hangs": "HANGS"}[end]
            if mutant is intact:
                verdict = "passes, as it must" if end == "passes" else f"{end} BY ITSELF in"
            print(f"{mutant.name:48} {verdict} {test}", flush=True)
    print(f"{len(wanted)} mutants of {len(MUTANTS)}, {len(survivors)} not caught", flush=True)
    return 1 if survivors or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
