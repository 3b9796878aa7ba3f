#include <multistep/schedule.hpp>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "schedule/brute_force.hpp"
#include "schedule/property.hpp"
#include "support/catch.hpp"

using brute_force::Choice;
using brute_force::Definition;
using brute_force::schedule_of;
using brute_force::with_factors;
using multistep::Cut;
using multistep::default_level;
using multistep::greedy_path;
using multistep::Index;
using multistep::kMaxLength;
using multistep::preset_schedule;
using multistep::Rational;
using multistep::Rule;
using multistep::Schedule;
using multistep::Segment;
using multistep::Span;
using multistep::StripePlan;

namespace {

constexpr Rule T = Rule::tight, P = Rule::power, E = Rule::even, A = Rule::aligned;

/// What the plan offers in a segment at level m.
std::vector<Choice> choices(const StripePlan& plan, Index m, const Segment& segment) {
  const Cut cut = plan.cut(m, segment);
  std::vector<Choice> result;
  for (Index i = cut.first(); i <= cut.last(); ++i) {
    const Segment below = cut.below(i);
    result.push_back({segment.end - 1 - cut.anchor(i), below, below.nominal});
  }
  return result;
}

std::vector<Choice> first_choices(const StripePlan& plan, Index query, Index start = 0) {
  return choices(plan, 1, plan.searched(query, start));
}

Schedule exponent_schedule(Rule rule, Rational exponent, Index window_index) {
  Schedule schedule = schedule_of({rule}, window_index);
  schedule.levels[0].exponent = exponent;
  return schedule;
}

std::vector<Schedule> mixed_schedules() {
  Schedule three_stripes = schedule_of({T, T});
  three_stripes.levels[0].exponent = {5, 2};
  three_stripes.levels[1].exponent = {3, 2};
  return {preset_schedule("nstep"),
          preset_schedule("nstep", 3),
          preset_schedule("nstep", 4),
          preset_schedule("nstep", 6),
          preset_schedule("even"),
          preset_schedule("even", 3),
          preset_schedule("even", 5),
          preset_schedule("paper"),
          preset_schedule("released"),
          schedule_of({T}, 3),
          schedule_of({E}, 5),
          schedule_of({E, T}, 7),
          schedule_of({P, P, P}, 2),
          schedule_of({T, P, E, T}, 1),
          schedule_of({E, P, T}),
          preset_schedule("aligned"),
          preset_schedule("aligned", 3),
          preset_schedule("aligned", 4),
          schedule_of({A}, 3),
          schedule_of({A, A}, 7),
          schedule_of({T, A, A}, 2),
          schedule_of({A, E, A, T}),
          schedule_of({P, A}, 1),
          three_stripes,
          exponent_schedule(T, {20, 11}, 4),
          exponent_schedule(P, {5, 2}, 2),
          with_factors(schedule_of({P, P}, 4), 1, {3, 2}, {2, 1}),
          with_factors(schedule_of({P, P}), 2, {1, 3}, {5, 4}),
          with_factors(schedule_of({P}, 1), 1, {0, 1}, {0, 1})};
}

/// Adds the final spans under a segment, newest first.
void add_final_spans(const StripePlan& plan, Index m, const Segment& segment,
                     std::vector<Span>& spans) {
  if (m == plan.steps()) return spans.push_back(segment);
  const Cut cut = plan.cut(m, segment);
  for (Index i = cut.first(); i <= cut.last(); ++i) {
    add_final_spans(plan, m + 1, cut.below(i), spans);
  }
}

/// The stripes on the tight schedule's path to a key, the last being its place in the final span.
std::vector<Index> tight_path(const StripePlan& plan, Index query, Index key) {
  std::vector<Index> path;
  Segment segment = plan.searched(query, 0);
  for (Index m = 1; m < plan.steps(); ++m) {
    const Cut cut = plan.cut(m, segment);
    Index i = cut.first();
    while (!cut.span(i).in(segment).contains(key)) ++i;
    path.push_back(i);
    segment = cut.below(i);
  }
  path.push_back(segment.end - key);
  return path;
}

Schedule any_schedule(const std::vector<Rule>& rules) {
  std::vector<Rule> chosen;
  const Index levels = *rc::gen::inRange<Index>(1, 6);
  for (Index m = 1; m <= levels; ++m) chosen.push_back(*rc::gen::elementOf(rules));
  return schedule_of(chosen, *rc::gen::inRange<Index>(0, 5));
}

}  // namespace

