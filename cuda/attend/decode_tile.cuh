#pragma once

#include "api/stages.cuh"
#include "attend/attend_row.cuh"
#include "device/ptx.cuh"

/// How a block of decode.cu streams keys and values through its warps, on tensor cores, and what it
/// leaves: a partial softmax for each of a few query rows.
namespace multistep::cuda {

/// A block of decode.cu.
struct DecodeBlock {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kHeads = 16;     // of one KV head, at most
  static constexpr int kSpans = 64;     // of its heads, at most
  static constexpr int kTasks = 8;      // at a time: columns of the second matrix product
  static constexpr int kRows = kWarps;  // whose spans share a block: a warp each joins them
  static constexpr int kKeys = 16;      // of a warp's tile
  static constexpr int kStages = 1;     // tiles on their way, a warp: other warps fill the gaps
  static constexpr int kStep = kWarps * kKeys;
};

/// Floats of a partial result: head_dim values, maximum, sum, and alignment.
constexpr int partial_stride(int columns) { return columns + 4; }
template <int kHeadDim>
inline constexpr int kPartialStride = partial_stride(kHeadDim);

/// Tiles of keys and values on their way. The 16-byte pieces of a row are swizzled by the row, so
/// that eight rows' pieces lie in different banks.
template <int kHeadDim>
struct TileBuffers {
  static constexpr int kPieces = kHeadDim / 8;
  struct Tile {
    uint4 key[DecodeBlock::kKeys][kPieces];
    uint4 value[DecodeBlock::kKeys][kPieces];
  };
  Tile tile[DecodeBlock::kWarps][DecodeBlock::kStages];

  static __device__ int place(int row, int piece) { return piece ^ (row % 8); }
};

/// What is to be done with a piece of keys: a head attends to those that its window has, or one of
/// its spans.
struct PieceTask {
  std::int32_t head;  // of the block's heads; -1: none
  std::int32_t part;  // which of the row's partial softmaxes this becomes
  DeviceSpan keys;    // its own, counted from the piece's first key
};

/// The running softmax of a few tasks over a warp's keys. Lane (g, c) = (lane / 4, lane % 4) has
/// maximum and sum of task g, and the outputs transposed: of tasks 2 c and 2 c + 1, value 16 j + g
/// of head_dim at [j][0] and [j][1], 16 j + g + 8 at [j][2] and [j][3]. Logits, and so maxima, are
/// to base 2.
template <int kHeadDim>
struct WarpSums {
  float output[kHeadDim / 16][4] = {};
  float max = -kInfinity;
  float sum = 0;  // this lane's share
};

/// The queries of the tasks' heads, counted from the head of `row`, as the left side of a matrix
/// product; rows 8 to 15 of it are zero. `head`: of task lane / 4.
template <class T, int kHeadDim>
__device__ void load_queries(std::uint32_t (&query)[kHeadDim / 16][2], const SpanAttend& attend,
                             const Rows::Row& row, int head) {
  const int lane = threadIdx.x % 32;
  const HeadRows<T> queries = attend.query.of_head<T>(row.batch, row.head + max(head, 0));
  const auto* from = reinterpret_cast<const std::uint32_t*>(queries[row.query]);
  const int pieces = head >= 0 ? attend.rows.pieces() : 0;  // of 8 values, a quad's
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    query[step][0] = 2 * step < pieces ? __ldg(from + 8 * step + lane % 4) : 0;
    query[step][1] = 2 * step + 1 < pieces ? __ldg(from + 8 * step + 4 + lane % 4) : 0;
  }
}

