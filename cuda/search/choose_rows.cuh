#pragma once

#include "device/top_k.cuh"
#include "search/search_anchors.cuh"

/// How the paths of a level below the first are chosen where every parent has a list of its own.
namespace multistep::cuda {
namespace {

/// Chooses every row's paths from its parents' lists, a thread for each row. Paths that are equal
/// come in the order of their parents.
template <int kTopK>
__global__ void __launch_bounds__(SearchBlock::kThreads)
    choose_rows(__grid_constant__ const LevelSearch search, const FoundPath* lists) {
  const std::int64_t r =
      static_cast<std::int64_t>(blockIdx.x) * SearchBlock::kThreads + threadIdx.x;
  if (r >= search.rows.total()) return;
  const Rows::Row row = search.rows.at(r);
  const int top_k = search.top_k;
  const FoundPath* const of_row = lists + row.dense * top_k * top_k;
  FoundPath best[kTopK];
  std::int32_t rank[kTopK] = {};
  constexpr int kUnrolled = kTopK <= 4 ? kTopK : 1;
#pragma unroll kUnrolled
  for (int parent = 0; parent < kTopK; ++parent) {
    bool more = parent < top_k;
#pragma unroll kUnrolled
    for (int i = 0; i < kTopK; ++i) {
      if (!more || i >= top_k) continue;
      const FoundPath found = of_row[parent * top_k + i];
      more = found.path > best[kTopK - 1].path;  // else neither are the further ones, in order
#pragma unroll
      for (int s = kTopK - 1; s >= 0; --s) {
        if (found.path <= best[s].path) continue;
        const bool shifted = s > 0 && found.path > best[max(s - 1, 0)].path;
        best[s] = shifted ? best[max(s - 1, 0)] : found;
        rank[s] = shifted ? rank[max(s - 1, 0)] : parent;
      }
    }
  }
#pragma unroll
  for (int s = 0; s < kTopK; ++s) {
    if (s < top_k) store_slot(search, row.index * top_k + s, best[s], rank[s]);
  }
}

/// The same of more paths than a thread's registers hold, a warp for each row: takes the best of
/// the heads of all lists, one after another.
__global__ void __launch_bounds__(SearchBlock::kThreads)
    choose_many(__grid_constant__ const LevelSearch search, const FoundPath* lists) {
  const std::int64_t r =
      static_cast<std::int64_t>(blockIdx.x) * SearchBlock::kWarps + threadIdx.x / 32;
  if (r >= search.rows.total()) return;
  const Rows::Row row = search.rows.at(r);
  const int top_k = search.top_k;
  const int lane = threadIdx.x % 32;
  // This lane has the lists of parents `lane` and `lane` + 32.
  const auto entry = [&](int i, int at) {
    const int parent = lane + 32 * i;
    if (parent >= top_k || at >= top_k) return FoundPath{};
    return lists[(row.dense * top_k + parent) * top_k + at];
  };
  select_paths<2>(top_k, entry, [&](int s, PackedScore best, const FoundPath& path, int i) {
    if (i >= 0) store_slot(search, row.index * top_k + s, path, lane + 32 * i);
    if (best == 0 && lane == 0) store_slot(search, row.index * top_k + s, {}, 0);
  });
}

}  // namespace
}  // namespace multistep::cuda