TEST_CASE("Two steps cut the query at 19 as the specification shows", "[schedule]") {
  const StripePlan tight(preset_schedule("nstep"), 100);
  CHECK(first_choices(tight, 19) ==
        std::vector<Choice>{{19, {17, 20}}, {16, {12, 17}}, {11, {5, 12}}, {4, {0, 5}}});
  const StripePlan power(preset_schedule("paper"), 100);
  CHECK(first_choices(power, 19) ==
        std::vector<Choice>{{19, {10, 20}}, {16, {7, 17}}, {11, {2, 12}}, {4, {0, 5}}});
}

TEST_CASE("Three steps cut the query at 29 as the specification shows", "[schedule]") {
  const StripePlan tight(schedule_of({T, T}), 100);
  CHECK(first_choices(tight, 29) ==
        std::vector<Choice>{{29, {23, 30}}, {22, {4, 23}}, {3, {0, 4}}});
  CHECK(choices(tight, 2, Segment({4, 23})) ==
        std::vector<Choice>{{22, {20, 23}}, {19, {15, 20}}, {14, {8, 15}}, {7, {4, 8}}});
  const StripePlan even(preset_schedule("nstep", 3), 100);
  CHECK(choices(even, 2, Segment({4, 23})) ==
        std::vector<Choice>{
            {22, {19, 23}}, {18, {15, 19}}, {14, {11, 15}}, {10, {7, 11}}, {6, {4, 7}}});
}

TEST_CASE("Aligned parts are cut at fixed keys as the specification shows", "[schedule]") {
  const StripePlan three(preset_schedule("aligned", 3), 100);
  CHECK(first_choices(three, 29) ==
        std::vector<Choice>{{29, {24, 30}}, {23, {16, 24}}, {15, {8, 16}}, {7, {0, 8}}});
  CHECK(first_choices(three, 19) ==
        std::vector<Choice>{{19, {16, 20}}, {15, {8, 16}}, {7, {0, 8}}});
  for (const Index query : {19, 29}) {
    const Segment searched = three.searched(query, 0);
    const Cut cut = three.cut(1, searched);
    for (Index i = cut.first(); i <= cut.last(); ++i) {
      std::vector<Choice> halves;
      const Span span = cut.span(i).in(searched);
      for (Index key = span.end; key > span.begin; key -= 2) {
        halves.push_back({key - 1, {key - 2, key}});
      }
      CHECK(choices(three, 2, cut.below(i)) == halves);
    }
  }
  const StripePlan two(schedule_of({A}, 3), 100);
  CHECK(first_choices(two, 29, 5) == std::vector<Choice>{{26, {24, 27}},
                                                         {23, {20, 24}},
                                                         {19, {16, 20}},
                                                         {15, {12, 16}},
                                                         {11, {8, 12}},
                                                         {7, {5, 8}}});
  CHECK(two.window(29, 5) == Span{27, 30});
}

TEST_CASE("A clipped part is cut like the whole one", "[schedule]") {
  // Parts of 8 keys at level 1. Of the newest there are 5, of the oldest 3.
  const StripePlan plan(schedule_of({A, A}), 100);
  CHECK(choices(plan, 2, Segment({24, 29}, 8)) ==
        std::vector<Choice>{{28, {28, 29}}, {27, {26, 28}}, {25, {24, 26}}});
  CHECK(choices(plan, 2, Segment({5, 8}, 8)) == std::vector<Choice>{{7, {6, 8}}, {5, {5, 6}}});
  // Below another rule a segment has its own length: 64 keys have parts of 8, 20 of 4.
  CHECK(choices(plan, 2, Segment({24, 44}, 64)).size() == 3);
  CHECK(choices(plan, 2, Segment({24, 44})).size() == 5);
}

