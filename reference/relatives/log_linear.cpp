#include <Eigen/Core>
#include <bit>

#include "multistep/recurrences.hpp"
#include "relatives/rows.hpp"

namespace multistep {
namespace {

void require_log_linear(const LogLinearArgs& args) {
  require_recurrence(args);
  const Index least = args.length > 1 ? 1 + log_linear_level(args.length - 1, 0) : 1;
  require(args.levels >= least && args.levels <= 63,
          "levels {}: an integer in [{}, 63] for {} rows", args.levels, least, args.length);
  require_array_size({args.batch, args.num_heads, args.length, args.levels});
  require_array(args.weights, "weights", args.batch * args.num_heads * args.length);
}

}  // namespace

Index log_linear_level(Index query, Index key) {
  require(0 <= key && key <= query, "key {}: an integer in [0, {}], the query", key, query);
  return std::bit_width(static_cast<std::uint64_t>(query ^ key));
}

std::vector<double> log_linear(const LogLinearArgs& args) {
  require_log_linear(args);
  return each_head(args, [&](Index head) {
    const auto q = rows_at(args.q, head, args.length, args.head_dim);
    const auto k = rows_at(args.k, head, args.length, args.head_dim);
    const auto v = rows_at(args.v, head, args.length, args.value_dim);
    const auto weights = rows_at(args.weights, head, args.length, args.levels);
    const Vector a = decays_at(args.a, "a", head, args.length);
    const Matrix nothing = Matrix::Zero(args.head_dim, args.value_dim);
    std::vector<Matrix> states(at(args.levels), nothing);
    Matrix output = Matrix::Zero(args.length, args.value_dim);
    for (Index t = 0; t < args.length; ++t) {
      if (t > 0) {
        const Index b = std::countr_zero(static_cast<std::uint64_t>(t));
        for (Index level = 0; level <= b; ++level) {
          states[at(b + 1)] += states[at(level)];
          states[at(level)] = nothing;
        }
      }
      for (Matrix& state : states) state *= a[t];
      states[0] = k.row(t).transpose() * v.row(t);
      for (Index level = 0; level < args.levels; ++level) {
        output.row(t) += weights(t, level) * (q.row(t) * states[at(level)]);
      }
    }
    return output;
  });
}

std::vector<double> log_linear_dense(const LogLinearArgs& args) {
  require_log_linear(args);
  return each_head(args, [&](Index head) -> Matrix {
    const auto q = rows_at(args.q, head, args.length, args.head_dim);
    const auto k = rows_at(args.k, head, args.length, args.head_dim);
    const auto weights = rows_at(args.weights, head, args.length, args.levels);
    Matrix mask = decay_mask(decays_at(args.a, "a", head, args.length));
    for (Index t = 0; t < args.length; ++t) {
      for (Index s = 0; s <= t; ++s) mask(t, s) *= weights(t, log_linear_level(t, s));
    }
    return mask.cwiseProduct(q * k.transpose()) *
           rows_at(args.v, head, args.length, args.value_dim);
  });
}

}  // namespace multistep
