#include <multistep/work.hpp>

#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "schedule/brute_force.hpp"
#include "schedule/property.hpp"
#include "support/catch.hpp"

using brute_force::Choice;
using brute_force::Definition;
using brute_force::Path;
using brute_force::schedule_of;
using brute_force::with_factors;
using multistep::Cut;
using multistep::Index;
using multistep::keys_outside_window;
using multistep::MostChoices;
using multistep::path_work;
using multistep::PathWork;
using multistep::preset_schedule;
using multistep::random_routing_work;
using multistep::routed_spans;
using multistep::Rule;
using multistep::Schedule;
using multistep::Segment;
using multistep::Span;
using multistep::StripePlan;
using multistep::work_lower_bound;
using multistep::WorkCount;

namespace {

constexpr Rule T = Rule::tight, P = Rule::power, E = Rule::even, A = Rule::aligned;

Schedule all_tight(Index steps) {
  return schedule_of(std::vector<Rule>(static_cast<std::size_t>(steps - 1), T));
}

struct FinalSpans {
  Index count = 0;
  Index longest = 0;
  friend bool operator==(const FinalSpans&, const FinalSpans&) = default;
};

void add_final_spans(const StripePlan& plan, Index m, const Segment& segment, FinalSpans& total) {
  if (m == plan.steps()) {
    ++total.count;
    total.longest = std::max(total.longest, segment.length());
    return;
  }
  const Cut cut = plan.cut(m, segment);
  for (Index i = cut.first(); i <= cut.last(); ++i) {
    add_final_spans(plan, m + 1, cut.below(i), total);
  }
}

FinalSpans final_spans(const Schedule& schedule, Index query) {
  const StripePlan plan(schedule, query + 1);
  FinalSpans total;
  add_final_spans(plan, 1, plan.searched(query, 0), total);
  return total;
}

/// Holds the published numbers of one path's work: the mean to a decimal, the ratio to three.
void check_published(const Schedule& schedule, Index min, double mean, Index max, double ratio) {
  const Index n = Index{1} << 20;
  const auto work = path_work(StripePlan(schedule, n), n - 1);
  CAPTURE(schedule.steps, mean);
  REQUIRE(work);
  CHECK(work->min == min);
  CHECK(work->max == max);
  CHECK(work->pairs == std::to_string(n));
  CHECK(std::abs(work->mean - mean) <= 0.0501);
  REQUIRE(work->ratio);
  CHECK(std::abs(*work->ratio - ratio) <= 0.000501);
}

/// Every path of the definition, with its work.
std::optional<PathWork> brute_path_work(const Definition& definition, Index query, Index start) {
  PathWork result;
  Index sum = 0;
  Index pairs = 0;
  definition.for_each_path(query, start, [&](const Path& path) {
    const Index keys = path.span.length();
    const Index work = path.anchors_scored + keys;
    result.min = pairs == 0 ? work : std::min(result.min, work);
    result.max = std::max(result.max, work);
    pairs += keys;
    sum += keys * work;
  });
  if (pairs == 0) return std::nullopt;
  result.pairs = std::to_string(pairs);
  result.mean = static_cast<double>(sum) / static_cast<double>(pairs);
  if (definition.holes(query, start).empty()) result.ratio = 1;  // there is one
  return result;
}

bool equal(const std::optional<PathWork>& a, const std::optional<PathWork>& b) {
  if (!a || !b) return !a && !b;
  return a->min == b->min && a->max == b->max && a->pairs == b->pairs && a->mean == b->mean &&
         a->ratio.has_value() == b->ratio.has_value();
}

/// The most choices of each step, over every path of the definition.
std::vector<Index> brute_choices(const Definition& definition, Index steps, Index query) {
  std::vector<Index> most(static_cast<std::size_t>(steps), 0);
  const std::function<void(std::size_t, const std::vector<Choice>&)> follow =
      [&](std::size_t m, const std::vector<Choice>& offered) {
        most[m - 1] = std::max(most[m - 1], std::ssize(offered));
        for (const Choice& choice : offered) {
          if (m + 1 < most.size()) {
            follow(m + 1, definition.inner_choices(static_cast<Index>(m) + 1, choice));
          } else {
            most[m] = std::max(most[m], choice.span.length());
          }
        }
      };
  follow(1, definition.first_choices(query, 0));
  return most;
}

/// The work where every path is kept.
WorkCount exhaustive_work(const Definition& definition, const Schedule& schedule, Index query) {
  WorkCount work;
  work.keys_attended = definition.window(query, 0).length();
  std::vector<Choice> kept = definition.first_choices(query, 0);
  work.anchors_scored = static_cast<Index>(kept.size());
  for (Index m = 2; m < schedule.steps; ++m) {
    std::vector<Choice> next;
    for (const Choice& parent : kept) {
      for (const Choice& choice : definition.inner_choices(m, parent)) next.push_back(choice);
    }
    kept = next;
    work.anchors_scored += static_cast<Index>(kept.size());
  }
  for (const Choice& choice : kept) work.keys_attended += choice.span.length();
  return work;
}

}  // namespace

