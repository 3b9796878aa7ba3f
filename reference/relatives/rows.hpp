#pragma once

#include <Eigen/Core>

#include "multistep/types.hpp"
#include "stages/shape.hpp"
#include "support/error.hpp"
#include "support/parallel.hpp"

/// What the recurrences have in common: shapes, decays, and one head at a time.
namespace multistep {

using ConstRows = Eigen::Map<const Matrix>;

/// Rows of one head in an array [heads, length, width].
inline ConstRows rows_at(const double* array, Index head, Index length, Index width) {
  return {array + head * length * width, length, width};
}

/// Checks sizes and arrays that all recurrences have.
template <class Args>
void require_recurrence(const Args& args) {
  require_within("batch", args.batch, 1, 1 << 20);
  require_within("num_heads", args.num_heads, 1, 1 << 16);
  require_within("length", args.length, 0, kMaxLength);
  require_within("head_dim", args.head_dim, 1, 1 << 16);
  require_within("value_dim", args.value_dim, 1, 1 << 16);
  require_array_size({args.batch, args.num_heads, args.length, args.head_dim});
  require_array_size({args.batch, args.num_heads, args.length, args.value_dim});
  const Index rows = args.batch * args.num_heads * args.length;
  require_array(args.q, "q", rows);
  require_array(args.k, "k", rows);
  require_array(args.v, "v", rows);
}

/// The decays of one head; 1 where there is no array.
inline Vector decays_at(const double* array, std::string_view name, Index head, Index length) {
  if (!array) return Vector::Ones(length);
  const Vector decays = rows_at(array, head, 1, length);
  for (Index t = 0; t < length; ++t) {
    require(!(decays[t] < 0 || decays[t] > 1), "{} {} at position {}: a decay in [0, 1]", name,
            decays[t], t);
  }
  return decays;
}

/// The products of decays over (column, row], and 0 above the diagonal.
inline Matrix decay_mask(const Vector& decays) {
  Matrix mask = Matrix::Identity(decays.size(), decays.size());
  for (Index t = 1; t < decays.size(); ++t) {
    mask.row(t).head(t) = decays[t] * mask.row(t - 1).head(t);
  }
  return mask;
}

/// The rows of all heads, each head's by compute(head): [batch, num_heads, length, value_dim].
template <class Args, class Compute>
std::vector<double> each_head(const Args& args, Compute compute) {
  const Index heads = args.batch * args.num_heads;
  const Index size = args.length * args.value_dim;
  std::vector<double> output(at(heads * size));
  parallel_blocks(heads, 1, [&] {
    return [&](Index head, Index) {
      Eigen::Map<Matrix>(output.data() + head * size, args.length, args.value_dim) = compute(head);
    };
  });
  return output;
}

}  // namespace multistep
