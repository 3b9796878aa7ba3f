#pragma once

#include "attend_row.cuh"
#include "ptx.cuh"
#include "stages.cuh"

/// How a block of decode.cu streams keys and values through its warps, on tensor cores, and what it
/// leaves: a partial softmax for each of a few heads.
namespace multistep::cuda {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kHeads = 8;   // of a block: columns of the second matrix product
constexpr int kKeys = 16;   // of a warp's tile
constexpr int kStages = 1;  // tiles on their way, a warp: other warps fill the gaps

/// Floats of a partial result: head_dim values, maximum, sum, and alignment.
template <int kHeadDim>
constexpr int kStride = kHeadDim + 4;

/// A power of two, where equals weigh 1: never exp2(inf - inf). NaN stays NaN.
__device__ inline float weight2(float x, float max) { return x == max ? 1.0f : ptx::exp2(x - max); }

/// Tiles of keys and values on their way. The 16-byte pieces of a row are swizzled by the row, so
/// that eight rows' pieces lie in different banks.
template <int kHeadDim>
struct Ring {
  static constexpr int kPieces = kHeadDim / 8;
  struct Tile {
    uint4 key[kKeys][kPieces];
    uint4 value[kKeys][kPieces];
  };
  Tile tile[kWarps][kStages];

  static __device__ int place(int row, int piece) { return piece ^ (row % 8); }
};

/// Some heads' running softmax over a warp's keys. Lane (g, c) = (lane / 4, lane % 4) has maximum
/// and sum of head g, and the outputs transposed: of heads 2 c and 2 c + 1, value 16 j + g of
/// head_dim at [j][0] and [j][1], 16 j + g + 8 at [j][2] and [j][3]. Logits, and so maxima, are to
/// base 2.
template <int kHeadDim>
struct WarpSums {
  float output[kHeadDim / 16][4] = {};
  float max = -kInfinity;
  float sum = 0;  // this lane's share
};

/// The queries of `heads` heads from `row` on, as the left side of a matrix product; rows 8 to 15
/// of it are zero.
template <class T, int kHeadDim>
__device__ void load_queries(std::uint32_t (&query)[kHeadDim / 16][2], const SpanAttend& attend,
                             const Rows::Row& row, int heads) {
  const int lane = threadIdx.x % 32;
  const int head = lane / 4;
  const std::int64_t index = row.index + static_cast<std::int64_t>(head) * attend.rows.queries;
  const auto* from = reinterpret_cast<const std::uint32_t*>(static_cast<const T*>(attend.query) +
                                                            index * kHeadDim);
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    query[step][0] = head < heads ? __ldg(from + 8 * step + lane % 4) : 0;
    query[step][1] = head < heads ? __ldg(from + 8 * step + 4 + lane % 4) : 0;
  }
}

/// Attends to one tile of keys, of which the first `count` count.
template <class T, int kHeadDim>
__device__ void attend_tile(WarpSums<kHeadDim>& sums, const typename Ring<kHeadDim>::Tile& tile,
                            const std::uint32_t (&query)[kHeadDim / 16][2], int count,
                            float scale_log2, int fault) {
  using R = Ring<kHeadDim>;
  const int lane = threadIdx.x % 32;
  float logits[2][4] = {};  // of head g, keys 8 i + 2 c + {0, 1} at [i][0] and [i][1]
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    const int row = lane / 16 * 8 + lane % 8;
    std::uint32_t key[4];
    ptx::load_matrices(key, &tile.key[row][R::place(row, 2 * step + lane / 8 % 2)]);
    ptx::mma<T>(logits[0], {query[step][0], 0, query[step][1], 0}, key[0], key[1]);
    ptx::mma<T>(logits[1], {query[step][0], 0, query[step][1], 0}, key[2], key[3]);
  }
  float max = sums.max;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const bool here = 8 * i + 2 * (lane % 4) + e < count;
      logits[i][e] *= scale_log2;
      if (!here && !faulty(fault, Fault::mask_missing)) logits[i][e] = -kInfinity;
      max = fmaxf(max, logits[i][e]);
    }
  }
  max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 1));
  max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 2));
  float shrink = weight2(sums.max, max);
  if (faulty(fault, Fault::rescale_forgotten)) shrink = 1;
  sums.max = max;
  sums.sum *= shrink;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      logits[i][e] = logits[i][e] == -kInfinity ? 0 : weight2(logits[i][e], max);
      sums.sum += logits[i][e];
    }
  }
  if (__any_sync(kFullWarp, shrink != 1)) {
    const float even = __shfl_sync(kFullWarp, shrink, lane % 4 * 8);
    const float odd = __shfl_sync(kFullWarp, shrink, lane % 4 * 8 + 4);
#pragma unroll
    for (int j = 0; j < kHeadDim / 16; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums.output[j][e] *= e % 2 ? odd : even;
    }
  }
  const std::uint32_t low = pack<T>(logits[0][0], logits[0][1]);
  const std::uint32_t high = pack<T>(logits[1][0], logits[1][1]);
