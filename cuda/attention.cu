#include "multistep/cuda/attention.hpp"

#include <cmath>

#include "check.cuh"
#include "stages.cuh"

/// The public functions: they check their arguments, lay out the workspace, and choose the kernels.
namespace multistep::cuda {
namespace {

constexpr Index kMaxRows = Index{1} << 32;     // rows times slots: what a grid of blocks can cover
constexpr Index kFewRows = 64;                 // of a KV head: fewer do not fill a tile
constexpr Index kChunkPairs = Index{1} << 22;  // (row, slot) pairs of a chunk of a long prefill
constexpr Index kSortedPairs = 1 << 16;        // worth sorting before a level is searched

void require_schedule(const DeviceSchedule* schedule, const Shape& shape) {
  require(schedule, "schedule: a null pointer");
  const Index last = shape.query_offset + shape.queries;
  require(shape.length || schedule->plan().max_length() >= last,
          "schedule for lengths up to {}: the last query stands at {}",
          schedule->plan().max_length(), last - 1);
}

void require_problem(const Shape& shape, Dtype dtype, const DeviceSchedule* schedule, Index slots) {
  require_shape(shape);
  require_dtype(dtype);
  require_schedule(schedule, shape);
  require(shape.rows() * std::max<Index>(slots, 1) < kMaxRows,
          "shape: {} rows of {} slots, below {}", shape.rows(), slots, kMaxRows);
}

void require_scale(double scale, const char* name) {
  require(std::isfinite(static_cast<float>(scale)), "{} {}: a finite float32", name, scale);
}

float scale_of(std::optional<double> softmax_scale, Index head_dim) {
  return static_cast<float>(softmax_scale.value_or(1 / std::sqrt(static_cast<double>(head_dim))));
}

std::int32_t narrow(Index value) { return static_cast<std::int32_t>(value); }

/// A whole search, or one level of it.
class Search {
 public:
  /// Lays out scratch for the queries of `rows`; from an arena without a base it only counts.
  Search(const SpanSearchArgs& args, const Rows& rows, Arena& arena) : args_(args) {
    const DeviceSchedule& schedule = *args.schedule;
    const Index slots = args.shape.rows() * schedule.top_k();
    const Index first = args.level == 0 ? 1 : args.level;
    const Index last = args.level == 0 ? schedule.levels() : args.level;
    const bool trace = args.level == 0 && args.anchors && schedule.levels() > 1;
    if (trace) {
      anchors_ = arena.take<std::int32_t>(schedule.levels() * slots);
      ranks_ = arena.take<std::int32_t>(schedule.levels() * slots);
    }
    const DeviceSpan* parents = args.parents;
    const float* parent_scores = args.parent_scores;
    if (args.level <= 1) parents = nullptr;
    DeviceSpan* spans[2] = {};
    float* scores[2] = {};
    for (Index m = first; m <= last; ++m) {
      LevelSearch level{rows,
                        args.dtype,
                        schedule.tables().levels[static_cast<std::size_t>(m - 1)],
                        narrow(schedule.top_k()),
                        static_cast<float>(args.search_scale),
                        args.routing_queries[static_cast<std::size_t>(m - 1)],
                        args.search_keys,
                        parents,
                        parent_scores,
                        args.spans,
                        args.scores,
                        args.anchors,
                        args.parent_ranks,
                        schedule.tables().max_stripes[static_cast<std::size_t>(m - 1)]};
      if (m < last) {
        if (!spans[m % 2]) {
          spans[m % 2] = arena.take<DeviceSpan>(slots);
          scores[m % 2] = arena.take<float>(slots);
        }
        level.spans = spans[m % 2];
        level.scores = scores[m % 2];
      }
      if (args.level == 0) {
        level.anchors = trace ? anchors_ + (m - 1) * slots : args.anchors;
        level.ranks = trace ? ranks_ + (m - 1) * slots : nullptr;
      }
      parents = level.spans;
      parent_scores = level.scores;
      levels_.push_back(level);
      scratch_.push_back({});
      sorting_.push_back(nullptr);
      fast_ = args.rung == Rung::fast && search_is_fast(rows, narrow(schedule.top_k()));
      if (fast_ && search_needs_lists(level)) take_lists(arena);
    }
  }