TEST_CASE("The final spans of query 4095 are as many and as long as published", "[work]") {
  const Index t = 4095;
  CHECK(final_spans(all_tight(2), t) == FinalSpans{64, 127});
  CHECK(final_spans(all_tight(3), t) == FinalSpans{215, 51});
  CHECK(final_spans(all_tight(4), t) == FinalSpans{363, 37});
  CHECK(final_spans(all_tight(5), t) == FinalSpans{511, 27});
  CHECK(final_spans(preset_schedule("nstep", 2), t) == FinalSpans{64, 127});
  CHECK(final_spans(preset_schedule("nstep", 3), t) == FinalSpans{229, 27});
  CHECK(final_spans(preset_schedule("nstep", 4), t) == FinalSpans{466, 12});
  CHECK(final_spans(preset_schedule("nstep", 5), t) == FinalSpans{821, 7});
  CHECK(final_spans(preset_schedule("even", 2), t) == FinalSpans{64, 64});
  CHECK(final_spans(preset_schedule("even", 3), t) == FinalSpans{256, 16});
  CHECK(final_spans(preset_schedule("even", 4), t) == FinalSpans{512, 8});
  CHECK(final_spans(preset_schedule("even", 5), t) == FinalSpans{900, 5});
  CHECK(final_spans(preset_schedule("aligned", 2), t) == FinalSpans{64, 64});
  CHECK(final_spans(preset_schedule("aligned", 3), t) == FinalSpans{256, 16});
  CHECK(final_spans(preset_schedule("aligned", 4), t) == FinalSpans{512, 8});
  CHECK(final_spans(preset_schedule("aligned", 5), t) == FinalSpans{1024, 4});
}

TEST_CASE("The stripes of the first 4096 queries sum to the published numbers", "[work]") {
  const std::map<Index, Index> sums = {{2, 172768}, {3, 47056}, {4, 24004}};
  for (const auto& [steps, expected] : sums) {
    const StripePlan plan(preset_schedule("nstep", steps), 4096);
    Index sum = 0;
    for (Index t = 0; t < 4096; ++t) sum += plan.cut(1, plan.searched(t, 0)).count();
    CHECK(sum == expected);
  }
}

TEST_CASE("The work of one path is as published at 2^20 keys", "[work]") {
  check_published(preset_schedule("nstep", 2), 1025, 2389.3, 3071, 1.167);
  check_published(preset_schedule("nstep", 3), 105, 363.9, 450, 1.194);
  check_published(preset_schedule("nstep", 4), 35, 154.2, 183, 1.205);
  check_published(preset_schedule("even", 2), 2048, 2048, 2048, 1);
  check_published(preset_schedule("even", 3), 284, 304.8, 305, 1);
  check_published(all_tight(3), 106, 406.2, 622, 1.333);
}

