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

/// Calls take(s, best, path, i) for s = 0, 1, ... below `wanted`: the s-th best of many lists in
/// order. next(i, at): the at-th of this lane's i-th list, nothing behind its end. `best`: its path
/// alone, in all lanes; 0 where there are no more. `path`: the whole, in the lane from whose i-th
/// list it is; in the others i is -1. Of equal ones that of the list with the smaller number, lane
/// + 32 i, comes first. Whole warp.
template <int kEach, class Next, class Take>
__device__ void select_paths(int wanted, Next&& next, Take&& take) {
  const int lane = threadIdx.x % 32;
  FoundPath head[kEach];
  int at[kEach] = {};
#pragma unroll
  for (int i = 0; i < kEach; ++i) head[i] = next(i, 0);
#pragma unroll 1
  for (int s = 0; s < wanted; ++s) {
    PackedScore mine = head[0].path;
#pragma unroll
    for (int i = 1; i < kEach; ++i) mine = max(mine, head[i].path);
    const auto high = static_cast<unsigned>(mine >> 32);
    const unsigned best_high = __reduce_max_sync(kFullWarp, high);
    const unsigned low = high == best_high ? static_cast<unsigned>(mine & 0xffffffffu) : 0;
    const PackedScore best =
        static_cast<PackedScore>(best_high) << 32 | __reduce_max_sync(kFullWarp, low);
    FoundPath path;
    int list = -1;
    bool taken = best == 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const unsigned has = __ballot_sync(kFullWarp, !taken && head[i].path == best);
      const bool mine_is_best = lane == __ffs(static_cast<int>(has)) - 1;
      if (mine_is_best) {
        path = head[i];
        list = i;
      }
      // By all lanes: where one alone went on, ptxas of CUDA 13.0 had it leave out an entry (it
      // adds one to `at`, and takes the address behind that).
      at[i] += mine_is_best;
      head[i] = next(i, at[i]);
      taken = taken || has != 0;
    }
    take(s, best, path, list);
  }
}

/// The s-th best, in lane s, of what the first `lists` lanes have a list of each, in order:
/// next(at), below kTopK. Whole warp.
template <int kTopK, class Next>
__device__ PackedScore select_scores(int lists, Next&& next) {
  const int lane = threadIdx.x % 32;
  PackedScore mine = 0;
  select_paths<1>(
      kTopK,
      [&](int, int at) {
        return FoundPath{lane < lists && at < kTopK ? next(at) : PackedScore{0}, {0, 0}};
      },
      [&](int s, PackedScore best, const FoundPath&, int) {
        if (lane == s) mine = best;
      });
  return mine;
}

}  // namespace multistep::cuda
