#include <omp.h>

#include <multistep/coverage.hpp>

#include <algorithm>
#include <random>
#include <stdexcept>
#include <vector>

#include "schedule/brute_force.hpp"
#include "schedule/property.hpp"
#include "support/catch.hpp"

using brute_force::Definition;
using brute_force::schedule_of;
using brute_force::with_factors;
using multistep::CoverageReport;
using multistep::Index;
using multistep::Level;
using multistep::multiplicity;
using multistep::preset_schedule;
using multistep::QuerySpan;
using multistep::Rational;
using multistep::Rule;
using multistep::Schedule;
using multistep::SegmentChecker;
using multistep::Span;
using multistep::StripePlan;
using multistep::verify_all;
using multistep::verify_sampled;
using multistep::verify_spans;

namespace {

constexpr Rule T = Rule::tight, P = Rule::power, E = Rule::even, A = Rule::aligned;

Schedule with_powers(Schedule schedule, Index m, Rational exponent, Rational span_exponent) {
  schedule.levels[static_cast<std::size_t>(m - 1)].exponent = exponent;
  schedule.levels[static_cast<std::size_t>(m - 1)].span_exponent = span_exponent;
  return schedule;
}

Schedule one_sided() { return with_factors(schedule_of({P}), 1, {1, 1}, {1, 1}); }
Schedule nearly_two() { return with_factors(schedule_of({P}), 1, {19, 10}, {0, 1}); }
Schedule too_sparse() {
  return with_factors(with_powers(schedule_of({P}), 1, {5, 2}, {1, 2}), 1, {3, 1}, {0, 1});
}

bool equal(const CoverageReport& a, const CoverageReport& b) {
  if (a.first_excluded.has_value() != b.first_excluded.has_value()) return false;
  const bool same_first =
      !a.first_excluded ||
      (a.first_excluded->position == b.first_excluded->position &&
       a.first_excluded->key == b.first_excluded->key &&
       a.first_excluded->gap == b.first_excluded->gap &&
       a.first_excluded->closing_backward == b.first_excluded->closing_backward);
  return same_first && a.length == b.length && a.start == b.start &&
         a.queries_checked == b.queries_checked && a.excluded_pairs == b.excluded_pairs;
}

/// Holds checker and report against the definition, for every query of [start, length). Returns how
/// many queries have holes.
Index check_against_definition(const Schedule& schedule, Index length, Index start = 0) {
  const StripePlan plan(schedule, length);
  const Definition definition(schedule, length);
  SegmentChecker checker(plan);
  Index holed = 0;
  Index excluded = 0;
  Index first_query = -1;
  Span first_gap;
  for (Index t = start; t < length; ++t) {
    const std::vector<Span> holes = definition.holes(t, start);
    if (checker.covered(t, start) != holes.empty() || checker.holes(t, start) != holes) {
      FAIL("steps " << schedule.steps << ", query " << t << ", start " << start);
    }
    if (holes.empty()) continue;
    if (holed++ == 0) {
      first_query = t;
      first_gap = holes.front();
    }
    for (const Span& hole : holes) excluded += hole.length();
  }
  const CoverageReport report = verify_all(schedule, length, start);
  CHECK(report.length == length);
  CHECK(report.start == start);
  CHECK(report.queries_checked == length - start);
  CHECK(report.excluded_pairs == excluded);
  CHECK(report.covered() == (holed == 0));
  REQUIRE(report.first_excluded.has_value() == (holed > 0));
  if (holed > 0) {
    CHECK(report.first_excluded->position == first_query);
    CHECK(report.first_excluded->key == first_gap.begin);
    CHECK(report.first_excluded->gap == first_gap);
  }
  return holed;
}

/// Does a backward factor at every power level reach every key of the gap?
bool closes(Schedule schedule, Rational backward, Index query, Index start, Span gap) {
  for (Level& level : schedule.levels) level.backward = backward;
  const std::vector<Index> held = Definition(schedule, query + 1).counts(query, start);
  return std::all_of(held.begin() + (gap.begin - start), held.begin() + (gap.end - start),
                     [](Index paths) { return paths > 0; });
}

Schedule any_schedule() {
  std::vector<Rule> rules;
  const Index levels = *rc::gen::inRange<Index>(1, 5);
  for (Index m = 1; m <= levels; ++m) rules.push_back(*rc::gen::element(T, P, P, E, A));
  Schedule schedule = schedule_of(rules, *rc::gen::inRange<Index>(0, 4));
  const auto any = [](const std::vector<Rational>& values) { return *rc::gen::elementOf(values); };
  for (Index m = 1; m <= levels; ++m) {
    const auto [rule, e, b, f, q] = schedule.level(m);
    schedule = with_factors(schedule, m, any({{0, 1}, {1, 2}, {1, 1}, {3, 2}, {2, 1}}),
                            any({{0, 1}, {1, 3}, {1, 1}, {2, 1}}));
    schedule = with_powers(schedule, m, any({e, {1, 1}, {3, 2}, {2, 1}, {20, 11}}),
                           any({q, {0, 1}, {1, 2}, {1, 3}}));
  }
  return schedule;
}

}  // namespace

