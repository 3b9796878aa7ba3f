#include "api/check.cuh"
#include "search/search_anchors.cuh"

/// Search of a level whose parts are the same for all queries with parts of one length: the anchors
/// of many rows are the same keys, and scores a matrix product. A row is a query row at level 1,
/// below it one of its parents, sorted by first key. A block has 128 rows of a KV head, 16 a warp,
/// and brings the newest keys of 64 parts at a time. Scores are those of search_anchors.cuh bit for
/// bit: the same fragments, multiplied in the same order.
namespace multistep::cuda {
namespace {

/// A block.
struct PartsBlock {
  static constexpr int kWarps = SearchBlock::kWarps;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = kProductRows;
  static constexpr int kParts = 64;  // of a tile
  static_assert(kRows == 16 * kWarps);
};

/// The newest keys of 64 parts in a row.
template <int kHeadDim>
struct PartTile {
  static constexpr int kPieces = kHeadDim / 8;  // of a row, 16 bytes each
  static constexpr int kPitch = kPieces + 4;    // two rows that are read at once, in other banks
  uint4 pieces[PartsBlock::kParts * kPitch];

  __device__ uint4& at(int row, int piece) { return pieces[row * kPitch + piece]; }

  /// Asks for parts [first, first + 64) of 2^log2 keys; `keys` are rows of `search`'s arrays.
  template <class T>
  __device__ void load(const LevelSearch& search, const T* keys, int first, int log2) {
    const int piece = static_cast<int>(threadIdx.x) % kPieces;
    for (int row = static_cast<int>(threadIdx.x) / kPieces; row < PartsBlock::kParts;
         row += PartsBlock::kThreads / kPieces) {
      const std::int64_t key = (static_cast<std::int64_t>(first + row + 1) << log2) - 1;
      const std::int64_t held = key - search.rows.key_offset;
      const bool here = held >= 0 && held < search.rows.keys;
      ptx::copy_async_16(&at(row, piece), keys + (here ? held * kHeadDim : 0) + 8 * piece, here);
    }
    ptx::commit_copies();
  }
};

/// A row, as each lane of its quad knows it.
struct PartRow {
  std::int64_t index = -1;  // query row in [batch, heads, queries]; -1: none
  std::int64_t slot = 0;    // of its results, the first
  std::int32_t end = 0;     // of its segment
  std::int32_t length = 0;
  std::int32_t log2 = 0;  // of its parts
  float parent_score = 0;

  __device__ PartRow() = default;
  /// Row i of a KV head; `order` is of the parents.
  __device__ PartRow(const LevelSearch& search, const std::int32_t* order, int kv_head,
                     std::int64_t i) {
    const Rows& rows = search.rows;
    const std::int64_t of_head = static_cast<std::int64_t>(rows.group()) * rows.count;
    DeviceSpan segment;
    Rows::Row row;
    if (search.parents) {
      if (i >= of_head * search.top_k) return;
      const std::int64_t pair = order[kv_head * of_head * search.top_k + i];
      row = rows.at(pair / search.top_k);
      const std::int64_t parent = row.index * search.top_k + pair % search.top_k;
      segment = search.parents[parent];
      parent_score = search.parent_scores[parent];
      slot = pair * search.top_k;
    } else {
      if (i >= of_head) return;
      const auto query = static_cast<std::int32_t>(i / rows.group());
      const auto head = static_cast<std::int32_t>(i % rows.group());
      row = rows.row(kv_head / rows.kv_heads, kv_head % rows.kv_heads * rows.group() + head,
                     rows.first + query);
      segment = searched(search.level, rows.window, row.position, row.start);
      slot = row.index * search.top_k;
    }
    index = row.index;
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
  __device__ std::int64_t newest_key(const Rows& rows) const {
    if (length <= 0 || (end & ((1 << log2) - 1)) == 0) return -1;
    const std::int64_t held = end - 1 - rows.key_offset;
    return held < rows.keys ? held : -1;
  }
};

template <class T, int kHeadDim, int kTopK>
__global__ void __launch_bounds__(PartsBlock::kThreads, 2)
    search_parts(__grid_constant__ const LevelSearch search, const std::int32_t* order,
                 FoundPath* lists, std::int64_t blocks_of_head) {
  constexpr int kWarps = PartsBlock::kWarps;
  __shared__ PartTile<kHeadDim> tiles[2];
  __shared__ int next_of[2][kWarps];  // the first part that a warp wants of those to come
  __shared__ unsigned lengths_of[kWarps];
  ptx::launch_dependents();
  ptx::wait_for_previous_kernel();
  const Rows& rows = search.rows;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int c = lane % 4;
  const auto kv_head = static_cast<int>(blockIdx.x / blocks_of_head);
  const T* const keys = static_cast<const T*>(search.keys) + rows.kv_row(kv_head) * kHeadDim;

  PartRow row[2];  // lane / 4 and lane / 4 + 8 of the warp's
  QueryFragment<kHeadDim> query;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t i = blockIdx.x % blocks_of_head * PartsBlock::kRows + 16 * warp + lane / 4;
    row[half] = PartRow(search, order, kv_head, i + 8 * half);
    const T* const from = static_cast<const T*>(search.routing) + row[half].index * kHeadDim;
    uint4* const to = half == 0 ? query.low : query.high;
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      to[j] = row[half].index < 0 ? uint4{0, 0, 0, 0}
                                  : __ldg(reinterpret_cast<const uint4*>(from) + 4 * j + c);
    }
  }
  TopK<kTopK> best[2];
  float worst[2] = {-kInfinity, -kInfinity};

