#pragma once

#include "multistep/judge.hpp"
#include "stages/attend_row.hpp"

/// The yardstick of SPEC 8.3: one row's attention as it is plainly written for matrix units that
/// take a storage type and sum in float32.
namespace multistep {

/// Attention to an item's keys with logits, exponentials and sums in float32. The output [head_dim]
/// is not rounded to the storage type yet; the weights exp(logit - max) are before they meet the
/// values, their sum is not.
struct YardstickItem {
  std::vector<float> output;
  float lse = -std::numeric_limits<float>::infinity();

  /// As an implementation would store it.
  std::vector<double> stored(Storage storage) const;
};

/// Sum of products in float32, one after the other.
template <class A, class B>
float plain_product(const A* a, const B* b, Index size) {
  float sum = 0;
  for (Index c = 0; c < size; ++c) sum += static_cast<float>(a[c]) * static_cast<float>(b[c]);
  return sum;
}

/// `query` [head_dim]; `key` and `value` point at the KV head's row 0.
template <class T>
YardstickItem yardstick_item(Span keys, const T* query, const T* key, const T* value,
                             Index head_dim, double scale, Storage storage);

/// The gates of one row, `args` of rows = 1, in float32.
std::vector<float> yardstick_gates(const CombineArgs& args);

/// Combination of one row, `args` of rows = 1 but for its window, in float32: [head_dim] of the
/// storage type.
std::vector<double> yardstick_combine(const CombineArgs& args, const YardstickItem& window,
                                      Storage storage);

}  // namespace multistep
