#include "schedule/property.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::at;
using inputs::distance;
using inputs::kInfinity;
using inputs::kNaN;
using inputs::Problem;
using inputs::Random;
using inputs::Values;

namespace {

// Sums of at most 50 terms of size 1, weights and exponentials good to an ulp or two.
constexpr double kTolerance = 1e-13;

template <class T>
SpanAttentionArgs<T> attend_args(const Problem<T>& problem, const std::vector<Span>& spans,
                                 const std::vector<Span>& windows) {
  const Index slots = static_cast<Index>(spans.size()) / problem.sizes.rows();
  return {problem.shape(),
          problem.query.data(),
          problem.key.data(),
          problem.value.data(),
          slots,
          spans.data(),
          windows.empty() ? nullptr : windows.data(),
          problem.softmax_scale};
}

/// Output and lse equal softmax over the span without the window, slot by slot.
template <class T>
double error(const Problem<T>& problem, const std::vector<Span>& spans,
             const std::vector<Span>& windows) {
  const Items got = span_attention(attend_args(problem, spans, windows));
  const naive::Stages<T> stages(problem);
  const Index rows = problem.sizes.rows();
  const Index slots = static_cast<Index>(spans.size()) / rows;
  std::vector<double> output;
  std::vector<double> lse;
  for (Index row = 0; row < rows; ++row) {
    const Index i = problem.batch_of(row) * problem.sizes.queries + row % problem.sizes.queries;
    const Span window = windows.empty() ? Span{} : windows[at(i)];
    for (Index slot = row * slots; slot < (row + 1) * slots; ++slot) {
      const naive::Attended want = stages.attend(
          row, [&](Index key) { return spans[at(slot)].contains(key) && !window.contains(key); });
      output.insert(output.end(), want.output.begin(), want.output.end());
      lse.push_back(want.lse);
    }
  }
  return std::max(distance(got.output, output), distance(got.lse, lse));
}

/// The windows as items of their own.
template <class T>
Items attend_windows(const Problem<T>& problem, const std::vector<Span>& windows) {
  SpanAttentionArgs<T> args = attend_args(problem, std::vector<Span>(), windows);
  args.slots = 1;
  args.spans = nullptr;
  return span_attention(args);
}

/// Spans anywhere in [start, t + 1), some of them empty.
std::vector<Span> random_spans(const Problem<double>& problem, Index slots, Random& random) {
  std::vector<Span> spans;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const Index start = problem.start_of(problem.batch_of(row));
    const Index n = std::max<Index>(problem.position_of(row) + 1 - start, 0);
    for (Index slot = 0; slot < slots; ++slot) {
      const Index a = random.below(n + 1);
      const Index b = random.below(n + 1);
      spans.push_back(a < b ? Span{start + a, start + b} : Span{0, 0});
    }
  }
  return spans;
}

std::vector<Span> random_windows(const Problem<double>& problem, Random& random) {
  std::vector<Span> windows;
  for (Index b = 0; b < problem.sizes.batch; ++b) {
    for (Index i = 0; i < problem.sizes.queries; ++i) {
      const Index end = problem.sizes.query_offset + i + 1;
      const Index n = std::max<Index>(end - problem.start_of(b), 0);
      const Index length = random.below(n + 1);
      windows.push_back({end - length, end});
    }
  }
  return windows;
}

Problem<double> grouped_problem(std::uint64_t seed) {
  Shape sizes;
  sizes.batch = 2;
  sizes.num_heads = 6;
  sizes.num_kv_heads = 2;
  sizes.queries = 9;
  sizes.keys = 24;
  sizes.head_dim = 5;
  sizes.query_offset = 12;
  return inputs::random_problem(preset_schedule("nstep"), sizes, seed, Values::exact, {0, 15});
}

/// One query of head_dim 1 at position n - 1, with q = 1 and scale 1: key j has logit logits[j].
Problem<double> logit_problem(const std::vector<double>& logits,
                              const std::vector<double>& values) {
  Shape sizes;
  sizes.queries = 1;
  sizes.keys = static_cast<Index>(logits.size());
  sizes.query_offset = sizes.keys - 1;
  sizes.head_dim = 1;
  auto problem = inputs::random_problem(preset_schedule("nstep"), sizes, 1);
  problem.query = {1};
  problem.key = logits;
  problem.value = values;
  problem.softmax_scale = 1;
  return problem;
}

