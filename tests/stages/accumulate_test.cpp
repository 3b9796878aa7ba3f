#include "multistep/accumulation.hpp"

#include "schedule/property.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::at;
using inputs::distance;
using inputs::kNaN;
using inputs::Random;
using inputs::same_bits;
using inputs::Values;

namespace {

// At most 60 terms of size 2 in a state, and as many products in an output.
constexpr double kTolerance = 1e-13;

/// The arrays of one recurrence.
template <class T>
struct Recurrence {
  AccumulationArgs<T> sizes;  // without its pointers
  std::vector<Index> start;   // [batch], or none
  std::vector<T> x, a, b, c;
  std::vector<double> initial;  // or none

  AccumulationArgs<T> args() const {
    AccumulationArgs<T> result = sizes;
    result.start = start.empty() ? nullptr : start.data();
    result.x = x.data();
    result.a = a.data();
    result.b = b.data();
    result.c = c.data();
    result.initial = initial.empty() ? nullptr : initial.data();
    return result;
  }
  Index heads() const { return sizes.batch * sizes.num_heads; }

  /// Rows [first, first + count), from the state given.
  Recurrence chunk(Index first, Index count, const std::vector<double>& state) const {
    Recurrence part = *this;
    part.sizes.length = count;
    part.sizes.offset += first;
    part.x = inputs::rows_of(x, heads(), sizes.head_dim, first, count);
    part.a = inputs::rows_of(a, heads(), 1, first, count);
    part.b = inputs::rows_of(b, heads(), sizes.state, first, count);
    part.c = inputs::rows_of(c, heads(), sizes.state, first, count);
    part.initial = state;
    return part;
  }
};

template <class T>
std::vector<T> decays(Random& random, Index size) {
  std::vector<T> result;
  for (Index i = 0; i < size; ++i) {
    // 0 and 1 among them.
    result.push_back(static_cast<T>(static_cast<double>(random.below(9)) / 8));
  }
  return result;
}

template <class T>
Recurrence<T> random_recurrence(Index length, Index head_dim, Index state, std::uint64_t seed,
                                Values values = Values::exact) {
  Random random(seed);
  Recurrence<T> result;
  result.sizes.batch = 2;
  result.sizes.num_heads = 3;
  result.sizes.length = length;
  result.sizes.head_dim = head_dim;
  result.sizes.state = state;
  const auto tensor = [&](Index size) {
    const std::vector<double> array = random.tensor(size, values);
    std::vector<T> converted;
    for (const double value : array) converted.push_back(static_cast<T>(value));
    return converted;
  };
  result.x = tensor(6 * length * head_dim);
  result.a = decays<T>(random, 6 * length);
  result.b = tensor(6 * length * state);
  result.c = tensor(6 * length * state);
  result.initial = random.tensor(6 * head_dim * state, values);
  return result;
}

/// H_t = a_t H_{t-1} + x_t b_t^T and r_t = H_t c_t, entry by entry.
template <class T>
AccumulationResult naive_accumulate(const Recurrence<T>& r) {
  const auto [D, S, L] = std::tuple(r.sizes.head_dim, r.sizes.state, r.sizes.length);
  AccumulationResult result;
  for (Index head = 0; head < r.heads(); ++head) {
    std::vector<double> H(at(D * S), 0);
    if (!r.initial.empty()) H = inputs::rows_of(r.initial, 1, D * S, head, 1);
    const Index start = r.start.empty() ? 0 : r.start[at(head / r.sizes.num_heads)];
    for (Index t = head * L; t < (head + 1) * L; ++t) {
      const bool counts = r.sizes.offset + t % L >= start;
      for (Index d = 0; d < D; ++d) {
        double sum = 0;
        for (Index s = 0; s < S && counts; ++s) {
          double& h = H[at(d * S + s)];
          h = static_cast<double>(r.a[at(t)]) * h +
              static_cast<double>(r.x[at(t * D + d)]) * static_cast<double>(r.b[at(t * S + s)]);
          sum += h * static_cast<double>(r.c[at(t * S + s)]);
        }
        result.output.push_back(sum);
      }
    }
    result.final_state.insert(result.final_state.end(), H.begin(), H.end());
  }
  return result;
}

double error(const AccumulationResult& got, const AccumulationResult& want) {
  return std::max(distance(got.output, want.output), distance(got.final_state, want.final_state));
}

}  // namespace