  /// Sets counters to 0 on the way: whoever waits for the search can rely on it.
  void set_counters(std::int32_t* counters, std::int64_t count) {
    scratch_.front().counters = counters;
    scratch_.front().counter_count = count;
  }

  void launch(Stream stream) {
    for (std::size_t m = 0; m < levels_.size();) {
      const LevelSearch& level = levels_[m];
      if (!fast_) {
        search_level_plain(level, stream);
        ++m;
        continue;
      }
      if (sorting_[m]) scratch_[m].order = sort_pairs(pairs_of(level), sorting_[m], stream).pair;
      const int count = levels_at_once(&level, static_cast<int>(levels_.size() - m));
      search_levels_fast(&level, count, scratch_[m], stream);
      m += static_cast<std::size_t>(count);
    }
    if (anchors_) {
      trace_paths({args_.shape.rows(), narrow(args_.schedule->top_k()),
                   narrow(args_.schedule->levels()), anchors_, ranks_, args_.anchors},
                  stream);
    }
  }

 private:
  void take_lists(Arena& arena) {
    const LevelSearch& level = levels_.back();
    const Index pairs = level.rows.total() * level.top_k;
    scratch_.back().lists = arena.take<Found>(pairs * level.top_k);
    if (pairs >= kSortedPairs && pairs < INT_MAX) {
      sorting_.back() =
          arena.take<char>(static_cast<Index>(sort_pairs_bytes(level.rows, level.top_k)));
    }
  }

  static SpanAttend pairs_of(const LevelSearch& level) {
    SpanAttend pairs{};
    pairs.rows = level.rows;
    pairs.slots = level.top_k;
    pairs.spans = level.parents;
    return pairs;
  }

