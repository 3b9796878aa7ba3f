#include <algorithm>
#include <optional>

#include "judge/possible_paths.hpp"
#include "multistep/judge.hpp"
#include "support/parallel.hpp"

namespace multistep {
namespace {

/// One row's slots against its oracle.
template <class T>
class PathJudge {
 public:
  PathJudge(const SubmittedPaths<T>& submitted, const Rows& rows, Index row)
      : submitted_(submitted),
        levels_(submitted.search.plan->steps() - 1),
        top_k_(submitted.search.plan->schedule().top_k),
        eligible_{rows.start(row), rows.position(row) + 1},
        first_(row * top_k_),
        oracle_(submitted.search, rows, row) {
    report_.rows = 1;
  }

  SelectionReport judge() {
    Index used = 0;
    for (Index slot = first_; slot < first_ + top_k_; ++slot) {
      if (in_use(slot)) {
        if (slot != first_ + used) ++report_.unclean;
        ++used;
        judge_path(slot);
      } else if (!clean(slot)) {
        ++report_.unclean;
      }
    }
    report_.paths = used;
    if (used > 0) report_.mean_score_error /= static_cast<double>(used);
    count_missing(used);
    ++report_.histogram[regret_bin(report_.regret)];
    return report_;
  }

 private:
  using Regret = typename RowOracle<T>::Regret;

  const Index* anchors(Index slot) const { return submitted_.anchors + slot * levels_; }

  bool in_use(Index slot) const {
    if (submitted_.anchors) return levels_ > 0 && anchors(slot)[0] >= 0;
    return !submitted_.spans[slot].empty() || submitted_.scores[slot] != -kInfinity;
  }

  bool clean(Index slot) const {
    for (Index m = 0; submitted_.anchors && m < levels_; ++m) {
      if (anchors(slot)[m] != -1) return false;
    }
    return submitted_.spans[slot] == Span{} && submitted_.scores[slot] == -kInfinity;
  }

  void judge_path(Index slot) {
    const Span span = submitted_.spans[slot];
    const bool inside = span.begin >= eligible_.begin && span.end <= eligible_.end;
    if (!span.empty() && !inside) ++report_.out_of_range;
    if (slot > first_ && submitted_.scores[slot] > submitted_.scores[slot - 1]) ++report_.unordered;

    Regret regret;
    const std::optional<PossiblePath> path =
        submitted_.anchors ? told_path(slot, regret) : likely_path(slot, regret);
    if (!path) {
      ++report_.not_candidates;
      return;
    }
    for (const PossiblePath& other : chosen_) {
      if (other.anchors == path->anchors) ++report_.duplicates;
    }
    judge_score(submitted_.scores[slot], *path);
    if (std::isnan(path->score)) ++report_.nans;
    if (!(regret.largest <= 1)) ++report_.regretted;
    report_.regret = std::max(report_.regret, regret.largest);
    if (regret.score > report_.regret_score) report_.regret_score = regret.score;
    chosen_.push_back(*path);
  }

  std::optional<PossiblePath> told_path(Index slot, Regret& regret) const {
    std::optional<PossiblePath> path = oracle_.walk(anchors(slot), regret);
    const Span span = submitted_.spans[slot];
    const bool same = path && (path->span == span || (path->span.empty() && span.empty()));
    return same ? path : std::nullopt;
  }

  /// Of the paths with the submitted span that no earlier slot has, the one closest in score.
  std::optional<PossiblePath> likely_path(Index slot, Regret& regret) const {
    const double score = submitted_.scores[slot];
    std::optional<PossiblePath> best;
    for (PossiblePath& path : oracle_.with_span(submitted_.spans[slot])) {
      const auto same = [&](const PossiblePath& other) { return other.anchors == path.anchors; };
      const bool taken = std::any_of(chosen_.begin(), chosen_.end(), same);
      if (taken) continue;
      if (!best || std::abs(path.score - score) < std::abs(best->score - score)) best = path;
    }
    if (best) oracle_.walk(best->anchors.data(), regret);
    return best;
  }

