#pragma once

#include "schedule.cuh"
#include "storage.cuh"

/// Softmax attention of one query row by one warp, key after key: the plain form of the stage, and
/// what the fast kernels turn to for rows that a tile-mate's NaN or infinity has spoiled.
namespace multistep::cuda {

inline constexpr int kMaxHeadDim = 256;
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

/// `key` and `value` point at row 0 of the KV head; the span is in rows of them.
template <class T>
__device__ RowOutput attend_row(const T* query, const T* key, const T* value, DeviceSpan span,
                                int head_dim, float scale) {
  const int lane = threadIdx.x % 32;
  float q[kLaneValues];
  RowOutput row;
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) {
    const int d = lane + 32 * i;
    q[i] = d < head_dim ? to_float(query[d]) : 0;
    row.value[i] = 0;
  }
  float max = -kInfinity;
  float sum = 0;
  for (std::int64_t j = span.begin; j < span.end; ++j) {
    float logit = 0;
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      const int d = lane + 32 * i;
      if (d < head_dim) logit = fmaf(q[i], to_float(key[j * head_dim + d]), logit);
    }
    logit = scale * warp_sum(logit);
    if (logit == -kInfinity && max == -kInfinity) continue;
    if (logit > max) {
      const float shrink = weight(max, logit);
      sum *= shrink;
#pragma unroll
      for (int i = 0; i < kLaneValues; ++i) row.value[i] *= shrink;
      max = logit;
    }
    const float p = weight(logit, max);
    sum += p;
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      const int d = lane + 32 * i;
      if (d < head_dim) row.value[i] = fmaf(p, to_float(value[j * head_dim + d]), row.value[i]);
    }
  }
  const bool any = !(sum == 0);
#pragma unroll
  for (int i = 0; i < kLaneValues; ++i) row.value[i] = any ? row.value[i] / sum : 0;
  row.lse = any ? max + __logf(sum) : -kInfinity;
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
  float max;
  float sum;
  __device__ float of(float score) const { return weight(score, max) / sum; }
};
__device__ inline Gates gates_of(const float* scores, int used) {
  Gates gates{-kInfinity, 0};
  for (int s = 0; s < used; ++s) gates.max = fmaxf(gates.max, scores[s]);
  for (int s = 0; s < used; ++s) gates.sum += weight(scores[s], gates.max);
  return gates;
}

}  // namespace multistep::cuda