TEST_CASE("Accumulation is the recurrence, entry by entry", "[accumulation]") {
  for (const Index state : {1, 2, 5}) {
    for (const Index head_dim : {1, 4}) {
      CAPTURE(state, head_dim);
      auto recurrence = random_recurrence<double>(30, head_dim, state, 61);
      CHECK(error(accumulate(recurrence.args()), naive_accumulate(recurrence)) <= kTolerance);
      recurrence.initial.clear();
      CHECK(error(accumulate(recurrence.args()), naive_accumulate(recurrence)) <= kTolerance);
      recurrence.start = {0, 11};
      recurrence.sizes.offset = 3;
      CHECK(error(accumulate(recurrence.args()), naive_accumulate(recurrence)) <= kTolerance);
    }
  }
}

TEST_CASE("Accumulation of float inputs is in double", "[accumulation]") {
  const auto recurrence = random_recurrence<float>(30, 3, 2, 62, Values::rough);
  CHECK(error(accumulate(recurrence.args()), naive_accumulate(recurrence)) <= kTolerance);
}

TEST_CASE("The decay is applied to the state before the input is added", "[accumulation]") {
  Recurrence<double> one;
  one.sizes.length = 3;
  one.sizes.head_dim = 1;
  one.sizes.state = 1;
  one.x = {3, 5, 7};
  one.a = {0.5, 0.25, 0};
  one.b = {1, 2, 1};
  one.c = {1, 1, 10};
  one.initial = {8};
  const AccumulationResult got = accumulate(one.args());
  CHECK(got.output == std::vector<double>{7, 11.75, 70});
  CHECK(got.final_state == std::vector<double>{7});
}

TEST_CASE("An exponential moving average is the case state = 1, b = 1 - a, c = 1",
          "[accumulation]") {
  auto recurrence = random_recurrence<double>(40, 3, 1, 63);
  for (std::size_t t = 0; t < recurrence.a.size(); ++t) recurrence.b[t] = 1 - recurrence.a[t];
  std::fill(recurrence.c.begin(), recurrence.c.end(), 1.0);
  std::vector<double> want;
  for (Index head = 0; head < 6; ++head) {
    std::vector<double> mean = inputs::rows_of(recurrence.initial, 1, 3, head, 1);
    for (Index t = head * 40; t < (head + 1) * 40; ++t) {
      const double a = recurrence.a[at(t)];
      for (Index d = 0; d < 3; ++d) {
        mean[at(d)] += (1 - a) * (recurrence.x[at(t * 3 + d)] - mean[at(d)]);
        want.push_back(mean[at(d)]);
      }
    }
  }
  CHECK(distance(accumulate(recurrence.args()).output, want) <= kTolerance);
}

TEST_CASE("Chunks continue from the final state, bit for bit", "[accumulation]") {
  check_property("any cut, any start", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    Random random(seed);
    const Index length = 2 + random.below(30);
    const Index cut = random.below(length + 1);
    auto recurrence = random_recurrence<double>(length, 3, 2, random.next(), Values::rough);
    recurrence.sizes.offset = random.below(4);
    recurrence.start = {random.below(length + 4), random.below(4)};
    const AccumulationResult whole = accumulate(recurrence.args());
    const auto head = accumulate(recurrence.chunk(0, cut, recurrence.initial).args());
    const auto tail = accumulate(recurrence.chunk(cut, length - cut, head.final_state).args());
    RC_ASSERT(same_bits(head.output, inputs::rows_of(whole.output, 6, 3, 0, cut)));
    RC_ASSERT(same_bits(tail.output, inputs::rows_of(whole.output, 6, 3, cut, length - cut)));
    RC_ASSERT(same_bits(tail.final_state, whole.final_state));
  });
}

TEST_CASE("Decoding one row at a time gives the same bits", "[accumulation]") {
  const auto recurrence = random_recurrence<double>(17, 4, 3, 64, Values::rough);
  const AccumulationResult whole = accumulate(recurrence.args());
  std::vector<double> state = recurrence.initial;
  for (Index t = 0; t < 17; ++t) {
    const AccumulationResult step = accumulate(recurrence.chunk(t, 1, state).args());
    CHECK(same_bits(step.output, inputs::rows_of(whole.output, 6, 4, t, 1)));
    state = step.final_state;
  }
  CHECK(same_bits(state, whole.final_state));
}

