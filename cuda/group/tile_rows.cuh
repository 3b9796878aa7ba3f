#pragma once

#include <climits>

#include "api/stages.cuh"

/// Which rows the tile kernels take, 64 a tile, and which keys they attend to: two kinds of rows,
/// of spans and of windows. A block's task is two tiles, one for each of two warpgroups.
namespace multistep::cuda {

inline constexpr int kTileRows = 64;   // of a warpgroup
inline constexpr int kTileKeys = 128;  // that are read at a time, from multiples of it on; or fewer

/// A row of a tile: whose query, and which keys.
struct TileRow {
  std::int64_t index = -1;  // query row in [batch, heads, queries]; -1: none
  std::int64_t item = 0;    // where the result goes
  DeviceSpan keys{0, 0};
  std::int64_t query = 0;  // where it is in its array, in values; not of a backward pass
};

/// What joins a slot's span to the window; gate -1: the slot is not in use.
struct alignas(8) SlotWeight {
  float gate;
  float lse;
};

/// The tile of a warp's rows, of which each lane adds what its own attend to.
struct LanesTile {
  Tile tile{{INT_MAX, 0}, {0, INT_MAX}};

  __device__ void add(DeviceSpan keys) {
    tile.all = {max(tile.all.begin, keys.begin), min(tile.all.end, keys.end)};
    if (keys.end <= keys.begin) return;
    tile.any = {min(tile.any.begin, keys.begin), max(tile.any.end, keys.end)};
  }
  /// Whole warp.
  __device__ Tile whole() const {
    const DeviceSpan any{__reduce_min_sync(kFullWarp, tile.any.begin),
                         __reduce_max_sync(kFullWarp, tile.any.end)};
    const DeviceSpan all{__reduce_max_sync(kFullWarp, tile.all.begin),
                         __reduce_min_sync(kFullWarp, tile.all.end)};
    return {any.begin < any.end ? any : DeviceSpan{0, 0}, all};
  }
};

/// The sorted (query row, slot) pairs; results are in the order of the pairs' numbers.
struct SpanRows : SpanAttend {
  static constexpr bool kGaps = true;  // key tiles between others that no row of a task looks at
  Pairs pairs;
  std::int64_t per_head;  // rows of one KV head, tile by tile: those without a pair among them
  std::int64_t spare;     // tasks of a KV head behind these

  SpanRows(const SpanAttend& attend, const Pairs& sorted)
      : SpanAttend(attend),
        pairs(sorted),
        per_head(sorted.base_tiles * kTileRows),
        spare(std::max<std::int64_t>(sorted.tiles_per_head - sorted.first_spare(), 0) / 2) {}

  __device__ TileRow row(int kv_head, std::int64_t i) const {
    const auto r = static_cast<int>(i % kTileRows);
    const TilePairs own = pairs.of_tile(kv_head, i / kTileRows);
    const bool lost = pairs.tile_pairs < kTileRows && faulty(rows.fault, Fault::last_pair_lost);
    const std::int64_t of_head = own.first + r;
    if (of_head >= pairs.per_head) return {};
    const std::int64_t at = kv_head * pairs.per_head + of_head;
    const std::int32_t pair = pairs.pair[at];  // asked for beside the count
    const DeviceSpan keys = pairs.span[at];
    if (r >= own.count - (lost ? 1 : 0)) return {};
    const Rows::Row row = rows.at(pair / slots);
    return {row.index, pair, keys, query.offset(row.batch, row.head, row.query)};
  }
  /// What row i attends to, where there is one.
  __device__ DeviceSpan keys_of(int kv_head, std::int64_t i) const {
    const auto r = static_cast<int>(i % kTileRows);
    const TilePairs own = pairs.of_tile(kv_head, i / kTileRows);
    const std::int64_t of_head = own.first + r;
    if (of_head >= pairs.per_head) return {0, 0};
    const DeviceSpan keys = pairs.span[kv_head * pairs.per_head + of_head];
    return r < own.count ? keys : DeviceSpan{0, 0};
  }
  __device__ Tile tile(int kv_head, std::int64_t tile) const {
    if (tile >= pairs.tiles_per_head) return {{0, 0}, {0, 0}};
    return pairs.tiles[kv_head * pairs.tiles_per_head + tile];
  }
};

/// The queries of one KV head, the heads of a query next to each other; keys are the window. Where
/// packed sequences' keys have bounds of their own, positions jump from one to the next: kJumps.
template <bool kJumps>
struct WindowRows : Combine {
  static constexpr bool kGaps = kJumps;
  static constexpr std::int64_t spare = 0;
  std::int64_t per_head;  // rows of one KV head

