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
constexpr int kHeads = 16;   // of a unit: rows of the matrix product
constexpr int kAnchors = 8;  // scored at a time: its columns
constexpr int kMaxCluster = 16;
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
  float odd[4] = {0, 0, 0, 0};  // two sums, so that products need not wait for one another
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = 0;
#pragma unroll
  for (int j = 0; j < kHeadDim / 32; ++j) {
    const uint4 low = query.low[j];
    const uint4 high = query.high[j];
    ptx::mma<T>(scores, {low.x, high.x, low.y, high.y}, key[j].x, key[j].y);
    ptx::mma<T>(odd, {low.z, high.z, low.w, high.w}, key[j].z, key[j].w);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] += odd[i];
}

/// Which unit a warp works for, and which share of its anchors. `blocks` is how many blocks work
/// for one unit; 0: each warp has a unit of its own.
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

/// What a block leaves for the blocks of its cluster: its warps' best, merged, for each of kLists
/// heads. Warp `list % kWarps` merges list `list`.
template <int kTopK, int kLists>
struct BlockLists {
  Candidate of_warp[kWarps][kLists][kTopK];
  Candidate of_block[kLists][kTopK];

  __device__ void put(int list, const TopK<kTopK>& best) {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) of_warp[threadIdx.x / 32][list][s] = best.best[s];
  }

  /// Whole block; ends with a barrier of the cluster.
  __device__ void merge() {
    __syncthreads();
    const int lane = threadIdx.x % 32;
    for (int list = threadIdx.x / 32; list < kLists; list += kWarps) {
      TopK<kTopK> merged;
#pragma unroll
      for (int s = 0; s < kTopK; ++s) {
        if (lane < kWarps) merged.best[s] = of_warp[lane][list][s];
      }
      merged.merge_lanes(7);
#pragma unroll
      for (int s = 0; s < kTopK; ++s) {
        if (lane == s) of_block[list][s] = merged.best[s];
      }
    }
    ptx::cluster_barrier();
  }

  __device__ Candidate of(int block, int list, int slot) const {
    return ptx::load_from_block(&of_block[list][slot], block);
  }
};

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

  float worst[kHalves];  // of the best: what scores below it need not be looked at twice
#pragma unroll
  for (float& score : worst) score = -kInfinity;
  bool more = true;
  for (int group = share.part; more; group += kInFlight * share.parts) {
    uint4 key[kInFlight][kHeadDim / 32];
    unsigned valid[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int i = first + kAnchors * (group + u * share.parts) + column;
      const int distance = distance_of(i);
      const std::int64_t held = cut.end - distance - search.rows.key_offset;
      bool use = distance <= cut.length && held >= 0 && held < search.rows.keys;
      const unsigned inside = __ballot_sync(kFullWarp, distance <= cut.length);
      more = inside == kFullWarp;  // else all further ones are outside
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
          if (score < worst[half]) continue;
          best[half].keep(candidate_of(score, i));
          if (best[half].best[kTopK - 1] != 0) worst[half] = score_of(best[half].best[kTopK - 1]);
        }
      }
    }
  }
}

