#include "api/check.cuh"
#include "device/row_type.cuh"
#include "search/search_anchors.cuh"

/// Search of a level whose parts are the same for all queries with parts of one length: the anchors
/// of many rows are the same keys, and scores a matrix product. A row is a query row at level 1,
/// below it one of its parents, sorted by first key. A block has 128 rows of a KV head: a thread
/// finds a row, a warp scores 32, and the newest keys of 64 parts, 32 where head_dim is above 128,
/// are brought at a time. Scores are those of search_anchors.cuh bit for bit: the same fragments,
/// multiplied in the same order.
namespace multistep::cuda {
namespace {

/// A block.
struct PartsBlock {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = kProductRows;
  static_assert(kRows == kThreads);
};

/// Rows of keys: the newest ones of some parts, or those of as many rows' newest parts.
template <int kHeadDim>
struct KeyTile {
  static constexpr int kParts = kHeadDim <= 128 ? 64 : 32;
  static constexpr int kPieces = kHeadDim / 8;  // of a row, 16 bytes each; past head_dim zeros
  static constexpr int kPitch = kPieces + 4;    // two rows that are read at once, in other banks
  uint4 pieces[kParts * kPitch];

  __device__ uint4& at(int row, int piece) { return pieces[row * kPitch + piece]; }

  /// Asks for the keys held_at(row), rows of the arrays, `pieces` of each; -1: zeros.
  template <class T, class HeldAt>
  __device__ void load(const HeadRows<T>& keys, int pieces, HeldAt&& held_at) {
    const int piece = static_cast<int>(threadIdx.x) % kPieces;
    for (int row = static_cast<int>(threadIdx.x) / kPieces; row < kParts;
         row += PartsBlock::kThreads / kPieces) {
      const std::int64_t held = held_at(row);
      const bool here = held >= 0 && piece < pieces;
      ptx::copy_async_16(&at(row, piece), here ? keys[held] + 8 * piece : keys.first, here);
    }
    ptx::commit_copies();
  }

  __device__ void fragment(uint4 (&key)[kHeadDim / 32], int first_row) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) key[j] = at(first_row + lane / 4, 4 * j + lane % 4);
  }
};

/// A row of the product, by the thread that finds it.
struct PartRow {
  std::int64_t slot = 0;  // of its results, the first
  std::int32_t end = 0;   // of its segment
  std::int32_t length = 0;
  std::int32_t log2 = 0;  // of its parts
  float parent_score = 0;

  PartRow() = default;
  /// Row i of a KV head; `order` is of the parents. Calls found(place) once it is known where in
  /// its array the routing query is, -1 for none, before it waits for its parent.
  template <class Found>
  __device__ PartRow(const LevelSearch& search, const std::int32_t* order, int kv_head,
                     std::int64_t i, Found&& found) {
    const Rows& rows = search.rows;
    const std::int64_t of_head = static_cast<std::int64_t>(rows.group()) * rows.count;
    const bool inner = search.parents != nullptr;
    const bool exists = i < (inner ? of_head * search.top_k : of_head);
    DeviceSpan segment{0, 0};
    Rows::Row row{};
    row.index = -1;
    if (inner && exists) {
      const std::int32_t pair = order[kv_head * of_head * search.top_k + i];
      row = rows.at(pair / search.top_k);
      const std::int64_t parent = row.index * search.top_k + pair % search.top_k;
      segment = search.parents[parent];
      parent_score = search.parent_scores[parent];
      slot = static_cast<std::int64_t>(pair) * search.top_k;
    } else if (exists) {
      const auto query = static_cast<std::int32_t>(i / rows.group());
      const auto head = static_cast<std::int32_t>(i % rows.group());
      row = rows.row(kv_head / rows.kv_heads, kv_head % rows.kv_heads * rows.group() + head,
                     rows.first + query);
      segment = searched(search.level, rows.window, row.position, row.start);
      slot = row.index * search.top_k;
    }
    found(row.index < 0 ? -1 : search.routing.offset(row.batch, row.head, row.query));
    end = segment.end;
    length = segment.end - segment.begin;
    if (length > 0) log2 = aligned_part_log2(search.level, length, rows.grid(row));
  }

