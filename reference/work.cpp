#include "multistep/work.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "error.hpp"
#include "random.hpp"
#include "search_row.hpp"

namespace multistep {
namespace {

/// Sums over all pairs of a path and a key in its final span. The counts are exact integers as long
/// as they stay below 2^53.
struct Totals {
  Index min = INT64_MAX;
  Index max = 0;
  double pairs = 0;
  double work = 0;

  /// Adds the paths of `copies` equal children, each path `anchors` longer than in the child.
  void add(const Totals& child, Index anchors, Index copies = 1) {
    min = std::min(min, child.min + anchors);
    max = std::max(max, child.max + anchors);
    pairs += static_cast<double>(copies) * child.pairs;
    work += static_cast<double>(copies) * (child.work + static_cast<double>(anchors) * child.pairs);
  }
};

class PathTotals {
 public:
  explicit PathTotals(const StripePlan& plan)
      : plan_(plan), known_(plan.schedule().levels.size()) {}

  /// Totals of a segment of n keys at level m; a final span where m = N.
  Totals of(Index m, Index n) {
    if (m == plan_.steps()) {
      const auto keys = static_cast<double>(n);
      return {n, n, keys, keys * keys};
    }
    auto& known = known_[static_cast<std::size_t>(m - 1)];
    if (const auto at = known.find(n); at != known.end()) return at->second;
    const Cut cut = plan_.cut(m, n);
    Totals totals;
    Index i = cut.first();
    if (cut.rule() == Rule::even && cut.count() > 2) {  // all parts but the oldest have one length
      totals.add(of(m + 1, cut.span(i).length()), cut.count(), cut.count() - 1);
      i = cut.last();
    }
    for (; i <= cut.last(); ++i) {
      totals.add(of(m + 1, cut.span(i).length()), cut.count());
    }
    require_few_segments(known.size(), plan_.max_length());
    return known[n] = totals;
  }

 private:
  const StripePlan& plan_;
  std::vector<std::unordered_map<Index, Totals>> known_;  // [N - 1], by segment length
};

}  // namespace

PathWork path_work(const StripePlan& plan, Index query, Index start) {
  require(query >= start && query < plan.max_length(), "query {}: an integer in [start {}, {})",
          query, start, plan.max_length());
  const bool dense = plan.steps() == 1;
  const Index n = dense ? query + 1 - start : plan.searched(query, start).length();
  if (n == 0) return {};
  const Totals totals = PathTotals(plan).of(1, n);
  return {totals.min, totals.max, totals.pairs, totals.work / totals.pairs};
}

double lower_bound(Index steps, Index n) {
  require(steps >= 1 && n >= 0, "steps {}, keys {}: steps >= 1, keys >= 0", steps, n);
  const auto N = static_cast<long double>(steps);
  return static_cast<double>(N * std::pow(static_cast<long double>(n), 1 / N));
}

std::vector<Span> routed_spans(const StripePlan& plan, Index query, const CandidateScore& score,
                               WorkCount& work) {
  std::vector<Span> spans;
  for (const Path& path : search_row(plan, query, 0, score, work)) {
    work.keys_attended += path.span.length();
    spans.push_back(path.span);
  }
  work.keys_attended += plan.window(query, 0).length();
  return spans;
}

WorkCount random_routing_work(const StripePlan& plan, Index query, std::uint64_t seed) {
  WorkCount work;
  routed_spans(
      plan, query, [&](Index, Index, Span) { return next_uniform(seed); }, work);
  return work;
}

}  // namespace multistep
