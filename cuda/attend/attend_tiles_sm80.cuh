#pragma once

#include "api/check.cuh"
#include "attend/repair_rows.cuh"
#include "attend/softmax_state.cuh"
#include "device/row_type.cuh"
#include "device/swizzled_tile.cuh"

/// Attention of tiles of query rows without Hopper's instructions, from compute capability 8.0 on:
/// a block takes one tile of 64 rows, 16 a warp (mma.sync), as in FlashAttention-2 (Dao, 2023).
/// Keys and values come 64 at a time (cp.async), the next tile while one is attended to. A thread's
/// registers hold what those of attend_tiles_sm90.cuh do; so rows, softmax and what becomes of them
/// are the same.
namespace multistep::cuda {

/// A block.
struct WarpTiles {
  static constexpr int kThreads = 128;
  static constexpr int kKeys = 64;   // of a tile, which starts at a multiple of it
  static constexpr int kStages = 2;  // taken by turns
};

/// Its shared memory. The queries lie where the last stage's values will, until all warps have read
/// them.
template <int kHeadDim>
struct WarpStages {
  using KeyTile = SwizzledTile<WarpTiles::kKeys, kHeadDim>;
  static_assert(kTileRows == WarpTiles::kKeys, "queries take the place of values");
  KeyTile key[WarpTiles::kStages];
  KeyTile value[WarpTiles::kStages];
  TileRow row[kTileRows];
  SlotWeight slots[kTileRows][kMaxTileSlots];

  __device__ KeyTile& queries() { return value[WarpTiles::kStages - 1]; }
};

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// By the block: asks for 64 rows of an array, of which row_at(r) is the r-th; null: zeros.
template <class T, int kHeadDim, class RowAt>
__device__ void ask_for_rows(SwizzledTile<64, kHeadDim>& tile, int pieces, const void* somewhere,
                             RowAt&& row_at) {
  constexpr int kPieces = kHeadDim / 8;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
#pragma unroll
  for (int i = 0; i < 64; i += WarpTiles::kThreads / kPieces) {
    const int r = i + static_cast<int>(threadIdx.x) / kPieces;
    const T* const row = piece < pieces ? row_at(r) : nullptr;
    ptx::copy_async_16(tile.at(r, piece), row ? row + 8 * piece : somewhere, row != nullptr);
  }
}

/// Where this lane's row is of the four 8 x 8 matrices that hold 16 rows by 16 columns of a tile:
/// first those of the first 8 columns, or those of the first 8 rows.
template <class Tile64>
__device__ const void* by_columns(Tile64& tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile.at(row + lane % 16, column / 8 + lane / 16);
}
template <class Tile64>
__device__ const void* by_rows(Tile64& tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile.at(row + lane / 16 * 8 + lane % 8, column / 8 + lane / 8 % 2);
}

/// Four values of an accumulator.
template <int kValues>
__device__ float (&four_of(float (&values)[kValues], int i))[4] {
  return reinterpret_cast<float(&)[4]>(values[4 * i]);
}

template <class T, int kHeadDim, class Tiles>
struct TileOfWarps {
  static constexpr int kKeys = WarpTiles::kKeys;
  using Stages = WarpStages<kHeadDim>;

  const Tiles& args;
  Stages& stages;
  int kv_head;
  TileScale scale;
  DeviceSpan held;  // keys that may be looked at, in rows of the arrays: others may be NaN
  std::uint32_t query[kHeadDim / 16][4];
  SoftmaxState<kHeadDim> softmax;

  __device__ TileOfWarps(const Tiles& tiles, Stages& room, int head)
      : args(tiles), stages(room), kv_head(head), scale(tiles.scale, tiles.rows.fault) {
    const Rows& rows = args.rows;
    const int batch = kv_head / rows.kv_heads;
    std::int64_t past = min(rows.past_keys(batch), rows.keys);
    if (!rows.sequence.length) {
      past = min(past, rows.sequence.query_offset + rows.queries - rows.key_offset);
    }
    held = {static_cast<std::int32_t>(max(rows.padding(batch) - rows.key_offset, std::int64_t{0})),
            static_cast<std::int32_t>(max(past, std::int64_t{0}))};
  }

