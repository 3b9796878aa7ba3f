#include "multistep/shards.hpp"

#include <limits>

#include "stages/search_row.hpp"
#include "stages/shape.hpp"
#include "stages/softmax.hpp"
#include "support/parallel.hpp"

namespace multistep {
namespace {

LevelPaths no_level_paths(Index rows, Index top_k) {
  const std::size_t slots = at(rows * top_k);
  return {top_k, std::vector<Span>(slots), std::vector<double>(slots, -kInfinity),
          std::vector<Index>(slots, -1), std::vector<Index>(slots, -1)};
}

void put(const std::vector<Path>& kept, Index row, LevelPaths& paths) {
  for (std::size_t rank = 0; rank < kept.size(); ++rank) {
    const std::size_t slot = at(row * paths.top_k) + rank;
    paths.spans[slot] = kept[rank].span;
    paths.scores[slot] = kept[rank].score;
    paths.anchors[slot] = kept[rank].anchor;
    paths.ranks[slot] = static_cast<Index>(kept[rank].parent);
  }
}

/// The segment at the end of a path, from its anchors: a span alone does not tell how many keys it
/// nominally has.
Segment segment_of(const StripePlan& plan, Index level, const Index* anchors, Index query,
                   Index start) {
  Segment segment = plan.searched(query, start);
  for (Index m = 1; m < level; ++m) {
    const Index anchor = anchors[m - 1];
    const std::optional<Choice> choice = Choices(plan, m, segment).at_key(anchor);
    require(choice.has_value(), "anchor {} of query {}: no anchor of level {}", anchor, query, m);
    segment = choice->span;
  }
  return segment;
}

/// Whose slots may be searched, best first: at level 1 the one that is the row's keys.
template <class T>
std::vector<Path> parents_of(const LevelSearchArgs<T>& args, const Rows& rows, Index row) {
  std::vector<Path> parents;
  const Index slots = args.level == 1 ? 1 : args.plan->schedule().top_k;
  for (Index slot = row * slots; slot < (row + 1) * slots; ++slot) {
    const Index* anchors = args.level == 1 ? nullptr : args.parents + slot * (args.level - 1);
    if (anchors && anchors[0] < 0) break;  // unused, as those behind it
    Path& parent = parents.emplace_back();
    parent.span = segment_of(*args.plan, args.level, anchors, rows.position(row), rows.start(row));
    parent.score = args.level == 1 ? 0 : args.parent_scores[slot];
  }
  return parents;
}

}  // namespace

template <class T>
LevelPaths search_level(const LevelSearchArgs<T>& args) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_plan(args.plan, shape);
  require_within("level", args.level, 1, args.plan->steps() - 1);
  require_array(args.routing_query, "routing_query", rows.count());
  require_array(args.search_keys, "search_keys", shape.keys);
  require_array(args.parents, "parents", args.level == 1 ? 0 : rows.count());
  require_array(args.parent_scores, "parent_scores", args.level == 1 ? 0 : rows.count());
  LevelPaths paths = no_level_paths(rows.count(), args.plan->schedule().top_k);
  parallel_blocks(rows.count(), 16, [&] {
    return [&, query = Vector(shape.head_dim)](Index begin, Index end) mutable {
      for (Index row = begin; row < end; ++row) {
        query = vector_at(args.routing_query, row, shape.head_dim);
        const auto score = [&](Index, Index key, Span) {
          if (!rows.held().contains(key)) return std::numeric_limits<double>::quiet_NaN();
          const Index kv = rows.kv_row(row, key);
          return args.search_scale * dot(query, vector_at(args.search_keys, kv, shape.head_dim));
        };
        WorkCount work;
        put(best_of_level(*args.plan, args.level, parents_of(args, rows, row), score, work), row,
            paths);
      }
    };
  });
  return paths;
}

LevelPaths merge_paths(const MergePathsArgs& args) {
  require(args.shards >= 1 && args.rows >= 0, "merge of {} shards, {} rows: shards >= 1, rows >= 0",
          args.shards, args.rows);
  require_within("top_k", args.top_k, 1, 64);
  require_array_size({args.shards, args.rows, args.top_k});
  require_array(args.spans, "spans", args.rows);
  require_array(args.scores, "scores", args.rows);
  require_array(args.anchors, "anchors", args.rows);
  require_array(args.ranks, "ranks", args.rows);
  LevelPaths merged = no_level_paths(args.rows, args.top_k);
  for (Index row = 0; row < args.rows; ++row) {
    std::vector<Path> kept;
    for (Index shard = 0; shard < args.shards; ++shard) {
      const Index first = (shard * args.rows + row) * args.top_k;
      for (Index slot = first; slot < first + args.top_k; ++slot) {
        if (args.spans[slot].empty()) continue;
        keep(kept,
             {args.scores[slot],
              args.anchors[slot],
              at(args.ranks[slot]),
              Segment(args.spans[slot]),
              {}},
             at(args.top_k));
      }
    }
    put(kept, row, merged);
  }
  return merged;
}

template LevelPaths search_level(const LevelSearchArgs<float>&);
template LevelPaths search_level(const LevelSearchArgs<double>&);

}  // namespace multistep
