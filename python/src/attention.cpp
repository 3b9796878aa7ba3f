#include "multistep/attention.hpp"

#include "arrays.hpp"
#include "core.hpp"
#include "fields.hpp"
#include "interrupt.hpp"
#include "multistep/gradients.hpp"
#include "problem.hpp"

namespace multistep::python {
namespace {

/// output, lse, window_lse, spans, scores, anchors.
nb::tuple attention_of(const Inputs& inputs) {
  const Shape s = inputs.shape();
  AttentionResult result = with_type(inputs.query, [&](auto zero) {
    const AttentionArgs<decltype(zero)> args = inputs.args<decltype(zero)>();
    return interruptible(is_short(s), nb::handle(),
                         [&](Errand& errand) { return attention(args, errand.progress()); });
  });
  Selection& kept = result.selection;
  return nb::make_tuple(
      to_numpy(std::move(result.output), {s.batch, s.num_heads, s.queries, s.head_dim}),
      to_numpy(std::move(result.lse), {s.batch, s.num_heads, s.queries, kept.top_k}),
      to_numpy(std::move(result.window_lse), {s.batch, s.num_heads, s.queries}),
      to_numpy(flat(kept.spans), {s.batch, s.num_heads, s.queries, kept.top_k, 2}),
      to_numpy(std::move(kept.scores), {s.batch, s.num_heads, s.queries, kept.top_k}),
      to_numpy(std::move(kept.anchors),
               {s.batch, s.num_heads, s.queries, kept.top_k, kept.levels}));
}

/// What was found for these inputs, from arrays as attention_of() gives them.
Selection selection_of(const Inputs& inputs, const Array& spans, const Array& scores,
                       const Array& anchors) {
  const Shape s = inputs.shape();
  const Index k = inputs.plan->schedule().top_k, levels = inputs.plan->steps() - 1;
  const Index slots = s.rows() * k;
  Selection kept;
  kept.top_k = k;
  kept.levels = levels;
  const Index* ends = elements<Index>(spans, "spans", {s.batch, s.num_heads, s.queries, k, 2});
  kept.spans = spans_at(ends, slots);
  const double* score = elements<double>(scores, "scores", {s.batch, s.num_heads, s.queries, k});
  kept.scores.assign(score, score + slots);
  const Index* key =
      elements<Index>(anchors, "anchors", {s.batch, s.num_heads, s.queries, k, levels});
  kept.anchors.assign(key, key + slots * levels);
  kept.count = counts_of(kept.spans, k);
  return kept;
}

/// Derivatives by q, k, v, the routing queries (a list) and the search keys, from those by what
/// attention_of() gives, at a selection. Where the search keys are the keys themselves, the caller
/// adds the last to the second.
nb::tuple gradients_of(const Inputs& inputs, const MaybeArray& by_output, const MaybeArray& by_lse,
                       const MaybeArray& by_window_lse, const MaybeArray& by_scores,
                       const Array& spans, const Array& scores, const Array& anchors) {
  const Shape s = inputs.shape();
  const Selection kept = selection_of(inputs, spans, scores, anchors);
  const auto given = [&](const MaybeArray& array, const char* name,
                         std::initializer_list<Index> shape) {
    return elements<double>(array, name, shape);
  };
  const AttentionResultGradients by_result{
      given(by_output, "by_output", {s.batch, s.num_heads, s.queries, s.head_dim}),
      given(by_scores, "by_scores", {s.batch, s.num_heads, s.queries, kept.top_k}),
      given(by_lse, "by_lse", {s.batch, s.num_heads, s.queries, kept.top_k}),
      given(by_window_lse, "by_window_lse", {s.batch, s.num_heads, s.queries})};
  AttentionGradients sums = with_type(inputs.query, [&](auto zero) {
    const AttentionArgs<decltype(zero)> args = inputs.args<decltype(zero)>();
    return interruptible(is_short(s), nb::handle(), [&](Errand& errand) {
      return attention_backward(args, by_result, &kept, errand.progress());
    });
  });
  const auto of_queries = [&](std::vector<double>& values) {
    return to_numpy(std::move(values), {s.batch, s.num_heads, s.queries, s.head_dim});
  };
  const auto of_keys = [&](std::vector<double>& values) {
    return to_numpy(std::move(values), {s.batch, s.num_kv_heads, s.keys, s.head_dim});
  };
  nb::list routing;
  for (std::vector<double>& level : sums.search.routing_queries) routing.append(of_queries(level));
  return nb::make_tuple(of_queries(sums.attention.query), of_keys(sums.attention.key),
                        of_keys(sums.attention.value), routing, of_keys(sums.search.search_keys));
}

/// Attention over the union of parts [parts, rows, head_dim] with their log-sum-exps.
nb::tuple merge(const Array& outputs, const Array& lses) {
  require(outputs.ndim() == 3, "outputs with {} dimensions: [parts, rows, head_dim] here",
          outputs.ndim());
  const auto extent = [&](std::size_t i) { return static_cast<Index>(outputs.shape(i)); };
  const Index parts = extent(0), rows = extent(1), d = extent(2);
  const MergeAttentionArgs args{parts, rows, d,
                                elements<double>(outputs, "outputs", {parts, rows, d}),
                                elements<double>(lses, "lses", {parts, rows})};
  Items merged = [&] {
    const Unlocked unlocked;
    return merge_attention(args);
  }();
  return nb::make_tuple(to_numpy(std::move(merged.output), {rows, d}),
                        to_numpy(std::move(merged.lse), {rows}));
}

}  // namespace

void bind_attention(nb::module_& core) {
  auto inputs = bind_arguments<Inputs>(core, "Inputs");
  bind_object(inputs, "plan", &Inputs::plan);
  bind_field(inputs, "q", &Inputs::query);
  bind_field(inputs, "k", &Inputs::key);
  bind_field(inputs, "v", &Inputs::value);
  bind_field(inputs, "routing_queries", &Inputs::routing);
  bind_field(inputs, "search_keys", &Inputs::search_keys);
  bind_field(inputs, "start", &Inputs::start);
  bind_field(inputs, "length", &Inputs::length);
  bind_field(inputs, "query_offset", &Inputs::query_offset);
  bind_field(inputs, "key_offset", &Inputs::key_offset);
  bind_field(inputs, "search_scale", &Inputs::search_scale);
  bind_field(inputs, "softmax_scale", &Inputs::softmax_scale);
  core.def("attention", &attention_of);
  core.def("attention_backward", &gradients_of, nb::arg(), nb::arg().noconvert().none(),
           nb::arg().noconvert().none(), nb::arg().noconvert().none(), nb::arg().noconvert().none(),
           nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
  core.def("merge", &merge, nb::arg().noconvert(), nb::arg().noconvert());
}

}  // namespace multistep::python
