#include <Eigen/Core>
#include <limits>

#include "multistep/attention.hpp"
#include "parallel.hpp"
#include "search_row.hpp"
#include "shape.hpp"

namespace multistep {

template <class T>
Selection span_search(const SpanSearchArgs<T>& args) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_plan(args.plan, shape);
  const Index levels = args.plan->steps() - 1;
  require_levels(args.routing_queries.size(), levels);
  for (const T* level : args.routing_queries) require_array(level, "routing_queries", rows.count());
  require_array(args.search_keys, "search_keys", levels * shape.keys);

  Selection selection;
  const Index top_k = args.plan->schedule().top_k;
  const auto slots = static_cast<std::size_t>(rows.count() * top_k);
  selection.top_k = top_k;
  selection.levels = levels;
  selection.count.assign(static_cast<std::size_t>(rows.count()), 0);
  selection.work.assign(static_cast<std::size_t>(rows.count()), {});
  selection.spans.assign(slots, {});
  selection.scores.assign(slots, -std::numeric_limits<double>::infinity());
  selection.anchors.assign(slots * static_cast<std::size_t>(levels), -1);

  parallel_blocks(rows.count(), 16, [&] {
    return [&, queries = Matrix(levels, shape.head_dim)](Index begin, Index end) mutable {
      for (Index row = begin; row < end; ++row) {
        for (Index m = 1; m <= levels; ++m) {
          queries.row(m - 1) = vector_at(args.routing_queries[at(m - 1)], row, shape.head_dim);
        }
        const T* keys = args.search_keys + rows.kv_row(row, 0) * shape.head_dim;
        const auto score = [&](Index m, Index key, Span) {
          return args.search_scale * dot(queries.row(m - 1), vector_at(keys, key, shape.head_dim));
        };
        const std::vector<Path> kept = search_row(*args.plan, rows.position(row), rows.start(row),
                                                  score, selection.work[at(row)]);
        WorkCount& work = selection.work[at(row)];
        work.keys_attended = args.plan->window(rows.position(row), rows.start(row)).length();
        selection.count[at(row)] = static_cast<Index>(kept.size());
        for (std::size_t rank = 0; rank < kept.size(); ++rank) {
          const std::size_t slot = at(row * top_k) + rank;
          selection.spans[slot] = kept[rank].span;
          selection.scores[slot] = kept[rank].score;
          std::copy(kept[rank].anchors.begin(), kept[rank].anchors.end(),
                    selection.anchors.begin() + static_cast<std::ptrdiff_t>(slot) * levels);
          work.keys_attended += kept[rank].span.length();
        }
      }
    };
  });
  return selection;
}

template Selection span_search(const SpanSearchArgs<float>&);
template Selection span_search(const SpanSearchArgs<double>&);

}  // namespace multistep
