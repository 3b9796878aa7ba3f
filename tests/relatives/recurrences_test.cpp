#include "multistep/recurrences.hpp"

#include "multistep/accumulation.hpp"
#include "relatives/stretch.hpp"
#include "schedule/property.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::kNaN;
using inputs::Random;
using inputs::Values;

namespace {

// Of sums of L^2 products of five numbers. The ways of computing them share no order of additions.
constexpr double kTolerance = 1e-12;

constexpr auto kForms = {SecondOrderForm::symmetric, SecondOrderForm::asymmetric};
constexpr Index kLengths[] = {0, 1, 2, 3, 7, 8, 31, 33, 70};

/// The arrays of either recurrence.
struct Recurrence {
  Index length = 0;
  Index head_dim = 4;
  Index value_dim = 3;
  Index levels = 9;
  std::vector<double> q = {}, k = {}, v = {}, inner = {}, outer = {}, weights = {};

  SecondOrderArgs second_order(SecondOrderForm form, bool decays = true) const {
    SecondOrderArgs args{form, 2, 2, length, head_dim, value_dim, q.data(), k.data(), v.data()};
    if (decays) {
      args.inner = inner.data();
      args.outer = outer.data();
    }
    return args;
  }
  LogLinearArgs log_linear(bool decays = true) const {
    return {2,
            2,
            length,
            head_dim,
            value_dim,
            levels,
            q.data(),
            k.data(),
            v.data(),
            weights.data(),
            decays ? inner.data() : nullptr};
  }
};

/// In [1/8, 1], and 0 now and then.
std::vector<double> random_decays(Random& random, Index size) {
  std::vector<double> result;
  for (Index t = 0; t < size; ++t) {
    result.push_back(random.below(16) ? 1 - static_cast<double>(random.below(896)) / 1024 : 0);
  }
  return result;
}

Recurrence random_recurrence(Index length, std::uint64_t seed) {
  Random random(seed);
  Recurrence r{length};
  const Index rows = 4 * length;
  r.q = random.tensor(rows * r.head_dim, Values::rough);
  r.k = random.tensor(rows * r.head_dim, Values::rough);
  r.v = random.tensor(rows * r.value_dim, Values::rough);
  r.inner = random_decays(random, rows);
  r.outer = random_decays(random, rows);
  r.weights = random.tensor(rows * r.levels, Values::rough);
  return r;
}

/// The largest difference over the largest value; infinite where a size differs or a NaN stands.
double off(const std::vector<double>& got, const std::vector<double>& want) {
  double size = 0;
  for (const double x : want) size = std::max(size, std::abs(x));
  return inputs::distance(got, want) / (size > 0 ? size : 1);
}

/// The masked sums over pairs of keys, term by term.
std::vector<double> sums_over_pairs(const SecondOrderArgs& args) {
  const auto [L, d, m] = std::tuple(args.length, args.head_dim, args.value_dim);
  std::vector<double> output;
  for (Index head = 0; head < args.batch * args.num_heads; ++head) {
    const auto product = [&](const double* x, Index i, const double* y, Index j) {
      double sum = 0;
      for (Index c = 0; c < d; ++c) sum += x[(head * L + i) * d + c] * y[(head * L + j) * d + c];
      return sum;
    };
    const auto decay = [&](const double* decays, Index from, Index to) {
      double result = 1;
      for (Index t = from + 1; decays && t <= to; ++t) result *= decays[head * L + t];
      return result;
    };
    for (Index t = 0; t < L; ++t) {
      std::vector<double> sum(at(m + 1));
      for (Index near = 0; near <= t; ++near) {  // the later key of a pair
        for (Index far = 0; far <= near; ++far) {
          const bool symmetric = args.form == SecondOrderForm::symmetric;
          const double weight = decay(args.outer, near, t) * decay(args.inner, far, near) *
                                product(args.q, t, args.k, symmetric ? far : near) *
                                product(args.q, near, args.k, far);
          const Index value = symmetric ? near : far;
          for (Index c = 0; c < m; ++c) sum[at(c)] += weight * args.v[(head * L + value) * m + c];
          sum[at(m)] += weight;
        }
      }
      for (Index c = 0; c < m; ++c) {
        output.push_back(sum[at(c)] / (args.epsilon ? sum[at(m)] + *args.epsilon : 1));
      }
    }
  }
  return output;
}

/// One head's rows as stretches.
std::vector<Stretch> row_stretches(const SecondOrderArgs& args, Index head) {
  std::vector<Stretch> result;
  for (Index t = head * args.length; t < (head + 1) * args.length; ++t) {
    result.push_back(row_stretch(args.form, vector_at(args.q, t, args.head_dim),
                                 vector_at(args.k, t, args.head_dim),
                                 vector_at(args.v, t, args.value_dim),
                                 args.inner ? args.inner[t] : 1, args.outer ? args.outer[t] : 1));
  }
  return result;
}

double off(const Matrix& got, const Matrix& want) {
  return (got - want).cwiseAbs().maxCoeff() / want.cwiseAbs().maxCoeff();
}

double off(const Stretch& got, const Stretch& want) {
  return std::max({off(got.X, want.X), off(got.Y, want.Y), off(got.Z, want.Z),
                   std::abs(got.inner - want.inner), std::abs(got.outer - want.outer)});
}

/// Rows [begin, end), cut wherever it falls.
Stretch bracketed(const std::vector<Stretch>& rows, Index begin, Index end, Random& random) {
  if (end - begin == 1) return rows[at(begin)];
  const Index cut = begin + 1 + random.below(end - begin - 1);
  return join(bracketed(rows, begin, cut, random), bracketed(rows, cut, end, random));
}

}  // namespace

