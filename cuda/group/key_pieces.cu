#include "group/key_pieces.cuh"

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

namespace multistep::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCutThreads = 1024;  // of the one block that cuts

struct Range {
  std::int32_t begin;
  std::int32_t end;
};

/// Tiles of spans that look at keys [first, first + 128): they are sorted by their first keys,
/// these without their last bits, spans without keys behind all others.
__device__ Range tiles_of_spans(const LaidItems& items, int kv_head, std::int32_t first) {
  const auto count = static_cast<std::int32_t>(items.per_head / kTileRows);
  const Tile* const tiles = items.tiles + static_cast<std::int64_t>(kv_head) * count;
  const int shift = items.begin_shift;
  const auto tiles_below = [&](std::int32_t key) {  // that begin before the key's bucket
    std::int32_t low = 0;
    std::int32_t high = count;
    while (low < high) {
      const std::int32_t middle = (low + high) / 2;
      const DeviceSpan any = tiles[middle].any;
      const bool below = any.begin < any.end && any.begin >> shift < key >> shift;
      below ? low = middle + 1 : high = middle;
    }
    return low;
  };
  // The last tile that begins before a bucket may hold spans in it.
  const std::int32_t begin = tiles_below(max(first - *items.longest + 1, 0)) - 1;
  const std::int32_t last = first + kOwnedKeys - 1;
  return {max(begin, 0), tiles_below(((last >> shift) + 1) << shift)};
}

/// Tiles of windows that hold any of keys [first, first + 128).
__device__ Range tiles_of_windows(const LaidItems& items, int kv_head, std::int32_t first) {
  const Rows& rows = items.rows;
  const std::int64_t key = first + rows.key_offset;
  const Rows::QueryRange queries =
      rows.looking_at(kv_head / rows.kv_heads, key, key + kOwnedKeys, rows.window);
  const std::int64_t end = queries.end * rows.group();
  return {static_cast<std::int32_t>(queries.begin * rows.group() / kTileRows),
          static_cast<std::int32_t>((end + kTileRows - 1) / kTileRows)};
}

__global__ void find_ranges(LaidItems items, KeyPieces pieces) {
  const auto tile = static_cast<std::int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (tile >= pieces.key_tiles) return;
  const int kv_head = tile / pieces.tiles_per_head;
  std::int32_t first = tile % pieces.tiles_per_head * kOwnedKeys;
  if (faulty(items.rows.fault, Fault::neighbour_range)) first = max(first - kOwnedKeys, 0);
  const Range range =
      items.spans ? tiles_of_spans(items, kv_head, first) : tiles_of_windows(items, kv_head, first);
  pieces.of_tile[tile] = {tile, range.begin, max(range.begin, range.end), 0};
}

/// One block. Pieces beyond a tile's first are at most as many as its rows' tiles over `size`.
__global__ void __launch_bounds__(kCutThreads) cut(KeyPieces pieces) {
  using Sum = cub::BlockReduce<std::int64_t, kCutThreads>;
  using Scan = cub::BlockScan<int2, kCutThreads>;
  __shared__ union {
    typename Sum::TempStorage sum;
    typename Scan::TempStorage scan;
  } shared;
  __shared__ std::int64_t all;
  const auto thread = static_cast<std::int32_t>(threadIdx.x);

  std::int64_t mine = 0;
  for (std::int32_t tile = thread; tile < pieces.key_tiles; tile += kCutThreads) {
    mine += pieces.of_tile[tile].end - pieces.of_tile[tile].begin;
  }
  const std::int64_t total = Sum(shared.sum).Sum(mine);
  if (thread == 0) all = total;
  __syncthreads();
  const std::int64_t size = max(std::int64_t{kMinPieceTiles}, 2 * all / kMaxPieceSums + 1);

  int2 before{0, 0};  // pieces, and those with sums of their own
  for (std::int32_t first = 0; first < pieces.key_tiles; first += kCutThreads) {
    const std::int32_t tile = first + thread;
    KeyPiece range{};
    if (tile < pieces.key_tiles) range = pieces.of_tile[tile];
    const std::int32_t length = range.end - range.begin;
    const auto count = static_cast<std::int32_t>((length + size - 1) / size);
    const int2 here{count, max(count - 1, 0)};
    int2 at;
    int2 sum;
    const auto add = [](int2 a, int2 b) { return int2{a.x + b.x, a.y + b.y}; };
    __syncthreads();
    Scan(shared.scan).ExclusiveScan(here, at, int2{0, 0}, add, sum);
    at = add(at, before);
    before = add(before, sum);
    for (std::int32_t i = 0; i < count; ++i) {
      const auto edge = [&](std::int64_t k) {
        return range.begin + static_cast<std::int32_t>(k * length / count);
      };
      pieces.piece[at.x + i] = {tile, edge(i), edge(i + 1), at.y + i - 1};
      if (i == 0) pieces.piece[at.x].sums = -1;
    }
    if (tile < pieces.key_tiles) pieces.of_tile[tile] = {tile, at.y, at.y + here.y, 0};
  }
  if (thread == 0) *pieces.count = before.x;
}

