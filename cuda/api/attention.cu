#include "api/call.cuh"
#include "api/choose.cuh"

/// Search, attention and combination in one call.
namespace multistep::cuda {
namespace {

/// The whole of attention for the queries [first, first + count) of every head.
class Attention {
 public:
  explicit Attention(const AttentionArgs& args)
      : args_(args),
        tables_(args.schedule->tables()),
        slots_(args.schedule->levels() > 0 ? args.schedule->top_k() : 0),
        scale_(scale_of(args.softmax_scale, args.shape.head_dim)),
        choice_(args.shape, slots_, tables_.items_of(longest_row(args.shape)), args.rung),
        chunk_(choice_.queries_at_once(args.shape, slots_)) {
    refuse_slow(args.rung, choice_.not_search);
    if (!choice_.pieces()) refuse_slow(args.rung, choice_.not_tiles);
  }

  std::size_t bytes() const {
    Arena arena;
    const Index count = std::min(chunk_, args_.shape.queries);
    run(arena, 0, count, nullptr, false);
    return arena.used();
  }

  /// Throws, before anything is launched, where the workspace is too small.
  void launch(Stream stream) const {
    for (Index first = 0; first < args_.shape.queries; first += chunk_) {
      Arena arena(args_.workspace.data);
      run(arena, first, std::min(chunk_, args_.shape.queries - first), stream, true);
    }
    if (slots_ == 0) {
      const Index slots = args_.shape.rows() * args_.schedule->top_k();
      no_paths(args_.spans, args_.scores, args_.span_lses, slots, stream);
    }
  }

 private:
  /// Whether what has been laid out is to be launched. The first chunk is the largest.
  bool launches(const Arena& arena, bool launch) const {
    if (launch) require_workspace(args_.workspace, arena.used());
    return launch;
  }

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
    search.routing_strides = args_.routing_strides;
    search.search_key_strides = args_.search_keys ? args_.search_key_strides : args_.key_strides;
    search.rung = choice_.fast_search() ? Rung::fast : Rung::plain;
    search.anchors = args_.anchors;
    const Index pairs = shape.rows() * slots_;
    // Taken in any case: a workspace fits whether or not the selection is wanted.
    search.spans = arena.take<DeviceSpan>(pairs);
    search.scores = arena.take<float>(pairs);
    if (args_.spans) search.spans = args_.spans;
    if (args_.scores) search.scores = args_.scores;

    const Index chunk_rows = rows.total();
    SpanAttend attend = attend_of(args_, rows, slots_, search.spans);
    attend.query = query_array(args_.query, args_.query_strides, shape);
    attend.key = key_array(args_.key, args_.key_strides, shape);
    attend.value = key_array(args_.value, args_.value_strides, shape);
    Combine combine{.rows = rows,
                    .dtype = args_.dtype,
                    .scale = scale_,
                    .slots = narrow(slots_),
                    .query = attend.query,
                    .key = attend.key,
                    .value = attend.value,
                    .spans = search.spans,
                    .scores = search.scores,
                    .output = args_.output,
                    .window_lse_out = args_.window_lse};
    if (choice_.chunks) return run_chunks(arena, combine, stream, launch);
    if (choice_.pieces()) {
      attend.lse = args_.span_lses;
      return run_decode(arena, search, attend, combine, stream, launch);
    }

    const Index head_bytes = shape.head_dim * 2;
    attend.output = arena.take<char>(chunk_rows * slots_ * head_bytes);
    attend.lse = arena.take<float>(chunk_rows * slots_);
    const bool whole = count == shape.queries;  // then the rows are the caller's
    if (args_.span_lses && whole) attend.lse = args_.span_lses;
    combine.span_outputs = attend.output;
    combine.span_lses = attend.lse;
    float* const window_lses = combines_twice(combine) ? arena.take<float>(shape.rows()) : nullptr;
    const bool tiles = choice_.tiles();
    char* sorting = nullptr;
    PairOrder order;
    if (tiles && slots_ > 0) {
      // Of the first chunk for all, so that none needs more room than it.
      order = pair_order(*args_.schedule, rows_of(shape, tables_.window, 0, chunk_), slots_,
                         longest_row(shape), current_device().multiprocessors);
      const std::size_t bytes = sort_pairs_bytes(rows, narrow(slots_), order);
      sorting = arena.take<char>(static_cast<Index>(bytes));
    }
    if (slots_ > 0) {
      Search stage(search, rows, arena);
      if (launches(arena, launch)) {
        stage.launch(stream);
        tiles ? span_attention_tiles(attend, sort_pairs(attend, order, sorting, stream), stream)
              : span_attention_plain(attend, stream);
        if (args_.span_lses && !whole) {
          place_rows(rows, attend.slots, attend.lse, args_.span_lses, stream);
        }
        stage.trace(stream);
      }
    }
    const Rung rung = args_.rung == Rung::plain ? Rung::plain : Rung::fast;
    if (launches(arena, launch)) launch_combine(combine, shape, rung, window_lses, stream);
  }

