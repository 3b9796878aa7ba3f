#include "attend_row.cuh"
#include "check.cuh"
#include "decode_tile.cuh"
#include "ptx.cuh"
#include "stages.cuh"

/// Attention and combination of few queries, whose cost is the bytes of the keys and values that
/// they choose. An item is a query row's window or one of its spans; the heads of a KV head read
/// their window together. Items are cut into pieces of a fixed number of keys, so that a row's sums
/// do not depend on its neighbours. A block streams one piece, each warp 16 keys at a time through
/// shared memory of its own, and leaves partial softmaxes; the last of a row's blocks joins them in
/// order. The launch overlaps the search: windows are attended to before it has ended.
namespace multistep::cuda {
namespace {

constexpr int kMaxSlots = 4;    // of what decode_is_fast() takes
constexpr int kMaxPieces = 32;  // of an item: a warp weighs them

struct Decode {
  SpanAttend attend;  // its output and lse are not used
  Combine combine;
  std::int32_t piece;  // keys
  std::int32_t window_pieces;
  std::int32_t span_pieces;
  float* partials;         // [batch, heads, count, items and pieces, head_dim + 4]
  std::int32_t* counters;  // [batch, heads, count]
};

/// The spans of a block's heads, as chosen: lane i has slot i % slots of head i / slots.
struct TileSpans {
  DeviceSpan span{0, 0};
  float score = -kInfinity;

  __device__ TileSpans(const Decode& decode, const Rows::Row& first_row, int heads) {
    const int lane = threadIdx.x % 32;
    const int slots = decode.attend.slots;
    if (lane >= heads * slots) return;
    const std::int64_t row =
        first_row.index + lane / slots * static_cast<std::int64_t>(decode.attend.rows.queries);
    span = decode.attend.spans[row * slots + lane % slots];
    score = decode.combine.scores[row * slots + lane % slots];
  }

  /// The lane of the span that comes `place`-th in the order of their first keys: spans that
  /// overlap are attended to at about the same time, and read keys that are in the L2 cache.
  __device__ int lane_at(int place, int count) const {
    const int lane = threadIdx.x % 32;
    int before = lane < count ? 0 : 32;
    for (int other = 0; other < count; ++other) {
      const std::int32_t begin = __shfl_sync(kFullWarp, span.begin, other);
      before += begin < span.begin || (begin == span.begin && other < lane);
    }
    return __ffs(static_cast<int>(__ballot_sync(kFullWarp, before == place))) - 1;
  }
};

/// Joins a row's pieces and combines its items, the window last. Every warp weighs the pieces; each
/// sums 32 values of head_dim.
template <class T, int kHeadDim>
__device__ void join_row(const Decode& decode, const Rows::Row& row, const TileSpans& chosen,
                         int head, const float* partials) {
  const SpanAttend& attend = decode.attend;
  const int slots = attend.slots;
  const int lane = threadIdx.x % 32;
  // Of lane s: slot s.
  const int from = (head * slots + lane) % 32;
  const float score = __shfl_sync(kFullWarp, chosen.score, from);
  const DeviceSpan span{__shfl_sync(kFullWarp, chosen.span.begin, from),
                        __shfl_sync(kFullWarp, chosen.span.end, from)};
  const DeviceSpan keys =
      lane == slots ? attend.rows.window_keys(row) : attend.rows.attended(span, row);
  // No more than there are blocks for: a length beyond the plan's is cut off.
  const int most = lane == slots ? decode.window_pieces : decode.span_pieces;
  const int pieces =
      lane <= slots ? min((keys.end - keys.begin + decode.piece - 1) / decode.piece, most) : 0;

  // Of each item: this lane's piece, its share of the item; the item's log-sum-exp.
  float share[kMaxSlots + 1];
  float lse[kMaxSlots + 1];
  int count[kMaxSlots + 1];
  const auto item_partials = [&](int item) {
    return partials + static_cast<std::int64_t>(item) * decode.span_pieces * kStride<kHeadDim>;
  };
  float max[kMaxSlots + 1];
  float sum[kMaxSlots + 1];
#pragma unroll
  for (int item = 0; item <= kMaxSlots; ++item) {
    count[item] = __shfl_sync(kFullWarp, pieces, item);
    max[item] = -kInfinity;
    sum[item] = 0;
    if (lane >= count[item]) continue;
    const float* piece = item_partials(item) + lane * kStride<kHeadDim>;
    const float2 both = __ldcg(reinterpret_cast<const float2*>(piece + kHeadDim));
    max[item] = both.x;
    sum[item] = both.y;
  }
#pragma unroll
  for (int item = 0; item <= kMaxSlots; ++item) {
    float top = max[item];
    for (int bit = 16; bit > 0; bit /= 2) top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, bit));
    const float weight = max[item] == -kInfinity ? 0 : weight2(max[item], top);
    const float total = warp_sum(weight * sum[item]);
    share[item] = total == 0 ? 0 : weight / total;
    lse[item] = total == 0 ? -kInfinity : top * kLn2 + __logf(total);
  }

