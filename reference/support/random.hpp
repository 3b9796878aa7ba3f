#pragma once

#include <cstdint>

namespace multistep {

/// A hash of a number, every bit of it in every bit: the finalizer of SplitMix64 (Steele, Lea and
/// Flood, 2014).
inline std::uint64_t mixed_bits(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/// What SplitMix64 adds to its state: 2^64 over the golden ratio.
inline constexpr std::uint64_t kRandomStride = 0x9e3779b97f4a7c15;

/// The next 64 random bits (SplitMix64); the same on every machine.
inline std::uint64_t next_random(std::uint64_t& state) {
  return mixed_bits(state += kRandomStride);
}

/// The next draw of [0, 1), a multiple of 2^-53.
inline double next_uniform(std::uint64_t& state) {
  return static_cast<double>(next_random(state) >> 11) * 0x1p-53;
}

}  // namespace multistep
