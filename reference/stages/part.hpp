#pragma once

#include "stages/shape.hpp"
#include "stages/softmax.hpp"

/// Some queries of one head as a problem of their own, and their part of what was found.
namespace multistep {

/// Rows [row, row + count), all of one head, and where they stand.
struct Place {
  Index row;
  Index count;
  Index start;
  Index length;  // keys up to the last of them; 0 where none has a key

  Place(const Rows& rows, Index row, Index count)
      : row(row),
        count(count),
        start(rows.start(row)),
        length(std::max<Index>(rows.position(row) + count, 0)) {}
};

/// A problem of one head whose keys are all of the head's. It looks at `place`.
template <class T>
AttentionArgs<T> part_of(const AttentionArgs<T>& whole, const Rows& rows, const Place& place) {
  const Index d = whole.shape.head_dim;
  const Index kv = rows.kv_row(place.row, 0) * d;
  AttentionArgs<T> part = whole;
  part.shape = {1, 1, 1, place.count, whole.shape.keys, d, 0, &place.start, &place.length};
  part.query += place.row * d;
  part.key += kv;
  part.value += kv;
  for (const T*& level : part.routing_queries) level += place.row * d;
  part.search_keys = (whole.search_keys ? whole.search_keys : whole.key) + kv;
  return part;
}

template <class T>
SpanSearchArgs<T> search_of(const AttentionArgs<T>& args) {
  return {args.shape, args.plan, args.routing_queries,
          args.search_keys ? args.search_keys : args.key, args.search_scale};
}

/// `spans` [.., slots], with `windows` [batch, L_q] left out of them; null: the windows.
template <class T>
SpanAttentionArgs<T> attend_of(const AttentionArgs<T>& args, Index slots, const Span* spans,
                               const std::vector<Span>& windows) {
  return {args.shape, args.query, args.key,       args.value,
          slots,      spans,      windows.data(), args.softmax_scale};
}

/// A selection of `rows` rows that keep nothing.
inline Selection no_paths(Index rows, Index top_k, Index levels) {
  Selection selection;
  selection.top_k = top_k;
  selection.levels = levels;
  selection.count.assign(at(rows), 0);
  selection.work.assign(at(rows), {});
  selection.spans.assign(at(rows * top_k), {});
  selection.scores.assign(at(rows * top_k), -kInfinity);
  selection.anchors.assign(at(rows * top_k * levels), -1);
  return selection;
}

/// Puts a part's selection into the whole one, from `row` on.
inline void put(const Selection& part, Index row, Selection& whole) {
  const auto copy = [&](const auto& from, auto& to, Index width) {
    std::copy(from.begin(), from.end(), to.begin() + row * width);
  };
  copy(part.count, whole.count, 1);
  copy(part.work, whole.work, 1);
  copy(part.spans, whole.spans, whole.top_k);
  copy(part.scores, whole.scores, whole.top_k);
  copy(part.anchors, whole.anchors, whole.top_k * whole.levels);
}

/// The selection of rows [row, row + count).
inline Selection part_of(const Selection& whole, Index row, Index count) {
  const auto cut = [&](const auto& from, Index width) {
    const auto begin = from.begin() + row * width;
    return std::decay_t<decltype(from)>(begin, begin + count * width);
  };
  return {whole.top_k,
          whole.levels,
          cut(whole.count, 1),
          cut(whole.spans, whole.top_k),
          cut(whole.scores, whole.top_k),
          cut(whole.anchors, whole.top_k * whole.levels),
          {}};
}

}  // namespace multistep
