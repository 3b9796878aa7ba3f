#include "schedule/property.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::at;
using inputs::kInfinity;
using inputs::kNaN;
using inputs::Problem;
using inputs::Random;
using inputs::Values;

namespace {

/// Every row of the selection, slots in use and not, equals the naive beam search.
template <class T>
bool agrees(const Selection& got, const Problem<T>& problem) {
  const naive::Stages<T> stages(problem);
  const Index rows = problem.sizes.rows();
  const Index top_k = problem.plan.schedule().top_k;
  const Index levels = problem.plan.steps() - 1;
  if (got.top_k != top_k || got.levels != levels) return false;
  if (got.count.size() != at(rows) || got.work.size() != at(rows)) return false;
  if (got.spans.size() != at(rows * top_k) || got.scores.size() != at(rows * top_k)) return false;
  if (got.anchors.size() != at(rows * top_k * levels)) return false;
  for (Index row = 0; row < rows; ++row) {
    naive::Search want = stages.search(row);
    if (got.count[at(row)] != static_cast<Index>(want.kept.size())) return false;
    if (got.work[at(row)].anchors_scored != static_cast<Index>(want.scored.size())) return false;
    if (got.work[at(row)].keys_attended != want.keys_attended) return false;
    const std::vector<Index> none(at(levels), -1);
    want.kept.resize(at(top_k), {-kInfinity, {0, 0}, 0, none, 0});
    for (Index rank = 0; rank < top_k; ++rank) {
      const naive::Path& path = want.kept[at(rank)];
      const Index slot = row * top_k + rank;
      if (!(got.spans[at(slot)] == path.span)) return false;
      if (got.scores[at(slot)] != path.score) return false;
      if (!std::equal(path.anchors.begin(), path.anchors.end(),
                      got.anchors.begin() + slot * levels)) {
        return false;
      }
    }
  }
  return true;
}

/// One query at position keys - 1 whose level m scores key j as scores[m - 1][j].
Problem<double> scored_problem(const Schedule& schedule,
                               const std::vector<std::vector<double>>& scores) {
  const auto levels = static_cast<Index>(scores.size());
  const auto keys = static_cast<Index>(scores.front().size());
  Shape sizes;
  sizes.queries = 1;
  sizes.keys = keys;
  sizes.query_offset = keys - 1;
  sizes.head_dim = levels;
  Problem<double> problem = inputs::random_problem(schedule, sizes, 1);
  for (Index m = 0; m < levels; ++m) {
    for (Index i = 0; i < levels; ++i) problem.routing[at(m)][at(i)] = i == m ? 1 : 0;
    for (Index j = 0; j < keys; ++j) {
      problem.search_keys[at(j * levels + m)] = scores[at(m)][at(j)];
    }
  }
  return problem;
}

Schedule tight_pair(Index top_k) { return inputs::uniform_schedule(Rule::tight, 2, 0, top_k); }

}  // namespace

TEST_CASE("span-search equals the naive beam search for every preset", "[search]") {
  for (Index steps = 1; steps <= 4; ++steps) {
    for (const char* name : {"nstep", "even", "aligned"}) {
      CAPTURE(steps, name);
      const auto problem = inputs::random_problem(preset_schedule(name, steps),
                                                  inputs::grouped_sizes(3, 70, 0, 0), 11);
      CHECK(agrees(span_search(problem.search()), problem));
    }
  }
  for (const char* name : {"paper", "released"}) {
    CAPTURE(name);
    const auto problem =
        inputs::random_problem(preset_schedule(name), inputs::grouped_sizes(3, 70, 0, 0), 12);
    CHECK(agrees(span_search(problem.search()), problem));
  }
}

