#include <cub/device/device_radix_sort.cuh>

#include "api/check.cuh"
#include "group/tile_rows.cuh"

/// Puts (query row, slot) pairs with nearby keys next to each other, on the device: a stable radix
/// sort by (KV head, first attended key), so that the order, and with it every bit, is always the
/// same. The pairs of a KV head are as many for every head: tiles of 64 need no list but where a
/// few pairs lie far apart, while most share their keys. A tile of those would walk through the
/// whole context on one multiprocessor: it is cut up.
namespace multistep::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSortBits = 24;  // three passes of the sort

/// How a sort key is made of KV head and first key: without the bits that first keys share, and
/// coarser where the bits do not suffice.
struct SortKey {
  int begin_bits;
  int shift;
  int bits;  // in all

  SortKey(const Rows& rows, int shared_bits) {
    const auto log2_ceil = [](std::int64_t n) {
      int bits = 0;
      while ((std::int64_t{1} << bits) < n) ++bits;
      return bits;
    };
    const int head_bits = log2_ceil(static_cast<std::int64_t>(rows.batch) * rows.kv_heads);
    const int key_bits = std::max(log2_ceil(rows.keys + 1), 1);
    begin_bits =
        std::min(std::max(key_bits - shared_bits, 1), std::max(kSortBits - 1 - head_bits, 8));
    shift = key_bits - begin_bits;
    bits = head_bits + 1 + begin_bits;
    require(bits <= 32, "batch {} of {} KV heads: at most 2^23 in all", rows.batch, rows.kv_heads);
  }

  /// Pairs without a key go to the end of their KV head's.
  __device__ std::uint32_t of(std::uint32_t kv_head, DeviceSpan span) const {
    const std::uint32_t begin = span.end > span.begin
                                    ? static_cast<std::uint32_t>(span.begin) >> shift
                                    : std::uint32_t{1} << begin_bits;
    return kv_head << (begin_bits + 1) | begin;
  }
};

__device__ DeviceSpan attended_by(const SpanAttend& attend, std::int32_t pair) {
  const Rows::Row row = attend.rows.at(pair / attend.slots);
  if (!attend.spans) return attend.rows.window_keys(row);
  return attend.rows.attended(attend.spans[row.index * attend.slots + pair % attend.slots], row);
}

/// Tiles that there are for parts of others, whole tasks of them.
struct SpareTiles {
  Tile* tile;
  TilePairs* cut;  // null: none
  std::int64_t per_head;
  std::int64_t base;  // of a KV head
  std::int64_t count;

  /// This thread's share, of `threads`.
  __device__ void clear(std::int64_t thread, std::int64_t threads) const {
    for (std::int64_t i = thread; cut && i < count; i += threads) {
      if (i % per_head < base) continue;
      tile[i] = {kNoTile, {0, 0}};
      cut[i] = {0, 0};
    }
  }
};

/// Also empties the tiles that may stay so.
__global__ void make_keys(SpanAttend attend, SortKey sort_key, std::int32_t per_head,
                          std::int32_t count, std::uint32_t* keys, std::int32_t* pairs,
                          SpareTiles spare) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= count) return;
  spare.clear(pair, count);
  const auto at = static_cast<std::int32_t>(pair);
  keys[pair] = sort_key.of(at / per_head, attended_by(attend, at));
  pairs[pair] = at;
}

/// Where tiles are cut up.
struct Cutting {
  TilePairs* cut;           // [kv_heads, tiles_per_head]; null: none is
  std::int64_t base_tiles;  // of a KV head; behind them spare ones for parts
  std::int32_t far;         // in steps of a sort key
  int shift;                // of a first key
  int fault;
};

/// One warp a tile: the sorted pairs' keys, and what some and all of them attend to. A tile whose
/// pairs begin over `far` steps of a sort key or more is cut into parts of as many pairs, one for
/// each `far` of them. The first is at the tile's place; the others at the spare ones, from the
/// number on that its first step is, in `far` steps rounded up: no two tiles have one in common, as
/// the next tile begins where this one's last pair does, or later.
__global__ void make_tiles(SpanAttend attend, Pairs sorted, Cutting cutting, std::int64_t heads,
                           DeviceSpan* spans, Tile* tiles) {
  const std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (at >= heads * cutting.base_tiles) return;
  const int lane = threadIdx.x % 32;
  const std::int64_t kv_head = at / cutting.base_tiles;
  const std::int64_t tile = at % cutting.base_tiles;
  const TilePairs whole = sorted.whole_tile(tile);
  DeviceSpan span[2];
  DeviceSpan begins{INT_MAX, 0};  // the first one and the last, of pairs that attend to any keys
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = half * 32 + lane;
    if (r >= whole.count) continue;
    const std::int64_t pair = kv_head * sorted.per_head + whole.first + r;
    span[half] = attended_by(attend, sorted.pair[pair]);
    spans[pair] = span[half];
    if (span[half].end <= span[half].begin) continue;
    begins = {min(begins.begin, span[half].begin), max(begins.end, span[half].begin)};
  }
  int parts = 1;
  std::int64_t spare = 0;
  if (cutting.cut) {
    const int first = __reduce_min_sync(kFullWarp, begins.begin) >> cutting.shift;
    const int last = __reduce_max_sync(kFullWarp, begins.end) >> cutting.shift;
    parts = min(max(last - first, 0) / cutting.far + 1, whole.count);
    spare = sorted.first_spare() + (std::int64_t{first} + cutting.far - 1) / cutting.far - 1;
  }
  for (int part = 0; part < parts; ++part) {
    const int first = part * whole.count / parts;
    const int past = (part + 1) * whole.count / parts;
    LanesTile lanes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = half * 32 + lane;
      if (r >= first && r < past) lanes.add(span[half]);
    }
    const Tile range = lanes.whole();
    if (lane > 0) continue;
    if (part > 0 && faulty(cutting.fault, Fault::cut_part_lost)) continue;
    const std::int64_t to = kv_head * sorted.tiles_per_head + (part == 0 ? tile : spare + part);
    tiles[to] = range;
    if (cutting.cut) cutting.cut[to] = {whole.first + first, past - first};
  }
}