  void judge_score(double score, const PossiblePath& path) {
    if (std::isnan(score)) ++report_.nans;
    if (std::isinf(score) && score != path.score) ++report_.infs;
    if (!within_tolerance(score, path.score, path.bound)) ++report_.wrong_scores;
    double off = score == path.score ? 0 : std::abs(score - path.score) / path.bound;
    if (std::isnan(off)) off = kInfinity;
    report_.score_error = std::max(report_.score_error, off);
    report_.mean_score_error += off;
  }

  /// Too few paths, or one absent that every rounding keeps.
  void count_missing(Index used) {
    report_.missing = std::max<Index>(0, oracle_.count() - used);
    if (report_.missing > 0) return;
    for (const PossiblePath& path : oracle_.kept()) {
      const auto same = [&](const PossiblePath& other) { return other.anchors == path.anchors; };
      if (path.sure && std::none_of(chosen_.begin(), chosen_.end(), same)) ++report_.missing;
    }
  }

  const SubmittedPaths<T>& submitted_;
  Index levels_;
  Index top_k_;
  Span eligible_;
  Index first_;
  RowOracle<T> oracle_;
  std::vector<PossiblePath> chosen_;
  SelectionReport report_;
};

}  // namespace

std::size_t regret_bin(double regret) {
  if (regret <= 0) return 0;
  std::size_t bin = 1;
  for (double edge = 0.125; edge <= 1; edge *= 2, ++bin) {
    if (regret <= edge) return bin;
  }
  return bin;
}

std::string_view regret_bin_name(std::size_t bin) {
  static constexpr std::string_view kNames[] = {"0",      "to 1/8", "to 1/4",
                                                "to 1/2", "to 1",   "over 1"};
  require(bin < SelectionReport::kBins, "bin {}: an integer in [0, 6)", bin);
  return kNames[bin];
}

bool SelectionReport::pass() const {
  return not_candidates + out_of_range + duplicates + missing + unordered + unclean + nans + infs +
             wrong_scores + regretted ==
         0;
}

SelectionReport& SelectionReport::operator+=(const SelectionReport& other) {
  const bool wrong = pass() && !other.pass();
  const bool worse = worst_row < 0 || wrong || (pass() && other.regret > regret);
  if (other.worst_row >= 0 && worse) worst_row = other.worst_row;
  if (other.paths > 0) {
    const double share =
        static_cast<double>(other.paths) / static_cast<double>(paths + other.paths);
    mean_score_error += share * (other.mean_score_error - mean_score_error);
  }
  rows += other.rows;
  paths += other.paths;
  not_candidates += other.not_candidates;
  out_of_range += other.out_of_range;
  duplicates += other.duplicates;
  missing += other.missing;
  unordered += other.unordered;
  unclean += other.unclean;
  nans += other.nans;
  infs += other.infs;
  wrong_scores += other.wrong_scores;
  regretted += other.regretted;
  score_error = std::max(score_error, other.score_error);
  regret = std::max(regret, other.regret);
  regret_score = std::max(regret_score, other.regret_score);
  for (std::size_t bin = 0; bin < kBins; ++bin) histogram[bin] += other.histogram[bin];
  return *this;
}

template <class T>
SelectionReport judge_selection(const SubmittedPaths<T>& submitted) {
  const SpanSearchArgs<T>& search = submitted.search;
  const Rows rows(search.shape);
  require_plan(search.plan, search.shape);
  const Index levels = search.plan->steps() - 1;
  require_levels(search.routing_queries.size(), levels);
  for (const T* level : search.routing_queries) {
    require_array(level, "routing_queries", rows.count());
  }
  require_array(search.search_keys, "search_keys", levels * search.shape.keys);
  require_array(submitted.spans, "spans", rows.count());
  require_array(submitted.scores, "scores", rows.count());

  std::vector<SelectionReport> reports(at(rows.count()));
  parallel_blocks(rows.count(), 1, [&] {
    return [&](Index begin, Index end) {
      for (Index row = begin; row < end; ++row) {
        SelectionReport& report = reports[at(row)];
        report = PathJudge<T>(submitted, rows, row).judge();
        if (!report.pass() || report.regret > 0) report.worst_row = row;
      }
    };
  });
  SelectionReport whole;
  for (const SelectionReport& report : reports) whole += report;
  return whole;
}

template SelectionReport judge_selection(const SubmittedPaths<float>&);
template SelectionReport judge_selection(const SubmittedPaths<double>&);

}  // namespace multistep
