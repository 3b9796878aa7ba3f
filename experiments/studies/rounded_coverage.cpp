#include "studies/rounded_coverage.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "multistep/power.hpp"

namespace multistep::program {
namespace {

/// The searched anchors of all queries, as distances from the query, and what lies between them.
/// With D(j) the j-th distance, B and F the reaches, a query with n eligible keys sees the spans
/// [max(W, D(j) - F), min(n, D(j) + B + 1)) of all D(j) < n. As B and F are the same for all of
/// them, only the widest gap, the first anchor and the last decide whether they cover [W, n).
class Anchors {
 public:
  Anchors(const Schedule& schedule, const Rounding& rounding, Index length)
      : level_(schedule.level(1)), rounding_(rounding) {
    if (schedule.steps != 2 || !has_stripes(level_.rule)) {
      throw std::invalid_argument("steps and rule: two steps, tight or power");
    }
    const Index w = schedule.window_index;
    window_ = floor_power(w + 1, level_.exponent) - 1;
    const std::vector<Index> stripes = rounded_stripes(rounding, level_.exponent, length);
    distances_.reserve(stripes.size());
    widest_.reserve(stripes.size());
    for (std::size_t i = static_cast<std::size_t>(w) + 1; i < stripes.size(); ++i) {
      distances_.push_back(stripes[i] - 1);
    }
    std::sort(distances_.begin(), distances_.end());
    Index widest = 0;
    for (std::size_t j = 0; j < distances_.size(); ++j) {
      if (j > 0) widest = std::max(widest, distances_[j] - distances_[j - 1]);
      widest_.push_back(widest);
    }
  }

  Index window() const { return window_; }
  const std::vector<Index>& distances() const { return distances_; }
  bool tight() const { return level_.rule == Rule::tight; }

  /// Anchors of a query with n eligible keys: the first of distances().
  Index count(Index n) const {
    return std::lower_bound(distances_.begin(), distances_.end(), n) - distances_.begin();
  }
  Reach reach(Index n) const { return tight() ? Reach{} : rounded_reach(rounding_, level_, n); }

  /// By how many keys the scarcest of these spans reaches further than to the next one or the
  /// oldest key; negative: short of it. `count` and `reach` are those of n > W.
  Index slack(Index n, Index count, Reach reach) const {
    if (count == 0) return window_ - n;
    Index least = 0;  // tight: each span ends where the next begins
    if (!tight()) {
      const auto last = static_cast<std::size_t>(count - 1);
      least = distances_[last] + reach.backward + 1 - n;
      if (count > 1) least = std::min(least, reach.backward + reach.forward + 1 - widest_[last]);
    }
    // The first anchor's span touches the window; only a distance between them counts.
    const Index front = window_ - (distances_.front() - reach.forward);
    return front < 0 ? std::min(front, least) : least;
  }

  /// The gaps that those queries' spans leave, as distances [near, far), newest first.
  std::vector<Cut::Distances> holes(Index n, Index count, Reach reach) const {
    std::vector<Cut::Distances> holes;
    const auto add = [&](Index near, Index far) {
      near = std::max(near, window_);
      if (near < far) holes.push_back({near, far});
    };
    if (count == 0) {
      add(window_, n);
      return holes;
    }
    if (!tight()) add(distances_[static_cast<std::size_t>(count - 1)] + reach.backward + 1, n);
    for (auto j = static_cast<std::size_t>(count - 1); j > 0; --j) {
      if (tight() || widest_[j] <= reach.backward + reach.forward + 1) break;
      add(distances_[j - 1] + reach.backward + 1, distances_[j] - reach.forward);
    }
    add(window_, distances_.front() - reach.forward);
    std::reverse(holes.begin(), holes.end());
    return holes;
  }

