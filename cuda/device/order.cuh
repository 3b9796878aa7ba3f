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

/// A score and what breaks its ties, as a number: the greater the better. The score's bits stand in
/// front, in an order that integers compare. Of an anchor beside others of its segment the stripe
/// follows: of equal scores the smaller key, which is the greater stripe. 0: none.
using PackedScore = unsigned long long;

/// A path beside those of other segments: its packed score, where the bits of the anchor's key
/// turned around follow in place of the stripe, and the span it stands for. Of equal paths the one
/// whose parent is ranked first is the better. path 0: none.
struct alignas(16) FoundPath {
  PackedScore path = 0;
  DeviceSpan span{0, 0};
};

#ifdef __CUDACC__

__device__ inline bool better(const Path& a, const Path& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.anchor != b.anchor ? a.anchor < b.anchor : a.rank < b.rank;
}

__device__ inline PackedScore packed_score(float score, std::int32_t stripe) {
  if (isnan(score)) return 0;                                // never kept
  const std::uint32_t bits = __float_as_uint(score + 0.0f);  // -0 ties with 0
  const std::uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<PackedScore>(ordered) << 32 | static_cast<std::uint32_t>(stripe);
}
__device__ inline float score_of(PackedScore packed) {
  const auto ordered = static_cast<std::uint32_t>(packed >> 32);
  return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}
__device__ inline std::int32_t stripe_of(PackedScore packed) {
  return static_cast<std::int32_t>(packed & 0xffffffffu);
}

/// The path of an anchor of a segment, which is key `anchor`; and back.
__device__ inline PackedScore path_of(PackedScore of_segment, std::int32_t anchor) {
  return of_segment >> 32 << 32 | ~static_cast<std::uint32_t>(anchor);
}
__device__ inline std::int32_t anchor_of(PackedScore path) {
  return static_cast<std::int32_t>(~static_cast<std::uint32_t>(path & 0xffffffffu));
}

#endif

}  // namespace multistep::cuda
