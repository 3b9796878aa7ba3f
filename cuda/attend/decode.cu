#include <algorithm>

#include "api/check.cuh"
#include "attend/decode_join.cuh"
#include "attend/decode_spans.cuh"
#include "attend/decode_tile.cuh"
#include "device/row_type.cuh"

/// Attention and combination of few queries, whose cost is the bytes of the keys and values that
/// they choose. An item is a query row's window or one of its spans. Windows are cut into pieces of
/// a number of keys that the schedule and the query's position decide, spans at the absolute
/// multiples of that number: a row's sums depend neither on its neighbours nor on the cache's
/// capacity, and yet whoever of a KV head attends to keys of a piece reads it in one go. A block
/// streams one piece, each warp 16 keys at a time through shared memory of its own, and leaves
/// partial softmaxes; the last of a row's blocks joins them in order. The launch overlaps the
/// search: windows are attended to before it has ended.
namespace multistep::cuda {
namespace {

/// Of a block: for tiles on their way, then for its warps' sums, then for the join.
template <int kHeadDim>
constexpr int kSharedBytes = std::max<int>({sizeof(TileBuffers<kHeadDim>),
                                            sizeof(BlockSums<kHeadDim>), 32 * 1024});
template <int kHeadDim>
constexpr bool kPartsFit =
    kSharedBytes<kHeadDim> / DecodeBlock::kWarps - JoinMemory<kHeadDim>::kFixed >= 4 * kHeadDim * 4;
static_assert(kPartsFit<128> && kPartsFit<kMaxHeadDim>, "room for parts");

/// Blocks of a multiprocessor, by their registers and memory.
template <int kHeadDim>
constexpr int kResident = kHeadDim <= 128 ? 4 : 3;

/// What remains to be done of some tasks.
enum class Remaining {
  nothing,
  keys,  // the piece is long, and attended to in parts of kPartKeys
  all,   // one by one. Where a task's sums are not finite, a value that is NaN or infinite may be
         // another task's, and a weight of 0 does not keep it out of a matrix product. Alone a task
         // reads no keys but its own, and its sums are the bits that they would have been.
};

/// Attends to a part of a piece for up to DecodeBlock::kTasks tasks, and stores their partial
/// softmaxes, joined with those of the `parts` before it. Whole block.
template <class T, int kHeadDim, bool kPaged>
__device__ Remaining attend_tasks(const Decode& decode, const Rows::Row& row, std::int64_t origin,
                                  int parts, const PieceTask* tasks, int count, float* partials,
                                  char* memory) {
  const int lane = threadIdx.x % 32;
  PieceTask task = tasks[min(lane / 4, count - 1)];
  const DeviceSpan range{__reduce_min_sync(kFullWarp, task.keys.begin),
                         __reduce_max_sync(kFullWarp, task.keys.end)};
  if (lane / 4 >= count) task = {-1, 0, {0, 0}};
  const int begin = (range.begin & -kPartKeys) + parts * kPartKeys;
  const DeviceSpan keys{max(range.begin, begin), min(range.end, begin + kPartKeys)};
  WarpSums<kHeadDim> sums;
  stream_keys<T, kHeadDim, kPaged>(sums, decode.attend, row, origin, keys, task,
                                   *reinterpret_cast<TileBuffers<kHeadDim>*>(memory));
  __syncthreads();
  auto& block = *reinterpret_cast<BlockSums<kHeadDim>*>(memory);
  block.put(sums, count);
  __syncthreads();
  bool spoiled = false;
#pragma unroll 1
  for (int s = threadIdx.x / 32; s < count; s += DecodeBlock::kWarps) {
    const std::int64_t at =
        tasks[s].head * static_cast<std::int64_t>(decode.attend.rows.count) * decode.row_parts() +
        tasks[s].part;
    const bool more = parts > 0 && !faulty(decode.attend.rows.fault, Fault::earlier_parts_lost);
    const bool finite = block.store(s, more, partials + at * kPartialStride<kHeadDim>);
    const DeviceSpan own = tasks[s].keys;
    spoiled = spoiled || (!finite && (own.begin > range.begin || own.end < range.end));
  }
  if (faulty(decode.attend.rows.fault, Fault::repair_skipped)) spoiled = false;
  if (__syncthreads_or(spoiled)) return Remaining::all;
  return keys.end < range.end ? Remaining::keys : Remaining::nothing;
}

/// blockIdx.x: a query with up to 16 heads of one KV head, fewer of many slots. blockIdx.y: a piece
/// of the window for 8 of them, then a piece of a span for all of kRows heads whose spans touch it;
/// windows come first, as they need not wait for the search. Of spans that share a piece, the first
/// one's block attends to it.
template <class T, int kHeadDim, bool kPaged>
__global__ void __launch_bounds__(DecodeBlock::kThreads, kResident<kHeadDim>)
    decode_pieces(__grid_constant__ const Decode decode) {
  extern __shared__ __align__(16) char memory[];
  __shared__ BlockChoices shared;
  const Rows& rows = decode.attend.rows;
  const int slots = decode.attend.slots;
  const int lane = threadIdx.x % 32;
  const HeadTile unit(rows, decode.heads, blockIdx.x);
  const Rows::Row row = rows.row(unit.batch, unit.first_head, unit.query);
  const DeviceSpan window = rows.window_keys(row);
  const std::int32_t piece_keys = decode.piece_of(row.position);
  int window_pieces = 0;  // of this query
  if (window.end > window.begin) {
    window_pieces = min((window.end - window.begin - 1) / piece_keys + 1, decode.window_pieces);
  }
  const unsigned window_blocks = decode.window_blocks();
  const bool is_window = blockIdx.y < decode.window_pieces * window_blocks;

  int first_head = 0;  // the heads that this block may be the last of
  int heads = unit.heads;
  bool first_of_all = false;  // of the blocks of these heads
  std::int64_t origin = 0;    // of the piece, in rows of the arrays
  int tasks = 0;              // taken
  if (is_window) {
    const int part = static_cast<int>(blockIdx.y / window_blocks);
    first_head = static_cast<int>(blockIdx.y - part * window_blocks) * DecodeBlock::kTasks;
    heads = min(unit.heads - first_head, DecodeBlock::kTasks);
    first_of_all = part == 0;
    if (heads <= 0 || (part >= window_pieces && !first_of_all)) return;
    const std::int64_t begin = window.begin + static_cast<std::int64_t>(part) * piece_keys;
    origin += begin;
    tasks = part < window_pieces ? heads : 0;
    const auto left = static_cast<std::int32_t>(window.end - begin);
    if (threadIdx.x < tasks) {
      shared.task[threadIdx.x] = {.head = first_head + static_cast<int>(threadIdx.x),
                                  .part = slots * decode.span_pieces + part,
                                  .keys = {0, min(left, piece_keys)}};
    }
  } else {
    const auto rest = static_cast<int>(blockIdx.y - decode.window_pieces * window_blocks);
    const int span = rest / decode.span_pieces;
    first_of_all = decode.window_pieces == 0 && rest == 0;
    if (span >= unit.heads * slots) return;
    const BlockSpans spans(decode, row, unit.heads, shared);
    const std::int32_t piece = spans.first_of(span) + rest - span * decode.span_pieces;
    std::uint64_t touching = spans.touching(piece, span, slots);
    const bool mine = __ffsll(static_cast<long long>(touching)) - 1 == span;
    if (!mine && !first_of_all) return;
    if (!mine) touching = 0;
    origin += static_cast<std::int64_t>(piece) * piece_keys;
    tasks = __popcll(touching);
    if (threadIdx.x < 32) spans.list_tasks(decode, piece, touching, shared);
  }
  __syncthreads();

  float* partials = decode.partials + row.dense * decode.row_parts() * kPartialStride<kHeadDim>;
  int alone = 0;  // tasks before this one are attended to one by one
  int parts = 0;  // of a long piece that they have attended to
  for (int task = 0; task < tasks;) {
    const int count = task < alone ? 1 : min(DecodeBlock::kTasks, tasks - task);
    const Remaining remaining = attend_tasks<T, kHeadDim, kPaged>(
        decode, row, origin, parts, shared.task + task, count, partials, memory);
    parts = remaining == Remaining::keys ? parts + 1 : 0;
    if (remaining == Remaining::all) alone = task + count;
    if (remaining == Remaining::nothing) task += count;
  }
  if (is_window) BlockSpans(decode, row, unit.heads, shared);

  // The last block of a row to come by joins its parts. All are there for it to see: the barrier
  // that attend_tasks() ends with, and the counters' order.
  if (threadIdx.x < 32) {
    __syncwarp();  // the choices are written
    bool last = false;
    if (lane >= first_head && lane < first_head + heads) {
      int parts = window_pieces;
#pragma unroll 1
      for (int s = 0; s < slots; ++s) parts += max(shared.choice[lane * slots + s].pieces, 0);
      if (faulty(rows.fault, Fault::part_not_counted)) --parts;
      int here = 0;
#pragma unroll 1
      for (int task = 0; task < tasks; ++task) here += shared.task[task].head == lane;
      // A row without keys is left to the first block.
      last = first_of_all && parts == 0;
      if (here > 0) {
        std::int32_t* counter =
            decode.counters + row.dense + lane * static_cast<std::int64_t>(rows.count);
        last = add_in_order(counter, here) + here == parts;
      }
    }
    const unsigned heads_last = __ballot_sync(kFullWarp, last);
    if (lane == 0) shared.last = heads_last;
  }
  __syncthreads();
  const unsigned last = shared.last;
  if (last == 0) return;
  // A warp joins a row: one row with all the memory, several side by side.
  const bool one = (last & (last - 1)) == 0;
  const int bytes = one ? kSharedBytes<kHeadDim> : kSharedBytes<kHeadDim> / DecodeBlock::kWarps;
  const int warp = threadIdx.x / 32;
  const JoinMemory<kHeadDim> join_memory(memory + (one ? 0 : warp * bytes), bytes);
  int before = 0;
#pragma unroll 1
  for (unsigned rest = last; rest != 0; rest &= rest - 1, ++before) {
    if (before % DecodeBlock::kWarps != warp) continue;
    const int head = __ffs(static_cast<int>(rest)) - 1;
    const std::int64_t parts = head * static_cast<std::int64_t>(rows.count) * decode.row_parts();
    const std::int64_t index = row.index + head * static_cast<std::int64_t>(rows.queries);
    float* const span_lses = decode.attend.lse;
    float* const window_lse = decode.combine.window_lse_out;
    const RowParts of_row{.chosen = shared.choice + head * slots,
                          .slots = slots,
                          .window_pieces = window_pieces,
                          .span_pieces = decode.span_pieces,
                          .partials = partials + parts * kPartialStride<kHeadDim>,
                          .span_lses = span_lses ? span_lses + index * slots : nullptr,
                          .window_lse = window_lse ? window_lse + index : nullptr,
                          .head_dim = rows.head_dim,
                          .fault = rows.fault};
    T* output = static_cast<T*>(decode.combine.output) + index * rows.head_dim;
    join_row<T, kHeadDim>(of_row, join_memory, output);
  }
}

/// How many keys a piece has: a span is to touch up to 8 of them, and few keys where that would
/// make them long; more keys only where an item would have more pieces than a warp weighs. Windows
/// may be cut finer than spans need: they are attended to while the search runs.
struct Pieces {
  static constexpr std::int64_t kStep =
      DecodeBlock::kWarps * DecodeBlock::kKeys;  // every warp has as many tiles
  static constexpr std::int64_t kFew = 8;
  static constexpr std::int64_t kLong = 5 * kStep;
  std::int32_t keys;
  std::int32_t of_window;
  std::int32_t of_span;

