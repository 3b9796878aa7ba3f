#pragma once

#include "api/stages.cuh"
#include "device/schedule.cuh"
#include "device/softmax.cuh"
#include "device/storage.cuh"

/// Softmax attention of one query row by one warp, key after key: the plain form of the stage, and
/// what the fast kernels turn to for rows that a tile-mate's NaN or infinity has spoiled.
namespace multistep::cuda {

inline constexpr int kLaneValues = kMaxHeadDim / 32;

/// A query row's partial output: lane l holds values l, l + 32, ... of head_dim.
struct RowOutput {
  float value[kLaneValues];
  float lse;
};

__device__ inline float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kFullWarp, value, offset);
  }
  return value;
}

/// `key` and `value` are rows of the KV head; the span is in them.
template <class T, bool kPaged>
__device__ RowOutput attend_row(const T* query, const HeadRows<T, kPaged>& key,
                                const HeadRows<T, kPaged>& value, DeviceSpan span, int head_dim,
                                float scale) {
  const int lane = threadIdx.x % 32;
  float q[kLaneValues];
  RowOutput row;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = lane + 32 * i;
    q[i] = d < head_dim ? to_float(query[d]) : 0;
    row.value[i] = 0;
  }
  Softmax<BaseE> sums;
  float part_value[kLaneValues] = {};
  Softmax<BaseE> part;
  for (std::int64_t j = span.begin; j < span.end; ++j) {
    float logit = 0;
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      const int d = lane + 32 * i;
      if (d < head_dim) logit = fmaf(q[i], to_float(key[j][d]), logit);
    }
    logit = scale * warp_sum(logit);
    if (logit > part.max) {
      const float shrink = part.raise(logit);
#pragma unroll
      for (int i = 0; i < kLaneValues; ++i) part_value[i] *= shrink;
    }
    if (logit != -kInfinity || part.max != -kInfinity) {
      const float p = part.add(logit);
#pragma unroll
      for (int i = 0; i < kLaneValues; ++i) {
        const int d = lane + 32 * i;
        if (d < head_dim) part_value[i] = fmaf(p, to_float(value[j][d]), part_value[i]);
      }
    }
    if ((j + 1) % kPartKeys != 0 && j + 1 < span.end) continue;
    const float shrink = sums.raise(fmaxf(sums.max, part.max));
    const float p = sums.join(part);
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      row.value[i] = fmaf(p, part_value[i], shrink * row.value[i]);
      part_value[i] = 0;
    }
    part = {};
  }
  const bool any = !(sums.sum == 0);
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) row.value[i] = any ? row.value[i] / sums.sum : 0;
  row.lse = sums.log_sum_exp();
  return row;
}

template <class T>
__device__ void store_row(const RowOutput& row, T* output, int head_dim) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = lane + 32 * i;
    if (d < head_dim) output[d] = from_float<T>(row.value[i]);
  }
}

/// How many leading slots of a query have a span: those in use.
__device__ inline int slots_in_use(const DeviceSpan* spans, int slots) {
  int used = 0;
  while (used < slots && spans[used].end > spans[used].begin) ++used;
  return used;
}

/// The gates of a query: softmax over the scores of its slots in use.
struct Gates {
  Softmax<BaseE> scores;
  __device__ float of(float score) const { return scores.weight(score) / scores.sum; }
};
__device__ inline Gates gates_of(const float* scores, int used) {
  Gates gates;
  for (int s = 0; s < used; ++s) gates.scores.max = fmaxf(gates.scores.max, scores[s]);
  for (int s = 0; s < used; ++s) gates.scores.add(scores[s]);
  return gates;
}

}  // namespace multistep::cuda