TEST_CASE("Second order: stream, masked product and scan are the sums over pairs", "[relatives]") {
  for (const Index length : kLengths) {
    for (const SecondOrderForm form : kForms) {
      for (const bool decays : {false, true}) {
        CAPTURE(length, static_cast<int>(form), decays);
        const Recurrence r = random_recurrence(length, 71);
        const SecondOrderArgs args = r.second_order(form, decays);
        const std::vector<double> want = sums_over_pairs(args);
        CHECK(want.size() == at(4 * length * r.value_dim));
        CHECK(off(second_order(args), want) <= kTolerance);
        CHECK(off(second_order_dense(args), want) <= kTolerance);
        CHECK(off(second_order_scan(args), want) <= kTolerance);
      }
    }
  }
}

TEST_CASE("Second order: denominators are the same sums with 1 for v", "[relatives]") {
  for (const Index length : kLengths) {
    for (const SecondOrderForm form : kForms) {
      for (const double epsilon : {0.0, 0.5}) {
        CAPTURE(length, static_cast<int>(form), epsilon);
        Recurrence r = random_recurrence(length, 72);
        for (double& x : r.q) x = std::abs(x);  // so that no denominator is near 0
        for (double& x : r.k) x = std::abs(x);
        SecondOrderArgs args = r.second_order(form);
        args.epsilon = epsilon;
        const std::vector<double> want = sums_over_pairs(args);
        CHECK(off(second_order(args), want) <= kTolerance);
        CHECK(off(second_order_dense(args), want) <= kTolerance);
        CHECK(off(second_order_scan(args), want) <= kTolerance);
        if (epsilon > 0) continue;
        std::fill(r.v.begin(), r.v.end(), 3.0);
        CHECK(off(second_order(args), std::vector<double>(r.v.size(), 3.0)) <= kTolerance);
      }
    }
  }
}

TEST_CASE("Second order: either form is two accumulations, one behind the other", "[relatives]") {
  const Recurrence r = random_recurrence(33, 73);
  const auto accumulated = [&](const std::vector<double>& x, Index width,
                               const std::vector<double>& decays, const std::vector<double>& b) {
    AccumulationArgs<double> args{2, 2, 33, width, r.head_dim};
    args.x = x.data();
    args.a = decays.data();
    args.b = b.data();
    args.c = r.q.data();
    return accumulate(args).output;
  };
  const auto u = accumulated(r.k, r.head_dim, r.inner, r.k);
  CHECK(off(second_order(r.second_order(SecondOrderForm::symmetric)),
            accumulated(r.v, r.value_dim, r.outer, u)) <= kTolerance);
  const auto w = accumulated(r.v, r.value_dim, r.inner, r.k);
  CHECK(off(second_order(r.second_order(SecondOrderForm::asymmetric)),
            accumulated(w, r.value_dim, r.outer, r.k)) <= kTolerance);
}

