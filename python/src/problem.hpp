#pragma once

#include <algorithm>
#include <utility>

#include "arrays.hpp"
#include "multistep/attention.hpp"
#include "stages/shape.hpp"

/// The arguments of attention as they come from Python, and as the oracle takes them.
namespace multistep::python {

struct Inputs {
  const StripePlan* plan = nullptr;
  Array query;                 // [batch, num_heads, L_q, head_dim]
  Array key;                   // [batch, num_kv_heads, L_kv, head_dim]
  Array value;                 // the same
  std::vector<Array> routing;  // [N - 1] of query's shape
  MaybeArray search_keys;      // key's shape; none: key
  MaybeArray start;            // [batch], int64
  MaybeArray length;           // [batch], int64; none: queries stand at query_offset
  Index query_offset = 0;
  std::optional<Index> key_offset;  // of a shard
  double search_scale = 1;
  std::optional<double> softmax_scale;

  Index extent(const Array& array, const char* name, std::size_t i) const {
    require(array.ndim() == 4, "{} with {} dimensions: it has 4 here", name, array.ndim());
    return static_cast<Index>(array.shape(i));
  }

  Shape shape() const {
    require(plan != nullptr, "no plan");
    Shape shape;
    shape.batch = extent(query, "q", 0);
    shape.num_heads = extent(query, "q", 1);
    shape.num_kv_heads = extent(key, "k", 1);
    shape.queries = extent(query, "q", 2);
    shape.keys = extent(key, "k", 2);
    shape.head_dim = extent(query, "q", 3);
    shape.query_offset = query_offset;
    shape.start = elements<Index>(start, "start", {shape.batch});
    shape.length = elements<Index>(length, "length", {shape.batch});
    shape.key_offset = key_offset;
    return shape;
  }

  template <class T>
  const T* of_queries(const Array& array, const char* name) const {
    const Shape s = shape();
    return elements<T>(array, name, {s.batch, s.num_heads, s.queries, s.head_dim});
  }

  template <class T>
  const T* of_keys(const Array& array, const char* name) const {
    const Shape s = shape();
    return elements<T>(array, name, {s.batch, s.num_kv_heads, s.keys, s.head_dim});
  }

  template <class T>
  AttentionArgs<T> args() const {
    const Shape s = shape();
    AttentionArgs<T> args;
    args.shape = s;
    args.plan = plan;
    args.query = of_queries<T>(query, "q");
    args.key = of_keys<T>(key, "k");
    args.value = of_keys<T>(value, "v");
    for (const Array& level : routing) {
      args.routing_queries.push_back(of_queries<T>(level, "routing_queries"));
    }
    if (search_keys) args.search_keys = of_keys<T>(*search_keys, "search_keys");
    args.search_scale = search_scale;
    args.softmax_scale = softmax_scale;
    require_attention(args, Rows(s));
    return args;
  }
};

/// Spans from pairs of integers in one more dimension, `count` of them.
inline std::vector<Span> spans_at(const Index* ends, Index count) {
  std::vector<Span> spans;
  for (Index i = 0; i < count; ++i) spans.push_back({ends[2 * i], ends[2 * i + 1]});
  return spans;
}

/// Of every row of `slots` spans how many are in use: those up to an empty one.
inline std::vector<Index> counts_of(const std::vector<Span>& spans, Index slots) {
  std::vector<Index> counts;
  for (auto row = spans.begin(); row != spans.end(); row += slots) {
    const auto is_empty = [](Span span) { return span.empty(); };
    counts.push_back(std::find_if(row, row + slots, is_empty) - row);
  }
  return counts;
}

/// Calls body(T{}) for the type of the arrays.
template <class Body>
auto with_type(const Array& array, Body&& body) {
  if (holds<float>(array)) return body(float{});
  require(holds<double>(array), "q: float32 or float64 here");
  return body(double{});
}

/// Does this take so little time that a thread for it would be a waste?
inline bool is_short(const Shape& shape) {
  return shape.rows() <= 4096 &&
         shape.rows() * std::min<Index>(shape.keys, 1024) * shape.head_dim <= (Index{1} << 24);
}

}  // namespace multistep::python
