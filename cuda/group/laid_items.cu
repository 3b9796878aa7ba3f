#include "group/laid_items.cuh"

namespace multistep::cuda {
namespace {

constexpr int kThreads = 256;

/// One warp a tile.
template <class TileRows>
__global__ void lay(TileRows rows, LaidItems laid, const ItemWeight* weights) {
  const std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const std::int64_t of_head = laid.per_head / kTileRows;
  if (at >= of_head * laid.rows.batch * laid.rows.kv_heads) return;
  const int lane = static_cast<int>(threadIdx.x % 32);
  LanesTile lanes;
  std::int32_t longest = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t i = at % of_head * kTileRows + 32 * half + lane;
    const TileRow row = rows.row(static_cast<int>(at / of_head), i);
    ItemRow item{{kInfinity, 0, 0, 0}, {0, 0}, kNoRow, 0};
    if (row.index >= 0) {
      item = {weights[row.item], row.keys, static_cast<std::uint32_t>(row.index),
              static_cast<std::uint32_t>(row.item)};
      lanes.add(row.keys);
      longest = max(longest, row.keys.end - row.keys.begin);
    }
    laid.items[at * kTileRows + 32 * half + lane] = item;
  }
  const Tile tile = lanes.whole();
  longest = __reduce_max_sync(kFullWarp, longest);
  if (lane != 0) return;
  laid.tiles[at] = tile;
  atomicMax(laid.longest, longest);  // of integers: any order will do
}

template <class TileRows>
void launch(const TileRows& rows, const LaidItems& laid, const ItemWeight* weights, Stream stream) {
  const std::int64_t tiles = laid.per_head / kTileRows * laid.rows.batch * laid.rows.kv_heads;
  if (tiles == 0) return;
  check(cudaMemsetAsync(laid.longest, 0, sizeof(std::int32_t), stream), "cudaMemsetAsync");
  const auto blocks = blocks_for(tiles * 32, kThreads);
  lay<<<blocks, kThreads, 0, stream>>>(rows, laid, weights);
  check_launch("lay_items");
}

}  // namespace

void lay_items(LaidItems& laid, const Pairs* pairs, const ItemWeight* weights, Stream stream) {
  if (pairs) {
    laid.begin_shift = pairs->begin_shift;
    launch(SpanRows(laid, *pairs), laid, weights, stream);
  } else {
    launch(WindowRows<false>(windows_of(laid)), laid, weights, stream);
  }
}

}  // namespace multistep::cuda