/// Attends to one tile of keys, of which task lane / 4 has those of `own`.
template <class T, int kHeadDim>
__device__ void attend_tile(WarpSums<kHeadDim>& sums,
                            const typename TileBuffers<kHeadDim>::Tile& tile,
                            const std::uint32_t (&query)[kHeadDim / 16][2], DeviceSpan own,
                            float scale_log2, int fault) {
  using Buffers = TileBuffers<kHeadDim>;
  const int lane = threadIdx.x % 32;
  float logits[2][4] = {};  // of task g, keys 8 i + 2 c + {0, 1} at [i][0] and [i][1]
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    const int row = lane / 16 * 8 + lane % 8;
    std::uint32_t key[4];
    ptx::load_matrices(key, &tile.key[row][Buffers::place(row, 2 * step + lane / 8 % 2)]);
    ptx::mma<T>(logits[0], {query[step][0], 0, query[step][1], 0}, key[0], key[1]);
    ptx::mma<T>(logits[1], {query[step][0], 0, query[step][1], 0}, key[2], key[3]);
  }
  float max = sums.max;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int key = 8 * i + 2 * (lane % 4) + e;
      const bool here = key >= own.begin && key < own.end;
      logits[i][e] *= scale_log2;
      if (!here && !faulty(fault, Fault::mask_missing)) logits[i][e] = -kInfinity;
      max = fmaxf(max, logits[i][e]);
    }
  }
  max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 1));
  max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, 2));
  const Softmax<Base2> now{max};
  float shrink = now.weight(sums.max);
  if (faulty(fault, Fault::rescale_forgotten)) shrink = 1;
  sums.max = max;
  sums.sum *= shrink;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      logits[i][e] = now.weight_of_part(logits[i][e]);
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
    ptx::load_matrices_transposed(value,
                                  &tile.value[row][Buffers::place(row, 2 * j + lane / 8 % 2)]);
    ptx::mma<T>(sums.output[j], value, low, high);
  }
}

/// Streams a piece's keys and values of one KV head through a block: this warp's share. `origin`:
/// the piece's first key. `task`: task lane / 4; `range`: what the
/// tasks attend to together, which alone is read. Tiles stand at multiples of 16 keys from the
/// origin and belong to warps by their number, whatever the range is.
template <class T, int kHeadDim, bool kPaged>
__device__ void stream_keys(WarpSums<kHeadDim>& sums, const SpanAttend& attend,
                            const Rows::Row& row, std::int64_t origin, DeviceSpan range,
                            const PieceTask& task, TileBuffers<kHeadDim>& buffers) {
  using Buffers = TileBuffers<kHeadDim>;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto keys = attend.rows.kv_rows<T, kPaged>(attend.key, row);
  const auto values = attend.rows.kv_rows<T, kPaged>(attend.value, row);
  const int own_piece = lane % Buffers::kPieces;
  const bool has = own_piece < attend.rows.pieces();
  const T* key = keys.first + (has ? 8 * own_piece : 0);
  const T* value = values.first + (has ? 8 * own_piece : 0);
  if constexpr (!kPaged) {
    key += origin * keys.step;
    value += origin * values.step;
  }
  // The page of a tile's key lane % 16, asked for a tile ahead.
  const auto page_in = [&](int first) {
    if constexpr (kPaged) {
      const int r = first + lane % DecodeBlock::kKeys;
      if (r >= range.begin && r < range.end) return keys.page_of(origin + r);
    }
    return 0;
  };
  std::int32_t page = 0;
  const auto ask = [&](int first, int stage) {
    typename Buffers::Tile& tile = buffers.tile[warp][stage];
    if (first < range.end) {
#pragma unroll
      for (int i = 0; i < DecodeBlock::kKeys * Buffers::kPieces / 32; ++i) {
        const int r = (lane + 32 * i) / Buffers::kPieces;
        // What nobody attends to reads as zeros, as what is past head_dim.
        const bool here = has && first + r >= range.begin && first + r < range.end;
        const std::int64_t at = here ? first + r : 0;
        const int place = Buffers::place(r, own_piece);
        std::int64_t key_at = at * keys.step;
        std::int64_t value_at = at * values.step;
        if constexpr (kPaged) {
          const std::int32_t of_row = __shfl_sync(kFullWarp, page, r);
          key_at = keys.offset(of_row, origin + at);
          value_at = values.offset(of_row, origin + at);
        }
        ptx::copy_async_16(&tile.key[r][place], key + key_at, here);
        ptx::copy_async_16(&tile.value[r][place], value + value_at, here);
      }
      page = page_in(first + DecodeBlock::kStep);
    }
    ptx::commit_copies();
  };
  const int first_tile = range.begin / DecodeBlock::kKeys;
  int first = (first_tile + ((warp - first_tile) & (DecodeBlock::kWarps - 1))) * DecodeBlock::kKeys;
  if (faulty(attend.rows.fault, Fault::tiles_from_range)) {
    first = (first_tile + warp) * DecodeBlock::kKeys;
  }
  page = page_in(first);
#pragma unroll
  for (int stage = 0; stage < DecodeBlock::kStages; ++stage) {
    ask(first + stage * DecodeBlock::kStep, stage);
  }

  std::uint32_t query[kHeadDim / 16][2];
  load_queries<T, kHeadDim>(query, attend, row, task.head);
  const float scale = faulty(attend.rows.fault, Fault::scale_forgotten) ? 1 : attend.scale;
  for (int stage = 0; first < range.end; first += DecodeBlock::kStep) {
    ptx::wait_for_copies<DecodeBlock::kStages - 1>();
    __syncwarp();
    attend_tile<T, kHeadDim>(sums, buffers.tile[warp][stage], query,
                             {task.keys.begin - first, task.keys.end - first}, scale * kLog2E,
                             attend.rows.fault);
    __syncwarp();
    ask(first + DecodeBlock::kStages * DecodeBlock::kStep, stage);
    stage = stage + 1 == DecodeBlock::kStages ? 0 : stage + 1;
  }
  ptx::wait_for_copies<0>();
  sums.sum += __shfl_xor_sync(kFullWarp, sums.sum, 1);
  sums.sum += __shfl_xor_sync(kFullWarp, sums.sum, 2);
}

