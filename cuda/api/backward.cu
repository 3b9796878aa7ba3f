#include <optional>

#include "api/call.cuh"
#include "api/choose.cuh"
#include "group/laid_items.cuh"

/// The backward pass: what it checks, how it lays out the workspace, and its order.
namespace multistep::cuda {
namespace {

constexpr DeviceSpan kSomeSpan{};
constexpr Index kBackwardPairs = Index{1} << 20;  // whose parts of the derivative by query are kept

/// One kind of items, spans or windows, through the passes of the backward, by one rung's kernels.
class ItemPasses {
 public:
  /// Lays out scratch; from an arena without a base it only counts.
  ItemPasses(bool tiles, const SpanAttend& items, const ItemGradients& gradients, Arena& arena)
      : items_(items), gradients_(gradients) {
    const Index count = items.rows.total() * items.slots;
    gradients_.dots = arena.take<ItemDot>(count);
    gradients_.weights = arena.take<ItemWeight>(count);
    if (!tiles) return;
    laid_.emplace(items, arena);
    if (items.spans) {
      sorting_ =
          arena.take<char>(static_cast<Index>(sort_pairs_bytes(items.rows, items.slots, {})));
    }
  }

  ItemDot* dots() const { return gradients_.dots; }
  ItemWeight* weights() const { return gradients_.weights; }
  /// Of the workspace of keys().
  std::size_t key_bytes() const { return laid_ ? key_gradients_bytes(items_.rows) : 0; }

  void dot(Stream stream) {
    if (!laid_) return item_dots_plain(items_, gradients_, stream);
    if (items_.spans) pairs_ = sort_pairs(items_, {}, sorting_, stream);
    item_dots_tiles(items_, pairs(), gradients_, stream);
  }
  /// From here on there have to be weights.
  void weighted(Stream stream) {
    if (laid_) lay_items(*laid_, pairs(), gradients_.weights, stream);
  }
  void queries(Stream stream) const {
    laid_ ? query_gradients_tiles(*laid_, gradients_, stream)
          : query_gradients_plain(items_, gradients_, stream);
  }
  void sum_queries(Stream stream) const { sum_query_parts(items_, gradients_, stream); }
  void keys(void* workspace, Stream stream) const {
    laid_ ? key_gradients_tiles(*laid_, gradients_, workspace, stream)
          : key_gradients_plain(items_, gradients_, stream);
  }

 private:
  const Pairs* pairs() const { return items_.spans ? &pairs_ : nullptr; }

  SpanAttend items_;
  ItemGradients gradients_;
  std::optional<LaidItems> laid_;  // where tiles take them
  char* sorting_ = nullptr;
  Pairs pairs_{};
};

template <class Args>
bool takes_tiles(const Args& args) {
  if (args.rung == Rung::plain) return false;
  const std::string why =
      why_not_backward_tiles(args.shape, scale_of(args.softmax_scale, args.shape.head_dim));
  refuse_slow(args.rung, why);
  return why.empty();
}

Index values_of_keys(const Shape& shape) {
  return shape.batch * shape.num_kv_heads * shape.keys * shape.head_dim;
}

void clear(float* sums, Index count, Stream stream) {
  if (!sums || count == 0) return;
  check(cudaMemsetAsync(sums, 0, static_cast<std::size_t>(count) * sizeof(float), stream),
        "cudaMemsetAsync");
}

/// Sums over all queries.
struct KeySums {
  float* key = nullptr;
  float* value = nullptr;
  float* search_key = nullptr;  // `key` where the keys are searched
};

class Backward {
 public:
  explicit Backward(const AttentionBackwardArgs& args)
      : args_(args),
        window_(args.schedule->tables().window),
        levels_(args.schedule->levels()),
        slots_(levels_ > 0 ? args.schedule->top_k() : 0),
        tiles_(takes_tiles(args)),
        output_gradient_(args.output_gradient),
        chunk_(slots_ > 0 ? chunk_queries(args.shape, slots_, kBackwardPairs)
                          : args.shape.queries) {}

