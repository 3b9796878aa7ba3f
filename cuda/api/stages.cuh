#pragma once

#include "device/fault.cuh"
#include "device/head_rows.cuh"
#include "device/order.cuh"
#include "device/schedule.cuh"
#include "multistep/cuda/attention.hpp"

/// What the kernels of the stages are given, and who launches them. The public functions check
/// their arguments, fill these in, and choose the rung.
namespace multistep::cuda {

/// The caller's rows of head_dim values: [batch, heads, rows], each with its step in values. Of
/// keys in pages [pages, heads, rows], the batch's step is a page's.
struct RowArray {
  const void* data = nullptr;
  std::int64_t batch = 0;
  std::int64_t head = 0;
  std::int64_t row = 0;

#ifdef __CUDACC__
  __device__ std::int64_t offset(std::int32_t b, std::int32_t h, std::int64_t r) const {
    return b * batch + h * head + r * row;
  }
  template <class T>
  __device__ HeadRows<T> of_head(std::int32_t b, std::int32_t h) const {
    return {static_cast<const T*>(data) + offset(b, h, 0), row};
  }
#endif
};

/// The array of so many rows a head that a caller has told of.
inline RowArray row_array(const void* data, const Strides& strides, Index heads, Index rows,
                          Index head_dim) {
  if (!strides.dense()) return {data, strides.batch, strides.head, strides.row};
  return {data, heads * rows * head_dim, rows * head_dim, head_dim};
}
inline RowArray query_array(const void* data, const Strides& strides, const Shape& shape) {
  return row_array(data, strides, shape.num_heads, shape.queries, shape.head_dim);
}
inline RowArray key_array(const void* data, const Strides& strides, const Shape& shape) {
  const Index rows = shape.block_table ? shape.page_size : shape.keys;
  return row_array(data, strides, shape.num_kv_heads, rows, shape.head_dim);
}

inline constexpr int kMaxHopperBackwardHeadDim = 128;  // of its passes 2 and 3

/// Query rows: queries [first, first + count) of every head of every sequence. The caller's arrays
/// hold `queries` rows a head, a chunk's own scratch arrays `count`.
struct Rows {
  std::int32_t batch;
  std::int32_t heads;
  std::int32_t kv_heads;
  std::int32_t group_size;  // heads / kv_heads
  std::int32_t queries;
  std::int32_t first;
  std::int32_t count;
  std::int32_t head_dim;
  std::int64_t keys;
  std::int64_t key_offset;
  Sequence sequence;
  std::int32_t window;  // W of the schedule
  std::int32_t fault;
  PageTables pages;

  struct Row {
    std::int32_t batch;
    std::int32_t head;
    std::int32_t query;    // [0, queries)
    std::int64_t index;    // in [batch, heads, queries]
    std::int64_t dense;    // in [batch, heads, count]
    std::int32_t kv_head;  // [0, kv_heads)
    std::int64_t kv_row;   // its row 0 in a dense [batch, kv_heads, keys]
    std::int32_t position;
    std::int32_t start;
  };

  __host__ __device__ std::int64_t total() const {
    return static_cast<std::int64_t>(batch) * heads * count;
  }
  __host__ __device__ std::int32_t group() const { return group_size; }
  /// 16-byte pieces of a row of head_dim values, of which the fast kernels take whole ones.
  __host__ __device__ std::int32_t pieces() const { return head_dim / 8; }
  /// Rows of the arrays from this one on are no keys of any query, as far as the host can tell.
  __host__ __device__ std::int64_t past_seen() const {
    const std::int64_t last = sequence.query_offset + queries - key_offset;
    return sequence.length || sequence.jumps() || last > keys ? keys : last;
  }

#ifdef __CUDACC__
  /// In [batch, heads, queries]: of a row whose position is not yet known.
  __device__ std::int64_t index(std::int32_t b, std::int32_t head, std::int32_t query) const {
    return (static_cast<std::int64_t>(b) * heads + head) * queries + query;
  }