/// Adds the sums of tiles' later pieces: a thread four values of a key.
__global__ void add(Rows rows, KeyPieces pieces, float* key_sums, float* value_sums) {
  const KeyPiece sums = pieces.of_tile[blockIdx.x];
  if (sums.begin == sums.end) return;
  const std::int64_t kv_head = blockIdx.x / pieces.tiles_per_head;
  const std::int64_t first =
      static_cast<std::int64_t>(blockIdx.x % pieces.tiles_per_head) * kOwnedKeys;
  const int d = rows.head_dim;
  const int values = kOwnedKeys * d;
  float* const to = (blockIdx.y == 0 ? key_sums : value_sums) + (kv_head * rows.keys + first) * d;
  const auto held = static_cast<int>(min(rows.keys - first, std::int64_t{kOwnedKeys})) * d;
  const float* const from = pieces.sums + static_cast<std::int64_t>(blockIdx.y) * values;
  std::int32_t end = sums.end;
  if (faulty(rows.fault, Fault::piece_dropped)) --end;
  for (int i = 4 * static_cast<int>(threadIdx.x); i < held; i += 4 * kThreads) {
    float4 sum = *reinterpret_cast<const float4*>(to + i);
    for (std::int32_t piece = sums.begin; piece < end; ++piece) {
      std::int64_t one = piece;
      if (faulty(rows.fault, Fault::pieces_as_they_come)) {
        one = sums.begin + (piece + clock64() / 4096) % (end - sums.begin);
      }
      const float4 more = __ldcs(reinterpret_cast<const float4*>(from + one * 2 * values + i));
      sum = {sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
    }
    *reinterpret_cast<float4*>(to + i) = sum;
  }
}

}  // namespace

KeyPieces::KeyPieces(const Rows& rows, Arena& arena) {
  const Index of_head = (rows.keys + kOwnedKeys - 1) / kOwnedKeys;
  const Index tiles = of_head * rows.batch * rows.kv_heads;
  require(tiles < INT_MAX - kMaxPieceSums, "keys {}: with {} KV heads at most 2^31 tiles of 128",
          rows.keys, rows.batch * rows.kv_heads);
  tiles_per_head = static_cast<std::int32_t>(of_head);
  key_tiles = static_cast<std::int32_t>(tiles);
  piece = arena.take<KeyPiece>(tiles + kMaxPieceSums);
  count = arena.take<std::int32_t>(1);
  of_tile = arena.take<KeyPiece>(tiles);
  sums = arena.take<float>(Index{kMaxPieceSums} * 2 * kOwnedKeys * rows.head_dim);
}

void cut_pieces(const LaidItems& items, const KeyPieces& pieces, Stream stream) {
  find_ranges<<<blocks_for(pieces.key_tiles, kThreads), kThreads, 0, stream>>>(items, pieces);
  check_launch("find_ranges");
  cut<<<1, kCutThreads, 0, stream>>>(pieces);
  check_launch("cut");
}

void add_pieces(const Rows& rows, const KeyPieces& pieces, float* key_sums, float* value_sums,
                Stream stream) {
  add<<<dim3(static_cast<unsigned>(pieces.key_tiles), 2), kThreads, 0, stream>>>(
      rows, pieces, key_sums, value_sums);
  check_launch("add_pieces");
}

}  // namespace multistep::cuda
