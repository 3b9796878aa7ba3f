#include <fmt/core.h>

#include <array>

#include "judge/honest_gradients.hpp"
#include "support/catch.hpp"

using namespace multistep;
using honest::Backward;
using honest::BackwardRun;
using honest::Fault;
using honest::GradientCase;
using inputs::at;
using inputs::kNaN;
using Names = std::vector<std::string>;

namespace {

struct Refused {
  Index cases = 0;
  double ratio = 0;  // the largest of errors to limits
};

Refused refused_of(const Backward& kernel, std::uint64_t first, Index cases) {
  const inputs::Threads one(1);
  Refused refused;
  for (Index i = 0; i < cases; ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    const GradientCase of = honest::random_case(seed);
    BackwardRun run(kernel, of);
    run.compute();
    const JudgeReport report = honest::judged(of, run, 64);
    for (const StageReport& stage : report.stages) {
      refused.ratio = std::max(refused.ratio, stage.values.ratio);
    }
    if (report.pass()) continue;
    ++refused.cases;
    const Shape& sizes = of.problem.sizes;
    fmt::print("{}, seed {}, storage {} queries {} d {} keys {}\n{}\n", kernel.name, seed,
               static_cast<int>(of.storage), sizes.queries, sizes.head_dim, sizes.keys,
               report.table());
  }
  return refused;
}

/// 60 queries of four heads over two KV heads, in bf16, N = 3 with a window, and derivatives by
/// all that attention() returns. The last keys of every head are behind the newest query.
GradientCase some_case(bool searches_keys = false, Index top_k = 2) {
  Schedule schedule = preset_schedule("nstep", 3);
  schedule.window_index = 2;
  schedule.top_k = top_k;
  Shape sizes;
  sizes.num_heads = 4;
  sizes.num_kv_heads = 2;
  sizes.queries = 60;
  sizes.query_offset = 300;
  sizes.keys = 364;
  sizes.head_dim = 32;
  GradientCase of{Storage::bfloat16,
                  inputs::converted<float>(
                      inputs::random_problem(schedule, sizes, 5, inputs::Values::rough, {2})),
                  {},
                  {},
                  {},
                  {},
                  {}};
  if (searches_keys) of.problem.search_keys.clear();
  inputs::Random random(6);
  of.d_output = random.tensor(sizes.rows() * sizes.head_dim, inputs::Values::rough);
  of.d_scores = random.tensor(sizes.rows() * top_k, inputs::Values::rough);
  of.d_lse = random.tensor(sizes.rows() * top_k, inputs::Values::rough);
  of.d_window_lse = random.tensor(sizes.rows(), inputs::Values::rough);
  of.store();
  of.search();
  return of;
}

const Backward& some_kernel() {
  static const Backward kernel = honest::backwards()[2];
  return kernel;
}

BackwardRun run_of(const GradientCase& of, Fault fault = Fault::none) {
  BackwardRun run(some_kernel(), of, fault);
  run.compute();
  return run;
}

Names failing(const JudgeReport& report) {
  Names names;
  for (const StageReport& stage : report.stages) {
    if (!stage.pass()) names.push_back(stage.name);
  }
  return names;
}

const StageReport& stage_of(const JudgeReport& report, std::string_view name) {
  for (const StageReport& stage : report.stages) {
    if (stage.name == name) return stage;
  }
  throw std::invalid_argument("no stage " + std::string(name));
}

}  // namespace

TEST_CASE("the judge passes right gradients, whatever they round where", "[judge]") {
  for (const Backward& kernel : honest::backwards()) {
    CAPTURE(kernel.name);
    CHECK(refused_of(kernel, 1, 20).cases == 0);
    for (const std::uint64_t telling : {1030, 1048, 1111, 1122, 1134, 1147}) {
      CHECK(refused_of(kernel, telling, 1).cases == 0);
    }
  }
}