  /// Row 0 of a KV head of [batch, kv_heads].
  __device__ std::int64_t kv_row(std::int64_t kv_head) const {
    return faulty(fault, Fault::wrong_kv_head) ? 0 : kv_head * keys;
  }
  template <class T, bool kPaged = false>
  __device__ HeadRows<T, kPaged> kv_rows(const RowArray& array, std::int32_t b,
                                         std::int32_t kv) const {
    const bool wrong = faulty(fault, Fault::wrong_kv_head);
    const std::int32_t sequence = wrong ? 0 : b;
    HeadRows<T> found = array.of_head<T>(kPaged ? 0 : sequence, wrong ? 0 : kv);
    if (faulty(fault, Fault::steps_ignored)) found.step = head_dim;
    if constexpr (kPaged) {
      const bool ignored = faulty(fault, Fault::page_table_ignored);
      return {found.first, found.step, ignored ? 0 : array.batch,
              pages.table + static_cast<std::int64_t>(sequence) * pages.max_pages, pages.log2};
    } else {
      return found;
    }
  }
  template <class T, bool kPaged = false>
  __device__ HeadRows<T, kPaged> kv_rows(const RowArray& array, const Row& row) const {
    return kv_rows<T, kPaged>(array, row.batch, row.kv_head);
  }
  /// Of a KV head of [batch, kv_heads].
  template <class T>
  __device__ HeadRows<T> kv_rows(const RowArray& array, std::int32_t kv_head) const {
    const std::int32_t b = batch == 1 ? 0 : kv_head / kv_heads;
    return kv_rows<T>(array, b, kv_head - b * kv_heads);
  }
  template <class T>
  __device__ const T* query_row(const RowArray& array, const Row& row) const {
    return array.of_head<T>(row.batch, row.head)[row.query];
  }
  /// Of the row with an index in [batch, heads, queries].
  __device__ std::int64_t query_offset(const RowArray& array, std::int64_t index) const {
    const std::int64_t sequence_head = index / queries;
    const auto b = static_cast<std::int32_t>(sequence_head / heads);
    const auto h = static_cast<std::int32_t>(sequence_head % heads);
    return array.offset(b, h, index % queries);
  }

  __device__ Sequence::Place place(std::int32_t b, std::int32_t query) const {
    if (faulty(fault, Fault::chunk_offset_dropped)) query -= first;
    Sequence::Place found = sequence.place(b, query);
    if (faulty(fault, Fault::length_ignored)) {
      found.position = static_cast<std::int32_t>(sequence.query_offset + query);
    }
    if (faulty(fault, Fault::start_ignored)) found.start = 0;
    return found;
  }

  __device__ std::int32_t padding(std::int32_t b) const {
    return faulty(fault, Fault::start_ignored) ? 0 : sequence.padding(b);
  }

  /// Rows of the arrays from this one on are no keys of any query of the sequence.
  __device__ std::int64_t past_keys(std::int32_t b) const {
    if (sequence.packed) return __ldg(sequence.cu_seqlens_k + sequence.packed);
    return sequence.length ? __ldg(sequence.length + b) - key_offset : keys;
  }

  /// Those of queries [first, first + count), counted from `first`, that may have keys in [begin,
  /// end) among their newest `most`: neither where these begin nor where they end decreases from
  /// one query to the next.
  struct QueryRange {
    std::int64_t begin;
    std::int64_t end;
  };
  __device__ QueryRange looking_at(std::int32_t b, std::int64_t begin, std::int64_t end,
                                   std::int32_t most) const {
    const auto queries_before = [&](auto&& is_before) {
      std::int32_t low = 0;
      std::int32_t high = count;
      while (low < high) {
        const std::int32_t middle = low + (high - low) / 2;
        const Sequence::Place at = place(b, first + middle);
        is_before(window_of(most, at.position, at.start)) ? low = middle + 1 : high = middle;
      }
      return low;
    };
    return {queries_before([&](DeviceSpan keys) { return keys.end <= begin; }),
            queries_before([&](DeviceSpan keys) { return keys.begin < end; })};
  }