/// Level 1: a unit's heads share the anchors. One warp a unit, or `blocks` blocks, a cluster.
template <class T, int kHeadDim, int kTopK>
__global__ void __launch_bounds__(kThreads, 2)
    search_shared(LevelSearch search, SearchScratch scratch, int blocks, std::int64_t units) {
  ptx::launch_dependents();
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (std::int64_t i = thread; i < scratch.counter_count;
       i += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    scratch.counters[i] = 0;
  }
  const int lane = threadIdx.x % 32;
  const Share share = share_of(blocks);
  if (share.unit >= units) return;  // not where a block shares a unit
  const HeadTile<kHeads> unit(search.rows, static_cast<std::uint32_t>(share.unit));
  const Rows::Row row = search.rows.row(unit.batch, unit.first_head, unit.query);
  DeviceCut cut = cut_anchors(search.level, segment_of(search, row, 0));
  ReachLookup reaches{};  // early where others wait for this block, else after the loop
  if (blocks > 0) reaches = look_up_reaches(search.level, cut.length);

  const std::int64_t head_stride = search.rows.queries;  // rows from head to head
  QueryFragment<kHeadDim> query;
  const auto load = [&](int head, int piece) {
    if (head >= unit.heads) return uint4{0, 0, 0, 0};
    const T* from =
        static_cast<const T*>(search.routing) + (row.index + head * head_stride) * kHeadDim;
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
  if (blocks == 0) reaches = look_up_reaches(search.level, cut.length);
  settle_reaches(search.level, reaches, cut);

  const auto store = [&](int head, int slot, Candidate candidate) {
    if (head >= unit.heads || slot >= search.top_k) return;
    Kept kept;
    if (candidate != 0) {
      const std::int32_t stripe = stripe_of(candidate);
      kept.path = {score_of(candidate), cut.anchor(stripe), 0, stripe};
      kept.span = cut.span(stripe);
    }
    store_slot(search, (row.index + head * head_stride) * search.top_k + slot, kept);
  };
  if (blocks == 0) {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      if (lane % 4 != s) continue;
      store(lane / 4, s, best[0].best[s]);
      store(lane / 4 + 8, s, best[1].best[s]);
    }
    return;
  }
  __shared__ BlockLists<kTopK, kHeads> lists;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (lane % 4 == half) lists.put(lane / 4 + 8 * half, best[half]);
  }
  lists.merge();
  // The blocks share the heads out.
  const int block = static_cast<int>(blockIdx.x % blocks);
  for (int head = block + blocks * (threadIdx.x / 32); head < unit.heads; head += blocks * kWarps) {
    TopK<kTopK> chosen;
    for (int e = lane; e < blocks * kTopK; e += 32) {
      chosen.keep(lists.of(e / kTopK, head, e % kTopK));
    }
    chosen.merge_lanes(min(blocks * kTopK, 32) - 1);
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      if (lane == s) store(head, s, chosen.best[s]);
    }
  }
  ptx::cluster_barrier();  // no block ends while its lists are read
}

/// Levels from 2 on: a unit is a (query row, parent). One warp a unit, which leaves a list; or the
/// parents of a row times `blocks` blocks, a cluster, which chooses the row's paths.
template <class T, int kHeadDim, int kTopK>
__global__ void __launch_bounds__(kThreads, 2)
    search_parents(LevelSearch search, SearchScratch scratch, int blocks, std::int64_t units) {
  ptx::launch_dependents();
  ptx::wait_for_previous_kernel();
  const int lane = threadIdx.x % 32;
  const Share share = share_of(blocks);
  if (share.unit >= units) return;
  const std::int64_t pair = scratch.order ? scratch.order[share.unit] : share.unit;
  const int rank = static_cast<int>(pair % search.top_k);
  const Rows::Row row = search.rows.at(pair / search.top_k);
  const DeviceSpan segment = segment_of(search, row, rank);
  TopK<kTopK> best[1];
  if (segment.end > segment.begin) {
    const DeviceCut cut = cut_anchors(search.level, segment);
    QueryFragment<kHeadDim> query;
    const T* from = static_cast<const T*>(search.routing) + row.index * kHeadDim;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      query.low[j] = query.high[j] = {0, 0, 0, 0};
      if (lane < 4) query.low[j] = __ldg(reinterpret_cast<const uint4*>(from) + 4 * j + lane);
    }
    const float parent_score = search.parent_scores[row.index * search.top_k + rank];
    score_share<T, kHeadDim, kTopK, 1>(search, cut,
                                       static_cast<const T*>(search.keys) + row.kv_row * kHeadDim,
                                       query, parent_score, share, best);
  }
  if (lane >= 4) best[0] = TopK<kTopK>();  // products of rows of zeros
  best[0].merge_lanes(3);
  if (blocks == 0) {
    Candidate* to = scratch.lists + (row.dense * search.top_k + rank) * search.top_k;
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      if (lane == s && s < search.top_k) to[s] = best[0].best[s];
    }
    return;
  }
  __shared__ BlockLists<kTopK, 1> lists;
  if (lane == 0) lists.put(0, best[0]);
  lists.merge();
  if (blockIdx.x % (blocks * search.top_k) == 0 && threadIdx.x < 32) {
    const Kept kept = choose_paths<kTopK>(search, row, blocks * kTopK, [&](int parent, int e) {
      return lists.of(parent * blocks + e / kTopK, 0, e % kTopK);
    });
    if (lane < search.top_k) store_slot(search, row.index * search.top_k + lane, kept);
  }
  ptx::cluster_barrier();
}

