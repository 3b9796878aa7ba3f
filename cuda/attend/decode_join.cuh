#pragma once

#include "attend/attend_row.cuh"
#include "attend/decode_tile.cuh"

/// How the partial softmaxes of a query row become its output. An item of a row is one of its spans
/// or, the last, its window; each has left a partial softmax for every piece of its keys.
namespace multistep::cuda {

inline constexpr int kMaxParts = 160;  // of a row

/// Pieces of an item, at most: a warp weighs them.
__host__ __device__ constexpr int max_pieces(int slots) {
  return slots < 4 ? 32 : kMaxParts / (slots + 1);
}
static_assert(max_pieces(4) == 32 && max_pieces(kMaxDecodeSlots) >= 4);
static_assert(kMaxDecodeSlots < 32, "every item has a lane");

/// Adds to a counter and returns what it held. Whoever finds this addition in it sees all that this
/// thread has written, or seen written, before.
__device__ inline std::int32_t add_in_order(std::int32_t* counter, std::int32_t value) {
  std::int32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(counter), "r"(value)
               : "memory");
  return before;
}

/// What a slot of a query row holds.
struct SlotPieces {
  float score;
  std::int32_t pieces;  // that its keys touch; -1: it has no span
};

struct RowParts {
  const SlotPieces* chosen;  // [slots]
  int slots;
  int window_pieces;      // of this row
  int span_pieces;        // from an item's first part to the next one's
  const float* partials;  // [slots * span_pieces + window_pieces, head_dim + 4]
  float* span_lses;       // [slots], or null
  float* window_lse;      // or null
  int head_dim;
  int fault;
};

/// What a warp needs to join a row: maximum and sum of every part, its weight, and the values of as
/// many parts at a time as there is room for.
template <int kHeadDim>
struct JoinMemory {
  static constexpr int kFixed = kMaxParts * (sizeof(float4) + sizeof(float));
  float4* sums;
  float* weights;
  float4* values;
  int room;  // parts

  __device__ JoinMemory(char* memory, int bytes)
      : sums(reinterpret_cast<float4*>(memory)),
        weights(reinterpret_cast<float*>(sums + kMaxParts)),
        values(reinterpret_cast<float4*>(weights + kMaxParts)),
        room((bytes - kFixed) / static_cast<int>(kHeadDim * sizeof(float))) {}
};