struct OneSlot {
  double output;
  double lse;
};

OneSlot attend_all(const std::vector<double>& logits, const std::vector<double>& values) {
  const auto problem = logit_problem(logits, values);
  const std::vector<Span> spans{{0, problem.sizes.keys}};
  const Items got = span_attention(attend_args(problem, spans, {}));
  return {got.output.front(), got.lse.front()};
}

/// Items without a window: all log-sum-exps are 0.
CombineArgs combine_args(const std::vector<Index>& count, const std::vector<double>& scores,
                         const std::vector<double>& outputs) {
  static const std::vector<double> zeros(100, 0);
  const auto rows = static_cast<Index>(count.size());
  const auto slots = static_cast<Index>(scores.size()) / rows;
  const auto head_dim = outputs.empty() ? 1 : static_cast<Index>(outputs.size() / scores.size());
  return {rows, slots, head_dim, count.data(), scores.data(), outputs.data(), zeros.data()};
}

std::vector<double> gates_of(const std::vector<double>& scores, Index count) {
  return path_gates(combine_args({count}, scores, {}));
}

}  // namespace

TEST_CASE("Span attention is softmax over the span without the window", "[attention]") {
  auto problem = grouped_problem(31);
  Random random(32);
  for (const Index slots : {1, 3}) {
    CAPTURE(slots);
    const auto spans = random_spans(problem, slots, random);
    CHECK(error(problem, spans, {}) <= kTolerance);
    CHECK(error(problem, spans, random_windows(problem, random)) <= kTolerance);
  }
}

TEST_CASE("Random spans and windows give the naive softmax", "[attention]") {
  check_property("span attention of any spans", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    Random random(seed);
    auto problem = grouped_problem(random.next());
    if (random.below(2)) problem.softmax_scale = 0.25 * static_cast<double>(random.below(9));
    const auto spans = random_spans(problem, 1 + random.below(4), random);
    RC_ASSERT(error(problem, spans, random_windows(problem, random)) <= kTolerance);
  });
}

TEST_CASE("A key in both the span and the window counts for the window", "[attention]") {
  const auto problem = logit_problem({0, 0, 0, 0}, {1, 2, 4, 8});
  const std::vector<Span> spans{{0, 2}, {1, 3}, {2, 4}, {3, 4}, {0, 4}};
  const std::vector<Span> window{{2, 4}};
  const Items got = span_attention(attend_args(problem, spans, window));
  CHECK(distance(got.output, {1.5, 2, 0, 0, 1.5}) <= kTolerance);
  CHECK(distance(got.lse, {std::log(2.0), 0, -kInfinity, -kInfinity, std::log(2.0)}) <= kTolerance);
  const Items whole = attend_windows(problem, window);
  CHECK(distance(whole.output, {6}) <= kTolerance);
  CHECK(distance(whole.lse, {std::log(2.0)}) <= kTolerance);
}

TEST_CASE("Without keys an item is 0, with lse -inf", "[attention]") {
  const auto problem = logit_problem({0, 1, 2, 3}, {1, 2, 4, 8});
  const std::vector<Span> empty{{0, 0}, {2, 2}, {4, 4}, {3, 1}};
  for (const std::vector<Span>& window : {std::vector<Span>{}, {{2, 4}}, {{4, 4}}}) {
    const Items none = span_attention(attend_args(problem, empty, window));
    CHECK(none.output == std::vector<double>(4, 0));
    CHECK(none.lse == std::vector<double>(4, -kInfinity));
  }
  const Items window = attend_windows(problem, {{2, 4}});
  const double e = std::exp(1.0);
  CHECK(distance(window.output, {(4 + 8 * e) / (1 + e)}) <= kTolerance);
  CHECK(distance(window.lse, {2 + std::log(1 + e)}) <= kTolerance);
  const Items nothing = attend_windows(problem, {{4, 4}});
  CHECK(nothing.output == std::vector<double>{0});
  CHECK(nothing.lse == std::vector<double>{-kInfinity});
}

