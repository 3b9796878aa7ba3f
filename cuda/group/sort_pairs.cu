#include <cub/device/device_radix_sort.cuh>

#include "api/check.cuh"
#include "group/tile_rows.cuh"

/// Puts (query row, slot) pairs with nearby keys next to each other, on the device: a stable radix
/// sort by (KV head, first attended key), so that the order, and with it every bit, is always the
/// same. The pairs of a KV head are as many for every head: tiles of 64 need no list.
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
    const int key_bits = log2_ceil(rows.keys + 1);
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

__global__ void make_keys(SpanAttend attend, SortKey sort_key, std::int32_t per_head,
                          std::int32_t count, std::uint32_t* keys, std::int32_t* pairs) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pair >= count) return;
  const auto at = static_cast<std::int32_t>(pair);
  keys[pair] = sort_key.of(at / per_head, attended_by(attend, at));
  pairs[pair] = at;
}

/// One warp a tile: the sorted pairs' keys, and what some and all of them attend to.
__global__ void make_tiles(SpanAttend attend, std::int64_t per_head, std::int64_t tiles_per_head,
                           std::int64_t count, int tile_pairs, const std::int32_t* pairs,
                           DeviceSpan* spans, Tile* tiles) {
  const std::int64_t tile = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (tile >= count) return;
  const int lane = threadIdx.x % 32;
  const std::int64_t kv_head = tile / tiles_per_head;
  LanesTile lanes;
  for (int half = 0; half < 2; ++half) {
    const int r = half * 32 + lane;
    const std::int64_t i = tile % tiles_per_head * tile_pairs + r;
    if (r >= tile_pairs || i >= per_head) continue;
    const std::int64_t at = kv_head * per_head + i;
    const DeviceSpan span = attended_by(attend, pairs[at]);
    spans[at] = span;
    lanes.add(span);
  }
  const Tile range = lanes.whole();
  if (lane == 0) tiles[tile] = range;
}

struct Layout {
  SortKey sort_key;
  std::int64_t per_head;
  std::int64_t tiles_per_head;
  std::int64_t tiles;
  std::int64_t count;
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
    tiles_per_head = (per_head + how.tile_pairs - 1) / how.tile_pairs;
    const std::int64_t heads = static_cast<std::int64_t>(rows.batch) * rows.kv_heads;
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
    cub::DoubleBuffer<std::uint32_t> key_buffer(keys[0], keys[1]);
    cub::DoubleBuffer<std::int32_t> pair_buffer(pairs[0], pairs[1]);
    check(cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, key_buffer, pair_buffer,
                                          static_cast<int>(count), 0, 32),
          "DeviceRadixSort");
    sort_space = arena.take<char>(static_cast<Index>(sort_bytes));
    used = arena.used();
  }
};

/// The pairs' numbers in order.
const std::int32_t* sort(const SpanAttend& attend, const Layout& layout, Stream stream) {
  make_keys<<<blocks_for(layout.count, kThreads), kThreads, 0, stream>>>(
      attend, layout.sort_key, static_cast<std::int32_t>(layout.per_head),
      static_cast<std::int32_t>(layout.count), layout.keys[0], layout.pairs[0]);
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
  if (layout.count == 0) return result;
  result.pair = sort(attend, layout, stream);
  result.span = layout.spans;
  result.tiles = layout.tile;
  result.begin_shift = layout.sort_key.shift;
  make_tiles<<<blocks_for(layout.tiles * 32, kThreads), kThreads, 0, stream>>>(
      attend, layout.per_head, layout.tiles_per_head, layout.tiles, how.tile_pairs, result.pair,
      layout.spans, layout.tile);
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
