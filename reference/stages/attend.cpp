#include <Eigen/Core>

#include "multistep/attention.hpp"
#include "stages/attend_row.hpp"
#include "stages/stage_gradients.hpp"
#include "support/parallel.hpp"

namespace multistep {

std::vector<Span> query_windows(const StripePlan& plan, const Shape& shape) {
  const Rows rows(shape);
  require_plan(&plan, shape);
  std::vector<Span> windows;
  for (Index row = 0; row < rows.count(); ++row) {
    const bool first_head = row / shape.queries % shape.num_heads == 0;
    if (first_head) windows.push_back(plan.window(rows.position(row), rows.start(row)));
  }
  return windows;
}

template <class T>
Items span_attention(const SpanAttentionArgs<T>& args) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_spans(rows, args);
  require_array_size({rows.count(), args.slots, shape.head_dim});
  const Index d = shape.head_dim;
  const double scale = scale_or_default(args.softmax_scale, d);

  Items items;
  items.output.assign(at(rows.count() * args.slots * d), 0);
  items.lse.assign(at(rows.count() * args.slots), 0);
  parallel_blocks(rows.count(), 16, [&] {
    return [&, query = Vector(d), weights = std::vector<double>()](Index begin, Index end) mutable {
      for (Index slot = begin * args.slots; slot < end * args.slots; ++slot) {
        const Index row = slot / args.slots;
        const Span keys = item_keys(args, rows, slot);
        const Index first = keys.empty() ? 0 : rows.kv_row(row, keys.begin);
        query = vector_at(args.query, row, d);
        items.lse[at(slot)] =
            softmax({0, keys.length()}, query, args.key + first * d, scale, weights);
        auto output = writable_at(items.output.data(), slot, d);
        for (std::size_t j = 0; j < weights.size(); ++j) {
          output += weights[j] * vector_at(args.value, first + static_cast<Index>(j), d);
        }
      }
    };
  });
  return items;
}

/// Of an item with weights p, output O and lse l: dv_j = p_j dO, and
/// d logit_j = p_j (<dO, v_j> - <dO, O> + dl).
template <class T>
void add_gradients(const SpanAttentionArgs<T>& args, const double* output_gradient,
                   const double* lse_gradient, AttendSums sums) {
  const Rows rows(args.shape);
  const Index d = args.shape.head_dim;
  const double scale = scale_or_default(args.softmax_scale, d);
  for_each_row_by_kv_head(args.shape, [&] {
    return
        [&, weights = std::vector<double>(), d_weights = std::vector<double>()](Index row) mutable {
          const Vector query = vector_at(args.query, row, d);
          auto d_query = writable_at(sums.query, row, d);
          for (Index slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
            const Span keys = item_keys(args, rows, slot);
            const Index first = rows.kv_row(row, keys.begin);
            softmax({0, keys.length()}, query, args.key + first * d, scale, weights);
            const auto d_output = vector_at(output_gradient, slot, d);
            d_weights.resize(weights.size());
            double mean = 0;  // <dO, O>
            for (std::size_t j = 0; j < weights.size(); ++j) {
              const Index kv = first + static_cast<Index>(j);
              d_weights[j] = dot(d_output, vector_at(args.value, kv, d));
              mean += weights[j] * d_weights[j];
            }
            const double d_lse = lse_gradient ? lse_gradient[slot] : 0;
            for (std::size_t j = 0; j < weights.size(); ++j) {
              const Index kv = first + static_cast<Index>(j);
              const double d_logit = scale * weights[j] * (d_weights[j] - mean + d_lse);
              d_query += d_logit * vector_at(args.key, kv, d);
              writable_at(sums.key, kv, d) += d_logit * query;
              writable_at(sums.value, kv, d) += weights[j] * d_output;
            }
          }
        };
  });
}

template <class T>
SpanAttentionGradients span_attention_backward(const SpanAttentionArgs<T>& args,
                                               const double* output_gradient,
                                               const double* lse_gradient) {
  const Rows rows(args.shape);
  require_whole(args.shape);
  require_spans(rows, args);
  require_array(output_gradient, "output_gradient", rows.count());
  SpanAttentionGradients gradients;
  gradients.query.assign(at(query_values(args.shape)), 0);
  gradients.key.assign(at(key_values(args.shape)), 0);
  gradients.value.assign(at(key_values(args.shape)), 0);
  add_gradients(args, output_gradient, lse_gradient,
                {gradients.query.data(), gradients.key.data(), gradients.value.data()});
  return gradients;
}

Items merge_attention(const MergeAttentionArgs& args) {
  require(args.parts >= 0 && args.rows >= 0 && args.head_dim >= 1,
          "merge of {} parts, {} rows, head_dim {}: parts >= 0, rows >= 0, head_dim >= 1",
          args.parts, args.rows, args.head_dim);
  require_array_size({args.parts, args.rows, args.head_dim});
  require_array(args.outputs, "outputs", args.parts * args.rows);
  require_array(args.lses, "lses", args.parts * args.rows);
  Items merged{std::vector<double>(at(args.rows * args.head_dim), 0),
               std::vector<double>(at(args.rows), -kInfinity)};
  for (Index row = 0; row < args.rows; ++row) {
    const auto lse = [&](Index part) { return args.lses[part * args.rows + row]; };
    double max = -kInfinity;
    for (Index part = 0; part < args.parts; ++part) {
      if (std::isnan(lse(part)) || lse(part) > max) max = lse(part);
    }
    if (max == -kInfinity) continue;
    double sum = 0;
    for (Index part = 0; part < args.parts; ++part) sum += weight(lse(part), max);
    auto output = writable_at(merged.output.data(), row, args.head_dim);
    for (Index part = 0; part < args.parts; ++part) {
      const double share = weight(lse(part), max) / sum;
      if (share == 0) continue;  // such a part may hold anything
      output += share * vector_at(args.outputs, part * args.rows + row, args.head_dim);
    }
    merged.lse[at(row)] = max + std::log(sum);
  }
  return merged;
}

template Items span_attention(const SpanAttentionArgs<float>&);
template Items span_attention(const SpanAttentionArgs<double>&);
template void add_gradients(const SpanAttentionArgs<float>&, const double*, const double*,
                            AttendSums);
template void add_gradients(const SpanAttentionArgs<double>&, const double*, const double*,
                            AttendSums);
template SpanAttentionGradients span_attention_backward(const SpanAttentionArgs<float>&,
                                                        const double*, const double*);
template SpanAttentionGradients span_attention_backward(const SpanAttentionArgs<double>&,
                                                        const double*, const double*);

}  // namespace multistep
