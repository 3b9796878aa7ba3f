#pragma once

#include <vector>

#include "multistep/judge.hpp"
#include "stages/attend_row.hpp"

/// By how much rounding moves what a correct implementation gives: a standard deviation for every
/// value, from the row's own numbers. Rounded are the products of a logit and their sum, the
/// exponentials, the weights and the results in the storage type, each with a sign as good as
/// random, so that variances add. A single measured yardstick may happen to be right where others
/// are not; this tells by how much (SPEC 8.3, the floor).
namespace multistep {

inline constexpr double kSingle = 0x1p-24;  // unit roundoff of float32

/// Half an ulp of 1.
inline double roundoff(Storage storage) {
  switch (storage) {
    case Storage::float32:
      return kSingle;
    case Storage::bfloat16:
      return 0x1p-8;
    case Storage::float16:
      return 0x1p-11;
  }
  return kSingle;
}

/// Weights below it, beside a largest of 1, may be subnormal numbers of float32, which kernels may
/// flush to 0.
inline constexpr double kFlushed = 0x1p-125;

/// What rounding to the storage type adds to a value, at most: near zero float16 is subnormal.
inline double rounding_of(Storage storage, double value) {
  return std::max(roundoff(storage) * std::abs(value), storage == Storage::float16 ? 0x1p-25 : 0.0);
}

inline constexpr double kExponential = 0x1p-22;  // of an exponential, relative

/// Deviation of scale * <a, b> in float32: sums of d terms with random signs lose about sqrt(d / 6)
/// ulp of their 2-norm, sums of equal terms sqrt(d) / 3 of their value; and the scale.
double product_deviation(const Vector& a, const Vector& b, double product, double scale);

/// Attention of one query to the keys of an item, and its rounding.
struct RoundedItem {
  std::vector<double> output;     // [head_dim], O
  std::vector<double> deviation;  // [head_dim], of O before it is rounded to the storage type
  std::vector<double> magnitude;  // [head_dim], sums over keys of weight * |value|
  std::vector<double> flushed;    // [head_dim], that of keys whose weight beside the largest is not
                                  // told from 0
  double lse = -kInfinity;
  double lse_deviation = 0;
};

/// `key` and `value` point at the KV head's row 0.
template <class T>
RoundedItem round_item(Span keys, const Vector& query, const T* key, const T* value, double scale,
                       Storage storage);

}  // namespace multistep