  /// With a level 1 that is aligned, whose window is of so many keys.
  __device__ Grid grid(std::int32_t position, std::int32_t start) const {
    return {sequence.packed ? start : 0, max(position + 1 - window - start, 0)};
  }
  __device__ Grid grid(const Row& row) const { return grid(row.position, row.start); }

  __device__ Row row(std::int32_t b, std::int32_t head, std::int32_t query) const {
    const std::int64_t sequence_head = static_cast<std::int64_t>(b) * heads + head;
    const std::int32_t kv_head = head / group();
    const Sequence::Place stands = place(b, query);
    return {b,
            head,
            query,
            index(b, head, query),
            sequence_head * count + query - first,
            kv_head,
            kv_row(static_cast<std::int64_t>(b) * kv_heads + kv_head),
            stands.position,
            stands.start};
  }

  /// Row `r` of [batch, heads, count]. Nearly always 32 bits suffice, whose division is cheap.
  __device__ Row at(std::int64_t r) const {
    const bool small = r <= UINT_MAX;
    const auto divisor = static_cast<std::uint32_t>(count);
    const auto low = static_cast<std::uint32_t>(r);
    const auto sequence_head = static_cast<std::uint32_t>(small ? low / divisor : r / count);
    const auto query = static_cast<std::int32_t>(small ? low % divisor : r % count);
    const auto heads_here = static_cast<std::uint32_t>(heads);
    return row(static_cast<std::int32_t>(sequence_head / heads_here),
               static_cast<std::int32_t>(sequence_head % heads_here), first + query);
  }

  /// The part of [begin, end) that the arrays hold, in their rows.
  __device__ DeviceSpan held(DeviceSpan span) const {
    const std::int64_t begin = max(span.begin - key_offset, std::int64_t{0});
    const std::int64_t end = min(span.end - key_offset, keys);
    return begin < end
               ? DeviceSpan{static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end)}
               : DeviceSpan{0, 0};
  }

  /// A span without the keys that the window has, in rows of the arrays.
  __device__ DeviceSpan attended(DeviceSpan span, const Row& row) const {
    if (span.end <= span.begin) return {0, 0};
    const DeviceSpan window_keys = window_of(window, row.position, row.start);
    if (window > 0) span.end = min(span.end, window_keys.begin);
    span.end = min(span.end, row.position + 1);
    span.begin = max(span.begin, row.start);
    if (faulty(fault, Fault::span_one_short)) --span.end;
    if (faulty(fault, Fault::span_shifted)) --span.begin;
    return held(span);
  }

  __device__ DeviceSpan window_keys(const Row& row) const {
    DeviceSpan span = window_of(window, row.position, row.start);
    if (faulty(fault, Fault::window_one_short)) ++span.begin;
    return held(span);
  }
#endif
};

inline PageTables page_tables(const Shape& shape) {
  if (!shape.block_table) return {};
  std::int32_t log2 = 0;
  while (shape.page_size >> log2 > 1) ++log2;
  return {shape.block_table, static_cast<std::int32_t>(shape.max_pages), log2};
}

inline Rows rows_of(const Shape& shape, std::int32_t window, std::int64_t first = 0,
                    std::int64_t count = -1) {
  const auto narrow = [](Index value) { return static_cast<std::int32_t>(value); };
  const bool own_keys = shape.cu_seqlens_k && !faulty(current_fault(), Fault::key_bounds_ignored);
  return {narrow(shape.batch),
          narrow(shape.num_heads),
          narrow(shape.num_kv_heads),
          narrow(shape.group()),
          narrow(shape.queries),
          narrow(first),
          narrow(count < 0 ? shape.queries : count),
          narrow(shape.head_dim),
          shape.keys,
          shape.key_offset,
          {shape.query_offset, narrow(shape.queries), shape.start, shape.length,
           shape.cu_seqlens ? narrow(shape.sequences) : 0, shape.cu_seqlens,
           own_keys ? shape.cu_seqlens_k : shape.cu_seqlens},
          window,
          current_fault(),
          page_tables(shape)};
}