  explicit WindowRows(const Combine& combine)
      : Combine(combine), per_head(static_cast<std::int64_t>(rows.group()) * rows.count) {}

  __device__ Rows::Row query_row(int kv_head, std::int64_t i) const {
    const int group = rows.group();
    return rows.row(kv_head / rows.kv_heads,
                    kv_head % rows.kv_heads * group + static_cast<int>(i % group),
                    rows.first + static_cast<int>(i / group));
  }
  __device__ TileRow row(int kv_head, std::int64_t i) const {
    if (i >= per_head) return {};
    const Rows::Row row = query_row(kv_head, i);
    const std::int64_t sequence_head = row.index / rows.queries;
    return {row.index, sequence_head * rows.count + row.query - rows.first, rows.window_keys(row),
            query.offset(row.batch, row.head, row.query)};
  }
  __device__ DeviceSpan keys_of(int kv_head, std::int64_t i) const {
    return i < per_head ? rows.window_keys(query_row(kv_head, i)) : DeviceSpan{0, 0};
  }
  /// Whole warp.
  __device__ Tile tile(int kv_head, std::int64_t tile) const {
    const std::int64_t first = tile * kTileRows;
    if (first >= per_head) return {{0, 0}, {0, 0}};
    const std::int64_t last = min(first + kTileRows, per_head) - 1;
    if constexpr (kJumps) {
      LanesTile found;
      for (std::int64_t i = first + threadIdx.x % 32; i <= last; i += 32) {
        found.add(keys_of(kv_head, i));
      }
      return found.whole();
    }
    const Rows::Row first_row = query_row(kv_head, first);
    const Rows::Row last_row = query_row(kv_head, last);
    const DeviceSpan oldest = rows.window_keys(first_row);
    const DeviceSpan newest = rows.window_keys(last_row);
    // Rows between them may hold keys where these two hold none: at padding, or at a shard's ends.
    const std::int32_t begin = window_of(rows.window, first_row.position, first_row.start).begin;
    const bool bounded = oldest.begin < oldest.end && newest.begin < newest.end;
    return {rows.held({begin, last_row.position + 1}),
            bounded ? DeviceSpan{newest.begin, oldest.end} : DeviceSpan{0, 0}};
  }
};

/// Tasks of one KV head without its spare ones, and all; `args` are SpanRows or WindowRows.
template <class TileRows>
__host__ __device__ std::int64_t tasks_per_head(const TileRows& args) {
  return (args.per_head + 2 * kTileRows - 1) / (2 * kTileRows);
}
template <class TileRows>
__host__ __device__ std::int64_t task_count(const TileRows& args) {
  return (tasks_per_head(args) + args.spare) * args.rows.batch * args.rows.kv_heads;
}

/// Where a task's two tiles are: spare ones come last, so that the others keep their blocks.
struct TaskPlace {
  int kv_head;
  std::int64_t tile;  // the first of two

