#include <cmath>

#include "accumulate/backward_tiles.cuh"

namespace multistep::cuda {
namespace {

using Args = AccumulationBackwardArgs;

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

__device__ float warp_sum(float x) {
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(kFullWarp, x, step);
  return x;
}

/// The plain kernel, the oracle's loop: a block has a head, a thread its share of every state.
template <class T>
__global__ void __launch_bounds__(kBackThreads)
    recur_back(Args args, Stretches stretches, float* scratch) {
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

  __device__ Segment(const Args& args, Segments segments, Index unit) {  // of [heads, segments]
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

  __device__ Columns(const Args& args, int slab) : D(args.head_dim), S(args.state) {
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

template <class T>
__device__ void load_forward(Recurrence<T>& to, const Segment<T>& of, const Columns& at, int tile) {
  const Index t = Index{tile} * kTile;
  load_rows<T>(to.left, of.x + t * at.D + at.d0, at.D, of.rows(tile), at.rows);
  load_rows<T>(to.right, of.b + t * at.S + at.k0, at.S, of.rows(tile), at.columns);
}
template <class T>
__device__ void load_back(Recurrence<T>& to, const Segment<T>& of, const Columns& at, int tile) {
  const Index t = Index{tile} * kTile;
  const int rows = of.heard ? of.rows(tile) : 0;  // what is multiplied by nothing is not read
  load_rows<T>(to.left, of.gradient + t * at.D + at.d0, at.D, rows, at.rows);
  load_rows<T>(to.right, of.c + t * at.S + at.k0, at.S, rows, at.columns);
}
template <class T>
__device__ void load_decays(Decays& to, const Segment<T>& of, int tile) {
  if (threadIdx.x < 32) write_decays(to, of.a + tile * kTile, of.rows(tile));
}

/// What a segment adds to a slab of H, or K, walked from 0, and its decay.
template <class T, bool kBack>
__global__ void __launch_bounds__(kBackThreads)
    add_up(Args args, Segments segments, float* states, float* decays) {
  extern __shared__ float4 shared[];
  Walk<T>& walk = *reinterpret_cast<Walk<T>*>(shared);
  const Index unit = blockIdx.x;
  const Segment<T> segment(args, segments, unit);
  const Columns at(args, blockIdx.y);
  if (segment.tiles == 0) return;  // scan() leaves such segments out

  load_slab(walk.of.state, nullptr, at.S, 0, 0);
  float total = 1;
  for (int i = 0; i < segment.tiles; ++i) {
    const int tile = kBack ? segment.tiles - 1 - i : i;
    __syncthreads();  // the tile before is done with
    if constexpr (kBack) {
      load_back(walk.of, segment, at, tile);
    } else {
      load_forward(walk.of, segment, at, tile);
    }
    load_decays(walk.decay, segment, tile);
    wait_for_rows();
    if constexpr (kBack) {
      advance_back(walk.of, walk.decay);
    } else {
      advance_forward(walk.of, walk.decay);
    }
    total *= walk.decay[kTile - 1][kTile];
  }
  if (!kBack && threadIdx.x == 0 && blockIdx.y == 0) decays[unit] = total;
  __syncthreads();
  store_slab(at.in(states, unit), walk.of.state, at.S, at.rows, at.columns);
}

/// The pairs of 16 rows from `row`, by one warp.
template <class T>
__device__ void write_pairs(BackwardTile<T>& tile, int row) {
  const int g = threadIdx.x % 32 / 4;
  const int c = threadIdx.x % 4;
  Queries by_state;
  Queries by_head_dim;
  take_queries(by_state, tile.back.right, row);
  take_queries(by_head_dim, tile.back.left, row);
  for (int s = 0; s < row + 16; s += 8) {
    float one[4];
    float other[4];
    score(one, by_state, tile.forward.right, s);
    score(other, by_head_dim, tile.forward.left, s);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      tile.pairs[row + g + i / 2 * 8][s + 2 * c + i % 2 + 1] = one[i] * other[i];
    }
  }
}

/// pairs[kTile][0] = <K, H>, by one warp.
template <class T>
__device__ void write_state_pair(BackwardTile<T>& tile) {
  float sum = 0;
  for (int i = threadIdx.x % 32; i < kWidth * kWidth; i += 32) {
    const int at = entry(i / kWidth, i % kWidth);
    sum = fmaf(tile.back.state[at], tile.forward.state[at], sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) tile.pairs[kTile][0] = sum;
}

/// da_t = <G_t, H_{t-1}> = sum over u >= t and s < t of D_ut D_{t-1,s} pairs[u][s + 1], where H
/// stands before the first row and K behind the last. By one warp: lane u sums over s as t grows,
/// then lane t over u.
template <class T>
__device__ void write_decay_gradient(BackwardTile<T>& tile, float* to, int count, bool first) {
  const int lane = threadIdx.x % 32;
  float sum = 0;
#pragma unroll 8
  for (int t = 0; t < kTile; ++t) {
    if (t > lane) continue;
    sum = t == 0 ? tile.pairs[lane][0] : fmaf(tile.a[t - 1], sum, tile.pairs[lane][t]);
    tile.pairs[lane][t] = tile.decay[lane][t] * sum;
  }
  __syncwarp();
  const int t = lane;
  float last = tile.pairs[kTile][0];
  if (t > 0) last *= tile.decay[t - 1][kTile];
  for (int s = 0; s < t; ++s) last = fmaf(tile.decay[t - 1][s], tile.pairs[kTile][s + 1], last);
  float total = tile.decay[kTile - 1][t] * last;
  for (int u = t; u < kTile; ++u) total += tile.pairs[u][t];
  if (t < count) to[t] = first ? total : to[t] + total;
}

/// The float32 sums of rows over slabs, [batch, num_heads, length] rows each; null where there is
/// one slab.
struct Sums {
  float* x;
  float* b;
  float* c;
};

template <class T>
__device__ void write_zeros(const Args& args, const Segment<T>& segment) {
  const auto clear = [&](auto* array, Index width) {
    using Value = std::remove_pointer_t<decltype(array)>;
    Value* const rows = array + (segment.head * args.length + segment.opening) * width;
    for (Index i = threadIdx.x; i < (segment.begin - segment.opening) * width; i += kBackThreads) {
      rows[i] = Value(0);
    }
  };
  clear(static_cast<T*>(args.x_gradient), args.head_dim);
  clear(static_cast<T*>(args.b_gradient), args.state);
  clear(static_cast<T*>(args.c_gradient), args.state);
  clear(args.a_gradient, 1);
}

/// The 16 rows that a warp has of dx, db or dc, or of the pairs.
template <class T>
__device__ void differentiate_rows(BackwardTile<T>& tile, const Args& args, const Sums& sums,
                                   const Columns& at, Index row, int count) {
  const int c = threadIdx.x % 4;
  const int g = threadIdx.x % 32 / 4;
  const int part = threadIdx.x / 64;
  const int half = threadIdx.x / 32 % 2 * 16;
  const auto rest = [&](int s) { return tile.decay[kTile - 1][s]; };
  const auto upto = [&](int t) { return tile.decay[t][kTile]; };
  const Rows<T>& x = tile.forward.left;
  const Rows<T>& b = tile.forward.right;
  const Rows<T>& dr = tile.back.left;
  const Rows<T>& C = tile.back.right;
  const bool first_d = at.d0 == 0;
  const bool last_d = at.d0 + kWidth >= at.D;
  const bool first_k = at.k0 == 0;
  const bool last_k = at.k0 + kWidth >= at.S;
  const auto down = [&](const Slab& state) {  // summed over d
    return [&](int k, int d) {
      const float* const at = &state[entry(d + 2 * c, k + g)];
      return Piece{at[0], at[kStride]};
    };
  };
  Gradient sum = {};
  Queries queries;
  switch (part) {
    case 0:
      take_queries(queries, b, half);
      add_state<T>(sum, queries,
                   [&](int d, int k) { return two(&tile.back.state[entry(d + g, k + 2 * c)]); });
      scale_rows(sum, half, rest);
      add_tile<true>(sum, queries, C, dr, tile.decay, half);
      Out<T>{
          static_cast<T*>(args.x_gradient) + at.d0, sums.x + at.d0, at.D, at.rows, first_k, last_k}
          .store(sum, row + half, count - half);
      break;
    case 1:
      take_queries(queries, x, half);
      add_state<T>(sum, queries, down(tile.back.state));
      write_dots(&tile.pairs[kTile][1], 1, sum, b, half);
      scale_rows(sum, half, rest);
      add_tile<true>(sum, queries, dr, C, tile.decay, half);
      Out<T>{static_cast<T*>(args.b_gradient) + at.k0,
             sums.b + at.k0,
             at.S,
             at.columns,
             first_d,
             last_d}
          .store(sum, row + half, count - half);
      break;
    case 2:
      take_queries(queries, dr, half);
      add_state<T>(sum, queries, down(tile.forward.state));
      write_dots(&tile.pairs[0][0], kTile + 1, sum, C, half);
      scale_rows(sum, half, upto);
      add_tile<false>(sum, queries, x, b, tile.decay, half);
      if (!args.output_gradient) {
        for (auto& values : sum) {
          for (float& value : values) value = 0;
        }
      }
      Out<T>{static_cast<T*>(args.c_gradient) + at.k0,
             sums.c + at.k0,
             at.S,
             at.columns,
             first_d,
             last_d}
          .store(sum, row + half, count - half);
      break;
    default:
      write_pairs(tile, half);
      if (half == 0) write_state_pair(tile);  // it has fewer pairs
  }
}

/// The gradients of a segment's rows, last tile first, from the states H before and K behind it
/// (null: 0). H before a tile is walked to from the nearest one kept.
template <class T>
__global__ void __launch_bounds__(kBackThreads, 2)
    differentiate(Args args, Segments segments, const float* from, const float* behind, float* to,
                  Sums sums) {
  extern __shared__ float4 shared[];
  BackwardTile<T>& tile = *reinterpret_cast<BackwardTile<T>*>(shared);
  const Index unit = blockIdx.x;
  const Segment<T> segment(args, segments, unit);
  write_zeros(args, segment);
  if (segment.tiles == 0 && segments.count > 1) return;
  const Index row0 = segment.head * args.length + segment.begin;
  const int slabs = static_cast<int>((args.head_dim + kWidth - 1) / kWidth *
                                     ((args.state + kWidth - 1) / kWidth));
  for (int slab = 0; slab < slabs; ++slab) {
    const Columns at(args, slab);
    const auto begin_walk = [&] {
      load_slab(tile.forward.state, at.in(from, unit), at.S, at.rows, at.columns);
    };
    const auto walk = [&](int tile_from, int tile_to) {
      for (int i = tile_from; i < tile_to; ++i) {
        __syncthreads();  // what was there is done with
        load_forward(tile.forward, segment, at, i);
        load_decays(tile.decay, segment, i);
        wait_for_rows();
        advance_forward(tile.forward, tile.decay);
      }
      __syncthreads();
    };
    __syncthreads();  // the slab before is done with
    load_slab(tile.back.state, at.in(behind, unit), at.S, at.rows, at.columns);
    begin_walk();
    for (int kept = 0; kStretch * (kept + 1) < segment.tiles; ++kept) {
      walk(kStretch * kept, kStretch * (kept + 1));
      copy_slab(tile.kept[kept], tile.forward.state);
    }
    for (int i = segment.tiles - 1; i >= 0; --i) {
      __syncthreads();  // the tile behind is done with
      const int stretch = i / kStretch;
      if (stretch > 0) {
        copy_slab(tile.forward.state, tile.kept[stretch - 1]);
      } else {
        begin_walk();
      }
      walk(kStretch * stretch, i);
      const int count = segment.rows(i);
      load_forward(tile.forward, segment, at, i);
      load_back(tile.back, segment, at, i);
      load_decays(tile.decay, segment, i);
      if (threadIdx.x < kTile) {
        const int t = threadIdx.x;
        tile.a[t] = t < count ? segment.a[i * kTile + t] : 1;
      }
      wait_for_rows();
      const Index row = row0 + Index{i} * kTile;
      differentiate_rows(tile, args, sums, at, row, count);
      __syncthreads();
      if (threadIdx.x < 32) write_decay_gradient(tile, args.a_gradient + row, count, slab == 0);
      advance_back(tile.back, tile.decay);
    }
    __syncthreads();
    if (to) store_slab(at.in(to, unit), tile.back.state, at.S, at.rows, at.columns);
  }
}

Segments cut(Index length) { return {kSegmentRows, (length + kSegmentRows - 1) / kSegmentRows}; }

bool is_plain(const Args& args) { return args.rung == Rung::plain || args.length < kShortest; }

/// The workspace of the fast kernels: of more segments than one, and of more slabs than one.
struct Scratch {
  float* forward = nullptr;  // [batch, num_heads, segments, head_dim, state]
  float* back = nullptr;     // as forward
  float* decays = nullptr;   // [batch, num_heads, segments]
  Sums sums = {};
};

Scratch take_scratch(Arena& arena, const Args& args) {
  const Index heads = args.batch * args.num_heads;
  const Index rows = heads * args.length;
  const Index units = heads * cut(args.length).count;
  Scratch scratch;
  if (cut(args.length).count > 1) {
    scratch.forward = arena.take<float>(units * args.head_dim * args.state);
    scratch.back = arena.take<float>(units * args.head_dim * args.state);
    scratch.decays = arena.take<float>(units);
  }
  if (args.state > kWidth) scratch.sums.x = arena.take<float>(rows * args.head_dim);
  if (args.head_dim > kWidth) {
    scratch.sums.b = arena.take<float>(rows * args.state);
    scratch.sums.c = arena.take<float>(rows * args.state);
  }
  return scratch;
}

void allow_shared(const void* kernel, std::size_t bytes) {
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

template <class T, bool kBack>
void launch_scan(const Args& args, const float* from, float* states, float* decays, float* to,
                 Stream stream) {
  const Segments segments = cut(args.length);
  const Index heads = args.batch * args.num_heads;
  const Index slabs = (args.head_dim + kWidth - 1) / kWidth * ((args.state + kWidth - 1) / kWidth);
  const dim3 grid(static_cast<unsigned>(heads * segments.count), static_cast<unsigned>(slabs));
  allow_shared(reinterpret_cast<const void*>(add_up<T, kBack>), sizeof(Walk<T>));
  add_up<T, kBack><<<grid, kBackThreads, sizeof(Walk<T>), stream>>>(args, segments, states, decays);
  check_launch("accumulate_backward: add_up");
  scan<kBack><<<blocks_for(heads * args.head_dim * args.state), 256, 0, stream>>>(
      args, segments, from, states, decays, to);
  check_launch("accumulate_backward: scan");
}

template <class T>
void launch(const Args& args, Stream stream) {
  const auto heads = args.batch * args.num_heads;
  Arena arena(args.workspace.data);
  if (is_plain(args)) {
    const Stretches stretches(args.length);
    float* const states =
        arena.take<float>(heads * stretches.states() * args.head_dim * args.state);
    recur_back<T>
        <<<static_cast<unsigned>(heads), kBackThreads, 0, stream>>>(args, stretches, states);
    check_launch("accumulate_backward: recur_back");
    return;
  }
  const Segments segments = cut(args.length);
  const Scratch scratch = take_scratch(arena, args);
  const float* from = args.initial;
  const float* behind = args.final_state_gradient;
  float* to = args.initial_gradient;
  if (segments.count > 1) {
    launch_scan<T, false>(args, from, scratch.forward, scratch.decays, nullptr, stream);
    launch_scan<T, true>(args, behind, scratch.back, scratch.decays, to, stream);
    from = scratch.forward;
    behind = scratch.back;
    to = nullptr;
  }
  allow_shared(reinterpret_cast<const void*>(differentiate<T>), sizeof(BackwardTile<T>));
  differentiate<T>
      <<<static_cast<unsigned>(heads * segments.count), kBackThreads, sizeof(BackwardTile<T>),
         stream>>>(args, segments, from, behind, to, scratch.sums);
  check_launch("accumulate_backward: differentiate");
}

}  // namespace

std::size_t workspace_size(const AccumulationBackwardArgs& args) {
  require_sizes(args);
  const Index heads = args.batch * args.num_heads;
  require_within("batch * num_heads * length", heads * cut(args.length).count, 0,
                 (Index{1} << 31) - 1);
  Arena arena;
  if (is_plain(args)) {
    arena.take<float>(heads * Stretches(args.length).states() * args.head_dim * args.state);
  } else {
    take_scratch(arena, args);
  }
  return arena.used();
}

void accumulate_backward(const AccumulationBackwardArgs& args, Stream stream) {
  require_workspace(args.workspace, workspace_size(args));
  const Index rows = args.batch * args.num_heads * args.length;
  require_inputs(args);
  require_pointer(args.output_gradient, "output_gradient", 0);
  require_pointer(args.final_state_gradient, "final_state_gradient", 0);
  require_pointer(args.x_gradient, "x_gradient", rows);
  require_pointer(args.a_gradient, "a_gradient", rows);
  require_pointer(args.b_gradient, "b_gradient", rows);
  require_pointer(args.c_gradient, "c_gradient", rows);
  require_pointer(args.initial_gradient, "initial_gradient", 0);
  switch (args.dtype) {
    case Dtype::bf16:
      return launch<bf16>(args, stream);
    case Dtype::fp16:
      return launch<fp16>(args, stream);
    default:
      throw std::invalid_argument(
          text("dtype {}: bf16 and fp16 are built", static_cast<int>(args.dtype)));
  }
}

}  // namespace multistep::cuda