/// Chooses every row's paths from its parents' lists.
template <int kTopK>
__global__ void choose_rows(LevelSearch search, const Candidate* lists) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (r >= search.rows.total()) return;
  const Rows::Row row = search.rows.at(r);
  const int top_k = search.top_k;
  const Kept kept = choose_paths<kTopK>(search, row, top_k, [&](int parent, int e) {
    return lists[(row.dense * top_k + parent) * top_k + e];
  });
  const int lane = threadIdx.x % 32;
  if (lane < top_k) store_slot(search, row.index * top_k + lane, kept);
}

std::int64_t units_of(const LevelSearch& search) {
  const Rows& rows = search.rows;
  if (search.parents) return rows.total() * search.top_k;
  return HeadTile<kHeads>::count(rows);
}

/// Blocks of a unit: none where there are units enough for every warp of the device. Otherwise as
/// many as there are groups of anchors for their warps, up to a cluster's size with all parents.
int blocks_of(const LevelSearch& search) {
  constexpr int kBusyWarps = 8;  // of a multiprocessor, that units alone should give
  const int most = search.parents ? 8 : kMaxCluster;
  const Device device = current_device();
  if (units_of(search) >= static_cast<std::int64_t>(device.multiprocessors) * kBusyWarps) return 0;
  const int parents = search.parents ? search.top_k : 1;
  if (device.capability < 90) return parents == 1 ? 1 : 0;  // no clusters
  const int groups = (search.max_stripes + kAnchors - 1) / kAnchors;
  int blocks = 1;
  while (2 * blocks * parents <= most && blocks * kWarps < groups) blocks *= 2;
  return blocks;
}

template <class T, int kHeadDim, int kTopK>
void launch(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  const std::int64_t units = units_of(search);
  const int blocks = blocks_of(search);
  const auto grid =
      static_cast<unsigned>(blocks > 0 ? units * blocks : (units + kWarps - 1) / kWarps);
  Launch how{grid, kThreads, stream};
  how.mostly_shared = blocks > 0;  // as the kernels of decoding that follow
  if (!search.parents) {
    how.cluster = std::max(blocks, 1);
    if (blocks > 8) {
      check(cudaFuncSetAttribute(search_shared<T, kHeadDim, kTopK>,
                                 cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
            "cudaFuncSetAttribute");
    }
    launch_kernel(how, search_shared<T, kHeadDim, kTopK>, search, scratch, blocks, units);
    return;
  }
  how.cluster = blocks > 0 ? blocks * search.top_k : 1;
  how.early = true;
  launch_kernel(how, search_parents<T, kHeadDim, kTopK>, search, scratch, blocks, units);
  if (blocks > 0) return;
  const auto rows = static_cast<unsigned>((search.rows.total() + kWarps - 1) / kWarps);
  launch_kernel({rows, kThreads, stream}, choose_rows<kTopK>, search,
                static_cast<const Candidate*>(scratch.lists));
}

template <class T, int kHeadDim>
void launch(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  search.top_k <= 2 ? launch<T, kHeadDim, 2>(search, scratch, stream)
                    : launch<T, kHeadDim, 4>(search, scratch, stream);
}

template <class T>
void launch(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  search.rows.head_dim == 64 ? launch<T, 64>(search, scratch, stream)
                             : launch<T, 128>(search, scratch, stream);
}

}  // namespace

bool search_is_fast(const Rows& rows, int top_k) {
  return (rows.head_dim == 64 || rows.head_dim == 128) && top_k <= 4;
}

bool search_needs_lists(const LevelSearch& search) {
  return search.parents && blocks_of(search) == 0;
}

void search_level_fast(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  if (search.rows.total() == 0) return;
  search.dtype == Dtype::bf16 ? launch<bf16>(search, scratch, stream)
                              : launch<fp16>(search, scratch, stream);
}

}  // namespace multistep::cuda
