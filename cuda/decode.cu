#include "attend_row.cuh"
#include "check.cuh"
#include "ptx.cuh"
#include "stages.cuh"

/// Attention and combination of few queries, whose cost is the bytes of the keys and values that
/// they choose. An item is a query row's window or one of its spans. Items are cut into pieces of a
/// fixed number of keys, so that a row's sums do not depend on its neighbours; a block streams one
/// piece, its warps a few keys at a time, and leaves a partial softmax. The last of a row's blocks
/// joins them in order. The launch overlaps the search: windows are attended to before it has
/// ended.
namespace multistep::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kLoads = 4;     // 16-byte loads of keys in flight per lane, and as many of values
constexpr int kMaxSlots = 4;  // of what decode_is_fast() takes

struct Decode {
  SpanAttend attend;  // its output and lse are not used
  Combine combine;
  std::int32_t piece;  // keys
  std::int32_t window_pieces;
  std::int32_t span_pieces;
  float* partials;         // [batch, heads, count, items and pieces, head_dim + 2]
  std::int32_t* counters;  // [batch, heads, count]
};

/// A power of two, where equals weigh 1: never exp2(inf - inf). NaN stays NaN.
__device__ float weight2(float x, float max) { return x == max ? 1.0f : ptx::exp2(x - max); }

/// A partial softmax of one lane: its 8 values of head_dim, for the keys that it saw. Logits, and
/// so `max`, are to base 2.
struct Partial {
  float max = -kInfinity;
  float sum = 0;
  float value[8] = {};

  __device__ void join(const Partial& other) {
    const float top = fmaxf(max, other.max);
    const float mine = max == -kInfinity ? 0 : weight2(max, top);
    const float theirs = other.max == -kInfinity ? 0 : weight2(other.max, top);
    max = top;
    sum = sum * mine + other.sum * theirs;
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] = value[i] * mine + other.value[i] * theirs;
  }
};

template <class T>
__device__ void widen(float (&to)[8], uint4 bits) {
  const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack<T>(words[i]);
    to[2 * i] = pair.x;
    to[2 * i + 1] = pair.y;
  }
}

/// Streams keys and values [begin, end) of one KV head through a block; this lane's share.
template <class T, int kHeadDim>
__device__ Partial stream_keys(const SpanAttend& attend, const Rows::Row& row, DeviceSpan keys) {
  constexpr int kLanes = kHeadDim / 8;  // that hold a key
  constexpr int kAtOnce = 32 / kLanes;  // keys of one load
  constexpr int kGroup = kAtOnce * kLoads;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const std::int64_t base = row.kv_row * kHeadDim + lane % kLanes * 8;
  const T* key = static_cast<const T*>(attend.key) + base;
  const T* value = static_cast<const T*>(attend.value) + base;
  float query[8];
  widen<T>(query, __ldg(reinterpret_cast<const uint4*>(static_cast<const T*>(attend.query) +
                                                       row.index * kHeadDim) +
                        lane % kLanes));
  const float scale = faulty(attend.rows.fault, Fault::scale_forgotten) ? 1 : attend.scale;
#pragma unroll
  for (float& q : query) q *= scale * kLog2E;

  Partial partial;
  for (std::int64_t group = keys.begin + warp * kGroup; group < keys.end;
       group += kWarps * kGroup) {
    uint4 key_bits[kLoads];
    uint4 value_bits[kLoads];
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const std::int64_t j = group + u * kAtOnce + lane / kLanes;
      const bool here = j < keys.end;
      const uint4* from = reinterpret_cast<const uint4*>(key + j * kHeadDim);
      key_bits[u] = here ? __ldg(from) : uint4{0, 0, 0, 0};
    }
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const std::int64_t j = group + u * kAtOnce + lane / kLanes;
      const bool here = j < keys.end;
      const uint4* from = reinterpret_cast<const uint4*>(value + j * kHeadDim);
      value_bits[u] = here ? __ldg(from) : uint4{0, 0, 0, 0};
    }
    float logit[kLoads];
    float max = partial.max;
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      float k[8];
      widen<T>(k, key_bits[u]);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) sum = fmaf(query[i], k[i], sum);
