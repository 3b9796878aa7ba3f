#include "check.cuh"
#include "ptx.cuh"
#include "stages.cuh"
#include "top_k.cuh"

/// Span-search on tensor cores. A unit is what searches one segment: at level 1 a query with up to
/// 16 heads of one KV head, whose segment and anchors are the same; below it a query, a head and a
/// parent. A warp scores 8 anchors at a time for all heads: the 16-byte pieces that its lanes load
/// of 8 rows of keys are the B fragments of `mma` under an order of head_dim that the queries are
/// loaded in too, which leaves the products as they are. Nothing goes through shared memory.
///
/// A unit's anchors are shared out among warps without a trace in the result: the scores are the
/// same bits and the order of candidates is total.
namespace multistep::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kHeads = 16;    // of a unit: rows of the matrix product
constexpr int kAnchors = 8;   // scored at a time: its columns
constexpr int kInFlight = 3;  // groups of anchors being loaded

/// A unit's queries: lane (g, c) = (lane / 4, lane % 4) holds rows g and g + 8.
template <int kHeadDim>
struct QueryFragment {
  static constexpr int kPieces = kHeadDim / 32;  // 16-byte pieces of a row that a lane holds
  uint4 low[kPieces];
  uint4 high[kPieces];
};

template <class T, int kHeadDim>
__device__ void score_anchors(float (&scores)[4], const QueryFragment<kHeadDim>& query,
                              const uint4 (&key)[kHeadDim / 32]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = 0;
#pragma unroll
  for (int j = 0; j < kHeadDim / 32; ++j) {
    const uint4 low = query.low[j];
    const uint4 high = query.high[j];
    ptx::mma<T>(scores, {low.x, high.x, low.y, high.y}, key[j].x, key[j].y);
    ptx::mma<T>(scores, {low.z, high.z, low.w, high.w}, key[j].z, key[j].w);
  }
}

/// Which unit a warp works for, and which share of its anchors.
struct Share {
  std::int64_t unit;
  int part;
  int parts;
};
__device__ Share share_of(int blocks) {
  const int warp = threadIdx.x / 32;
  if (blocks == 0) return {static_cast<std::int64_t>(blockIdx.x) * kWarps + warp, 0, 1};
  return {blockIdx.x / blocks, static_cast<int>(blockIdx.x % blocks) * kWarps + warp,
          blocks * kWarps};
}

/// Scores a share of a segment's anchors: of the heads in rows g and g + 8 of the fragment, this
/// lane's best.
template <class T, int kHeadDim, int kTopK, int kHalves>
__device__ void score_share(const LevelSearch& search, const DeviceCut& cut, const T* keys,
                            const QueryFragment<kHeadDim>& query, float parent_score, Share share,
                            TopK<kTopK> (&best)[kHalves]) {
  const int lane = threadIdx.x % 32;
  const int column = lane / 4;
  const int c = lane % 4;
  const int fault = search.rows.fault;
  int first = search.level.first;
  if (faulty(fault, Fault::first_anchor_repeated)) first = max(first - 1, 1);
  const bool even = search.level.rule == Rule::even;
  const int limit = search.level.stripe_count;
  const auto distance_of = [&](int i) {
    if (!even) return __ldg(search.level.stripes + min(i, limit));
    const std::int64_t distance = static_cast<std::int64_t>(i - 1) * cut.stride + 1;
    return distance > cut.length ? INT_MAX : static_cast<int>(distance);
  };

  for (int group = share.part;; group += kInFlight * share.parts) {
    uint4 key[kInFlight][kHeadDim / 32];
    unsigned valid[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int i = first + kAnchors * (group + u * share.parts) + column;
      const int distance = distance_of(i);
      const std::int64_t held = cut.end - distance - search.rows.key_offset;
      bool use = distance <= cut.length && held >= 0 && held < search.rows.keys;
      const unsigned inside = __ballot_sync(kFullWarp, distance <= cut.length);
      if (u == 0 && inside == 0) return;  // so are all further ones outside
      if (faulty(fault, Fault::oldest_anchor_missed)) use = use && distance_of(i + 1) <= cut.length;
      valid[u] = __ballot_sync(kFullWarp, use);
      std::int64_t scored = held;
      if (faulty(fault, Fault::older_key_scored)) scored = max(held - 1, std::int64_t{0});
      const uint4* row = reinterpret_cast<const uint4*>(keys + scored * kHeadDim);
#pragma unroll
      for (int j = 0; j < kHeadDim / 32; ++j) {
        key[u][j] = use ? __ldg(row + 4 * j + c) : uint4{0, 0, 0, 0};
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      float scores[4];
      score_anchors<T, kHeadDim>(scores, query, key[u]);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int i = first + kAnchors * (group + u * share.parts) + 2 * c + e;
        if (!(valid[u] >> (4 * (2 * c + e)) & 1)) continue;
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
          float score = search.scale * scores[2 * half + e];
          if (search.parents && !faulty(fault, Fault::stale_parent_score)) score += parent_score;
          best[half].keep({score, i});
        }
      }
    }
  }
}

