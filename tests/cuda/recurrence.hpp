#pragma once

#include "multistep/accumulation.hpp"
#include "multistep/cuda/memory.hpp"
#include "support/inputs.hpp"

/// The recurrences that the tests of accumulation and of its backward run.
namespace recurrence {

using inputs::Index;
using inputs::Random;
using inputs::Values;
using multistep::AccumulationArgs;
using multistep::cuda::Dtype;

inline constexpr auto kNotANumber = static_cast<float>(inputs::kNaN);

/// Two batch entries of three heads on the host; x, b and c hold values of the storage type.
struct Recurrence {
  Dtype dtype;
  AccumulationArgs<float> sizes;  // without its pointers
  std::vector<Index> start;       // [batch], or none
  std::vector<float> x, a, b, c;
  std::vector<float> initial;  // or none

  struct Rows {
    std::vector<float>& array;
    Index width;
  };
  std::vector<Rows> rows() {
    return {{x, sizes.head_dim}, {a, 1}, {b, sizes.state}, {c, sizes.state}};
  }

  /// Rows [first, first + count), from the state given.
  Recurrence chunk(Index first, Index count, const std::vector<float>& state) const {
    Recurrence part = *this;
    part.sizes.length = count;
    part.sizes.offset += first;
    part.initial = state;
    for (const auto& [array, width] : part.rows()) {
      array = inputs::rows_of(array, 6, width, first, count);
    }
    return part;
  }
};

/// What batch entry `batch` of two has of an array.
template <class T>
std::vector<T> half(const std::vector<T>& array, Index batch) {
  const auto middle = array.begin() + static_cast<Index>(array.size() / 2);
  return batch == 0 ? std::vector<T>(array.begin(), middle) : std::vector<T>(middle, array.end());
}

/// Random entries. Decays near 1, so that segments hand something on, among them 0 and 1.
inline Recurrence random_recurrence(Dtype dtype, Index length, Index head_dim, Index state,
                                    std::uint64_t seed) {
  Random random(seed);
  Recurrence result{dtype, {2, 3, length, head_dim, state}, {}, {}, {}, {}, {}, {}};
  for (const auto& [array, width] : result.rows()) {
    const std::vector<double> values = random.tensor(6 * length * width, Values::rough);
    array = {values.begin(), values.end()};
    array = multistep::cuda::from_16_bits(dtype, multistep::cuda::to_16_bits(dtype, array));
  }
  for (float& decay : result.a) {
    const Index k = random.below(256);
    decay = k == 0 ? 0 : 1 - static_cast<float>(k < 64 ? 0 : k) / 32768;
  }
  const std::vector<double> initial = random.tensor(6 * head_dim * state, Values::rough);
  result.initial = {initial.begin(), initial.end()};
  return result;
}

/// The oracle's arguments for a recurrence that outlives them.
struct Oracle {
  explicit Oracle(const Recurrence& r)
      : initial(r.initial.begin(), r.initial.end()), args(r.sizes) {
    args.start = r.start.empty() ? nullptr : r.start.data();
    args.x = r.x.data();
    args.a = r.a.data();
    args.b = r.b.data();
    args.c = r.c.data();
    args.initial = initial.empty() ? nullptr : initial.data();
  }
  Oracle(const Oracle&) = delete;
  Oracle& operator=(const Oracle&) = delete;

  std::vector<double> initial;
  AccumulationArgs<float> args;
};

}  // namespace recurrence
