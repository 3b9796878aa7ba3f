#pragma once

#include "api/check.cuh"
#include "attend/repair_rows.cuh"
#include "attend/softmax_state.cuh"
#include "attend/warp_tiles.cuh"
#include "device/row_type.cuh"

/// Attention of tiles of query rows without Hopper's instructions, from compute capability 8.0 on:
/// a block takes one tile of 64 rows, 16 a warp (mma.sync), as in FlashAttention-2 (Dao, 2023).
/// Keys and values come 64 at a time, 32 where head_dim is above 128 (cp.async), the next tile
/// while one is attended to. A thread's registers hold what those of attend_tiles_sm90.cuh do; so
/// rows, softmax and what becomes of them are the same.
namespace multistep::cuda {

/// A block.
struct WarpTiles {
  static constexpr int kThreads = 128;
  static constexpr int kStages = 2;  // taken by turns
};

/// Its shared memory. The queries lie where the last stage will, until all warps have read them;
/// what these do not hold in registers lies behind it.
template <int kHeadDim>
struct WarpStages {
  static constexpr int kKeys = kHeadDim <= 128 ? 64 : 32;  // of a tile, from multiples of it on
  using KeyTile = SwizzledTile<kKeys, kHeadDim>;
  using Queries = SwizzledTile<kTileRows, kHeadDim>;
  struct Stage {
    KeyTile key;
    KeyTile value;
  };
  static constexpr int kRest = kHeadDim - LeftRows<kHeadDim>::kHeldColumns;  // of the queries
  static constexpr int kRestBytes = 2 * kTileRows * kRest;
  static constexpr int kQueriesAt =
      WarpTiles::kStages * sizeof(Stage) + kRestBytes - Queries::kBytes;
  static_assert(kQueriesAt >= static_cast<int>(sizeof(Stage)), "the first stage is read meanwhile");
  Stage stage[WarpTiles::kStages];
  char rest[kRestBytes > 0 ? kRestBytes : 16];
  TileRow row[kTileRows];
  SlotWeight slots[kTileRows][kMaxTileSlots];

  __device__ Queries& queries() {
    return *reinterpret_cast<Queries*>(reinterpret_cast<char*>(stage) + kQueriesAt);
  }
};

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <class T, int kHeadDim, class Tiles>
struct TileOfWarps {
  using Stages = WarpStages<kHeadDim>;
  static constexpr int kKeys = Stages::kKeys;

  const Tiles& args;
  Stages& stages;
  int kv_head;
  TileScale scale;
  DeviceSpan held;  // keys
  LeftRows<kHeadDim> query;
  SoftmaxState<kHeadDim> softmax;

  __device__ TileOfWarps(const Tiles& tiles, Stages& room, int head)
      : args(tiles),
        stages(room),
        kv_head(head),
        scale(tiles.scale, tiles.rows.fault),
        held(held_keys(tiles.rows, head)) {}

  __device__ void ask_for_queries() {
    const T* const queries = static_cast<const T*>(args.query.data);
    ask_for_rows<T, WarpTiles::kThreads>(stages.queries(), args.rows.pieces(), queries, [&](int r) {
      const TileRow& row = stages.row[r];
      return row.index >= 0 ? queries + row.query : nullptr;
    });
  }
  __device__ void ask_for_keys(int j, int stage) const {
    cuda::ask_for_keys<T, WarpTiles::kThreads>(stages.stage[stage], args, kv_head, held, j * kKeys);
  }

  /// The key tile behind tile j that some row looks at; behind all of them one that is none. Every
  /// warp finds it for itself.
  __device__ int tile_after(int j) const {
    if constexpr (Tiles::kGaps) {
      const int lane = static_cast<int>(threadIdx.x) % 32;
      const DeviceSpan spans[2] = {stages.row[lane].keys, stages.row[lane + 32].keys};
      return next_wanted<kKeys>(j, spans, args.rows.fault);
    } else {
      return j + 1;
    }
  }