struct Layout {
  SortKey sort_key;
  std::int64_t per_head;
  std::int64_t tiles_per_head;
  std::int64_t tiles;
  std::int64_t count;
  Cutting cutting;
  std::int64_t heads;
  std::uint32_t* keys[2];
  std::int32_t* pairs[2];
  DeviceSpan* spans;
  Tile* tile;
  void* sort_space;
  std::size_t sort_bytes;
  std::size_t used;

  Layout(const Rows& rows, int slots, const PairOrder& how, Arena arena)
      : sort_key(rows, how.shared_bits) {
    per_head = static_cast<std::int64_t>(rows.group()) * rows.count * slots;
    cutting = {nullptr, (per_head + how.tile_pairs - 1) / how.tile_pairs,
               std::max(how.far >> sort_key.shift, 1), sort_key.shift, rows.fault};
    tiles_per_head = cutting.base_tiles;
    if (how.far > 0) {
      tiles_per_head = whole_tasks(tiles_per_head) +
                       whole_tasks((rows.keys >> sort_key.shift) / cutting.far + 1);
    }
    heads = static_cast<std::int64_t>(rows.batch) * rows.kv_heads;
    count = per_head * heads;
    tiles = tiles_per_head * heads;
    require(count < INT_MAX, "queries {}: with {} heads and {} slots at most 2^31 pairs",
            rows.count, rows.heads, slots);
    for (int i = 0; i < 2; ++i) {
      keys[i] = arena.take<std::uint32_t>(count);
      pairs[i] = arena.take<std::int32_t>(count);
    }
    spans = arena.take<DeviceSpan>(count);
    tile = arena.take<Tile>(tiles);
    if (how.far > 0) cutting.cut = arena.take<TilePairs>(tiles);
    cub::DoubleBuffer<std::uint32_t> key_buffer(keys[0], keys[1]);
    cub::DoubleBuffer<std::int32_t> pair_buffer(pairs[0], pairs[1]);
    check(cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, key_buffer, pair_buffer,
                                          static_cast<int>(count), 0, 32),
          "DeviceRadixSort");
    sort_space = arena.take<char>(static_cast<Index>(sort_bytes));
    used = arena.used();
  }

  SpareTiles spare() const {
    return {tile, cutting.cut, tiles_per_head, cutting.base_tiles, tiles};
  }
};

/// The pairs' numbers in order.
const std::int32_t* sort(const SpanAttend& attend, const Layout& layout, Stream stream) {
  make_keys<<<blocks_for(layout.count, kThreads), kThreads, 0, stream>>>(
      attend, layout.sort_key, static_cast<std::int32_t>(layout.per_head),
      static_cast<std::int32_t>(layout.count), layout.keys[0], layout.pairs[0], layout.spare());
  check_launch("make_keys");
  cub::DoubleBuffer<std::uint32_t> keys(layout.keys[0], layout.keys[1]);
  cub::DoubleBuffer<std::int32_t> pairs(layout.pairs[0], layout.pairs[1]);
  std::size_t bytes = layout.sort_bytes;
  check(cub::DeviceRadixSort::SortPairs(layout.sort_space, bytes, keys, pairs,
                                        static_cast<int>(layout.count), 0, layout.sort_key.bits,
                                        stream),
        "DeviceRadixSort");
  return pairs.Current();
}

}  // namespace

std::size_t sort_pairs_bytes(const Rows& rows, int slots, const PairOrder& how) {
  return Layout(rows, slots, how, Arena()).used;
}

Pairs sort_pairs(const SpanAttend& attend, const PairOrder& how, void* workspace, Stream stream) {
  const Layout layout(attend.rows, attend.slots, how, Arena(workspace));
  Pairs result{};
  result.tile_pairs = how.tile_pairs;
  result.per_head = layout.per_head;
  result.tiles_per_head = layout.tiles_per_head;
  result.base_tiles = layout.cutting.base_tiles;
  if (layout.count == 0) return result;
  result.pair = sort(attend, layout, stream);
  result.span = layout.spans;
  result.tiles = layout.tile;
  result.begin_shift = layout.sort_key.shift;
  result.cut = layout.cutting.cut;
  const std::int64_t warps = layout.heads * layout.cutting.base_tiles;
  make_tiles<<<blocks_for(warps * 32, kThreads), kThreads, 0, stream>>>(
      attend, result, layout.cutting, layout.heads, layout.spans, layout.tile);
  check_launch("make_tiles");
  return result;
}

const std::int32_t* order_pairs(const SpanAttend& attend, const PairOrder& how, void* workspace,
                                Stream stream) {
  const Layout layout(attend.rows, attend.slots, how, Arena(workspace));
  if (layout.count == 0) return nullptr;
  return sort(attend, layout, stream);
}

}  // namespace multistep::cuda
