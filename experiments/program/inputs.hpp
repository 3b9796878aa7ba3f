#pragma once

#include <cstdint>
#include <vector>

#include "support/random.hpp"

namespace multistep::program {

/// Entry i of array `stream`: a hash of (seed, stream, i), uniform with mean 0 and variance 1.
inline double random_input(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  const std::uint64_t key = (seed * kRandomStride) ^ (stream * 0xd1b54a32d192ed03);
  const std::uint64_t bits = mixed_bits(key + i * kRandomStride);
  constexpr double kSqrt12 = 3.4641016151377544;
  return (static_cast<double>(bits >> 11) * 0x1p-53 - 0.5) * kSqrt12;
}

/// Seeded inputs: the same bits on every machine, whatever the number of threads.
template <class T>
std::vector<T> random_inputs(std::size_t count, std::uint64_t seed, std::uint64_t stream) {
  std::vector<T> values(count);
#pragma omp parallel for
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<T>(random_input(seed, stream, i));
  }
  return values;
}

}  // namespace multistep::program