  std::size_t bytes() const {
    Arena arena;
    const KeySums sums = lay_out_sums(arena);
    lay_out_zeros(arena);
    run(arena, rows_of(args_.shape, window_, 0, chunk_), sums, nullptr, false);
    return arena.used();
  }

  void launch(Stream stream) {
    const Shape& shape = args_.shape;
    Arena arena(args_.workspace.data);
    const KeySums sums = lay_out_sums(arena);
    if (char* const zeros = lay_out_zeros(arena)) {
      check(cudaMemsetAsync(zeros, 0, output_bytes(), stream), "cudaMemsetAsync");
      output_gradient_ = zeros;
    }
    const Index values = values_of_keys(shape);
    for (float* one : {sums.key, sums.value}) clear(one, values, stream);
    if (sums.search_key != sums.key) clear(sums.search_key, values, stream);
    for (Index first = 0; first < shape.queries; first += chunk_) {
      Arena of_chunk = arena;
      run(of_chunk, rows_of(shape, window_, first, std::min(chunk_, shape.queries - first)), sums,
          stream, true);
    }
    store_sums(sums.key, values, args_.dtype, args_.key_gradient, stream);
    store_sums(sums.value, values, args_.dtype, args_.value_gradient, stream);
    if (args_.search_keys) {
      store_sums(sums.search_key, values, args_.dtype, args_.search_key_gradient, stream);
    }
  }

 private:
  KeySums lay_out_sums(Arena& arena) const {
    const Index values = values_of_keys(args_.shape);
    KeySums sums{arena.take<float>(values), arena.take<float>(values)};
    sums.search_key = args_.search_keys ? arena.take<float>(values) : sums.key;
    return sums;
  }

  std::size_t output_bytes() const {
    return static_cast<std::size_t>(args_.shape.rows() * args_.shape.head_dim * 2);
  }
  /// For a derivative by the output that is 0; null where one is given.
  char* lay_out_zeros(Arena& arena) const {
    return args_.output_gradient ? nullptr : arena.take<char>(static_cast<Index>(output_bytes()));
  }

  /// Queries of `rows`; or lays out what it takes.
  void run(Arena& arena, const Rows& rows, const KeySums& sums, Stream stream, bool launch) const {
    const bool searches = slots_ > 0;
    const bool has_window = window_ > 0;
    const Index pairs = rows.total() * slots_;
    const ItemGradients gradients{.output_gradient = output_gradient_,
                                  .of_items = false,
                                  .dots = nullptr,
                                  .weights = nullptr,
                                  .query_parts = arena.take<float>(pairs * rows.head_dim),
                                  .part_slots = narrow(slots_),
                                  .query_gradient = args_.query_gradient,
                                  .key_sums = sums.key,
                                  .value_sums = sums.value};
    float* const by_score = arena.take<float>(pairs);
    // Spans, though a workspace may be asked for before they are there.
    const DeviceSpan* const some = args_.spans ? args_.spans : &kSomeSpan;
    ItemPasses spans(tiles_, attend_of(args_, rows, slots_, some), gradients, arena);
    ItemPasses windows(tiles_, attend_of(args_, rows, 1, nullptr), gradients, arena);
    std::size_t bytes = windows.key_bytes();
    if (searches) bytes = std::max(bytes, search_gradients_bytes(rows, narrow(slots_)));
    char* const scratch = arena.take<char>(static_cast<Index>(bytes));  // of a pass at a time
    if (!launch) return;

    if (searches) spans.dot(stream);
    if (has_window && args_.output) {
      dot_outputs(rows, args_.dtype, args_.output, output_gradient_, args_.window_lse,
                  windows.dots(), stream);
    } else if (has_window) {
      windows.dot(stream);
    }
    prepare_gradients({.rows = rows,
                       .slots = narrow(slots_),
                       .spans = args_.spans,
                       .scores = args_.scores,
                       .given_by_score = args_.score_gradient,
                       .given_by_span_lse = args_.span_lse_gradient,
                       .given_by_window_lse = args_.window_lse_gradient,
                       .span_dots = spans.dots(),
                       .window_dots = has_window ? windows.dots() : nullptr,
                       .of_outputs = args_.output != nullptr,
                       .span_weights = spans.weights(),
                       .window_weights = windows.weights(),
                       .by_score = by_score},
                      stream);
    if (searches) spans.weighted(stream);
    if (has_window) windows.weighted(stream);
    if (args_.query_gradient) {
      if (searches) spans.queries(stream);
      has_window ? windows.queries(stream) : spans.sum_queries(stream);
    }
    if (args_.key_gradient || args_.value_gradient) {
      if (searches) spans.keys(scratch, stream);
      if (has_window) windows.keys(scratch, stream);
    }
    if (searches) search(rows, by_score, scratch, sums, stream);
  }