TEST_CASE("Second order: W = L * A gives L * (W W^T), or W W, with one decay too", "[relatives]") {
  const Index L = 21;
  const Recurrence r = random_recurrence(L, 74);
  for (const double decay : {1.0, 0.75}) {
    for (const SecondOrderForm form : kForms) {
      const bool symmetric = form == SecondOrderForm::symmetric;
      SecondOrderArgs args = r.second_order(form);
      // W W^T has decay^(t - i) decay^(j - i) = decay^(t - j) (decay^2)^(j - i).
      const std::vector<double> inner(at(4 * L), symmetric ? decay * decay : decay);
      const std::vector<double> outer(at(4 * L), decay);
      args.inner = inner.data();
      args.outer = outer.data();
      const std::vector<double> got = second_order(args);
      Matrix W = Matrix::Zero(L, L);
      for (Index t = 0; t < L; ++t) {
        for (Index i = 0; i <= t; ++i) {
          W(t, i) = std::pow(decay, t - i) *
                    dot(vector_at(r.q.data(), t, r.head_dim), vector_at(r.k.data(), i, r.head_dim));
        }
      }
      const Matrix product = symmetric ? Matrix(W * W.transpose()) : Matrix(W * W);
      const Matrix mask = product.triangularView<Eigen::Lower>();
      const Matrix want = mask * Eigen::Map<const Matrix>(r.v.data(), L, r.value_dim);
      CHECK(off(Matrix(Eigen::Map<const Matrix>(got.data(), L, r.value_dim)), want) <= kTolerance);
    }
  }
}

TEST_CASE("Second order: the paper's five summaries, and their decay as a masked product",
          "[relatives]") {
  // S and C decay by g each row, G by g^2 with the state before it once decayed: all pairs
  // i <= j <= t times g^(t - i) g^(t - j), inner decays g and outer ones g^2.
  const Index L = 33;
  const Recurrence r = random_recurrence(L, 75);
  for (const double g : {1.0, 0.75}) {
    const std::vector<double> inner(at(4 * L), g), outer(at(4 * L), g * g);
    SecondOrderArgs args = r.second_order(SecondOrderForm::symmetric);
    args.inner = inner.data();
    args.outer = outer.data();
    std::vector<double> want;
    for (Index head = 0; head < 4; ++head) {
      Matrix S = Matrix::Zero(4, 4), C = Matrix::Zero(4, 3), G = Matrix::Zero(4, 3);
      for (Index t = head * L; t < (head + 1) * L; ++t) {
        const Vector q = vector_at(r.q.data(), t, 4), k = vector_at(r.k.data(), t, 4);
        G = g * g * G + k.transpose() * (k * (g * C));
        S = g * S + k.transpose() * k;
        C = g * C + q.transpose() * vector_at(r.v.data(), t, 3);
        const Vector o = q * (S * C - G);
        want.insert(want.end(), o.begin(), o.end());
      }
    }
    CHECK(off(second_order(args), want) <= kTolerance);
    CHECK(off(second_order_dense(args), want) <= kTolerance);
  }
}

TEST_CASE("Second order: stretches join associatively, at random brackets", "[relatives]") {
  check_property("any brackets", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    Random random(seed);
    const Index length = 1 + random.below(40);
    const Recurrence r = random_recurrence(length, random.next());
    for (const SecondOrderForm form : kForms) {
      const SecondOrderArgs args = r.second_order(form, random.below(4) > 0);
      const std::vector<Stretch> rows = row_stretches(args, 1);
      Stretch in_order = rows[0];
      for (Index t = 1; t < length; ++t) in_order = join(in_order, rows[at(t)]);
      RC_ASSERT(off(bracketed(rows, 0, length, random), in_order) <= kTolerance);
    }
  });
}

TEST_CASE("Second order: chunks that carry a stretch give the same rows", "[relatives]") {
  const Index L = 45;
  const Recurrence r = random_recurrence(L, 76);
  for (const SecondOrderForm form : kForms) {
    const SecondOrderArgs args = r.second_order(form);
    const std::vector<double> stream = second_order(args);
    for (const Index chunk : {1, 4, 7, 16, 45, 64}) {
      std::vector<double> got;
      for (Index head = 0; head < 4; ++head) {
        const std::vector<Stretch> rows = row_stretches(args, head);
        Stretch carried{1, 1, Matrix::Zero(rows[0].X.rows(), rows[0].X.cols()),
                        Matrix::Zero(rows[0].Y.rows(), rows[0].Y.cols()),
                        Matrix::Zero(rows[0].Z.rows(), rows[0].Z.cols())};  // of no rows
        for (Index begin = 0; begin < L; begin += chunk) {
          const Index end = std::min(begin + chunk, L);
          Stretch inside = rows[at(begin)];
          for (Index t = begin; t < end; ++t) {
            if (t > begin) inside = join(inside, rows[at(t)]);
            const Vector q = vector_at(args.q, head * L + t, args.head_dim);
            const Vector o = read_stretch(form, join(carried, inside), q);
            got.insert(got.end(), o.begin(), o.end());
          }
          carried = join(carried, inside);
        }
      }
      CHECK(off(got, stream) <= kTolerance);
    }
  }
}

