#include <Eigen/Core>
#include <limits>

#include "attend_row.hpp"
#include "multistep/attention.hpp"
#include "parallel.hpp"
#include "shape.hpp"

namespace multistep {

template <class T>
SpanAttentionResult span_attention(const SpanAttentionArgs<T>& args) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_spans(rows, args);
  require_array_size({rows.count(), args.slots, shape.head_dim});
  const Index d = shape.head_dim;
  const double scale = scale_or_default(args.softmax_scale, d);

  SpanAttentionResult result;
  result.output.assign(at(rows.count() * args.slots * d), 0);
  result.lse.assign(at(rows.count() * args.slots), 0);
  parallel_blocks(rows.count(), 16, [&] {
    return [&, query = Vector(d), weights = std::vector<double>()](Index begin, Index end) mutable {
      for (Index row = begin; row < end; ++row) {
        query = vector_at(args.query, row, d);
        const Index first = rows.kv_row(row, 0);
        for (Index slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
          const Joint keys = joint(args.spans[slot], window_of(args, rows, row));
          result.lse[at(slot)] = softmax(keys, query, args.key + first * d, scale, weights);
          auto output = writable_at(result.output.data(), slot, d);
          for (Index j = 0; j < keys.count() && !weights.empty(); ++j) {
            output += weights[at(j)] * vector_at(args.value + first * d, keys[j], d);
          }
        }
      }
    };
  });
  return result;
}

template SpanAttentionResult span_attention(const SpanAttentionArgs<float>&);
template SpanAttentionResult span_attention(const SpanAttentionArgs<double>&);

}  // namespace multistep