  // What each item counts in the output: gates, and window and span joined.
  float of_slot[kMaxSlots];
  float used = 0;
  float best = -kInfinity;
  float all = 0;
  float of_window_lse = -kInfinity;
#pragma unroll
  for (int s = 0; s <= kMaxSlots; ++s) of_window_lse = s == slots ? lse[s] : of_window_lse;
#pragma unroll
  for (int s = 0; s < kMaxSlots; ++s) {
    of_slot[s] = __shfl_sync(kFullWarp, score, s);
    const bool some = __shfl_sync(kFullWarp, span.end > span.begin, s);
    if (s >= slots || !some || used != s) continue;
    used = s + 1;
    best = fmaxf(best, of_slot[s]);
  }
#pragma unroll
  for (int s = 0; s < kMaxSlots; ++s) {
    of_slot[s] = s < used ? weight(of_slot[s], best) : 0;
    all += of_slot[s];
  }
  float of_window = used > 0 ? 0 : 1;
#pragma unroll
  for (int s = 0; s < kMaxSlots; ++s) {
    if (s >= used) continue;
    float gate = of_slot[s] / all;
    if (faulty(attend.rows.fault, Fault::gates_equal)) gate = 1 / used;
    Joined joined = join(lse[s], of_window_lse);
    if (faulty(attend.rows.fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
    of_slot[s] = gate * joined.first;
    of_window += gate * joined.second;
  }

  const int d = threadIdx.x;
  if (d >= kHeadDim) return;  // whole warps
  float output = 0;
#pragma unroll
  for (int item = 0; item <= kMaxSlots; ++item) {
    if (item > slots) break;
    const float factor = item == slots ? of_window : of_slot[min(item, kMaxSlots - 1)];
    const float part = factor * share[item];
    const float* piece = item_partials(item) + d;
    constexpr int kAtOnce = 8;  // loads in flight
    for (int first = 0; first < count[item]; first += kAtOnce) {
      float value[kAtOnce];
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        value[p] = first + p < count[item] ? __ldcg(piece + (first + p) * kStride<kHeadDim>) : 0;
      }
#pragma unroll
      for (int p = 0; p < kAtOnce; ++p) {
        output = fmaf(__shfl_sync(kFullWarp, part, first + p), value[p], output);
      }
    }
  }
  static_cast<T*>(decode.combine.output)[row.index * kHeadDim + d] = from_float<T>(output);
}

/// blockIdx.x: a query with up to 8 heads of one KV head. blockIdx.y: a piece of their window,
/// then of a head's span; windows come first, as they need not wait for the search.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads, 4)
    decode_pieces(__grid_constant__ const Decode decode) {
  const SpanAttend& attend = decode.attend;
  const Rows& rows = attend.rows;
  const auto slots = static_cast<unsigned>(attend.slots);
  const auto span_pieces = static_cast<unsigned>(decode.span_pieces);
  const bool is_window = blockIdx.y < decode.window_pieces;
  const unsigned rest = is_window ? blockIdx.y : blockIdx.y - decode.window_pieces;
  const unsigned place =
      is_window ? 0 : rest / span_pieces;  // of the span among the block's heads'
  const unsigned piece = rest - place * span_pieces;
  const HeadTile<kHeads> unit(rows, blockIdx.x);
  const int count = unit.heads * attend.slots;
  if (!is_window && place >= count) return;
  const Rows::Row first_row = rows.row(unit.batch, unit.first_head, unit.query);

  if (!is_window) ptx::wait_for_previous_kernel();
  TileSpans chosen(decode, first_row, is_window ? 0 : unit.heads);
  int head = 0;
  int heads = unit.heads;
  unsigned slot = slots;  // the window
  if (!is_window) {
    const int lane = chosen.lane_at(place, count);
    head = lane / attend.slots;
    heads = 1;
    slot = lane - head * attend.slots;
  }
  const Rows::Row row = rows.row(unit.batch, unit.first_head + head, unit.query);
  const std::int64_t row_pieces = decode.window_pieces + slots * span_pieces;
  const auto partials_of = [&](int h) {  // of the row `h` heads further
    return decode.partials +
           (row.dense + static_cast<std::int64_t>(h) * rows.count) * row_pieces * kStride<kHeadDim>;
  };
  extern __shared__ char memory[];
  DeviceSpan keys;
  if (is_window) {
    keys = rows.window_keys(row);
  } else {
    const int lane = head * attend.slots + slot;
    keys = rows.attended({__shfl_sync(kFullWarp, chosen.span.begin, lane),
                          __shfl_sync(kFullWarp, chosen.span.end, lane)},
                         row);
  }
  const std::int64_t begin = keys.begin + static_cast<std::int64_t>(piece) * decode.piece;
  if (begin < keys.end) {
    const std::int64_t end = min(begin + decode.piece, static_cast<std::int64_t>(keys.end));
    WarpSums<kHeadDim> sums;
    stream_keys<T, kHeadDim>(sums, attend, row, heads,
                             {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)},
                             *reinterpret_cast<Ring<kHeadDim>*>(memory));
    __syncthreads();
    auto& block = *reinterpret_cast<BlockSums<kHeadDim>*>(memory);
    block.put(sums, heads);
    __syncthreads();
    for (int h = 0; h < heads; ++h) {
      block.store(h, partials_of(h) + (slot * span_pieces + piece) * kStride<kHeadDim>);
    }
  }
  if (is_window) {
    ptx::wait_for_previous_kernel();
    chosen = TileSpans(decode, first_row, unit.heads);
  }

