#include "check.cuh"
#include "ptx.cuh"
#include "stages.cuh"
#include "top_k.cuh"

/// Attention and combination of few queries, whose cost is the bytes of the keys and values that
/// they choose. An item is a query row's window or one of its spans. Items are cut into pieces of a
/// fixed number of keys, so that a row's sums do not depend on its neighbours; a block streams one
/// piece, its warps 16 (head_dim 128) or 32 keys at a time, and leaves a partial softmax. The last
/// of a row's blocks joins them in order. There is no second launch, and nothing waits but for the
/// search, whose last lists every block merges for its own row.
namespace multistep::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kLoads = 8;     // 16-byte loads of keys in flight per lane, and as many of values
constexpr int kMaxSlots = 4;  // of what decode_is_fast() takes

struct Decode {
  SpanAttend attend;  // its output and lse are not used
  Combine combine;
  LevelSearch search;  // the last level
  SearchLists lists;   // null: merged already
  std::int32_t piece;  // keys
  std::int32_t window_pieces;
  std::int32_t span_pieces;
  float* partials;         // [batch, heads, count, items and pieces, head_dim + 2]
  std::int32_t* counters;  // [batch, heads, count]
};

/// A partial softmax of one lane: its 8 values of head_dim, for the keys that it saw.
struct Partial {
  float max = -kInfinity;
  float sum = 0;
  float value[8] = {};

  __device__ void join(const Partial& other) {
    const float top = fmaxf(max, other.max);
    const float mine = max == -kInfinity ? 0 : weight(max, top);
    const float theirs = other.max == -kInfinity ? 0 : weight(other.max, top);
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
  constexpr int kLanes = kHeadDim / 8;    // that hold a key
  constexpr int kAtOnce = 32 / kLanes;    // keys of one load
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
  for (float& q : query) q *= scale;

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
    float shrink = partial.max == max ? 1 : weight(partial.max, max);
    if (faulty(attend.rows.fault, Fault::rescale_forgotten)) shrink = 1;
    partial.max = max;
    partial.sum *= shrink;
#pragma unroll
    for (int i = 0; i < 8; ++i) partial.value[i] *= shrink;
#pragma unroll
    for (int u = 0; u < kLoads; ++u) {
      const float p = logit[u] == -kInfinity ? 0 : weight(logit[u], max);
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
      const float share = of_warp == -kInfinity ? 0 : weight(of_warp, max);
      sum += share * warps[w][threadIdx.x == kHeadDim ? kHeadDim + 1 : threadIdx.x];
    }
    to[threadIdx.x] = threadIdx.x == kHeadDim ? max : sum;
    if (threadIdx.x == kHeadDim) to[kHeadDim + 1] = sum;
  }
}

/// Joins the pieces of an item, in order: normalized output of this thread's value, and lse.
struct ItemOutput {
  float value;
  float lse;
};
template <int kHeadDim>
__device__ ItemOutput join_pieces(const float* partials, int pieces, int d) {
  constexpr int kStride = kHeadDim + 2;
  float max = -kInfinity;
  for (int p = 0; p < pieces; ++p) max = fmaxf(max, __ldcg(partials + p * kStride + kHeadDim));
  float sum = 0;
  float value = 0;
  for (int p = 0; p < pieces; ++p) {
    const float* piece = partials + p * kStride;
    const float of_piece = __ldcg(piece + kHeadDim);
    const float share = of_piece == -kInfinity ? 0 : weight(of_piece, max);
    sum += share * __ldcg(piece + kHeadDim + 1);
    value += share * __ldcg(piece + d);
  }
  if (sum == 0) return {0, -kInfinity};
  return {value / sum, max + __logf(sum)};
}

