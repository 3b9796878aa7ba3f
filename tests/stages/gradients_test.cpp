#include "multistep/gradients.hpp"

#include "multistep/accumulation.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::at;
using inputs::distance;
using inputs::Problem;
using inputs::Random;
using inputs::same_bits;
using inputs::Values;

namespace {

constexpr double kStep = 0x1p-12;
// The five-point difference is off by kStep^4 / 30 times a fifth derivative, which is far less than
// the rounding of a loss of size 10, 1e-15, over kStep.
constexpr double kTolerance = 1e-10;

/// Derivatives of loss() by every entry of `array`, which loss reads.
template <class Loss>
std::vector<double> differences(std::vector<double>& array, Loss loss) {
  const inputs::Threads one(1);
  std::vector<double> result;
  for (double& x : array) {
    const double here = x;
    const auto loss_at = [&](double offset) {
      x = here + offset;
      return loss();
    };
    const double near = loss_at(kStep) - loss_at(-kStep);
    const double far = loss_at(2 * kStep) - loss_at(-2 * kStep);
    result.push_back((8 * near - far) / (12 * kStep));
    x = here;
  }
  return result;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<double> sum_of(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  std::vector<double> result = a;
  for (std::size_t i = 0; i < a.size(); ++i) result[i] += b[i];
  return result;
}

/// Four query heads on two KV heads, padding, an offset, and spare rows behind.
Problem<double> small_problem(const Schedule& schedule, std::uint64_t seed) {
  return inputs::random_problem(schedule, inputs::grouped_sizes(3, 4, 11, 1), seed, Values::rough,
                                {0, 5});
}

Schedule windowed(Index steps, Index window_index) {
  Schedule schedule = preset_schedule("nstep", steps);
  schedule.window_index = window_index;
  return schedule;
}

/// A weight for every entry of a result: the loss is their product.
std::vector<double> weights(Index size) { return Random(77).tensor(size, Values::rough); }

bool same_choice(const Selection& a, const Selection& b) {
  return a.count == b.count && a.anchors == b.anchors && a.spans == b.spans;
}

SpanAttentionArgs<double> attend_args(const Problem<double>& problem, const Selection& selection,
                                      const std::vector<Span>& windows) {
  return {problem.shape(), problem.query.data(),   problem.key.data(), problem.value.data(),
          selection.top_k, selection.spans.data(), windows.data(),     problem.softmax_scale};
}

/// Weights of a loss of everything that attention() returns.
struct Weights {
  std::vector<double> output, scores, lse, window_lse;

  explicit Weights(const Problem<double>& problem, Index top_k, bool output_alone = false)
      : output(weights(problem.sizes.rows() * problem.sizes.head_dim)) {
    if (output_alone) return;
    Random random(78);
    scores = random.tensor(problem.sizes.rows() * top_k, Values::rough);
    lse = random.tensor(problem.sizes.rows() * top_k, Values::rough);
    window_lse = random.tensor(problem.sizes.rows(), Values::rough);
  }
  AttentionResultGradients gradients() const {
    const auto data = [](const std::vector<double>& array) {
      return array.empty() ? nullptr : array.data();
    };
    return {output.data(), data(scores), data(lse), data(window_lse)};
  }
  /// Slots without a path and items without a key, whose scores and lses are -inf, count nothing.
  double of(const AttentionResult& result) const {
    const auto sum = [](const std::vector<double>& weight, const std::vector<double>& values) {
      double total = 0;
      for (std::size_t i = 0; i < weight.size(); ++i) {
        if (std::isfinite(values[i])) total += weight[i] * values[i];
      }
      return total;
    };
    return sum(output, result.output) + sum(scores, result.selection.scores) +
           sum(lse, result.lse) + sum(window_lse, result.window_lse);
  }
};

/// The whole composition: every derivative equals its difference, and no choice changed meanwhile.
void check_composition(Problem<double> problem, bool output_alone = false) {
  const Selection chosen = span_search(problem.search());
  const Weights weigh(problem, chosen.top_k, output_alone);
  const AttentionGradients got = attention_backward(problem.attention(), weigh.gradients());
  bool choices_held = true;
  const auto loss = [&] {
    const AttentionResult result = attention(problem.attention());
    choices_held = choices_held && same_choice(result.selection, chosen);
    return weigh.of(result);
  };
  CHECK(distance(got.attention.query, differences(problem.query, loss)) <= kTolerance);
  CHECK(distance(got.attention.value, differences(problem.value, loss)) <= kTolerance);
  REQUIRE(got.search.routing_queries.size() == problem.routing.size());
  for (std::size_t m = 0; m < problem.routing.size(); ++m) {
    CAPTURE(m);
    CHECK(distance(got.search.routing_queries[m], differences(problem.routing[m], loss)) <=
          kTolerance);
  }
  const auto by_key = differences(problem.key, loss);
  if (problem.search_keys.empty()) {
    CHECK(distance(sum_of(got.attention.key, got.search.search_keys), by_key) <= kTolerance);
  } else {
    CHECK(distance(got.attention.key, by_key) <= kTolerance);
    CHECK(distance(got.search.search_keys, differences(problem.search_keys, loss)) <= kTolerance);
  }
  CHECK(choices_held);
}

}  // namespace

TEST_CASE("Derivatives of combination equal differences", "[gradients]") {
  Random random(71);
  const std::vector<Index> count{3, 1, 0, 2};
  std::vector<double> scores = random.tensor(4 * 3, Values::rough);
  std::vector<double> outputs = random.tensor(4 * 3 * 2, Values::rough);
  std::vector<double> lses = random.tensor(4 * 3, Values::rough);
  std::vector<double> window = random.tensor(4 * 2, Values::rough);
  std::vector<double> window_lse = random.tensor(4, Values::rough);
  lses[1] = -inputs::kInfinity;  // a span whose keys the window has
  window_lse[3] = -inputs::kInfinity;
  const auto out = weights(4 * 2);
  for (const bool with_window : {true, false}) {
    CAPTURE(with_window);
    CombineArgs args{4,
                     3,
                     2,
                     count.data(),
                     scores.data(),
                     outputs.data(),
                     lses.data(),
                     window.data(),
                     window_lse.data()};
    if (!with_window) args.window_output = args.window_lse = nullptr;
    const CombineGradients got = combine_backward(args, out.data());
    const auto loss = [&] { return dot(combine(args), out); };
    CHECK(distance(got.scores, differences(scores, loss)) <= kTolerance);
    CHECK(distance(got.outputs, differences(outputs, loss)) <= kTolerance);
    CHECK(got.lses[1] == 0);  // -inf, which has no difference
    CHECK(got.window_lse[3] == 0);
    auto by_lse = differences(lses, loss);
    by_lse[1] = 0;
    CHECK(distance(got.lses, by_lse) <= kTolerance);
    for (const std::size_t unused : {4U, 5U, 6U, 7U, 8U, 11U}) {
      CHECK(got.scores[unused] == 0);
      CHECK(got.lses[unused] == 0);
    }
    if (!with_window) continue;
    CHECK(distance(got.window_output, differences(window, loss)) <= kTolerance);
    auto by_window_lse = differences(window_lse, loss);
    by_window_lse[3] = 0;
    CHECK(distance(got.window_lse, by_window_lse) <= kTolerance);
  }
}

TEST_CASE("Derivatives of span attention equal differences", "[gradients]") {
  auto problem = small_problem(windowed(2, 1), 72);
  const Index rows = problem.sizes.rows();
  const Selection selection = span_search(problem.search());
  const auto windows = problem.windows();
  const auto out = weights(rows * selection.top_k * 3);
  for (const std::optional<double> scale : {std::optional<double>(), std::optional<double>(1.7)}) {
    for (const bool with_window : {false, true}) {
      CAPTURE(with_window, scale.value_or(0));
      problem.softmax_scale = scale;
      auto args = attend_args(problem, selection, windows);
      if (!with_window) args.window = nullptr;
      const auto lse_out = Random(79).tensor(rows * selection.top_k, Values::rough);
      const SpanAttentionGradients got = span_attention_backward(args, out.data(), lse_out.data());
      const auto loss = [&] {
        const Items items = span_attention(args);
        double sum = dot(items.output, out);
        for (std::size_t i = 0; i < lse_out.size(); ++i) {
          if (std::isfinite(items.lse[i])) sum += lse_out[i] * items.lse[i];
        }
        return sum;
      };
      CHECK(distance(got.query, differences(problem.query, loss)) <= kTolerance);
      CHECK(distance(got.key, differences(problem.key, loss)) <= kTolerance);
      CHECK(distance(got.value, differences(problem.value, loss)) <= kTolerance);
    }
  }
}

TEST_CASE("Derivatives of span attention where span and window overlap or are empty",
          "[gradients]") {
  Shape sizes;
  sizes.num_heads = 2;
  sizes.queries = 3;
  sizes.keys = 8;
  sizes.query_offset = 4;
  sizes.head_dim = 2;
  auto problem = inputs::random_problem(preset_schedule("nstep"), sizes, 73, Values::rough);
  const std::vector<Span> spans{{0, 5}, {3, 4}, {0, 0}, {5, 6}, {1, 6}, {2, 7},
                                {0, 2}, {4, 5}, {2, 6}, {6, 6}, {0, 7}, {0, 0}};
  const std::vector<Span> windows{{3, 5}, {6, 6}, {4, 7}};
  const auto out = weights(12 * 2);
  const SpanAttentionArgs<double> args{
      sizes, problem.query.data(), problem.key.data(), problem.value.data(),
      2,     spans.data(),         windows.data()};
  const SpanAttentionGradients got = span_attention_backward(args, out.data());
  const auto loss = [&] { return dot(span_attention(args).output, out); };
  CHECK(distance(got.query, differences(problem.query, loss)) <= kTolerance);
  CHECK(distance(got.key, differences(problem.key, loss)) <= kTolerance);
  CHECK(distance(got.value, differences(problem.value, loss)) <= kTolerance);
}

TEST_CASE("Derivatives of the path scores equal differences", "[gradients]") {
  for (Index steps = 2; steps <= 4; ++steps) {
    CAPTURE(steps);
    auto problem = small_problem(windowed(steps, 0), 174);
    problem.search_scale = 0.6;
    const Selection chosen = span_search(problem.search());
    auto out = weights(problem.sizes.rows() * chosen.top_k);
    const SpanSearchGradients got = span_search_backward(problem.search(), chosen, out.data());
    bool choices_held = true;
    const auto loss = [&] {
      const Selection now = span_search(problem.search());
      choices_held = choices_held && same_choice(now, chosen);
      double sum = 0;  // over the slots in use: the others score -inf
      for (std::size_t slot = 0; slot < out.size(); ++slot) {
        if (static_cast<Index>(slot) % now.top_k < now.count[slot / at(now.top_k)]) {
          sum += out[slot] * now.scores[slot];
        }
      }
      return sum;
    };
    REQUIRE(got.routing_queries.size() == problem.routing.size());
    for (std::size_t m = 0; m < problem.routing.size(); ++m) {
      CAPTURE(m);
      CHECK(distance(got.routing_queries[m], differences(problem.routing[m], loss)) <= kTolerance);
    }
    CHECK(distance(got.search_keys, differences(problem.search_keys, loss)) <= kTolerance);
    CHECK(choices_held);
  }
}

TEST_CASE("Derivatives of attention equal differences", "[gradients]") {
  for (Index steps = 1; steps <= 4; ++steps) {
    CAPTURE(steps);
    check_composition(small_problem(windowed(steps, steps % 2), 175));
    check_composition(small_problem(windowed(steps, steps % 2), 176), true);
    check_composition(
        small_problem(inputs::uniform_schedule(Rule::aligned, steps, steps % 2, 2), 181));
  }
}

TEST_CASE("Gradients at a given selection are those of its own spans and scores", "[gradients]") {
  const auto problem = small_problem(windowed(3, 1), 177);
  const Selection own = span_search(problem.search());
  const Weights weigh(problem, own.top_k);
  const AttentionGradients want = attention_backward(problem.attention(), weigh.gradients());
  const AttentionGradients same = attention_backward(problem.attention(), weigh.gradients(), &own);
  CHECK(same_bits(same.attention.query, want.attention.query));
  CHECK(same_bits(same.attention.key, want.attention.key));
  CHECK(same_bits(same.search.search_keys, want.search.search_keys));

  // Another selection: that of other routing queries. Its loss is differentiated by the values.
  auto other = problem;
  for (auto& level : other.routing) std::reverse(level.begin(), level.end());
  const Selection given = span_search(other.search());
  REQUIRE_FALSE(same_choice(given, own));
  const AttentionGradients at_given =
      attention_backward(problem.attention(), {weigh.output.data()}, &given);
  const AttentionGradients of_other = attention_backward(other.attention(), {weigh.output.data()});
  CHECK(same_bits(at_given.attention.value, of_other.attention.value));
  CHECK(same_bits(at_given.attention.query, of_other.attention.query));

  Selection bad = given;
  bad.scores.pop_back();
  CHECK_THROWS_AS(attention_backward(problem.attention(), weigh.gradients(), &bad),
                  std::invalid_argument);
  bad = given;
  bad.spans[0] = {0, problem.sizes.keys};
  CHECK_THROWS_AS(attention_backward(problem.attention(), weigh.gradients(), &bad),
                  std::invalid_argument);
  bad = span_search(small_problem(windowed(2, 1), 177).search());
  CHECK_THROWS_AS(attention_backward(problem.attention(), weigh.gradients(), &bad),
                  std::invalid_argument);
}

TEST_CASE("Derivatives of attention with overlapping spans equal differences", "[gradients]") {
  for (Index steps = 2; steps <= 3; ++steps) {
    CAPTURE(steps);
    auto problem = small_problem(inputs::uniform_schedule(Rule::power, steps, 1, 3), 76);
    problem.search_scale = 0.8;
    problem.softmax_scale = 1.25;
    check_composition(problem);
  }
}

TEST_CASE("Where the keys are searched too, their derivative is the sum of both", "[gradients]") {
  for (Index steps = 2; steps <= 3; ++steps) {
    CAPTURE(steps);
    auto problem = small_problem(windowed(steps, 1), 78);
    problem.search_keys.clear();
    check_composition(problem);
  }
}

TEST_CASE("Float inputs have the derivatives of the same values in double", "[gradients]") {
  const auto problem = small_problem(windowed(3, 1), 79);
  const auto single = inputs::converted<float>(problem);
  const auto out = weights(problem.sizes.rows() * 3);
  const AttentionGradients a = attention_backward(problem.attention(), {out.data()});
  const AttentionGradients b = attention_backward(single.attention(), {out.data()});
  CHECK(distance(b.attention.query, a.attention.query) <= kTolerance);
  CHECK(distance(b.attention.key, a.attention.key) <= kTolerance);
  CHECK(distance(b.attention.value, a.attention.value) <= kTolerance);
  CHECK(distance(b.search.routing_queries.at(1), a.search.routing_queries.at(1)) <= kTolerance);
  CHECK(distance(b.search.search_keys, a.search.search_keys) <= kTolerance);
}

TEST_CASE("What was not chosen has a derivative of exactly 0", "[gradients]") {
  const std::string name = GENERATE("even", "aligned");
  CAPTURE(name);
  const auto problem = inputs::random_problem(
      preset_schedule(name, 3), inputs::grouped_sizes(3, 2, 50, 2), 80, Values::rough, {0, 9});
  const auto out = weights(problem.sizes.rows() * 3);
  const AttentionGradients got = attention_backward(problem.attention(), {out.data()});
  const Selection selection = span_search(problem.search());
  std::vector<bool> attended(problem.key.size() / 3);
  std::vector<bool> anchored(attended.size());
  for (Index slot = 0; slot < problem.sizes.rows() * selection.top_k; ++slot) {
    const Index row = slot / selection.top_k;
    const Span span = selection.spans[at(slot)];
    for (Index j = span.begin; j < span.end; ++j) attended[at(problem.kv_row(row, j))] = true;
    for (Index m = 0; m < selection.levels && slot % selection.top_k < selection.count[at(row)];
         ++m) {
      anchored[at(problem.kv_row(row, selection.anchors[at(slot * selection.levels + m)]))] = true;
    }
  }
  // A chosen key may have no derivative by chance: alone in its span its weight is 1, and alone its
  // path's gate is.
  Index moved = 0;
  for (std::size_t i = 0; i < problem.key.size(); ++i) {
    CHECK((got.attention.value[i] != 0) == attended[i / 3]);
    if (!attended[i / 3]) CHECK(got.attention.key[i] == 0);
    if (!anchored[i / 3]) CHECK(got.search.search_keys[i] == 0);
    moved += got.search.search_keys[i] != 0 && got.attention.key[i] != 0;
  }
  CHECK(moved > 0);
  CHECK(std::count(attended.begin(), attended.end(), false) > 0);
}

TEST_CASE("One kept path has a gate of 1 and no derivative by the search", "[gradients]") {
  Schedule schedule = windowed(3, 1);
  schedule.top_k = 1;
  const auto problem = small_problem(schedule, 81);
  const auto out = weights(problem.sizes.rows() * 3);
  const AttentionGradients got = attention_backward(problem.attention(), {out.data()});
  CHECK(got.search.search_keys == std::vector<double>(problem.key.size(), 0));
  for (const auto& level : got.search.routing_queries) {
    CHECK(level == std::vector<double>(problem.query.size(), 0));
  }
}

TEST_CASE("NaN in the padding and the tail reaches no derivative", "[gradients]") {
  const auto clean = small_problem(windowed(3, 1), 82);
  auto dirty = clean;
  const Index row_size = clean.sizes.head_dim;
  for (Index head = 0; head < 4; ++head) {  // [batch, num_kv_heads]
    for (Index j = 0; j < clean.sizes.keys; ++j) {
      if (j >= clean.start_of(head / 2) && j + 1 < clean.sizes.keys) continue;
      const Index first = (head * clean.sizes.keys + j) * row_size;
      for (auto* array : {&dirty.key, &dirty.value, &dirty.search_keys}) {
        std::fill_n(array->begin() + first, row_size, inputs::kNaN);
      }
    }
  }
  const auto out = weights(clean.sizes.rows() * row_size);
  const AttentionGradients want = attention_backward(clean.attention(), {out.data()});
  const AttentionGradients got = attention_backward(dirty.attention(), {out.data()});
  CHECK(same_bits(got.attention.query, want.attention.query));
  CHECK(same_bits(got.attention.key, want.attention.key));
  CHECK(same_bits(got.attention.value, want.attention.value));
  CHECK(same_bits(got.search.search_keys, want.search.search_keys));
  CHECK(same_bits(got.search.routing_queries.at(0), want.search.routing_queries.at(0)));
}

TEST_CASE("The number of threads does not change a bit of the gradients", "[gradients]") {
  const auto problem = inputs::random_problem(windowed(3, 1), inputs::grouped_sizes(3, 40, 4, 1),
                                              83, Values::rough, {0, 7});
  const auto out = weights(problem.sizes.rows() * 3);
  const auto with = [&](int threads) {
    const inputs::Threads scope(threads);
    return attention_backward(problem.attention(), {out.data()});
  };
  const AttentionGradients one = with(1);
  const AttentionGradients four = with(4);
  CHECK(same_bits(one.attention.query, four.attention.query));
  CHECK(same_bits(one.attention.key, four.attention.key));
  CHECK(same_bits(one.attention.value, four.attention.value));
  CHECK(same_bits(one.search.search_keys, four.search.search_keys));
  CHECK(same_bits(one.search.routing_queries.at(0), four.search.routing_queries.at(0)));
  CHECK(same_bits(one.search.routing_queries.at(1), four.search.routing_queries.at(1)));
}

namespace {

/// The arrays of one recurrence with two heads, as the keys of small problems need them.
struct Recurrence {
  AccumulationArgs<double> sizes;
  std::vector<double> x, a, b, c, initial;

