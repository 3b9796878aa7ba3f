#pragma once

#include "device/ptx.cuh"
#include "device/schedule.cuh"
#include "device/storage.cuh"

/// Rows of an accumulator of matrix products: the four lanes of a quad, (g, c) = (lane / 4, lane %
/// 4) for c = 0 ... 3, hold values 8 j + 2 c + {0, 1} of row g at [4 j], [4 j + 1] (r = 0), and of
/// row g + 8 at [4 j + 2], [4 j + 3] (r = 1).
namespace multistep::cuda {

__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, 1));
  return fmaxf(x, __shfl_xor_sync(kFullWarp, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(kFullWarp, x, 1);
  return x + __shfl_xor_sync(kFullWarp, x, 2);
}

/// Swaps a 4 x 4 matrix over the quad: register j of lane c and register c of lane j.
__device__ inline void transpose_quad(std::uint32_t (&r)[4]) {
  const int c = threadIdx.x % 4;
  const bool odd = c & 1;
  std::uint32_t a = __shfl_xor_sync(kFullWarp, odd ? r[0] : r[1], 1);
  std::uint32_t b = __shfl_xor_sync(kFullWarp, odd ? r[2] : r[3], 1);
  (odd ? r[0] : r[1]) = a;
  (odd ? r[2] : r[3]) = b;
  const bool high = c & 2;
  a = __shfl_xor_sync(kFullWarp, high ? r[0] : r[2], 2);
  b = __shfl_xor_sync(kFullWarp, high ? r[1] : r[3], 2);
  (high ? r[0] : r[2]) = a;
  (high ? r[1] : r[3]) = b;
}

/// Stores a row whose lanes (g, c) hold 8 j + 2 c + {0, 1}, its first `pieces` of 16 bytes.
template <class T, int kHeadDim>
__device__ void store_fragment(const float (&value)[kHeadDim / 2], int r, T* output,
                               int pieces = kHeadDim / 8) {
  const int c = threadIdx.x % 4;
#pragma unroll
  for (int block = 0; block < kHeadDim / 32; ++block) {
    std::uint32_t bits[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = 16 * block + 4 * j + 2 * r;
      bits[j] = pack<T>(value[at], value[at + 1]);
    }
    transpose_quad(bits);
    if (output && 4 * block + c < pieces)
      reinterpret_cast<uint4*>(output)[4 * block + c] = {bits[0], bits[1], bits[2], bits[3]};
  }
}

/// What a lane reads of a row of 16-bit values in memory, to add it to such a row.
template <int kHeadDim>
struct RowPieces {
  uint4 piece[kHeadDim / 32] = {};

  /// Asks for those of 16 bytes that a row has; others, and a null pointer, read as zeros.
  template <class T>
  __device__ void load(const T* row, int pieces) {
    if (!row) return;
#pragma unroll
    for (int block = 0; block < kHeadDim / 32; ++block) {
      const int at = 4 * block + static_cast<int>(threadIdx.x % 4);
      if (at < pieces) piece[block] = ptx::load_now(reinterpret_cast<const uint4*>(row) + at);
    }
  }
};

/// value = value * keep + row * add, for a row that was read.
template <class T, int kHeadDim>
__device__ void add_fragment(float (&value)[kHeadDim / 2], int r, const RowPieces<kHeadDim>& row,
                             float keep, float add) {
#pragma unroll
  for (int block = 0; block < kHeadDim / 32; ++block) {
    const uint4 chunk = row.piece[block];
    std::uint32_t bits[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
    transpose_quad(bits);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = 16 * block + 4 * j + 2 * r;
      const float2 pair = unpack<T>(bits[j]);
      value[at] = fmaf(value[at], keep, add * pair.x);
      value[at + 1] = fmaf(value[at + 1], keep, add * pair.y);
    }
  }
}

/// The product of a row with one that was read, in all lanes of its quad.
template <class T, int kHeadDim>
__device__ float dot_fragment(const float (&value)[kHeadDim / 2], int r,
                              const RowPieces<kHeadDim>& row) {
  float sum = 0;
#pragma unroll
  for (int block = 0; block < kHeadDim / 32; ++block) {
    const uint4 chunk = row.piece[block];
    std::uint32_t bits[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
    transpose_quad(bits);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = 16 * block + 4 * j + 2 * r;
      const float2 pair = unpack<T>(bits[j]);
      sum = fmaf(value[at], pair.x, fmaf(value[at + 1], pair.y, sum));
    }
  }
  return quad_sum(sum);
}

/// Whether a row's quad holds a NaN or an infinity of it: perhaps a tile-mate's, as 0 * NaN = NaN.
template <int kHeadDim>
__device__ bool spoiled(const float (&value)[kHeadDim / 2], int r) {
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kHeadDim / 4; ++i) {
    finite = finite && isfinite(value[4 * (i / 2) + 2 * r + i % 2]);
  }
  const unsigned quad = 0xfu << (threadIdx.x % 32 / 4 * 4);
  return (__ballot_sync(kFullWarp, !finite) & quad) != 0;
}

}  // namespace multistep::cuda