  // The last block of a row to come by joins its pieces.
  __shared__ bool last[kHeads];
  __threadfence();
  __syncthreads();
  if (threadIdx.x < heads) {
    std::int32_t* counter =
        decode.counters + row.dense + threadIdx.x * static_cast<std::int64_t>(rows.count);
    last[threadIdx.x] = atomicAdd(counter, 1) == row_pieces - 1;
  }
  __syncthreads();
  __threadfence();
  for (int h = 0; h < heads; ++h) {
    if (!last[h]) continue;
    join_row<T, kHeadDim>(decode, rows.row(unit.batch, unit.first_head + head + h, unit.query),
                          chosen, head + h, partials_of(h));
  }
}

/// How many keys a piece has: about 256, fewer of short items, more where there would be more than
/// 32 pieces. The schedule's and the arrays' lengths decide it, not the batch.
struct Pieces {
  std::int32_t keys;
  std::int32_t of_window;
  std::int32_t of_span;

  Pieces(const Rows& rows, std::int64_t max_span) {
    const std::int64_t context = rows.key_offset + rows.keys;
    const std::int64_t window = std::min<std::int64_t>(rows.window, context);
    const std::int64_t span = std::min(max_span, context);
    const std::int64_t longest = std::max<std::int64_t>({window, span, 1});
    const std::int64_t about = longest <= 1024 ? 128 : 256;
    // Rounded: the paper's power makes spans of one key more than a round number.
    const std::int64_t count =
        std::clamp<std::int64_t>((longest + about / 2) / about, 1, kMaxPieces);
    const std::int64_t size = (longest + count - 1) / count;
    keys = static_cast<std::int32_t>((size + 15) / 16 * 16);
    of_window = static_cast<std::int32_t>((window + keys - 1) / keys);
    of_span = static_cast<std::int32_t>(std::max<std::int64_t>((span + keys - 1) / keys, 1));
  }
  Index per_row(int slots) const { return of_window + static_cast<Index>(slots) * of_span; }
};

template <class T, int kHeadDim>
void launch(const Decode& decode, Stream stream) {
  const Rows& rows = decode.attend.rows;
  const auto kernel = decode_pieces<T, kHeadDim>;
  constexpr std::size_t kBytes = std::max(sizeof(Ring<kHeadDim>), sizeof(BlockSums<kHeadDim>));
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "cudaFuncSetAttribute");
  const int heads = std::min(rows.group(), kHeads);
  Launch how{};
  how.blocks = static_cast<unsigned>(HeadTile<kHeads>::count(rows));
  how.blocks_y = static_cast<unsigned>(decode.window_pieces +
                                       heads * decode.attend.slots * decode.span_pieces);
  how.threads = kThreads;
  how.stream = stream;
  how.shared_bytes = kBytes;
  how.mostly_shared = true;
  how.early = decode.attend.slots > 0;  // else the kernel before may be what writes the keys
  launch_kernel(how, kernel, decode);
}

}  // namespace

bool decode_is_fast(const Rows& rows, int slots) {
  return (rows.head_dim == 64 || rows.head_dim == 128) && slots <= kMaxSlots;
}

std::size_t decode_bytes(const Rows& rows, int slots, std::int64_t max_span) {
  Arena arena;
  arena.take<float>(rows.total() * Pieces(rows, max_span).per_row(slots) * (rows.head_dim + 4));
  return arena.used();
}

void decode(const SpanAttend& attend, const Combine& combine, std::int64_t max_span,
            std::int32_t* counters, void* workspace, Stream stream) {
  const Pieces pieces(attend.rows, max_span);
  if (attend.rows.total() * pieces.per_row(attend.slots) == 0) return;
  const Decode arguments{attend,           combine,        pieces.keys,
                         pieces.of_window, pieces.of_span, static_cast<float*>(workspace),
                         counters};
  const bool wide = attend.rows.head_dim == 128;
  if (attend.dtype == Dtype::bf16) {
    wide ? launch<bf16, 128>(arguments, stream) : launch<bf16, 64>(arguments, stream);
  } else {
    wide ? launch<fp16, 128>(arguments, stream) : launch<fp16, 64>(arguments, stream);
  }
}

}  // namespace multistep::cuda