TEST_CASE("Logits of -inf weigh nothing, and +inf takes all", "[attention]") {
  const OneSlot none = attend_all({-kInfinity, -kInfinity}, {1, 2});
  CHECK(none.output == 0);
  CHECK(none.lse == -kInfinity);
  const OneSlot rest = attend_all({-kInfinity, 3, 3}, {100, 1, 2});
  CHECK(rest.output == Approx(1.5));
  CHECK(rest.lse == Approx(3 + std::log(2.0)));
  const OneSlot taken = attend_all({kInfinity, 3, kInfinity}, {1, 100, 2});
  CHECK(taken.output == Approx(1.5));
  CHECK(taken.lse == kInfinity);
}

TEST_CASE("Large logits neither overflow nor vanish", "[attention]") {
  for (const double shift : {0.0, 1000.0, -1000.0, 1e6, -1e6}) {
    CAPTURE(shift);
    const OneSlot got = attend_all({shift, shift - 1, shift - 800}, {1, 0, 0});
    CHECK(got.output == Approx(1 / (1 + std::exp(-1.0))).epsilon(1e-12));
    CHECK(got.lse == Approx(shift + std::log1p(std::exp(-1.0))).epsilon(1e-12));
  }
}

TEST_CASE("A NaN logit or value makes its own slot a NaN, and no other", "[attention]") {
  const std::vector<Span> spans{{0, 2}, {2, 4}};
  auto problem = logit_problem({0, kNaN, 0, 0}, {1, 2, 4, 8});
  Items got = span_attention(attend_args(problem, spans, {}));
  CHECK(std::isnan(got.output[0]));
  CHECK(std::isnan(got.lse[0]));
  CHECK(got.output[1] == 6);

  problem = logit_problem({0, 0, 0, 0}, {1, 2, kNaN, 8});
  got = span_attention(attend_args(problem, spans, {}));
  CHECK(got.output[0] == 1.5);
  CHECK(std::isnan(got.output[1]));
}

TEST_CASE("The softmax scale is 1 / sqrt(head_dim) unless given", "[attention]") {
  Shape sizes;
  sizes.queries = 1;
  sizes.keys = 2;
  sizes.query_offset = 1;
  sizes.head_dim = 16;
  auto problem = inputs::random_problem(preset_schedule("nstep"), sizes, 1);
  std::fill(problem.query.begin(), problem.query.end(), 0.5);
  std::fill(problem.key.begin(), problem.key.begin() + 16, 0.0);
  std::fill(problem.key.begin() + 16, problem.key.end(), 1.0);  // <q, k> = 8
  std::fill(problem.value.begin(), problem.value.begin() + 16, 0.0);
  std::fill(problem.value.begin() + 16, problem.value.end(), 1.0);
  const std::vector<Span> spans{{0, 2}};
  const auto weight = [&] { return span_attention(attend_args(problem, spans, {})).output[3]; };
  CHECK(weight() == Approx(1 / (1 + std::exp(-2.0))));
  problem.softmax_scale = 0.125;
  CHECK(weight() == Approx(1 / (1 + std::exp(-1.0))));
  problem.softmax_scale = 0;
  CHECK(weight() == Approx(0.5));
}

TEST_CASE("Gates are the softmax of the scores in use", "[combine]") {
  const double e = std::exp(1.0);
  CHECK(distance(gates_of({2, 1, 7}, 2), {e / (1 + e), 1 / (1 + e), 0}) <= kTolerance);
  CHECK(distance(gates_of({2, 1, 1}, 3), {e / (e + 2), 1 / (e + 2), 1 / (e + 2)}) <= kTolerance);
  CHECK(distance(gates_of({1002, 1001}, 2), {e / (1 + e), 1 / (1 + e)}) <= kTolerance);
  CHECK(distance(gates_of({-1002, -1003}, 2), {e / (1 + e), 1 / (1 + e)}) <= kTolerance);
  CHECK(gates_of({0.3, 5, 5}, 1) == std::vector<double>{1, 0, 0});
  CHECK(gates_of({1, 2, kNaN}, 0) == std::vector<double>{0, 0, 0});
}