  template <class TileRows>
  __device__ TaskPlace(const TileRows& args, std::int64_t task) {
    const std::int64_t of_head = tasks_per_head(args);
    const std::int64_t base = of_head * args.rows.batch * args.rows.kv_heads;
    const bool is_spare = args.spare > 0 && task >= base;
    const std::int64_t each = is_spare ? args.spare : of_head;
    if (is_spare) task -= base;
    kv_head = static_cast<int>(task / each);
    tile = 2 * (task % each + (is_spare ? of_head : 0));
  }
};

/// The tiles of kKeys keys that hold what any of some rows attends to.
template <int kKeys = kTileKeys>
struct KeyTiles {
  int begin;
  int end;

  static __device__ KeyTiles of(DeviceSpan any) {
    if (any.end <= any.begin) return {0, 0};
    return {any.begin / kKeys, (any.end - 1) / kKeys + 1};
  }
  static __device__ KeyTiles of(const Tile& a, const Tile& b) {
    const KeyTiles first = of(a.any);
    const KeyTiles second = of(b.any);
    if (first.empty()) return second;
    if (second.empty()) return first;
    return {min(first.begin, second.begin), max(first.end, second.end)};
  }
  __device__ bool empty() const { return begin >= end; }
};

/// The same value, known to the compiler to be the same in all lanes: products of a warpgroup must
/// not stand in what it takes for a divergent branch.
__device__ inline int uniform(int value) { return __shfl_sync(kFullWarp, value, 0); }
__device__ inline DeviceSpan uniform(DeviceSpan span) {
  return {uniform(span.begin), uniform(span.end)};
}

template <int kKeys = kTileKeys>
struct TileTask : TaskPlace {
  Tile tiles[2];
  KeyTiles<kKeys> keys;  // of both

  template <class TileRows>
  __device__ TileTask(const TileRows& args, std::int64_t task) : TaskPlace(args, task) {
    for (int i = 0; i < 2; ++i) {
      const Tile found = args.tile(kv_head, tile + i);
      tiles[i] = {uniform(found.any), uniform(found.all)};
    }
    keys = KeyTiles<kKeys>::of(tiles[0], tiles[1]);
  }
  /// Nothing is to be done.
  __device__ bool none() const { return tiles[0].any.end < 0 && tiles[1].any.end < 0; }
};

/// The first tile of kKeys keys behind tile j that holds a key of some rows, `spans` being those of
/// this lane; behind all of them one that is none. The first and the last of a row's tiles are
/// among those that are found one after another. Whole warp.
template <int kKeys, int kSpans>
__device__ int next_wanted(int j, const DeviceSpan (&spans)[kSpans], int fault) {
  const int last = j * kKeys + (kKeys - 1);
  int next = INT_MAX;
#pragma unroll
  for (const DeviceSpan span : spans) {
    if (span.end <= span.begin || span.end - 1 <= last) continue;
    const int skipped = faulty(fault, Fault::wanted_tile_skipped) ? span.end - 1 : last + 1;
    next = min(next, span.begin <= last ? skipped : span.begin);
  }
  next = __reduce_min_sync(kFullWarp, next);
  return next == INT_MAX ? INT_MAX : next / kKeys;
}

/// The key tiles that some row of a task looks at, one after another; a warp, of which each lane
/// knows four rows.
template <class TileRows, int kKeys>
struct KeyWalk {
  static constexpr int kSpans = 2 * kTileRows / 32;
  DeviceSpan spans[kSpans];
  int fault;

  __device__ KeyWalk(const TileRows& args, const TileTask<kKeys>& task) : fault(args.rows.fault) {
    if constexpr (TileRows::kGaps) {
      const std::int64_t first = task.tile * kTileRows + threadIdx.x % 32;
#pragma unroll
      for (int i = 0; i < kSpans; ++i) spans[i] = args.keys_of(task.kv_head, first + 32 * i);
    }
  }
  __device__ int after(int j) const {
    if constexpr (TileRows::kGaps) return next_wanted<kKeys>(j, spans, fault);
    return j + 1;
  }
};

}  // namespace multistep::cuda
