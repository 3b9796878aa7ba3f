#include "multistep/judge.hpp"
#include "multistep/walk.hpp"
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

/// A search problem and what is submitted for it; the right answer to begin with.
struct Submitted {
  Problem<float> problem;
  Selection selection;
  bool told = true;  // the anchors

  explicit Submitted(const Schedule& schedule, Index queries = 1, Index keys = 400)
      : problem(problem_of(schedule, queries, keys)), selection(span_search(problem.search())) {}

  static Problem<float> problem_of(const Schedule& schedule, Index queries, Index keys) {
    Shape sizes;
    sizes.num_heads = 2;
    sizes.queries = queries;
    sizes.keys = keys;
    sizes.query_offset = keys - queries;
    sizes.head_dim = 16;
    return inputs::converted<float>(inputs::random_problem(schedule, sizes, 31, Values::rough));
  }

  SelectionReport judge() const {
    return judge_selection<float>({problem.search(), selection.spans.data(),
                                   selection.scores.data(),
                                   told ? selection.anchors.data() : nullptr});
  }

  /// Puts the path along `anchors` into a slot, with its true span and score.
  void choose(Index slot, const std::vector<Index>& anchors) {
    const Index row = slot / selection.top_k;
    const Index t = problem.position_of(row);
    multistep::Segment segment = problem.plan.searched(t, 0);
    double score = 0;
    for (Index m = 1; m < problem.plan.steps(); ++m) {
      const Index anchor = anchors[at(m - 1)];
      segment = Choices(problem.plan, m, segment).at_key(anchor).value().span;
      score += naive::dot(problem.routing[at(m - 1)], row, problem.searched(),
                          problem.kv_row(row, anchor), problem.sizes.head_dim);
      selection.anchors[at(slot * selection.levels + m - 1)] = anchor;
    }
    selection.spans[at(slot)] = segment;
    selection.scores[at(slot)] = score;
  }

  void clear(Index slot) {
    selection.spans[at(slot)] = {};
    selection.scores[at(slot)] = -kInfinity;
    for (Index m = 0; m < selection.levels; ++m) {
      selection.anchors[at(slot * selection.levels + m)] = -1;
    }
  }
};

Schedule paper(Index top_k) {
  Schedule schedule = preset_schedule("paper");
  schedule.window_index = 3;
  schedule.top_k = top_k;
  return schedule;
}

}  // namespace

TEST_CASE("the oracle's own selection passes, whatever the schedule", "[judge]") {
  check_property("any schedule, start and offset; ties among the scores", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    Random random(seed);
    const Schedule schedule = inputs::random_schedule(random);
    const Shape sizes = inputs::grouped_sizes(3, 1 + random.below(8), random.below(40), 1);
    const Values values = random.below(2) ? Values::coarse : Values::rough;
    const auto problem =
        inputs::random_problem(schedule, sizes, seed, values, {random.below(9), random.below(9)});
    const Selection selection = span_search(problem.search());
    for (const bool told : {true, false}) {
      const SelectionReport report = judge_selection<double>(
          {problem.search(), selection.spans.data(), selection.scores.data(),
           told ? selection.anchors.data() : nullptr});
      RC_ASSERT(report.pass());
      RC_ASSERT(report.regret == 0);
      RC_ASSERT(report.score_error == 0);
      RC_ASSERT(report.histogram[0] == sizes.rows());
    }
  });
}

TEST_CASE("a right selection has no regret and no error", "[judge]") {
  for (const bool told : {true, false}) {
    Submitted submission(paper(3), 5);
    submission.told = told;
    for (double& score : submission.selection.scores) score = static_cast<float>(score);
    const SelectionReport report = submission.judge();
    CHECK(report.pass());
    CHECK(report.rows == 10);
    CHECK(report.paths == 30);
    CHECK(report.score_error > 0);
    CHECK(report.score_error < 0.5);
    CHECK(report.mean_score_error < report.score_error);
  }
}

