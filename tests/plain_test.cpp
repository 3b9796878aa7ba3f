#include "multistep/plain.hpp"

#include <cstring>

#include "inputs.hpp"
#include "multistep/compare.hpp"
#include "property.hpp"

using namespace multistep;
using inputs::at;
using inputs::kInfinity;
using inputs::kNaN;
using inputs::Problem;
using inputs::Random;
using inputs::Values;

namespace {

float exact(float value) { return value; }

/// To a multiple of 2^-8 of its power of two: eight significant bits, as bf16 has them.
float to_eight_bits(float value) {
  int exponent = 0;
  const float mantissa = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(mantissa * 256) / 256, exponent);
}

/// A problem, its selection, and every span's own attention with the window left out.
struct Stages {
  Problem<float> problem;
  Selection selection;
  std::vector<Span> windows;
  std::vector<Span> spans;  // without the windows' keys
  SpanAttentionResult partial;

  Stages(const Schedule& schedule, Index queries, Index offset, std::vector<Index> start = {})
      : problem(inputs::converted<float>(inputs::random_problem(
            schedule, inputs::grouped_sizes(8, queries, offset, 2), 41, Values::exact, start))),
        selection(span_search(problem.search())),
        windows(problem.windows()),
        spans(selection.spans) {
    const Index rows = problem.sizes.rows();
    for (Index slot = 0; slot < rows * selection.top_k; ++slot) {
      const Index row = slot / selection.top_k;
      spans[at(slot)] = outside(spans[at(slot)], windows[at(window_index(row))]);
    }
    partial = span_attention(span_args());
  }

  Index window_index(Index row) const {
    return problem.batch_of(row) * problem.sizes.queries + row % problem.sizes.queries;
  }
  SpanAttentionArgs<float> span_args() const {
    return {problem.shape(),
            problem.query.data(),
            problem.key.data(),
            problem.value.data(),
            selection.top_k,
            spans.data(),
            nullptr,
            {}};
  }
  WindowCombineArgs combine_args() const {
    return {problem.shape(),       problem.query.data(),   problem.key.data(),
            problem.value.data(),  windows.data(),         {},
            selection.top_k,       selection.count.data(), selection.scores.data(),
            partial.output.data(), partial.lse.data()};
  }
};

Schedule windowed(Index steps) {
  Schedule schedule = preset("even", steps);
  schedule.window_index = 5;
  return schedule;
}

}  // namespace

TEST_CASE("outside leaves out what the window has", "[plain]") {
  CHECK(outside({3, 9}, {7, 12}) == Span{3, 7});
  CHECK(outside({3, 7}, {7, 12}) == Span{3, 7});
  CHECK(outside({8, 9}, {7, 12}) == Span{});
  CHECK(outside({3, 9}, {}) == Span{3, 9});
  CHECK(outside({9, 3}, {}) == Span{});
}

TEST_CASE("span attention joined with the window is attention over both", "[plain]") {
  for (Index steps = 2; steps <= 4; ++steps) {
    for (const Index offset : {0, 30}) {
      CAPTURE(steps, offset);
      const Stages stages(windowed(steps), 20, offset, {0, 9});
      const std::vector<double> want = attention(stages.problem.attention()).output;
      CHECK(inputs::distance(window_combine(stages.combine_args()), want) < 1e-13);
    }
  }
}

TEST_CASE("without a window, and with the window alone", "[plain]") {
  const Stages none(preset("nstep", 2), 9, 4);
  const std::vector<double> want = attention(none.problem.attention()).output;
  WindowCombineArgs args = none.combine_args();
  args.window = nullptr;
  CHECK(window_combine(args).size() == want.size());
  CHECK(inputs::distance(window_combine(none.combine_args()), want) < 1e-13);

  const Stages stages(windowed(2), 9, 0);
  args = stages.combine_args();
  args.slots = 0;
  const std::vector<double> alone =
      span_attention<float>({args.shape,
                             args.query,
                             args.key,
                             args.value,
                             1,
                             std::vector<Span>(at(stages.problem.sizes.rows())).data(),
                             args.window,
                             {}})
          .output;
  CHECK(inputs::distance(window_combine(args), alone) == 0);
}

TEST_CASE("in float32 the plain stages are close to the oracle's, but not equal", "[plain]") {
  const Stages stages(windowed(3), 30, 50);
  const SpanAttentionResult plain = plain_span_attention(stages.span_args(), exact);
  const double off = inputs::distance(plain.output, stages.partial.output);
  CHECK(off > 0);
  CHECK(off < 1e-6);
  std::size_t close_lses = 0;
  for (std::size_t i = 0; i < plain.lse.size(); ++i) {
    close_lses += close(plain.lse[i], stages.partial.lse[i], 1e-6);
  }
  CHECK(close_lses == plain.lse.size());

  const std::vector<double> want = window_combine(stages.combine_args());
  const double combined =
      inputs::distance(plain_window_combine(stages.combine_args(), exact), want);
  CHECK(combined > 0);
  CHECK(combined < 1e-6);
}

