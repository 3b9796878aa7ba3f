#include "judge/honest_kernels.hpp"
#include "schedule/property.hpp"

using namespace multistep;
using inputs::at;
using inputs::kNaN;
using inputs::Problem;

namespace {

constexpr double kInf = inputs::kInfinity;

/// 60 queries of two heads over one KV head, in bf16, and what a right kernel hands in for them.
struct Handed {
  Problem<float> problem;
  Storage storage = Storage::bfloat16;
  honest::Run run;

  explicit Handed(Schedule schedule = windowed(), std::uint64_t seed = 5)
      : problem(make(schedule, seed)), run(honest::kernels()[2], problem, Storage::bfloat16) {
    run.compute();
  }
  Handed(const Handed&) = delete;
  Handed& operator=(const Handed&) = delete;

  static Schedule windowed() {
    Schedule schedule = preset_schedule("nstep");
    schedule.window_index = 3;
    return schedule;
  }

  static Problem<float> make(const Schedule& schedule, std::uint64_t seed) {
    Shape sizes;
    sizes.num_heads = 2;
    sizes.queries = 60;
    sizes.keys = 360;
    sizes.query_offset = 300;
    sizes.head_dim = 32;
    auto problem = inputs::converted<float>(
        inputs::random_problem(schedule, sizes, seed, inputs::Values::rough));
    for (auto* array : {&problem.query, &problem.key, &problem.value, &problem.search_keys}) {
      for (float& x : *array) x = round_to(Storage::bfloat16, x);
    }
    for (auto& level : problem.routing) {
      for (float& x : level) x = round_to(Storage::bfloat16, x);
    }
    return problem;
  }

  Submission submission() const { return run.submission(); }
  Submission output_alone() const { return run.output_alone(); }

