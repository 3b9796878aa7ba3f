#pragma once

#include "device/ptx_sm90.cuh"

namespace multistep::cuda {

/// A head of a sequence.
struct HeadOf {
  int head;
  int batch;
};

/// 16-bit values in shared memory as Hopper's copy engine writes and its warpgroup products read
/// them: panels of 64 columns, in which a row is 128 bytes and its 16-byte pieces are swizzled by
/// the row. So pieces of eight rows lie in different banks, too.
template <int kRows, int kColumns>
struct alignas(1024) SwizzledTile {  // the pattern repeats every 1024 bytes of addresses
  static constexpr int kPanels = kColumns / 64;
  static constexpr int kBytes = kRows * kColumns * 2;
  std::uint16_t panel[kPanels][kRows * 64];

  /// Where 8 columns of a row are, from column 8 piece on.
  __device__ std::uint16_t* at(int row, int piece) {
    return panel[piece / 8] + row * 64 + ((piece % 8) ^ (row % 8)) * 8;
  }
  /// By one warp: rows [begin, end) of values that the copy engine has brought.
  __device__ void clear_rows(int begin, int end) {
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      auto* rows = reinterpret_cast<uint4*>(panel[p]);
#pragma unroll 1
      for (int i = begin * 8 + threadIdx.x % 32; i < end * 8; i += 32) rows[i] = {0, 0, 0, 0};
    }
  }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  /// By one thread: asks for rows [row, row + kRows) of a head, which arrive at `barrier`.
  __device__ void load(const CUtensorMap* map, ptx::Barrier& barrier, int row, HeadOf head) {
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      ptx::load_box(panel[p], map, &barrier, p * 64, row, head.head, head.batch);
    }
  }
  /// For a product that sums over columns, 16 of them.
  __device__ std::uint64_t columns_from(int column) const {
    return ptx::tile_descriptor(panel[column / 64] + column % 64, 0);
  }
  /// For a product that sums over rows, 16 of them, of the panels from `first` on.
  __device__ std::uint64_t rows_from(int row, int first = 0) const {
    return ptx::tile_descriptor(panel[first] + row * 64, kRows * 128);
  }
#endif
};

}  // namespace multistep::cuda