  __device__ DeviceCut cut() const {
    DeviceCut result{
        .rule = Rule::aligned, .end = end, .length = length, .window = 0, .stripes = nullptr};
    if (length > 0) cut_parts(result, log2, Grid{});
    return result;
  }

  /// The number of its newest part, from key 0.
  __device__ int newest() const { return (end - 1) >> log2; }

  /// Its whole parts whose newest keys the arrays hold.
  __device__ DeviceSpan parts(const Rows& rows) const {
    if (length <= 0) return {0, 0};
    const auto from = static_cast<int>(rows.key_offset >> log2);
    const auto to = static_cast<int>((rows.key_offset + rows.keys) >> log2);
    return {max((end - length) >> log2, from), min(end >> log2, to)};
  }

  /// Its newest key, where it is not that of a whole part, in rows of the arrays; else -1.
  __device__ std::int32_t newest_key(const Rows& rows) const {
    if (length <= 0 || (end & ((1 << log2) - 1)) == 0) return -1;
    const std::int64_t held = end - 1 - rows.key_offset;
    return held < rows.keys ? static_cast<std::int32_t>(max(held, std::int64_t{-1})) : -1;
  }
};

/// The best of the parts that a lane scores of a row, best first. They come from the newest to the
/// oldest: of equal scores the last one goes in front. No branches, as in a warp some row nearly
/// always has a better one.
template <int kTopK>
struct BestParts {
  float score[kTopK];
  std::int32_t part[kTopK];  // -1: none, whose score is -infinity

  __device__ BestParts() {
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      score[s] = -kInfinity;
      part[s] = -1;
    }
  }

  /// NaN is never kept.
  __device__ void keep(float candidate, std::int32_t number) {
    bool beaten[kTopK];
#pragma unroll
    for (int s = 0; s < kTopK; ++s) beaten[s] = candidate >= score[s];
#pragma unroll
    for (int s = kTopK - 1; s > 0; --s) {
      const float next_score = beaten[s - 1] ? score[s - 1] : candidate;
      const std::int32_t next_part = beaten[s - 1] ? part[s - 1] : number;
      score[s] = beaten[s] ? next_score : score[s];
      part[s] = beaten[s] ? next_part : part[s];
    }
    score[0] = beaten[0] ? candidate : score[0];
    part[0] = beaten[0] ? number : part[0];
  }

  /// As candidates of the row's segment, whose newest part has number `newest`.
  __device__ TopK<kTopK> candidates(const LevelSearch& search, std::int32_t newest) const {
    TopK<kTopK> result;
#pragma unroll
    for (int s = 0; s < kTopK; ++s) {
      if (part[s] >= 0) result.best[s] = candidate_of(search, score[s], newest - part[s] + 1);
    }
    return result;
  }
};

template <class T, int kHeadDim, int kTopK>
__global__ void __launch_bounds__(PartsBlock::kThreads, kHeadDim <= 128 && kTopK <= 4 ? 3 : 2)
    search_parts(__grid_constant__ const LevelSearch search, const std::int32_t* order,
                 FoundPath* lists, std::int64_t blocks_of_head) {
  constexpr int kWarps = PartsBlock::kWarps;
  constexpr int kFragments = 2;            // of 16 rows, a warp's
  constexpr int kOfLane = 2 * kFragments;  // rows that a lane holds products of
  constexpr int kGroup = SearchBlock::kAnchors;
  constexpr int kParts = KeyTile<kHeadDim>::kParts;
  __shared__ KeyTile<kHeadDim> tiles[2];
  __shared__ PartRow of_block[PartsBlock::kRows];
  __shared__ std::int64_t query_of[PartsBlock::kRows];  // where it is in its array; -1: none
  __shared__ DeviceSpan range_of[PartsBlock::kRows];    // of a row's parts
  __shared__ int past_of[2][kWarps];  // where the next older parts end that a warp wants
  __shared__ unsigned lengths_of[kWarps];
  ptx::launch_dependents();
  ptx::wait_for_previous_kernel();
  const Rows& rows = search.rows;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int c = lane % 4;
  const auto kv_head = static_cast<int>(blockIdx.x / blocks_of_head);
  const auto keys = rows.kv_rows<T>(search.keys, kv_head);
  // The rows that a lane holds products of; 0 and 1 are of the first fragment.
  const auto row_at = [&](int i) { return 32 * warp + 8 * i + lane / 4; };

  QueryFragment<kHeadDim> query[kFragments];
  const std::int64_t number = blockIdx.x % blocks_of_head * PartsBlock::kRows + threadIdx.x;
  const PartRow mine(search, order, kv_head, number, [&](std::int64_t found) {
    query_of[threadIdx.x] = found;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const auto* const from = reinterpret_cast<const uint4*>(
          static_cast<const T*>(search.routing.data) + max(query_of[row_at(i)], std::int64_t{0}));
      uint4* const to = i % 2 == 0 ? query[i / 2].low : query[i / 2].high;
#pragma unroll
      for (int j = 0; j < kHeadDim / 32; ++j) {
        const bool here = 4 * j + c < rows.pieces();
        to[j] = here ? ptx::load_now(from + 4 * j + c) : uint4{0, 0, 0, 0};
      }
    }
  });
  of_block[threadIdx.x] = mine;

  // Nearly always all rows have parts of one length; else one length after the other.
  unsigned lengths = __reduce_or_sync(kFullWarp, mine.length > 0 ? 1u << mine.log2 : 0);
  if (lane == 0) lengths_of[warp] = lengths;
  // The newest part of a row whose segment ends inside it.
  const std::int32_t newest =
      faulty(rows.fault, Fault::newest_part_missed) ? -1 : mine.newest_key(rows);
  range_of[threadIdx.x] = {newest, newest};
  const bool any_newest = __syncthreads_or(newest >= 0);