  JudgeReport judge(const Submission& given) const {
    const std::vector<Index> rows = honest::all_rows(problem);
    Judge judge = judge_sample(problem.attention(), rows, storage, given);
    judge.found("output", AllRows(problem.attention(), storage).output(given.output));
    return judge.report();
  }
};

const StageReport& stage_of(const JudgeReport& report, std::string_view name) {
  for (const StageReport& stage : report.stages) {
    if (stage.name == name) return stage;
  }
  throw std::invalid_argument("no stage " + std::string(name));
}

/// The stages that fail.
std::vector<std::string> failing(const JudgeReport& report) {
  std::vector<std::string> names;
  for (const StageReport& stage : report.stages) {
    if (!stage.pass()) names.push_back(stage.name);
  }
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("a right kernel passes in every stage, and the verdict says what was looked at",
          "[judge]") {
  const Handed handed;
  const JudgeReport whole = handed.judge(handed.submission());
  CHECK(failing(whole).empty());
  CHECK(whole.stages.size() == 7);
  CHECK(whole.not_supplied.empty());
  CHECK(whole.verdict() == "PASS, 120 of 120 rows looked at");
  CHECK(whole.end_to_end_max > 0);
  CHECK(whole.end_to_end_mean < whole.end_to_end_max);

  const JudgeReport alone = handed.judge(handed.output_alone());
  CHECK(alone.pass());
  CHECK(alone.not_supplied.size() == 6);
  CHECK(alone.verdict() == "PASS, 120 of 120 rows looked at, 6 stages not supplied");
  CHECK(alone.table().find("combination             not supplied") != std::string::npos);
  CHECK(alone.json().find("\"undecided\":0") != std::string::npos);

  const std::vector<Index> some{0, 1};
  const Judge judge =
      judge_sample(handed.problem.attention(), some, Storage::bfloat16, handed.submission());
  CHECK(judge.report().pass());
  CHECK(judge.report().rows == 2);
  CHECK(judge.report().rows_of == 120);
}

TEST_CASE("a wrong row, slot or head fails in its own stage, and is named", "[judge]") {
  Handed handed;
  honest::Run& run = handed.run;
  const Index row = 77, slot = 2 * row + 1, d = 32;
  Names want;
  SECTION("an item of zeros") {
    std::fill_n(run.span_outputs.begin() + slot * d, d, 0.0);
    want = {"span attention", "combination"};
  }
  SECTION("an item that counts a key of the window") {
    std::vector<Span> spans(handed.run.spans);
    const Span window = handed.problem.plan.window(handed.problem.position_of(row), 0);
    spans[at(slot)].end = std::min(spans[at(slot)].end, window.begin) + 1;
    const Items items = span_attention<float>({handed.problem.shape(), handed.problem.query.data(),
                                               handed.problem.key.data(),
                                               handed.problem.value.data(), 2, spans.data()});
    std::copy_n(items.output.begin() + slot * d, d, run.span_outputs.begin() + slot * d);
    run.span_lses[at(slot)] = items.lse[at(slot)];
    want = {"span attention", "span lse", "combination"};
  }
  SECTION("a log-sum-exp in base 2") {
    run.span_lses[at(slot)] /= std::log(2.0);
    want = {"span lse", "combination"};
  }
  SECTION("a log-sum-exp that is infinite") {
    run.span_lses[at(slot)] = kInf;
    want = {"span lse", "combination"};
  }
  SECTION("a window of zeros") {
    std::fill_n(run.window_output.begin() + row * d, d, 0.0);
    want = {"window attention", "combination"};
  }
  SECTION("a window's log-sum-exp that is off") {
    run.window_lse[at(row)] += 0.01;
    want = {"window lse"};
  }
  SECTION("an output of zeros") {
    std::fill_n(run.output.begin() + row * d, d, 0.0);
    want = {"combination", "output"};
  }
  SECTION("one value that is NaN") {
    run.output[at(row * d + 7)] = kNaN;
    want = {"combination", "output"};
  }
  SECTION("an output that is a thirtieth too large") {
    for (Index c = 0; c < d; ++c) run.output[at(row * d + c)] *= 1 + 1.0 / 30;
    want = {"combination", "output"};
  }
  SECTION("a span that is shifted") {
    ++run.spans[at(slot)].begin;
    want = {"search", "span attention", "span lse", "output"};
  }
  SECTION("a score that is off") {
    run.scores[at(slot)] -= 0.01;
    want = {"search"};
  }
  SECTION("a span of later keys") {
    run.spans[at(slot)] = {350, 360};
    want = {"search", "span attention", "span lse", "combination", "output"};
  }
  const JudgeReport report = handed.judge(handed.submission());
  CHECK(failing(report) == want);
  CHECK_FALSE(report.pass());
  CHECK(report.verdict().rfind("FAIL, 120 of 120", 0) == 0);
  const StageReport& first = stage_of(report, want.front());
  REQUIRE(first.worst);
  CHECK(first.worst->head == 1);
  CHECK(first.worst->position == 317);
  if (want.front() == "span attention") CHECK(first.slot == 1);
  if (want.front() == "combination") CHECK(first.dim >= 0);
}

TEST_CASE("a head that is a hundredth too large fails in the mean", "[judge]") {
  Handed handed;
  for (Index i = 60 * 32; i < 120 * 32; ++i) handed.run.output[at(i)] *= 1.01;
  const JudgeReport report = handed.judge(handed.submission());
  CHECK(failing(report) == Names{"combination", "output"});
  CHECK(stage_of(report, "output").values.wrong_heads == 1);
  CHECK(stage_of(report, "output").worst.value().head == 1);
}

TEST_CASE("a loud row or channel hides no other", "[judge]") {
  Handed handed;
  for (std::size_t i = 0; i < handed.problem.value.size(); i += 50) {
    handed.problem.value[i] = round_to(Storage::bfloat16, 100 * handed.problem.value[i]);
  }
  handed.run.compute();
  CHECK(handed.judge(handed.submission()).pass());
  for (const Index row : {11, 60, 99}) std::fill_n(handed.run.output.begin() + row * 32, 32, 0.0);
  const JudgeReport report = handed.judge(handed.submission());
  CHECK_FALSE(report.pass());
  CHECK(stage_of(report, "output").values.wrong_rows == 3);
}

TEST_CASE("rows whose selection hangs on rounding are bounded at least", "[judge]") {
  Handed handed;
  handed.problem.search_keys.assign(handed.problem.search_keys.size(), 0);  // all scores tie
  const auto tied = [&](Index row) { return row % 2 == 0; };
  for (Index row = 0; row < 120; ++row) {
    if (!tied(row)) continue;
    std::fill_n(handed.problem.query.begin() + row * 32, 32, 0.0F);
  }
  handed.run.compute();
  const JudgeReport all = handed.judge(handed.output_alone());
  CHECK(all.undecided == 120);
  CHECK_FALSE(all.pass());
  CHECK(all.verdict().rfind("NOTHING JUDGED, 120 of 120 rows looked at, 120 undecided", 0) == 0);
  // With spans and scores they are judged.
  CHECK(handed.judge(handed.submission()).pass());
}

TEST_CASE("of undecided rows no value may exceed all that it can be made of", "[judge]") {
  Handed handed;
  // The oldest key and the newest searched one of every query tie: some rows hang on it.
  for (Index row = 0; row < 120; row += 3) {
    for (auto& level : handed.problem.routing) std::fill_n(level.begin() + row * 32, 32, 0.0F);
  }
  handed.run.compute();
  JudgeReport report = handed.judge(handed.output_alone());
  CHECK(report.undecided == 40);
  CHECK(report.pass());
  CHECK(report.verdict().rfind("PASS, 120 of 120 rows looked at, 40 undecided", 0) == 0);
  report.undecided = 60;
  CHECK(report.pass());
  report.undecided = 61;
  CHECK_FALSE(report.pass());
  CHECK(report.verdict().rfind("TOO FEW JUDGED, 120 of 120 rows looked at, 61 undecided", 0) == 0);
  handed.run.output[3 * 32 + 5] = 1e6;
  report = handed.judge(handed.output_alone());
  CHECK_FALSE(report.pass());
  CHECK(stage_of(report, "output").whole.unbounded == 1);
  CHECK(report.table().find("larger than any value") != std::string::npos);
}

TEST_CASE("a NaN is judged where it may be, and nowhere else", "[judge]") {
  Handed handed;
  const Index row = 40;
  SECTION("in one query") { handed.problem.query[at(row * 32 + 3)] = static_cast<float>(kNaN); }
  SECTION("in one routing query") {
    handed.problem.routing[0][at(row * 32)] = static_cast<float>(kNaN);
  }
  SECTION("in a value") { handed.problem.value[at(320 * 32)] = static_cast<float>(kNaN); }
  SECTION("in a key") { handed.problem.key[at(310 * 32)] = static_cast<float>(kNaN); }
  // The oracle's own results, rounded once.
  const AttentionResult result = attention(handed.problem.attention());
  const auto stored = [](double x) {
    return static_cast<double>(round_to(Storage::bfloat16, static_cast<float>(x)));
  };
  std::vector<double> output;
  for (const double x : result.output) output.push_back(stored(x));
  Submission given;
  given.spans = result.selection.spans.data();
  given.scores = result.selection.scores.data();
  given.anchors = result.selection.anchors.data();
  given.span_lses = result.lse.data();
  given.window_lse = result.window_lse.data();
  given.output = output.data();
  CHECK(failing(handed.judge(given)).empty());
  Submission alone;
  alone.output = output.data();
  CHECK(failing(handed.judge(alone)).empty());

  output[at(7 * 32 + 1)] = kNaN;  // a row that meets none
  CHECK_FALSE(handed.judge(given).pass());
  CHECK_FALSE(handed.judge(alone).pass());
  const std::vector<Index> others{2, 3, 110};  // and is not among those looked at
  std::vector<double> of_others;
  for (const Index other : others) {
    of_others.insert(of_others.end(), output.begin() + other * 32,
                     output.begin() + other * 32 + 32);
  }
  Submission given_others;
  given_others.output = of_others.data();
  Judge judge = judge_sample(handed.problem.attention(), others, Storage::bfloat16, given_others);
  const AllRows all(handed.problem.attention(), Storage::bfloat16);
  judge.found("output", all.output(alone.output));
  const bool of_one_row = std::isnan(handed.problem.query[at(row * 32 + 3)]) ||
                          std::isnan(handed.problem.routing[0][at(row * 32)]);
  CHECK(judge.report().pass() == !of_one_row);  // else the whole head is left to the sample
}

TEST_CASE("all rows are looked at for NaN, infinities and bounds", "[judge]") {
  const Handed handed;
  const AllRows all(handed.problem.attention(), Storage::bfloat16);
  std::vector<double> output = handed.run.output;
  CHECK(all.output(output.data()).not_finite + all.output(output.data()).unbounded == 0);
  output[17] = kNaN;
  output[18] = -kInf;
  output[19] = 3;  // values are below 1
  CHECK(all.output(output.data()).not_finite == 2);
  CHECK(all.output(output.data()).unbounded == 1);
  std::vector<double> lses = handed.run.span_lses;
  lses[4] = kNaN;
  lses[5] = kInf;
  CHECK(all.items(lses.data(), handed.run.spans.data(), 2, 1, false).not_finite == 1);
  CHECK(all.items(lses.data(), handed.run.spans.data(), 2, 1, true).not_finite == 2);
  std::vector<Span> spans = handed.run.spans;
  spans[4] = {};
  CHECK(all.items(lses.data(), spans.data(), 2, 1, true).not_finite == 1);
}

TEST_CASE("dense attention is judged by its output", "[judge]") {
  Handed handed(preset_schedule("nstep", 1));
  Submission given = handed.submission();
  CHECK(failing(handed.judge(given)).empty());
  CHECK(handed.judge(given).not_supplied.empty());
  handed.run.output[5] += 1;
  given = handed.submission();
  CHECK(failing(handed.judge(given)) == Names{"output"});
}

TEST_CASE("scores that are not told are the oracle's, in whatever order", "[judge]") {
  Handed handed;
  Submission given = handed.submission();
  given.scores = nullptr;
  CHECK(failing(handed.judge(given)).empty());
  given.anchors = nullptr;
  CHECK(failing(handed.judge(given)).empty());
  // Slots the other way round, items with them.
  for (Index row = 0; row < 120; ++row) {
    std::swap(handed.run.spans[at(2 * row)], handed.run.spans[at(2 * row + 1)]);
    std::swap(handed.run.span_lses[at(2 * row)], handed.run.span_lses[at(2 * row + 1)]);
    std::swap_ranges(handed.run.span_outputs.begin() + 64 * row,
                     handed.run.span_outputs.begin() + 64 * row + 32,
                     handed.run.span_outputs.begin() + 64 * row + 32);
  }
  CHECK(failing(handed.judge(given)).empty());
  given.scores = handed.run.scores.data();  // which are now another slot's
  CHECK(failing(handed.judge(given)).front() == "search");
}

TEST_CASE("samples have both ends, edges and every head, and are the same for a seed", "[judge]") {
  Shape shape;
  shape.batch = 2;
  shape.num_heads = 8;
  shape.num_kv_heads = 2;
  shape.queries = 5000;
  shape.keys = 9000;
  shape.query_offset = 4000;
  shape.head_dim = 4;
  const StripePlan plan(preset_schedule("released"), 9000);
  for (const Index count : {1, 2, 64, 1000, 79'000, 80'000, 90'000}) {
    CAPTURE(count);
    const std::vector<Index> rows = sample_rows(shape, plan, count, 7);
    CHECK(std::ssize(rows) == std::min<Index>(count, 80'000));
    CHECK(std::is_sorted(rows.begin(), rows.end()));
    CHECK(std::adjacent_find(rows.begin(), rows.end()) == rows.end());
    CHECK(rows.front() == 0);
    if (count > 1) CHECK(rows.back() == 79'999);
    CHECK(rows == sample_rows(shape, plan, count, 7));
    if (count == 64) CHECK(rows != sample_rows(shape, plan, count, 8));
    std::vector<bool> heads(16);
    for (const Index row : rows) heads[at(row / 5000)] = true;
    if (count >= 64) CHECK(std::count(heads.begin(), heads.end(), true) == 16);
  }
  CHECK_THROWS_AS(sample_rows(shape, plan, 0, 1), std::invalid_argument);
  CHECK(affordable_rows(shape, plan, 1e30) == 80'000);
  CHECK(affordable_rows(shape, plan, 1) == 1024);
  const Index some = affordable_rows(shape, plan, 0x1p28);
  CHECK(some > 1024);
  CHECK(some < 80'000);
}

TEST_CASE("bad arguments of the judge are refused", "[judge]") {
  const Handed handed;
  const auto args = handed.problem.attention();
  const std::vector<Index> none, outside{0, 120};
  CHECK_THROWS_AS(judge_sample(args, none, Storage::bfloat16, handed.submission()),
                  std::invalid_argument);
  CHECK_THROWS_AS(judge_sample(args, outside, Storage::bfloat16, handed.submission()),
                  std::invalid_argument);
  Judge judge(handed.problem.plan, 16, Storage::bfloat16, {{0, 0, 5}}, 1, handed.submission());
  CHECK_THROWS_AS(judge.judge_row(0, args), std::invalid_argument);
}

TEST_CASE("items are judged alone, whoever chose the spans", "[judge]") {
  const Handed handed;
  const Problem<float>& problem = handed.problem;
  std::vector<Span> spans;
  inputs::Random random(3);
  for (Index row = 0; row < 120; ++row) {
    const Index begin = random.below(300);
    spans.push_back({begin, begin + random.below(3) * 20});  // some are empty
    spans.push_back({0, 7});
  }
  const SpanAttentionArgs<float> args{
      problem.shape(), problem.query.data(), problem.key.data(), problem.value.data(), 2,
      spans.data()};
  Items items = span_attention(args);
  for (double& x : items.output) {
    x = static_cast<double>(round_to(Storage::bfloat16, static_cast<float>(x)));
  }
  const auto judged = [&] {
    return judge_items(args, Storage::bfloat16, items.output.data(), items.lse.data());
  };
  CHECK(judged().pass());
  CHECK(judged().outputs.rows == 240);
  items.output[at(33 * 32 + 1)] += 0.01;
  CHECK_FALSE(judged().outputs.pass());
  CHECK(judged().outputs.worst_row == 33);
  CHECK(judged().lses.pass());
  items.lse[7] += 0.001;
  CHECK(judged().lses.worst_row == 7);
  items.lse[7] = kNaN;
  CHECK(judged().lses.nans == 1);
  CHECK_THROWS_AS(judge_items(args, Storage::bfloat16, nullptr, items.lse.data()),
                  std::invalid_argument);
}

TEST_CASE("weights that are subnormal beside the largest may be flushed", "[judge]") {
  const auto judged = [](double weight, double got) {
    const float query = 1;
    const float keys[] = {0, static_cast<float>(std::log(weight))};
    const float values[] = {0, 2};
    const Span span{0, 2};
    SpanAttentionArgs<float> args;
    args.shape.queries = 1;
    args.shape.keys = 2;
    args.shape.head_dim = 1;
    args.shape.query_offset = 1;
    args.query = &query;
    args.key = keys;
    args.value = values;
    args.slots = 1;
    args.spans = &span;
    const double lse = weight;
    return judge_items(args, Storage::bfloat16, &got, &lse).outputs.pass();
  };
  CHECK(judged(0x1.8p-127, 0));
  CHECK(judged(0x1.8p-127, 0x1.8p-126));
  CHECK_FALSE(judged(0x1.8p-127, 0x1p-123));
  CHECK_FALSE(judged(0x1p-124, 0));
}