#pragma unroll
  for (int j = 0; j < kHeadDim / 16; ++j) {
    const int row = lane / 16 * 8 + lane % 8;
    std::uint32_t value[4];
    ptx::load_matrices_transposed(value, &tile.value[row][R::place(row, 2 * j + lane / 8 % 2)]);
    ptx::mma<T>(sums.output[j], value, low, high);
  }
}

/// Streams keys and values [begin, end) of one KV head through a block: this warp's share.
template <class T, int kHeadDim>
__device__ void stream_keys(WarpSums<kHeadDim>& sums, const SpanAttend& attend,
                            const Rows::Row& row, int heads, DeviceSpan keys,
                            Ring<kHeadDim>& ring) {
  using R = Ring<kHeadDim>;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const T* key = static_cast<const T*>(attend.key) + row.kv_row * kHeadDim;
  const T* value = static_cast<const T*>(attend.value) + row.kv_row * kHeadDim;
  const auto ask = [&](int first, int stage) {
    typename R::Tile& tile = ring.tile[warp][stage];
#pragma unroll
    for (int i = 0; i < kKeys * R::kPieces / 32; ++i) {
      const int r = (lane + 32 * i) / R::kPieces;
      const int piece = lane % R::kPieces;
      const bool here = first + r < keys.end;  // what is not reads as zeros
      const std::int64_t at =
          here ? static_cast<std::int64_t>(first + r) * kHeadDim + 8 * piece : 0;
      ptx::copy_async_16(&tile.key[r][R::place(r, piece)], key + at, here);
      ptx::copy_async_16(&tile.value[r][R::place(r, piece)], value + at, here);
    }
    ptx::commit_copies();
  };
  int first = keys.begin + warp * kKeys;
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) ask(first + stage * kWarps * kKeys, stage);

  std::uint32_t query[kHeadDim / 16][2];
  load_queries<T, kHeadDim>(query, attend, row, heads);
  const float scale = faulty(attend.rows.fault, Fault::scale_forgotten) ? 1 : attend.scale;
  for (int stage = 0; first < keys.end; first += kWarps * kKeys) {
    ptx::wait_for_copies<kStages - 1>();
    __syncwarp();
    attend_tile<T, kHeadDim>(sums, ring.tile[warp][stage], query, min(keys.end - first, kKeys),
                             scale * kLog2E, attend.rows.fault);
    __syncwarp();
    ask(first + kStages * kWarps * kKeys, stage);
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  ptx::wait_for_copies<0>();
  sums.sum += __shfl_xor_sync(kFullWarp, sums.sum, 1);
  sums.sum += __shfl_xor_sync(kFullWarp, sums.sum, 2);
}

/// The warps' sums of a block, in the memory that the ring no longer needs.
template <int kHeadDim>
struct BlockSums {
  float output[kWarps][kHeads][kHeadDim];
  float max[kWarps][kHeads];
  float sum[kWarps][kHeads];

  __device__ void put(const WarpSums<kHeadDim>& sums, int heads) {
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int head = lane % 4 * 2 + e;
      if (head >= heads) continue;
#pragma unroll
      for (int j = 0; j < kHeadDim / 16; ++j) {
        output[warp][head][16 * j + lane / 4] = sums.output[j][e];
        output[warp][head][16 * j + lane / 4 + 8] = sums.output[j][e + 2];
      }
    }
    if (lane % 4 == 0 && lane / 4 < heads) {
      max[warp][lane / 4] = sums.max;
      sum[warp][lane / 4] = sums.sum;
    }
  }

  /// Joins the warps, in order: head_dim values, maximum and sum of a head.
  __device__ void store(int head, float* to) const {
    float top = -kInfinity;
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, max[w][head]);
    float total = 0;
    float value = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float share = max[w][head] == -kInfinity ? 0 : weight2(max[w][head], top);
      total += share * sum[w][head];
      value += share * output[w][head][threadIdx.x % kHeadDim];
    }
    if (threadIdx.x < kHeadDim) to[threadIdx.x] = value;
    if (threadIdx.x == 0) {
      to[kHeadDim] = top;
      to[kHeadDim + 1] = total;
    }
  }
};

}  // namespace multistep::cuda