  const SpanSearchArgs& args_;
  std::vector<LevelSearch> levels_;
  std::vector<SearchScratch> scratch_;
  std::vector<char*> sorting_;
  std::int32_t* anchors_ = nullptr;  // [levels, rows, top_k]
  std::int32_t* ranks_ = nullptr;
  bool fast_ = false;
};

void require_search(const SpanSearchArgs& args) {
  const Index top_k = args.schedule ? args.schedule->top_k() : 1;
  require_problem(args.shape, args.dtype, args.schedule, top_k);
  const Index levels = args.schedule->levels();
  require(levels > 0, "schedule of 1 step: there is nothing to search");
  require_within("level", args.level, 0, levels);
  require(static_cast<Index>(args.routing_queries.size()) == levels,
          "routing_queries {}: one array per search level, {}", args.routing_queries.size(),
          levels);
  for (const void* level : args.routing_queries) {
    require_pointer(level, "routing_queries", args.shape.rows());
  }
  require_pointer(args.search_keys, "search_keys", args.shape.keys);
  require_scale(args.search_scale, "search_scale");
  require_pointer(args.spans, "spans", args.shape.rows());
  require_pointer(args.scores, "scores", args.shape.rows());
  require_pointer(args.anchors, "anchors", 0);
  require_pointer(args.parent_ranks, "parent_ranks", 0);
  if (args.level > 1) {
    require_pointer(args.parents, "parents", args.shape.rows());
    require_pointer(args.parent_scores, "parent_scores", args.shape.rows());
  }
}

/// The tile kernels: code for Hopper, and a shape that they are built for.
bool tiles_are_fast(const Shape& shape, float scale) {
  return current_device().tiles && (shape.head_dim == 64 || shape.head_dim == 128) && scale > 0 &&
         shape.keys > 0;
}

SpanAttend span_attend_of(const SpanAttentionArgs& args) {
  const Rows rows = rows_of(args.shape, args.schedule->tables().window);
  return {rows,
          args.dtype,
          scale_of(args.softmax_scale, args.shape.head_dim),
          narrow(args.slots),
          args.query,
          args.key,
          args.value,
          args.spans,
          args.output,
          args.lse};
}

bool is_fast(const SpanAttentionArgs& args) {
  return args.rung == Rung::fast &&
         tiles_are_fast(args.shape, scale_of(args.softmax_scale, args.shape.head_dim)) &&
         args.shape.rows() * args.slots < INT_MAX;
}

void require_attend(const SpanAttentionArgs& args) {
  require_problem(args.shape, args.dtype, args.schedule, args.slots);
  require_within("slots", args.slots, 1, args.spans ? 64 : 1);
  require_scale(args.softmax_scale.value_or(1), "softmax_scale");
  const Index rows = args.shape.rows();
  require_pointer(args.query, "query", rows);
  require_pointer(args.key, "key", args.shape.keys);
  require_pointer(args.value, "value", args.shape.keys);
  require_pointer(args.spans, "spans", args.spans ? rows : 0);
  require_pointer(args.output, "output", rows);
  require_pointer(args.lse, "lse", rows);
}

Combine combine_of(const CombineArgs& args) {
  return {rows_of(args.shape, args.schedule->tables().window),
          args.dtype,
          scale_of(args.softmax_scale, args.shape.head_dim),
          narrow(args.slots),
          args.query,
          args.key,
          args.value,
          args.spans,
          args.scores,
          args.span_outputs,
          args.span_lses,
          args.window_output,
          args.window_lse,
          args.output};
}

void require_combine(const CombineArgs& args) {
  require_problem(args.shape, args.dtype, args.schedule, args.slots);
  require_within("slots", args.slots, 0, 64);
  require_scale(args.softmax_scale.value_or(1), "softmax_scale");
  const Index rows = args.shape.rows();
  const Index with_slots = args.slots > 0 ? rows : 0;
  require_pointer(args.spans, "spans", with_slots);
  require_pointer(args.scores, "scores", with_slots);
  require_pointer(args.span_outputs, "span_outputs", with_slots);
  require_pointer(args.span_lses, "span_lses", with_slots);
  require_pointer(args.output, "output", rows);
  require_pointer(args.window_output, "window_output", 0);
  require(args.window_output || !args.window_lse,
          "window_output: a null pointer beside window_lse");
  if (args.window_output) {
    require_pointer(args.window_lse, "window_lse", rows);
  } else if (args.schedule->tables().window > 0) {
    require_pointer(args.query, "query", rows);
    require_pointer(args.key, "key", args.shape.keys);
    require_pointer(args.value, "value", args.shape.keys);
  }
}

/// Window attention by tiles where there is a window to attend to.
void launch_combine(const Combine& combine, const Shape& shape, Rung rung, Stream stream) {
  const bool built = (shape.head_dim == 64 || shape.head_dim == 128) &&
                     combine.slots <= kMaxTileSlots && !combine.window_output;
  if (rung == Rung::plain || !built) return combine_plain(combine, stream);
  if (combine.rows.window == 0) return combine_spans(combine, stream);
  tiles_are_fast(shape, combine.scale) ? combine_tiles(combine, stream)
                                       : combine_plain(combine, stream);
}

/// The whole of attention for the queries [first, first + count) of every head.
class Attention {
 public:
  explicit Attention(const AttentionArgs& args)
      : args_(args),
        tables_(args.schedule->tables()),
        slots_(args.schedule->levels() > 0 ? args.schedule->top_k() : 0),
        scale_(scale_of(args.softmax_scale, args.shape.head_dim)) {
    const Shape& shape = args.shape;
    const Rows all = rows_of(shape, tables_.window);
    const bool few = shape.length || shape.queries * shape.group() <= kFewRows;
    fast_ = args.rung == Rung::fast && (slots_ == 0 || search_is_fast(all, narrow(slots_))) &&
            scale_ > 0;
    decode_ = fast_ && few && shape.keys > 0 && decode_is_fast(all, narrow(slots_));
    const Index of_query = shape.batch * shape.num_heads * std::max<Index>(slots_, 1);
    chunk_ = decode_ ? shape.queries
                     : std::min(shape.queries, std::max<Index>(1, kChunkPairs / of_query));
  }