TEST_CASE("span-search equals the naive beam search with windows, start and offset", "[search]") {
  const inputs::Threads one(1);
  for (const Rule rule : {Rule::tight, Rule::power, Rule::even, Rule::aligned}) {
    for (Index steps = 2; steps <= 4; ++steps) {
      for (const Index window_index : {0, 1, 3}) {
        CAPTURE(to_string(rule), steps, window_index);
        auto problem =
            inputs::random_problem(inputs::uniform_schedule(rule, steps, window_index, 3),
                                   inputs::grouped_sizes(3, 20, 25, 4), 13, Values::exact, {0, 9});
        problem.search_scale = 0.3;
        CHECK(agrees(span_search(problem.search()), problem));
      }
    }
  }
}

TEST_CASE("span-search with any schedule equals the naive beam search", "[search]") {
  check_property("any schedule, start and offset; ties among the scores", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    Random random(seed);
    const Schedule schedule = inputs::random_schedule(random);
    const Shape sizes =
        inputs::grouped_sizes(3, 1 + random.below(8), random.below(40), random.below(2));
    const Values values = random.below(2) ? Values::coarse : Values::exact;
    const auto problem = inputs::random_problem(schedule, sizes, random.next(), values,
                                                {random.below(sizes.keys), random.below(3)});
    RC_ASSERT(agrees(span_search(problem.search()), problem));
  });
}

TEST_CASE("Equal scores go to the smaller keys", "[search]") {
  const auto problem = scored_problem(tight_pair(3), {std::vector<double>(20, 0.5)});
  const Selection got = span_search(problem.search());
  CHECK(got.count == std::vector<Index>{3});
  CHECK(got.anchors == std::vector<Index>{4, 11, 16});
  CHECK(got.spans == std::vector<Span>{{0, 5}, {5, 12}, {12, 17}});
  CHECK(got.scores == std::vector<double>{0.5, 0.5, 0.5});
  CHECK(got.work.front().anchors_scored == 4);
  CHECK(got.work.front().keys_attended == 17);
}

TEST_CASE("Equal scores of one key go to the parent ranked first", "[search]") {
  // At t = 29, three steps with the power rule, the spans of the level-1 anchors 22 and 3 ...
  Schedule schedule = inputs::uniform_schedule(Rule::power, 3, 0, 2);
  schedule.levels[0].forward = make_rational(100);
  schedule.levels[0].backward = make_rational(100);
  // ... are all of the 30 keys: both parents offer the same keys, and score them alike.
  std::vector<double> first(30, 0);
  first[3] = first[22] = 1;
  std::vector<double> second(30, 0);
  second[25] = 2;  // stripe 2 of 30 keys is 4 long: anchor 26; stripe 1 is 29; stripe 3 is 21
  second[21] = 2;
  const Selection tied = span_search(scored_problem(schedule, {first, second}).search());
  CHECK(tied.scores == std::vector<double>{3, 3});
  CHECK(tied.anchors == std::vector<Index>{3, 21, 22, 21});

  first[22] = 1.5;  // now 22 is ranked first, and its children lead by as much
  const Selection led = span_search(scored_problem(schedule, {first, second}).search());
  CHECK(led.scores == std::vector<double>{3.5, 3});
  CHECK(led.anchors == std::vector<Index>{22, 21, 3, 21});

  first[22] = 1;  // a smaller key wins over a parent ranked before
  second[14] = 2;
  const Selection smaller = span_search(scored_problem(schedule, {first, second}).search());
  CHECK(smaller.anchors == std::vector<Index>{3, 14, 22, 14});
}

TEST_CASE("A path's score is the sum over its levels", "[search]") {
  // Three steps, tight, t = 29: level 1 offers 29, 22, 3; [4, 23) then offers 22, 19, 14, 7, and
  // [23, 30) offers 29, 26.
  std::vector<double> first(30, 0);
  first[29] = 1;
  first[22] = 0.5;
  first[3] = -9;
  std::vector<double> second(30, 0);
  second[26] = 0.25;
  second[14] = 0.875;
  const auto problem =
      scored_problem(inputs::uniform_schedule(Rule::tight, 3, 0, 2), {first, second});
  const Selection got = span_search(problem.search());
  CHECK(got.scores == std::vector<double>{1.375, 1.25});
  CHECK(got.anchors == std::vector<Index>{22, 14, 29, 26});
  CHECK(got.spans == std::vector<Span>{{8, 15}, {23, 27}});
  CHECK(got.work.front().anchors_scored == 3 + 4 + 2);
  CHECK(got.work.front().keys_attended == 7 + 4);
}

