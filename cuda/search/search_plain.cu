#include "api/check.cuh"
#include "api/stages.cuh"
#include "attend/attend_row.cuh"
#include "device/row_type.cuh"

namespace multistep::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxTopK = 64;

struct Scored : Path {
  std::int32_t stripe;
};

/// Keeps `path` among the best top_k of `kept`, which stays in order. One lane calls it.
__device__ void keep(Scored* kept, int& count, int top_k, const Scored& path) {
  if (isnan(path.score)) return;
  if (count == top_k && !better(path, kept[count - 1])) return;
  if (count < top_k) ++count;
  int at = count - 1;
  for (; at > 0 && better(path, kept[at - 1]); --at) kept[at] = kept[at - 1];
  kept[at] = path;
}

/// One warp a query row; the anchors one after another, as in reference/stages/search_row.hpp.
template <class T, bool kPaged>
__global__ void search_level(LevelSearch search) {
  __shared__ Scored all_kept[kWarps][kMaxTopK];
  const int lane = threadIdx.x % 32;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (r >= search.rows.total()) return;
  const Rows::Row row = search.rows.at(r);
  const int head_dim = search.rows.head_dim;
  const T* query = search.rows.query_row<T>(search.routing, row);
  const auto keys = search.rows.kv_rows<T, kPaged>(search.keys, row);
  const std::int64_t slot = row.index * search.top_k;
  Scored* kept = all_kept[threadIdx.x / 32];
  int count = 0;

  const auto segment_of = [&](int rank) {
    return search.parents ? search.parents[slot + rank]
                          : searched(search.level, search.rows.window, row.position, row.start);
  };
  for (int rank = 0; rank < (search.parents ? search.top_k : 1); ++rank) {
    const DeviceSpan segment = segment_of(rank);
    if (segment.end <= segment.begin) continue;
    const DeviceCut cut = cut_anchors(search.level, segment, search.rows.grid(row));
    const int end = end_stripe(search.level, cut);
    for (int i = search.level.first; i < end; ++i) {
      const std::int64_t held = cut.anchor(i) - search.rows.key_offset;
      if (held < 0 || held >= search.rows.keys) continue;
      float score = 0;
      for (int d = lane; d < head_dim; d += 32) {
        score = fmaf(to_float(query[d]), to_float(keys[held][d]), score);
      }
      score = search.scale * warp_sum(score);
      if (search.parents) score += search.parent_scores[slot + rank];
      if (lane == 0) keep(kept, count, search.top_k, {{score, cut.anchor(i), rank}, i});
    }
  }
  __syncwarp();
  count = __shfl_sync(kFullWarp, count, 0);

  for (int s = 0; s < search.top_k; ++s) {
    DeviceSpan span{0, 0};
    if (s < count) {
      const DeviceSpan segment = segment_of(kept[s].rank);
      span = cut_segment(search.level, segment, search.rows.grid(row)).span(kept[s].stripe);
    }
    if (lane != 0) continue;
    search.spans[slot + s] = span;
    search.scores[slot + s] = s < count ? kept[s].score : -kInfinity;
    if (search.anchors) search.anchors[slot + s] = s < count ? kept[s].anchor : -1;
    if (search.ranks) search.ranks[slot + s] = s < count ? kept[s].rank : -1;
  }
}

}  // namespace

void search_level_plain(const LevelSearch& search, Stream stream) {
  const auto blocks = blocks_for(search.rows.total(), kWarps);
  if (blocks == 0) return;
  with_type_and_pages(search, [&](auto type, auto paged) {
    search_level<decltype(type), paged><<<blocks, 32 * kWarps, 0, stream>>>(search);
  });
  check_launch("search_level");
}

}  // namespace multistep::cuda