/// The heads of a unit at level 1.
struct SharedUnit {
  int batch;
  int kv_head;
  int first_head;
  int heads;
  int query;

  __device__ SharedUnit(const Rows& rows, std::int64_t unit) {
    const int tiles = (rows.group() + kHeads - 1) / kHeads;
    query = rows.first + static_cast<int>(unit % rows.count);
    const auto head = static_cast<int>(unit / rows.count);
    const int kv = head / tiles;
    batch = kv / rows.kv_heads;
    kv_head = kv % rows.kv_heads;
    first_head = kv_head * rows.group() + head % tiles * kHeads;
    heads = min(kHeads, rows.group() - head % tiles * kHeads);
  }
};

/// Level 1: a unit's heads share the anchors.
template <class T, int kHeadDim, int kTopK>
__global__ void __launch_bounds__(kThreads, 2) search_shared(LevelSearch search, SearchLists lists,
                                                             std::int64_t units) {
  ptx::launch_dependents();
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (std::int64_t i = thread; i < lists.counter_count;
       i += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    lists.counters[i] = 0;
  }
  __shared__ Candidate found[kWarps][kHeads][kTopK];
  const int lane = threadIdx.x % 32;
  const Share share = share_of(lists.blocks);
  if (share.unit >= units) return;  // a whole block where warps share a unit
  const SharedUnit unit(search.rows, share.unit);
  const Rows::Row row = search.rows.row(unit.batch, unit.first_head, unit.query);
  const DeviceSpan segment = segment_of(search, row, 0);
  const DeviceCut cut = cut_segment(search.level, segment, lists.blocks == 0);

  const std::int64_t head_stride = search.rows.queries;  // rows from head to head
  QueryFragment<kHeadDim> query;
  const auto load = [&](int head, int piece) {
    if (head >= unit.heads) return uint4{0, 0, 0, 0};
    const T* from = static_cast<const T*>(search.routing) +
                    (row.index + head * head_stride) * kHeadDim;
    return __ldg(reinterpret_cast<const uint4*>(from) + 4 * piece + lane % 4);
  };
#pragma unroll
  for (int j = 0; j < kHeadDim / 32; ++j) {
    query.low[j] = load(lane / 4, j);
    query.high[j] = load(lane / 4 + 8, j);
  }
  TopK<kTopK> best[2];
  if (cut.length > 0) {
    score_share<T, kHeadDim, kTopK, 2>(search, cut,
                                       static_cast<const T*>(search.keys) + row.kv_row * kHeadDim,
                                       query, 0, share, best);
  }
#pragma unroll
  for (TopK<kTopK>& half : best) half.merge_lanes(3);  // the quad's columns

  if (lists.blocks == 0) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = lane / 4 + 8 * half;
      Kept kept;
#pragma unroll
      for (int s = 0; s < kTopK; ++s) {
        const Candidate candidate = best[half].best[s];
        if (lane % 4 != s || candidate.stripe == 0) continue;
        kept.path = {candidate.score, cut.anchor(candidate.stripe), 0, candidate.stripe};
        kept.span = cut.span(candidate.stripe);
      }
      const std::int64_t slot = (row.index + head * head_stride) * search.top_k + lane % 4;
      if (head < unit.heads && lane % 4 < search.top_k) store_slot(search, slot, kept);
    }
    return;
  }
  // The block's warps: each head's lists are merged by 8 lanes.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      if (lane % 4 == s) found[threadIdx.x / 32][lane / 4 + 8 * half][s] = best[half].best[s];
    }
  }
  __syncthreads();
  const int head = threadIdx.x / kWarps;
  if (threadIdx.x >= kHeads * kWarps) return;
  TopK<kTopK> merged;