#pragma unroll
      for (int offset = kLanes / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kFullWarp, sum, offset);
      }
      const bool here = group + u * kAtOnce + lane / kLanes < keys.end;
      logit[u] = here || faulty(attend.rows.fault, Fault::mask_missing) ? sum : -kInfinity;
      max = fmaxf(max, logit[u]);
    }
    float shrink = weight2(partial.max, max);
    if (faulty(attend.rows.fault, Fault::rescale_forgotten)) shrink = 1;
    partial.max = max;
    partial.sum *= shrink;
#pragma unroll
    for (int i = 0; i < 8; ++i) partial.value[i] *= shrink;
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const float p = logit[u] == -kInfinity ? 0 : weight2(logit[u], max);
      float v[8];
      widen<T>(v, value_bits[u]);
      partial.sum += p;
#pragma unroll
      for (int i = 0; i < 8; ++i) partial.value[i] = fmaf(p, v[i], partial.value[i]);
    }
  }
  // Lanes that hold the same values of head_dim for other keys.
#pragma unroll
  for (int offset = kLanes; offset < 32; offset *= 2) {
    Partial other;
    other.max = __shfl_xor_sync(kFullWarp, partial.max, offset);
    other.sum = __shfl_xor_sync(kFullWarp, partial.sum, offset);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      other.value[i] = __shfl_xor_sync(kFullWarp, partial.value[i], offset);
    }
    if (lane & offset) {  // lower lane first, on both sides
      other.join(partial);
      partial = other;
    } else {
      partial.join(other);
    }
  }
  return partial;
}

/// Joins the warps of a block, in order, and stores head_dim values, maximum and sum.
template <int kHeadDim>
__device__ void store_partial(const Partial& partial, float* to) {
  __shared__ float warps[kWarps][kHeadDim + 2];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  if (lane < kHeadDim / 8) {
#pragma unroll
    for (int i = 0; i < 8; ++i) warps[warp][8 * lane + i] = partial.value[i];
  }
  if (lane == 0) {
    warps[warp][kHeadDim] = partial.max;
    warps[warp][kHeadDim + 1] = partial.sum;
  }
  __syncthreads();
  if (threadIdx.x < kHeadDim + 2) {
    float max = -kInfinity;
    for (int w = 0; w < kWarps; ++w) max = fmaxf(max, warps[w][kHeadDim]);
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) {
      const float of_warp = warps[w][kHeadDim];
      const float share = of_warp == -kInfinity ? 0 : weight2(of_warp, max);
      sum += share * warps[w][threadIdx.x == kHeadDim ? kHeadDim + 1 : threadIdx.x];
    }
    to[threadIdx.x] = threadIdx.x == kHeadDim ? max : sum;
    if (threadIdx.x == kHeadDim) to[kHeadDim + 1] = sum;
  }
}

/// A row's items, and their pieces that hold keys: what its last block joins.
struct RowPieces {
  static constexpr int kMost = (kMaxSlots + 1) * 33;
  int count[kMaxSlots + 1];  // pieces of an item; the window comes last
  int first[kMaxSlots + 2];  // of an item's pieces in the lists below
  int place[kMost];          // floats from the row's partials
  float max[kMost];
  float share[kMost];  // sum of weights, then the piece's share of the item
  float lse[kMaxSlots + 1];
};

/// Reads every piece's maximum and sum, and gives each its share of its item. Whole block.
template <int kHeadDim>
__device__ void share_out(RowPieces& row, const float* partials, int items, int span_pieces) {
  constexpr int kStride = kHeadDim + 2;
  if (threadIdx.x == 0) {
    row.first[0] = 0;
    for (int item = 0; item < items; ++item)
      row.first[item + 1] = row.first[item] + row.count[item];
  }
  __syncthreads();
  for (int item = 0; item < items; ++item) {
    for (int p = threadIdx.x; p < row.count[item]; p += kThreads) {
      const int at = row.first[item] + p;
      row.place[at] = (item * span_pieces + p) * kStride;
      row.max[at] = __ldcg(partials + row.place[at] + kHeadDim);
      row.share[at] = __ldcg(partials + row.place[at] + kHeadDim + 1);
    }
  }
  __syncthreads();
  const int item = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (item < items) {
    float max = -kInfinity;
    for (int at = row.first[item] + lane; at < row.first[item + 1]; at += 32) {
      max = fmaxf(max, row.max[at]);
    }
    for (int bit = 16; bit > 0; bit /= 2) max = fmaxf(max, __shfl_xor_sync(kFullWarp, max, bit));
    float sum = 0;
    const auto share_of = [&](int at) {
      return row.max[at] == -kInfinity ? 0 : weight2(row.max[at], max);
    };
    for (int at = row.first[item] + lane; at < row.first[item + 1]; at += 32) {
      sum += share_of(at) * row.share[at];
    }
    sum = warp_sum(sum);
    for (int at = row.first[item] + lane; at < row.first[item + 1]; at += 32) {
      row.share[at] = sum == 0 ? 0 : share_of(at) / sum;
    }
    if (lane == 0) row.lse[item] = sum == 0 ? -kInfinity : max * kLn2 + __logf(sum);
  }
  __syncthreads();
}

