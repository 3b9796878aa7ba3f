#include "api/call.cuh"

#include "api/choose.cuh"

#include <cmath>

/// The stages one by one: they check their arguments, lay out the workspace, and choose the
/// kernels.
namespace multistep::cuda {
namespace {

constexpr Index kMaxRows = Index{1} << 32;  // rows times slots: what a grid of blocks can cover

void require_schedule(const DeviceSchedule* schedule, const Shape& shape) {
  require(schedule, "schedule: a null pointer");
  const Index longest = longest_row(shape);
  require(shape.length || schedule->plan().max_length() >= longest,
          "schedule for lengths up to {}: the last query may stand at {}",
          schedule->plan().max_length(), longest - 1);
}

void require_search(const SpanSearchArgs& args) {
  const Index top_k = args.schedule ? args.schedule->top_k() : 1;
  require_problem(args.shape, args.dtype, args.schedule, top_k);
  const Index levels = args.schedule->levels();
  require(levels > 0, "schedule of 1 step: there is nothing to search");
  require_within("level", args.level, 0, levels);
  require_routing(args.routing_queries, levels, args.shape.rows());
  require_pointer(args.search_keys, "search_keys", args.shape.keys);
  require_scale(args.search_scale, "search_scale");
  require_pointer(args.spans, "spans", args.shape.rows());
  require_pointer(args.scores, "scores", args.shape.rows());
  require_pointer(args.anchors, "anchors", 0);
  require_pointer(args.parent_ranks, "parent_ranks", 0);
  require_strides(args.search_key_strides, "search_key_strides");
  require_routing_strides(args.routing_strides, levels);
  if (args.level > 1) {
    require_pointer(args.parents, "parents", args.shape.rows());
    require_pointer(args.parent_scores, "parent_scores", args.shape.rows());
  }
}

SpanAttend span_attend_of(const SpanAttentionArgs& args) {
  const Rows rows = rows_of(args.shape, args.schedule->tables().window);
  SpanAttend attend = attend_of(args, rows, args.slots, args.spans);
  attend.output = args.output;
  attend.lse = args.lse;
  return attend;
}

PairOrder pair_order_of(const SpanAttentionArgs& args) {
  if (!args.spans) return {};
  const Rows rows = rows_of(args.shape, args.schedule->tables().window);
  return pair_order(*args.schedule, rows, args.slots, longest_row(args.shape),
                    current_device().multiprocessors);
}

bool is_fast(const SpanAttentionArgs& args) {
  if (args.rung == Rung::plain) return false;
  std::string why = why_not_tiles(args.shape);
  const Index pairs = args.shape.rows() * args.slots;
  if (pairs >= INT_MAX) why = text("{} pairs of a row and a slot: below {}", pairs, INT_MAX);
  refuse_slow(args.rung, why);
  return why.empty();
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
  return {.rows = rows_of(args.shape, args.schedule->tables().window),
          .dtype = args.dtype,
          .scale = scale_of(args.softmax_scale, args.shape.head_dim),
          .slots = narrow(args.slots),
          .query = query_array(args.query, {}, args.shape),
          .key = key_array(args.key, {}, args.shape),
          .value = key_array(args.value, {}, args.shape),
          .spans = args.spans,
          .scores = args.scores,
          .span_outputs = args.span_outputs,
          .span_lses = args.span_lses,
          .window_output = args.window_output,
          .window_lse = args.window_lse,
          .output = args.output,
          .window_lse_out = args.window_lse_out};
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
  require_pointer(args.window_lse_out, "window_lse_out", 0);
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

}  // namespace

void require_problem(const Shape& shape, Dtype dtype, const DeviceSchedule* schedule, Index slots,
                     bool pages) {
  require_shape(shape);
  if (!pages) require_no_pages(shape);
  require_dtype(dtype);
  require_schedule(schedule, shape);
  require(shape.rows() <= (kMaxRows - 1) / std::max<Index>(slots, 1),  // the product may overflow
          "shape: {} rows of {} slots, below {}", shape.rows(), slots, kMaxRows);
}

void require_routing(const std::vector<const void*>& routing_queries, Index levels, Index rows) {
  require(static_cast<Index>(routing_queries.size()) == levels,
          "routing_queries {}: one array per search level, {}", routing_queries.size(), levels);
  for (const void* level : routing_queries) require_pointer(level, "routing_queries", rows);
}

void require_scale(double scale, const char* name) {
  require(std::isfinite(static_cast<float>(scale)), "{} {}: a finite float32", name, scale);
}

void require_strides(const Strides& strides, const std::string& name) {
  for (const Index step : {strides.batch, strides.head, strides.row}) {
    require(step >= 0 && step % 8 == 0, "{} {}: a multiple of 8, 0 or above", name, step);
  }
  require(strides.dense() || strides.row > 0, "{} 0 from row to row: above 0", name);
}

void require_routing_strides(const std::vector<Strides>& strides, Index levels) {
  require(strides.empty() || static_cast<Index>(strides.size()) == levels,
          "routing_strides {}: one per search level, {}, or none", strides.size(), levels);
  for (const Strides& level : strides) require_strides(level, "routing_strides");
}

float scale_of(std::optional<double> softmax_scale, Index head_dim) {
  return static_cast<float>(softmax_scale.value_or(1 / std::sqrt(static_cast<double>(head_dim))));
}

Index longest_row(const Shape& shape) {
  return shape.keys_on_device() ? shape.keys : shape.query_offset + shape.queries;
}

void require_keys(const Shape& shape) {
  const Index least = shape.keys_on_device() ? 0 : longest_row(shape);
  require_within("keys", shape.keys, least, kMaxContext);
}

Search::Search(const SpanSearchArgs& args, const Rows& rows, Arena& arena)
    : args_(args), rows_(rows) {
  const DeviceSchedule& schedule = *args.schedule;
  const std::string why = args.rung == Rung::plain ? "rung plain" : why_not_head_dim(rows.head_dim);
  refuse_slow(args.rung, why);
  fast_ = why.empty();
  const Index slots = args.shape.rows() * schedule.top_k();
  if (args.level == 0 && args.anchors && schedule.levels() > 1) {
    anchors_ = arena.take<std::int32_t>(schedule.levels() * slots);
    ranks_ = arena.take<std::int32_t>(schedule.levels() * slots);
  }
  const Index first = args.level == 0 ? 1 : args.level;
  const Index last = args.level == 0 ? schedule.levels() : args.level;
  DeviceSpan* kept_spans[2] = {};  // of the levels above the last, in turn
  float* kept_scores[2] = {};
  for (Index m = first; m <= last; ++m) {
    LevelSearch level = level_of(m);
    level.as_product =
        fast_ && searches_product(schedule.plan().schedule(), m, rows_, longest_row(args.shape),
                                  current_device().multiprocessors);
    if (m < last) {
      if (!kept_spans[m % 2]) {
        kept_spans[m % 2] = arena.take<DeviceSpan>(slots);
        kept_scores[m % 2] = arena.take<float>(slots);
      }
      level.spans = kept_spans[m % 2];
      level.scores = kept_scores[m % 2];
    }
    levels_.push_back(level);
    scratch_.push_back({});
    sorting_.push_back(nullptr);
    if (fast_ && search_needs_lists(level)) take_lists(arena);
  }
}

LevelSearch Search::level_of(Index m) const {
  const DeviceSchedule::Tables& tables = args_.schedule->tables();
  const Index top_k = args_.schedule->top_k();
  const auto at = static_cast<std::size_t>(m - 1);
  const Strides routing_strides =
      args_.routing_strides.empty() ? Strides{} : args_.routing_strides[at];
  LevelSearch level{.rows = rows_,
                    .dtype = args_.dtype,
                    .level = tables.levels[at],
                    .top_k = narrow(top_k),
                    .scale = static_cast<float>(args_.search_scale),
                    .routing = query_array(args_.routing_queries[at], routing_strides, args_.shape),
                    .keys = key_array(args_.search_keys, args_.search_key_strides, args_.shape),
                    .parents = m > 1 ? args_.parents : nullptr,
                    .parent_scores = args_.parent_scores,
                    .spans = args_.spans,
                    .scores = args_.scores,
                    .anchors = args_.anchors,
                    .ranks = args_.parent_ranks,
                    .max_stripes = tables.max_stripes[at]};
  if (!levels_.empty()) {
    level.parents = levels_.back().spans;
    level.parent_scores = levels_.back().scores;
  }
  if (args_.level == 0) {
    const Index skipped = (m - 1) * args_.shape.rows() * top_k;
    level.anchors = anchors_ ? anchors_ + skipped : args_.anchors;
    level.ranks = ranks_ ? ranks_ + skipped : nullptr;
  }
  return level;
}

void Search::set_counters(std::int32_t* counters, std::int64_t count) {
  scratch_.front().counters = counters;
  scratch_.front().counter_count = count;
}

/// Level 1's fast kernels do it on their way, the product's and the plain ones do not.
void Search::reset_counters(Stream stream) const {
  const SearchScratch& scratch = scratch_.front();
  const bool on_the_way = fast_ && !levels_.front().as_product;
  if (!scratch.counters || on_the_way || faulty(rows_.fault, Fault::counters_left)) return;
  check(cudaMemsetAsync(scratch.counters, 0, static_cast<std::size_t>(scratch.counter_count) * 4,
                        stream),
        "cudaMemsetAsync");
}

void Search::launch(Stream stream) {
  reset_counters(stream);
  for (std::size_t m = 0; m < levels_.size();) {
    const LevelSearch& level = levels_[m];
    if (!fast_) {
      search_level_plain(level, stream);
      ++m;
      continue;
    }
    if (sorting_[m]) {
      const Index above = args_.level == 0 ? static_cast<Index>(m) : args_.level - 1;
      const PairOrder how{.shared_bits = shared_bits(args_.schedule->plan().schedule(), above,
                                                     longest_row(args_.shape))};
      scratch_[m].order = order_pairs(pairs_of(level), how, sorting_[m], stream);
    }
    const int count = levels_at_once(rows_, level.top_k, level.parents != nullptr,
                                     static_cast<int>(levels_.size() - m), current_chip());
    search_levels_fast(&level, count, scratch_[m], stream);
    m += static_cast<std::size_t>(count);
  }
}

void Search::trace(Stream stream) const {
  if (!anchors_) return;
  trace_paths({rows_, narrow(args_.schedule->top_k()), narrow(args_.schedule->levels()), anchors_,
               ranks_, args_.anchors},
              stream);
}

void Search::take_lists(Arena& arena) {
  const LevelSearch& level = levels_.back();
  const Index pairs = level.rows.total() * level.top_k;
  scratch_.back().lists = arena.take<FoundPath>(pairs * level.top_k);
  if (level.as_product || sorts_parents(pairs)) {
    sorting_.back() =
        arena.take<char>(static_cast<Index>(sort_pairs_bytes(level.rows, level.top_k, {})));
  }
}

SpanAttend Search::pairs_of(const LevelSearch& level) {
  SpanAttend pairs{};
  pairs.rows = level.rows;
  pairs.slots = level.top_k;
  pairs.spans = level.parents;
  return pairs;
}

void launch_combine(const Combine& combine, const Shape& shape, Rung rung, float* window_lses,
                    Stream stream) {
  const std::string why = rung == Rung::plain ? "rung plain" : why_not_fast_combine(shape, combine);
  refuse_slow(rung, why);
  if (!why.empty()) return combine_plain(combine, stream);
  if (combine.window_output || combine.rows.window == 0) return combine_spans(combine, stream);
  if (!combines_twice(combine)) return combine_tiles(combine, stream);
  Combine window = combine;  // whose output goes where the sum will
  window.slots = 0;
  if (!window.window_lse_out) window.window_lse_out = window_lses;
  combine_tiles(window, stream);
  Combine rest = combine;
  rest.window_output = combine.output;
  rest.window_lse = window.window_lse_out;
  rest.window_lse_out = nullptr;
  combine_spans(rest, stream);
}

std::size_t workspace_size(const SpanSearchArgs& args) {
  require_problem(args.shape, args.dtype, args.schedule,
                  args.schedule ? args.schedule->top_k() : 1);
  require(args.schedule->levels() > 0, "schedule of 1 step: there is nothing to search");
  require_within("level", args.level, 0, args.schedule->levels());
  require(static_cast<Index>(args.routing_queries.size()) == args.schedule->levels(),
          "routing_queries {}: one array per search level, {}", args.routing_queries.size(),
          args.schedule->levels());
  require_routing_strides(args.routing_strides, args.schedule->levels());
  Arena arena;
  SpanSearchArgs counted = args;
  // A level is one of parents where it is not the first, whether or not they are given yet.
  static const DeviceSpan some{};
  if (args.level > 1) counted.parents = &some;
  const Index count = search_queries(args.shape, args.schedule->top_k());
  Search(counted, rows_of(args.shape, args.schedule->tables().window, 0, count), arena);
  return arena.used();
}

void span_search(const SpanSearchArgs& args, Stream stream) {
  require_search(args);
  require_workspace(args.workspace, workspace_size(args));
  const Index chunk = search_queries(args.shape, args.schedule->top_k());
  for (Index first = 0; first < args.shape.queries; first += chunk) {
    const Index count = std::min(chunk, args.shape.queries - first);
    Arena arena(args.workspace.data);
    Search search(args, rows_of(args.shape, args.schedule->tables().window, first, count), arena);
    search.launch(stream);
    search.trace(stream);
  }
}

std::size_t workspace_size(const SpanAttentionArgs& args) {
  require_problem(args.shape, args.dtype, args.schedule, args.slots);
  require_within("slots", args.slots, 1, 64);
  if (!is_fast(args)) return 0;
  return sort_pairs_bytes(rows_of(args.shape, args.schedule->tables().window), narrow(args.slots),
                          pair_order_of(args));
}

void span_attention(const SpanAttentionArgs& args, Stream stream) {
  require_attend(args);
  require_workspace(args.workspace, workspace_size(args));
  const SpanAttend attend = span_attend_of(args);
  is_fast(args)
      ? span_attention_tiles(
            attend, sort_pairs(attend, pair_order_of(args), args.workspace.data, stream), stream)
      : span_attention_plain(attend, stream);
}

std::size_t workspace_size(const CombineArgs& args) {
  require_problem(args.shape, args.dtype, args.schedule, args.slots);
  if (!combines_twice(combine_of(args))) return 0;
  Arena arena;
  arena.take<float>(args.shape.rows());
  return arena.used();
}

void combine(const CombineArgs& args, Stream stream) {
  require_combine(args);
  require_workspace(args.workspace, workspace_size(args));
  launch_combine(combine_of(args), args.shape, args.rung, static_cast<float*>(args.workspace.data),
                 stream);
}

}  // namespace multistep::cuda