/// A query with a few heads of one KV head: what a matrix product takes together.
struct HeadTile {
  std::int32_t batch;
  std::int32_t kv_head;  // [0, kv_heads)
  std::int32_t first_head;
  std::int32_t heads;
  std::int32_t query;

  static __host__ __device__ std::int32_t tiles(const Rows& rows, int most) {
    return (rows.group() + most - 1) / most;
  }
  /// Those with up to `most` heads.
  static std::int64_t count(const Rows& rows, int most) {
    return static_cast<std::int64_t>(rows.batch) * rows.kv_heads * tiles(rows, most) * rows.count;
  }

#ifdef __CUDACC__
  /// Neighbours are neighbouring queries of the same heads.
  __device__ HeadTile(const Rows& rows, int most, std::uint32_t i) {
    const auto count = static_cast<std::uint32_t>(rows.count);
    const auto of_group = static_cast<std::uint32_t>(tiles(rows, most));
    // Kernels of decoding begin here, and wait for it: 1 is common, and a division takes long.
    const std::uint32_t tile = count == 1 ? i : i / count;
    const std::uint32_t both = of_group == 1 ? tile : tile / of_group;
    const std::uint32_t skipped = (tile - both * of_group) * static_cast<std::uint32_t>(most);
    query = rows.first + static_cast<std::int32_t>(i - tile * count);
    batch = static_cast<std::int32_t>(both / static_cast<std::uint32_t>(rows.kv_heads));
    kv_head = static_cast<std::int32_t>(both) - batch * rows.kv_heads;
    first_head = kv_head * rows.group() + static_cast<std::int32_t>(skipped);
    heads = min(most, rows.group() - static_cast<std::int32_t>(skipped));
  }
#endif
};

/// One level of span-search.
struct LevelSearch {
  Rows rows;
  Dtype dtype;
  LevelTable level;
  std::int32_t top_k;
  float scale;
  RowArray routing;            // [batch, heads, queries]
  RowArray keys;               // [batch, kv_heads, keys]
  const DeviceSpan* parents;   // [batch, heads, queries, top_k]; null: level 1
  const float* parent_scores;  // the same
  DeviceSpan* spans;           // [batch, heads, queries, top_k]
  float* scores;               // the same
  std::int32_t* anchors;       // the same, or null
  std::int32_t* ranks;         // the same, or null
  std::int32_t max_stripes;    // of one segment
  bool as_product = false;     // searches_product()
};
void search_level_plain(const LevelSearch& search, Stream stream);

struct SpanAttend {
  Rows rows;
  Dtype dtype;
  float scale;
  std::int32_t slots;
  RowArray query;           // [batch, heads, queries]
  RowArray key;             // [batch, kv_heads, keys]
  RowArray value;           // the same
  const DeviceSpan* spans;  // [batch, heads, queries, slots]; null: the window
  void* output = nullptr;   // [batch, heads, count, slots, head_dim]
  float* lse = nullptr;     // [batch, heads, count, slots]
};
void span_attention_plain(const SpanAttend& attend, Stream stream);

struct Combine {
  Rows rows;
  Dtype dtype;
  float scale;
  std::int32_t slots;
  RowArray query;  // not looked at where the window's output is given
  RowArray key;
  RowArray value;
  const DeviceSpan* spans;              // [batch, heads, queries, slots]
  const float* scores;                  // the same
  const void* span_outputs = nullptr;   // [batch, heads, count, slots, head_dim]
  const float* span_lses = nullptr;     // [batch, heads, count, slots]
  const void* window_output = nullptr;  // [batch, heads, queries, head_dim], or null
  const float* window_lse = nullptr;    // [batch, heads, queries], or null
  void* output;                         // [batch, heads, queries, head_dim]
  float* window_lse_out = nullptr;      // [batch, heads, queries], or null
};
void combine_plain(const Combine& combine, Stream stream);
/// Fast, where there is no window or its output is given: perhaps where this one's goes.
void combine_spans(const Combine& combine, Stream stream);

