#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "multistep/attention.hpp"
#include "support/error.hpp"

namespace multistep {

using Vector = Eigen::RowVectorXd;
using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline std::size_t at(Index index) { return static_cast<std::size_t>(index); }

/// Row `row` of an array of rows of head_dim values, as doubles.
template <class T>
auto vector_at(const T* rows, Index row, Index head_dim) {
  using Row = Eigen::Matrix<T, 1, Eigen::Dynamic>;
  return Eigen::Map<const Row>(rows + row * head_dim, head_dim).template cast<double>();
}

/// <a, b> in double. Four partial sums, whatever the machine's vectors hold: the order of
/// additions, and so every bit, is the same for float and double inputs, alignments and instruction
/// sets.
template <class A, class B>
double dot(const A& a, const B& b) {
  Eigen::Array4d sums = Eigen::Array4d::Zero();
  Index i = 0;
  for (; i + 4 <= a.size(); i += 4) {
    sums +=
        a.template segment<4>(i).array().transpose() * b.template segment<4>(i).array().transpose();
  }
  for (; i < a.size(); ++i) sums[i % 4] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

inline Eigen::Map<Vector> writable_at(double* rows, Index row, Index head_dim) {
  return Eigen::Map<Vector>(rows + row * head_dim, head_dim);
}

/// Query rows, counted as [batch, num_heads, L_q], and what each of them sees. Checks the shape.
class Rows {
 public:
  explicit Rows(const Shape& shape) : shape_(shape) {
    const Shape& s = shape;
    require_within("batch", s.batch, 1, 1 << 20);
    require_within("num_heads", s.num_heads, 1, 1 << 16);
    require_within("num_kv_heads", s.num_kv_heads, 1, s.num_heads);
    require(s.num_heads % s.num_kv_heads == 0, "num_kv_heads {}: divides num_heads {}",
            s.num_kv_heads, s.num_heads);
    require_within("head_dim", s.head_dim, 1, 1 << 16);
    const Index offset = s.length ? 0 : s.query_offset;
    require_within("query_offset", offset, 0, kMaxLength - 1);
    require_within("queries", s.queries, 0, kMaxLength - offset);
    const Index first = s.key_offset.value_or(0);
    require_within("key_offset", first, 0, kMaxLength);
    require_within("keys", s.keys, s.length || s.key_offset ? 0 : offset + s.queries,
                   kMaxLength - first);
    require_array_size({s.batch, s.num_heads, s.queries, s.head_dim});
    require_array_size({s.batch, s.num_kv_heads, s.keys, s.head_dim});
    for (Index b = 0; s.start && b < s.batch; ++b) {
      require_within("start", s.start[b], 0, kMaxLength);
    }
    for (Index b = 0; s.length && b < s.batch; ++b) {
      require_within("length", s.length[b], 0, s.key_offset ? kMaxLength : s.keys);
    }
  }

  Index count() const { return shape_.rows(); }
  /// Negative before every key.
  Index position(Index row) const {
    const Index first =
        shape_.length ? shape_.length[batch(row)] - shape_.queries : shape_.query_offset;
    return first + row % shape_.queries;
  }
  Index batch(Index row) const { return row / shape_.queries / shape_.num_heads; }
  Index start(Index row) const { return shape_.start ? shape_.start[batch(row)] : 0; }

  /// The KV head of a query row's head, in [batch, num_kv_heads].
  Index kv_head(Index row) const {
    const Index head = row / shape_.queries % shape_.num_heads;
    return batch(row) * shape_.num_kv_heads + head / (shape_.num_heads / shape_.num_kv_heads);
  }
  /// Row of a key that is held in [batch, num_kv_heads, L_kv] for the head of a query row.
  Index kv_row(Index row, Index key) const {
    return kv_head(row) * shape_.keys + key - held().begin;
  }
  /// The keys that the arrays hold.
  Span held() const {
    const Index first = shape_.key_offset.value_or(0);
    return {first, first + shape_.keys};
  }

 private:
  Shape shape_;
};

/// Throws for a shard.
inline void require_whole(const Shape& shape) {
  require(!shape.key_offset, "key_offset {}: whole contexts here", shape.key_offset.value_or(0));
}

inline void require_array(const void* data, std::string_view name, Index rows) {
  require(data || rows == 0, "{}: a null pointer for {} rows", name, rows);
}

/// Keys up to the newest query of any sequence.
inline Index longest(const Shape& shape) {
  return shape.length ? *std::max_element(shape.length, shape.length + shape.batch)
                      : shape.query_offset + shape.queries;
}

inline void require_plan(const StripePlan* plan, const Shape& shape) {
  require(plan, "plan: a null pointer");
  const Index last = longest(shape);
  require(plan->max_length() >= last, "plan for lengths up to {}: the last query stands at {}",
          plan->max_length(), last - 1);
}

inline void require_levels(std::size_t arrays, Index levels) {
  require(static_cast<Index>(arrays) == levels,
          "routing_queries {}: one array per search level, {}", arrays, levels);
}

template <class T>
void require_attention(const AttentionArgs<T>& args, const Rows& rows) {
  require_whole(args.shape);
  require_plan(args.plan, args.shape);
  require_levels(args.routing_queries.size(), args.plan->steps() - 1);
  for (const T* level : args.routing_queries) require_array(level, "routing_queries", rows.count());
  require_array(args.query, "query", rows.count());
  require_array(args.key, "key", args.shape.keys);
  require_array(args.value, "value", args.shape.keys);
}

inline double scale_or_default(std::optional<double> softmax_scale, Index head_dim) {
  return softmax_scale.value_or(1 / std::sqrt(static_cast<double>(head_dim)));
}

}  // namespace multistep