  // Nearly always all rows have parts of one length; else one length after the other.
  unsigned lengths = 0;
#pragma unroll
  for (const PartRow& one : row) lengths |= one.length > 0 ? 1u << one.log2 : 0;
  lengths = __reduce_or_sync(kFullWarp, lengths);
  if (lane == 0) lengths_of[warp] = lengths;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) lengths |= lengths_of[w];

  for (; lengths != 0; lengths &= lengths - 1) {
    const int log2 = __ffs(static_cast<int>(lengths)) - 1;
    DeviceSpan parts[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      parts[half] = row[half].log2 == log2 ? row[half].parts(rows) : DeviceSpan{0, 0};
      if (parts[half].end <= parts[half].begin) parts[half] = {INT_MAX, 0};
    }
    const int first = __reduce_min_sync(kFullWarp, min(parts[0].begin, parts[1].begin));
    const int past = __reduce_max_sync(kFullWarp, max(parts[0].end, parts[1].end));
    // The first part from `from` on that a row of the warp, and of the block, scores.
    const auto wanted_from = [&](int from) {
      int next = INT_MAX;
#pragma unroll
      for (const DeviceSpan& one : parts) {
        if (one.end > from) next = min(next, max(one.begin, from));
      }
      return __reduce_min_sync(kFullWarp, next);
    };
    const auto block_wants = [&](int turn) {
      int next = INT_MAX;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) next = min(next, next_of[turn % 2][w]);
      return next;
    };
    const auto tell = [&](int turn, int next) {
      if (lane == 0) next_of[turn % 2][warp] = next;
    };

    const int wanted = wanted_from(0);
    tell(1, wanted);
    __syncthreads();
    int here = block_wants(1);
    if (here != INT_MAX) tiles[0].load(search, keys, here, log2);
    for (int turn = 0; here != INT_MAX; ++turn) {
      const bool skip = turn == 0 && faulty(search.rows.fault, Fault::part_tile_skipped);
      tell(turn, wanted_from(here + (skip ? 2 : 1) * PartsBlock::kParts));
      ptx::wait_for_copies<0>();
      __syncthreads();  // this tile is there, and the last one has been read
      const int next = block_wants(turn);
      if (next != INT_MAX) tiles[(turn + 1) % 2].load(search, keys, next, log2);
      PartTile<kHeadDim>& tile = tiles[turn % 2];
#pragma unroll 2
      for (int a = 0; a < PartsBlock::kParts; a += SearchBlock::kAnchors) {
        const int part = here + a;
        if (part + SearchBlock::kAnchors <= first || part >= past) continue;
        uint4 key[kHeadDim / 32];
#pragma unroll
        for (int j = 0; j < kHeadDim / 32; ++j) key[j] = tile.at(a + lane / 4, 4 * j + c);
        float products[4];
        score_anchors<T, kHeadDim>(products, query, key);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int one = part + 2 * c + e;
            if (one < parts[half].begin || one >= parts[half].end) continue;
            const float score = path_score(search, products[2 * half + e], row[half].parent_score);
            consider(search, score, row[half].newest() - one + 1, best[half], worst[half]);
          }
        }
      }
      here = next;
    }
    __syncthreads();  // before other tiles come
  }

  // The newest part of a row's own length: column g is the newest key of row g, of which alone the
  // product is used.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    std::int64_t newest = row[half].newest_key(rows);
    if (faulty(rows.fault, Fault::newest_part_missed)) newest = -1;
    if (!__any_sync(kFullWarp, newest >= 0)) continue;
    uint4 key[kHeadDim / 32];
#pragma unroll
    for (int j = 0; j < kHeadDim / 32; ++j) {
      key[j] = newest < 0
                   ? uint4{0, 0, 0, 0}
                   : __ldg(reinterpret_cast<const uint4*>(keys + newest * kHeadDim) + 4 * j + c);
    }
    float products[4];
    score_anchors<T, kHeadDim>(products, query, key);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (newest < 0 || 2 * c + e != lane / 4) continue;
      const float score = path_score(search, products[2 * half + e], row[half].parent_score);
      consider(search, score, 1, best[half], worst[half]);
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    best[half].merge_lanes(3);  // the quad's columns
    if (row[half].index < 0 || c >= search.top_k) continue;
    const FoundPath found = found_path(search, row[half].cut(), best[half].at(c));
    if (search.parents) {
      lists[row[half].slot + c] = found;
    } else {
      store_slot(search, row[half].slot + c, found, 0);
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

template <class T, int kHeadDim>
void launch(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  switch (search.top_k) {
    case 1:
    case 2:
      return launch<T, kHeadDim, 2>(search, scratch, stream);
    case 3:
      return launch<T, kHeadDim, 3>(search, scratch, stream);
    default:
      return launch<T, kHeadDim, 4>(search, scratch, stream);
  }
}

template <class T>
void launch(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  search.rows.head_dim == 64 ? launch<T, 64>(search, scratch, stream)
                             : launch<T, 128>(search, scratch, stream);
}

}  // namespace

void search_level_product(const LevelSearch& search, const SearchScratch& scratch, Stream stream) {
  search.dtype == Dtype::bf16 ? launch<bf16>(search, scratch, stream)
                              : launch<fp16>(search, scratch, stream);
}

}  // namespace multistep::cuda
