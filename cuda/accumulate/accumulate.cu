#include "accumulate/segments.cuh"
#include "device/storage.cuh"

namespace multistep::cuda {
namespace {

constexpr Index kMaxSegments = 512;  // enough to fill a GPU; each costs a state of workspace

constexpr int kAcross = 16;  // threads side by side, each with four columns of x
constexpr int kDown = 8;
constexpr int kBlock = kAcross * kDown;
static_assert(kTile == 4 * kDown && kWidth == 4 * kAcross, "a thread has 4 x 4 outputs");
static_assert(kWidth == 8 * kDown, "and 8 x 4 entries of a slab of the state");

Segments cut(Index length) {
  const Index tiles = (length + kTile * kMaxSegments - 1) / (kTile * kMaxSegments);
  const Index rows = std::max(kSegmentRows, tiles * kTile);
  return {rows, (length + rows - 1) / rows};
}

/// The plain kernel: a warp walks the sequence with one row of H, dealt to its lanes.
template <class T>
__global__ void __launch_bounds__(256) recur(AccumulationArgs args) {
  constexpr int kPerLane = kMaxState / 32;
  const Index row = (Index{blockIdx.x} * blockDim.x + threadIdx.x) / 32;  // [heads, head_dim]
  const Index head = row / args.head_dim;
  const Index d = row % args.head_dim;
  const int lane = threadIdx.x % 32;  // has the entries lane, lane + 32, ...
  if (head >= args.batch * args.num_heads) return;

  float H[kPerLane];
  for (int i = 0; i < kPerLane; ++i) {
    const Index k = lane + 32 * i;
    H[i] = args.initial && k < args.state ? args.initial[row * args.state + k] : 0;
  }
  const Index first = first_row(args, head);
  for (Index t = 0; t < args.length; ++t) {
    const Index at = head * args.length + t;
    float sum = 0;
    if (t >= first) {
      const float a = args.a[at];
      const float x = to_float(static_cast<const T*>(args.x)[at * args.head_dim + d]);
      const T* const b = static_cast<const T*>(args.b) + at * args.state;
      const T* const c = static_cast<const T*>(args.c) + at * args.state;
      for (int i = 0; i < kPerLane; ++i) {
        const Index k = lane + 32 * i;
        if (k >= args.state) continue;
        H[i] = fmaf(a, H[i], x * to_float(b[k]));
        sum = fmaf(H[i], to_float(c[k]), sum);
      }
      for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    }
    if (lane == 0) static_cast<T*>(args.output)[at * args.head_dim + d] = from_float<T>(sum);
  }
  for (int i = 0; args.final_state && i < kPerLane; ++i) {
    const Index k = lane + 32 * i;
    if (k < args.state) args.final_state[row * args.state + k] = H[i];
  }
}

/// What a block shares of one tile. Paddings keep float4 aligned and spread the banks. Behind it
/// stand 64 rows of the state, transposed: StateRow[state], filled up to a multiple of 8.
struct alignas(16) Tile {
  float x[kTile][kWidth];
  float c[kWidth][kTile + 4];  // transposed; later the weight of x_s in r_t, [s][t]
  float b[kTile][kWidth + 4];
  Decays decay;
};
using StateRow = float[kWidth + 4];

__host__ __device__ constexpr Index round_up_8(Index count) { return (count + 7) / 8 * 8; }

__device__ float4 four(const float* values) { return *reinterpret_cast<const float4*>(values); }

/// sum[i][j] += left[i] * right[j] for i >= from.
template <int kRows>
__device__ void add_outer(float (&sum)[kRows][4], const float (&left)[kRows], float4 right,
                          int from = 0) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (i < from) continue;
    sum[i][0] = fmaf(left[i], right.x, sum[i][0]);
    sum[i][1] = fmaf(left[i], right.y, sum[i][1]);
    sum[i][2] = fmaf(left[i], right.z, sum[i][2]);
    sum[i][3] = fmaf(left[i], right.w, sum[i][3]);
  }
}

/// Loads `count` rows of `width` columns, 0 elsewhere up to a multiple of 8 columns.
template <class T, class Put>
__device__ void load(const T* rows, Index stride, int count, int width, Put put) {
  const int column = threadIdx.x % kWidth;
  if (column >= round_up_8(width)) return;
#pragma unroll
  for (int i = 0; i < kTile * kWidth / kBlock; ++i) {
    const int t = threadIdx.x / kWidth + i * (kBlock / kWidth);
    const bool there = t < count && column < width;
    put(t, column, there ? to_float(rows[t * stride + column]) : 0.0f);
  }
}

