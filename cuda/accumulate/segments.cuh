#pragma once

#include <algorithm>

#include "api/check.cuh"
#include "multistep/cuda/accumulation.hpp"

/// What accumulation and its backward share: arguments, segments, decays, the scan over segments.
namespace multistep::cuda {

inline constexpr Index kMaxHeads = Index{1} << 22;  // keeps every grid below 2^31 blocks
inline constexpr int kMaxState = 256;

inline constexpr Index kShortest = 16;  // a call with fewer rows is decoding: the plain kernel's
inline constexpr Index kSegmentRows = 256;  // a segment's state weighs no more than its rows
inline constexpr int kTile = 32;            // rows that a block holds at once
inline constexpr int kWidth = 64;           // columns of x, or of b and c, that it holds at once

/// The sequence is cut at multiples of `rows`; the cut depends on nothing but its length.
struct Segments {
  Index rows;
  Index count;
};

template <class Args>
void require_sizes(const Args& args) {
  require_within("batch", args.batch, 1, kMaxHeads);
  require_within("num_heads", args.num_heads, 1, kMaxHeads / args.batch);
  require_within("head_dim", args.head_dim, 1, 256);
  require_within("state", args.state, 1, kMaxState);
  require_within("offset", args.offset, 0, kMaxContext);
  require_within("length", args.length, 0, kMaxContext - args.offset);
}

template <class Args>
void require_inputs(const Args& args) {
  const Index rows = args.batch * args.num_heads * args.length;
  require_pointer(args.x, "x", rows);
  require_pointer(args.a, "a", rows);
  require_pointer(args.b, "b", rows);
  require_pointer(args.c, "c", rows);
  require_pointer(args.initial, "initial", 0);
}

/// Rows [first_row, length) of a head count.
template <class Args>
__device__ Index first_row(const Args& args, Index head) {
  const Index start = args.start ? args.start[head / args.num_heads] : 0;
  return min(max(start - args.offset, Index{0}), args.length);
}

/// decay[t][s]: a_{s+1} ... a_t; column kTile: a of the tile up to t.
using Decays = float[kTile][kTile + 1];

/// One warp writes the running products of a tile's decays: no quotients, a decay may be 0. Rows
/// past the end decay by 1.
__device__ inline void write_decays(Decays& decay, const float* a, int count) {
  static_assert(kTile == 32, "a lane owns each column");
  const int s = threadIdx.x % 32;
  const float mine = s < count ? a[s] : 1;
  float product = 1;
  for (int t = 0; t < kTile; ++t) {
    const float next = __shfl_sync(0xffffffffu, mine, t);
    if (t > s) product *= next;
    decay[t][s] = product;
    if (s == 0) decay[t][kTile] = mine * product;
  }
}

/// The state that each segment adds, walked from 0, becomes the state that it starts from; the
/// first is `from` (null: 0), and `to` (null: not wanted) the one behind all. Back: the same from
/// the last segment to the first.
template <bool kBack, class Args>
__global__ void __launch_bounds__(256) scan(Args args, Segments segments, const float* from,
                                            float* states, const float* decays, float* to) {
  constexpr int kAhead = 8;  // loads in flight: the recurrence does not wait for each
  const Index cells = args.head_dim * args.state;
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;  // [heads, cells]
  const Index head = index / cells;
  if (head >= args.batch * args.num_heads) return;
  decays += head * segments.count;
  states += head * segments.count * cells + index % cells;

  float H = from ? from[index] : 0;
  const Index first = first_row(args, head);
  const Index skipped = first == args.length ? segments.count : first / segments.rows;
  for (Index begin = skipped; begin < segments.count; begin += kAhead) {
    const auto segment = [&](int i) {
      return kBack ? skipped + segments.count - 1 - begin - i : begin + i;
    };
    float decay[kAhead];
    float added[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      decay[i] = begin + i < segments.count ? decays[segment(i)] : 1;
      added[i] = begin + i < segments.count ? states[segment(i) * cells] : 0;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (begin + i >= segments.count) continue;
      states[segment(i) * cells] = H;
      H = fmaf(decay[i], H, added[i]);
    }
  }
  if (to) to[index] = H;
}

}  // namespace multistep::cuda