// The rates that the documents state: unit_tests "[judge-gradient-rates]".
TEST_CASE("of a thousand cases of each right backward the judge refuses hardly one",
          "[.][judge-gradient-rates]") {
  Index all = 0;
  for (const Backward& kernel : honest::backwards()) {
    const Refused refused = refused_of(kernel, 1000, 1000);
    fmt::print("{:32} {:3} refused of 1000; largest ratio {:.2f}\n", kernel.name, refused.cases,
               refused.ratio);
    std::fflush(stdout);
    CHECK(refused.cases <= 1);
    all += refused.cases;
  }
  CHECK(all <= 2);
}

TEST_CASE("right gradients pass, and the verdict says what was looked at", "[judge]") {
  const GradientCase of = some_case();
  const BackwardRun run = run_of(of);
  const JudgeReport whole = honest::judged(of, run);
  CHECK(failing(whole).empty());
  CHECK(whole.stages.size() == 5);
  CHECK(whole.verdict() == "PASS, 240 of 240 rows and 728 of 728 keys looked at");
  CHECK(stage_of(whole, "d routing queries").values.rows == 480);
  CHECK_THAT(whole.json(), ContainsSubstring("\"keys_of\":728"));

  const JudgeReport some = honest::judged(of, run, 20);
  CHECK(some.pass());
  CHECK(some.rows == 20);
  CHECK(some.keys == 20);
  CHECK(some.verdict() == "PASS, 20 of 240 rows and 20 of 728 keys looked at");

  SubmittedGradients<float> submitted = run.submitted();
  submitted.query = submitted.value = submitted.search_keys = nullptr;
  submitted.routing_queries.clear();
  const JudgeReport part =
      judge_gradients(submitted, of.storage, honest::first_rows(3), honest::first_rows(3));
  CHECK(part.pass());
  const JudgeReport both = with_gradients(whole, part);
  CHECK(both.stages.size() == 6);
  CHECK(both.keys == 3);
  CHECK(part.not_supplied == Names{"d query", "d routing queries", "d value", "d search keys"});
}

TEST_CASE("what is wrong with gradients fails where it is", "[judge]") {
  struct Wrong {
    Fault fault;
    Names failing;
    bool searches_keys = false;
  };
  const Names all{"d query", "d routing queries", "d key", "d value", "d search keys"};
  const Names of_attention{"d query", "d key", "d value"};
  const Names of_search{"d routing queries", "d search keys"};
  const Wrong list[] = {
      {Fault::tile_missing, {"d key"}},
      {Fault::delta_of_other, {"d query", "d routing queries", "d key", "d search keys"}},
      {Fault::window_of_each, of_attention},
      {Fault::neighbour_range, all},
      {Fault::no_scale, {"d query"}},
      {Fault::no_gate_gradient, of_search},
      {Fault::gate_without_mean, of_search},
      {Fault::wrong_level, {"d routing queries"}},
      {Fault::wrong_level_of_keys, {"d search keys"}},
      {Fault::not_finite, {"d key"}},
      {Fault::unselected, {"d value"}},
      {Fault::lost_query, {"d value"}},
      {Fault::lost_anchor, {"d search keys"}},
      {Fault::no_share, of_attention},
      {Fault::lse_ignored, {"d query", "d key"}},
      {Fault::scores_ignored, of_search},
      {Fault::search_part_missing, {"d key"}, true},
      {Fault::search_part_missing, {}},
      {Fault::head_swapped, {"d query"}},
      {Fault::none, {}},
      {Fault::none, {}, true},
  };
  for (const Wrong& wrong : list) {
    CAPTURE(static_cast<int>(wrong.fault), wrong.searches_keys);
    const GradientCase of = some_case(wrong.searches_keys);
    const JudgeReport report = honest::judged(of, run_of(of, wrong.fault));
    CHECK(failing(report) == wrong.failing);
    CHECK(report.pass() == wrong.failing.empty());
  }
}

