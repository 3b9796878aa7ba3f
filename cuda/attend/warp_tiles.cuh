#pragma once

#include "api/check.cuh"
#include "api/stages.cuh"
#include "device/swizzled_tile.cuh"

/// How the tile kernels bring rows into shared memory (cp.async) and multiply them (mma.sync)
/// without Hopper's instructions: 16 rows of a product are a warp's.
namespace multistep::cuda {

/// Whether the passes of the backward that do without Hopper's instructions are compiled: where
/// these are there, for long rows alone.
template <int kHeadDim>
__device__ constexpr bool warps_go_backward() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  return kHeadDim > kMaxHopperBackwardHeadDim;
#else
  return true;
#endif
}

/// By a block of kThreads: asks for rows of an array, of which row_at(r) is the r-th; null: zeros.
template <class T, int kThreads, int kRows, int kHeadDim, class RowAt>
__device__ void ask_for_rows(SwizzledTile<kRows, kHeadDim>& tile, int pieces, const void* somewhere,
                             RowAt&& row_at) {
  constexpr int kPieces = kHeadDim / 8;
  const int piece = static_cast<int>(threadIdx.x) % kPieces;
#pragma unroll
  for (int i = 0; i < kRows; i += kThreads / kPieces) {
    const int r = i + static_cast<int>(threadIdx.x) / kPieces;
    const T* const row = piece < pieces ? row_at(r) : nullptr;
    ptx::copy_async_16(tile.at(r, piece), row ? row + 8 * piece : somewhere, row != nullptr);
  }
}

/// Keys of a KV head that some query of the call may look at, in rows of the arrays: others may be
/// NaN.
__device__ inline DeviceSpan held_keys(const Rows& rows, int kv_head) {
  const int batch = kv_head / rows.kv_heads;
  const std::int64_t past = min(rows.past_keys(batch), rows.past_seen());
  return {static_cast<std::int32_t>(max(rows.padding(batch) - rows.key_offset, std::int64_t{0})),
          static_cast<std::int32_t>(max(past, std::int64_t{0}))};
}

/// By a block of kThreads: asks for keys and values of a KV head from key `first` on, zeros where
/// they are not `held`.
template <class T, int kThreads, class Stage, class Args>
__device__ void ask_for_keys(Stage& to, const Args& args, int kv_head, DeviceSpan held, int first) {
  const auto ask = [&](auto& tile, const RowArray& array) {
    const HeadRows<T> rows = args.rows.template kv_rows<T>(array, kv_head);
    ask_for_rows<T, kThreads>(tile, args.rows.pieces(), rows.first, [&](int r) {
      const int key = first + r;
      return key >= held.begin && key < held.end ? rows[key] : nullptr;
    });
  };
  ask(to.key, args.key);
  ask(to.value, args.value);
  ptx::commit_copies();
}

/// Where this lane's row is of the four 8 x 8 matrices that hold 16 rows by 16 columns of a tile:
/// first those of the first 8 columns, or those of the first 8 rows.
template <class SomeTile>
__device__ const void* by_columns(SomeTile& tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile.at(row + lane % 16, column / 8 + lane / 16);
}
template <class SomeTile>
__device__ const void* by_rows(SomeTile& tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  return tile.at(row + lane / 16 * 8 + lane % 8, column / 8 + lane / 8 % 2);
}

/// Four values of an accumulator.
template <int kValues>
__device__ float (&four_of(float (&values)[kValues], int i))[4] {
  return reinterpret_cast<float(&)[4]>(values[4 * i]);
}

/// 16 rows of a tile as the left side of products: in registers, of long rows the first columns,
/// where the rest stays in shared memory.
template <int kHeadDim>
struct LeftRows {
  static constexpr int kSteps = kHeadDim / 16;
  static constexpr int kHeldColumns = kHeadDim <= 128 ? kHeadDim : 64;
  static constexpr int kHeld = kHeldColumns / 16;
  std::uint32_t held[kHeld][4];
  SwizzledTile<64, kHeadDim>* tile;  // where there is a rest, which must stay
  int first;

  /// Rows from `first_row` on.
  template <class SomeTile>
  __device__ void take(SomeTile& from, int first_row) {
#pragma unroll
    for (int step = 0; step < kHeld; ++step) {
      ptx::load_matrices(held[step], by_columns(from, first_row, 16 * step));
    }
    if constexpr (kHeld < kSteps) tile = &from;
    first = first_row;
  }
  /// Columns [16 step, 16 step + 16).
  __device__ void load(std::uint32_t (&rows)[4], int step) const {
    if (step >= kHeld) return ptx::load_matrices(rows, by_columns(*tile, first, 16 * step));
#pragma unroll
    for (int i = 0; i < 4; ++i) rows[i] = held[step < kHeld ? step : 0][i];
  }
};

/// products = rows others^T, for 2 kProducts rows of a tile from `first` on.
template <class T, int kProducts, int kHeadDim, class SomeTile>
__device__ void multiply_rows(float (&products)[kProducts], const LeftRows<kHeadDim>& rows,
                              SomeTile& others, int first = 0) {
#pragma unroll
  for (float& product : products) product = 0;
#pragma unroll
  for (int step = 0; step < rows.kSteps; ++step) {
    std::uint32_t row[4];
    rows.load(row, step);
#pragma unroll
    for (int i = 0; i < kProducts / 8; ++i) {
      std::uint32_t other[4];
      ptx::load_matrices(other, by_rows(others, first + 16 * i, 16 * step));
      ptx::mma<T>(four_of(products, 2 * i), row, other[0], other[1]);
      ptx::mma<T>(four_of(products, 2 * i + 1), row, other[2], other[3]);
    }
  }
}

/// sums += weights others, for 16 kSteps rows of a tile from `first` on and its columns from
/// `column` on.
template <class T, int kSums, int kSteps, class SomeTile>
__device__ void add_products(float (&sums)[kSums], const std::uint32_t (&weights)[kSteps][4],
                             SomeTile& others, int first = 0, int column = 0) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kSums / 8; ++i) {
      std::uint32_t other[4];
      ptx::load_matrices_transposed(other, by_columns(others, first + 16 * step, column + 16 * i));
      ptx::mma<T>(four_of(sums, 2 * i), weights[step], other[0], other[1]);
      ptx::mma<T>(four_of(sums, 2 * i + 1), weights[step], other[2], other[3]);
    }
  }
}

/// Launches a kernel with so many bytes of dynamic shared memory.
template <int kBytes, class... Parameters, class... Arguments>
void launch_warp_tiles(void (*kernel)(Parameters...), std::int64_t blocks, int threads,
                       Stream stream, const Arguments&... arguments) {
  static_assert(kBytes <= 99 * 1024, "more a block does not have from 8.6 on");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "cudaFuncSetAttribute");
  kernel<<<static_cast<unsigned>(blocks), threads, kBytes, stream>>>(arguments...);
  check_launch("warp tiles");
}

}  // namespace multistep::cuda
