#include "multistep/gradients.hpp"

#include <limits>

#include "attend_row.hpp"
#include "parallel.hpp"
#include "shape.hpp"

namespace multistep {
namespace {

/// Calls body(row) for every query row. The rows that share a KV head go to one thread, in order:
/// they add into the same keys.
template <class MakeBody>
void for_each_row_by_kv_head(const Shape& shape, MakeBody&& make_body) {
  const Index group_rows = shape.num_heads / shape.num_kv_heads * shape.queries;
  parallel_blocks(shape.batch * shape.num_kv_heads, 1, [&] {
    return [&, body = make_body()](Index kv_head, Index) mutable {
      for (Index row = kv_head * group_rows; row < (kv_head + 1) * group_rows; ++row) body(row);
    };
  });
}

Index query_values(const Shape& shape) { return shape.rows() * shape.head_dim; }
Index key_values(const Shape& shape) {
  return shape.batch * shape.num_kv_heads * shape.keys * shape.head_dim;
}

/// Throws unless the kept paths are made of keys that their queries may look at.
void require_selection(const Rows& rows, const Selection& selection) {
  const Index slots = rows.count() * selection.top_k;
  require(selection.top_k >= 1 && std::ssize(selection.count) == rows.count() &&
              std::ssize(selection.anchors) == slots * selection.levels,
          "selection of {} counts and {} anchors: {} and {} for top_k {} and {} levels",
          selection.count.size(), selection.anchors.size(), rows.count(), slots * selection.levels,
          selection.top_k, selection.levels);
  for (Index row = 0; row < rows.count(); ++row) {
    const Index count = selection.count[at(row)];
    require(count >= 0 && count <= selection.top_k, "count {} of row {}: an integer in [0, {}]",
            count, row, selection.top_k);
    const Index first = row * selection.top_k * selection.levels;
    for (Index i = first; i < first + count * selection.levels; ++i) {
      const Index anchor = selection.anchors[at(i)];
      require(anchor >= rows.start(row) && anchor <= rows.position(row),
              "anchor {} of query {}: a key in [start {}, {}]", anchor, rows.position(row),
              rows.start(row), rows.position(row));
    }
  }
}

}  // namespace

CombineGradients combine_backward(const CombineArgs& args, const double* output_gradient) {
  const std::vector<double> gate = gates(args);
  require_array(args.outputs, "outputs", args.rows);
  require_array(output_gradient, "output_gradient", args.rows);
  CombineGradients gradients;
  gradients.outputs.assign(at(args.rows * args.slots * args.head_dim), 0);
  gradients.scores.assign(at(args.rows * args.slots), 0);
  for (Index row = 0; row < args.rows; ++row) {
    const auto d_output = vector_at(output_gradient, row, args.head_dim);
    const Index first = row * args.slots;
    const Index past = first + args.count[row];
    double mean = 0;  // sum of gate * derivative by the gate
    for (Index slot = first; slot < past; ++slot) {
      const double d_gate = dot(d_output, vector_at(args.outputs, slot, args.head_dim));
      writable_at(gradients.outputs.data(), slot, args.head_dim) = gate[at(slot)] * d_output;
      gradients.scores[at(slot)] = d_gate;
      mean += gate[at(slot)] * d_gate;
    }
    for (Index slot = first; slot < past; ++slot) {
      gradients.scores[at(slot)] = gate[at(slot)] * (gradients.scores[at(slot)] - mean);
    }
  }
  return gradients;
}

template <class T>
SpanAttentionGradients span_attention_backward(const SpanAttentionArgs<T>& args,
                                               const double* output_gradient) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_spans(rows, args);
  require_array(output_gradient, "output_gradient", rows.count());
  const Index d = shape.head_dim;
  const double scale = scale_or_default(args.softmax_scale, d);
  SpanAttentionGradients gradients;
  gradients.query.assign(at(query_values(shape)), 0);
  gradients.key.assign(at(key_values(shape)), 0);
  gradients.value.assign(at(key_values(shape)), 0);