TEST_CASE("Backward and forward factor 1 leave 922 of the first 2000 queries holed", "[coverage]") {
  CHECK(check_against_definition(one_sided(), 2000) == 922);
  const CoverageReport report = verify_all(one_sided(), 2000);
  REQUIRE(report.first_excluded);
  CHECK(report.first_excluded->position == 7);
  CHECK(report.first_excluded->key == 0);
  SegmentChecker checker(StripePlan(one_sided(), 2000));
  std::vector<Index> holed;
  for (Index t = 0; t < 22; ++t) {
    if (!checker.covered(t, 0)) holed.push_back(t);
  }
  CHECK(holed == std::vector<Index>{7, 13, 14, 21});
}

TEST_CASE("Factor 19/10 first leaves a key out at query 898", "[coverage]") {
  CHECK(verify_all(nearly_two(), 898).covered());
  const CoverageReport report = verify_all(nearly_two(), 899);
  REQUIRE(report.first_excluded);
  CHECK(report.first_excluded->position == 898);
  CHECK(check_against_definition(nearly_two(), 2000) > 0);
}

TEST_CASE("Anchors and spans too sparse together first leave a key out at 83", "[coverage]") {
  CHECK(verify_all(too_sparse(), 83).covered());
  const CoverageReport report = verify_all(too_sparse(), 2000);
  REQUIRE(report.first_excluded);
  CHECK(report.first_excluded->position == 83);
  CHECK(check_against_definition(too_sparse(), 2000) > 0);
}

