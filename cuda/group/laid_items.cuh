#pragma once

#include "api/check.cuh"
#include "api/stages_backward.cuh"
#include "device/storage.cuh"
#include "group/tile_rows.cuh"

/// The items of a backward pass in the order in which tiles take them, looked up once for all
/// passes over them.
namespace multistep::cuda {

struct alignas(16) ItemRow {
  ItemWeight weight;
  DeviceSpan keys;
  std::uint32_t query;  // row of [batch, heads, queries]; kNoRow: none
  std::uint32_t item;
};
inline constexpr std::uint32_t kNoRow = 0xffffffffu;

/// Spans sorted, or windows query by query; whole tiles of 64.
struct LaidItems : SpanAttend {
  static constexpr bool kGaps = true;
  static constexpr std::int64_t spare = 0;
  ItemRow* items;         // [kv_heads, per_head]
  Tile* tiles;            // [kv_heads, per_head / 64]
  std::int32_t* longest;  // span of them
  std::int64_t per_head;
  int begin_shift;  // last bits of a first key that the order does not look at

  LaidItems(const SpanAttend& attend, Arena& arena) : SpanAttend(attend), begin_shift(0) {
    const std::int64_t count = static_cast<std::int64_t>(rows.group()) * rows.count * slots;
    per_head = (count + kTileRows - 1) / kTileRows * kTileRows;
    const Index heads = static_cast<Index>(rows.batch) * rows.kv_heads;
    items = arena.take<ItemRow>(heads * per_head);
    tiles = arena.take<Tile>(heads * per_head / kTileRows);
    longest = arena.take<std::int32_t>(1);
  }

#ifdef __CUDACC__
  __device__ TileRow row(int kv_head, std::int64_t i) const {
    if (i >= per_head) return {};
    const ItemRow& found = items[kv_head * per_head + i];
    if (found.query == kNoRow) return {};
    return {found.query, found.item, found.keys};
  }
  __device__ DeviceSpan keys_of(int kv_head, std::int64_t i) const {
    return i < per_head ? items[kv_head * per_head + i].keys : DeviceSpan{0, 0};
  }
  __device__ Tile tile(int kv_head, std::int64_t tile) const {
    const std::int64_t of_head = per_head / kTileRows;
    if (tile >= of_head) return {{0, 0}, {0, 0}};
    return tiles[kv_head * of_head + tile];
  }
#endif
};

/// Fills in what `laid` points at. `pairs` sorted; null: windows.
void lay_items(LaidItems& laid, const Pairs* pairs, const ItemWeight* weights, Stream stream);

}  // namespace multistep::cuda