  Pieces(const ItemBounds& bounds, int slots) {
    const std::int64_t window = bounds.window;
    const std::int64_t span = std::max(bounds.span, 1);
    const auto ceil = [](std::int64_t value, std::int64_t by) { return (value + by - 1) / by; };
    // A span of n + 1 keys touches up to ceil(n / piece) + 1 pieces.
    const std::int64_t aim = slots > 0 ? std::max(span - 1, window / 4) : window;
    const int most = max_pieces(slots);
    const std::int64_t least = std::max(ceil(window, most), ceil(span - 1, most - 1));
    const std::int64_t size = std::max({std::min(ceil(aim, kFew - 1), kLong), least, kStep});
    keys = static_cast<std::int32_t>(ceil(size, kStep) * kStep);
    of_window = static_cast<std::int32_t>(ceil(window, keys));
    of_span = slots > 0 ? static_cast<std::int32_t>(ceil(span - 1, keys) + 1) : 0;
  }
};

/// The pieces of every row of a call, each by its position; room is for those who have most.
Decode with_pieces(const SpanAttend& attend, const Combine& combine,
                   const DeviceSchedule::Tables& tables) {
  const Rows& rows = attend.rows;
  const Sequence& sequence = rows.sequence;
  const std::int64_t longest =
      sequence.length ? rows.key_offset + rows.keys : sequence.query_offset + sequence.queries;
  Decode decode{.attend = attend, .combine = combine, .heads = DecodeBlock::kHeads};
  if (attend.slots > 0) decode.heads = std::min(decode.heads, kMaxSpans / attend.slots);
  for (int magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
    const Pieces pieces(tables.items[static_cast<std::size_t>(magnitude)], attend.slots);
    decode.piece[magnitude] = pieces.keys;
    if ((std::int64_t{1} << magnitude) / 2 > longest) continue;
    decode.window_pieces = std::max(decode.window_pieces, pieces.of_window);
    decode.span_pieces = std::max(decode.span_pieces, pieces.of_span);
  }
  return decode;
}

template <class T, int kHeadDim, bool kPaged>
void launch(const Decode& decode, Stream stream) {
  const Rows& rows = decode.attend.rows;
  constexpr auto kernel = decode_pieces<T, kHeadDim, kPaged>;
  constexpr int kBytes = kSharedBytes<kHeadDim>;
  tell_once<kernel>(cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  const int heads = std::min(rows.group(), decode.heads);
  Launch how{};
  how.blocks = static_cast<unsigned>(HeadTile::count(rows, decode.heads));
  how.blocks_y = static_cast<unsigned>(decode.window_pieces * decode.window_blocks() +
                                       heads * decode.attend.slots * decode.span_pieces);
  how.threads = DecodeBlock::kThreads;
  how.stream = stream;
  how.shared_bytes = kBytes;
  how.mostly_shared = true;
  how.early = decode.attend.slots > 0;  // else the kernel before may be what writes the keys
  launch_kernel(how, kernel, decode);
}

}  // namespace

std::size_t decode_bytes(const Rows& rows, int slots, const DeviceSchedule::Tables& tables) {
  SpanAttend attend{};
  attend.rows = rows;
  attend.slots = slots;
  Arena arena;
  const int stride = partial_stride(columns_for(rows.head_dim));
  arena.take<float>(rows.total() * with_pieces(attend, {}, tables).row_parts() * stride);
  return arena.used();
}

void decode(const SpanAttend& attend, const Combine& combine, const DeviceSchedule::Tables& tables,
            std::int32_t* counters, void* workspace, Stream stream) {
  Decode decode = with_pieces(attend, combine, tables);
  if (attend.rows.total() * decode.row_parts() == 0) return;
  decode.partials = static_cast<float*>(workspace);
  decode.counters = counters;
  with_row_type(attend, [&](auto type, auto columns) {
    using T = decltype(type);
    attend.rows.pages.table ? launch<T, columns, true>(decode, stream)
                            : launch<T, columns, false>(decode, stream);
  });
}

}  // namespace multistep::cuda