TEST_CASE("The lengths of aligned parts are exact powers of two", "[schedule]") {
  const auto parts = [](Index n, Index steps) {  // by level
    std::vector<Index> result;
    for (Index left = steps; left > 1; --left) {
      result.push_back(n = multistep::aligned_part(n, left));
    }
    return result;
  };
  using Parts = std::vector<Index>;
  const Index mebi = Index{1} << 20;
  CHECK(parts(mebi, 2) == Parts{1024});
  CHECK(parts(mebi, 3) == Parts{8192, 64});
  CHECK(parts(mebi, 4) == Parts{32768, 1024, 32});
  CHECK(parts(10'000'000, 2) == Parts{4096});
  CHECK(parts(10'000'000, 3) == Parts{65536, 256});
  CHECK(parts(10'000'000, 4) == Parts{131072, 2048, 32});

  for (Index left = 2; left <= 64; ++left) {
    for (Index n = 1; n <= 300; ++n) {
      REQUIRE(multistep::aligned_part(n, left) == brute_force::aligned_part(n, left));
    }
    // The last length before the parts double, and the first with the longer ones. At M = 2 it is
    // 2^(2c + 1), a power itself.
    for (Index n = 300; n < kMaxLength / 2; n *= 2) {
      const Index part = multistep::aligned_part(n, left);
      Index below = n;
      Index above = 2 * n;
      while (multistep::aligned_part(above, left) == part) above += n;
      while (above - below > 1) {
        const Index middle = below + (above - below) / 2;
        (multistep::aligned_part(middle, left) == part ? below : above) = middle;
      }
      REQUIRE(brute_force::aligned_part(below, left) == part);
      REQUIRE(brute_force::aligned_part(above, left) == 2 * part);
    }
    for (const Index n : {kMaxLength - 1, kMaxLength}) {
      REQUIRE(multistep::aligned_part(n, left) == brute_force::aligned_part(n, left));
    }
  }
  CHECK(multistep::aligned_part(8, 2) == 2);
  CHECK(multistep::aligned_part(9, 2) == 4);
  CHECK_THROWS_WITH(multistep::aligned_part(0, 2), "length 0: an integer in [1, 2^48]");
  CHECK_THROWS_WITH(multistep::aligned_part(kMaxLength + 1, 2),
                    "length 281474976710657: an integer in [1, 2^48]");
  CHECK_THROWS_WITH(multistep::aligned_part(5, 1), "steps left 1: a search level has 2 to 64");
}

TEST_CASE("Aligned parts stay where they are while queries move on", "[schedule]") {
  check_property("two queries with parts of one length share all but the newest", [] {
    const StripePlan plan(preset_schedule("aligned", *rc::gen::inRange<Index>(2, 6)), 6000);
    const Index query = *rc::gen::inRange<Index>(0, 5000);
    const Index later = query + *rc::gen::inRange<Index>(0, 1000);
    std::vector<Choice> before = first_choices(plan, query);
    std::vector<Choice> after = first_choices(plan, later);
    if (plan.cut(1, plan.searched(query, 0)).below(1).nominal !=
        plan.cut(1, plan.searched(later, 0)).below(1).nominal) {
      return;
    }
    RC_ASSERT(before.size() <= after.size());
    for (std::size_t oldest = 1; oldest < before.size(); ++oldest) {
      RC_ASSERT(before[before.size() - oldest] == after[after.size() - oldest]);
    }
  });
}

TEST_CASE("The authors' schedule has the published stripes, window and reach", "[schedule]") {
  const StripePlan plan(preset_schedule("released"), 10'000'000);
  CHECK(plan.window(5000, 0) == Span{5001 - 2032, 5001});
  const auto stripes = [&](Index n) {  // those of the window included
    const Cut cut = plan.cut(1, Segment({0, n}));
    CHECK(cut.first() == 66);
    CHECK(cut.window() == 2032);
    CHECK(cut.anchor(66) == 2032);
    return cut.last();
  };
  CHECK(stripes(Index{1} << 20) == 2048);
  CHECK(stripes((Index{1} << 20) - 1) == 2047);
  CHECK(stripes(10'000'000) == 7079);
  const Cut middle = plan.cut(1, Segment({0, Index{1} << 20}));
  CHECK(middle.anchor(360) == 44443);
  CHECK(middle.anchor(410) == 56299);
  CHECK(middle.anchor(425) == 60101);
  CHECK(middle.reach().backward == 6144);
  CHECK(middle.reach().forward == 2048);
  CHECK(plan.cut(1, Segment({0, 10'000'000})).reach().backward == 21239);
  CHECK(plan.cut(1, Segment({0, 10'000'000})).reach().forward == 7080);
}