  __device__ void ask_for_queries() {
    const T* const queries = static_cast<const T*>(args.query.data);
    ask_for_rows<T, kHeadDim>(stages.queries(), args.rows.pieces(), queries, [&](int r) {
      const TileRow& row = stages.row[r];
      return row.index >= 0 ? queries + row.query : nullptr;
    });
  }
  /// Those that have come.
  __device__ void take_queries() {
    const int first = static_cast<int>(threadIdx.x) / 32 * 16;  // of this warp
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      ptx::load_matrices(query[step], by_columns(stages.queries(), first, 16 * step));
    }
  }

  __device__ void ask_for_keys(int j, int stage) {
    const auto ask = [&](auto& tile, const RowArray& array) {
      const HeadRows<T> rows = args.rows.template kv_rows<T>(array, kv_head);
      ask_for_rows<T, kHeadDim>(tile, args.rows.pieces(), rows.first, [&](int r) {
        const int key = j * kKeys + r;
        return key >= held.begin && key < held.end ? rows[key] : nullptr;
      });
    };
    ask(stages.key[stage], args.key);
    ask(stages.value[stage], args.value);
    ptx::commit_copies();
  }

  __device__ void multiply_keys(float (&logits)[kKeys / 2], typename Stages::KeyTile& keys) const {
#pragma unroll
    for (float& logit : logits) logit = 0;
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
#pragma unroll
      for (int i = 0; i < kKeys / 16; ++i) {
        std::uint32_t key[4];
        ptx::load_matrices(key, by_rows(keys, 16 * i, 16 * step));
        ptx::mma<T>(four_of(logits, 2 * i), query[step], key[0], key[1]);
        ptx::mma<T>(four_of(logits, 2 * i + 1), query[step], key[2], key[3]);
      }
    }
  }

  __device__ void multiply_values(const std::uint32_t (&weights)[kKeys / 16][4],
                                  typename Stages::KeyTile& values) {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
#pragma unroll
      for (int i = 0; i < kHeadDim / 16; ++i) {
        std::uint32_t value[4];
        ptx::load_matrices_transposed(value, by_columns(values, 16 * step, 16 * i));
        ptx::mma<T>(four_of(softmax.value, 2 * i), weights[step], value[0], value[1]);
        ptx::mma<T>(four_of(softmax.value, 2 * i + 1), weights[step], value[2], value[3]);
      }
    }
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
    take_queries();
    __syncthreads();  // values may take their place
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
      multiply_keys(logits, stages.key[stage]);
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
      multiply_values(weights, stages.value[stage]);
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
  const std::int64_t tiles = 2 * tasks_per_head(args);
  const auto kv_head = static_cast<int>(blockIdx.x / tiles);
  const std::int64_t number = blockIdx.x % tiles;
  if (number * kTileRows >= args.per_head) return;
  if (threadIdx.x < kTileRows) {
    const TileRow row = args.row(kv_head, number * kTileRows + threadIdx.x);
    stages.row[threadIdx.x] = row;
    if (row.index >= 0) args.prepare(row, stages.slots[threadIdx.x]);
  }
  const Tile tile = args.tile(kv_head, number);
  const auto range = KeyTiles<WarpTiles::kKeys>::of(tile.any);
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
    const auto kernel = attend_warp_tiles<decltype(type), head_dim, Tiles>;
    constexpr int kBytes = sizeof(WarpStages<head_dim>);
    static_assert(kBytes <= 99 * 1024, "more a block does not have from 8.6 on");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
          "cudaFuncSetAttribute");
    const auto tiles = static_cast<unsigned>(2 * task_count(args));
    kernel<<<tiles, WarpTiles::kThreads, kBytes, stream>>>(args);
    check_launch("attend_warp_tiles");
  });
}

}  // namespace multistep::cuda