#pragma unroll
  for (int s = 0; s < kTopK; ++s) merged.best[s] = found[threadIdx.x % kWarps][head][s];
  merged.merge_lanes(7);
  if (threadIdx.x % kWarps != 0 || head >= unit.heads) return;
  Candidate* to = lists.lists + ((row.dense + head * static_cast<std::int64_t>(search.rows.count)) *
                                     lists.blocks +
                                 blockIdx.x % lists.blocks) *
                                    search.top_k;
#pragma unroll
  for (int s = 0; s < kTopK; ++s) {
    if (s < search.top_k) to[s] = merged.best[s];
  }
}

/// Levels from 2 on: a unit is a (query row, parent). `order` lists them so that neighbours search
/// nearby keys; null: as they come.
template <class T, int kHeadDim, int kTopK>
__global__ void __launch_bounds__(kThreads, 2)
    search_parents(LevelSearch search, SearchLists lists, LevelSearch before,
                   SearchLists lists_before, const std::int32_t* order, std::int64_t units) {
  ptx::launch_dependents();
  ptx::wait_for_previous_kernel();
  __shared__ Candidate found[kWarps][kTopK];
  __shared__ Kept parents[kTopK];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const Share share = share_of(lists.blocks);
  if (share.unit >= units) return;
  const std::int64_t pair = order ? order[share.unit] : share.unit;
  const int rank = static_cast<int>(pair % search.top_k);
  const Rows::Row row = search.rows.at(pair / search.top_k);
  DeviceSpan segment;
  float parent_score;
  if (lists_before.lists) {
    // The level before is still in lists; every block of the row merges them, one keeps the result.
    if (warp == 0) {
      const Kept kept = finish_row<kTopK>(before, lists_before, row);
      if (lane < search.top_k) {
        parents[lane] = kept;
        if (rank == 0 && blockIdx.x % lists.blocks == 0) {
          store_slot(before, row.index * search.top_k + lane, kept);
        }
      }
    }
    __syncthreads();
    segment = parents[rank].span;
    parent_score = parents[rank].path.score;
  } else {
    segment = segment_of(search, row, rank);
    parent_score = search.parent_scores[row.index * search.top_k + rank];
  }
  TopK<kTopK> best[1];
  if (segment.end > segment.begin) {
    const DeviceCut cut = cut_segment(search.level, segment, false);
    QueryFragment<kHeadDim> query;
    const T* from = static_cast<const T*>(search.routing) + row.index * kHeadDim;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      query.low[j] = query.high[j] = {0, 0, 0, 0};
      if (lane < 4) query.low[j] = __ldg(reinterpret_cast<const uint4*>(from) + 4 * j + lane);
    }
    score_share<T, kHeadDim, kTopK, 1>(search, cut,
                                       static_cast<const T*>(search.keys) + row.kv_row * kHeadDim,
                                       query, parent_score, share, best);
  }
  if (lane >= 4) best[0] = TopK<kTopK>();  // rows of zeros
  best[0].merge_lanes(3);
  if (lists.blocks > 0) {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      if (lane == s) found[warp][s] = best[0].best[s];
    }
    __syncthreads();
    if (warp != 0) return;
    TopK<kTopK> merged;
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      if (lane < kWarps) merged.best[s] = found[lane][s];
    }
    merged.merge_lanes(7);
    best[0] = merged;
  }
  const int list = lists.blocks > 0 ? static_cast<int>(blockIdx.x % lists.blocks) : 0;
  Candidate* to = lists.lists +
                  ((row.dense * search.top_k + rank) * max(lists.blocks, 1) + list) * search.top_k;
#pragma unroll
  for (int s = 0; s < kTopK; ++s) {
    if (lane == s && s < search.top_k) to[s] = best[0].best[s];
  }
}