TEST_CASE("Second order: the decayed scans of the paper are not associative, ours are",
          "[relatives]") {
  // Three rows, all numbers 1, decay 1/2; what a decayed G (or E) comes to. Everything is exact.
  struct Summary {
    double decay, S, C, G;
  };
  const auto theirs = [](const Summary& a, const Summary& b) -> Summary {
    return {a.decay * b.decay, b.decay * a.S + b.S, b.decay * a.C + b.C,
            b.decay * a.G + b.G + b.S * (b.decay * a.C)};
  };
  const Summary one{0.5, 1, 1, 0};
  CHECK(theirs(theirs(one, one), one).G == 1);
  CHECK(theirs(one, theirs(one, one)).G == 0.875);
  double G = 0, C = 0, exact = 0;
  for (Index t = 0; t < 3; ++t) {
    G = 0.5 * G + C;                 // the recurrence that the scan is said to give
    exact = 0.25 * exact + 0.5 * C;  // that of the masked product
    C = 0.5 * C + 1;
  }
  CHECK(exact == 0.875);
  CHECK(G == 2);

  struct Asymmetric {
    double decay, R, P, E;
  };
  const auto also = [](const Asymmetric& a, const Asymmetric& b) -> Asymmetric {
    return {a.decay * b.decay, b.decay * a.R + b.R, b.decay * a.P + b.P,
            b.decay * a.E + b.E + b.R * (b.decay * a.P)};
  };
  const Asymmetric row{0.5, 1, 1, 1};
  CHECK(also(also(row, row), row).E == 2.75);  // as the recurrence has it
  CHECK(also(row, also(row, row)).E == 2.625);

  const Vector x = Vector::Ones(1);
  for (const SecondOrderForm form : kForms) {
    const Stretch ours = row_stretch(form, x, x, x, 0.5, 0.5);
    const Stretch left = join(join(ours, ours), ours), right = join(ours, join(ours, ours));
    CHECK(left.X == right.X);
    CHECK(left.Y == right.Y);
    CHECK(left.Z == right.Z);
    CHECK(left.Z(0, 0) == 2.75);  // 1 + 2 (1/2) + 3 (1/4): either form
  }
}

TEST_CASE("Log-linear: the levels of a query are the buckets of a Fenwick tree", "[relatives]") {
  for (Index t = 0; t < 300; ++t) {
    std::vector<Index> want(at(t + 1), -1);
    want[at(t)] = 0;
    Index end = t;
    for (Index level = 1; end > 0; ++level) {  // the newest bucket first, of the lowest set bit
      if (!(t >> (level - 1) & 1)) continue;
      const Index begin = end - (Index{1} << (level - 1));
      std::fill(want.begin() + begin, want.begin() + end, level);
      end = begin;
    }
    for (Index s = 0; s <= t; ++s) CHECK(log_linear_level(t, s) == want[at(s)]);
  }
  CHECK_THROWS_WITH(log_linear_level(4, 5), ContainsSubstring("key 5"));
  CHECK_THROWS_WITH(log_linear_level(4, -1), ContainsSubstring("key -1"));
}

TEST_CASE("Log-linear: the stream is the masked product", "[relatives]") {
  for (const Index length : kLengths) {
    for (const bool decays : {false, true}) {
      CAPTURE(length, decays);
      const Recurrence r = random_recurrence(length, 77);
      const LogLinearArgs args = r.log_linear(decays);
      std::vector<double> want;  // term by term
      for (Index row = 0; row < 4 * length; ++row) {
        std::vector<double> sum(3);
        double decay = 1;
        for (Index s = row; s >= row - row % length; --s) {
          const Index level = std::bit_width(static_cast<std::uint64_t>(row % length ^ s % length));
          const double weight = args.weights[row * 9 + level] * decay *
                                dot(vector_at(args.q, row, 4), vector_at(args.k, s, 4));
          for (Index c = 0; c < 3; ++c) sum[at(c)] += weight * args.v[s * 3 + c];
          if (decays) decay *= args.a[s];
        }
        want.insert(want.end(), sum.begin(), sum.end());
      }
      CHECK(off(log_linear(args), want) <= kTolerance);
      CHECK(off(log_linear_dense(args), want) <= kTolerance);
    }
  }
}