TEST_CASE("Anchors and spans of level 1 are those of the definition", "[schedule]") {
  for (const Schedule& schedule : mixed_schedules()) {
    // The released window has 2032 keys, so the sequence goes on behind it.
    const Index length = schedule.window_index == 65 ? 2600 : 2000;
    const StripePlan plan(schedule, length);
    const Definition definition(schedule, length);
    for (const Index start : {0, 1, 17, 1234}) {
      for (Index t = start; t < length; t += start == 0 ? 1 : 7) {
        const bool same = first_choices(plan, t, start) == definition.first_choices(t, start) &&
                          plan.window(t, start) == definition.window(t, start);
        if (!same) FAIL("steps " << schedule.steps << ", query " << t << ", start " << start);
      }
    }
  }
}

TEST_CASE("Anchors and spans of the levels below are those of the definition", "[schedule]") {
  for (const Schedule& schedule : mixed_schedules()) {
    const StripePlan plan(schedule, 2000);
    const Definition definition(schedule, 2000);
    for (Index m = 2; m < schedule.steps; ++m) {
      for (Index n = 0; n <= 2000; ++n) {
        for (const Index nominal : {n, 2 * n + 1}) {
          const Segment segment({11, 11 + n}, nominal);
          if (choices(plan, m, segment) != definition.inner_choices(m, segment, nominal)) {
            FAIL("steps " << schedule.steps << ", level " << m << ", " << n << " keys");
          }
        }
      }
    }
  }
}

TEST_CASE("The window has its stripes and no more", "[schedule]") {
  const StripePlan stripes(schedule_of({T}, 3), 100);  // W = 4^2 - 1
  CHECK(stripes.window(40, 0) == Span{26, 41});
  CHECK(stripes.window(40, 30) == Span{30, 41});
  CHECK(stripes.window(5, 0) == Span{0, 6});
  CHECK(first_choices(stripes, 40).front() == Choice{25, {17, 26}});
  CHECK(stripes.searched(14, 0).empty());
  CHECK(first_choices(stripes, 15) == std::vector<Choice>{{0, {0, 1}}});
  CHECK(stripes.searched(44, 30).empty());
  CHECK(first_choices(stripes, 45, 30) == std::vector<Choice>{{30, {30, 31}}});

  const StripePlan even(schedule_of({E}, 3), 100);  // W = 3
  CHECK(even.window(40, 0) == Span{38, 41});
  CHECK(even.searched(40, 2) == Span{2, 38});
  CHECK(even.searched(2, 0).empty());
  CHECK(first_choices(even, 3) == std::vector<Choice>{{0, {0, 1}}});

  const StripePlan none(preset_schedule("nstep"), 100);
  CHECK(none.window(40, 0).empty());
  CHECK(none.searched(40, 3) == Span{3, 41});
}

TEST_CASE("One step is dense attention", "[schedule]") {
  const StripePlan plan(preset_schedule("nstep", 1), 50);
  CHECK(plan.window(49, 0) == Span{0, 50});
  CHECK(plan.window(20, 4) == Span{4, 21});
  CHECK(plan.searched(20, 4).empty());
}

