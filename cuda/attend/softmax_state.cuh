#pragma once

#include "device/fault.cuh"
#include "device/fragment.cuh"
#include "device/softmax.cuh"
#include "group/tile_rows.cuh"

/// The running softmax of two rows of a tile, 8 apart, which a thread shares with its quad, over
/// tiles of keys: of a tile, keys 8 j + 2 c + {0, 1} are at [4 j + 2 r + {0, 1}] of its logits,
/// where c is the thread's number in the quad and r the row.
namespace multistep::cuda {

/// Takes the keys outside a row's span out of its logits. The tile's first key is `first_key`.
template <int kLogits>
__device__ void mask_logits(float (&logits)[kLogits], int first_key, const TileRow (&rows)[2]) {
#pragma unroll
  for (int j = 0; j < kLogits / 4; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const DeviceSpan keys = rows[e / 2].keys;
      const int key = first_key + 8 * j + 2 * static_cast<int>(threadIdx.x % 4) + e % 2;
      if (static_cast<unsigned>(key - keys.begin) >= static_cast<unsigned>(keys.end - keys.begin)) {
        logits[4 * j + e] = -kInfinity;
      }
    }
  }
}

/// The scale of logits in two parts: one above 0, with which the maximum of products is that of
/// logits, and what products are multiplied by before they are looked at.
struct TileScale {
  float above;
  float before;
  float log2;

  __device__ TileScale(float scale, int fault) {
    if (faulty(fault, Fault::scale_forgotten)) scale = 1;
    above = scale > 0 ? scale : 1;
    before = scale > 0 ? 1 : scale;
    log2 = above * kLog2E;
  }
};

/// Products of a tile's rows with key tile j become logits: those outside a row's span are taken
/// out.
template <int kLogits>
__device__ void finish_logits(float (&logits)[kLogits], const TileScale& scale, const Tile& tile,
                              int j, const TileRow (&rows)[2], int fault) {
  constexpr int kKeys = 2 * kLogits;
  if (scale.before != 1) {
#pragma unroll
    for (float& logit : logits) logit *= scale.before;
  }
  const int first = j * kKeys;
  const bool inside = first >= tile.all.begin && tile.all.end - first >= kKeys;
  if (!inside && !faulty(fault, Fault::mask_missing)) mask_logits(logits, first, rows);
}

/// Weights as the left side of a product.
template <class T, int kSteps>
__device__ void pack_weights(std::uint32_t (&weights)[kSteps][4],
                             const float (&values)[8 * kSteps]) {
#pragma unroll
  for (int i = 0; i < 4 * kSteps; ++i) {
    weights[i / 4][i % 4] = pack<T>(values[2 * i], values[2 * i + 1]);
  }
}

/// The softmax of FlashAttention: the maximum of the logits so far, and relative to it the sum of
/// the weights and the sum of the values by their weights.
template <int kHeadDim>
struct SoftmaxState {
  float value[kHeadDim / 2] = {};           // 8 j + 2 c + {0, 1} of head_dim
  float max[2] = {-kInfinity, -kInfinity};  // of the products, not scaled
  float sum[2] = {0, 0};                    // this thread's share
  float shrink[2];  // by what values added before the last update() are still to be multiplied

  /// Turns a tile's logits, not scaled, into weights, and adds these.
  template <int kLogits>
  __device__ void update(float (&logits)[kLogits], float scale_log2, int fault) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float larger = max[r];
#pragma unroll
      for (int j = 0; j < kLogits / 4; ++j) {
        larger = fmaxf(larger, fmaxf(logits[4 * j + 2 * r], logits[4 * j + 2 * r + 1]));
      }
      larger = quad_max(larger);
      const float base = larger == -kInfinity ? 0 : larger * scale_log2;
      shrink[r] = max[r] == larger ? 1 : ptx::exp2(max[r] * scale_log2 - base);
      if (faulty(fault, Fault::rescale_forgotten)) shrink[r] = 1;
      max[r] = larger;
      float added = 0;
#pragma unroll
      for (int j = 0; j < kLogits / 4; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& logit = logits[4 * j + 2 * r + e];
          logit = ptx::exp2(fmaf(logit, scale_log2, -base));
          added += logit;
        }
      }
      sum[r] = sum[r] * shrink[r] + added;
    }
  }

  __device__ void rescale() {
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) value[i] *= shrink[i / 2 % 2];
  }

  /// Values become outputs; tells the rows' log-sum-exps. Rows without a key: 0, -inf.
  __device__ void finish(float (&lse)[2], float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float all = quad_sum(sum[r]);
      const float inverse = all == 0 ? 0 : 1 / all;
      lse[r] = all == 0 ? -kInfinity : scale * max[r] + __logf(all);
#pragma unroll
      for (int i = 0; i < kHeadDim / 4; ++i) value[4 * (i / 2) + 2 * r + i % 2] *= inverse;
    }
  }
};

/// What the rows' earlier parts of kPartKeys came to. Rarely is there more than one part: this lies
/// in local memory, out of the registers' way.
template <int kHeadDim>
struct EarlierParts {
  volatile float value[kHeadDim / 2];
  volatile float max[2];
  volatile float sum[2];

  __device__ void keep(const SoftmaxState<kHeadDim>& part) {
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) value[i] = part.value[i];
#pragma unroll
    for (int r = 0; r < 2; ++r) max[r] = part.max[r], sum[r] = part.sum[r];
  }
  __device__ void join_to(SoftmaxState<kHeadDim>& part, float scale_log2) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float products[2] = {max[r], part.max[r]};
      part.max[r] = fmaxf(products[0], products[1]);
      Softmax<Base2> both{part.max[r] * scale_log2};
      const float before = both.join({products[0] * scale_log2, sum[r]});
      const float now = both.join({products[1] * scale_log2, part.sum[r]});
      part.sum[r] = both.sum;
#pragma unroll
      for (int i = 0; i < kHeadDim / 4; ++i) {
        const int at = 4 * (i / 2) + 2 * r + i % 2;
        part.value[at] = fmaf(now, part.value[at], before * value[at]);
      }
    }
  }
};

}  // namespace multistep::cuda
