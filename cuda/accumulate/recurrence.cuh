#pragma once

#include "accumulate/product.cuh"
#include "device/fragment.cuh"

/// A recurrence that a block walks tile by tile, with a slab of its state.
namespace multistep::cuda {

inline constexpr int kBackThreads = 256;

/// A slab of 64 x 64 entries of H or K.
using Slab = float[kWidth * kStride];
__device__ inline int entry(int d, int k) { return kStride * d + 8 * (d / 4 % 2) + k; }

/// H with x and b, or K with dr and c.
template <class T>
struct alignas(16) Recurrence {
  Rows<T> left;
  Rows<T> right;
  Slab state;
};

/// What a block shares that walks one.
template <class T>
struct alignas(16) Walk {
  Recurrence<T> of;
  Decays decay;
};

/// Loads `count` rows of `width` columns, 0 elsewhere. Until wait_for_rows() they are on their way.
template <class T>
__device__ void load_rows(Rows<T>& to, const T* from, Index stride, int count, int width) {
  if (stride % 8 == 0) {
    static_assert(kBackThreads == kTile * kWidth / 8, "16 bytes for each thread");
    const int t = threadIdx.x / 8;
    const int column = threadIdx.x % 8 * 8;
    const bool there = t < count && column < width;
    ptx::copy_async_16(&to[t][column], there ? from + t * stride + column : from, there);
    return;
  }
  for (int i = threadIdx.x; i < kTile * kWidth; i += kBackThreads) {
    const int t = i / kWidth;
    const int column = i % kWidth;
    to[t][column] = t < count && column < width ? from[t * stride + column] : from_float<T>(0);
  }
}
__device__ inline void wait_for_rows() {
  ptx::commit_copies();
  ptx::wait_for_copies<0>();
  __syncthreads();
}

/// `rows` x `columns` entries of a state in memory, 0 elsewhere; a null pointer is 0.
__device__ inline void load_slab(Slab& to, const float* from, Index S, int rows, int columns) {
#pragma unroll 4
  for (int i = threadIdx.x; i < kWidth * kWidth; i += kBackThreads) {
    const int d = i / kWidth;
    const int k = i % kWidth;
    to[entry(d, k)] = from && d < rows && k < columns ? from[d * S + k] : 0;
  }
}
__device__ inline void store_slab(float* to, const Slab& from, Index S, int rows, int columns) {
  for (int i = threadIdx.x; i < kWidth * kWidth; i += kBackThreads) {
    const int d = i / kWidth;
    const int k = i % kWidth;
    if (d < rows && k < columns) to[d * S + k] = from[entry(d, k)];
  }
}
__device__ inline void copy_slab(Slab& to, const Slab& from) {
  for (int i = 4 * threadIdx.x; i < kWidth * kStride; i += 4 * kBackThreads) {
    *reinterpret_cast<float4*>(&to[i]) = *reinterpret_cast<const float4*>(&from[i]);
  }
}

/// The state becomes decay times itself + sum over t of weight(t) left_t right_t^T. A warp has 16 x
/// 32 entries.
template <class T, class Weight>
__device__ void advance(Recurrence<T>& of, float decay, Weight weight) {
  const int g = threadIdx.x % 32 / 4;
  const int c = threadIdx.x % 4;
  const int d = threadIdx.x / 64 * 16;
  const int k = threadIdx.x / 32 % 2 * 32;
  static_assert(kBackThreads == 256, "four warps down, two across");
  float sum[4][4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Piece old = two(&of.state[entry(d + g + 8 * r, k + 8 * n + 2 * c)]);
      sum[n][2 * r] = decay * old.x;
      sum[n][2 * r + 1] = decay * old.y;
    }
  }
  for (int t0 = 0; t0 < kTile; t0 += 16) {
    std::uint32_t left[4];
    take_square_columns(left, of.left, t0, d);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = t0 + 8 * half;
      const Piece scale = {weight(t + 2 * c), weight(t + 2 * c + 1)};
      const Piece upper = unpack<T>(left[2 * half]);
      const Piece lower = unpack<T>(left[2 * half + 1]);
      const Split above({scale.x * upper.x, scale.y * upper.y});
      const Split below({scale.x * lower.x, scale.y * lower.y});
      std::uint32_t right[4];
      take_columns(right, of.right, t, k);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        add_product(sum[n], above.rest, below.rest, unpack<T>(right[n]));
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        add_product(sum[n], above.most, below.most, unpack<T>(right[n]));
      }
    }
  }
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      two(&of.state[entry(d + g + 8 * r, k + 8 * n + 2 * c)]) = {sum[n][2 * r], sum[n][2 * r + 1]};
    }
  }
}
template <class T>
__device__ void advance_forward(Recurrence<T>& of, const Decays& decay) {
  advance(of, decay[kTile - 1][kTile], [&](int s) { return decay[kTile - 1][s]; });
}
template <class T>
__device__ void advance_back(Recurrence<T>& of, const Decays& decay) {
  advance(of, decay[kTile - 1][kTile], [&](int t) { return decay[t][kTile]; });
}

__device__ inline float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

}  // namespace multistep::cuda
