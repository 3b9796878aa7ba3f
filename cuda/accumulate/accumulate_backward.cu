#include "accumulate/backward_plain.cuh"
#include "accumulate/backward_rows.cuh"

namespace multistep::cuda {
namespace {

using Args = AccumulationBackwardArgs;

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
  scan<kBack><<<blocks_for(heads * args.head_dim * args.state, 256), 256, 0, stream>>>(
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
