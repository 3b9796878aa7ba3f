#pragma once

#include "multistep/gradients.hpp"
#include "stages/shape.hpp"
#include "support/parallel.hpp"

/// Gradients of the stages, added to arrays that are there: a composition adds up many calls.
namespace multistep {

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

inline Index query_values(const Shape& shape) { return shape.rows() * shape.head_dim; }
inline Index key_values(const Shape& shape) {
  return shape.batch * shape.num_kv_heads * shape.keys * shape.head_dim;
}

/// Where the derivatives by query, key and value are added up.
struct AttendSums {
  double* query;
  double* key;
  double* value;
};
template <class T>
void add_gradients(const SpanAttentionArgs<T>& args, const double* output_gradient,
                   const double* lse_gradient, AttendSums sums);

struct SearchSums {
  std::vector<double*> routing_queries;  // [N - 1]
  double* search_keys;
};
template <class T>
void add_gradients(const SpanSearchArgs<T>& args, const Selection& selection,
                   const double* score_gradient, const SearchSums& sums);

/// Throws unless the kept paths are made of keys that their queries may look at.
void require_selection(const Rows& rows, const Selection& selection);

/// Throws unless a selection is one for these rows: spans and scores too, whose ranges are looked
/// at where they are used.
void require_given(const Rows& rows, const Selection& given, Index levels);

}  // namespace multistep
