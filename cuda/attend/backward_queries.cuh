#pragma once

#include "attend/backward_row.cuh"
#include "attend/softmax_state.cuh"
#include "group/laid_items.cuh"

/// Backward, pass 2: the derivative by the queries, by the forward's tiles of rows. Of a row's
/// weights P against a tile of keys: dS = P (share dO V^T - mean), dQ += dS K. Here is what a
/// thread does with its two rows of a tile, 8 apart, whichever instructions multiply; of products
/// with keys, values and dQ it holds what softmax_state.cuh says.
namespace multistep::cuda {

using LaidRows = BackwardRows<LaidItems>;

template <class T, int kHeadDim>
struct QueryGradients {
  const LaidRows& args;
  float sum[kHeadDim / 2];

  __device__ explicit QueryGradients(const LaidRows& rows) : args(rows) {}

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) sum[i] = 0;
  }

  /// `logits` of keys from `first` on become weights.
  template <bool kMasked, int kLogits>
  __device__ void weigh(float (&logits)[kLogits], int first, const ItemRow (&rows)[2]) const {
    const float scale_log2 = args.scale * kLog2E;
#pragma unroll
    for (int i = 0; i < kLogits; ++i) {
      const ItemRow& row = rows[i / 2 % 2];
      logits[i] = ptx::exp2(fmaf(logits[i], scale_log2, -row.weight.lse_log2));
      if (kMasked && !looks(row, first, i)) logits[i] = 0;
    }
  }
  /// Weights become dS.
  template <bool kMasked, int kLogits>
  __device__ void differentiate(float (&weights)[kLogits], const float (&by_weights)[kLogits],
                                int first, const ItemRow (&rows)[2]) const {
#pragma unroll
    for (int i = 0; i < kLogits; ++i) {
      const ItemRow& row = rows[i / 2 % 2];
      weights[i] *= fmaf(row.weight.share, by_weights[i], -row.weight.mean);
      if (kMasked && !looks(row, first, i)) weights[i] = 0;
    }
  }
  static __device__ bool looks(const ItemRow& row, int first, int i) {
    const int key = first + 8 * (i / 4) + 2 * static_cast<int>(threadIdx.x % 4) + i % 2;
    return static_cast<unsigned>(key - row.keys.begin) <
           static_cast<unsigned>(row.keys.end - row.keys.begin);
  }

  /// Stores the sums of both rows.
  __device__ void finish(const ItemRow (&rows)[2], int kv_head) {
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) sum[i] *= args.scale;
    unsigned todo[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const bool here = rows[r].query != kNoRow;
      const bool bad = spoiled<kHeadDim>(sum, r) && !faulty(args.rows.fault, Fault::repair_skipped);
      todo[r] = __ballot_sync(kFullWarp, here && bad) & 0x11111111u;
      store(rows[r], r, here && !bad);
    }
    repair(rows, kv_head, todo);
  }

 private:
  /// The derivative of a row that is `here`: with those of its other items, or as a part.
  __device__ void store(const ItemRow& row, int r, bool here) {
    const int c = threadIdx.x % 4;
    const int d = args.rows.head_dim;
    const auto item = static_cast<std::int64_t>(row.item);
    if (args.spans) {
      float* const part = args.gradients.query_parts + item * d;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const float2 pair{sum[4 * j + 2 * r], sum[4 * j + 2 * r + 1]};
        if (here && 8 * j < d) reinterpret_cast<float2*>(part)[4 * j + c] = pair;
      }
    } else {
      const int slots = args.gradients.part_slots;
      const float* part = args.gradients.query_parts + item * slots * d;
      for (int s = 0; s < slots && here; ++s, part += d) {
#pragma unroll
        for (int j = 0; j < kHeadDim / 8; ++j) {
          if (8 * j >= d) continue;
          const float2 pair = __ldcs(reinterpret_cast<const float2*>(part) + 4 * j + c);
          sum[4 * j + 2 * r] += pair.x;
          sum[4 * j + 2 * r + 1] += pair.y;
        }
      }
      T* const gradient =
          static_cast<T*>(args.gradients.query_gradient) + static_cast<std::int64_t>(row.query) * d;
      store_fragment<T, kHeadDim>(sum, r, here ? gradient : nullptr, args.rows.pieces());
    }
  }

  /// Rows that a tile-mate's key has spoiled, alone: by the whole warp.
  __device__ void repair(const ItemRow (&rows)[2], std::int64_t kv_head,
                         unsigned (&todo)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      while (todo[r]) {
        const int source = __ffs(static_cast<int>(todo[r])) - 1;
        todo[r] &= todo[r] - 1;
        const TileRow row{__shfl_sync(kFullWarp, rows[r].query, source),
                          __shfl_sync(kFullWarp, rows[r].item, source),
                          {__shfl_sync(kFullWarp, rows[r].keys.begin, source),
                           __shfl_sync(kFullWarp, rows[r].keys.end, source)}};
        LaneValues fresh;
        query_gradient<T>(args, row, kv_head, fresh);
        store_query_gradient<T>(args, row, fresh);
      }
    }
  }
};

/// With Hopper's instructions, to kMaxHopperBackwardHeadDim, and without.
void query_gradients_sm90(const LaidRows& args, Stream stream);
void query_gradients_sm80(const LaidRows& args, Stream stream);

}  // namespace multistep::cuda