TEST_CASE("wrong selections fail", "[judge]") {
  Submitted wrong(paper(3));
  Selection& s = wrong.selection;
  const auto last = s.top_k - 1;  // slot of row 0
  SECTION("a dropped path") {
    wrong.clear(last);
    CHECK(wrong.judge().missing == 1);
  }
  SECTION("the best path dropped, the others moved up") {
    for (Index slot = 0; slot < last; ++slot) wrong.choose(slot, {s.anchors[at(slot + 1)]});
    wrong.clear(last);
    CHECK(wrong.judge().missing == 1);
  }
  SECTION("a hole among the paths") {
    wrong.clear(1);
    CHECK(wrong.judge().unclean == 1);
  }
  SECTION("a shifted span") {
    ++s.spans[1].begin;
    CHECK(wrong.judge().not_candidates == 1);
  }
  SECTION("a span one longer") {
    ++s.spans[1].end;
    CHECK(wrong.judge().not_candidates == 1);
  }
  SECTION("a span past the query") {
    s.spans[0] = {398, 401};
    CHECK(wrong.judge().out_of_range == 1);
  }
  SECTION("a duplicated path") {
    wrong.choose(2, {s.anchors[1]});
    CHECK(wrong.judge().duplicates == 1);
  }
  SECTION("an anchor that is no candidate") {
    ++s.anchors[1];
    CHECK(wrong.judge().not_candidates == 1);
  }
  SECTION("an anchor in the window") {
    s.anchors[0] = 399;
    CHECK(wrong.judge().not_candidates == 1);
  }
  SECTION("a wrong score") {
    s.scores[0] += 1e-3;
    CHECK(wrong.judge().wrong_scores == 1);
  }
  SECTION("the right paths in the wrong order") {
    const std::vector<Index> best(s.anchors.begin(), s.anchors.begin() + 2);
    wrong.choose(0, {best[1]});
    wrong.choose(1, {best[0]});
    CHECK(wrong.judge().unordered == 1);
  }
  SECTION("a NaN score") {
    s.scores[2] = kNaN;
    CHECK(wrong.judge().nans == 1);
  }
  SECTION("an infinite score") {
    s.scores[0] = kInfinity;
    CHECK(wrong.judge().infs == 1);
  }
  SECTION("a path beside the window") {
    wrong.clear(0);
    wrong.clear(1);
    wrong.clear(2);
    s.spans[0] = {399, 400};
    CHECK(wrong.judge().unclean == 1);
  }
  CHECK_FALSE(wrong.judge().pass());
  CHECK(wrong.judge().worst_row == 0);
}

TEST_CASE("a worse choice is regretted", "[judge]") {
  for (const bool told : {true, false}) {
    Submitted wrong(paper(2));
    wrong.told = told;
    const Selection three = Submitted(paper(3)).selection;
    wrong.choose(3, {three.anchors[5]});  // row 1: the third best instead of the second
    const SelectionReport report = wrong.judge();
    CHECK_FALSE(report.pass());
    CHECK(report.regretted == 1);
    CHECK(report.missing == 1);
    CHECK(report.wrong_scores == 0);
    CHECK(report.worst_row == 1);
    CHECK(report.regret > 1);
    CHECK(report.regret_score == Approx(three.scores[4] - three.scores[5]));
    CHECK(report.histogram[5] == 1);
    CHECK(report.histogram[0] == 1);
  }
}

TEST_CASE("a wrong span is found without anchors too", "[judge]") {
  Submitted wrong(paper(3));
  wrong.told = false;
  SECTION("shifted") { --wrong.selection.spans[0].begin; }
  SECTION("twice") {
    wrong.selection.spans[2] = wrong.selection.spans[1];
    wrong.selection.scores[2] = wrong.selection.scores[1];
  }
  SECTION("dropped") { wrong.clear(2); }
  SECTION("with another path's score") { wrong.selection.scores[1] = wrong.selection.scores[0]; }
  CHECK_FALSE(wrong.judge().pass());
}

TEST_CASE("near-ties may fall either way, further ones may not", "[judge]") {
  // One anchor scores 1, another 1 - gap, the rest 0; the second is chosen.
  for (const double gap : {0x1p-24, 0.1}) {
    Submitted submission(paper(1));
    Problem<float>& problem = submission.problem;
    problem.sizes.num_heads = 1;
    problem.sizes.head_dim = 1;
    problem.routing[0] = {1};
    problem.query = {1};
    problem.search_keys.assign(400, 0);
    submission.selection = span_search(problem.search());
    const Index oldest = submission.selection.anchors[0];  // of equals, the smaller key wins
    const Index newest = (*Choices(problem.plan, 1, multistep::Segment({0, 400})).begin()).key;
    problem.search_keys[at(oldest)] = 1;
    problem.search_keys[at(newest)] = static_cast<float>(1 - gap);
    submission.choose(0, {newest});
    const SelectionReport report = submission.judge();
    CHECK(report.pass() == (gap < 1e-6));
    CHECK(report.regret > 0);
  }
}