/// What each item counts in the output: gates, and window and span joined.
__device__ void weigh_items(float (&weights)[kMaxSlots + 1], const RowPieces& row,
                            const DeviceSpan* spans, const float* scores, int slots, int fault) {
  const int used = slots_in_use(spans, slots);
  const Gates gates = gates_of(scores, used);
  weights[slots] = used > 0 ? 0 : 1;
  for (int s = 0; s < slots; ++s) {
    weights[s] = 0;
    if (s >= used) continue;
    float gate = gates.of(scores[s]);
    if (faulty(fault, Fault::gates_equal)) gate = 1.0f / used;
    Joined joined = join(row.lse[s], row.lse[slots]);
    if (faulty(fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
    weights[s] = gate * joined.first;
    weights[slots] += gate * joined.second;
  }
}

template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads, 3)
    decode_pieces(__grid_constant__ const Decode decode) {
  const SpanAttend& attend = decode.attend;
  const int slots = attend.slots;
  const int row_pieces = decode.window_pieces + slots * decode.span_pieces;
  const std::int64_t rows = attend.rows.total();
  // Windows come first: they need not wait for the search.
  const std::int64_t block = blockIdx.x;
  const bool is_window = block < rows * decode.window_pieces;
  const std::int64_t rest = is_window ? block : block - rows * decode.window_pieces;
  const int of_item = is_window ? decode.window_pieces : slots * decode.span_pieces;
  const Rows::Row row = attend.rows.at(rest / of_item);
  const int within = static_cast<int>(rest % of_item);
  const int slot = is_window ? slots : within / decode.span_pieces;
  const int piece = is_window ? within : within % decode.span_pieces;

  __shared__ DeviceSpan spans[kMaxSlots];  // as chosen
  __shared__ float scores[kMaxSlots];
  const auto wait_for_search = [&] {
    ptx::wait_for_previous_kernel();
    if (threadIdx.x < slots) {
      spans[threadIdx.x] = attend.spans[row.index * slots + threadIdx.x];
      scores[threadIdx.x] = decode.combine.scores[row.index * slots + threadIdx.x];
    }
    __syncthreads();
  };
  if (!is_window) wait_for_search();

  constexpr int kStride = kHeadDim + 2;
  float* const row_partials = decode.partials + row.dense * row_pieces * kStride;
  const auto partials_of = [&](int item) {  // the window's come last
    return row_partials + static_cast<std::int64_t>(item) * decode.span_pieces * kStride;
  };
  const DeviceSpan keys =
      is_window ? attend.rows.window_keys(row) : attend.rows.attended(spans[slot], row);
  const std::int64_t begin = keys.begin + static_cast<std::int64_t>(piece) * decode.piece;
  if (begin < keys.end) {
    const std::int64_t end = min(begin + decode.piece, static_cast<std::int64_t>(keys.end));
    const Partial partial = stream_keys<T, kHeadDim>(
        attend, row, {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)});
    store_partial<kHeadDim>(partial, partials_of(slot) + piece * kStride);
  }
  if (is_window) wait_for_search();

  // The last block of the row to come by joins the pieces.
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(decode.counters + row.dense, 1) == row_pieces - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  __shared__ RowPieces pieces;
  if (threadIdx.x <= slots) {
    const DeviceSpan span = static_cast<int>(threadIdx.x) == slots
                                ? attend.rows.window_keys(row)
                                : attend.rows.attended(spans[threadIdx.x], row);
    pieces.count[threadIdx.x] =
        span.end > span.begin ? (span.end - span.begin + decode.piece - 1) / decode.piece : 0;
  }
  __syncthreads();
  share_out<kHeadDim>(pieces, row_partials, slots + 1, decode.span_pieces);
  __shared__ float weights[kMaxSlots + 1];
  if (threadIdx.x == 0) weigh_items(weights, pieces, spans, scores, slots, attend.rows.fault);
  __syncthreads();
  for (int item = 0; item <= slots; ++item) {
    for (int at = pieces.first[item] + threadIdx.x; at < pieces.first[item + 1]; at += kThreads) {
      pieces.share[at] *= weights[item];
    }
  }
  __syncthreads();

  constexpr int kParts = kThreads / kHeadDim;  // threads that share a value of head_dim
  __shared__ float parts[kParts][kHeadDim];
  const int d = threadIdx.x % kHeadDim;
  const int part = threadIdx.x / kHeadDim;
  float sum = 0;
#pragma unroll 8
  for (int at = part; at < pieces.first[slots + 1]; at += kParts) {
    sum = fmaf(pieces.share[at], __ldcg(row_partials + pieces.place[at] + d), sum);
  }
  parts[part][d] = sum;
  __syncthreads();
  if (part != 0) return;
  for (int other = 1; other < kParts; ++other) sum += parts[other][d];
  static_cast<T*>(decode.combine.output)[row.index * kHeadDim + d] = from_float<T>(sum);
}