TEST_CASE("Log-linear: with equal weights it is linear attention", "[relatives]") {
  Recurrence r = random_recurrence(33, 78);
  std::fill(r.weights.begin(), r.weights.end(), 1.0);
  AccumulationArgs<double> args{2, 2, 33, r.value_dim, r.head_dim};
  args.x = r.v.data();
  args.a = r.inner.data();
  args.b = r.k.data();
  args.c = r.q.data();
  CHECK(off(log_linear(r.log_linear()), accumulate(args).output) <= kTolerance);
}

TEST_CASE("Recurrences: streams and masked products have the same derivatives", "[relatives]") {
  const Index length = 6;
  Recurrence r = random_recurrence(length, 79);
  Random random(80);
  const std::vector<double> by_output = random.tensor(4 * length * r.value_dim, Values::rough);
  const auto loss = [&](const std::vector<double>& output) {
    double sum = 0;
    for (std::size_t i = 0; i < output.size(); ++i) sum += by_output[i] * output[i];
    return sum;
  };
  const inputs::Threads one(1);
  const double step = 0x1p-8;
  // Losses are polynomials of degree at most 3 in one number: this difference has no error but that
  // of rounding.
  const auto derivative = [&](double& x, const auto& function) {
    const double here = x;
    const auto value = [&](double steps) {
      x = here + steps * step;
      return loss(function());
    };
    const double near = value(1) - value(-1);
    const double far = value(2) - value(-2);
    x = here;
    return (8 * near - far) / (12 * step);
  };
  const auto check = [&](std::vector<double>& array, bool in_range, const auto& stream,
                         const auto& dense) {
    for (double& x : array) {
      if (in_range) x = std::clamp(x, 2 * step, 1 - 2 * step);  // a decay
    }
    double largest = 0, worst = 0;
    for (double& x : array) {
      const double want = derivative(x, dense);
      worst = std::max(worst, std::abs(derivative(x, stream) - want));
      largest = std::max(largest, std::abs(want));
    }
    CHECK(largest > 0.01);
    CHECK(worst <= 1e-11 * largest);  // rounding over the step
  };
  for (const SecondOrderForm form : kForms) {
    const auto stream = [&] { return second_order(r.second_order(form)); };
    const auto dense = [&] { return second_order_dense(r.second_order(form)); };
    for (auto* array : {&r.q, &r.k, &r.v}) check(*array, false, stream, dense);
    for (auto* array : {&r.inner, &r.outer}) check(*array, true, stream, dense);
  }
  const auto stream = [&] { return log_linear(r.log_linear()); };
  const auto dense = [&] { return log_linear_dense(r.log_linear()); };
  for (auto* array : {&r.q, &r.k, &r.v, &r.weights}) check(*array, false, stream, dense);
  check(r.inner, true, stream, dense);
}

TEST_CASE("Recurrences: what is refused is named", "[relatives]") {
  Recurrence r = random_recurrence(9, 81);
  r.inner[4 * 9 - 1] = 1.5;
  SecondOrderArgs args = r.second_order(SecondOrderForm::symmetric);
  for (auto* function : {second_order, second_order_dense, second_order_scan}) {
    CHECK_THROWS_WITH(function(args),
                      ContainsSubstring("inner 1.5 at position 8: a decay in [0, 1]"));
  }
  r.inner[4 * 9 - 1] = kNaN;
  CHECK(std::isnan(second_order(args).back()));
  r.outer[0] = -1;
  CHECK_THROWS_WITH(second_order(args), ContainsSubstring("outer -1 at position 0"));
  args = r.second_order(SecondOrderForm::symmetric, false);
  args.k = nullptr;
  CHECK_THROWS_WITH(second_order(args), ContainsSubstring("k: a null pointer"));
  args.value_dim = 0;
  CHECK_THROWS_WITH(second_order_dense(args), ContainsSubstring("value_dim 0"));

  LogLinearArgs log = r.log_linear(false);
  for (const Index levels : {0, 4, 65}) {
    log.levels = levels;
    CHECK_THROWS_WITH(log_linear(log), ContainsSubstring("an integer in [5, 63] for 9 rows"));
    CHECK_THROWS_WITH(log_linear_dense(log), ContainsSubstring("an integer in [5, 63] for 9 rows"));
  }
  log.levels = 5;
  CHECK(log_linear(log).size() == 4 * 9 * 3);
  log.weights = nullptr;
  CHECK_THROWS_WITH(log_linear(log), ContainsSubstring("weights: a null pointer"));
}