  /// Attends to those of key tiles `range`, at least one, that some row looks at, as it does at the
  /// first. Whole block.
  __device__ void attend(const Tile& tile, KeyTiles<kKeys> range, const TileRow (&rows)[2]) {
    constexpr int kPartTiles = kPartKeys / kKeys;
    const int fault = args.rows.fault;
    ask_for_queries();
    ask_for_keys(range.begin, 0);
    ptx::wait_for_copies<0>();
    __syncthreads();
    query.take(stages.queries(), static_cast<int>(threadIdx.x) / 32 * 16);
    __syncthreads();  // keys and values may take their place
    // Parts end at absolute multiples: a row's sums do not depend on where its tile begins.
    EarlierParts<kHeadDim> earlier;
    const auto join_earlier = [&](int begin) {  // to the part from `begin` on
      if (begin > range.begin && !faulty(fault, Fault::earlier_parts_lost)) {
        earlier.join_to(softmax, scale.log2);
      }
    };
    int part = range.begin / kPartTiles;
    int stage = 0;
    int next;
#pragma unroll 1
    for (int j = range.begin; j < range.end; j = next, stage ^= 1) {
      if (j > range.begin) {
        ptx::wait_for_copies<0>();
        __syncthreads();  // the tile is there, and the one before has been read
      }
      next = tile_after(j);
      if (next < range.end) ask_for_keys(next, stage ^ 1);
      float logits[kKeys / 2];
      multiply_rows<T>(logits, query, stages.stage[stage].key);
      finish_logits(logits, scale, tile, j, rows, fault);
      if (j / kPartTiles > part) {
        join_earlier(part * kPartTiles);
        earlier.keep(softmax);
        softmax = {};
        part = j / kPartTiles;
      }
      softmax.update(logits, scale.log2, fault);
      softmax.rescale();
      std::uint32_t weights[kKeys / 16][4];
      pack_weights<T>(weights, logits);
      add_products<T>(softmax.value, weights, stages.stage[stage].value);
    }
    join_earlier(part * kPartTiles);
  }
};

#endif

/// blockIdx.x: a tile of a KV head.
template <class T, int kHeadDim, class Tiles>
__global__ void __launch_bounds__(WarpTiles::kThreads, 2)
    attend_warp_tiles(__grid_constant__ const Tiles args) {
#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) char memory[];
  auto& stages = *reinterpret_cast<WarpStages<kHeadDim>*>(memory);
  const TaskPlace place(args, blockIdx.x / 2);
  const int kv_head = place.kv_head;
  const std::int64_t number = place.tile + blockIdx.x % 2;
  if (number < 2 * tasks_per_head(args) && number * kTileRows >= args.per_head) return;
  const Tile tile = args.tile(kv_head, number);
  if (tile.any.end < 0) return;  // kNoTile
  if (threadIdx.x < kTileRows) {
    const TileRow row = args.row(kv_head, number * kTileRows + threadIdx.x);
    stages.row[threadIdx.x] = row;
    if (row.index >= 0) args.prepare(row, stages.slots[threadIdx.x]);
  }
  const auto range = KeyTiles<WarpStages<kHeadDim>::kKeys>::of(tile.any);
  __syncthreads();
  const int first_row = static_cast<int>(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4);
  const TileRow rows[2] = {stages.row[first_row], stages.row[first_row + 8]};
  TileOfWarps<T, kHeadDim, Tiles> mine(args, stages, kv_head);
  if (!range.empty()) mine.attend(tile, range, rows);
  typename Tiles::template Epilogue<T, kHeadDim> epilogue{args, rows, stages.slots + first_row};
  epilogue.prefetch();
  float lse[2];
  mine.softmax.finish(lse, mine.scale.above);
  repair<T, Tiles, kHeadDim>(args, mine.softmax.value, lse, rows, kv_head);
  epilogue.store(mine.softmax.value, lse);
#else
  __trap();  // where Hopper's instructions are there, attend_tiles_sm90.cuh uses them
#endif
}

template <class Tiles>
void launch_attend_tiles_sm80(const Tiles& args, Stream stream) {
  with_row_type(args, [&](auto type, auto head_dim) {
    launch_warp_tiles<sizeof(WarpStages<head_dim>)>(
        attend_warp_tiles<decltype(type), head_dim, Tiles>, 2 * task_count(args),
        WarpTiles::kThreads, stream, args);
  });
}

}  // namespace multistep::cuda