TEST_CASE("Presets are the table of the specification", "[schedule]") {
  const auto is_level = [](const multistep::Level& level, Rule rule, Rational exponent,
                           Rational backward, Rational forward, Rational span_exponent) {
    return level.rule == rule && level.exponent == exponent && level.backward == backward &&
           level.forward == forward && level.span_exponent == span_exponent;
  };
  const Schedule nstep = preset_schedule("nstep");
  CHECK(nstep.steps == 2);
  CHECK(nstep.window_index == 0);
  CHECK(nstep.top_k == 2);
  REQUIRE(nstep.levels.size() == 1);
  CHECK(is_level(nstep.level(1), T, {2, 1}, {2, 1}, {0, 1}, {1, 2}));
  const Schedule four = preset_schedule("nstep", 4);
  REQUIRE(four.levels.size() == 3);
  CHECK(is_level(four.level(1), T, {4, 1}, {4, 1}, {0, 1}, {3, 4}));
  CHECK(is_level(four.level(2), E, {3, 1}, {3, 1}, {0, 1}, {2, 3}));
  CHECK(is_level(four.level(3), E, {2, 1}, {2, 1}, {0, 1}, {1, 2}));
  const Schedule even = preset_schedule("even", 3);
  REQUIRE(even.levels.size() == 2);
  CHECK(even.level(1).rule == E);
  CHECK(even.level(2).rule == E);
  const Schedule paper = preset_schedule("paper");
  REQUIRE(paper.levels.size() == 1);
  CHECK(paper.window_index == 0);
  CHECK(paper.top_k == 2);
  CHECK(is_level(paper.level(1), P, {2, 1}, {2, 1}, {0, 1}, {1, 2}));
  const Schedule released = preset_schedule("released");
  REQUIRE(released.levels.size() == 1);
  CHECK(released.window_index == 65);
  CHECK(released.top_k == 3);
  CHECK(is_level(released.level(1), P, {20, 11}, {3, 1}, {1, 1}, {11, 20}));
  const Schedule aligned = preset_schedule("aligned", 3);
  REQUIRE(aligned.levels.size() == 2);
  CHECK(aligned.level(1).rule == A);
  CHECK(aligned.level(2).rule == A);
  CHECK(aligned.window_index == 0);
  CHECK(aligned.top_k == 2);
  CHECK(preset_schedule("even", 1).levels.empty());
  CHECK(preset_schedule("nstep", 64).levels.size() == 63);

  CHECK_THROWS_WITH(preset_schedule("dense"),
                    "preset dense: nstep, even, aligned, paper or released");
  CHECK_THROWS_WITH(preset_schedule("paper", 3), "steps 3: preset paper has 2 steps");
  CHECK_THROWS_WITH(preset_schedule("nstep", 0), "steps 0: an integer in [1, 64]");
  CHECK_THROWS_WITH(preset_schedule("even", 65), "steps 65: an integer in [1, 64]");
  CHECK_THROWS_WITH(default_level(T, 1), "steps left 1: a search level has 2 to 64");
}

TEST_CASE("Rules have names", "[schedule]") {
  for (const Rule rule : {T, P, E, A}) CHECK(multistep::parse_rule(to_string(rule)) == rule);
  CHECK(to_string(T) == "tight");
  CHECK(to_string(P) == "power");
  CHECK(to_string(E) == "even");
  CHECK(to_string(A) == "aligned");
  CHECK_THROWS_WITH(multistep::parse_rule("odd"), "rule odd: tight, power, even or aligned");
}

TEST_CASE("A parameter out of range is refused by name", "[schedule]") {
  const auto refused = [](const std::function<void(Schedule&)>& change, const std::string& error) {
    Schedule schedule = preset_schedule("nstep", 3);
    change(schedule);
    CHECK_THROWS_AS(validate_schedule(schedule), std::invalid_argument);
    CHECK_THROWS_WITH(validate_schedule(schedule), error);
    CHECK_THROWS_WITH(StripePlan(schedule, 10), error);
  };
  refused([](Schedule& s) { s.steps = 0; }, "steps 0: an integer in [1, 64]");
  refused([](Schedule& s) { s.steps = 65; }, "steps 65: an integer in [1, 64]");
  refused([](Schedule& s) { s.steps = 4; }, "levels 2: a schedule of 4 steps has 3 search levels");
  refused([](Schedule& s) { s.window_index = -1; }, "window-index -1: an integer in [0, 2^48]");
  refused([](Schedule& s) { s.window_index = kMaxLength + 1; },
          "window-index 281474976710657: an integer in [0, 2^48]");
  refused([](Schedule& s) { s.top_k = 0; }, "top-k 0: an integer in [1, 64]");
  refused([](Schedule& s) { s.top_k = 65; }, "top-k 65: an integer in [1, 64]");
  const std::string ends = " with a denominator of at most 10000";
  refused(
      [](Schedule& s) {
        s.levels[0].exponent = {9, 10};
      },
      "exponent 9/10: a rational in [1, 64]" + ends);
  refused(
      [](Schedule& s) {
        s.levels[1].exponent = {65, 1};
      },
      "exponent 65: a rational in [1, 64]" + ends);
  refused(
      [](Schedule& s) {
        s.levels[0].exponent = {20'001, 10'001};
      },
      "exponent 20001/10001: a rational in [1, 64]" + ends);
  refused(
      [](Schedule& s) {
        s.levels[1].span_exponent = {11, 10};
      },
      "span-exponent 11/10: a rational in [0, 1]" + ends);
  refused(
      [](Schedule& s) {
        s.levels[0].backward = {-1, 1};
      },
      "backward -1: a factor is a rational >= 0");
  refused(
      [](Schedule& s) {
        s.levels[1].forward = {-1, 2};
      },
      "forward -1/2: a factor is a rational >= 0");

  validate_schedule(preset_schedule("released"));
  CHECK_THROWS_WITH(StripePlan(preset_schedule("nstep"), 0), "length 0: an integer in [1, 2^48]");
  CHECK_THROWS_WITH(StripePlan(preset_schedule("nstep"), kMaxLength + 1),
                    "length 281474976710657: an integer in [1, 2^48]");
  CHECK_THROWS_WITH(StripePlan(exponent_schedule(T, {1, 1}, 0), kMaxLength),
                    "length 281474976710656: with stripe exponent 1 it needs more than 134217728 "
                    "stripes; raise the exponent or shorten the sequence");
}