TEST_CASE("a wrong value of a gradient is named", "[judge]") {
  const GradientCase of = some_case();
  BackwardRun run = run_of(of);
  run.key[at((364 + 310) * 32 + 7)] *= 1.5;
  run.query[at((3 * 60 + 11) * 32 + 9)] *= 1.5;
  run.routing[1][at((2 * 60 + 12) * 32 + 5)] *= 1.5;
  const JudgeReport report = honest::judged(of, run);
  CHECK(failing(report) == Names{"d query", "d routing queries", "d key"});
  CHECK_THAT(report.table(), ContainsSubstring("FAIL  key 310 head 1 dim 7"));
  CHECK_THAT(report.table(), ContainsSubstring("FAIL  query 311 head 3 dim 9"));
  CHECK_THAT(report.table(), ContainsSubstring("FAIL  query 312 head 2 level 2 dim 5"));
  CHECK_THAT(report.json(), ContainsSubstring("\"worst\":{\"batch\":0,\"head\":1,\"key\":310"));
}

TEST_CASE("a head of a gradient that is a hundredth too large fails in the mean", "[judge]") {
  const GradientCase of = some_case();
  BackwardRun run = run_of(of);
  for (Index i = 0; i < 364 * 32; ++i) run.value[at(i)] *= 1.01;
  JudgeReport report = honest::judged(of, run);
  CHECK(failing(report) == Names{"d value"});
  CHECK(stage_of(report, "d value").values.wrong_heads == 1);
  for (Index i = 364 * 32; i < 2 * 364 * 32; ++i) run.value[at(i)] *= 1.01;
  report = honest::judged(of, run);
  CHECK(stage_of(report, "d value").values.wrong_heads == 2);
}

TEST_CASE("all rows and keys are looked at, sampled or not", "[judge]") {
  const GradientCase of = some_case();
  BackwardRun run = run_of(of);
  const std::vector<Index> some{0, 1};  // queries; keys before start 2
  const auto judged = [&] { return judge_gradients(run.submitted(), of.storage, some, some); };
  REQUIRE(judged().pass());
  const Index behind = 360;  // the newest query stands at 359
  SECTION("a key behind the last query") {
    run.key[at(behind * 32)] = -1e-30;
    CHECK(failing(judged()) == Names{"d key"});
    CHECK(stage_of(judged(), "d key").whole.not_zero == 1);
    CHECK_THAT(judged().table(), ContainsSubstring("not 0 where nobody looked"));
  }
  SECTION("a NaN there") {
    run.value[at(behind * 32)] = kNaN;
    CHECK(failing(judged()) == Names{"d value"});
  }
  SECTION("an anchor of no path") {
    run.search_keys[at(behind * 32 + 1)] = 1e-30;
    CHECK(failing(judged()) == Names{"d search keys"});
  }
  SECTION("NaN and infinity elsewhere") {
    run.key[at(320 * 32)] = kNaN;
    run.query[at(55 * 32)] = -inputs::kInfinity;
    CHECK(failing(judged()) == Names{"d query", "d key"});
    CHECK(stage_of(judged(), "d query").whole.not_finite == 1);
  }
  SECTION("minus zero is 0") {
    run.key[at(behind * 32)] = -0.0;
    CHECK(judged().pass());
  }
}

TEST_CASE("queries without keys or paths have gradient 0", "[judge]") {
  GradientCase of = some_case();
  of.problem.start = {303};  // queries 300 to 302 have no key
  of.search();
  REQUIRE(of.selection.count[0] == 0);
  BackwardRun run = run_of(of);
  const std::vector<Index> some{50};
  const auto judged = [&] { return judge_gradients(run.submitted(), of.storage, some, some); };
  CHECK(honest::judged(of, run).pass());
  run.query[32 + 4] = 1e-30;
  run.routing[0][3] = 1e-30;
  CHECK(failing(judged()) == Names{"d query", "d routing queries"});
}

TEST_CASE("a NaN is judged in gradients where it may be, and nowhere else", "[judge]") {
  GradientCase of = some_case();
  const Index row = 40;
  SECTION("in a query") { of.problem.query[at(row * 32 + 3)] = static_cast<float>(kNaN); }
  SECTION("in a derivative by the output") { of.d_output[at(row * 32)] = kNaN; }
  SECTION("in a value") { of.problem.value[at(320 * 32)] = static_cast<float>(kNaN); }
  BackwardRun run(honest::backwards().back(), of);  // the oracle's own, rounded once
  run.compute();
  CHECK(honest::judged(of, run).pass());
  run.query[at(100 * 32)] = kNaN;  // another head's, in the same group
  CHECK(failing(honest::judged(of, run)) ==
        (std::isnan(of.problem.value[320 * 32]) ? Names{} : Names{"d query"}));
}