TEST_CASE("The search scale multiplies every score", "[search]") {
  auto problem = scored_problem(tight_pair(2), {std::vector<double>(20, 0)});
  problem.search_keys[16] = 2;
  problem.search_keys[4] = -1;
  problem.search_scale = -0.5;
  const Selection got = span_search(problem.search());
  CHECK(got.anchors == std::vector<Index>{4, 11});
  CHECK(got.scores == std::vector<double>{0.5, 0});
}

TEST_CASE("A NaN score is never kept", "[search]") {
  std::vector<double> scores{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, kNaN, 0, 0, 0, 0, 2, 0, 0, 3};
  const Selection got = span_search(scored_problem(tight_pair(4), {scores}).search());
  CHECK(got.count == std::vector<Index>{3});
  CHECK(got.anchors == std::vector<Index>{19, 16, 4, -1});
  CHECK(got.work.front().anchors_scored == 4);

  scores[19] = scores[16] = scores[4] = kNaN;
  const Selection none = span_search(scored_problem(tight_pair(2), {scores}).search());
  CHECK(none.count == std::vector<Index>{0});
  CHECK(none.spans == std::vector<Span>{{0, 0}, {0, 0}});
  CHECK(none.scores == std::vector<double>{-kInfinity, -kInfinity});
  CHECK(none.anchors == std::vector<Index>{-1, -1});
  CHECK(none.work.front().anchors_scored == 4);
  CHECK(none.work.front().keys_attended == 0);
}

TEST_CASE("NaN scores at the first level leave the others' children to search", "[search]") {
  std::vector<double> first(30, 0);
  first[29] = first[3] = kNaN;
  const auto problem = scored_problem(inputs::uniform_schedule(Rule::tight, 3, 0, 8),
                                      {first, std::vector<double>(30, 0)});
  const Selection got = span_search(problem.search());
  CHECK(got.count == std::vector<Index>{4});
  CHECK(got.work.front().anchors_scored == 3 + 4);
  CHECK(agrees(got, problem));
}

TEST_CASE("Infinite scores are ordered, and their difference is not kept", "[search]") {
  std::vector<double> scores(20, 0);
  scores[16] = kInfinity;
  scores[4] = -kInfinity;
  scores[19] = -1e300;
  const Selection got = span_search(scored_problem(tight_pair(4), {scores}).search());
  CHECK(got.count == std::vector<Index>{4});
  CHECK(got.anchors == std::vector<Index>{16, 11, 19, 4});
  CHECK(got.scores == std::vector<double>{kInfinity, 0, -1e300, -kInfinity});

  // Level 1 gives +inf to [23, 30), level 2 gives -inf to its anchor 26: their sum is a NaN. The
  // products 0 * inf of the other level are kept out by scoring one array at both levels.
  Shape sizes;
  sizes.queries = 1;
  sizes.keys = 30;
  sizes.query_offset = 29;
  sizes.head_dim = 1;
  auto problem = inputs::random_problem(inputs::uniform_schedule(Rule::tight, 3, 0, 8), sizes, 5);
  problem.routing = {{1}, {1}};
  std::fill(problem.search_keys.begin(), problem.search_keys.end(), 0.0);
  problem.search_keys[29] = kInfinity;
  problem.search_keys[26] = -kInfinity;
  const Selection sums = span_search(problem.search());
  CHECK(sums.anchors[0] == 29);
  CHECK(sums.anchors[1] == 29);
  CHECK(sums.scores[0] == kInfinity);
  CHECK(sums.count == std::vector<Index>{1 + 4 + 2});  // 29; four in [4, 23); 3 and 0 in [0, 4)
  CHECK(agrees(sums, problem));
}

