#pragma once

#include "attend_row.cuh"
#include "stages.cuh"

/// The best candidates of a search, in registers and merged across lanes.
namespace multistep::cuda {

/// One segment's best candidates, best first.
template <int kTopK>
struct TopK {
  Candidate best[kTopK] = {};

  __device__ void keep(Candidate candidate) {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      const Candidate worse = min(best[s], candidate);
      best[s] = max(best[s], candidate);
      candidate = worse;
    }
  }

  /// Unites the lists of lanes whose numbers differ in the bits of `mask`; all of them get it. Of
  /// two lists in order, the larger of the first's i-th and the second's i-th from the end are the
  /// best ones, and bitonic: half a sorting network brings them into order.
  __device__ void merge_lanes(int mask) {
    static_assert(kTopK == 2 || kTopK == 4, "a power of two, for the network");
    for (int bit = 1; bit < 32; bit *= 2) {
      if (!(mask & bit)) continue;
      Candidate other[kTopK];
#pragma unroll
      for (int s = 0; s < kTopK; ++s) other[s] = __shfl_xor_sync(kFullWarp, best[s], bit);
#pragma unroll
      for (int s = 0; s < kTopK; ++s) best[s] = max(best[s], other[kTopK - 1 - s]);
#pragma unroll
      for (int distance = kTopK / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int s = 0; s < kTopK; ++s) {
          if (s & distance) continue;
          const Candidate better = max(best[s], best[s + distance]);
          best[s + distance] = min(best[s], best[s + distance]);
          best[s] = better;
        }
      }
    }
  }
};

/// A path of a level: what its slot holds.
struct Path {
  float score = -kInfinity;
  std::int32_t anchor = -1;
  std::int32_t rank = -1;  // of the parent; -1: no path
  std::int32_t stripe = 0;
};

/// Better score first; of equals the smaller key, then the parent ranked first.
__device__ inline bool better(const Path& a, const Path& b) {
  if (a.score != b.score) return a.score > b.score;
  if ((a.rank < 0) != (b.rank < 0)) return b.rank < 0;
  return a.anchor != b.anchor ? a.anchor < b.anchor : a.rank < b.rank;
}

/// What a level's slot holds once its lists are merged. Lane s has slot s.
struct Kept {
  Path path;
  DeviceSpan span{0, 0};
};

__device__ inline DeviceSpan segment_of(const LevelSearch& search, const Rows::Row& row, int rank) {
  return search.parents ? search.parents[row.index * search.top_k + rank]
                        : searched(search.level, search.rows.window, row.position, row.start);
}

__device__ inline void store_slot(const LevelSearch& search, std::int64_t slot, const Kept& kept) {
  search.spans[slot] = kept.span;
  search.scores[slot] = kept.path.score;
  if (search.anchors) search.anchors[slot] = kept.path.anchor;
  if (search.ranks) search.ranks[slot] = kept.path.rank;
}

/// Which paths of a query row its candidates make: `candidate_at(rank, e)` is candidate e of those
/// of parent `rank`, `entries` a parent. For levels from 2 on. The whole warp calls it.
template <int kTopK, class CandidateAt>
__device__ Kept choose_paths(const LevelSearch& search, const Rows::Row& row, int entries,
                             CandidateAt&& candidate_at) {
  const int lane = threadIdx.x % 32;
  Path best[kTopK];
  const auto keep = [&](const Path& path) {
    if (path.rank < 0 || !better(path, best[kTopK - 1])) return;
    best[kTopK - 1] = path;
#pragma unroll
    for (int s = kTopK - 1; s > 0; --s) {
      if (!better(best[s], best[s - 1])) break;
      const Path worse = best[s - 1];
      best[s - 1] = best[s];
      best[s] = worse;
    }
  };

  DeviceCut cut_of_rank{};  // lane r: the cut of parent r's segment
  for (int rank = 0; rank < search.top_k; ++rank) {
    const DeviceSpan segment = segment_of(search, row, rank);
    if (segment.end <= segment.begin) continue;
    const DeviceCut cut = cut_segment(search.level, segment);
    if (lane == rank) cut_of_rank = cut;
    for (int e = lane; e < entries; e += 32) {
      const Candidate candidate = candidate_at(rank, e);
      if (candidate == 0) continue;
      const std::int32_t stripe = stripe_of(candidate);
      keep({score_of(candidate), cut.anchor(stripe), rank, stripe});
    }
  }
#pragma unroll
  for (int bit = 1; bit < 32; bit *= 2) {
    Path other[kTopK];
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      other[s] = {__shfl_xor_sync(kFullWarp, best[s].score, bit),
                  __shfl_xor_sync(kFullWarp, best[s].anchor, bit),
                  __shfl_xor_sync(kFullWarp, best[s].rank, bit),
                  __shfl_xor_sync(kFullWarp, best[s].stripe, bit)};
    }
#pragma unroll
    for (int s = 0; s < kTopK; ++s) keep(other[s]);
  }

  Kept kept;
#pragma unroll
  for (int s = 0; s < kTopK; ++s) {
    if (lane == s && s < search.top_k) kept.path = best[s];
  }
  const int from = max(kept.path.rank, 0);
  DeviceCut cut{search.level.rule};
  cut.stripes = search.level.stripes;
  cut.end = __shfl_sync(kFullWarp, cut_of_rank.end, from);
  cut.length = __shfl_sync(kFullWarp, cut_of_rank.length, from);
  cut.window = __shfl_sync(kFullWarp, cut_of_rank.window, from);
  cut.stride = __shfl_sync(kFullWarp, cut_of_rank.stride, from);
  cut.backward = __shfl_sync(kFullWarp, cut_of_rank.backward, from);
  cut.forward = __shfl_sync(kFullWarp, cut_of_rank.forward, from);
  if (kept.path.rank >= 0) kept.span = cut.span(kept.path.stripe);
  return kept;
}

}  // namespace multistep::cuda