TEST_CASE("The presets reach every key", "[coverage]") {
  for (Index steps = 1; steps <= 6; ++steps) {
    for (const char* name : {"nstep", "even", "aligned"}) {
      CHECK(check_against_definition(preset_schedule(name, steps), 1500) == 0);
    }
  }
  CHECK(check_against_definition(preset_schedule("paper"), 2000) == 0);
  CHECK(check_against_definition(preset_schedule("released"), 3000) == 0);
  CHECK(check_against_definition(preset_schedule("released"), 2600, 100) == 0);
  CHECK(verify_all(preset_schedule("released"), 200'000).covered());
  CHECK(verify_all(preset_schedule("nstep", 3), 200'000).covered());
  CHECK(verify_all(preset_schedule("aligned", 3), 1'000'000).covered());
  CHECK(verify_all(preset_schedule("aligned", 4), 1'000'000, 123'457).covered());
  CHECK(verify_sampled(preset_schedule("aligned", 3), 1'000'000'000'000, 0, 5000, 1).covered());
}

TEST_CASE("More places of segments than are remembered are no reason to refuse", "[coverage]") {
  const Index length = 1'210'000'000'000;  // 1'100'000 stripes, which all stand for other spans
  const Schedule schedule = with_powers(schedule_of({T, A, E}), 1, {2, 1}, {1, 2});
  CHECK(SegmentChecker(StripePlan(schedule, length)).covered(length - 1, 0));
}

TEST_CASE("Tight levels and levels of parts mix, with any window and start", "[coverage]") {
  for (const auto& rules : std::vector<std::vector<Rule>>{{T},
                                                          {E},
                                                          {A},
                                                          {T, T},
                                                          {E, T},
                                                          {A, A},
                                                          {T, A},
                                                          {A, T},
                                                          {E, A},
                                                          {T, E, T},
                                                          {A, T, A},
                                                          {E, T, T, E},
                                                          {A, E, A, A},
                                                          {T, T, T, T, T}}) {
    for (const Index window_index : {0, 1, 4}) {
      for (const Index start : {0, 1, 150}) {
        CHECK(check_against_definition(schedule_of(rules, window_index), 400, start) == 0);
      }
    }
  }
}

TEST_CASE("Every query below 2000, presets and mixed rules of 2 to 6 steps", "[.exhaustive]") {
  for (Index steps = 2; steps <= 6; ++steps) {
    for (const char* name : {"nstep", "even", "aligned"}) {
      CHECK(check_against_definition(preset_schedule(name, steps), 2000) == 0);
    }
  }
  const Rational none{0, 1}, one{1, 1};
  Index holed = 0;
  for (const auto& rules : std::vector<std::vector<Rule>>{
           {T},       {E},          {T, T},       {E, T},          {P, E},
           {T, P},    {E, P},       {P, P},       {T, E, T},       {T, P, E},
           {E, T, P}, {E, T, T, E}, {A},          {A, P},          {P, A},
           {T, A, P}, {A, P, A},    {T, E, P, T}, {T, T, T, T, T}, {E, T, P, E, T}}) {
    for (const Index window_index : {0, 1, 4}) {
      for (const Index start : {0, 7, 150}) {
        const Schedule schedule = schedule_of(rules, window_index);
        CHECK(check_against_definition(schedule, 2000, start) == 0);
        for (Index m = 1; m <= std::ssize(rules); ++m) {
          holed += check_against_definition(with_factors(schedule, m, one, none), 2000, start);
        }
      }
    }
  }
  CHECK(holed > 0);  // factor 1 fails at most power levels, and changes nothing at the others
}

TEST_CASE("The default factor M is enough at every level", "[coverage]") {
  for (const Index window_index : {0, 2}) {
    CHECK(check_against_definition(schedule_of({P}, window_index), 2000) == 0);
    CHECK(check_against_definition(schedule_of({P, P}, window_index), 400) == 0);
    CHECK(check_against_definition(schedule_of({P, P, P}, window_index), 120) == 0);
    CHECK(check_against_definition(schedule_of({E, P}, window_index), 400, 7) == 0);
    CHECK(check_against_definition(schedule_of({A, P}, window_index), 400, 7) == 0);
    CHECK(check_against_definition(schedule_of({P, A}, window_index), 400, 1) == 0);
    CHECK(check_against_definition(schedule_of({T, P, E}, window_index), 400, 1) == 0);
  }
}

TEST_CASE("Power levels that fail below the first are found out", "[coverage]") {
  const Rational none{0, 1}, half{1, 2}, one{1, 1}, two{2, 1};
  const Schedule two_powers = schedule_of({P, P});
  const std::vector<Schedule> failing = {
      with_factors(schedule_of({T, P}), 2, one, none),
      with_factors(schedule_of({T, P}), 2, one, one),
      with_factors(schedule_of({T, P}), 2, none, two),
      with_factors(schedule_of({T, P}, 3), 2, {3, 2}, none),
      with_factors(schedule_of({E, P}), 2, one, one),
      with_factors(schedule_of({E, P}, 5), 2, half, none),
      with_factors(two_powers, 2, one, none),
      with_factors(two_powers, 2, half, half),
      with_factors(two_powers, 1, two, one),
      with_factors(with_factors(two_powers, 1, {3, 2}, one), 2, one, half),
      with_factors(schedule_of({P, T}), 1, {3, 2}, none),
      with_factors(schedule_of({P, E}, 2), 1, two, two),
      with_factors(schedule_of({T, E, P}), 3, one, none),
      with_factors(schedule_of({A, P}), 2, one, one),
      with_factors(schedule_of({A, P}, 5), 2, half, none),
      with_factors(schedule_of({P, A}), 1, {3, 2}, none),
      with_factors(schedule_of({T, A, P}), 3, half, none),
      with_factors(schedule_of({E, A, P}), 3, half, none),
      with_factors(schedule_of({A, A, P}), 3, half, none),
      with_factors(with_factors(schedule_of({P, A, P}), 1, two, two), 3, half, none),
      with_factors(schedule_of({T, P, T}), 2, {3, 2}, one),
      with_factors(schedule_of({E, P, E}), 2, two, none),
      with_powers(schedule_of({P, E}), 1, {7, 2}, {2, 3}),
      with_powers(schedule_of({T, P}), 2, {3, 1}, {1, 2}),
      with_powers(schedule_of({T, P}), 2, {2, 1}, {0, 1}),
  };
  for (const Schedule& schedule : failing) {
    for (const Index start : {0, 33}) {
      CHECK(check_against_definition(schedule, 350, start) > 0);
    }
  }
  // With factor 63/50 no whole part has a hole, but one of 15 keys that a border has clipped.
  const Rational much{63, 50};
  CHECK(check_against_definition(with_factors(schedule_of({T, A, P}), 3, much, none), 400) > 0);
  const Schedule sparse =
      with_powers(with_factors(schedule_of({P, A, P}), 1, two, none), 1, {2, 1}, {1, 2});
  CHECK(check_against_definition(with_factors(sparse, 3, much, none), 1700) > 0);
  // So close to the default that few lengths tell.
  CHECK(check_against_definition(with_factors(schedule_of({T, P}), 2, {19, 10}, none), 6500) == 2);
  CHECK(check_against_definition(with_factors(schedule_of({T, P}), 2, {17, 10}, none), 2000) > 0);
  CHECK(check_against_definition(with_factors(schedule_of({E, P}), 2, {3, 2}, none), 2000) > 0);
}

TEST_CASE("Any schedule's holes and path counts are those of the definition", "[coverage]") {
  check_property("brute force agrees", [] {
    const Schedule schedule = any_schedule();
    const Index length = *rc::gen::inRange<Index>(1, schedule.steps > 3 ? 100 : 300);
    const Index start = *rc::gen::inRange<Index>(0, length);
    const StripePlan plan(schedule, length);
    const Definition definition(schedule, length);
    SegmentChecker checker(plan);
    Index excluded = 0;
    for (Index t = start; t < length; ++t) {
      const std::vector<Span> holes = definition.holes(t, start);
      RC_ASSERT(checker.covered(t, start) == holes.empty());
      RC_ASSERT(checker.holes(t, start) == holes);
      for (const Span& hole : holes) excluded += hole.length();
    }
    RC_ASSERT(multiplicity(plan, length - 1, start) == definition.counts(length - 1, start));
    const CoverageReport report = verify_all(schedule, length, start);
    RC_ASSERT(report.excluded_pairs == excluded);
    if (const auto& first = report.first_excluded) {
      RC_ASSERT(closes(schedule, *first->closing_backward, first->position, start, first->gap));
    }
  });
}

TEST_CASE("A checker answers the same in any order of queries", "[coverage]") {
  for (const Schedule& schedule :
       {one_sided(), with_factors(schedule_of({T, P}, 1), 2, {1, 1}, {0, 1}),
        with_factors(schedule_of({P, P}), 2, {3, 2}, {1, 2}),
        with_factors(schedule_of({A, P}), 2, {1, 1}, {0, 1}),
        with_factors(schedule_of({T, A, P}), 3, {1, 2}, {0, 1})}) {
    const StripePlan plan(schedule, 400);
    SegmentChecker rising(plan);
    SegmentChecker falling(plan);
    std::vector<bool> forwards, backwards;
    for (Index t = 0; t < 400; ++t) forwards.push_back(rising.covered(t, 0));
    for (Index t = 399; t >= 0; --t) backwards.push_back(falling.covered(t, 0));
    std::reverse(backwards.begin(), backwards.end());
    CHECK(forwards == backwards);
  }
}

TEST_CASE("What other queries left in a checker refuses none", "[coverage]") {
  const Index length = Index{1} << 48;
  SegmentChecker checker(StripePlan(preset_schedule("nstep", 3), length));
  Index holed = 0;
  for (Index back = 1; back <= 1'000'000; ++back) {  // an oldest span of another length each
    if (!checker.covered(length - back, 0)) ++holed;
  }
  CHECK(holed == 0);
  CHECK(checker.holes(length / 3, 0).empty());
}

TEST_CASE("Multiplicity counts the final spans that hold a key", "[coverage]") {
  // Spans [10,20) [7,17) [2,12) [0,5).
  CHECK(multiplicity(StripePlan(preset_schedule("paper"), 20), 19) ==
        std::vector<Index>{1, 1, 2, 2, 2, 1, 1, 2, 2, 2, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1});
  CHECK(multiplicity(StripePlan(preset_schedule("nstep", 1), 9), 4, 2) ==
        std::vector<Index>{1, 1, 1});
  for (const Schedule& schedule :
       {preset_schedule("nstep", 3), schedule_of({T}, 3), schedule_of({E}, 6),
        schedule_of({A, A}, 6), preset_schedule("paper"), one_sided(), schedule_of({P, P}, 2),
        with_factors(schedule_of({P, P, P}), 2, {3, 2}, {1, 1})}) {
    const StripePlan plan(schedule, 400);
    const Definition definition(schedule, 400);
    for (const Index t : {0, 1, 2, 7, 8, 63, 64, 99, 180}) {
      for (Index start = 0; start <= t; start += 31) {
        CHECK(multiplicity(plan, t, start) == definition.counts(t, start));
      }
    }
  }
  const StripePlan plan(preset_schedule("paper"), 100);
  CHECK_THROWS_WITH(multiplicity(plan, 100), "query 100: an integer in [start 0, 100)");
  CHECK_THROWS_WITH(multiplicity(plan, 5, 6), "query 5: an integer in [start 6, 100)");
}

TEST_CASE("The closing factor closes the gap and 1/10000 less does not", "[coverage]") {
  const Rational none{0, 1}, half{1, 2}, one{1, 1};
  const std::vector<Schedule> failing = {
      one_sided(),
      nearly_two(),
      too_sparse(),
      with_factors(schedule_of({P}, 3), 1, one, none),
      with_factors(schedule_of({P}), 1, none, none),
      with_powers(schedule_of({P}), 1, {2, 1}, {0, 1}),
      with_factors(schedule_of({T, P}), 2, one, one),
      with_factors(schedule_of({E, P}), 2, half, none),
      with_factors(schedule_of({A, P}), 2, half, none),
      with_factors(schedule_of({P, E}), 1, one, none),
      with_factors(schedule_of({P, T}, 2), 1, {2, 1}, one),
      with_factors(schedule_of({P, P}), 2, one, none),
      with_factors(with_factors(schedule_of({P, P}), 1, {3, 2}, one), 2, half, half),
      with_factors(with_factors(schedule_of({P, P, T}, 1), 1, one, none), 2, one, one),
  };
  for (const Schedule& schedule : failing) {
    for (const Index start : {0, 40}) {
      const CoverageReport report = verify_all(schedule, 2000, start);
      REQUIRE(report.first_excluded);
      const auto& [position, key, gap, factor] = *report.first_excluded;
      REQUIRE(factor);
      CHECK(10'000 % factor->denominator == 0);
      const Index parts = factor->numerator * (10'000 / factor->denominator);
      CHECK(closes(schedule, {parts, 10'000}, position, start, gap));
      CHECK_FALSE(closes(schedule, {parts - 1, 10'000}, position, start, gap));
    }
  }
}

TEST_CASE("No factor below the closing one closes the gap", "[coverage]") {
  const Rational one{1, 1};
  for (const Schedule& schedule : {one_sided(), with_factors(schedule_of({P, P}), 2, {1, 2}, one),
                                   with_factors(schedule_of({P, T, P}), 3, {1, 2}, one),
                                   with_factors(schedule_of({P, E}), 1, one, one),
                                   with_factors(schedule_of({P, A}), 1, one, one),
                                   with_factors(schedule_of({T, P}), 2, one, one)}) {
    const CoverageReport report = verify_all(schedule, 200);
    REQUIRE(report.first_excluded);
    const auto& [position, key, gap, factor] = *report.first_excluded;
    REQUIRE(factor);
    Index parts = 0;
    while (!closes(schedule, {parts, 10'000}, position, 0, gap)) ++parts;
    CHECK(to_string(*factor) == to_string(multistep::make_rational(parts, 10'000)));
  }
}

TEST_CASE("With an even level between power levels more reach can exclude again", "[coverage]") {
  // More reach at level 1 makes other even parts, and other anchors at level 3.
  const Rational none{0, 1}, one{1, 1};
  Schedule schedule = with_factors(schedule_of({P, E, P}), 1, one, none);
  schedule = with_powers(with_factors(schedule, 3, one, none), 3, {2, 1}, none);
  const CoverageReport report = verify_all(schedule, 100);
  REQUIRE(report.first_excluded);
  const auto& [position, key, gap, factor] = *report.first_excluded;
  CHECK(position == 4);
  CHECK(gap == Span{2, 3});
  REQUIRE(factor);
  CHECK(to_string(*factor) == "10001/10000");
  CHECK_FALSE(closes(schedule, {2990, 10'000}, position, 0, gap));
  CHECK(closes(schedule, {2991, 10'000}, position, 0, gap));
  CHECK_FALSE(closes(schedule, {10'000, 10'000}, position, 0, gap));
  CHECK(closes(schedule, {10'001, 10'000}, position, 0, gap));
}

TEST_CASE("A sample checks as many queries as it is asked for", "[coverage]") {
  for (const Index count : {1, 2, 7, 100, 999, 1000, 1001, 1999, 2000, 5000}) {
    const CoverageReport report = verify_sampled(one_sided(), 2000, 0, count, 11);
    CHECK(report.queries_checked == std::min<Index>(count, 2000));
    CHECK(report.length == 2000);
    CHECK(report.start == 0);
  }
  for (const Schedule& schedule :
       {one_sided(), preset_schedule("nstep", 3), preset_schedule("even", 4)}) {
    for (const Index start : {0, 3, 900}) {
      const CoverageReport all = verify_all(schedule, 1000, start);
      CHECK(equal(verify_sampled(schedule, 1000, start, 1000 - start, 1), all));
      CHECK(equal(verify_sampled(schedule, 1000, start, 1'000'000'000'000, 2), all));
    }
  }
  CHECK_THROWS_WITH(verify_sampled(one_sided(), 2000, 0, 0, 1),
                    "queries 0: all, or an integer >= 1");
  CHECK_THROWS_WITH(verify_sampled(one_sided(), Index{1} << 30, 0, (1 << 24) + 1, 1),
                    "queries 16777217: a sample has at most 16777216");
}

TEST_CASE("A sample is seeded, has the last query and looks near the stripes", "[coverage]") {
  const auto sample = [](std::uint64_t seed) {
    return verify_sampled(one_sided(), 100'000, 0, 300, seed);
  };
  CHECK(equal(sample(5), sample(5)));
  CHECK(sample(5).excluded_pairs != sample(6).excluded_pairs);

  // One query is the last one.
  const Index holed = 2114;  // 46^2 - 2
  const Definition definition(one_sided(), holed + 1);
  const CoverageReport last = verify_sampled(one_sided(), holed + 1, 0, 1, 1);
  REQUIRE(last.first_excluded);
  CHECK(last.first_excluded->position == holed);
  CHECK(last.first_excluded->gap == definition.holes(holed, 0).front());
  const CoverageReport shifted = verify_sampled(one_sided(), holed + 1 + 50, 50, 1, 1);
  REQUIRE(shifted.first_excluded);
  CHECK(shifted.first_excluded->position == holed + 50);
  CHECK(shifted.first_excluded->key == last.first_excluded->key + 50);

  // With b R in (2R - 3, 2R - 3 + 1/R) one query below R (R + 1) has a hole, that of R^2 - 1 keys:
  // it needs B = 2R - 2 and has 2R - 3. Chance would not find it.
  const Index R = 1000;
  const Schedule almost =
      with_factors(schedule_of({P}), 1, {4 * R * R - 6 * R + 1, 2 * R * R}, {0, 1});
  const CoverageReport one = verify_sampled(almost, R * (R + 1), 0, 60, 3);
  CHECK(one.excluded_pairs == 1);
  REQUIRE(one.first_excluded);
  CHECK(one.first_excluded->position == R * R - 2);
  CHECK(one.first_excluded->gap == Span{0, 1});
  CHECK(verify_all(almost, R * (R + 1)).excluded_pairs == 1);
}

TEST_CASE("Samples of great lengths agree with what is proved", "[coverage]") {
  const Index length = 1'000'000'000'000;
  for (const char* name : {"nstep", "even", "paper"}) {
    CHECK(verify_sampled(preset_schedule(name), length, 0, 60, 1).covered());
  }
  for (const Index steps : {3, 4}) {
    const CoverageReport report =
        verify_sampled(preset_schedule("nstep", steps), length, 12'345, 200, 1);
    CHECK(report.covered());
    CHECK(report.queries_checked == 200);
    CHECK(verify_sampled(schedule_of(std::vector<Rule>(static_cast<std::size_t>(steps - 1), P)),
                         length, 0, 100, 1)
              .covered());
  }
  CHECK(verify_sampled(preset_schedule("released"), 100'000'000, 0, 300, 1).covered());
  const CoverageReport holed = verify_sampled(one_sided(), length, 0, 60, 1);
  CHECK_FALSE(holed.covered());
  REQUIRE(holed.first_excluded);
  CHECK(holed.first_excluded->gap.begin == holed.first_excluded->key);
}

TEST_CASE("The number of threads does not change a report", "[coverage]") {
  const int before = omp_get_max_threads();
  const auto with_threads = [](int threads, const auto& verify) {
    omp_set_num_threads(threads);
    return verify();
  };
  const auto all = [] { return verify_all(one_sided(), 20'000); };
  const auto inner = [] {
    return verify_all(with_factors(schedule_of({T, P}, 2), 2, {3, 2}, {0, 1}), 20'000, 9);
  };
  const auto sampled = [] { return verify_sampled(nearly_two(), 1'000'000, 0, 9000, 4); };
  CHECK(equal(with_threads(1, all), with_threads(4, all)));
  CHECK(equal(with_threads(1, inner), with_threads(4, inner)));
  CHECK(equal(with_threads(1, sampled), with_threads(4, sampled)));
  omp_set_num_threads(before);
}

TEST_CASE("Length and start out of range are refused", "[coverage]") {
  CHECK_THROWS_WITH(verify_all(preset_schedule("nstep"), 0), "length 0: an integer in [1, 2^48]");
  CHECK_THROWS_WITH(verify_all(preset_schedule("nstep"), multistep::kMaxLength + 1),
                    "length 281474976710657: an integer in [1, 2^48]");
  CHECK_THROWS_WITH(verify_all(preset_schedule("nstep"), 10, 10),
                    "start 10: an integer in [0, length 10)");
  CHECK_THROWS_WITH(verify_all(preset_schedule("nstep"), 10, -1),
                    "start -1: an integer in [0, length 10)");
  CHECK_THROWS_WITH(verify_spans({}, 0), "length 0: an integer in [1, 2^48]");
  CHECK_THROWS_WITH(verify_spans({}, 5, 5), "start 5: an integer in [0, length 5)");
  Schedule bad = preset_schedule("nstep");
  bad.top_k = 0;
  CHECK_THROWS_AS(verify_all(bad, 10), std::invalid_argument);
}

TEST_CASE("A list of spans is checked for the queries that it has", "[coverage]") {
  // Query 9: out of order, overlapping and nested. Query 4: in two parts.
  const std::vector<QuerySpan> whole = {
      {9, {6, 10}}, {4, {2, 5}}, {9, {0, 7}}, {4, {0, 2}}, {9, {1, 3}}};
  const CoverageReport covered = verify_spans(whole, 10);
  CHECK(covered.covered());
  CHECK(covered.queries_checked == 2);
  CHECK(covered.length == 10);
  CHECK_FALSE(covered.first_excluded);
  CHECK(verify_spans({}, 10).queries_checked == 0);

  const CoverageReport inside = verify_spans({{9, {7, 10}}, {9, {0, 4}}, {9, {1, 3}}}, 10);
  CHECK(inside.excluded_pairs == 3);
  REQUIRE(inside.first_excluded);
  CHECK(inside.first_excluded->position == 9);
  CHECK(inside.first_excluded->key == 4);
  CHECK(inside.first_excluded->gap == Span{4, 7});
  CHECK_FALSE(inside.first_excluded->closing_backward);

  const CoverageReport newest = verify_spans({{9, {0, 10}}, {5, {0, 4}}}, 10);
  CHECK(newest.excluded_pairs == 2);
  REQUIRE(newest.first_excluded);
  CHECK(newest.first_excluded->position == 5);
  CHECK(newest.first_excluded->gap == Span{4, 6});

  const CoverageReport oldest = verify_spans({{8, {5, 9}}, {6, {5, 7}}}, 10, 3);
  CHECK(oldest.start == 3);
  CHECK(oldest.excluded_pairs == 4);
  REQUIRE(oldest.first_excluded);
  CHECK(oldest.first_excluded->position == 6);
  CHECK(oldest.first_excluded->gap == Span{3, 5});
}

TEST_CASE("More pairs than 64 bits count are counted, and a hole is a hole", "[coverage]") {
  // 2^17 queries, each without 2^47 keys: 2^64 pairs, which wrap to none.
  const Index half = Index{1} << 47;
  std::vector<QuerySpan> newest;
  for (Index i = 0; i < (1 << 17); ++i) newest.push_back({half + i, {half, half + i + 1}});
  const CoverageReport report = verify_spans(newest, 2 * half);
  CHECK_FALSE(report.covered());
  CHECK(to_string(report.excluded_pairs) == "18446744073709551616");
  CHECK(report.excluded_queries == 1 << 17);
  REQUIRE(report.first_excluded);
  CHECK(report.first_excluded->gap == Span{0, half});

  newest.resize(1 << 16);
  CHECK(to_string(verify_spans(newest, 2 * half).excluded_pairs) == "9223372036854775808");
  --newest.front().span.begin;
  CHECK(verify_spans(newest, 2 * half).excluded_pairs == INT64_MAX);

  // A query that reaches itself alone.
  const Schedule alone =
      with_factors(with_powers(schedule_of({P}), 1, {64, 1}, {1, 2}), 1, {0, 1}, {0, 1});
  const CoverageReport sampled = verify_sampled(alone, 2 * half, 0, 100'000, 1);
  CHECK(sampled.excluded_queries >= 99'999);
  CHECK(to_string(sampled.excluded_pairs) == "14058552688311026805");
}

TEST_CASE("A span list and the schedule that made it agree", "[coverage]") {
  const Definition definition(one_sided(), 600);
  std::vector<QuerySpan> spans;
  for (Index t = 599; t >= 0; --t) {
    definition.for_each_path(t, 0, [&](const brute_force::Path& path) {
      spans.push_back({t, path.span});
    });
  }
  std::shuffle(spans.begin(), spans.end(), std::mt19937(7));
  CoverageReport expected = verify_all(one_sided(), 600);
  expected.first_excluded->closing_backward.reset();
  CHECK(equal(verify_spans(spans, 600), expected));
}

TEST_CASE("A span that no query can attend is refused", "[coverage]") {
  const auto refused = [](QuerySpan bad, const std::string& error) {
    CHECK_THROWS_AS(verify_spans({bad}, 10, 2), std::invalid_argument);
    CHECK_THROWS_WITH(verify_spans({{5, {2, 6}}, bad, {6, {2, 7}}}, 10, 2), error);
  };
  const std::string rule = ": start 2 <= begin < end <= query + 1";
  refused({5, {4, 4}}, "span [4, 4) of query 5" + rule);  // empty
  refused({5, {4, 3}}, "span [4, 3) of query 5" + rule);
  refused({5, {2, 7}}, "span [2, 7) of query 5" + rule);  // not causal
  refused({5, {1, 6}}, "span [1, 6) of query 5" + rule);  // older than start
  refused({1, {2, 3}}, "query 1: an integer in [start 2, length 10)");
  refused({10, {2, 3}}, "query 10: an integer in [start 2, length 10)");
  refused({-1, {2, 3}}, "query -1: an integer in [start 2, length 10)");
}