/// H becomes decay H + sum over s of (a_{s+1} ... a_last) x_s b_s^T, for eight rows of the slab.
__device__ void advance(StateRow* H, const Tile& tile, int count, int tx, int ty) {
  float added[8][4] = {};
  for (int s = 0; s < count; ++s) {
    const float rest = tile.decay[kTile - 1][s];
    const float4 x = four(&tile.x[s][4 * tx]);
    const float4 low = four(&tile.b[s][8 * ty]);
    const float4 high = four(&tile.b[s][8 * ty + 4]);
    add_outer(added, {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w},
              make_float4(rest * x.x, rest * x.y, rest * x.z, rest * x.w));
  }
  const float decay = tile.decay[kTile - 1][kTile];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float4& h = *reinterpret_cast<float4*>(&H[8 * ty + i][4 * tx]);
    h = make_float4(fmaf(decay, h.x, added[i][0]), fmaf(decay, h.y, added[i][1]),
                    fmaf(decay, h.z, added[i][2]), fmaf(decay, h.w, added[i][3]));
  }
}

/// r_t, so far H c_t, becomes (a_begin ... a_t) H c_t + sum over s <= t of D_ts <c_t, b_s> x_s,
/// with D_ts = a_{s+1} ... a_t. The terms of s > t are left out, not multiplied by 0: a NaN in x_s
/// may not reach the rows before s.
__device__ void add_tile(float (&r)[4][4], Tile& tile, const float (&products)[2][4], int tx,
                         int ty) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int t = 4 * ty + i;
    tile.c[tx][t] = tile.decay[t][tx] * products[0][i];
    tile.c[tx + kAcross][t] = tile.decay[t][tx + kAcross] * products[1][i];
    for (int j = 0; j < 4; ++j) r[i][j] *= tile.decay[t][kTile];
  }
  __syncthreads();
  for (int s = 0; s < 4 * ty + 4; ++s) {
    const float4 weight = four(&tile.c[s][4 * ty]);
    add_outer(r, {weight.x, weight.y, weight.z, weight.w}, four(&tile.x[s][4 * tx]), s - 4 * ty);
  }
}

/// A block walks one segment tile by tile with 64 rows of H, from the state `from` (null: 0) to the
/// state `to` (null: not wanted), and writes the outputs, or the decay of the whole segment.
template <class T, bool kOutputs>
__global__ void __launch_bounds__(kBlock)
    walk(AccumulationArgs args, Segments segments, const float* from, float* to, float* decays) {
  extern __shared__ float4 shared[];
  Tile& tile = *reinterpret_cast<Tile*>(shared);
  StateRow* const H = reinterpret_cast<StateRow*>(&tile + 1);
  const int S = static_cast<int>(args.state);
  const Index D = args.head_dim;
  const Index d0 = Index{blockIdx.y} * kWidth;  // rows [d0, d0 + rows) of H
  const int rows = static_cast<int>(min(Index{kWidth}, D - d0));
  const Index unit = blockIdx.x;  // [heads, segments]
  const Index head = unit / segments.count;
  const Index opening = unit % segments.count * segments.rows;
  const Index end = min(opening + segments.rows, args.length);
  const Index begin = min(max(first_row(args, head), opening), end);
  const int tx = threadIdx.x % kAcross;  // columns 4 tx ... of x and of H transposed
  const int ty = threadIdx.x / kAcross;  // rows 4 ty ... of the tile, 8 ty ... of H transposed
  const int lane = threadIdx.x % 32;
  const T* const x = static_cast<const T*>(args.x) + head * args.length * D + d0;
  const T* const b = static_cast<const T*>(args.b) + head * args.length * S;
  const T* const c = static_cast<const T*>(args.c) + head * args.length * S;
  T* const output = static_cast<T*>(args.output) + head * args.length * D + d0;

  for (Index t = opening + threadIdx.x / 32; kOutputs && t < begin; t += kBlock / 32) {
    for (int d = lane; d < rows; d += 32) output[t * D + d] = from_float<T>(0);
  }
  if (begin == end && segments.count > 1) return;  // scan() leaves such segments out
  for (int d = threadIdx.x / 32; d < kWidth; d += kBlock / 32) {
    for (int k = lane; k < round_up_8(S); k += 32) {
      H[k][d] = from && d < rows && k < S ? from[(unit * D + d0 + d) * S + k] : 0;
    }
  }

  float total = 1;
  for (Index t0 = begin; t0 < end; t0 += kTile) {
    const int count = static_cast<int>(min(Index{kTile}, end - t0));
    __syncthreads();  // the tile before is done with
    load(x + t0 * D, D, count, rows, [&](int t, int d, float value) { tile.x[t][d] = value; });
    if (threadIdx.x < 32) write_decays(tile.decay, args.a + head * args.length + t0, count);

    float products[2][4] = {};  // <c_t, b_s>, [s = tx, tx + 16][t = 4 ty ...]
    float r[4][4] = {};         // [t = 4 ty ...][d = 4 tx ...]
    for (int k0 = 0; k0 < S; k0 += kWidth) {
      const int width = min(kWidth, S - k0);
      __syncthreads();  // the slab before is done with
      load(b + t0 * S + k0, S, count, width, [&](int t, int k, float v) { tile.b[t][k] = v; });
      if constexpr (kOutputs) {
        load(c + t0 * S + k0, S, count, width, [&](int t, int k, float v) { tile.c[k][t] = v; });
      }
      __syncthreads();
      if constexpr (kOutputs) {
        for (int k = 0; k < width; ++k) {  // no further: rows that fill H up may have become NaN
          const float4 c_t = four(&tile.c[k][4 * ty]);
          add_outer(products, {tile.b[tx][k], tile.b[tx + kAcross][k]}, c_t);
          add_outer(r, {c_t.x, c_t.y, c_t.z, c_t.w}, four(&H[k0 + k][4 * tx]));
        }
        __syncthreads();  // before H and c are overwritten
      }
      if (8 * ty < width) advance(H + k0, tile, count, tx, ty);
    }
    total *= tile.decay[kTile - 1][kTile];
    if constexpr (kOutputs) {
      add_tile(r, tile, products, tx, ty);
      T* const r_t = output + (t0 + 4 * ty) * D + 4 * tx;
      for (int i = 0; i < 4 && 4 * ty + i < count; ++i) {
        for (int j = 0; j < 4 && 4 * tx + j < rows; ++j) r_t[i * D + j] = from_float<T>(r[i][j]);
      }
    }
  }

  if (!kOutputs && threadIdx.x == 0 && blockIdx.y == 0) decays[unit] = total;
  __syncthreads();
  for (int d = threadIdx.x / 32; to && d < rows; d += kBlock / 32) {
    for (int k = lane; k < S; k += 32) to[(unit * D + d0 + d) * S + k] = H[k][d];
  }
}