  std::size_t bytes() const {
    Arena arena;
    const Index count = std::min(chunk_, args_.shape.queries);
    run(arena, 0, count, nullptr, false);
    return arena.used();
  }

  void launch(Stream stream) const {
    if (slots_ == 0) {
      const Index slots = args_.shape.rows() * args_.schedule->top_k();
      no_paths(args_.spans, args_.scores, slots, stream);
    }
    for (Index first = 0; first < args_.shape.queries; first += chunk_) {
      Arena arena(args_.workspace.data);
      run(arena, first, std::min(chunk_, args_.shape.queries - first), stream, true);
    }
  }

 private:
  void run(Arena& arena, Index first, Index count, Stream stream, bool launch) const {
    const Shape& shape = args_.shape;
    const Rows rows = rows_of(shape, tables_.window, first, count);
    SpanSearchArgs search{};
    search.shape = shape;
    search.dtype = args_.dtype;
    search.schedule = args_.schedule;
    search.routing_queries = args_.routing_queries;
    search.search_keys = args_.search_keys ? args_.search_keys : args_.key;
    search.search_scale = args_.search_scale;
    search.rung = fast_ ? Rung::fast : Rung::plain;
    const Index pairs = shape.rows() * slots_;
    // Taken in any case: a workspace fits whether or not the selection is wanted.
    search.spans = arena.take<DeviceSpan>(pairs);
    search.scores = arena.take<float>(pairs);
    if (args_.spans) search.spans = args_.spans;
    if (args_.scores) search.scores = args_.scores;

    const Index chunk_rows = rows.total();
    SpanAttend attend{rows,      args_.dtype, scale_,       narrow(slots_), args_.query,
                      args_.key, args_.value, search.spans, nullptr,        nullptr};
    Combine combine{rows,      args_.dtype, scale_,       narrow(slots_), args_.query,
                    args_.key, args_.value, search.spans, search.scores,  nullptr,
                    nullptr,   nullptr,     nullptr,      args_.output};
    if (decode_) return run_decode(arena, search, attend, combine, stream, launch);

    const Index head_bytes = shape.head_dim * 2;
    attend.output = arena.take<char>(chunk_rows * slots_ * head_bytes);
    attend.lse = arena.take<float>(chunk_rows * slots_);
    combine.span_outputs = attend.output;
    combine.span_lses = attend.lse;
    const bool tiles = fast_ && tiles_are_fast(shape, scale_);
    char* sorting = nullptr;
    if (tiles && slots_ > 0) {
      sorting = arena.take<char>(static_cast<Index>(sort_pairs_bytes(rows, narrow(slots_))));
    }
    if (slots_ > 0) {
      Search stage(search, rows, arena);
      if (launch) {
        stage.launch(stream);
        tiles ? span_attention_tiles(attend, sort_pairs(attend, sorting, stream), stream)
              : span_attention_plain(attend, stream);
      }
    }
    if (launch) launch_combine(combine, shape, fast_ ? Rung::fast : Rung::plain, stream);
  }

  void run_decode(Arena& arena, const SpanSearchArgs& search, const SpanAttend& attend,
                  const Combine& combine, Stream stream, bool launch) const {
    const Rows& rows = attend.rows;
    const std::int64_t max_span = slots_ > 0 ? tables_.max_span.back() : 0;
    auto* counters = arena.take<std::int32_t>(rows.total());
    char* partials =
        arena.take<char>(static_cast<Index>(decode_bytes(rows, attend.slots, max_span)));
    if (slots_ == 0) {
      if (!launch) return;
      check(cudaMemsetAsync(counters, 0, static_cast<std::size_t>(rows.total()) * 4, stream),
            "cudaMemsetAsync");
      return decode(attend, combine, max_span, counters, partials, stream);
    }
    Search stage(search, rows, arena);
    stage.set_counters(counters, rows.total());
    if (!launch) return;
    stage.launch(stream);
    decode(attend, combine, max_span, counters, partials, stream);
  }