template <int kTopK>
__global__ void finish_rows(LevelSearch search, SearchLists lists) {
  ptx::wait_for_previous_kernel();
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (r >= search.rows.total()) return;
  const Rows::Row row = search.rows.at(r);
  const Kept kept = finish_row<kTopK>(search, lists, row);
  const int lane = threadIdx.x % 32;
  if (lane < search.top_k) store_slot(search, row.index * search.top_k + lane, kept);
}

std::int64_t units_of(const LevelSearch& search) {
  const Rows& rows = search.rows;
  if (search.parents) return rows.total() * search.top_k;
  const int tiles = (rows.group() + kHeads - 1) / kHeads;
  return static_cast<std::int64_t>(rows.batch) * rows.kv_heads * tiles * rows.count;
}

template <class T, int kHeadDim, int kTopK>
void launch(const LevelSearch& search, const SearchLists& lists, const LevelSearch* before,
            const SearchLists* lists_before, const std::int32_t* order, Stream stream) {
  const std::int64_t units = units_of(search);
  const std::int64_t blocks = lists.blocks > 0 ? units * lists.blocks : (units + kWarps - 1) / kWarps;
  if (!search.parents) {
    search_shared<T, kHeadDim, kTopK>
        <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(search, lists, units);
    check_launch("search_shared");
    return;
  }
  launch_dependent(search_parents<T, kHeadDim, kTopK>, static_cast<unsigned>(blocks), kThreads,
                   stream, search, lists, before ? *before : LevelSearch{},
                   lists_before ? *lists_before : SearchLists{}, order, units);
}

template <class T, int kHeadDim>
void launch(const LevelSearch& search, const SearchLists& lists, const LevelSearch* before,
            const SearchLists* lists_before, const std::int32_t* order, Stream stream) {
  search.top_k <= 2 ? launch<T, kHeadDim, 2>(search, lists, before, lists_before, order, stream)
                    : launch<T, kHeadDim, 4>(search, lists, before, lists_before, order, stream);
}

template <class T>
void launch(const LevelSearch& search, const SearchLists& lists, const LevelSearch* before,
            const SearchLists* lists_before, const std::int32_t* order, Stream stream) {
  search.rows.head_dim == 64 ? launch<T, 64>(search, lists, before, lists_before, order, stream)
                             : launch<T, 128>(search, lists, before, lists_before, order, stream);
}

}  // namespace

bool search_is_fast(const Rows& rows, int top_k) {
  return (rows.head_dim == 64 || rows.head_dim == 128) && top_k <= 4;
}

int search_blocks(const LevelSearch& search) {
  constexpr int kBusyWarps = 8;  // of a multiprocessor, that units alone should give
  const std::int64_t wanted =
      static_cast<std::int64_t>(current_device().multiprocessors) * kBusyWarps;
  if (units_of(search) >= wanted) return 0;
  // One group of anchors a warp, as long as all blocks run at once.
  const int groups = (search.max_stripes + kAnchors - 1) / kAnchors;
  const int useful = (groups + kWarps - 1) / kWarps;
  const std::int64_t fitting =
      2 * static_cast<std::int64_t>(current_device().multiprocessors) / units_of(search);
  return static_cast<int>(std::clamp<std::int64_t>(useful, 1, std::max<std::int64_t>(fitting, 1)));
}

void search_candidates(const LevelSearch& search, const SearchLists& lists,
                       const LevelSearch* before, const SearchLists* lists_before,
                       const std::int32_t* order, Stream stream) {
  if (search.rows.total() == 0) return;
  search.dtype == Dtype::bf16
      ? launch<bf16>(search, lists, before, lists_before, order, stream)
      : launch<fp16>(search, lists, before, lists_before, order, stream);
}

void finish_search(const LevelSearch& search, const SearchLists& lists, Stream stream) {
  const auto blocks = static_cast<unsigned>((search.rows.total() + kWarps - 1) / kWarps);
  if (blocks == 0) return;
  search.top_k <= 2
      ? launch_dependent(finish_rows<2>, blocks, kThreads, stream, search, lists)
      : launch_dependent(finish_rows<4>, blocks, kThreads, stream, search, lists);
}

}  // namespace multistep::cuda