/// What the fast search of one level needs beside its arguments.
struct SearchScratch {
  FoundPath* lists;           // [batch, heads, count, top_k, top_k], where search_needs_lists()
  const std::int32_t* order;  // the (query row, parent) pairs so that neighbours search nearby
                              // keys; null: as they come
  std::int32_t* counters;     // [counter_count], which search_few() and search_shared() set to 0
                              // on the way; or null
  std::int64_t counter_count;
};
/// A unit is what searches one segment: at level 1 a query with up to kSearchHeads heads of a KV
/// head, below it a query row's parent. Where units are few, one launch takes several levels.
inline constexpr int kMaxFastTopK = 16;    // at once; more paths are found by turns
inline constexpr int kMaxProductTopK = 8;  // of search_level_product()
inline constexpr int kSearchHeads = 16;
inline constexpr int kLevelsAtOnce = 3;
inline constexpr int kProductRows = 128;  // of a block
/// The largest cluster that the current device runs: none, 1, where the loaded code has no
/// clusters.
int largest_cluster();
/// With many (query row, parent) pairs each has a list of candidates; otherwise the blocks of a row
/// merge theirs in shared memory.
bool search_needs_lists(const LevelSearch& search);
/// One launch of `count` levels, as levels_at_once() says.
void search_levels_fast(const LevelSearch* levels, int count, const SearchScratch& scratch,
                        Stream stream);
/// The same of keys in pages, where search_levels_fast() finds some.
void search_levels_paged(const LevelSearch* levels, int count, const SearchScratch& scratch,
                         Stream stream);
/// The scores of a level that is searched `as_product`: at level 1 its paths, below it the parents'
/// lists.
void search_level_product(const LevelSearch& search, const SearchScratch& scratch, Stream stream);

/// The anchors along every kept path, from what each level kept.
struct TracePaths {
  Rows rows;
  std::int32_t top_k;
  std::int32_t levels;
  const std::int32_t* anchors;  // [levels, batch, heads, queries, top_k]
  const std::int32_t* ranks;    // [levels, batch, heads, queries, top_k], of the parent
  std::int32_t* paths;          // [batch, heads, queries, top_k, levels]
};
void trace_paths(const TracePaths& trace, Stream stream);

/// What a search without a level keeps, and attention finds there. Each array may be null.
void no_paths(DeviceSpan* spans, float* scores, float* lses, std::int64_t count, Stream stream);

/// From a chunk's own [batch, heads, count, slots] to the caller's [batch, heads, queries, slots].
void place_rows(const Rows& rows, int slots, const float* chunk, float* all, Stream stream);

/// Attention and combination of few queries, in one launch behind the search. The spans' outputs
/// are not written, their log-sum-exps where `attend.lse` is not null. `counters` hold 0 for every
/// row of [batch, heads, count].
inline constexpr int kMaxDecodeSlots = 31;  // which, with the window, a lane each weighs
std::size_t decode_bytes(const Rows& rows, int slots, const DeviceSchedule::Tables& tables);
void decode(const SpanAttend& attend, const Combine& combine, const DeviceSchedule::Tables& tables,
            std::int32_t* counters, void* workspace, Stream stream);