TEST_CASE("inner levels are held against every parent that rounding may keep", "[judge]") {
  Submitted three(preset_schedule("nstep", 3), 3);
  CHECK(three.judge().pass());
  SECTION("a path through a parent that no rounding keeps") {
    // The newest stripe's parent has one key, its own anchor.
    const Index t = three.problem.position_of(2);
    bool kept = false;
    for (Index slot = 4; slot < 6; ++slot) kept |= three.selection.anchors[at(2 * slot)] == t;
    REQUIRE_FALSE(kept);
    three.choose(5, {t, t});
    CHECK(three.judge().regretted == 1);
  }
  SECTION("an inner anchor outside its parent") {
    three.selection.anchors[3] = three.selection.anchors[0] == 0 ? 399 : 0;
    CHECK(three.judge().not_candidates == 1);
  }
  CHECK_FALSE(three.judge().pass());
}

TEST_CASE("a good end does not excuse a parent that no rounding keeps", "[judge]") {
  Schedule schedule = preset_schedule("nstep", 3);
  schedule.top_k = 1;
  Submitted wrong(schedule);
  const double best = wrong.selection.scores[0];
  const Index kept = wrong.selection.anchors[0];
  const StripePlan& plan = wrong.problem.plan;
  bool better = false;
  for (const Choice outer : Choices(plan, 1, plan.searched(399, 0))) {
    for (const Choice inner : Choices(plan, 2, outer.span)) {
      if (outer.key == kept || better) break;
      wrong.choose(0, {outer.key, inner.key});
      better = wrong.selection.scores[0] > best;
    }
  }
  REQUIRE(better);
  const SelectionReport report = wrong.judge();
  CHECK(report.regretted == 1);
  CHECK(report.regret_score == 0);
  CHECK_FALSE(report.pass());
}

TEST_CASE("below a tie that leaves no path sure, siblings are still told apart", "[judge]") {
  // All anchors of level 1 score 0: any may be kept, and none must be.
  Schedule schedule = preset_schedule("nstep", 3);
  const Index top_k = GENERATE(1, 2);
  schedule.top_k = top_k;
  Submitted tied(schedule);
  for (float& value : tied.problem.routing[0]) value = 0;
  tied.selection = span_search(tied.problem.search());
  tied.told = GENERATE(true, false);
  CHECK(tied.judge().pass());
  const StripePlan& plan = tied.problem.plan;
  SECTION("another parent with its best children") {
    Index outer = 0;
    std::vector<std::pair<double, Index>> children;
    for (const Choice one : Choices(plan, 1, plan.searched(399, 0))) {
      if (Choices(plan, 2, one.span).size() <= std::ssize(children)) continue;
      outer = one.key;
      children.clear();
      for (const Choice inner : Choices(plan, 2, one.span)) {
        tied.choose(0, {outer, inner.key});
        children.emplace_back(tied.selection.scores[0], inner.key);
      }
    }
    REQUIRE(std::ssize(children) > top_k);
    std::sort(children.rbegin(), children.rend());
    const auto submit = [&](Index slot, Index rank) {
      tied.choose(slot, {outer, children[at(rank)].second});
    };
    for (Index slot = 0; slot < top_k; ++slot) submit(slot, slot);
    CHECK(tied.judge().pass());
    submit(top_k - 1, std::ssize(children) - 1);  // its worst child, which nobody keeps
    CHECK(tied.judge().regretted == 1);
    CHECK_FALSE(tied.judge().pass());
  }
  SECTION("no path at all") {
    for (Index slot = 0; slot < top_k; ++slot) tied.clear(slot);
    CHECK(tied.judge().missing > 0);
  }
}

TEST_CASE("regrets fall into their bins", "[judge]") {
  CHECK(regret_bin(0) == 0);
  CHECK(regret_bin(1e-9) == 1);
  CHECK(regret_bin(0.125) == 1);
  CHECK(regret_bin(0.126) == 2);
  CHECK(regret_bin(0.5) == 3);
  CHECK(regret_bin(1) == 4);
  CHECK(regret_bin(1.0001) == 5);
  CHECK(regret_bin(kInfinity) == 5);
  CHECK(regret_bin_name(5) == "over 1");
  CHECK_THROWS_AS(regret_bin_name(6), std::invalid_argument);
}
