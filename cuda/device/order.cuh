#pragma once

#include <cmath>
#include <cstdint>

#include "multistep/cuda/types.hpp"

/// The one order of paths (SPEC 3): the better score first; of equals the smaller key, then the
/// parent ranked first. A NaN is never kept. Written out, and packed into integers that compare in
/// the same order.
namespace multistep::cuda {

/// A path of a level, by what it is ranked.
struct Path {
  float score;
  std::int32_t anchor;
  std::int32_t rank;  // of the parent
};

/// A scored anchor of one segment, as a number: the greater the better. The score's bits stand in
/// front, in an order that integers compare, then the stripe: of equal scores the smaller key,
/// which is the greater stripe. 0: none.
using Candidate = unsigned long long;

/// A candidate beside those of other segments: its path, in the same order as a candidate but with
/// the bits of the anchor's key turned around in place of the stripe, and the span it stands for.
/// Of equal paths the one whose parent is ranked first is the better. path 0: none.
struct alignas(16) Found {
  Candidate path = 0;
  DeviceSpan span{0, 0};
};

#ifdef __CUDACC__

__device__ inline bool better(const Path& a, const Path& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.anchor != b.anchor ? a.anchor < b.anchor : a.rank < b.rank;
}

__device__ inline Candidate candidate_of(float score, std::int32_t stripe) {
  if (isnan(score)) return 0;                                // never kept
  const std::uint32_t bits = __float_as_uint(score + 0.0f);  // -0 ties with 0
  const std::uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<Candidate>(ordered) << 32 | static_cast<std::uint32_t>(stripe);
}
__device__ inline float score_of(Candidate candidate) {
  const auto ordered = static_cast<std::uint32_t>(candidate >> 32);
  return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}
__device__ inline std::int32_t stripe_of(Candidate candidate) {
  return static_cast<std::int32_t>(candidate & 0xffffffffu);
}

/// The path of a segment's candidate, whose anchor is `anchor`; and back.
__device__ inline Candidate path_of(Candidate candidate, std::int32_t anchor) {
  return candidate >> 32 << 32 | ~static_cast<std::uint32_t>(anchor);
}
__device__ inline std::int32_t anchor_of(Candidate path) {
  return static_cast<std::int32_t>(~static_cast<std::uint32_t>(path & 0xffffffffu));
}

#endif

}  // namespace multistep::cuda
