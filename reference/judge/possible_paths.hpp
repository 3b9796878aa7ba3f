#pragma once

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "multistep/attention.hpp"
#include "multistep/walk.hpp"
#include "stages/shape.hpp"
#include "stages/softmax.hpp"

namespace multistep {

/// A path of one query's search and how far float32 may see its score from the truth.
struct PossiblePath {
  double score = 0;
  double bound = 0;
  Segment span;
  std::vector<Index> anchors;
  bool sure = true;  // no rounding drops it
};

/// What the k best of some paths are as good as.
struct Threshold {
  double score = -kInfinity;  // the k-th best; -inf where there are fewer
  double bound = 0;           // largest among the k best
};

/// Regret of a path in sums of bounds; 0 where it is as good as the threshold.
inline double regret_of(const PossiblePath& path, const Threshold& threshold) {
  if (path.score >= threshold.score) return 0;
  return (threshold.score - path.score) / (threshold.bound + path.bound);
}

/// The oracle's search of one query, kept wide: every path that some rounding of the scores keeps.
/// A chosen path is held at each level on its way against what a right search that has its parent
/// has had to choose from at least: the children of this parent, and of the sure ones. Theorems
/// right_searches_pass and wrong_is_wrong of proofs/.
template <class T>
class RowOracle {
 public:
  RowOracle(const SpanSearchArgs<T>& args, const Rows& rows, Index row)
      : args_(args),
        plan_(*args.plan),
        d_(args.shape.head_dim),
        row_(row),
        first_key_(rows.kv_row(row, 0)),
        searched_(plan_.searched(rows.position(row), rows.start(row))) {
    PossiblePath root;
    root.span = searched_;
    final_.push_back(root);
    for (Index m = 1; m < plan_.steps(); ++m) search_level(m);
    if (plan_.steps() == 1) final_.clear();
  }

  /// The fewest paths of a right search.
  Index count() const { return levels_.empty() ? 0 : levels_.back().count; }

  /// The final paths that some rounding keeps; every right search has the sure ones.
  const std::vector<PossiblePath>& kept() const { return final_; }

  /// What a path falls behind right searches.
  struct Regret {
    double largest = 0;         // in sums of bounds, over the levels
    double score = -kInfinity;  // of the last level's threshold, over the path's own
  };

  /// The path along `anchors`; none where the schedule does not offer it.
  std::optional<PossiblePath> walk(const Index* anchors, Regret& regret) const {
    PossiblePath path;
    path.span = searched_;
    regret = {};
    for (Index m = 1; m < plan_.steps(); ++m) {
      const std::optional<Choice> choice = Choices(plan_, m, path.span).at_key(anchors[m - 1]);
      if (!choice) return std::nullopt;
      const Threshold& threshold = levels_[at(m - 1)].below(path);
      path = child(path, m, *choice);
      if (std::isnan(path.score)) regret.largest = kInfinity;
      regret.largest = std::max(regret.largest, regret_of(path, threshold));
      regret.score = threshold.score - path.score;
    }
    return path;
  }

  /// The final paths with this span, from every parent that some rounding keeps.
  std::vector<PossiblePath> with_span(Span span) const {
    std::vector<PossiblePath> found;
    for (const PossiblePath& path : last_level_) {
      if (Span(path.span) == span) found.push_back(path);
    }
    return found;
  }

 private:
  /// A level of the search.
  struct Level {
    Threshold of_sure;                                 // the children of sure parents
    std::map<std::vector<Index>, Threshold> of_other;  // and of another possible parent, by anchors
    Index count = 0;                                   // the fewest paths that a right search keeps

    const Threshold& below(const PossiblePath& parent) const {
      const auto other = of_other.find(parent.anchors);
      return other == of_other.end() ? of_sure : other->second;
    }
  };

  /// The children of a possible path, those with a score.
  struct Family {
    PossiblePath parent;
    std::vector<PossiblePath> children;
  };

  void search_level(Index m) {
    std::vector<Family> families;
    for (const PossiblePath& parent : final_) {
      Family& family = families.emplace_back(parent);
      for (const Choice choice : Choices(plan_, m, parent.span)) {
        PossiblePath path = child(parent, m, choice);
        if (!std::isnan(path.score)) family.children.push_back(std::move(path));
      }
    }
    Level level = level_of(families);
    keep_possible(families, level);
    levels_.push_back(std::move(level));
    if (m + 1 < plan_.steps()) return;
    for (Family& family : families) {
      std::move(family.children.begin(), family.children.end(), std::back_inserter(last_level_));
    }
  }