/// Dense attention of few queries: the chunks of keys of each row are attended to alone,
/// then merged. The row at `position` has chunks of 2^dense_chunk_log2(position) keys.
inline constexpr int kDenseChunks = 64;    // of a row, at most
inline constexpr int kDenseChunkLog2 = 9;  // at least: fewer keys are not worth a row's output
__host__ __device__ inline int dense_chunk_log2(std::uint32_t position) {
  int log2 = kDenseChunkLog2;
  while (position >> log2 >= kDenseChunks) ++log2;
  return log2;
}
/// Of rows of up to `keys` keys.
inline int most_dense_chunks(Index keys) {
  return static_cast<int>(std::min<Index>(kDenseChunks, ((keys - 1) >> kDenseChunkLog2) + 1));
}
/// `outputs` [chunks, batch, heads, count, head_dim], `lses` [chunks, batch, heads, count].
void dense_chunks(const Combine& combine, int chunks, float* outputs, float* lses, Stream stream);
void merge_chunks(const Combine& combine, int chunks, const float* outputs, const float* lses,
                  Stream stream);

/// 64 rows that attend to nearly one range of keys.
struct Tile {
  DeviceSpan any;  // keys that some row attends to
  DeviceSpan all;  // keys that every row attends to
};
/// How pairs are sorted and cut into tiles.
struct PairOrder {
  int shared_bits = 0;   // last bits of a first key that need not be looked at, as nearly all have
                         // them in common
  int tile_pairs = 64;   // of a tile: at most its rows
  std::int32_t far = 0;  // tiles whose pairs begin over so many keys are cut up; 0: none are
};
/// So many tiles that they are whole tasks, of two.
__host__ __device__ constexpr std::int64_t whole_tasks(std::int64_t tiles) {
  return (tiles + 1) / 2 * 2;
}
/// Which of a KV head's pairs are a tile's.
struct TilePairs {
  std::int32_t first;
  std::int32_t count;
};
/// (query row, slot) pairs sorted by the first key that they attend to, KV head by KV head.
struct Pairs {
  const std::int32_t* pair;  // [kv_heads, per_head], row * slots + slot of [batch, heads, count]
  const DeviceSpan* span;    // [kv_heads, per_head], attended keys in rows of the arrays
  const Tile* tiles;         // [kv_heads, tiles_per_head]
  const TilePairs* cut;      // the same; null: each has tile_pairs
  std::int64_t per_head;
  std::int64_t tiles_per_head;
  std::int64_t base_tiles;  // of these; behind them, from an even number on, parts of cut ones
  int tile_pairs;
  int begin_shift;  // last bits of a first key that the order does not look at

#ifdef __CUDACC__
  __host__ __device__ std::int64_t first_spare() const { return whole_tasks(base_tiles); }
  /// Where a tile's pairs begin is known without a look but of parts behind the first.
  __device__ TilePairs of_tile(int kv_head, std::int64_t tile) const {
    if (tile >= tiles_per_head) return {0, 0};
    if (!cut) return whole_tile(tile);
    const TilePairs& there = cut[kv_head * tiles_per_head + tile];
    if (tile >= base_tiles) return there;
    return {whole_tile(tile).first, there.count};
  }
  __device__ TilePairs whole_tile(std::int64_t tile) const {
    const std::int64_t first = tile * tile_pairs;
    const std::int64_t left = per_head - first;
    return {static_cast<std::int32_t>(first),
            static_cast<std::int32_t>(min(left, static_cast<std::int64_t>(tile_pairs)))};
  }
#endif
};
/// Of a tile that no part of another has taken: nothing is to be done for it.
inline constexpr DeviceSpan kNoTile{0, -1};
std::size_t sort_pairs_bytes(const Rows& rows, int slots, const PairOrder& how);
Pairs sort_pairs(const SpanAttend& attend, const PairOrder& how, void* workspace, Stream stream);
/// Their order alone.
const std::int32_t* order_pairs(const SpanAttend& attend, const PairOrder& how, void* workspace,
                                Stream stream);

/// Tiles of 64 rows. Their combination takes few slots.
inline constexpr int kMaxTileSlots = 4;
void span_attention_tiles(const SpanAttend& attend, const Pairs& pairs, Stream stream);
void combine_tiles(const Combine& combine, Stream stream);

}  // namespace multistep::cuda
