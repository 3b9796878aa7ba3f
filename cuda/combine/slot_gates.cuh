#pragma once

#include "api/stages.cuh"
#include "attend/attend_row.cuh"

namespace multistep::cuda {

/// Gates of a query's slots where these are few: all that they depend on is asked for at once.
struct SlotGates {
  int used = 0;  // slots
  float gate[kMaxTileSlots];

  /// `row`: in [batch, heads, queries].
  __device__ SlotGates(const Combine& combine, std::int64_t row) {
    const std::int64_t first = row * combine.slots;
    DeviceSpan span[kMaxTileSlots];
    float score[kMaxTileSlots];
#pragma unroll
    for (int s = 0; s < kMaxTileSlots; ++s) {
      const bool here = s < combine.slots;
      span[s] = here ? combine.spans[first + s] : DeviceSpan{0, 0};
      score[s] = here ? combine.scores[first + s] : -kInfinity;
    }
    Gates gates;
#pragma unroll
    for (int s = 0; s < kMaxTileSlots; ++s) {
      if (used < s || span[s].end <= span[s].begin) continue;
      used = s + 1;
      gates.scores.max = fmaxf(gates.scores.max, score[s]);
    }
#pragma unroll
    for (int s = 0; s < kMaxTileSlots; ++s) {
      if (s < used) gates.scores.add(score[s]);
    }
#pragma unroll
    for (int s = 0; s < kMaxTileSlots; ++s) {
      gate[s] = faulty(combine.rows.fault, Fault::gates_equal) ? 1.0f / used : gates.of(score[s]);
    }
  }
};

}  // namespace multistep::cuda