 private:
  Level level_;
  const Rounding& rounding_;
  Index window_ = 0;
  std::vector<Index> distances_;  // ascending
  std::vector<Index> widest_;     // widest gap of distances 0 ... j
};

std::vector<QuerySpan> spans_of(const Anchors& anchors, Index query) {
  const Index n = query + 1;
  const Index window = std::min(anchors.window(), n);
  std::vector<QuerySpan> spans;
  const auto add = [&](Index near, Index far) {
    if (near < far) spans.push_back({query, {n - far, n - near}});
  };
  add(0, window);
  const Index count = anchors.count(n);
  const Reach reach = anchors.reach(n);
  const std::vector<Index>& distances = anchors.distances();
  for (std::size_t j = 0; n > window && j < static_cast<std::size_t>(count); ++j) {
    if (anchors.tight()) {
      add(std::max(window, distances[j]),
          j + 1 < distances.size() ? std::min(n, distances[j + 1]) : n);
    } else {
      add(std::max(window, distances[j] - reach.forward),
          std::min(n, distances[j] + reach.backward + 1));
    }
  }
  return spans;
}

/// Tallies the queries with [begin, end) eligible keys.
RoundedCoverage tally(const Anchors& anchors, Index begin, Index end) {
  RoundedCoverage result;
  result.least_slack = INT64_MAX;
  for (Index n = std::max(begin, anchors.window() + 1); n < end; ++n) {
    const Index count = anchors.count(n);
    const Reach reach = anchors.reach(n);
    const Index slack = anchors.slack(n, count, reach);
    result.least_slack = std::min(result.least_slack, slack);
    if (slack >= 0) continue;
    const std::vector<Cut::Distances> holes = anchors.holes(n, count, reach);
    if (holes.empty()) continue;  // the window has the gap
    for (const Cut::Distances& hole : holes) result.excluded_pairs += hole.length();
    ++result.excluded_queries;
    if (!result.first_excluded) {
      const Span gap = holes.back().in({0, n});
      result.first_excluded = {n - 1, gap.begin, gap, {}};
    }
  }
  return result;
}

}  // namespace

std::vector<Index> rounded_stripes(const Rounding& rounding, Rational exponent, Index limit) {
  std::vector<Index> stripes{0};
  const double expected = std::pow(static_cast<double>(limit), 1 / to_double(exponent));
  stripes.reserve(static_cast<std::size_t>(truncated(expected)) + 4);  // growing takes thrice that
  for (Index i = 1, beyond = 0; beyond < 2; ++i) {
    stripes.push_back(rounded_stripe(rounding, i, exponent));
    beyond += stripes.back() > limit && floor_power(i, exponent) > limit;
  }
  return stripes;
}

RoundedCoverage rounded_coverage(const Schedule& schedule, const Rounding& rounding, Index length) {
  const Anchors anchors(schedule, rounding, length);
  constexpr Index kBlock = Index{1} << 16;
  const Index blocks = (length + kBlock - 1) / kBlock;
  std::vector<RoundedCoverage> parts(static_cast<std::size_t>(blocks));
#pragma omp parallel for schedule(dynamic, 1)
  for (Index at = 0; at < blocks; ++at) {
    parts[static_cast<std::size_t>(at)] =
        tally(anchors, at * kBlock + 1, std::min(length, (at + 1) * kBlock) + 1);
  }
  RoundedCoverage result;
  result.least_slack = INT64_MAX;
  for (const RoundedCoverage& part : parts) {
    result.excluded_pairs += part.excluded_pairs;
    result.excluded_queries += part.excluded_queries;
    result.least_slack = std::min(result.least_slack, part.least_slack);
    if (!result.first_excluded) result.first_excluded = part.first_excluded;
  }
  if (result.first_excluded) {
    const Exclusion& ours = *result.first_excluded;
    const CoverageReport report = verify_spans(spans_of(anchors, ours.position), length);
    if (!report.first_excluded || report.first_excluded->key != ours.key ||
        report.first_excluded->gap != ours.gap) {
      throw std::logic_error(fmt::format("query {}, key {}: verify_spans finds another first hole",
                                         ours.position, ours.key));
    }
  }
  return result;
}

std::vector<QuerySpan> rounded_spans(const Schedule& schedule, const Rounding& rounding,
                                     Index query) {
  return spans_of(Anchors(schedule, rounding, query + 1), query);
}

}  // namespace multistep::program
