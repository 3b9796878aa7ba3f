#pragma once

#include <cstdint>
#include <vector>

namespace multistep::program {

/// Entry i of array `stream`: a hash of (seed, stream, i), uniform with mean 0 and variance 1.
inline double random_input(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  const std::uint64_t key = (seed * 0x9e3779b97f4a7c15) ^ (stream * 0xd1b54a32d192ed03);
  // The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
  std::uint64_t z = key + i * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  constexpr double kSqrt12 = 3.4641016151377544;
  return (static_cast<double>(z >> 11) * 0x1p-53 - 0.5) * kSqrt12;
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
