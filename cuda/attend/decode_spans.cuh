#pragma once

#include "attend/decode_join.cuh"
#include "attend/decode_tile.cuh"
#include "device/ptx.cuh"

/// Which spans of a KV head's query heads touch which piece of its keys: spans are cut at the
/// multiples of a piece's keys, and a piece that several of them touch is read once.
namespace multistep::cuda {

inline constexpr int kMaxSpans = DecodeBlock::kSpans;

struct Decode {
  SpanAttend attend;  // its output is not used
  Combine combine;
  std::int32_t heads;                    // of a KV head, that a block reads pieces for
  std::int32_t piece[kMagnitudes] = {};  // keys of one, by the query's position
  std::int32_t window_pieces = 0;        // of a row, at most
  std::int32_t span_pieces = 0;          // that a span touches, at most
  float* partials = nullptr;             // [batch, heads, count, items and pieces, head_dim + 4]
  std::int32_t* counters = nullptr;      // [batch, heads, count], parts that are there

  /// Keys of a piece of the row at a position: the same for all heads.
  __device__ std::int32_t piece_of(std::int32_t position) const {
    if (faulty(attend.rows.fault, Fault::capacity_decides)) {
      position = static_cast<std::int32_t>(attend.rows.keys) - 1;
    }
    return piece[32 - __clz(position + 1)];
  }
  __host__ __device__ int row_parts() const { return window_pieces + attend.slots * span_pieces; }
  /// Blocks that share a piece of the window: each has as many heads as it can do tasks at a time.
  __host__ __device__ int window_blocks() const {
    return (min(attend.rows.group(), heads) + DecodeBlock::kTasks - 1) / DecodeBlock::kTasks;
  }
};

/// What the warps of a block tell one another: the tasks of its piece, and what its heads' slots
/// hold.
struct BlockChoices {
  PieceTask task[kMaxSpans];
  SlotPieces choice[kMaxSpans];
  unsigned last;  // heads whose last block this is
};

/// The spans of a block's heads: span i is slot i % slots of head i / slots. Every warp has them
/// all, lane l those with i = l and l + 32.
struct BlockSpans {
  static constexpr int kOfLane = kMaxSpans / 32;
  std::int32_t piece_keys;       // of a piece
  DeviceSpan keys[kOfLane];      // attended to, in rows of the arrays
  std::int32_t first[kOfLane];   // piece of the array
  std::int32_t pieces[kOfLane];  // that the keys touch

  /// `row`: of the first head. Waits for the search; warp 0 writes down what slots hold.
  __device__ BlockSpans(const Decode& decode, const Rows::Row& row, int heads, BlockChoices& shared)
      : piece_keys(decode.piece_of(row.position)) {
    const int slots = decode.attend.slots;
    const int lane = threadIdx.x % 32;
    std::int64_t at[kOfLane];
    bool here[kOfLane];
#pragma unroll
    for (int k = 0; k < kOfLane; ++k) {
      const int head = (lane + 32 * k) / max(slots, 1);
      here[k] = head < heads && slots > 0;
      at[k] = row.index * slots + lane + 32 * k +
              head * static_cast<std::int64_t>(decode.attend.rows.queries - 1) * slots;
    }
    if (!faulty(decode.attend.rows.fault, Fault::search_not_awaited)) {
      ptx::wait_for_previous_kernel();
    }
    DeviceSpan span[kOfLane];
    float score[kOfLane];
#pragma unroll
    for (int k = 0; k < kOfLane; ++k) {
      span[k] = here[k] ? decode.attend.spans[at[k]] : DeviceSpan{0, 0};
      score[k] = here[k] ? decode.combine.scores[at[k]] : 0;
    }
#pragma unroll
    for (int k = 0; k < kOfLane; ++k) {
      keys[k] = decode.attend.rows.attended(span[k], row);
      first[k] = 0;
      pieces[k] = 0;
      if (keys[k].end > keys[k].begin) {
        first[k] = keys[k].begin / piece_keys;
        // No more than there are blocks for: a length beyond the plan's is cut off.
        pieces[k] = min((keys[k].end - 1) / piece_keys - first[k] + 1, decode.span_pieces);
      }
      if (here[k] && threadIdx.x < 32) {
        shared.choice[lane + 32 * k] = {score[k], span[k].end > span[k].begin ? pieces[k] : -1};
      }
    }
  }

  /// Of span i, the first piece.
  __device__ std::int32_t first_of(int i) const {
    static_assert(kOfLane == 2, "two registers to choose from");
    return __shfl_sync(kFullWarp, i < 32 ? first[0] : first[1], i % 32);
  }

  __device__ bool touches(int k, std::int32_t piece) const {
    return first[k] <= piece && piece < first[k] + pieces[k];
  }

  /// Which spans touch a piece, of those of DecodeBlock::kRows heads, span i's among them.
  __device__ std::uint64_t touching(std::int32_t piece, int i, int slots) const {
    const unsigned low = __ballot_sync(kFullWarp, touches(0, piece));
    const unsigned high = __ballot_sync(kFullWarp, touches(1, piece));
    const int spans = DecodeBlock::kRows * slots;
    const std::uint64_t own =
        spans < 64 ? ((std::uint64_t{1} << spans) - 1) << i / spans * spans : ~std::uint64_t{0};
    return (static_cast<std::uint64_t>(high) << 32 | low) & own;
  }

  /// Makes a task of each span of `touching` a piece, in order. Warp 0.
  __device__ void list_tasks(const Decode& decode, std::int32_t piece, std::uint64_t touching,
                             BlockChoices& shared) const {
    const std::int32_t origin = piece * piece_keys;
#pragma unroll
    for (int k = 0; k < kOfLane; ++k) {
      const int i = threadIdx.x + 32 * k;
      if (!(touching >> i & 1)) continue;
      const int head = i / decode.attend.slots;
      const int slot = i - head * decode.attend.slots;
      shared.task[__popcll(touching & ((std::uint64_t{1} << i) - 1))] = {
          .head = head,
          .part = slot * decode.span_pieces + piece - first[k],
          .keys = {max(keys[k].begin - origin, 0), min(keys[k].end - origin, piece_keys)}};
    }
  }
};

}  // namespace multistep::cuda
