#pragma once

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
    return shape;
  }

  template <class T>
  AttentionArgs<T> args() const {
    const Shape s = shape();
    const auto of_queries = [&](const Array& array, const char* name) {
      return elements<T>(array, name, {s.batch, s.num_heads, s.queries, s.head_dim});
    };
    const auto of_keys = [&](const Array& array, const char* name) {
      return elements<T>(array, name, {s.batch, s.num_kv_heads, s.keys, s.head_dim});
    };
    AttentionArgs<T> args;
    args.shape = s;
    args.plan = plan;
    args.query = of_queries(query, "q");
    args.key = of_keys(key, "k");
    args.value = of_keys(value, "v");
    for (const Array& level : routing) {
      args.routing_queries.push_back(of_queries(level, "routing_queries"));
    }
    if (search_keys) args.search_keys = of_keys(*search_keys, "search_keys");
    args.search_scale = search_scale;
    args.softmax_scale = softmax_scale;
    require_attention(args, Rows(s));
    return args;
  }
};

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