TEST_CASE("The work of one path is that of the definition's paths", "[work]") {
  for (const Schedule& schedule :
       {preset_schedule("nstep"), preset_schedule("nstep", 3), preset_schedule("nstep", 5),
        preset_schedule("even", 3), preset_schedule("even", 4), preset_schedule("paper"),
        preset_schedule("aligned", 3), preset_schedule("aligned", 4), schedule_of({A}, 6),
        schedule_of({T, A, E}, 1), schedule_of({E, A}), schedule_of({P, A}, 2), all_tight(4),
        schedule_of({T}, 3), schedule_of({E}, 6), schedule_of({E, T}, 2), schedule_of({P, P}, 1),
        schedule_of({T, P, E}), with_factors(schedule_of({P, E}, 2), 1, {1, 1}, {3, 2})}) {
    const StripePlan plan(schedule, 700);
    const Definition definition(schedule, 700);
    for (const Index start : {0, 5, 300}) {
      for (Index t = start; t < 700; t += 1 + t / 16) {
        if (!equal(path_work(plan, t, start), brute_path_work(definition, t, start))) {
          FAIL("steps " << schedule.steps << ", query " << t << ", start " << start);
        }
      }
    }
  }
}

TEST_CASE("Work where nothing is searched", "[work]") {
  // One step: one path, whose span is every key.
  CHECK(equal(path_work(StripePlan(preset_schedule("nstep", 1), 10), 9),
              PathWork{10, 10, "10", 10, 10, 1}));
  CHECK(equal(path_work(StripePlan(preset_schedule("even", 1), 10), 9, 3),
              PathWork{7, 7, "7", 7, 7, 1}));
  // The window has every key.
  CHECK_FALSE(path_work(StripePlan(preset_schedule("released"), 4000), 2031));
  CHECK(path_work(StripePlan(preset_schedule("released"), 4000), 2032));

  const StripePlan plan(preset_schedule("nstep"), 100);
  CHECK_THROWS_WITH(path_work(plan, 100), "query 100: an integer in [start 0, 100)");
  CHECK_THROWS_WITH(path_work(plan, 5, 6), "query 5: an integer in [start 6, 100)");
}

TEST_CASE("The lower bound is N times the N-th root", "[work]") {
  CHECK(work_lower_bound(1, 77) == Approx(77));
  CHECK(work_lower_bound(2, 4096) == Approx(128));
  CHECK(work_lower_bound(3, 4096) == Approx(48));
  CHECK(work_lower_bound(4, 4096) == Approx(32));
  CHECK(work_lower_bound(5, 1) == Approx(5));
  CHECK(work_lower_bound(2, Index{1} << 48) == Approx(33'554'432));
}

TEST_CASE("The lower bound of several paths", "[work]") {
  CHECK(work_lower_bound(1, 77, 9) == Approx(77));
  CHECK(work_lower_bound(2, 50, 2) == Approx(20));
  CHECK(work_lower_bound(3, 1000, 8) == Approx(120));
  CHECK(work_lower_bound(64, Index{1} << 48, 64) == Approx(64 * std::pow(2, (63 * 6 + 48) / 64.0)));
  CHECK(work_lower_bound(3, 0, 2) == 0);
}

TEST_CASE("No covering schedule is below the lower bounds", "[work]") {
  check_property("neither in the mean work of its paths nor in the most choices it offers", [] {
    std::vector<Rule> rules;
    const Index levels = *rc::gen::inRange<Index>(1, 5);
    for (Index m = 1; m <= levels; ++m) rules.push_back(*rc::gen::element(T, E, A));
    Schedule schedule = schedule_of(rules, *rc::gen::element<Index>(0, 0, 1, 7, 2000));
    schedule.top_k = *rc::gen::element<Index>(1, 2, 3, 64);
    const StripePlan plan(schedule, 5000);
    const Index t = *rc::gen::inRange<Index>(0, 5000);
    const Index n = t + 1 - plan.window(t, 0).length();
    const auto work = path_work(plan, t);
    RC_ASSERT(work.has_value() == (n > 0));
    RC_ASSERT(keys_outside_window(plan, t) == n);
    if (!work) return;
    RC_ASSERT(work->pairs == std::to_string(n));
    RC_ASSERT(work->lower_bound == work_lower_bound(plan.steps(), n));
    RC_ASSERT(work->ratio && *work->ratio >= 1);
    RC_ASSERT(static_cast<double>(work->min) <= work->mean);
    RC_ASSERT(work->mean <= static_cast<double>(work->max));
    RC_ASSERT(static_cast<double>(MostChoices(plan).sum(t)) >=
              work_lower_bound(plan.steps(), n, schedule.top_k) - 1e-9);
  });
}