TEST_CASE("Equal scores have equal gates, infinite ones included", "[combine]") {
  CHECK(gates_of({3, 3, 3, 3}, 4) == std::vector<double>(4, 0.25));
  CHECK(gates_of({kInfinity, kInfinity, 9, -kInfinity}, 4) == std::vector<double>{0.5, 0.5, 0, 0});
  CHECK(gates_of({kInfinity, 0}, 2) == std::vector<double>{1, 0});
  CHECK(gates_of({-kInfinity, -kInfinity, 3, 3}, 2) == std::vector<double>{0.5, 0.5, 0, 0});
  CHECK(gates_of({0, -kInfinity}, 2) == std::vector<double>{1, 0});
}

TEST_CASE("Combination is the gated sum of the outputs in use", "[combine]") {
  // Three rows of three slots, with two, none and three of them in use.
  const std::vector<Index> count{2, 0, 3};
  const std::vector<double> scores{1, 0, kNaN, kNaN, kNaN, kNaN, 0.5, 0.5, 0.5};
  const std::vector<double> outputs{1,    2,    3,    5,    kNaN, kNaN,  //
                                    kNaN, kNaN, kNaN, kNaN, kNaN, kNaN,  //
                                    3,    0,    1,    4,    2,    7};
  const double gate = 1 / (1 + std::exp(-1.0));
  const std::vector<double> want{
      gate + 3 * (1 - gate), 2 * gate + 5 * (1 - gate), 0, 0, 2, 11.0 / 3};
  CHECK(distance(combine(combine_args(count, scores, outputs)), want) <= kTolerance);
}

TEST_CASE("Gates sum to 1, and combination keeps a common output", "[combine]") {
  check_property("gates of any scores", [](std::uint64_t seed) {
    Random random(seed);
    const Index slots = 1 + random.below(8);
    const Index count = 1 + random.below(slots);
    std::vector<double> scores = random.tensor(slots);
    for (double& score : scores) score *= 100;
    const std::vector<double> gate = gates_of(scores, count);
    double sum = 0;
    for (const double g : gate) sum += g;
    RC_ASSERT(std::abs(sum - 1) <= kTolerance);
    const std::vector<double> common(at(slots * 2), 0.75);
    RC_ASSERT(distance(combine(combine_args({count}, scores, common)), {0.75, 0.75}) <= kTolerance);
  });
}

TEST_CASE("Combination joins every span with the window", "[combine]") {
  // Two rows of two slots: gates 1/2 each, shares by the log-sum-exps; and a row without a path.
  const std::vector<Index> count{2, 0};
  const std::vector<double> scores{1, 1, 0, 0};
  const std::vector<double> outputs{1, 3, kNaN, kNaN};
  const std::vector<double> lses{std::log(3.0), -kInfinity, 0, 0};
  const std::vector<double> window{5, 7};
  const std::vector<double> window_lse{0, std::log(2.0)};
  const CombineArgs args{2,
                         2,
                         1,
                         count.data(),
                         scores.data(),
                         outputs.data(),
                         lses.data(),
                         window.data(),
                         window_lse.data()};
  // Slot 0: 3/4 of 1 and 1/4 of 5; slot 1 has no key: the window alone.
  CHECK(distance(combine(args), {0.5 * 2 + 0.5 * 5, 7}) <= kTolerance);
  CombineArgs nothing = args;  // a window without keys, which may hold anything
  const std::vector<double> any{kNaN, 7}, none{-kInfinity, 0}, both{0, std::log(3.0), 0, 0};
  nothing.window_output = any.data();
  nothing.window_lse = none.data();
  nothing.lses = both.data();
  CHECK(distance(combine(nothing), {0.5 * 1 + 0.5 * 3, 7}) <= kTolerance);
  CombineArgs half = args;
  half.window_lse = nullptr;
  CHECK_THROWS_AS(combine(half), std::invalid_argument);
  CombineArgs alone = args;
  alone.window_output = alone.window_lse = nullptr;
  CHECK(distance(combine(alone), {0.5 * 1, 0}) <= kTolerance);
}