  Recurrence(Index batch, Index length, Index head_dim, Index state, std::uint64_t seed) {
    Random random(seed);
    sizes.batch = batch;
    sizes.num_heads = 2;
    sizes.length = length;
    sizes.head_dim = head_dim;
    sizes.state = state;
    const Index rows = batch * 2 * length;
    x = random.tensor(rows * head_dim, Values::rough);
    b = random.tensor(rows * state, Values::rough);
    c = random.tensor(rows * state, Values::rough);
    initial = random.tensor(batch * 2 * head_dim * state, Values::rough);
    for (Index row = 0; row < rows; ++row) {  // away from 0 and 1, where differences cannot reach
      a.push_back(0.25 + static_cast<double>(random.below(1024)) / 2048);
    }
  }

  AccumulationArgs<double> args() const {
    AccumulationArgs<double> result = sizes;
    result.x = x.data();
    result.a = a.data();
    result.b = b.data();
    result.c = c.data();
    result.initial = initial.data();
    return result;
  }

  template <class Loss>
  void check(const AccumulationGradients& got, Loss loss, bool decays = true) {
    CHECK(distance(got.x, differences(x, loss)) <= kTolerance);
    CHECK(distance(got.b, differences(b, loss)) <= kTolerance);
    CHECK(distance(got.c, differences(c, loss)) <= kTolerance);
    CHECK(distance(got.initial, differences(initial, loss)) <= kTolerance);
    if (decays) CHECK(distance(got.a, differences(a, loss)) <= kTolerance);
  }
};

}  // namespace

TEST_CASE("Derivatives of accumulation equal differences", "[gradients]") {
  for (const Index length : {1, 2, 7, 16}) {
    for (const Index state : {1, 3}) {
      CAPTURE(length, state);
      Recurrence recurrence(2, length, 2, state, 84);
      const Index rows = 4 * length;
      const auto out = weights(rows * 2);
      const auto final_out = weights(4 * 2 * state);
      const auto by_output = [&] { return dot(accumulate(recurrence.args()).output, out); };
      const auto by_state = [&] {
        return dot(accumulate(recurrence.args()).final_state, final_out);
      };
      recurrence.check(accumulate_backward(recurrence.args(), out.data()), by_output);
      recurrence.check(accumulate_backward(recurrence.args(), nullptr, final_out.data()), by_state);
      recurrence.check(accumulate_backward(recurrence.args(), out.data(), final_out.data()),
                       [&] { return by_output() + by_state(); });
    }
  }
}

TEST_CASE("Derivatives of accumulation with decays of 0 and 1 equal differences", "[gradients]") {
  Recurrence recurrence(1, 10, 2, 2, 85);
  for (const std::size_t t : {3U, 4U, 10U, 15U}) recurrence.a[t] = 0;
  for (const std::size_t t : {0U, 6U, 17U, 18U}) recurrence.a[t] = 1;
  const auto out = weights(20 * 2);
  const auto final_out = weights(2 * 2 * 2);
  const auto loss = [&] {
    const AccumulationResult result = accumulate(recurrence.args());
    return dot(result.output, out) + dot(result.final_state, final_out);
  };
  const auto got = accumulate_backward(recurrence.args(), out.data(), final_out.data());
  recurrence.check(got, loss, false);
  // The loss is linear in each decay: a step of 1/4 into [0, 1] gives its derivative exactly.
  for (std::size_t t = 0; t < recurrence.a.size(); ++t) {
    CAPTURE(t);
    const double here = recurrence.a[t];
    const double before = loss();
    const double step = here < 0.5 ? 0.25 : -0.25;
    recurrence.a[t] = here + step;
    const double slope = (loss() - before) / step;
    recurrence.a[t] = here;
    CHECK(std::abs(slope - got.a[t]) <= 1e-12);
  }
}

TEST_CASE("Rows before start have derivatives of 0, NaN in them or not", "[gradients]") {
  Recurrence recurrence(2, 9, 2, 2, 86);
  const std::vector<Index> start{4, 100};
  recurrence.sizes.offset = 1;
  recurrence.sizes.start = start.data();
  const auto out = weights(36 * 2);
  const auto final_out = weights(4 * 4);
  recurrence.check(accumulate_backward(recurrence.args(), out.data(), final_out.data()), [&] {
    const AccumulationResult result = accumulate(recurrence.args());
    return dot(result.output, out) + dot(result.final_state, final_out);
  });
  const auto clean = accumulate_backward(recurrence.args(), out.data(), final_out.data());
  for (const std::size_t row :
       {0U, 2U, 9U, 11U, 18U, 26U, 35U}) {  // rows 3 to 8 of the first entry count
    recurrence.a[row] = inputs::kNaN;
    recurrence.x[row * 2] = recurrence.b[row * 2] = recurrence.c[row * 2] = inputs::kNaN;
  }
  const auto dirty = accumulate_backward(recurrence.args(), out.data(), final_out.data());
  CHECK(same_bits(dirty.x, clean.x));
  CHECK(same_bits(dirty.a, clean.a));
  CHECK(same_bits(dirty.b, clean.b));
  CHECK(same_bits(dirty.c, clean.c));
  CHECK(same_bits(dirty.initial, clean.initial));
  CHECK(dirty.a[2] == 0);
  CHECK(dirty.x[2 * 2] == 0);
}

TEST_CASE("Derivatives run through accumulated keys", "[gradients]") {
  auto problem = small_problem(windowed(3, 1), 87);
  problem.search_keys.clear();
  Recurrence recurrence(2, problem.sizes.keys, 3, 2, 88);
  recurrence.sizes.start = problem.start.data();
  problem.key = accumulate(recurrence.args()).output;
  const Selection chosen = span_search(problem.search());
  const auto out = weights(problem.sizes.rows() * 3);
  bool choices_held = true;
  const auto loss = [&] {
    problem.key = accumulate(recurrence.args()).output;
    choices_held = choices_held && same_choice(span_search(problem.search()), chosen);
    return dot(attention(problem.attention()).output, out);
  };
  const AttentionGradients by_key = attention_backward(problem.attention(), {out.data()});
  const auto d_key = sum_of(by_key.attention.key, by_key.search.search_keys);
  recurrence.check(accumulate_backward(recurrence.args(), d_key.data()), loss);
  CHECK(choices_held);
}
