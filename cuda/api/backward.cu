#include "api/call.cuh"
#include "api/choose.cuh"
#include "api/stages_backward.cuh"

/// The backward pass: what it checks, how it lays out the workspace, and its order.
namespace multistep::cuda {
namespace {

constexpr Index kBackwardPairs = Index{1} << 20;  // whose parts of the derivative by query are kept

/// Kernels that take the items of a pass, of one rung.
struct ItemKernels {
  bool tiles;

  void dots(const SpanAttend& items, const Pairs* pairs, const ItemGradients& gradients,
            Stream stream) const {
    tiles ? item_dots_tiles(items, pairs, gradients, stream)
          : item_dots_plain(items, gradients, stream);
  }
  void queries(const SpanAttend& items, const Pairs* pairs, const ItemGradients& gradients,
               Stream stream) const {
    tiles ? query_gradients_tiles(items, pairs, gradients, stream)
          : query_gradients_plain(items, gradients, stream);
  }
  void keys(const SpanAttend& items, const Pairs* pairs, const ItemGradients& gradients,
            void* workspace, Stream stream) const {
    tiles ? key_gradients_tiles(items, pairs, gradients, workspace, stream)
          : key_gradients_plain(items, gradients, stream);
  }
};

ItemKernels kernels_of(const Shape& shape, float scale, Rung rung) {
  if (rung == Rung::plain) return {false};
  const std::string why = why_not_tiles(shape, scale, current_device().tiles);
  refuse_slow(rung, why);
  return {why.empty()};
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

/// Scratch of a chunk of queries.
struct ChunkScratch {
  ItemDot* span_dots;
  ItemDot* window_dots;
  ItemWeight* span_weights;
  ItemWeight* window_weights;
  float* by_score;
  float* query_parts;
  char* sorting;
  char* passing;  // of one pass at a time

  ChunkScratch(const Rows& rows, Index slots, bool tiles, bool searches, Arena& arena) {
    const Index total = rows.total();
    const Index pairs = total * slots;
    span_dots = arena.take<ItemDot>(pairs);
    window_dots = arena.take<ItemDot>(total);
    span_weights = arena.take<ItemWeight>(pairs);
    window_weights = arena.take<ItemWeight>(total);
    by_score = arena.take<float>(pairs);
    query_parts = arena.take<float>(pairs * rows.head_dim);
    std::size_t sort_bytes = 0;
    std::size_t pass_bytes = 0;
    if (tiles && slots > 0) sort_bytes = sort_pairs_bytes(rows, narrow(slots));
    if (tiles) pass_bytes = key_gradients_bytes(rows);
    if (searches) pass_bytes = std::max(pass_bytes, search_gradients_bytes(rows, narrow(slots)));
    sorting = arena.take<char>(static_cast<Index>(sort_bytes));
    passing = arena.take<char>(static_cast<Index>(pass_bytes));
  }
};

class Backward {
 public:
  explicit Backward(const AttentionBackwardArgs& args)
      : args_(args),
        window_(args.schedule->tables().window),
        levels_(args.schedule->levels()),
        slots_(levels_ > 0 ? args.schedule->top_k() : 0),
        scale_(scale_of(args.softmax_scale, args.shape.head_dim)),
        kernels_(kernels_of(args.shape, scale_, args.rung)),
        chunk_(slots_ > 0 ? chunk_queries(args.shape, slots_, kBackwardPairs) : args.shape.queries) {}

  std::size_t bytes() const {
    Arena arena;
    lay_out_sums(arena);
    ChunkScratch(rows_of(args_.shape, window_, 0, chunk_), slots_, kernels_.tiles, slots_ > 0,
                 arena);
    return arena.used();
  }

  void launch(Stream stream) const {
    const Shape& shape = args_.shape;
    Arena arena(args_.workspace.data);
    const KeySums sums = lay_out_sums(arena);
    const Index values = values_of_keys(shape);
    for (float* one : {sums.key, sums.value}) clear(one, values, stream);
    if (sums.search_key != sums.key) clear(sums.search_key, values, stream);
    for (Index first = 0; first < shape.queries; first += chunk_) {
      const Rows rows =
          rows_of(shape, window_, first, std::min(chunk_, shape.queries - first));
      Arena of_chunk = arena;
      run(rows, ChunkScratch(rows, slots_, kernels_.tiles, slots_ > 0, of_chunk), sums, stream);
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

  void run(const Rows& rows, const ChunkScratch& scratch, const KeySums& sums,
           Stream stream) const {
    SpanAttend spans{.rows = rows,
                     .dtype = args_.dtype,
                     .scale = scale_,
                     .slots = narrow(slots_),
                     .query = args_.query,
                     .key = args_.key,
                     .value = args_.value,
                     .spans = args_.spans};
    SpanAttend windows = spans;
    windows.slots = 1;
    windows.spans = nullptr;
    ItemGradients of_spans{.output_gradient = args_.output_gradient,
                           .of_items = false,
                           .dots = scratch.span_dots,
                           .weights = scratch.span_weights,
                           .query_parts = scratch.query_parts,
                           .part_slots = narrow(slots_),
                           .query_gradient = args_.query_gradient,
                           .key_sums = sums.key,
                           .value_sums = sums.value};
    ItemGradients of_windows = of_spans;
    of_windows.dots = scratch.window_dots;
    of_windows.weights = scratch.window_weights;

    const bool has_window = window_ > 0;
    Pairs sorted{};
    const Pairs* pairs = nullptr;
    if (kernels_.tiles && slots_ > 0) {
      sorted = sort_pairs(spans, scratch.sorting, stream);
      pairs = &sorted;
    }
    if (slots_ > 0) kernels_.dots(spans, pairs, of_spans, stream);
    if (has_window) kernels_.dots(windows, nullptr, of_windows, stream);
    prepare_gradients({.rows = rows,
                       .slots = narrow(slots_),
                       .spans = args_.spans,
                       .scores = args_.scores,
                       .given_by_score = args_.score_gradient,
                       .given_by_span_lse = args_.span_lse_gradient,
                       .given_by_window_lse = args_.window_lse_gradient,
                       .span_dots = scratch.span_dots,
                       .window_dots = has_window ? scratch.window_dots : nullptr,
                       .span_weights = scratch.span_weights,
                       .window_weights = scratch.window_weights,
                       .by_score = scratch.by_score},
                      stream);
    if (args_.query_gradient) {
      if (slots_ > 0) kernels_.queries(spans, pairs, of_spans, stream);
      has_window ? kernels_.queries(windows, nullptr, of_windows, stream)
                 : sum_query_parts(spans, of_spans, stream);
    }
    if (args_.key_gradient || args_.value_gradient) {
      if (slots_ > 0) kernels_.keys(spans, pairs, of_spans, scratch.passing, stream);
      if (has_window) kernels_.keys(windows, nullptr, of_windows, scratch.passing, stream);
    }
    if (slots_ > 0) search(rows, scratch, sums, stream);
  }

  void search(const Rows& rows, const ChunkScratch& scratch, const KeySums& sums,
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
                      .by_score = scratch.by_score,
                      .search_keys = args_.search_keys ? args_.search_keys : args_.key,
                      .search_key_sums = keys_wanted ? sums.search_key : nullptr,
                      .routing = args_.routing_queries.data(),
                      .routing_gradients = routing.data()},
                     scratch.passing, stream);
  }

  const AttentionBackwardArgs& args_;
  std::int32_t window_;
  Index levels_;
  Index slots_;
  float scale_;
  ItemKernels kernels_;
  Index chunk_;  // queries
};

void require_backward_shape(const Shape& shape, Dtype dtype, const DeviceSchedule* schedule,
                            Index slots) {
  require_problem(shape, dtype, schedule, slots);
  require(!shape.length, "length: the backward pass takes positions from query_offset");
}

void require_level_pointers(const std::vector<const void*>& routing,
                            const std::vector<void*>& gradients, Index levels, Index rows) {
  require(static_cast<Index>(routing.size()) == levels,
          "routing_queries {}: one array per search level, {}", routing.size(), levels);
  require(gradients.empty() || static_cast<Index>(gradients.size()) == levels,
          "routing_gradients {}: one array per search level, {}, or none", gradients.size(),
          levels);
  for (const void* level : routing) require_pointer(level, "routing_queries", rows);
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
  require(shape.keys >= shape.query_offset + shape.queries, "keys {}: an integer in [{}, {}]",
          shape.keys, shape.query_offset + shape.queries, kMaxContext);
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
                    {args.output_gradient, "output_gradient", rows},
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
  Rows rows;
  Index slots;
  ItemKernels kernels;
  float* key_sums;
  float* value_sums;
  ItemDot* dots;
  ItemWeight* weights;
  float* query_parts;
  char* sorting;
  char* passing;

  ItemsBackward(const SpanAttentionBackwardArgs& args, Arena& arena)
      : rows(rows_of(args.shape, args.schedule->tables().window)),
        slots(args.slots),
        kernels(kernels_of(args.shape, scale_of(args.softmax_scale, args.shape.head_dim),
                           args.rung)) {
    const Index pairs = rows.total() * slots;
    require(pairs < INT_MAX, "{} pairs of a row and a slot: below {}", pairs, INT_MAX);
    const Index values = values_of_keys(args.shape);
    key_sums = arena.take<float>(values);
    value_sums = arena.take<float>(values);
    dots = arena.take<ItemDot>(pairs);
    weights = arena.take<ItemWeight>(pairs);
    query_parts = arena.take<float>(args.spans ? pairs * rows.head_dim : 0);
    const bool sorts = kernels.tiles && args.spans;
    sorting = arena.take<char>(
        sorts ? static_cast<Index>(sort_pairs_bytes(rows, narrow(slots))) : 0);
    passing =
        arena.take<char>(kernels.tiles ? static_cast<Index>(key_gradients_bytes(rows)) : 0);
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
  const Backward backward(args);
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
  const ItemsBackward scratch(args, arena);
  const Index values = values_of_keys(args.shape);
  clear(scratch.key_sums, values, stream);
  clear(scratch.value_sums, values, stream);
  if (rows > 0) {
    const SpanAttend items{.rows = scratch.rows,
                           .dtype = args.dtype,
                           .scale = scale_of(args.softmax_scale, args.shape.head_dim),
                           .slots = narrow(args.slots),
                           .query = args.query,
                           .key = args.key,
                           .value = args.value,
                           .spans = args.spans};
    const ItemGradients gradients{.output_gradient = args.output_gradient,
                                  .of_items = true,
                                  .dots = scratch.dots,
                                  .weights = scratch.weights,
                                  .query_parts = scratch.query_parts,
                                  .part_slots = 0,
                                  .query_gradient = args.query_gradient,
                                  .key_sums = scratch.key_sums,
                                  .value_sums = scratch.value_sums};
    Pairs sorted{};
    const bool sorts = scratch.kernels.tiles && args.spans;
    if (sorts) sorted = sort_pairs(items, scratch.sorting, stream);
    const Pairs* const pairs = sorts ? &sorted : nullptr;
    scratch.kernels.dots(items, pairs, gradients, stream);
    weigh_items(scratch.rows, items.slots, scratch.dots, args.lse_gradient, scratch.weights,
                stream);
    if (args.query_gradient) {
      scratch.kernels.queries(items, pairs, gradients, stream);
      if (args.spans) sum_query_parts(items, gradients, stream);
    }
    scratch.kernels.keys(items, pairs, gradients, scratch.passing, stream);
  }
  store_sums(scratch.key_sums, values, args.dtype, args.key_gradient, stream);
  store_sums(scratch.value_sums, values, args.dtype, args.value_gradient, stream);
}

void combine_backward(const CombineBackwardArgs& args, Stream stream) {
  require_shape(args.shape);
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