/// The warps' sums of a block, in the memory that the buffers no longer need.
template <int kHeadDim>
struct BlockSums {
  float output[DecodeBlock::kWarps][DecodeBlock::kTasks][kHeadDim];
  float max[DecodeBlock::kWarps][DecodeBlock::kTasks];
  float sum[DecodeBlock::kWarps][DecodeBlock::kTasks];

  __device__ void put(const WarpSums<kHeadDim>& sums, int tasks) {
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int task = lane % 4 * 2 + e;
      if (task >= tasks) continue;
#pragma unroll
      for (int j = 0; j < kHeadDim / 16; ++j) {
        output[warp][task][16 * j + lane / 4] = sums.output[j][e];
        output[warp][task][16 * j + lane / 4 + 8] = sums.output[j][e + 2];
      }
    }
    if (lane % 4 == 0 && lane / 4 < tasks) {
      max[warp][lane / 4] = sums.max;
      sum[warp][lane / 4] = sums.sum;
    }
  }

  /// Joins the warps, in order: head_dim values, maximum and sum of a task; `more`: to those that
  /// are there. One warp; returns whether this lane's values are finite.
  __device__ bool store(int task, bool more, float* to) const {
    constexpr int kAtOnce = 4 * 32;
    Softmax<Base2> before;
    if (more) before = {to[kHeadDim], to[kHeadDim + 1]};
    Softmax<Base2> all{before.max};
#pragma unroll
    for (int w = 0; w < DecodeBlock::kWarps; ++w) all.max = fmaxf(all.max, max[w][task]);
    const float of_before = more ? all.join(before) : 0;
    float share[DecodeBlock::kWarps];
#pragma unroll
    for (int w = 0; w < DecodeBlock::kWarps; ++w) share[w] = all.join({max[w][task], sum[w][task]});
    bool finite = true;
#pragma unroll
    for (int first = 0; first < kHeadDim; first += kAtOnce) {
      const int at = (first + static_cast<int>(threadIdx.x) % 32 * 4) % kHeadDim;
      float4 value{0, 0, 0, 0};
      if (more) {
        const float4 there = *reinterpret_cast<const float4*>(to + at);
        value = {of_before * there.x, of_before * there.y, of_before * there.z,
                 of_before * there.w};
      }
#pragma unroll
      for (int w = 0; w < DecodeBlock::kWarps; ++w) {
        const float4 of_warp = *reinterpret_cast<const float4*>(&output[w][task][at]);
        value = {fmaf(share[w], of_warp.x, value.x), fmaf(share[w], of_warp.y, value.y),
                 fmaf(share[w], of_warp.z, value.z), fmaf(share[w], of_warp.w, value.w)};
      }
      if (threadIdx.x % 32 * 4 < kHeadDim) *reinterpret_cast<float4*>(to + at) = value;
      finite = finite && isfinite(value.x) && isfinite(value.y) && isfinite(value.z) &&
               isfinite(value.w);
    }
    if (threadIdx.x % 32 == 0) *reinterpret_cast<float2*>(to + kHeadDim) = {all.max, all.sum};
    return finite;
  }
};

}  // namespace multistep::cuda