/// What each item of a row counts in its output, in the lane of its number: gates, and window and
/// span joined. `lse`: this lane's item's log-sum-exp; `choice`: what it holds, of slots. Whole
/// warp.
__device__ inline float weigh_item(float lse, const SlotPieces& choice, int slots, int fault) {
  const int lane = threadIdx.x % 32;
  const float window_lse = __shfl_sync(kFullWarp, lse, slots);
  const unsigned some = __ballot_sync(kFullWarp, lane < slots && choice.pieces >= 0);
  const int used = __ffs(static_cast<int>(~some)) - 1;
  const bool mine = lane < used;
  const auto of_slots = [&](float x, auto&& unite) {  // of every lane of theirs
    x = unite(x, __shfl_xor_sync(kFullWarp, x, 1));
    x = unite(x, __shfl_xor_sync(kFullWarp, x, 2));
    for (int bit = 4; bit < slots; bit *= 2) x = unite(x, __shfl_xor_sync(kFullWarp, x, bit));
    return x;
  };
  const auto add = [](float a, float b) { return a + b; };
  const auto larger = [](float a, float b) { return fmaxf(a, b); };
  const float best = of_slots(mine ? choice.score : -kInfinity, larger);
  const float share = mine ? Softmax<BaseE>{best}.weight(choice.score) : 0;
  float gate = share / of_slots(share, add);
  if (faulty(fault, Fault::gates_equal)) gate = 1.0f / used;
  Joined joined = join(lse, window_lse);
  if (faulty(fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
  const float of_all = of_slots(mine ? gate * joined.second : 0, add);
  const float of_window = used > 0 ? __shfl_sync(kFullWarp, of_all, 0) : 1;
  if (lane == slots) return of_window;
  return mine ? gate * joined.first : 0;
}

/// Joins a row's parts, in order. By one warp: this is run once, from instructions that no cache
/// has, so that it takes as long as they are many. Loops are not unrolled but where products wait.
template <class T, int kHeadDim>
__device__ void join_row(const RowParts& row, const JoinMemory<kHeadDim>& memory, T* output) {
  constexpr int kPieces = kHeadDim / 4;  // of four values, each a lane's
  constexpr int kOfLane = (kPieces + 31) / 32;
  const int lane = threadIdx.x % 32;
  SlotPieces choice{0, lane == row.slots ? row.window_pieces : -1};
  if (lane < row.slots) choice = row.chosen[lane];
  const int count = max(choice.pieces, 0);
  int end = count;  // of this lane's item's parts among all
#pragma unroll
  for (int bit = 1; bit <= kMaxDecodeSlots; bit *= 2) {
    if (bit > row.slots) break;
    const int before = __shfl_up_sync(kFullWarp, end, bit);
    if (lane >= bit) end += before;
  }
  const int total = __shfl_sync(kFullWarp, end, row.slots);
  const auto of_item = [&](int item, int& first, int& last) {
    last = __shfl_sync(kFullWarp, end, item);
    first = last - __shfl_sync(kFullWarp, count, item);
    return row.partials + item * row.span_pieces * kPartialStride<kHeadDim>;
  };
  const auto ask_for_values = [&](int first_wanted) {
#pragma unroll 1
    for (int item = 0; item <= row.slots; ++item) {
      int first;
      int last;
      const float* parts = of_item(item, first, last);
      last = min(last, first_wanted + memory.room);
#pragma unroll 1
      for (int p = max(first, first_wanted); p < last; ++p) {
        for (int piece = lane; piece < kPieces; piece += 32) {
          ptx::copy_async_16(memory.values + (p - first_wanted) * kPieces + piece,
                             parts + (p - first) * kPartialStride<kHeadDim> + 4 * piece, true);
        }
      }
    }
    ptx::commit_copies();
    ptx::wait_for_copies<0>();
    __syncwarp();
  };
#pragma unroll 1
  for (int item = 0; item <= row.slots; ++item) {
    int first;
    int last;
    const float* parts = of_item(item, first, last);
    if (first + lane >= last) continue;
    ptx::copy_async_16(memory.sums + first + lane,
                       parts + lane * kPartialStride<kHeadDim> + kHeadDim, true);
  }
  ask_for_values(0);

  float lse = -kInfinity;  // of this lane's item
#pragma unroll 1
  for (int item = 0; item <= row.slots; ++item) {
    int first;
    int last;
    of_item(item, first, last);
    const bool mine = first + lane < last;
    const float4 both = mine ? memory.sums[first + lane] : float4{-kInfinity, 0, 0, 0};
    Softmax<Base2> all{both.x};
    for (int bit = 16; bit > 0; bit /= 2) {
      all.max = fmaxf(all.max, __shfl_xor_sync(kFullWarp, all.max, bit));
    }
    const float weight = all.weight_of_part(both.x);
    all.sum = warp_sum(weight * both.y);
    if (mine) memory.weights[first + lane] = all.sum == 0 ? 0 : weight / all.sum;
    if (lane == item) lse = all.log_sum_exp();
  }
  if (row.span_lses && lane < row.slots) row.span_lses[lane] = lse;
  if (row.window_lse && lane == row.slots) *row.window_lse = lse;
  const float factor = weigh_item(lse, choice, row.slots, row.fault);
#pragma unroll 1
  for (int item = 0; item <= row.slots; ++item) {
    int first;
    int last;
    of_item(item, first, last);
    const float of_this = __shfl_sync(kFullWarp, factor, item);
    if (first + lane < last) memory.weights[first + lane] *= of_this;
  }
  __syncwarp();

  float4 sums[kOfLane] = {};
  for (int first = 0; first < total; first += memory.room) {
    if (first > 0) {
      __syncwarp();  // the values before have been read
      ask_for_values(first);
    }
    const int here = min(total - first, memory.room);
#pragma unroll 4
    for (int p = 0; p < here; ++p) {
      const float weight = memory.weights[first + p];
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) {
        const float4 value = memory.values[p * kPieces + (lane + 32 * i) % kPieces];
        float4& sum = sums[i];
        sum = {fmaf(weight, value.x, sum.x), fmaf(weight, value.y, sum.y),
               fmaf(weight, value.z, sum.z), fmaf(weight, value.w, sum.w)};
      }
    }
  }
  __syncwarp();  // the memory may make room for another row
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    const int piece = lane + 32 * i;
    if (4 * piece >= row.head_dim) continue;
    const float4 sum = sums[i];
    reinterpret_cast<uint2*>(output)[piece] = {pack<T>(sum.x, sum.y), pack<T>(sum.z, sum.w)};
  }
}

}  // namespace multistep::cuda