TEST_CASE("Tight rules and rules of parts partition what the window leaves", "[schedule]") {
  check_property("every key is in one final span or in the window", [] {
    const StripePlan plan(any_schedule({T, E, A}), 6000);
    const Index query = *rc::gen::inRange<Index>(0, 6000);
    const Index start = *rc::gen::inRange<Index>(0, query + 1);
    std::vector<Span> spans;
    if (const Span window = plan.window(query, start); !window.empty()) spans.push_back(window);
    const Segment segment = plan.searched(query, start);
    if (!segment.empty()) add_final_spans(plan, 1, segment, spans);
    Index newest = query + 1;
    for (const Span& span : spans) {
      RC_ASSERT(!span.empty());
      RC_ASSERT(span.end == newest);
      newest = span.begin;
    }
    RC_ASSERT(newest == start);
  });
}

TEST_CASE("A greedy path adds up to its offset", "[schedule]") {
  CHECK(greedy_path(2, 19) == std::vector<Index>{4, 5});     // 15 + 4
  CHECK(greedy_path(3, 29) == std::vector<Index>{3, 2, 1});  // 26 + 3 + 0
  CHECK(greedy_path(1, 7) == std::vector<Index>{8});
  CHECK(greedy_path(4, 0) == std::vector<Index>{1, 1, 1, 1});
  check_property("the powers of a path, less one each, sum to the offset", [] {
    const Index steps = *rc::gen::inRange<Index>(1, 65);
    const Index offset = *rc::gen::inRange<Index>(0, kMaxLength);
    const std::vector<Index> path = greedy_path(steps, offset);
    RC_ASSERT(static_cast<Index>(path.size()) == steps);
    brute_force::Integer sum = 0;
    for (Index m = 1; m <= steps; ++m) {
      const Index digit = path[static_cast<std::size_t>(m - 1)];
      RC_ASSERT(digit >= 1);
      // Greedy: the next digit up would pass what is left.
      RC_ASSERT(brute_force::power(digit + 1, steps - m + 1) - 1 > offset - sum);
      sum += brute_force::power(digit, steps - m + 1) - 1;
    }
    RC_ASSERT(sum == offset);
  });
  CHECK_THROWS_WITH(greedy_path(0, 1), "steps 0: an integer in [1, 64]");
  CHECK_THROWS_WITH(greedy_path(65, 1), "steps 65: an integer in [1, 64]");
  CHECK_THROWS_WITH(greedy_path(2, -1), "offset -1: an integer in [0, 2^48)");
  CHECK_THROWS_WITH(greedy_path(2, kMaxLength), "offset 281474976710656: an integer in [0, 2^48)");
}

