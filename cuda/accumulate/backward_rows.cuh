#pragma once

#include "accumulate/backward_tiles.cuh"

/// What the blocks of the fast backward have of the problem, and where their rows go.
namespace multistep::cuda {

/// The rows of one segment, and what a block of the fast kernels reads of them.
template <class T>
struct Segment {
  Index head;
  Index opening;  // rows [opening, begin) do not count
  Index begin;
  Index end;
  int tiles;
  const T* x;
  const T* b;
  const T* c;
  const T* gradient;  // any rows where it is null
  const float* a;
  bool heard;  // it is not null

  __device__ Segment(const AccumulationBackwardArgs& args, Segments segments,
                     Index unit) {  // of [heads, segments]
    head = unit / segments.count;
    opening = unit % segments.count * segments.rows;
    end = min(opening + segments.rows, args.length);
    begin = min(max(first_row(args, head), opening), end);
    tiles = static_cast<int>((end - begin + kTile - 1) / kTile);
    const Index row = head * args.length + begin;
    heard = args.output_gradient != nullptr;
    x = static_cast<const T*>(args.x) + row * args.head_dim;
    b = static_cast<const T*>(args.b) + row * args.state;
    c = static_cast<const T*>(args.c) + row * args.state;
    gradient = heard ? static_cast<const T*>(args.output_gradient) + row * args.head_dim : x;
    a = args.a + row;
  }
  __device__ int rows(int tile) const {
    return static_cast<int>(min(Index{kTile}, end - begin - Index{tile} * kTile));
  }
};

/// Columns of x and of b that a slab of the state has.
struct Columns {
  Index D;
  Index S;
  Index d0;
  Index k0;
  int rows;  // of the slab
  int columns;

  __device__ Columns(const AccumulationBackwardArgs& args, int slab)
      : D(args.head_dim), S(args.state) {
    const int across = static_cast<int>((S + kWidth - 1) / kWidth);
    d0 = slab / across * kWidth;
    k0 = slab % across * kWidth;
    rows = static_cast<int>(min(Index{kWidth}, D - d0));
    columns = static_cast<int>(min(Index{kWidth}, S - k0));
  }
  /// The slab's first entry in state `index` of an array.
  template <class Float>
  __device__ Float* in(Float* states, Index index) const {
    return states ? states + (index * D + d0) * S + k0 : nullptr;
  }
};

/// The float32 sums of rows over slabs, [batch, num_heads, length] rows each; null where there is
/// one slab.
struct Sums {
  float* x;
  float* b;
  float* c;
};

/// Where a gradient's rows go. Wider than a slab, it is a sum over slabs, of which `sums` has the
/// earlier ones'.
template <class T>
struct Out {
  T* rows;
  float* sums;
  Index stride;
  int width;
  bool first;
  bool last;

  __device__ void store(Gradient& sum, Index row, int count) const {
    const int g = threadIdx.x % 32 / 4;
    const int c = threadIdx.x % 4;
    if (first && last && width == kWidth && stride % 8 == 0) {
      const float(&values)[32] = reinterpret_cast<const float(&)[32]>(sum);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        T* const to = g + 8 * r < count ? rows + (row + g + 8 * r) * stride : nullptr;
        store_fragment<T, kWidth>(values, r, to);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int r = g + i / 2 % 2 * 8;
      const int column = i / 4 * 8 + 2 * c + i % 2;
      if (r >= count || column >= width) continue;
      const Index at = (row + r) * stride + column;
      float& value = sum[i / 4][i % 4];
      if (!first) value += sums[at];
      if (last) {
        rows[at] = from_float<T>(value);
      } else {
        sums[at] = value;
      }
    }
  }
};

/// A warp's 16 rows of dx, db or dc, from `half` of a tile whose first row is `row`.
template <class T>
struct Part {
  BackwardTile<T>& tile;
  const AccumulationBackwardArgs& args;
  const Sums& sums;
  const Columns& at;
  Index row;
  int count;  // rows of the tile
  int half;

  /// A piece of a state for sums over d.
  __device__ static auto down(const Slab& state) {
    return [&state](int k, int d) {
      const float* const first = &state[entry(d + 2 * (threadIdx.x % 4), k + threadIdx.x % 32 / 4)];
      return Piece{first[0], first[kStride]};
    };
  }
  /// And for sums over k.
  __device__ static auto across(const Slab& state) {
    return [&state](int d, int k) {
      return two(&state[entry(d + threadIdx.x % 32 / 4, k + 2 * (threadIdx.x % 4))]);
    };
  }
  __device__ auto rest() const {
    return [this](int s) { return tile.decay[kTile - 1][s]; };
  }
  __device__ auto upto() const {
    return [this](int t) { return tile.decay[t][kTile]; };
  }
  /// b's or c's columns, which are sums over d.
  __device__ void store_by_state(Gradient& sum, void* rows, float* before) const {
    const Out<T> out{static_cast<T*>(rows) + at.k0, before + at.k0, at.S, at.columns, at.d0 == 0,
                     at.d0 + kWidth >= at.D};
    out.store(sum, row + half, count - half);
  }

  __device__ void write_x() const {
    Gradient sum = {};
    Queries queries;
    take_queries(queries, tile.forward.right, half);
    add_state<T>(sum, queries, across(tile.back.state));
    scale_rows(sum, half, rest());
    add_tile<true>(sum, queries, tile.back.right, tile.back.left, tile.decay, half);
    const Out<T> out{static_cast<T*>(args.x_gradient) + at.d0,
                     sums.x + at.d0,
                     at.D,
                     at.rows,
                     at.k0 == 0,
                     at.k0 + kWidth >= at.S};
    out.store(sum, row + half, count - half);
  }
  __device__ void write_b() const {
    Gradient sum = {};
    Queries queries;
    take_queries(queries, tile.forward.left, half);
    add_state<T>(sum, queries, down(tile.back.state));
    write_dots(&tile.pairs[kTile][1], 1, sum, tile.forward.right, half);
    scale_rows(sum, half, rest());
    add_tile<true>(sum, queries, tile.back.left, tile.back.right, tile.decay, half);
    store_by_state(sum, args.b_gradient, sums.b);
  }
  __device__ void write_c() const {
    Gradient sum = {};
    Queries queries;
    take_queries(queries, tile.back.left, half);
    add_state<T>(sum, queries, down(tile.forward.state));
    write_dots(&tile.pairs[0][0], kTile + 1, sum, tile.back.right, half);
    scale_rows(sum, half, upto());
    add_tile<false>(sum, queries, tile.forward.left, tile.forward.right, tile.decay, half);
    if (!args.output_gradient) {  // 0, whatever H holds
      for (auto& four : sum) {
        for (float& value : four) value = 0;
      }
    }
    store_by_state(sum, args.c_gradient, sums.c);
  }
};

/// A pair of warps for each gradient's rows, and one for what da is made of.
template <class T>
__device__ void differentiate_rows(BackwardTile<T>& tile, const AccumulationBackwardArgs& args,
                                   const Sums& sums, const Columns& at, Index row, int count) {
  const int half = threadIdx.x / 32 % 2 * 16;
  const Part<T> part{tile, args, sums, at, row, count, half};
  switch (threadIdx.x / 64) {
    case 0:
      return part.write_x();
    case 1:
      return part.write_b();
    case 2:
      return part.write_c();
    default:
      write_pairs(tile, half);
      if (half == 0) write_state_pair(tile);  // it has fewer pairs
  }
}

}  // namespace multistep::cuda