#pragma unroll
  for (int w = 0; w < kWarps; ++w) lengths |= lengths_of[w];
  float parent_score[kOfLane];
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) parent_score[i] = of_block[row_at(i)].parent_score;

  BestParts<kTopK> best[kOfLane];
  // Of 8 keys, columns 2 c and 2 c + 1 are this lane's: score[2 r + e] of row r of the fragment.
  const auto score_group = [&](float(&score)[4], int fragment, const uint4(&key)[kHeadDim / 32]) {
    score_anchors<T, kHeadDim>(score, query[fragment], key);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      score[e] = path_score(search, score[e], parent_score[2 * fragment + e / 2]);
    }
  };

  for (int first = any_newest ? 0 : PartsBlock::kRows; first < PartsBlock::kRows;
       first += 2 * kParts) {
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      tiles[tile].load(keys, rows.pieces(), [&](int row) {
        return static_cast<std::int64_t>(range_of[first + kParts * tile + row].begin);
      });
    }
    ptx::wait_for_copies<0>();
    __syncthreads();
    const int of_warp = 32 * warp - first;  // its first row, from that of the tiles on
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      // Column g is the newest key of row g of 8, and that row's product alone is used.
      const bool has = range_of[row_at(i)].begin >= 0;
      if (of_warp < 0 || of_warp >= 2 * kParts || !__any_sync(kFullWarp, has)) continue;
      uint4 key[kHeadDim / 32];
      tiles[of_warp / kParts].fragment(key, of_warp % kParts + 8 * i);
      float score[4];
      score_group(score, i / 2, key);
      const float its = lane / 4 % 2 == 0 ? score[2 * (i % 2)] : score[2 * (i % 2) + 1];
      if (has && lane / 8 == c) best[i].keep(its, of_block[row_at(i)].newest());
    }
    __syncthreads();  // before other tiles and ranges come
  }

  for (; lengths != 0; lengths &= lengths - 1) {
    const int log2 = __ffs(static_cast<int>(lengths)) - 1;
    DeviceSpan parts = mine.log2 == log2 ? mine.parts(rows) : DeviceSpan{0, 0};
    if (parts.end <= parts.begin) parts = {INT_MAX, 0};
    range_of[threadIdx.x] = parts;
    // Parts of some and of all rows of the warp.
    const DeviceSpan some{__reduce_min_sync(kFullWarp, parts.begin),
                          __reduce_max_sync(kFullWarp, parts.end)};
    const DeviceSpan all{__reduce_max_sync(kFullWarp, parts.begin),
                         __reduce_min_sync(kFullWarp, parts.end)};
    const auto load = [&](KeyTile<kHeadDim>& tile, int past) {
      tile.load(keys, rows.pieces(), [&](int row) {
        const std::int64_t part = past - kParts + row;
        const std::int64_t held = ((part + 1) << log2) - 1 - rows.key_offset;
        return held < rows.keys ? max(held, std::int64_t{-1}) : std::int64_t{-1};
      });
    };
    // Where the parts before `past` end that a row of the warp, and of the block, scores; 0: none.
    const auto wanted_before = [&](int past) {
      return __reduce_max_sync(kFullWarp, parts.begin < past ? min(parts.end, past) : 0);
    };
    const auto block_wants = [&](int turn) {
      int past = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) past = max(past, past_of[turn % 2][w]);
      return past;
    };
    const auto tell = [&](int turn, int past) {
      if (lane == 0) past_of[turn % 2][warp] = past;
    };

    tell(1, some.end);
    __syncthreads();
    int past = block_wants(1);
    if (past > 0) load(tiles[0], past);
    for (int turn = 0; past > 0; ++turn) {
      const bool skip = turn == 0 && faulty(rows.fault, Fault::part_tile_skipped);
      tell(turn, wanted_before(past - (skip ? 2 : 1) * kParts));
      ptx::wait_for_copies<0>();
      __syncthreads();  // this tile is there, and the last one has been read
      const int next = block_wants(turn);
      if (next > 0) load(tiles[(turn + 1) % 2], next);
#pragma unroll 1
      for (int a = kParts - kGroup; a >= 0; a -= kGroup) {
        const int part = past - kParts + a;
        if (part + kGroup <= some.begin || part >= some.end) continue;
        const bool inside = part >= all.begin && part + kGroup <= all.end;
        uint4 key[kHeadDim / 32];
        tiles[turn % 2].fragment(key, a);
#pragma unroll
        for (int fragment = 0; fragment < kFragments; ++fragment) {
          float score[4];
          score_group(score, fragment, key);
          if (!inside) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const DeviceSpan range = range_of[row_at(2 * fragment + e / 2)];
              const int one = part + 2 * c + e % 2;
              if (one < range.begin || one >= range.end) score[e] = __int_as_float(INT_MAX);  // NaN
            }
          }
#pragma unroll
          for (int e = 3; e >= 0; --e) {
            best[2 * fragment + e / 2].keep(score[e], part + 2 * c + e % 2);
          }
        }
      }
      past = next;
    }
    __syncthreads();  // before other tiles and ranges come
  }

  // A quad's lanes have scored the same rows: lane c gathers row c.
  TopK<kTopK> found[kOfLane];
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    found[i] = best[i].candidates(search, of_block[row_at(i)].newest());
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    TopK<kTopK> given = found[2 + i];
    given.swap_where(c & 2, found[i]);
    found[i].merge_lane(2, given);
  }
  found[1].swap_where(c & 1, found[0]);
  TopK<kTopK>& kept = found[0];
  kept.merge_lane(1, found[1]);
  if (query_of[row_at(c)] < 0) return;
  const PartRow row = of_block[row_at(c)];
  const DeviceCut cut = row.cut();