  void search(const Rows& rows, const float* by_score, void* scratch, const KeySums& sums,
              Stream stream) const {
    std::vector<void*> routing = args_.routing_gradients;
    routing.resize(static_cast<std::size_t>(levels_));
    const bool keys_wanted = args_.search_keys ? args_.search_key_gradient : args_.key_gradient;
    search_gradients({.rows = rows,
                      .dtype = args_.dtype,
                      .top_k = narrow(slots_),
                      .levels = narrow(levels_),
                      .scale = static_cast<float>(args_.search_scale),
                      .anchors = args_.anchors,
                      .by_score = by_score,
                      .search_keys = args_.search_keys ? args_.search_keys : args_.key,
                      .search_key_sums = keys_wanted ? sums.search_key : nullptr,
                      .routing = args_.routing_queries.data(),
                      .routing_gradients = routing.data()},
                     scratch, stream);
  }

  const AttentionBackwardArgs& args_;
  std::int32_t window_;
  Index levels_;
  Index slots_;
  bool tiles_;
  const void* output_gradient_;
  Index chunk_;  // queries
};

void require_backward_shape(const Shape& shape, Dtype dtype, const DeviceSchedule* schedule,
                            Index slots) {
  require_problem(shape, dtype, schedule, slots);
  require(!shape.length, "length: the backward pass takes positions from query_offset");
}

void require_level_pointers(const std::vector<const void*>& routing,
                            const std::vector<void*>& gradients, Index levels, Index rows) {
  require_routing(routing, levels, rows);
  require(gradients.empty() || static_cast<Index>(gradients.size()) == levels,
          "routing_gradients {}: one array per search level, {}, or none", gradients.size(),
          levels);
  for (const void* level : gradients) require_pointer(level, "routing_gradients", 0);
}

/// Pointers, each with its name and how many rows it must have: 0 where it may be null.
struct Named {
  const void* pointer;
  const char* name;
  Index rows;
};
void require_pointers(std::initializer_list<Named> pointers) {
  for (const Named& one : pointers) require_pointer(one.pointer, one.name, one.rows);
}

void require_backward(const AttentionBackwardArgs& args) {
  require_backward_shape(args.shape, args.dtype, args.schedule,
                         args.schedule ? args.schedule->top_k() : 1);
  const Shape& shape = args.shape;
  require(shape.key_offset == 0, "key_offset {}: attention_backward() takes whole contexts",
          shape.key_offset);
  require_keys(shape);
  require_scale(args.search_scale, "search_scale");
  require_scale(args.softmax_scale.value_or(1), "softmax_scale");
  const Index levels = args.schedule->levels();
  const Index rows = shape.rows();
  const Index with_paths = levels > 0 ? rows : 0;
  require_level_pointers(args.routing_queries, args.routing_gradients, levels, rows);
  require_pointers({{args.query, "query", rows},
                    {args.key, "key", shape.keys},
                    {args.value, "value", shape.keys},
                    {args.search_keys, "search_keys", 0},
                    {args.spans, "spans", with_paths},
                    {args.scores, "scores", with_paths},
                    {args.anchors, "anchors", with_paths},
                    {args.output, "output", args.window_lse ? rows : 0},
                    {args.window_lse, "window_lse", args.output ? rows : 0},
                    {args.output_gradient, "output_gradient", 0},
                    {args.score_gradient, "score_gradient", 0},
                    {args.span_lse_gradient, "span_lse_gradient", 0},
                    {args.window_lse_gradient, "window_lse_gradient", 0},
                    {args.query_gradient, "query_gradient", 0},
                    {args.key_gradient, "key_gradient", 0},
                    {args.value_gradient, "value_gradient", 0},
                    {args.search_key_gradient, "search_key_gradient", 0}});
}

/// span_attention_backward() in one piece.
struct ItemsBackward {
  Index values;
  float* key_sums;
  float* value_sums;
  ItemPasses passes;
  char* scratch;

