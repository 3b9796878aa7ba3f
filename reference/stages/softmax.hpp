#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace multistep {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// exp(x - max), where equals weigh 1: never exp(inf - inf).
template <class Real>
Real weight(Real x, Real max) {
  return x == max ? Real{1} : std::exp(x - max);
}

/// How much attention over two disjoint sets of keys counts in that over their union: theorem
/// many_parts of proofs/statements/ResultsSoftmax.v. Neither counts where both are empty.
template <class Real>
struct Join {
  Real first = 0;
  Real second = 0;

  Join(Real a, Real b) {
    const Real max = std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b);
    if (max == -std::numeric_limits<Real>::infinity()) return;
    first = weight(a, max);
    second = weight(b, max);
    const Real sum = first + second;
    first /= sum;
    second /= sum;
  }

  /// A value of the union from those of the two; what counts nothing may hold anything.
  Real operator()(Real a, Real b) const {
    return (first == 0 ? 0 : first * a) + (second == 0 ? 0 : second * b);
  }
};

}  // namespace multistep