TEST_CASE("Fewer anchors than top_k are all kept", "[search]") {
  const auto problem = inputs::random_problem(tight_pair(9), inputs::grouped_sizes(3, 9, 0, 0), 21);
  const Selection got = span_search(problem.search());
  CHECK(agrees(got, problem));
  for (Index i = 0; i < 9; ++i) {
    CAPTURE(i);
    CHECK(got.count[at(i)] == (i + 1 >= 9 ? 3 : i + 1 >= 4 ? 2 : 1));
  }
}

TEST_CASE("One key has one path, and a window may leave none", "[search]") {
  const auto one = scored_problem(tight_pair(2), {{0.5}});
  const Selection single = span_search(one.search());
  CHECK(single.count == std::vector<Index>{1});
  CHECK(single.spans == std::vector<Span>{{0, 1}, {0, 0}});
  CHECK(single.scores == std::vector<double>{0.5, -kInfinity});
  CHECK(single.anchors == std::vector<Index>{0, -1});
  CHECK(single.work.front().total() == 2);

  for (const Rule rule : {Rule::tight, Rule::power, Rule::even, Rule::aligned}) {
    CAPTURE(to_string(rule));
    auto problem =
        inputs::random_problem(inputs::uniform_schedule(rule, 2, 2, 2),
                               inputs::grouped_sizes(3, 12, 0, 0), 22, Values::exact, {0, 6});
    const Selection got = span_search(problem.search());
    CHECK(agrees(got, problem));
    CHECK(got.count[0] == 0);
    CHECK(got.work[0].anchors_scored == 0);
    CHECK(got.work[0].keys_attended == 1);
    const std::size_t padding = at(problem.sizes.rows()) - 12 + 5;  // position 5, before start
    CHECK(got.count[padding] == 0);
    CHECK(got.work[padding].total() == 0);
  }
}

TEST_CASE("One step has no search: every eligible key is in the window", "[search]") {
  const auto problem = inputs::random_problem(
      preset_schedule("nstep", 1), inputs::grouped_sizes(3, 5, 3, 1), 23, Values::exact, {0, 4});
  const Selection got = span_search(problem.search());
  CHECK(got.levels == 0);
  CHECK(got.anchors.empty());
  CHECK(std::count(got.count.begin(), got.count.end(), 0) == problem.sizes.rows());
  CHECK(got.work[1].keys_attended == 5);
  CHECK(got.work[at(problem.sizes.rows() - 4)].keys_attended == 1);
}

TEST_CASE("Padding and a spare tail may hold NaN", "[search]") {
  for (const char* name : {"nstep", "even", "aligned"}) {
    const auto clean = inputs::random_problem(
        preset_schedule(name, 3), inputs::grouped_sizes(3, 20, 10, 6), 24, Values::exact, {4, 13});
    auto dirty = clean;
    for (Index row = 0; row < 4; ++row) {  // [batch, num_kv_heads]
      for (Index j = 0; j < 36; ++j) {
        if (j >= clean.start_of(row / 2) && j < 30) continue;
        for (Index c = 0; c < 3; ++c) dirty.search_keys[at((row * 36 + j) * 3 + c)] = kNaN;
      }
    }
    const Selection want = span_search(clean.search());
    const Selection got = span_search(dirty.search());
    CHECK(got.count == want.count);
    CHECK(got.spans == want.spans);
    CHECK(got.anchors == want.anchors);
    CHECK(inputs::same_bits(got.scores, want.scores));
  }
}

TEST_CASE("Scores of float inputs are summed in double", "[search]") {
  const auto problem =
      inputs::random_problem(preset_schedule("nstep", 3), inputs::grouped_sizes(3, 30, 5, 0), 25);
  const auto single = inputs::converted<float>(problem);
  CHECK(agrees(span_search(single.search()), single));
  CHECK(
      inputs::same_bits(span_search(single.search()).scores, span_search(problem.search()).scores));
}