/// The workspace of more segments than one.
struct Scratch {
  float* states;  // [batch, num_heads, segments, head_dim, state]
  float* decays;  // [batch, num_heads, segments]
};

Scratch take_scratch(Arena& arena, const AccumulationArgs& args) {
  const Index units = args.batch * args.num_heads * cut(args.length).count;
  return {arena.take<float>(units * args.head_dim * args.state), arena.take<float>(units)};
}

template <class T, bool kOutputs>
void launch_walk(const AccumulationArgs& args, const float* from, float* to, float* decays,
                 Stream stream) {
  const Segments segments = cut(args.length);
  const auto bytes = static_cast<int>(sizeof(Tile) + round_up_8(args.state) * sizeof(StateRow));
  const dim3 grid(static_cast<unsigned>(args.batch * args.num_heads * segments.count),
                  static_cast<unsigned>((args.head_dim + kWidth - 1) / kWidth));
  check(cudaFuncSetAttribute(walk<T, kOutputs>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "cudaFuncSetAttribute");
  walk<T, kOutputs><<<grid, kBlock, bytes, stream>>>(args, segments, from, to, decays);
  check_launch("accumulate: walk");
}

template <class T>
void launch(const AccumulationArgs& args, Stream stream) {
  const Index rows = args.batch * args.num_heads * args.head_dim;
  const Segments segments = cut(args.length);
  if (args.rung == Rung::plain || args.length < kShortest) {
    recur<T><<<blocks_for(rows * 32, 256), 256, 0, stream>>>(args);
    check_launch("accumulate: recur");
  } else if (segments.count == 1) {
    launch_walk<T, true>(args, args.initial, args.final_state, nullptr, stream);
  } else {
    Arena arena(args.workspace.data);
    const Scratch scratch = take_scratch(arena, args);
    launch_walk<T, false>(args, nullptr, scratch.states, scratch.decays, stream);
    scan<false><<<blocks_for(rows * args.state, 256), 256, 0, stream>>>(
        args, segments, args.initial, scratch.states, scratch.decays, args.final_state);
    check_launch("accumulate: scan");
    launch_walk<T, true>(args, scratch.states, nullptr, nullptr, stream);
  }
}

}  // namespace

std::size_t workspace_size(const AccumulationArgs& args) {
  require_sizes(args);
  Arena arena;
  if (args.rung != Rung::plain && cut(args.length).count > 1) take_scratch(arena, args);
  return arena.used();
}

void accumulate(const AccumulationArgs& args, Stream stream) {
  require_workspace(args.workspace, workspace_size(args));
  require_inputs(args);
  require_pointer(args.output, "output", args.batch * args.num_heads * args.length);
  require_pointer(args.final_state, "final_state", 0);
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
