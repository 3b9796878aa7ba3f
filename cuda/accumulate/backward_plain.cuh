#pragma once

#include <cmath>

#include "accumulate/recurrence.cuh"

/// The plain backward.
namespace multistep::cuda {

/// The plain kernel's states: one before every `stride` rows of a head, and those of such a
/// stretch, before its rows and after its last.
struct Stretches {
  Index stride;
  Index count;

  explicit Stretches(Index length)
      : stride(static_cast<Index>(std::sqrt(static_cast<double>(length))) + 1),
        count((length + stride - 1) / stride) {}
  __host__ __device__ Index states() const { return count + stride + 2; }  // the last one is G
};

/// The plain kernel, the oracle's loop: a block has a head, a thread its share of every state.
template <class T>
__global__ void __launch_bounds__(kBackThreads)
    recur_back(AccumulationBackwardArgs args, Stretches stretches, float* scratch) {
  __shared__ float sums[kBackThreads / 32];
  const Index D = args.head_dim;
  const Index S = args.state;
  const Index cells = D * S;
  const Index head = blockIdx.x;
  const Index row0 = head * args.length;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const T* const x = static_cast<const T*>(args.x) + row0 * D;
  const T* const b = static_cast<const T*>(args.b) + row0 * S;
  const T* const c = static_cast<const T*>(args.c) + row0 * S;
  const float* const a = args.a + row0;
  const T* const gradient =
      args.output_gradient ? static_cast<const T*>(args.output_gradient) + row0 * D : nullptr;
  T* const d_x = static_cast<T*>(args.x_gradient) + row0 * D;
  T* const d_b = static_cast<T*>(args.b_gradient) + row0 * S;
  T* const d_c = static_cast<T*>(args.c_gradient) + row0 * S;
  float* const d_a = args.a_gradient + row0;
  float* const kept = scratch + head * stretches.states() * cells;
  float* const states = kept + stretches.count * cells;
  float* const G = states + (stretches.stride + 1) * cells;
  const Index first = first_row(args, head);

  const auto each = [&](auto&& act) {
    for (Index i = threadIdx.x; i < cells; i += kBackThreads) act(i);
  };
  const auto step = [&](Index t, const float* before, float* after) {  // H_{t-1} becomes H_t
    each([&](Index i) {
      after[i] = fmaf(a[t], before[i], to_float(x[t * D + i / S]) * to_float(b[t * S + i % S]));
    });
  };
  each([&](Index i) {
    states[i] = args.initial ? args.initial[head * cells + i] : 0;
    G[i] = args.final_state_gradient ? args.final_state_gradient[head * cells + i] : 0;
  });
  for (Index t = first; t < args.length; ++t) {
    float* const keep = kept + (t - first) / stretches.stride * cells;
    if ((t - first) % stretches.stride == 0) each([&](Index i) { keep[i] = states[i]; });
    step(t, states, states);
  }
  for (Index i = threadIdx.x; i < first * D; i += kBackThreads) d_x[i] = from_float<T>(0);
  for (Index i = threadIdx.x; i < first * S; i += kBackThreads) {
    d_b[i] = from_float<T>(0);
    d_c[i] = from_float<T>(0);
  }
  for (Index t = threadIdx.x; t < first; t += kBackThreads) d_a[t] = 0;

  Index end = args.length;
  for (Index t = args.length - 1; t >= first; --t) {
    const Index stretch = (t - first) / stretches.stride;
    const Index begin = first + stretch * stretches.stride;
    if (t == end - 1) {
      each([&](Index i) { states[i] = kept[stretch * cells + i]; });
      for (Index u = begin; u < end; ++u) {
        step(u, states + (u - begin) * cells, states + (u - begin + 1) * cells);
      }
    }
    if (t == begin) end = begin;
    const float* const before = states + (t - begin) * cells;
    const float* const after = before + cells;
    float sum = 0;
    each([&](Index i) {
      if (gradient)
        G[i] = fmaf(to_float(gradient[t * D + i / S]), to_float(c[t * S + i % S]), G[i]);
      sum = fmaf(G[i], before[i], sum);
    });
    sum = warp_sum(sum);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      float total = 0;
      for (const float part : sums) total += part;
      d_a[t] = total;
    }
    for (Index d = warp; d < D; d += kBackThreads / 32) {
      float dot = 0;
      for (Index k = lane; k < S; k += 32) dot = fmaf(G[d * S + k], to_float(b[t * S + k]), dot);
      dot = warp_sum(dot);
      if (lane == 0) d_x[t * D + d] = from_float<T>(dot);
    }
    for (Index k = threadIdx.x; k < S; k += kBackThreads) {
      float by_b = 0;
      float by_c = 0;
      for (Index d = 0; d < D; ++d) {
        by_b = fmaf(G[d * S + k], to_float(x[t * D + d]), by_b);
        if (gradient) by_c = fmaf(after[d * S + k], to_float(gradient[t * D + d]), by_c);
      }
      d_b[t * S + k] = from_float<T>(by_b);
      d_c[t * S + k] = from_float<T>(by_c);
    }
    __syncthreads();
    each([&](Index i) { G[i] *= a[t]; });
  }
  if (args.initial_gradient) {
    each([&](Index i) { args.initial_gradient[head * cells + i] = G[i]; });
  }
}

}  // namespace multistep::cuda
