#pragma once

#include <algorithm>
#include <limits>
#include <optional>
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

/// What the k best paths of any right search are as good as.
struct Threshold {
  double score = -kInfinity;  // the k-th best; -inf where there are fewer
  double bound = 0;           // largest among the k best
  Index count = 0;            // paths, at most k
};

/// Regret of a path in sums of bounds; 0 where it is as good as the threshold.
inline double regret_of(const PossiblePath& path, const Threshold& threshold) {
  if (path.score >= threshold.score) return 0;
  return (threshold.score - path.score) / (threshold.bound + path.bound);
}

/// The oracle's search of one query, kept wide: every path that some rounding of the scores keeps.
/// A chosen path is held against the threshold of each level on its way.
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

  /// [N - 1], by level: what the k best of a right search are as good as.
  const std::vector<Threshold>& thresholds() const { return thresholds_; }

  /// The fewest paths of a right search.
  Index count() const { return thresholds_.empty() ? 0 : thresholds_.back().count; }

  /// The final paths that some rounding keeps; every right search has the sure ones.
  const std::vector<PossiblePath>& kept() const { return final_; }

  /// The path along `anchors` with its largest regret over the levels; none where the schedule does
  /// not offer it.
  std::optional<PossiblePath> walk(const Index* anchors, double& regret) const {
    PossiblePath path;
    path.span = searched_;
    regret = 0;
    for (Index m = 1; m < plan_.steps(); ++m) {
      const std::optional<Choice> choice = Choices(plan_, m, path.span).at_key(anchors[m - 1]);
      if (!choice) return std::nullopt;
      path = child(path, m, *choice);
      if (std::isnan(path.score)) regret = kInfinity;
      regret = std::max(regret, regret_of(path, thresholds_[at(m - 1)]));
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
  void search_level(Index m) {
    std::vector<PossiblePath> all;
    for (const PossiblePath& parent : final_) {
      for (const Choice choice : Choices(plan_, m, parent.span)) {
        PossiblePath path = child(parent, m, choice);
        if (!std::isnan(path.score)) all.push_back(std::move(path));
      }
    }
    thresholds_.push_back(threshold_of(all));
    keep_possible(all, thresholds_.back());
    if (m + 1 == plan_.steps()) last_level_ = std::move(all);
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

  /// Over the children of sure parents: a right search has had all of them to choose from.
  Threshold threshold_of(const std::vector<PossiblePath>& all) const {
    std::vector<const PossiblePath*> sure;
    for (const PossiblePath& path : all) {
      if (path.sure) sure.push_back(&path);
    }
    const auto top_k = std::min(at(plan_.schedule().top_k), sure.size());
    std::partial_sort(sure.begin(), sure.begin() + static_cast<std::ptrdiff_t>(top_k), sure.end(),
                      [](const auto* a, const auto* b) { return a->score > b->score; });
    Threshold threshold;
    threshold.count = static_cast<Index>(top_k);
    for (std::size_t rank = 0; rank < top_k; ++rank) {
      threshold.bound = std::max(threshold.bound, sure[rank]->bound);
    }
    if (threshold.count == plan_.schedule().top_k) threshold.score = sure[top_k - 1]->score;
    return threshold;
  }

  /// Keeps the paths that some rounding keeps, and marks those that every rounding keeps: fewer
  /// than top_k others can come out ahead of them.
  void keep_possible(const std::vector<PossiblePath>& all, const Threshold& threshold) {
    final_.clear();
    std::vector<double> reach;
    for (const PossiblePath& path : all) {
      if (regret_of(path, threshold) > 1) continue;
      final_.push_back(path);
      reach.push_back(path.score + path.bound);
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
  std::vector<Threshold> thresholds_;     // [N - 1]
  std::vector<PossiblePath> final_;       // the last level's, of the paths that some rounding keeps
  std::vector<PossiblePath> last_level_;  // all of the last level's
};

}  // namespace multistep