TEST_CASE("Where even parts divide a window's rest evenly, mean work is the lower bound",
          "[work]") {
  for (const Index steps : {2, 3, 4}) {
    Schedule schedule = preset_schedule("even", steps);
    schedule.window_index = 60'000;
    const Index n = Index{1} << 12;
    const auto work = path_work(StripePlan(schedule, 70'000), 60'000 + n - 1);
    REQUIRE(work);
    CHECK(work->ratio == 1);
  }
}

TEST_CASE("A query that does not reach every key has no ratio to the lower bound", "[work]") {
  const StripePlan plan(with_factors(schedule_of({P}), 1, {1, 1}, {1, 1}), 30);
  CHECK_FALSE(path_work(plan, 7)->ratio);  // key 0 is excluded
  CHECK(path_work(plan, 7)->lower_bound == Approx(2 * std::sqrt(8)));
  CHECK(path_work(plan, 8)->ratio);
}

TEST_CASE("Pairs of overlapping levels pass every fixed width, and stay exact", "[work]") {
  // Every span of a segment is all of it: at level m, a part of its stripes to the same end.
  for (const Index steps : {2, 3, 4, 5, 6}) {
    Schedule schedule = schedule_of(std::vector<Rule>(static_cast<std::size_t>(steps - 1), P));
    for (Index m = 1; m < steps; ++m) {
      schedule = with_factors(schedule, m, {1'000'000'000, 1}, {1'000'000'000, 1});
      schedule.levels[static_cast<std::size_t>(m - 1)].exponent = {4, 1};
      schedule.levels[static_cast<std::size_t>(m - 1)].span_exponent = {1, 1};
    }
    const Index n = Index{1} << 48;  // 2^12 stripes
    const auto work = path_work(StripePlan(schedule, n), n - 1);
    REQUIRE(work);
    CHECK(boost::multiprecision::cpp_int(work->pairs) ==
          boost::multiprecision::cpp_int(1) << static_cast<unsigned>(12 * (steps - 1) + 48));
    CHECK(work->min == n + (steps - 1) * 4096);
    CHECK(work->mean == static_cast<double>(work->min));
    CHECK(work->max == work->min);
  }
}

TEST_CASE("A mean is the double nearest to it", "[work]") {
  // Tight, n = 2^48: the sums pass 2^53 and 2^64. Spans of 2i + 1 keys, 2^24 of them less one.
  using boost::multiprecision::cpp_int;
  const Index n = Index{1} << 40;
  const Index stripes = Index{1} << 20;
  cpp_int sum = cpp_int(stripes) * n;
  for (Index i = 1; i < stripes; ++i) sum += cpp_int(2 * i + 1) * (2 * i + 1);
  sum += 1;  // the oldest stripe stands for the oldest key alone
  const auto work = path_work(StripePlan(preset_schedule("nstep"), n), n - 1);
  REQUIRE(work);
  CHECK(work->pairs == std::to_string(n));
  // The denominator is a power of two, so that the quotient is the sum, rounded once.
  CHECK(work->mean == std::ldexp(sum.convert_to<double>(), -40));
}

TEST_CASE("The most choices of each step are those of the definition", "[work]") {
  for (Schedule schedule :
       {preset_schedule("nstep"), preset_schedule("nstep", 3), preset_schedule("nstep", 4),
        preset_schedule("even", 3), preset_schedule("aligned", 3), schedule_of({A}, 5),
        schedule_of({T, A}), schedule_of({T}, 2), schedule_of({E, T}, 3), schedule_of({P, P}, 1),
        preset_schedule("paper")}) {
    schedule.top_k = 3;
    const StripePlan plan(schedule, 70);
    const Definition definition(schedule, 70);
    MostChoices choices(plan);
    for (Index t = 0; t < 70; ++t) {
      const std::vector<Index> most = brute_choices(definition, schedule.steps, t);
      CHECK(choices.of(t) == most);
      CHECK(choices.sum(t) ==
            most.front() + 3 * std::accumulate(most.begin() + 1, most.end(), Index{0}));
    }
  }
  CHECK(MostChoices(StripePlan(preset_schedule("even", 3), 4096)).of(4095) ==
        std::vector<Index>{16, 16, 16});
  CHECK(MostChoices(StripePlan(preset_schedule("nstep", 1), 9)).of(8, 2) == std::vector<Index>{7});
  CHECK(MostChoices(StripePlan(preset_schedule("released"), 4000)).of(2031) ==
        std::vector<Index>{0, 0});
}

TEST_CASE("What other queries left is no reason to refuse one its choices", "[work]") {
  const Index length = Index{1} << 48;
  Schedule schedule = preset_schedule("nstep", 3);
  schedule.levels.front().exponent = {64, 1};  // one stripe, whose span is the whole segment
  MostChoices choices(StripePlan(schedule, length));
  Index most = 0;
  for (Index back = 1; back <= 1'000'100; ++back) {
    most = std::max(most, choices.sum(length - back));
  }
  CHECK(most == 1 + 2 * (2 << 24));
}

TEST_CASE("The choices of aligned parts are near the fewest", "[work]") {
  // From 2^10 keys on below 1.08, 1.10, 1.11 times the lower bound for N = 2, 3, 4.
  for (const auto& [steps, limit] : std::map<Index, double>{{2, 1.08}, {3, 1.10}, {4, 1.11}}) {
    Schedule schedule = preset_schedule("aligned", steps);
    schedule.top_k = 1;
    MostChoices choices(StripePlan(schedule, Index{1} << 40));
    double worst = 0;
    const auto look = [&](Index n) {
      const double ratio =
          static_cast<double>(choices.sum(n - 1)) / multistep::work_lower_bound(steps, n);
      worst = std::max(worst, ratio);
      REQUIRE(ratio < limit);
    };
    for (Index n = 1024; n <= 40'000; ++n) look(n);
    for (Index n = 40'000; n < Index{1} << 40; n += 1 + n / 1000) look(n);
    CHECK(worst > limit - 0.01);  // no limit is far from what there is
  }
  const auto most = [](Index n) {
    return MostChoices(StripePlan(preset_schedule("aligned", 3), n)).of(n - 1);
  };
  const Index mebi = Index{1} << 20;
  CHECK(most(mebi) == std::vector<Index>{128, 128, 64});
  CHECK(320 / multistep::work_lower_bound(3, mebi) == Approx(1.0499).margin(5e-5));
  CHECK(most(10'000'000) == std::vector<Index>{153, 256, 256});
  CHECK(665 / multistep::work_lower_bound(3, 10'000'000) == Approx(1.0289).margin(5e-5));
}

TEST_CASE("Random routing that keeps every path counts all of them", "[work]") {
  for (Schedule schedule :
       {preset_schedule("nstep"), preset_schedule("nstep", 3), preset_schedule("nstep", 4),
        preset_schedule("even", 3), preset_schedule("aligned", 3), schedule_of({A}, 5),
        schedule_of({T, A}), schedule_of({T}, 2), schedule_of({E, T}, 3), schedule_of({P, P}, 1),
        preset_schedule("paper")}) {
    schedule.top_k = 64;
    const StripePlan plan(schedule, 40);
    const Definition definition(schedule, 40);
    for (Index t = 0; t < 40; ++t) {
      const WorkCount expected = exhaustive_work(definition, schedule, t);
      Index paths = 0;
      definition.for_each_path(t, 0, [&](const Path&) { ++paths; });
      if (paths > 64) continue;
      const WorkCount work = random_routing_work(plan, t, 3);
      CHECK(work.anchors_scored == expected.anchors_scored);
      CHECK(work.keys_attended == expected.keys_attended);
    }
  }
}

TEST_CASE("Random routing does the same work everywhere where the parts are even", "[work]") {
  for (const Index top_k : {1, 2, 5}) {
    Schedule schedule = preset_schedule("even", 3);
    schedule.top_k = top_k;
    const StripePlan plan(schedule, 4096);
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
      const WorkCount work = random_routing_work(plan, 4095, seed);
      CHECK(work.anchors_scored == 16 + 16 * top_k);
      CHECK(work.keys_attended == 16 * top_k);
      CHECK(work.total() == 16 + 32 * top_k);
    }
  }
  const WorkCount dense = random_routing_work(StripePlan(preset_schedule("nstep", 1), 50), 30, 1);
  CHECK(dense.anchors_scored == 0);
  CHECK(dense.keys_attended == 31);
}

TEST_CASE("Random routing draws every path, with its work and the window once", "[work]") {
  Schedule schedule = schedule_of({T, E}, 1);  // W = 7
  schedule.top_k = 1;
  const StripePlan plan(schedule, 60);
  std::set<std::pair<Index, Index>> expected;
  Definition(schedule, 60).for_each_path(59, 0, [&](const Path& path) {
    expected.insert({path.anchors_scored, path.span.length() + 7});
  });
  std::set<std::pair<Index, Index>> drawn;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    const WorkCount work = random_routing_work(plan, 59, seed);
    drawn.insert({work.anchors_scored, work.keys_attended});
  }
  CHECK(drawn == expected);
}

TEST_CASE("Every anchor has the same chance", "[work]") {
  Schedule schedule = preset_schedule("nstep");
  schedule.top_k = 1;
  const StripePlan plan(schedule, 20);
  std::map<Index, Index> times;  // by length of the span: 3, 5, 7 and twice 5
  for (std::uint64_t seed = 0; seed < 8000; ++seed) {
    ++times[random_routing_work(plan, 19, seed).keys_attended];
  }
  CHECK(times.size() == 3);
  // Binomial, standard deviation below 45: five of them.
  CHECK(std::abs(times[3] - 2000) < 225);
  CHECK(std::abs(times[7] - 2000) < 225);
  CHECK(std::abs(times[5] - 4000) < 225);
  CHECK(random_routing_work(plan, 19, 5).total() == random_routing_work(plan, 19, 5).total());
}

TEST_CASE("Routed spans are those that the scores ask for", "[work]") {
  // t = 19: anchors 19, 16, 11, 4 with the spans [17, 20) [12, 17) [5, 12) [0, 5).
  const StripePlan plan(preset_schedule("nstep"), 20);
  WorkCount work;
  const auto wanted = [](Index level, Index anchor, Span span) {
    CHECK(level == 1);
    CHECK((span.contains(anchor) && span.end == anchor + 1));
    return anchor == 4 ? 2.0 : anchor == 16 ? 1.0 : 0.0;
  };
  CHECK(routed_spans(plan, 19, wanted, work) == std::vector<Span>{{0, 5}, {12, 17}});
  CHECK((work.anchors_scored == 4 && work.keys_attended == 10));
}

TEST_CASE("Scores that know a key lead to it at every level", "[work]") {
  for (const auto& levels :
       {std::vector<Rule>{T}, {P}, {A}, {T, E}, {P, T}, {A, A}, {P, A}, {T, E, E}}) {
    Schedule schedule = schedule_of(levels, 2);
    schedule.top_k = 1;
    const StripePlan plan(schedule, 300);
    for (Index key = 0; key < 300; ++key) {
      WorkCount work;
      const auto knows = [key](Index, Index, Span span) { return span.contains(key) ? 1.0 : 0.0; };
      const std::vector<Span> spans = routed_spans(plan, 299, knows, work);
      const Span window = plan.window(299, 0);
      REQUIRE(spans.size() == 1);
      CHECK((window.contains(key) || spans.front().contains(key)));
      CHECK(work.keys_attended == window.length() + spans.front().length());
    }
  }
}

TEST_CASE("Work counts add up", "[work]") {
  WorkCount work{3, 10};
  work += WorkCount{4, 20};
  CHECK(work.anchors_scored == 7);
  CHECK(work.keys_attended == 30);
  CHECK(work.total() == 37);
}
