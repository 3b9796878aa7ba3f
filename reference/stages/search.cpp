#include <Eigen/Core>

#include "multistep/attention.hpp"
#include "stages/part.hpp"
#include "stages/search_row.hpp"
#include "stages/stage_gradients.hpp"
#include "support/parallel.hpp"

namespace multistep {
namespace {

template <class T>
void require_search(const SpanSearchArgs<T>& args, const Rows& rows, Index levels) {
  require_whole(args.shape);
  require_levels(args.routing_queries.size(), levels);
  for (const T* level : args.routing_queries) require_array(level, "routing_queries", rows.count());
  require_array(args.search_keys, "search_keys", levels * args.shape.keys);
}

}  // namespace

template <class T>
Selection span_search(const SpanSearchArgs<T>& args) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_plan(args.plan, shape);
  const Index levels = args.plan->steps() - 1;
  require_search(args, rows, levels);
  const Index top_k = args.plan->schedule().top_k;
  Selection selection = no_paths(rows.count(), top_k, levels);

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

void require_given(const Rows& rows, const Selection& given, Index levels) {
  require(given.levels == levels, "selection of {} levels: {} for this schedule", given.levels,
          levels);
  const Index slots = rows.count() * given.top_k;
  require(std::ssize(given.spans) == slots && std::ssize(given.scores) == slots,
          "selection of {} spans and {} scores: {} for {} rows of {} slots", given.spans.size(),
          given.scores.size(), slots, rows.count(), given.top_k);
  require_selection(rows, given);
}

template <class T>
void add_gradients(const SpanSearchArgs<T>& args, const Selection& selection,
                   const double* score_gradient, const SearchSums& sums) {
  const Rows rows(args.shape);
  const Index d = args.shape.head_dim;
  for_each_row_by_kv_head(args.shape, [&] {
    return [&](Index row) {
      for (Index rank = 0; rank < selection.count[at(row)]; ++rank) {
        const Index slot = row * selection.top_k + rank;
        const double d_score = args.search_scale * score_gradient[slot];
        for (Index m = 0; m < selection.levels; ++m) {
          const Index kv = rows.kv_row(row, selection.anchors[at(slot * selection.levels + m)]);
          writable_at(sums.routing_queries[at(m)], row, d) +=
              d_score * vector_at(args.search_keys, kv, d);
          writable_at(sums.search_keys, kv, d) +=
              d_score * vector_at(args.routing_queries[at(m)], row, d);
        }
      }
    };
  });
}

template <class T>
SpanSearchGradients span_search_backward(const SpanSearchArgs<T>& args, const Selection& selection,
                                         const double* score_gradient) {
  const Rows rows(args.shape);
  require_search(args, rows, selection.levels);
  require_array(score_gradient, "score_gradient", rows.count());
  require_selection(rows, selection);
  SpanSearchGradients gradients;
  gradients.routing_queries.assign(at(selection.levels),
                                   std::vector<double>(at(query_values(args.shape)), 0));
  gradients.search_keys.assign(at(key_values(args.shape)), 0);
  SearchSums sums{{}, gradients.search_keys.data()};
  for (std::vector<double>& level : gradients.routing_queries) {
    sums.routing_queries.push_back(level.data());
  }
  add_gradients(args, selection, score_gradient, sums);
  return gradients;
}

template Selection span_search(const SpanSearchArgs<float>&);
template Selection span_search(const SpanSearchArgs<double>&);
template void add_gradients(const SpanSearchArgs<float>&, const Selection&, const double*,
                            const SearchSums&);
template void add_gradients(const SpanSearchArgs<double>&, const Selection&, const double*,
                            const SearchSums&);
template SpanSearchGradients span_search_backward(const SpanSearchArgs<float>&, const Selection&,
                                                  const double*);
template SpanSearchGradients span_search_backward(const SpanSearchArgs<double>&, const Selection&,
                                                  const double*);

}  // namespace multistep