TEST_CASE("Rows before start leave the state alone and give 0, NaN included", "[accumulation]") {
  auto recurrence = random_recurrence<double>(20, 3, 2, 65);
  recurrence.sizes.offset = 5;
  recurrence.start = {0, 13};  // rows [0, 8) of the second entry do not count
  const AccumulationResult clean = accumulate(recurrence.args());
  for (Index head = 3; head < 6; ++head) {
    for (Index t = 0; t < 8; ++t) {
      const Index row = head * 20 + t;
      recurrence.a[at(row)] = t % 2 ? kNaN : -7;
      std::fill_n(recurrence.x.begin() + row * 3, 3, kNaN);
      std::fill_n(recurrence.b.begin() + row * 2, 2, kNaN);
      std::fill_n(recurrence.c.begin() + row * 2, 2, kNaN);
      for (Index d = 0; d < 3; ++d) CHECK(clean.output[at(row * 3 + d)] == 0);
    }
  }
  const AccumulationResult dirty = accumulate(recurrence.args());
  CHECK(same_bits(dirty.output, clean.output));
  CHECK(same_bits(dirty.final_state, clean.final_state));
  CHECK(error(clean, naive_accumulate(recurrence)) <= kTolerance);

  recurrence.start = {100, 100};
  const AccumulationResult nothing = accumulate(recurrence.args());
  CHECK(nothing.output == std::vector<double>(6 * 20 * 3, 0));
  CHECK(same_bits(nothing.final_state, recurrence.initial));
}

TEST_CASE("A NaN reaches the later rows of its own head alone", "[accumulation]") {
  const auto recurrence = random_recurrence<double>(12, 2, 2, 66);
  const AccumulationResult clean = accumulate(recurrence.args());
  for (const bool in_decay : {false, true}) {
    auto dirty = recurrence;
    if (in_decay) {
      dirty.a[at(4 * 12 + 5)] = kNaN;
    } else {
      dirty.x[at((4 * 12 + 5) * 2)] = kNaN;
      dirty.x[at((4 * 12 + 5) * 2 + 1)] = kNaN;
    }
    for (Index t = 6; t < 12; ++t) dirty.a[at(4 * 12 + t)] = 0.5;
    const AccumulationResult got = accumulate(dirty.args());
    for (Index row = 0; row < 6 * 12; ++row) {
      const bool reached = row / 12 == 4 && row % 12 >= 5;
      for (Index i = row * 2; i < row * 2 + 2; ++i) {
        CHECK((reached ? std::isnan(got.output[at(i)]) : got.output[at(i)] == clean.output[at(i)]));
      }
    }
  }
}

TEST_CASE("An empty length hands the initial state on", "[accumulation]") {
  auto recurrence = random_recurrence<double>(0, 3, 2, 67);
  const AccumulationResult got = accumulate(recurrence.args());
  CHECK(got.output.empty());
  CHECK(same_bits(got.final_state, recurrence.initial));
  recurrence.initial.clear();
  CHECK(accumulate(recurrence.args()).final_state == std::vector<double>(36, 0));
}

TEST_CASE("The number of threads does not change a bit of accumulation", "[accumulation]") {
  const auto recurrence = random_recurrence<double>(50, 5, 3, 68, Values::rough);
  const auto with = [&](int threads) {
    const inputs::Threads scope(threads);
    return accumulate(recurrence.args());
  };
  const AccumulationResult one = with(1);
  const AccumulationResult four = with(4);
  CHECK(same_bits(one.output, four.output));
  CHECK(same_bits(one.final_state, four.final_state));
}

TEST_CASE("A decay outside [0, 1] is refused, and named", "[accumulation]") {
  for (const double decay : {-0.25, 1.5, -inputs::kInfinity, inputs::kInfinity}) {
    CAPTURE(decay);
    auto recurrence = random_recurrence<double>(9, 2, 2, 69);
    recurrence.sizes.offset = 100;
    recurrence.a[at(3 * 9 + 7)] = decay;
    CHECK_THROWS_AS(accumulate(recurrence.args()), std::invalid_argument);
    CHECK_THROWS_AS(accumulate_backward(recurrence.args(), nullptr), std::invalid_argument);
  }
  auto recurrence = random_recurrence<float>(9, 2, 2, 69);
  recurrence.sizes.offset = 100;
  recurrence.a[at(3 * 9 + 7)] = 1.5F;
  CHECK_THROWS_WITH(accumulate(recurrence.args()), ContainsSubstring("a 1.5") &&
                                                       ContainsSubstring("position 107") &&
                                                       ContainsSubstring("[0, 1]"));
}