  Level level_of(const std::vector<Family>& families) const {
    std::vector<const PossiblePath*> sure;
    std::vector<Index> others;  // how many children other parents have
    for (const Family& family : families) {
      if (family.parent.sure) {
        add(family, sure);
      } else {
        others.push_back(std::ssize(family.children));
      }
    }
    // Beside the sure ones a right search has had other parents, at least those with the fewest
    // children.
    const Index before = levels_.empty() ? 1 : levels_.back().count;
    const Index more = std::max<Index>(0, before - std::ssize(families) + std::ssize(others));
    std::sort(others.begin(), others.end());
    others.resize(std::min(others.size(), at(more)));
    Level level;
    level.count = std::min(plan_.schedule().top_k,
                           std::accumulate(others.begin(), others.end(), Index{std::ssize(sure)}));
    level.of_sure = best_of(sure);
    for (const Family& family : families) {
      if (family.parent.sure) continue;
      std::vector<const PossiblePath*> offered = sure;
      add(family, offered);
      level.of_other.emplace(family.parent.anchors, best_of(offered));
    }
    return level;
  }

  static void add(const Family& family, std::vector<const PossiblePath*>& paths) {
    for (const PossiblePath& path : family.children) paths.push_back(&path);
  }

  PossiblePath child(const PossiblePath& parent, Index m, const Choice& choice) const {
    PossiblePath path = parent;
    const auto query = vector_at(args_.routing_queries[at(m - 1)], row_, d_);
    const auto key = vector_at(args_.search_keys, first_key_ + choice.key, d_);
    path.score += args_.search_scale * dot(query, key);
    path.bound += bound_of(dot(query.cwiseAbs(), key.cwiseAbs()));
    path.span = choice.span;
    path.anchors.push_back(choice.key);
    return path;
  }

  /// Rounding of one level's score: a sum of head_dim products of 16-bit values, each exact in
  /// float32, then the scale and the sum over levels. A sum of n rounded terms is off by at most
  /// n u sum|terms| (Higham, 3.1), with u = 2^-24 where every addition rounds to nearest; the
  /// factor 2 is for matrix units, which truncate. Products below the smallest normal float may
  /// vanish.
  double bound_of(double magnitude) const {
    constexpr double kTruncation = 2;
    const auto terms = static_cast<double>(d_ + 2 * (plan_.steps() - 1));
    const double scale = std::abs(args_.search_scale);
    const double smallest = terms * std::numeric_limits<float>::min() * std::max(scale, 1.0);
    const double bound = kTruncation * terms * 0x1p-24 * scale * magnitude + smallest;
    return std::isfinite(bound) ? bound : 0;  // infinite scores are compared as they are
  }

  /// The threshold of some paths; leaves the top_k best of them.
  Threshold best_of(std::vector<const PossiblePath*>& paths) const {
    const auto top_k = at(plan_.schedule().top_k);
    const bool enough = paths.size() >= top_k;
    if (enough) {
      std::partial_sort(paths.begin(), paths.begin() + static_cast<std::ptrdiff_t>(top_k),
                        paths.end(),
                        [](const auto* a, const auto* b) { return a->score > b->score; });
      paths.resize(top_k);
    }
    Threshold threshold;
    for (const PossiblePath* path : paths) threshold.bound = std::max(threshold.bound, path->bound);
    if (enough) threshold.score = paths.back()->score;
    return threshold;
  }

  /// Keeps the paths that some rounding keeps, and marks those that every rounding keeps: fewer
  /// than top_k others can come out ahead of them.
  void keep_possible(const std::vector<Family>& families, const Level& level) {
    final_.clear();
    std::vector<double> reach;
    for (const Family& family : families) {
      const Threshold& threshold = level.below(family.parent);
      for (const PossiblePath& path : family.children) {
        if (regret_of(path, threshold) > 1) continue;
        final_.push_back(path);
        reach.push_back(path.score + path.bound);
      }
    }
    std::sort(reach.begin(), reach.end());
    for (PossiblePath& path : final_) {
      const auto ahead =
          reach.end() - std::lower_bound(reach.begin(), reach.end(), path.score - path.bound);
      path.sure = path.sure && ahead - 1 < plan_.schedule().top_k;  // it counts itself
    }
  }

  const SpanSearchArgs<T>& args_;
  const StripePlan& plan_;
  Index d_;
  Index row_;
  Index first_key_;
  Segment searched_;
  std::vector<Level> levels_;             // [N - 1]
  std::vector<PossiblePath> final_;       // the last level's, of the paths that some rounding keeps
  std::vector<PossiblePath> last_level_;  // all of the last level's
};

}  // namespace multistep
