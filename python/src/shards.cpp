#include "multistep/shards.hpp"

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"
#include "problem.hpp"

/// The stages one by one, as shards of a context need them.
namespace multistep::python {
namespace {

/// spans, scores, anchors, ranks, of shape [rows.., top_k]
nb::tuple tuple_of(LevelPaths&& paths, std::initializer_list<Index> shape,
                   std::initializer_list<Index> shape_of_spans) {
  return nb::make_tuple(
      to_numpy(flat(paths.spans), shape_of_spans), to_numpy(std::move(paths.scores), shape),
      to_numpy(std::move(paths.anchors), shape), to_numpy(std::move(paths.ranks), shape));
}

/// Of the inputs q is the level's routing query and k the search keys. Parents as in
/// LevelSearchArgs; none at level 1.
nb::tuple search_level_of(const Inputs& inputs, Index level, const MaybeArray& parents,
                          const MaybeArray& parent_scores) {
  const Shape s = inputs.shape();
  const Index k = inputs.plan->schedule().top_k;
  LevelPaths paths = with_type(inputs.query, [&](auto zero) {
    using T = decltype(zero);
    LevelSearchArgs<T> args{s, inputs.plan, level};
    args.routing_query = inputs.of_queries<T>(inputs.query, "routing_query");
    args.search_keys = inputs.of_keys<T>(inputs.key, "search_keys");
    args.search_scale = inputs.search_scale;
    args.parents =
        elements<Index>(parents, "parents", {s.batch, s.num_heads, s.queries, k, level - 1});
    args.parent_scores =
        elements<double>(parent_scores, "parent_scores", {s.batch, s.num_heads, s.queries, k});
    return interruptible(is_short(s), nb::handle(), [&](Errand&) { return search_level(args); });
  });
  return tuple_of(std::move(paths), {s.batch, s.num_heads, s.queries, k},
                  {s.batch, s.num_heads, s.queries, k, 2});
}

/// The best of the lists of shards: arrays [shards, rows, top_k].
nb::tuple merged_paths(const Array& spans, const Array& scores, const Array& anchors,
                       const Array& ranks) {
  require(scores.ndim() == 3, "scores with {} dimensions: [shards, rows, top_k] here",
          scores.ndim());
  const auto extent = [&](std::size_t i) { return static_cast<Index>(scores.shape(i)); };
  const Index shards = extent(0), rows = extent(1), k = extent(2);
  const std::vector<Span> given =
      spans_at(elements<Index>(spans, "spans", {shards, rows, k, 2}), shards * rows * k);
  const MergePathsArgs args{shards,
                            rows,
                            k,
                            given.data(),
                            elements<double>(scores, "scores", {shards, rows, k}),
                            elements<Index>(anchors, "anchors", {shards, rows, k}),
                            elements<Index>(ranks, "ranks", {shards, rows, k})};
  LevelPaths merged = [&] {
    const Unlocked unlocked;
    return merge_paths(args);
  }();
  return tuple_of(std::move(merged), {rows, k}, {rows, k, 2});
}

/// Output and log-sum-exp of the items [batch, num_heads, L_q, slots] of `spans`, or of the window
/// where there are none.
nb::tuple items_of(const Inputs& inputs, const MaybeArray& spans) {
  const Shape s = inputs.shape();
  require(!spans || spans->ndim() == 5, "spans with {} dimensions: it has 5 here",
          spans ? spans->ndim() : 0);
  const Index slots = spans ? static_cast<Index>(spans->shape(3)) : 1;
  const Index* ends = elements<Index>(spans, "spans", {s.batch, s.num_heads, s.queries, slots, 2});
  const std::vector<Span> given = spans_at(ends, ends ? s.rows() * slots : 0);
  const std::vector<Span> windows = query_windows(*inputs.plan, s);
  Items items = with_type(inputs.query, [&](auto zero) {
    using T = decltype(zero);
    const SpanAttentionArgs<T> args{s,
                                    inputs.of_queries<T>(inputs.query, "q"),
                                    inputs.of_keys<T>(inputs.key, "k"),
                                    inputs.of_keys<T>(inputs.value, "v"),
                                    slots,
                                    ends ? given.data() : nullptr,
                                    windows.data(),
                                    inputs.softmax_scale};
    return interruptible(is_short(s), nb::handle(), [&](Errand&) { return span_attention(args); });
  });
  return nb::make_tuple(
      to_numpy(std::move(items.output), {s.batch, s.num_heads, s.queries, slots, s.head_dim}),
      to_numpy(std::move(items.lse), {s.batch, s.num_heads, s.queries, slots}));
}

/// The output [rows, head_dim] of items [rows, slots] and windows [rows].
nb::object combined(const Array& spans, const Array& scores, const Array& outputs,
                    const Array& lses, const Array& window_output, const Array& window_lse) {
  require(outputs.ndim() == 3, "outputs with {} dimensions: [rows, slots, head_dim] here",
          outputs.ndim());
  const auto extent = [&](std::size_t i) { return static_cast<Index>(outputs.shape(i)); };
  const Index rows = extent(0), slots = extent(1), d = extent(2);
  const std::vector<Index> counts =
      counts_of(spans_at(elements<Index>(spans, "spans", {rows, slots, 2}), rows * slots), slots);
  const CombineArgs args{rows,
                         slots,
                         d,
                         counts.data(),
                         elements<double>(scores, "scores", {rows, slots}),
                         elements<double>(outputs, "outputs", {rows, slots, d}),
                         elements<double>(lses, "lses", {rows, slots}),
                         elements<double>(window_output, "window_output", {rows, d}),
                         elements<double>(window_lse, "window_lse", {rows})};
  std::vector<double> output = [&] {
    const Unlocked unlocked;
    return combine(args);
  }();
  return nb::cast(to_numpy(std::move(output), {rows, d}));
}

}  // namespace

void bind_shards(nb::module_& core) {
  core.def("search_level", &search_level_of, nb::arg(), nb::arg(), nb::arg().noconvert().none(),
           nb::arg().noconvert().none());
  core.def("merge_paths", &merged_paths, nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg().noconvert());
  core.def("attend_items", &items_of, nb::arg(), nb::arg().noconvert().none());
  core.def("combine", &combined, nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert());
}

}  // namespace multistep::python