TEST_CASE("Items joined by their log-sum-exps are softmax over span and window", "[combine]") {
  check_property("combination of any spans and windows", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    Random random(seed);
    const auto problem = grouped_problem(random.next());
    const Index rows = problem.sizes.rows();
    const auto spans = random_spans(problem, 1, random);
    const auto windows = random_windows(problem, random);
    const Items items = span_attention(attend_args(problem, spans, windows));
    const Items window = attend_windows(problem, windows);
    const std::vector<Index> count(at(rows), 1);
    const std::vector<double> scores(at(rows), 0.25);
    const std::vector<double> got =
        combine({rows, 1, problem.sizes.head_dim, count.data(), scores.data(), items.output.data(),
                 items.lse.data(), window.output.data(), window.lse.data()});
    const naive::Stages<double> stages(problem);
    std::vector<double> want;
    for (Index row = 0; row < rows; ++row) {
      const Index i = problem.batch_of(row) * problem.sizes.queries + row % problem.sizes.queries;
      const auto joined = stages.attend(row, [&](Index key) {
        return spans[at(row)].contains(key) || windows[at(i)].contains(key);
      });
      want.insert(want.end(), joined.output.begin(), joined.output.end());
    }
    RC_ASSERT(distance(got, want) <= kTolerance);
  });
}

TEST_CASE("Merged parts are attention over all their keys", "[attention]") {
  const auto problem = logit_problem({0.5, -1, 2, 0, 1}, {1, 2, 4, 8, 16});
  const auto attend = [&](Span keys) {
    const std::vector<Span> spans{keys};
    return span_attention(attend_args(problem, spans, {}));
  };
  const Items whole = attend({0, 5});
  std::vector<double> outputs, lses;
  for (const Span part : {Span{0, 2}, {2, 2}, {2, 3}, {3, 5}}) {
    const Items items = attend(part);
    outputs.push_back(part.empty() ? kNaN : items.output[0]);  // counts nothing
    lses.push_back(items.lse[0]);
  }
  const Items merged = merge_attention({4, 1, 1, outputs.data(), lses.data()});
  CHECK(distance(merged.output, whole.output) <= kTolerance);
  CHECK(distance(merged.lse, whole.lse) <= kTolerance);

  const Items none = merge_attention({0, 2, 3, nullptr, nullptr});
  CHECK(none.output == std::vector<double>(6, 0));
  CHECK(none.lse == std::vector<double>(2, -kInfinity));
  const double bad = kNaN;
  const Items spoilt = merge_attention({1, 1, 1, outputs.data(), &bad});
  CHECK(std::isnan(spoilt.output[0]));
  CHECK(std::isnan(spoilt.lse[0]));
  // What weighs nothing in the end counts nothing on the way.
  const double far[] = {kInfinity, 1, 2, 1, kInfinity}, lses_of[] = {0, 400, 800, 400, 0};
  CHECK(merge_attention({3, 1, 1, far, lses_of}).output[0] == 2);
  CHECK(merge_attention({3, 1, 1, far + 2, lses_of + 2}).output[0] == 2);
  const double unknown[] = {1, kNaN, 1};
  CHECK(std::isnan(merge_attention({3, 1, 1, far, unknown}).lse[0]));
  CHECK_THROWS_AS(merge_attention({1, 1, 1, outputs.data(), nullptr}), std::invalid_argument);
  CHECK_THROWS_AS(merge_attention({1, 1, 0, outputs.data(), lses.data()}), std::invalid_argument);
}

TEST_CASE("No rows and no queries give empty results", "[attention]") {
  CHECK(combine({0, 2, 3}).empty());
  SpanAttentionArgs<float> args;
  args.shape.head_dim = 4;
  args.shape.keys = 0;
  args.slots = 2;
  CHECK(span_attention(args).output.empty());
  CHECK(span_attention(args).lse.empty());
}