TEST_CASE("A greedy path is the tight schedule's one path", "[schedule]") {
  check_property("the stripes that lead to a key are the offset's digits", [] {
    const Index steps = *rc::gen::inRange<Index>(2, 8);
    const StripePlan plan(schedule_of(std::vector<Rule>(static_cast<std::size_t>(steps - 1), T)),
                          1'000'000);
    const Index query = *rc::gen::inRange<Index>(0, 1'000'000);
    const Index key = *rc::gen::inRange<Index>(0, query + 1);
    RC_ASSERT(tight_path(plan, query, key) == greedy_path(steps, query - key));
  });
}

TEST_CASE("No span leaves its segment or enters the window", "[schedule]") {
  check_property("spans are causal, hold their anchor and are no older than the segment", [] {
    Schedule schedule = any_schedule({T, P, E, A});
    for (Index m = 1; m < schedule.steps; ++m) {
      schedule = with_factors(schedule, m, {*rc::gen::inRange<Index>(0, 9), 2},
                              {*rc::gen::inRange<Index>(0, 9), 2});
    }
    const StripePlan plan(schedule, 3000);
    const Index query = *rc::gen::inRange<Index>(0, 3000);
    const Index start = *rc::gen::inRange<Index>(0, query + 1);
    const Index window = plan.window(query, start).length();
    for (const Choice& choice : first_choices(plan, query, start)) {
      RC_ASSERT(start <= choice.span.begin && choice.span.end <= query + 1 - window);
      RC_ASSERT(choice.span.contains(choice.anchor));
      for (Index m = 2; m < schedule.steps; ++m) {
        for (const Choice& inner : choices(plan, m, Segment(choice.span, choice.nominal))) {
          RC_ASSERT(choice.span.begin <= inner.span.begin && inner.span.end <= choice.span.end);
          RC_ASSERT(inner.span.contains(inner.anchor));
        }
      }
    }
  });
}

TEST_CASE("Anchors keep their distance as the query moves", "[schedule]") {
  check_property(
      "a later query has the same stripes, and the same tight spans but for the oldest", [] {
        const Rule rule = *rc::gen::element(T, P);
        const StripePlan plan(schedule_of({rule, T}, *rc::gen::inRange<Index>(0, 4)), 3000);
        const Index query = *rc::gen::inRange<Index>(0, 2000);
        const Index shift = *rc::gen::inRange<Index>(0, 1000);
        const std::vector<Choice> before = first_choices(plan, query);
        const std::vector<Choice> after = first_choices(plan, query + shift);
        RC_ASSERT(before.size() <= after.size());
        for (std::size_t i = 0; i < before.size(); ++i) {
          RC_ASSERT(before[i].anchor + shift == after[i].anchor);
          if (rule == P || i + 1 == before.size()) continue;
          RC_ASSERT(before[i].span.begin + shift == after[i].span.begin);
          RC_ASSERT(before[i].span.end + shift == after[i].span.end);
        }
      });
}

TEST_CASE("A plan takes another backward factor at every power level", "[schedule]") {
  Schedule schedule = with_factors(schedule_of({P, E, P}), 1, {1, 1}, {1, 1});
  const StripePlan plan = StripePlan(schedule, 500).with_backward({7, 5});
  for (Index m : {1, 3}) schedule.levels[static_cast<std::size_t>(m - 1)].backward = {7, 5};
  const Definition definition(schedule, 500);
  for (Index n = 1; n <= 500; ++n) {
    CHECK(first_choices(plan, n - 1) == definition.first_choices(n - 1, 0));
    CHECK(choices(plan, 3, Segment({0, n})) == definition.inner_choices(3, {0, n}, n));
  }
}

TEST_CASE("A plan takes another top_k, and keeps its tables", "[schedule]") {
  const StripePlan plan(preset_schedule("released"), 10'000);
  const StripePlan more = plan.with_top_k(64);
  CHECK(more.schedule().top_k == 64);
  CHECK(plan.schedule().top_k == 3);
  CHECK(more.cut(1, Segment({0, 9000})).count() == plan.cut(1, Segment({0, 9000})).count());
  for (const Index top_k : {0, 65}) {
    CHECK_THROWS_WITH(plan.with_top_k(top_k),
                      "top-k " + std::to_string(top_k) + ": an integer in [1, 64]");
  }
}