/// How many keys a piece has: about 256, and at most 33 pieces of a window or span. The schedule's
/// lengths decide it, not the batch.
struct Pieces {
  std::int32_t keys;
  std::int32_t of_window;
  std::int32_t of_span;

  Pieces(const Rows& rows, std::int64_t max_span) {
    const std::int64_t context = rows.key_offset + rows.keys;
    const std::int64_t window = std::min<std::int64_t>(rows.window, context);
    const std::int64_t span = std::min(max_span, context);
    const std::int64_t longest = std::max<std::int64_t>({window, span, 1});
    // A power of the paper's makes spans of one key more than a round number.
    const std::int64_t count = std::clamp<std::int64_t>((longest + 128) / 256, 1, 32);
    const std::int64_t size = (longest + count - 1) / count;
    keys = static_cast<std::int32_t>((size + 15) / 16 * 16);
    of_window = static_cast<std::int32_t>((window + keys - 1) / keys);
    of_span = static_cast<std::int32_t>(std::max<std::int64_t>((span + keys - 1) / keys, 1));
  }
  Index per_row(int slots) const { return of_window + static_cast<Index>(slots) * of_span; }
};

template <class T, int kHeadDim>
void launch(const Decode& decode, unsigned blocks, Stream stream) {
  // Without a search ahead, the kernel before may be the one that writes the keys.
  launch_kernel({blocks, kThreads, stream, decode.attend.slots > 0}, decode_pieces<T, kHeadDim>,
                decode);
}

}  // namespace

bool decode_is_fast(const Rows& rows, int slots) {
  return (rows.head_dim == 64 || rows.head_dim == 128) && slots <= kMaxSlots;
}

std::size_t decode_bytes(const Rows& rows, int slots, std::int64_t max_span) {
  Arena arena;
  arena.take<float>(rows.total() * Pieces(rows, max_span).per_row(slots) * (rows.head_dim + 2));
  return arena.used();
}

void decode(const SpanAttend& attend, const Combine& combine, std::int64_t max_span,
            std::int32_t* counters, void* workspace, Stream stream) {
  const Pieces pieces(attend.rows, max_span);
  const std::int64_t blocks = attend.rows.total() * pieces.per_row(attend.slots);
  if (blocks == 0) return;
  const Decode arguments{attend,           combine,        pieces.keys,
                         pieces.of_window, pieces.of_span, static_cast<float*>(workspace),
                         counters};
  const bool wide = attend.rows.head_dim == 128;
  if (attend.dtype == Dtype::bf16) {
    wide ? launch<bf16, 128>(arguments, static_cast<unsigned>(blocks), stream)
         : launch<bf16, 64>(arguments, static_cast<unsigned>(blocks), stream);
  } else {
    wide ? launch<fp16, 128>(arguments, static_cast<unsigned>(blocks), stream)
         : launch<fp16, 64>(arguments, static_cast<unsigned>(blocks), stream);
  }
}

}  // namespace multistep::cuda