  for_each_row_by_kv_head(shape, [&] {
    return [&, weights = std::vector<double>()](Index row) mutable {
      const Vector query = vector_at(args.query, row, d);
      const Index first = rows.kv_row(row, 0);
      auto d_query = writable_at(gradients.query.data(), row, d);
      for (Index slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
        const Joint keys = joint(args.spans[slot], window_of(args, rows, row));
        softmax(keys, query, args.key + first * d, scale, weights);
        if (weights.empty()) continue;
        const auto d_output = vector_at(output_gradient, slot, d);
        double mean = 0;  // sum of weight * derivative by the weight
        for (Index j = 0; j < keys.count(); ++j) {
          mean += weights[at(j)] * dot(d_output, vector_at(args.value, first + keys[j], d));
        }
        for (Index j = 0; j < keys.count(); ++j) {
          const Index kv = first + keys[j];
          const double w = weights[at(j)];
          const double d_weight = dot(d_output, vector_at(args.value, kv, d));
          const double d_logit = scale * w * (d_weight - mean);
          d_query += d_logit * vector_at(args.key, kv, d);
          writable_at(gradients.key.data(), kv, d) += d_logit * query;
          writable_at(gradients.value.data(), kv, d) += w * d_output;
        }
      }
    };
  });
  return gradients;
}

template <class T>
SpanSearchGradients span_search_backward(const SpanSearchArgs<T>& args, const Selection& selection,
                                         const double* score_gradient) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  const Index levels = selection.levels;
  const Index d = shape.head_dim;
  require_levels(args.routing_queries.size(), levels);
  for (const T* level : args.routing_queries) require_array(level, "routing_queries", rows.count());
  require_array(args.search_keys, "search_keys", levels * shape.keys);
  require_array(score_gradient, "score_gradient", rows.count());
  require_selection(rows, selection);
  SpanSearchGradients gradients;
  gradients.routing_queries.assign(at(levels), std::vector<double>(at(query_values(shape)), 0));
  gradients.search_keys.assign(at(key_values(shape)), 0);

  for_each_row_by_kv_head(shape, [&] {
    return [&](Index row) {
      for (Index rank = 0; rank < selection.count[at(row)]; ++rank) {
        const Index slot = row * selection.top_k + rank;
        const double d_score = args.search_scale * score_gradient[slot];
        for (Index m = 0; m < levels; ++m) {
          const Index kv = rows.kv_row(row, selection.anchors[at(slot * levels + m)]);
          writable_at(gradients.routing_queries[at(m)].data(), row, d) +=
              d_score * vector_at(args.search_keys, kv, d);
          writable_at(gradients.search_keys.data(), kv, d) +=
              d_score * vector_at(args.routing_queries[at(m)], row, d);
        }
      }
    };
  });
  return gradients;
}

template <class T>
AttentionGradients attention_backward(const AttentionArgs<T>& args, const double* output_gradient) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_attention(args, rows);
  const SpanSearchArgs<T> search{shape, args.plan, args.routing_queries,
                                 args.search_keys ? args.search_keys : args.key, args.search_scale};
  const Selection selection = span_search(search);

  const std::vector<Span> windows = windows_of(*args.plan, shape);
  const SpanAttentionArgs<T> attend{shape,          args.query,        args.key,
                                    args.value,     selection.top_k,   selection.spans.data(),
                                    windows.data(), args.softmax_scale};
  const SpanAttentionResult spans = span_attention(attend);

  const std::vector<Index> count = slots_in_use(selection.count);
  const CombineGradients combined =
      combine_backward({rows.count(), selection.top_k, shape.head_dim, count.data(),
                        selection.scores.data(), spans.output.data()},
                       output_gradient);
  return {span_attention_backward(attend, combined.outputs.data()),
          span_search_backward(search, selection, combined.scores.data())};
}

template SpanAttentionGradients span_attention_backward(const SpanAttentionArgs<float>&,
                                                        const double*);
template SpanAttentionGradients span_attention_backward(const SpanAttentionArgs<double>&,
                                                        const double*);
template SpanSearchGradients span_search_backward(const SpanSearchArgs<float>&, const Selection&,
                                                  const double*);
template SpanSearchGradients span_search_backward(const SpanSearchArgs<double>&, const Selection&,
                                                  const double*);
template AttentionGradients attention_backward(const AttentionArgs<float>&, const double*);
template AttentionGradients attention_backward(const AttentionArgs<double>&, const double*);

}  // namespace multistep
