#pragma once

#include <cmath>
#include <vector>

#include "multistep/walk.hpp"
#include "multistep/work.hpp"

namespace multistep {

/// One path of a query's search: the anchors chosen so far, and the span of the last.
struct Path {
  double score = 0;  // sum of its anchors' scores
  Index anchor = -1;
  std::size_t parent = 0;  // rank among the kept paths of the level above
  Segment span;
  std::vector<Index> anchors;  // keys, level 1 first
};

/// Better score first; of equals the smaller key, then the parent ranked first.
inline bool better(const Path& a, const Path& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.anchor != b.anchor ? a.anchor < b.anchor : a.parent < b.parent;
}

/// Keeps `candidate` among the best top_k of `kept`, which stays in order. NaN is never kept.
inline void keep(std::vector<Path>& kept, Path&& candidate, std::size_t top_k) {
  if (std::isnan(candidate.score)) return;
  if (kept.size() == top_k) {
    if (!better(candidate, kept.back())) return;
    kept.pop_back();
  }
  auto at = kept.end();
  while (at != kept.begin() && better(candidate, *(at - 1))) --at;
  kept.insert(at, std::move(candidate));
}

/// Level m inside the spans of the kept paths: those that it keeps, best first, without anchors.
template <class Score>
std::vector<Path> best_of_level(const StripePlan& plan, Index m, const std::vector<Path>& parents,
                                Score&& score, WorkCount& work) {
  const auto top_k = static_cast<std::size_t>(plan.schedule().top_k);
  std::vector<Path> kept;
  for (std::size_t parent = 0; parent < parents.size(); ++parent) {
    for (const Choice choice : Choices(plan, m, parents[parent].span)) {
      const double path_score = parents[parent].score + score(m, choice.key, choice.span);
      keep(kept, {path_score, choice.key, parent, choice.span, {}}, top_k);
      ++work.anchors_scored;
    }
  }
  return kept;
}

/// Steps 1 ... N-1 for one query: the kept paths, best first. score(m, key, span) is level m's
/// score of an anchor, which stands for that span; `work` gains the anchors scored.
template <class Score>
std::vector<Path> search_row(const StripePlan& plan, Index query, Index start, Score&& score,
                             WorkCount& work) {
  std::vector<Path> kept(1);
  kept.front().span = plan.searched(query, start);
  for (Index m = 1; m < plan.steps(); ++m) {
    std::vector<Path> next = best_of_level(plan, m, kept, score, work);
    for (Path& path : next) {
      path.anchors = kept[path.parent].anchors;
      path.anchors.push_back(path.anchor);
    }
    kept = std::move(next);
  }
  if (plan.steps() == 1) kept.clear();
  return kept;
}

}  // namespace multistep
