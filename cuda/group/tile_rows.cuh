#pragma once

#include "api/stages.cuh"
#include "attend/attend_row.cuh"
#include "device/ptx.cuh"

/// Which rows the tile kernels of attend_tiles_sm90.cu take, 64 a tile, and which keys they attend
/// to: two kinds of rows, one for span-attention, one for window and combination.
namespace multistep::cuda {

constexpr int kRows = 64;  // of a tile, and of a warpgroup

struct TileArgs {
  Rows rows;
  float scale;
  std::int32_t slots;
  std::int64_t per_head;  // rows of one KV head
  const void* query;
  const void* key;
  const void* value;
  Pairs pairs;
  void* output;
  float* lse;
  Combine combine;
};

/// A row of a tile: whose query, and which keys.
struct TileRow {
  std::int64_t index = -1;  // query row in [batch, heads, queries]; -1: none
  std::int64_t item = 0;    // where the result goes
  DeviceSpan keys{0, 0};
};

/// Rows are the sorted (query row, slot) pairs; results are the spans' outputs.
struct SpanRows {
  static __device__ TileRow row(const TileArgs& args, int kv_head, std::int64_t i) {
    if (i >= args.per_head) return {};
    const std::int64_t at = kv_head * args.per_head + i;
    const std::int32_t pair = args.pairs.pair[at];
    return {args.rows.at(pair / args.slots).index, pair, args.pairs.span[at]};
  }
  static __device__ Tile tile(const TileArgs& args, int kv_head, std::int64_t tile) {
    const std::int64_t tiles = (args.per_head + kRows - 1) / kRows;
    if (tile >= tiles) return {{0, 0}, {0, 0}};
    return args.pairs.tiles[kv_head * tiles + tile];
  }
  static __device__ void prepare(const TileArgs&, const TileRow&, float2*, int) {}
};

/// Rows are the queries of one KV head, the heads of a query next to each other; keys are the
/// window; results are combined with the spans'.
struct WindowRows {
  static __device__ Rows::Row query_row(const TileArgs& args, int kv_head, std::int64_t i) {
    const int group = args.rows.group();
    return args.rows.row(kv_head / args.rows.kv_heads,
                         kv_head % args.rows.kv_heads * group + static_cast<int>(i % group),
                         args.rows.first + static_cast<int>(i / group));
  }
  static __device__ TileRow row(const TileArgs& args, int kv_head, std::int64_t i) {
    if (i >= args.per_head) return {};
    const Rows::Row row = query_row(args, kv_head, i);
    const std::int64_t sequence_head = row.index / args.rows.queries;
    return {row.index, sequence_head * args.rows.count + row.query - args.rows.first,
            args.rows.window_keys(row)};
  }
  static __device__ Tile tile(const TileArgs& args, int kv_head, std::int64_t tile) {
    const std::int64_t first = tile * kRows;
    if (first >= args.per_head) return {{0, 0}, {0, 0}};
    const std::int64_t last = min(first + kRows, args.per_head) - 1;
    const Rows::Row first_row = query_row(args, kv_head, first);
    const Rows::Row last_row = query_row(args, kv_head, last);
    const DeviceSpan oldest = args.rows.window_keys(first_row);
    const DeviceSpan newest = args.rows.window_keys(last_row);
    // Rows between them may hold keys where these two hold none: at padding, or at a shard's ends.
    const std::int32_t begin =
        window_of(args.rows.window, first_row.position, first_row.start).begin;
    const bool bounded = oldest.begin < oldest.end && newest.begin < newest.end;
    return {args.rows.held({begin, last_row.position + 1}),
            bounded ? DeviceSpan{newest.begin, oldest.end} : DeviceSpan{0, 0}};
  }

  /// Gates and log-sum-exps of a row's spans, ahead of their use; the outputs are asked for.
  static __device__ void prepare(const TileArgs& args, const TileRow& row, float2* slots,
                                 int row_bytes) {
    const Combine& combine = args.combine;
    if (combine.slots == 0) return;
    const std::int64_t first = row.index * combine.slots;
    const int used = slots_in_use(combine.spans + first, combine.slots);
    const Gates gates = gates_of(combine.scores + first, used);
    for (int s = 0; s < combine.slots; ++s) {
      float2 slot{-1, -kInfinity};
      if (s < used) {
        const std::int64_t pair = row.item * combine.slots + s;
        slot = {gates.of(combine.scores[first + s]), combine.span_lses[pair]};
        if (faulty(args.rows.fault, Fault::gates_equal)) slot.x = 1.0f / used;
        const char* output = static_cast<const char*>(combine.span_outputs) + pair * row_bytes;
        for (int line = 0; line < row_bytes; line += 128) ptx::prefetch(output + line);
      }
      slots[s] = slot;
    }
  }
};

}  // namespace multistep::cuda