#pragma unroll
  for (int s = 0; s < kTopK; ++s) {
    if (s >= search.top_k) break;
    const FoundPath path = found_path(search, cut, kept.best[s]);
    if (search.parents) {
      lists[row.slot + s] = path;
    } else {
      store_slot(search, row.slot + s, path, 0);
    }
  }
}

template <class T, int kHeadDim, int kTopK>
void launch(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  const Rows& rows = search.rows;
  const std::int64_t heads = static_cast<std::int64_t>(rows.batch) * rows.kv_heads;
  const std::int64_t all = rows.total() * (search.parents ? search.top_k : 1);
  const std::int64_t blocks = blocks_for(all / heads, PartsBlock::kRows);
  Launch how{static_cast<unsigned>(blocks * heads), PartsBlock::kThreads, stream};
  how.early = search.parents != nullptr;
  launch_kernel(how, search_parts<T, kHeadDim, kTopK>, search, scratch.order, scratch.lists,
                blocks);
}

}  // namespace

void search_level_product(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  require(search.top_k <= kMaxProductTopK, "top_k {}: up to {} here", search.top_k,
          kMaxProductTopK);
  with_row_type(search, [&](auto type, auto columns) {
    with_list<kMaxProductTopK, columns>(search.top_k, [&](auto top_k) {
      launch<decltype(type), columns, top_k>(search, scratch, stream);
    });
  });
}

}  // namespace multistep::cuda
