#include <Eigen/Core>

#include "judge/rounding.hpp"
#include "multistep/judge.hpp"
#include "support/parallel.hpp"

namespace multistep {

template <class T>
AllRows<T>::AllRows(const AttentionArgs<T>& args, Storage storage) : args_(args) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_attention(args, rows);
  const Index d = shape.head_dim;
  const Index kv_heads = shape.batch * shape.num_kv_heads;
  const Index head_rows = shape.num_heads / shape.num_kv_heads * shape.queries;  // of a KV head
  clean_.assign(at(rows.count()), 0);
  bounds_.assign(at(kv_heads * d), 0);
  if (rows.count() == 0) return;
  parallel_blocks(kv_heads, 1, [&] {
    return [&](Index kv_head, Index) {
      const Index first_row = kv_head * head_rows;
      const Index last = rows.position(first_row + head_rows - 1);
      auto bound = writable_at(bounds_.data(), kv_head, d).array();
      bool finite = true;
      for (Index key = rows.start(first_row); key <= last; ++key) {
        const Index row = kv_head * shape.keys + key;
        const Vector value = vector_at(args.value, row, d);
        bound = bound.max(value.array().abs());
        finite = finite && value.allFinite() && vector_at(args.key, row, d).allFinite() &&
                 (!args.search_keys || vector_at(args.search_keys, row, d).allFinite());
      }
      // Weights and outputs may be rounded up, to the storage type.
      bound = bound * (1 + 8 * roundoff(storage)) + rounding_of(storage, 0);
      for (Index row = first_row; row < first_row + head_rows; ++row) {
        bool clean = finite && vector_at(args.query, row, d).allFinite();
        for (const T* level : args.routing_queries) {
          clean = clean && vector_at(level, row, d).allFinite();
        }
        clean_[at(row)] = clean;
      }
    };
  });
}

template <class T>
WholeCheck AllRows<T>::output(const double* values) const {
  const Rows rows(args_.shape);
  const Index d = args_.shape.head_dim;
  WholeCheck found;
  for (Index row = 0; row < rows.count(); ++row) {
    if (!clean_[at(row)]) continue;
    const double* bound = bounds_.data() + rows.kv_head(row) * d;
    for (Index c = 0; c < d; ++c) {
      const double value = values[row * d + c];
      found.not_finite += !std::isfinite(value);
      found.unbounded += std::isfinite(value) && std::abs(value) > bound[c];
    }
  }
  return found;
}

template <class T>
WholeCheck AllRows<T>::items(const double* values, const Span* spans, Index slots, Index width,
                             bool infinite_too) const {
  WholeCheck found;
  for (Index slot = 0; slot < std::ssize(clean_) * slots; ++slot) {
    if (!clean_[at(slot / slots)] || (spans && spans[slot].empty())) continue;
    for (Index i = slot * width; i < (slot + 1) * width; ++i) {
      found.not_finite += std::isnan(values[i]) || (infinite_too && std::isinf(values[i]));
    }
  }
  return found;
}

template class AllRows<float>;
template class AllRows<double>;

}  // namespace multistep