TEST_CASE("a weight that is a subnormal number may be flushed", "[judge]") {
  GradientCase of = some_case();
  Shape sizes;
  sizes.query_offset = 1;
  sizes.queries = 1;
  sizes.keys = 2;
  sizes.head_dim = 4;
  of.problem = inputs::converted<float>(
      inputs::random_problem(preset_schedule("nstep", 1), sizes, 5, inputs::Values::rough));
  std::copy_n(std::array{10.0F, 0.0F, 0.0F, 0.0F}.begin(), 4, of.problem.query.begin());
  of.problem.key.assign(8, 0);
  of.problem.key[0] = -17.625F;  // a logit of -88.1: exp() is 2^-127.1
  of.d_output.assign(4, 100);
  of.d_lse = of.d_scores = of.d_window_lse = {};
  of.search();
  const auto kernels = honest::backwards();
  const auto flushing = std::find_if(kernels.begin(), kernels.end(),
                                     [](const Backward& kernel) { return kernel.flushing; });
  BackwardRun run(*flushing, of);
  run.compute();
  CHECK(run.value[0] == 0);
  CHECK(honest::judged(of, run).pass());
  of.problem.key[0] = -17.0F;
  run.compute();
  REQUIRE(run.value[0] > 0);
  CHECK(honest::judged(of, run).pass());
  run.value[0] = 0;
  CHECK(failing(honest::judged(of, run)) == Names{"d value"});
}

TEST_CASE("gradients that float16 takes for 0 pass", "[judge]") {
  GradientCase of = some_case();
  of.storage = Storage::float16;
  for (double& x : of.d_output) x *= 0x1p-16;
  of.d_scores.clear();
  of.d_lse.clear();
  of.d_window_lse.clear();
  of.store();
  of.search();
  for (const Backward& kernel : honest::backwards()) {
    CAPTURE(kernel.name);
    BackwardRun run(kernel, of);
    run.compute();
    CHECK(honest::judged(of, run).pass());
  }
}

TEST_CASE("gradients are judged at the selection that was submitted", "[judge]") {
  GradientCase of = some_case();
  const Selection own = of.selection;
  for (Index row = 0; row < 240; ++row) {  // the other way round, other scores, one path fewer
    std::swap(of.selection.spans[at(2 * row)], of.selection.spans[at(2 * row + 1)]);
    std::swap_ranges(of.selection.anchors.begin() + 4 * row,
                     of.selection.anchors.begin() + 4 * row + 2,
                     of.selection.anchors.begin() + 4 * row + 2);
    of.selection.scores[at(2 * row)] += 0.5;
    if (row % 7 == 0) of.selection.count[at(row)] = 1;
    if (row % 5 == 0) of.selection.spans[at(2 * row)] = {};  // a path to no key
    const Index position = of.problem.position_of(row);
    if (row % 5 == 1) of.selection.spans[at(2 * row)] = {position - 30, position + 1};
  }
  const BackwardRun run = run_of(of);
  CHECK(honest::judged(of, run).pass());
  of.selection = own;
  CHECK(honest::judged(of, run).stages.size() == failing(honest::judged(of, run)).size());
}

TEST_CASE("the judge of gradients gives the same whatever the number of threads", "[judge]") {
  const GradientCase of = some_case(true, 3);
  const BackwardRun run = run_of(of);
  const auto told = [&](int threads) {
    const inputs::Threads these(threads);
    return honest::judged(of, run, 100).json();
  };
  CHECK(told(1) == told(3));
}