TEST_CASE("weights and outputs are rounded to the storage type", "[plain]") {
  const Stages stages(windowed(2), 30, 50);
  const SpanAttentionResult plain = plain_span_attention(stages.span_args(), to_eight_bits);
  const std::vector<double> whole = plain_window_combine(stages.combine_args(), to_eight_bits);
  for (const std::vector<double>* array : {&plain.output, &whole}) {
    for (const double x : *array) REQUIRE(to_eight_bits(static_cast<float>(x)) == x);
  }
  // Half a unit for the output, and the weights' own rounding averages to less than another.
  const double off = inputs::distance(plain.output, stages.partial.output);
  CHECK(off > 0x1p-11);
  CHECK(off < 0x1p-8);
}

TEST_CASE("weights are rounded before they meet the values, their sum is not", "[plain]") {
  Stages stages(windowed(2), 5, 50);
  for (float& x : stages.problem.value) x += 8;  // outputs, unlike weights, exceed 1
  const auto weights_only = [](float x) { return x > 1 ? x : std::floor(4 * x) / 4; };
  const SpanAttentionResult whole = plain_span_attention(stages.span_args(), exact);
  const SpanAttentionResult coarse = plain_span_attention(stages.span_args(), weights_only);
  CHECK(inputs::same_bits(coarse.lse, whole.lse));
  CHECK(inputs::distance(coarse.output, whole.output) > 1);
}

TEST_CASE("queries without a path, and keys without weight", "[plain]") {
  Stages stages(windowed(2), 3, 0);  // the window has every key
  for (const Index count : stages.selection.count) REQUIRE(count == 0);
  WindowCombineArgs args = stages.combine_args();
  const std::vector<double> want = attention(stages.problem.attention()).output;
  CHECK(inputs::distance(window_combine(args), want) < 1e-13);
  CHECK(inputs::distance(plain_window_combine(args, exact), want) < 1e-6);

  args.window = nullptr;
  const std::vector<double> zeros(want.size());
  CHECK(inputs::same_bits(window_combine(args), zeros));
  CHECK(inputs::same_bits(plain_window_combine(args, exact), zeros));
  const SpanAttentionResult empty = plain_span_attention(stages.span_args(), exact);
  CHECK(inputs::distance(empty.output, std::vector<double>(empty.output.size())) == 0);
  for (const double lse : empty.lse) CHECK(lse == -kInfinity);
}

TEST_CASE("a NaN stays in its own row", "[plain]") {
  Stages stages(windowed(2), 4, 40);
  const Index d = stages.problem.sizes.head_dim;
  stages.problem.query[at(2 * d)] = static_cast<float>(kNaN);
  const SpanAttentionResult plain = plain_span_attention(stages.span_args(), exact);
  const std::vector<double> whole = plain_window_combine(stages.combine_args(), exact);
  for (Index row = 0; row < stages.problem.sizes.rows(); ++row) {
    CHECK(std::isnan(plain.lse[at(row * 2)]) == (row == 2));
    CHECK(std::isnan(plain.output[at(row * 2 * d)]) == (row == 2));
    CHECK(std::isnan(whole[at(row * d)]) == (row == 2));
  }
}

TEST_CASE("merging partial attention", "[plain]") {
  double output[] = {1, 2};
  double lse = std::log(3.0);
  const double other[] = {5, -2};
  merge(output, lse, other, 0.0, 2);
  CHECK(output[0] == Approx(2));
  CHECK(output[1] == Approx(1));
  CHECK(lse == Approx(std::log(4.0)));

  const double nothing[] = {kNaN, kNaN};
  merge(output, lse, nothing, -kInfinity, 2);
  CHECK(output[0] == Approx(2));
  CHECK(lse == Approx(std::log(4.0)));

  double none = -kInfinity;
  merge(output, none, nothing, -kInfinity, 2);
  CHECK(output[0] == 0);
  CHECK(none == -kInfinity);
  merge(output, none, other, kNaN, 2);
  CHECK(std::isnan(output[0]));
  CHECK(std::isnan(none));
}

TEST_CASE("bad arguments of window and combination are refused", "[plain]") {
  Stages stages(windowed(2), 4, 40);
  stages.selection.count[3] = 3;
  CHECK_THROWS_AS(window_combine(stages.combine_args()), std::invalid_argument);
  stages.selection.count[3] = 2;
  WindowCombineArgs args = stages.combine_args();
  args.lses = nullptr;
  CHECK_THROWS_AS(window_combine(args), std::invalid_argument);
  args = stages.combine_args();
  args.slots = 65;
  CHECK_THROWS_AS(plain_window_combine(args, exact), std::invalid_argument);
}