  ItemsBackward(const SpanAttentionBackwardArgs& args, Arena& arena)
      : values(values_of_keys(args.shape)),
        key_sums(arena.take<float>(values)),
        value_sums(arena.take<float>(values)),
        passes(passes_of(args, arena)),
        scratch(arena.take<char>(static_cast<Index>(passes.key_bytes()))) {}

 private:
  ItemPasses passes_of(const SpanAttentionBackwardArgs& args, Arena& arena) const {
    const Rows rows = rows_of(args.shape, args.schedule->tables().window);
    const Index pairs = rows.total() * args.slots;
    require(pairs < INT_MAX, "{} pairs of a row and a slot: below {}", pairs, INT_MAX);
    const ItemGradients gradients{
        .output_gradient = args.output_gradient,
        .of_items = true,
        .dots = nullptr,
        .weights = nullptr,
        .query_parts = arena.take<float>(args.spans ? pairs * args.shape.head_dim : 0),
        .part_slots = 0,
        .query_gradient = args.query_gradient,
        .key_sums = key_sums,
        .value_sums = value_sums};
    return {takes_tiles(args), attend_of(args, rows, args.slots, args.spans), gradients, arena};
  }
};

void require_items(const SpanAttentionBackwardArgs& args) {
  require_backward_shape(args.shape, args.dtype, args.schedule, args.slots);
  require_within("slots", args.slots, 1, args.spans ? 64 : 1);
  require_scale(args.softmax_scale.value_or(1), "softmax_scale");
}

}  // namespace

std::size_t workspace_size(const AttentionBackwardArgs& args) {
  require_backward_shape(args.shape, args.dtype, args.schedule,
                         args.schedule ? args.schedule->top_k() : 1);
  return Backward(args).bytes();
}

void attention_backward(const AttentionBackwardArgs& args, Stream stream) {
  require_backward(args);
  Backward backward(args);
  require_workspace(args.workspace, backward.bytes());
  backward.launch(stream);
}

std::size_t workspace_size(const SpanAttentionBackwardArgs& args) {
  require_items(args);
  Arena arena;
  ItemsBackward(args, arena);
  return arena.used();
}

void span_attention_backward(const SpanAttentionBackwardArgs& args, Stream stream) {
  require_items(args);
  const Index rows = args.shape.rows();
  require_pointers({{args.query, "query", rows},
                    {args.key, "key", args.shape.keys},
                    {args.value, "value", args.shape.keys},
                    {args.spans, "spans", 0},
                    {args.output_gradient, "output_gradient", rows},
                    {args.lse_gradient, "lse_gradient", 0},
                    {args.query_gradient, "query_gradient", 0},
                    {args.key_gradient, "key_gradient", 0},
                    {args.value_gradient, "value_gradient", 0}});
  require_workspace(args.workspace, workspace_size(args));
  Arena arena(args.workspace.data);
  ItemsBackward backward(args, arena);
  ItemPasses& passes = backward.passes;
  clear(backward.key_sums, backward.values, stream);
  clear(backward.value_sums, backward.values, stream);
  if (rows > 0) {
    passes.dot(stream);
    weigh_items(rows_of(args.shape, 0), narrow(args.slots), passes.dots(), args.lse_gradient,
                passes.weights(), stream);
    passes.weighted(stream);
    if (args.query_gradient) passes.queries(stream);
    if (args.query_gradient && args.spans) passes.sum_queries(stream);
    passes.keys(backward.scratch, stream);
  }
  store_sums(backward.key_sums, backward.values, args.dtype, args.key_gradient, stream);
  store_sums(backward.value_sums, backward.values, args.dtype, args.value_gradient, stream);
}

void combine_backward(const CombineBackwardArgs& args, Stream stream) {
  require_shape(args.shape);
  require_no_pages(args.shape);
  require_dtype(args.dtype);
  require_within("slots", args.slots, 0, 64);
  const Index rows = args.shape.rows();
  const Index with_slots = args.slots > 0 ? rows : 0;
  require_pointers({{args.spans, "spans", with_slots},
                    {args.scores, "scores", with_slots},
                    {args.span_outputs, "span_outputs", with_slots},
                    {args.span_lses, "span_lses", with_slots},
                    {args.window_output, "window_output", args.window_lse ? rows : 0},
                    {args.window_lse, "window_lse", args.window_output ? rows : 0},
                    {args.output_gradient, "output_gradient", rows},
                    {args.score_gradient, "score_gradient", 0},
                    {args.span_output_gradient, "span_output_gradient", 0},
                    {args.span_lse_gradient, "span_lse_gradient", 0},
                    {args.window_output_gradient, "window_output_gradient", 0},
                    {args.window_lse_gradient, "window_lse_gradient", 0}});
  combine_rows_backward(args, rows_of(args.shape, 0), stream);
}

std::size_t workspace_size(const SpanSearchBackwardArgs& args) {
  require_shape(args.shape);
  require_no_pages(args.shape);
  require_within("top_k", args.top_k, 1, 64);
  Arena arena;
  arena.take<float>(values_of_keys(args.shape));
  return arena.used() + search_gradients_bytes(rows_of(args.shape, 0), narrow(args.top_k));
}

void span_search_backward(const SpanSearchBackwardArgs& args, Stream stream) {
  const std::size_t bytes = workspace_size(args);
  require_dtype(args.dtype);
  require_scale(args.search_scale, "search_scale");
  const Index rows = args.shape.rows();
  const auto levels = static_cast<Index>(args.routing_queries.size());
  require(levels >= 1, "routing_queries 0: one array per search level, 1 at least");
  require_level_pointers(args.routing_queries, args.routing_gradients, levels, rows);
  require_pointers({{args.search_keys, "search_keys", args.shape.keys},
                    {args.anchors, "anchors", rows},
                    {args.score_gradient, "score_gradient", rows},
                    {args.search_key_gradient, "search_key_gradient", 0}});
  require_workspace(args.workspace, bytes);
  Arena arena(args.workspace.data);
  const Index values = values_of_keys(args.shape);
  float* const sums = arena.take<float>(values);
  clear(sums, values, stream);
  std::vector<void*> routing = args.routing_gradients;
  routing.resize(args.routing_queries.size());
  search_gradients({.rows = rows_of(args.shape, 0),
                    .dtype = args.dtype,
                    .top_k = narrow(args.top_k),
                    .levels = narrow(levels),
                    .scale = static_cast<float>(args.search_scale),
                    .anchors = args.anchors,
                    .by_score = args.score_gradient,
                    .search_keys = args.search_keys,
                    .search_key_sums = args.search_key_gradient ? sums : nullptr,
                    .routing = args.routing_queries.data(),
                    .routing_gradients = routing.data()},
                   arena.take<char>(0), stream);
  store_sums(sums, values, args.dtype, args.search_key_gradient, stream);
}

}  // namespace multistep::cuda