TEST_CASE("a sample of keys has the telling ones", "[judge]") {
  const GradientCase of = some_case();
  const Shape shape = of.problem.shape();
  const auto sample = [&](Index count) {
    return sample_keys(shape, of.problem.plan, of.selection, count, 3);
  };
  CHECK(sample(728) == honest::first_rows(728));
  CHECK(sample(9999).size() == 728);
  const std::vector<Index> some = sample(40);
  CHECK(some.size() == 40);
  CHECK(std::is_sorted(some.begin(), some.end()));
  CHECK(std::adjacent_find(some.begin(), some.end()) == some.end());
  const auto has = [&](Index key) { return std::binary_search(some.begin(), some.end(), key); };
  const Span window = of.problem.plan.window(359, 2);
  for (const Index key : {Index{0}, Index{2}, Index{359}, Index{364 + 359}, Index{364 + 2},
                          window.begin - 1, Index{64}, Index{364 + 63}}) {
    CAPTURE(key);
    CHECK((has(key) || has(key + 364) || has(key - 364)));
  }
  CHECK(has(359));
  CHECK(has(364 + 359));
  CHECK(has(0));  // nobody looks at it
  std::vector<Index> anchored(728, 0);
  for (Index row = 0; row < 240; ++row) {
    for (Index i = 0; i < of.selection.count[at(row)] * 2; ++i) {
      ++anchored[at(row / 120 * 364 + of.selection.anchors[at(row * 4 + i)])];
    }
  }
  CHECK(has(std::max_element(anchored.begin(), anchored.begin() + 364) - anchored.begin()));
  CHECK(sample(40) == some);
  CHECK(sample_keys(shape, of.problem.plan, of.selection, 40, 4) != some);
}

TEST_CASE("slots become a selection", "[judge]") {
  GradientCase of = some_case();
  of.problem.start = {303};  // queries 300 to 302 have no path
  of.search();
  const Selection& want = of.selection;
  Submission given;
  given.spans = want.spans.data();
  given.scores = want.scores.data();
  given.anchors = want.anchors.data();
  const Selection got = selection_of(given, 240, 2, 2);
  CHECK(got.count == want.count);
  CHECK(got.spans == want.spans);
  CHECK(got.scores == want.scores);
  CHECK(got.anchors == want.anchors);
  CHECK(selection_of({}, 5, 1, 0).count == std::vector<Index>(5, 0));
  given.anchors = nullptr;
  CHECK_THROWS_WITH(selection_of(given, 240, 2, 2), ContainsSubstring("anchors"));
}

TEST_CASE("what is no submission of gradients is refused", "[judge]") {
  const GradientCase of = some_case();
  const BackwardRun run = run_of(of);
  SubmittedGradients<float> given = run.submitted();
  std::vector<Index> rows{3, 7}, keys{3, 7};
  Selection selection = of.selection;
  given.selection = &selection;
  std::string message;
  SECTION("no selection") {
    given.selection = nullptr;
    message = "selection: a null pointer";
  }
  SECTION("a span of later keys") {
    selection.spans[0] = {290, 302};
    message = "span [290, 302) of query 300";
  }
  SECTION("an anchor before start") {
    selection.anchors[0] = 1;
    message = "anchor 1 of query 300";
  }
  SECTION("one level of two") {
    given.routing_queries.pop_back();
    message = "routing_queries 1";
  }
  SECTION("search keys where K is searched") {
    given.attention.search_keys = nullptr;
    message = "d search keys: a part of d key";
  }
  SECTION("no rows") {
    rows.clear();
    message = "rows: none";
  }
  SECTION("a key that is none") {
    keys.back() = 728;
    message = "keys 728: an integer in [0, 727]";
  }
  SECTION("rows that descend") {
    rows = {7, 3};
    message = "rows: not ascending";
  }
  CHECK_THROWS_WITH(judge_gradients(given, of.storage, rows, keys), ContainsSubstring(message));
}

TEST_CASE("judging gradients can be cancelled", "[judge]") {
  const GradientCase of = some_case();
  const BackwardRun run = run_of(of);
  const std::vector<Index> some{0, 1};
  CHECK_THROWS_AS(
      judge_gradients(run.submitted(), of.storage, some, some, [](Index, Index) { return false; }),
      Cancelled);
}
