#pragma once

#include <type_traits>

#include "api/stages.cuh"
#include "device/storage.cuh"

/// The best candidates of a search: in registers, merged across lanes, put into slots.
namespace multistep::cuda {

/// One segment's best candidates, best first.
template <int kTopK>
struct TopK {
  static_assert(kTopK == 3 || (kTopK >= 2 && (kTopK & (kTopK - 1)) == 0), "the networks below");
  PackedScore best[kTopK] = {};

  /// The s-th best, where s is not a constant; 0 from kTopK on.
  __device__ PackedScore at(int s) const {
    PackedScore result = 0;
#pragma unroll
    for (int i = 0; i < kTopK; ++i) result = s == i ? best[i] : result;
    return result;
  }

  /// Of lists that the first kLanes lanes share: lane s gets the s-th best. Whole warp.
  template <int kLanes>
  __device__ PackedScore of_lane() const {
    const int lane = threadIdx.x % 32;
    if constexpr (kTopK <= kLanes) return at(lane);
    PackedScore result = 0;
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      const PackedScore first = __shfl_sync(kFullWarp, best[s], 0);
      if (lane == s) result = first;
    }
    return result;
  }

  __device__ void keep(PackedScore candidate) {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      const PackedScore worse = min(best[s], candidate);
      best[s] = max(best[s], candidate);
      candidate = worse;
    }
  }

  /// Unites the lists of lanes whose numbers differ in the bits of `mask`; all of them get it.
  __device__ void merge_lanes(int mask) {
    for (int bit = 1; bit < 32; bit *= 2) {
      if (mask & bit) merge_lane(bit, *this);
    }
  }

  /// Unites this list with what the lane whose number differs in `bit` gives.
  __device__ void merge_lane(int bit, const TopK& given) {
    PackedScore other[kTopK];
#pragma unroll
    for (int s = 0; s < kTopK; ++s) other[s] = __shfl_xor_sync(kFullWarp, given.best[s], bit);
      // Of two lists in order, the larger of the first's i-th and the second's i-th from the end
      // are the best ones; of a power of two they are bitonic, and half a sorting network brings
      // them into order. Of 3 it takes a whole one.
#pragma unroll
    for (int s = 0; s < kTopK; ++s) best[s] = max(best[s], other[kTopK - 1 - s]);
    if constexpr (kTopK == 3) {
      order(0, 2);
      order(0, 1);
      order(1, 2);
    } else {
#pragma unroll
      for (int apart = kTopK / 2; apart > 0; apart /= 2) {
#pragma unroll
        for (int s = 0; s < kTopK; ++s) {
          if ((s & apart) == 0) order(s, s + apart);
        }
      }
    }
  }

  /// Without an address that hangs on a lane.
  __device__ void swap_where(bool swapped, TopK& other) {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      const PackedScore mine = best[s];
      best[s] = swapped ? other.best[s] : mine;
      other.best[s] = swapped ? mine : other.best[s];
    }
  }

 private:
  __device__ void order(int a, int b) {
    const PackedScore better = max(best[a], best[b]);
    best[b] = min(best[a], best[b]);
    best[a] = better;
  }
};

/// Calls body(integral constant) with the length of list that kernels for rows of kColumns are
/// compiled for, up to kMost, for `top_k` paths; of more, kMost at a time. Long rows are rare, and
/// have few lengths.
template <int kMost, int kColumns, class Body>
void with_list(int top_k, Body&& body) {
  static_assert(kMost == 8 || kMost == 16);
  if constexpr (kColumns <= 128) {
    if (top_k <= 2) return body(std::integral_constant<int, 2>{});
    if (top_k <= 3) return body(std::integral_constant<int, 3>{});
  }
  if (top_k <= 4) return body(std::integral_constant<int, 4>{});
  if constexpr (kColumns <= 128 && kMost > 8) {
    if (top_k <= 8) return body(std::integral_constant<int, 8>{});
  }
  body(std::integral_constant<int, kMost>{});
}

/// What an anchor of the segment so cut is beside those of others.
__device__ inline FoundPath found_path(const LevelSearch& search, const DeviceCut& cut,
                                       PackedScore candidate) {
  if (candidate == 0) return {};
  std::int32_t stripe = stripe_of(candidate);
  if (faulty(search.rows.fault, Fault::tie_turned)) stripe ^= INT_MAX;
  return {path_of(candidate, cut.anchor(stripe)), cut.span(stripe)};
}

__device__ inline void store_slot(const LevelSearch& search, std::int64_t slot,
                                  const FoundPath& found, std::int32_t rank) {
  const bool any = found.path != 0;
  search.spans[slot] = found.span;
  search.scores[slot] = any ? score_of(found.path) : -kInfinity;
  if (search.anchors) search.anchors[slot] = any ? anchor_of(found.path) : -1;
  if (search.ranks) search.ranks[slot] = any ? rank : -1;
}

/// Calls store(slot, found, i) for each of a row's slots, from one lane: the best of what lanes
/// [0, lanes), a power of two >= kTopK, bring as their [i], then nothing, FoundPath{}. Paths that
/// are equal have different parents, and are brought in the order of these: lane by lane [0], then
/// [1]. Whole warp.
template <int kTopK, int kEach, class Store>
__device__ void choose_paths(const FoundPath (&found)[kEach], int lanes, int top_k, Store&& store) {
  const int lane = threadIdx.x % 32;
  TopK<kTopK> chosen;
  int slot[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    chosen.keep(found[i].path);
    slot[i] = kTopK;
  }
  chosen.merge_lanes(lanes - 1);
  int used = 0;
#pragma unroll
  for (int s = 0; s < kTopK; ++s) {
    const PackedScore path = chosen.best[s];
    used += path != 0;
    const bool first = path != 0 && (s == 0 || path != chosen.best[max(s - 1, 0)]);
    int next = s;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const bool same = first && found[i].path == path;
      const unsigned all = __ballot_sync(kFullWarp, same);
      if (same) slot[i] = next + __popc(all & ((1u << lane) - 1));
      next += __popc(all);
    }
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (slot[i] < top_k) store(slot[i], found[i], i);
  }
  if (lane >= used && lane < top_k) store(lane, FoundPath{}, 0);
}

}  // namespace multistep::cuda