  void run_chunks(Arena& arena, const Combine& combine, Stream stream, bool launch) const {
    const int chunks = most_dense_chunks(longest_row(args_.shape));
    auto* outputs = arena.take<float>(chunks * combine.rows.total() * combine.rows.head_dim);
    auto* lses = arena.take<float>(chunks * combine.rows.total());
    if (!launches(arena, launch)) return;
    dense_chunks(combine, chunks, outputs, lses, stream);
    merge_chunks(combine, chunks, outputs, lses, stream);
  }

  void run_decode(Arena& arena, const SpanSearchArgs& search, const SpanAttend& attend,
                  const Combine& combine, Stream stream, bool launch) const {
    const Rows& rows = attend.rows;
    auto* counters = arena.take<std::int32_t>(rows.total());
    char* partials =
        arena.take<char>(static_cast<Index>(decode_bytes(rows, attend.slots, tables_)));
    if (slots_ == 0) {
      if (!launches(arena, launch)) return;
      check(cudaMemsetAsync(counters, 0, static_cast<std::size_t>(rows.total()) * 4, stream),
            "cudaMemsetAsync");
      return decode(attend, combine, tables_, counters, partials, stream);
    }
    Search stage(search, rows, arena);
    stage.set_counters(counters, rows.total());
    if (!launches(arena, launch)) return;
    stage.launch(stream);
    decode(attend, combine, tables_, counters, partials, stream);
    stage.trace(stream);
  }

  const AttentionArgs& args_;
  const DeviceSchedule::Tables& tables_;
  Index slots_;
  float scale_;
  KernelChoice choice_;
  Index chunk_;  // queries
};

void require_attention(const AttentionArgs& args) {
  const Index levels = args.schedule ? args.schedule->levels() : 0;
  require_problem(args.shape, args.dtype, args.schedule, args.schedule ? args.schedule->top_k() : 1,
                  true);
  const Shape& shape = args.shape;
  require(shape.key_offset == 0, "key_offset {}: attention() takes whole contexts",
          shape.key_offset);
  require_keys(shape);
  require_routing(args.routing_queries, levels, shape.rows());
  require_scale(args.search_scale, "search_scale");
  require_scale(args.softmax_scale.value_or(1), "softmax_scale");
  require_pointer(args.query, "query", shape.rows());
  require_pointer(args.key, "key", shape.keys);
  require_pointer(args.value, "value", shape.keys);
  require_pointer(args.search_keys, "search_keys", 0);
  require_pointer(args.spans, "spans", 0);
  require_pointer(args.scores, "scores", 0);
  require_pointer(args.span_lses, "span_lses", 0);
  require_pointer(args.window_lse, "window_lse", 0);
  require_pointer(args.anchors, "anchors", 0);
  require_pointer(args.output, "output", shape.rows());
  require_strides(args.query_strides, "query_strides");
  require_strides(args.key_strides, "key_strides");
  require_strides(args.value_strides, "value_strides");
  require_strides(args.search_key_strides, "search_key_strides");
  require_routing_strides(args.routing_strides, levels);
}

}  // namespace

std::size_t workspace_size(const AttentionArgs& args) {
  AttentionArgs counted = args;
  require_problem(args.shape, args.dtype, args.schedule, args.schedule ? args.schedule->top_k() : 1,
                  true);
  require_routing_strides(args.routing_strides, args.schedule->levels());
  counted.routing_queries.resize(static_cast<std::size_t>(args.schedule->levels()));
  return Attention(counted).bytes();
}

void attention(const AttentionArgs& args, Stream stream) {
  require_attention(args);
  Attention(args).launch(stream);
}

}  // namespace multistep::cuda