template <class T, int kHeadDim, int kTopK>
__global__ void __launch_bounds__(kThreads, 2) decode_pieces(__grid_constant__ const Decode decode) {
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
    if (threadIdx.x < 32 && slots > 0) {
      const int lane = threadIdx.x;
      Kept kept;
      const std::int64_t at = row.index * slots + lane;
      if (decode.lists.lists) {
        kept = finish_row<kTopK>(decode.search, decode.lists, row);
        if (lane < slots && !is_window && within == 0) store_slot(decode.search, at, kept);
      } else if (lane < slots) {
        kept.span = attend.spans[at];
        kept.path.score = decode.combine.scores[at];
      }
      if (lane < slots) {
        spans[lane] = kept.span;
        scores[lane] = kept.path.score;
      }
    }
    __syncthreads();
  };
  if (!is_window) wait_for_search();

  constexpr int kStride = kHeadDim + 2;
  float* const row_partials = decode.partials + row.dense * row_pieces * kStride;
  const auto partials_of = [&](int item) {  // the window's come last
    return row_partials + static_cast<std::int64_t>(item) * decode.span_pieces * kStride;
  };
  const DeviceSpan keys = is_window ? attend.rows.window_keys(row)
                                    : attend.rows.attended(spans[slot], row);
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
  const int d = threadIdx.x;
  if (d >= kHeadDim) return;
  const auto pieces_of = [&](DeviceSpan span) {
    return span.end > span.begin ? (span.end - span.begin + decode.piece - 1) / decode.piece : 0;
  };
  const ItemOutput window =
      join_pieces<kHeadDim>(partials_of(slots), pieces_of(attend.rows.window_keys(row)), d);
  const int used = slots_in_use(spans, slots);
  const Gates gates = gates_of(scores, used);
  float sum = used > 0 ? 0 : window.value;
  for (int s = 0; s < used; ++s) {
    const ItemOutput span = join_pieces<kHeadDim>(
        partials_of(s), pieces_of(attend.rows.attended(spans[s], row)), d);
    float gate = gates.of(scores[s]);
    if (faulty(attend.rows.fault, Fault::gates_equal)) gate = 1.0f / used;
    Joined joined = join(span.lse, window.lse);
    if (faulty(attend.rows.fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
    sum += gate * (joined.first * span.value + joined.second * window.value);
  }
  static_cast<T*>(decode.combine.output)[row.index * kHeadDim + d] = from_float<T>(sum);
}

/// Pieces are at least 512 keys, and at most 64 of a window or span: a bound that the schedule's
/// lengths give, not the batch.
struct Pieces {
  std::int32_t keys;
  std::int32_t of_window;
  std::int32_t of_span;

  Pieces(const Rows& rows, std::int64_t max_span) {
    const std::int64_t context = rows.key_offset + rows.keys;
    const std::int64_t window = std::min<std::int64_t>(rows.window, context);
    const std::int64_t span = std::min(max_span, context);
    std::int64_t size = 512;
    while (size * 64 < std::max(window, span)) size *= 2;
    keys = static_cast<std::int32_t>(size);
    of_window = static_cast<std::int32_t>((window + size - 1) / size);
    of_span = static_cast<std::int32_t>(std::max<std::int64_t>((span + size - 1) / size, 1));
  }
  Index per_row(int slots) const { return of_window + static_cast<Index>(slots) * of_span; }
};

template <class T, int kHeadDim>
void launch(const Decode& decode, unsigned blocks, Stream stream) {
  const auto kernel = decode.attend.slots <= 2 ? decode_pieces<T, kHeadDim, 2>
                                               : decode_pieces<T, kHeadDim, 4>;
  if (decode.attend.slots > 0) {
    launch_dependent(kernel, blocks, kThreads, stream, decode);
  } else {  // no search goes ahead: the kernel before may be the one that writes the keys
    kernel<<<blocks, kThreads, 0, stream>>>(decode);
    check_launch("decode_pieces");
  }
}

}  // namespace

bool decode_is_fast(const Rows& rows, int slots) {
  return (rows.head_dim == 64 || rows.head_dim == 128) && slots <= kMaxSlots;
}

std::size_t decode_bytes(const Rows& rows, int slots, std::int64_t max_span) {
  Arena arena(nullptr);
  arena.take<float>(rows.total() * Pieces(rows, max_span).per_row(slots) * (rows.head_dim + 2));
  return arena.used();
}

void decode(const SpanAttend& attend, const Combine& combine, const LevelSearch* search,
            const SearchLists* lists, std::int64_t max_span, std::int32_t* counters,
            void* workspace, Stream stream) {
  const Pieces pieces(attend.rows, max_span);
  const std::int64_t blocks = attend.rows.total() * pieces.per_row(attend.slots);
  if (blocks == 0) return;
  const Decode arguments{attend,
                         combine,
                         search ? *search : LevelSearch{},
                         lists ? *lists : SearchLists{},
                         pieces.keys,
                         pieces.of_window,
                         pieces.of_span,
                         static_cast<float*>(workspace),
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