  const AttentionArgs& args_;
  const DeviceSchedule::Tables& tables_;
  Index slots_;
  float scale_;
  bool fast_;
  bool decode_;
  Index chunk_;  // queries
};

void require_attention(const AttentionArgs& args) {
  const Index levels = args.schedule ? args.schedule->levels() : 0;
  require_problem(args.shape, args.dtype, args.schedule,
                  args.schedule ? args.schedule->top_k() : 1);
  const Shape& shape = args.shape;
  require(shape.key_offset == 0, "key_offset {}: attention() takes whole contexts",
          shape.key_offset);
  require(shape.length || shape.keys >= shape.query_offset + shape.queries,
          "keys {}: an integer in [{}, {}]", shape.keys, shape.query_offset + shape.queries,
          kMaxContext);
  require(static_cast<Index>(args.routing_queries.size()) == levels,
          "routing_queries {}: one array per search level, {}", args.routing_queries.size(),
          levels);
  for (const void* level : args.routing_queries) {
    require_pointer(level, "routing_queries", shape.rows());
  }
  require_scale(args.search_scale, "search_scale");
  require_scale(args.softmax_scale.value_or(1), "softmax_scale");
  require_pointer(args.query, "query", shape.rows());
  require_pointer(args.key, "key", shape.keys);
  require_pointer(args.value, "value", shape.keys);
  require_pointer(args.search_keys, "search_keys", 0);
  require_pointer(args.spans, "spans", 0);
  require_pointer(args.scores, "scores", 0);
  require_pointer(args.output, "output", shape.rows());
}

}  // namespace

std::size_t workspace_size(const SpanSearchArgs& args) {
  require_problem(args.shape, args.dtype, args.schedule,
                  args.schedule ? args.schedule->top_k() : 1);
  require(args.schedule->levels() > 0, "schedule of 1 step: there is nothing to search");
  require_within("level", args.level, 0, args.schedule->levels());
  require(static_cast<Index>(args.routing_queries.size()) == args.schedule->levels(),
          "routing_queries {}: one array per search level, {}", args.routing_queries.size(),
          args.schedule->levels());
  Arena arena;
  SpanSearchArgs counted = args;
  // A level is one of parents where it is not the first, whether or not they are given yet.
  static const DeviceSpan some{};
  if (args.level > 1) counted.parents = &some;
  Search(counted, rows_of(args.shape, args.schedule->tables().window), arena);
  return arena.used();
}

void span_search(const SpanSearchArgs& args, Stream stream) {
  require_search(args);
  require_workspace(args.workspace, workspace_size(args));
  Arena arena(args.workspace.data);
  Search search(args, rows_of(args.shape, args.schedule->tables().window), arena);
  search.launch(stream);
}

std::size_t workspace_size(const SpanAttentionArgs& args) {
  require_problem(args.shape, args.dtype, args.schedule, args.slots);
  require_within("slots", args.slots, 1, 64);
  if (!is_fast(args)) return 0;
  return sort_pairs_bytes(rows_of(args.shape, args.schedule->tables().window), narrow(args.slots));
}

void span_attention(const SpanAttentionArgs& args, Stream stream) {
  require_attend(args);
  require_workspace(args.workspace, workspace_size(args));
  const SpanAttend attend = span_attend_of(args);
  is_fast(args)
      ? span_attention_tiles(attend, sort_pairs(attend, args.workspace.data, stream), stream)
      : span_attention_plain(attend, stream);
}

std::size_t workspace_size(const CombineArgs&) { return 0; }

void combine(const CombineArgs& args, Stream stream) {
  require_combine(args);
  launch_combine(combine_of(args), args.shape, args.rung, stream);
}

std::size_t workspace_size(const AttentionArgs& args) {
  AttentionArgs counted = args;
  require_problem(args.shape, args.dtype, args.schedule,
                  args.schedule ? args.schedule->top_k() : 1);
  counted.routing_queries.resize(static_cast<std::size_t>(args.schedule->levels()));
  return Attention(counted).bytes();
}

void attention(const AttentionArgs& args, Stream stream) {
  require_attention(args);
  const Attention attention(args);
  require_workspace(args.workspace, attention.bytes());
  attention.launch(stream);
}

}  // namespace multistep::cuda
