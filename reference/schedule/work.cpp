#include "multistep/work.hpp"

#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "multistep/count.hpp"
#include "multistep/coverage.hpp"
#include "stages/search_row.hpp"
#include "support/error.hpp"
#include "support/random.hpp"

namespace multistep {
namespace {

using boost::multiprecision::cpp_int;

/// Sums over all pairs of a path and a key in its final span.
struct Totals {
  Index min = INT64_MAX;
  Index max = 0;
  cpp_int pairs;
  cpp_int work;

  /// Adds the paths of `copies` equal children, each path `anchors` longer than in the child.
  void add(const Totals& child, Index anchors, Index copies) {
    min = std::min(min, child.min + anchors);
    max = std::max(max, child.max + anchors);
    pairs += copies * child.pairs;
    work += copies * (child.work + anchors * child.pairs);
  }
};

class PathTotals {
 public:
  explicit PathTotals(const StripePlan& plan)
      : plan_(plan), known_(plan.schedule().levels.size()) {}

  /// Totals of a segment at level m; of a final span where m = N.
  Totals of(Index m, const Segment& segment) {
    const Index n = segment.length();
    if (m == plan_.steps()) return {n, n, n, cpp_int(n) * n};
    auto& known = known_[static_cast<std::size_t>(m - 1)];
    const Segment like = plan_.representative(m, segment);
    if (const auto at = known.find(like); at != known.end()) return at->second;
    const Cut cut = plan_.cut(m, like);
    Totals totals;
    plan_.for_each_kind(m, cut, [&](Index i, Index copies) {
      totals.add(of(m + 1, cut.below(i)), cut.count(), copies);
    });
    require_few_segments(known.size(), plan_.max_length());
    return known[like] = totals;
  }

 private:
  const StripePlan& plan_;
  std::vector<std::unordered_map<Segment, Totals>> known_;  // [N - 1], by representative
};

/// The double nearest to a / b, which is below 2^63.
double ratio(const cpp_int& a, const cpp_int& b) {
  const cpp_int fixed = (a << 64) / b;  // 64 binary places, and whether more follow
  const bool exact = fixed * b == a << 64;
  const auto bits = static_cast<Count::Wide>(fixed) | (exact ? 0U : 1U);
  return std::ldexp(static_cast<double>(bits), -64);
}

/// Query t's first segment; all of its keys where N = 1, none where the window has them.
Segment first_segment(const StripePlan& plan, Index query, Index start) {
  require(query >= start && query < plan.max_length(), "query {}: an integer in [start {}, {})",
          query, start, plan.max_length());
  return plan.steps() == 1 ? Segment({start, query + 1}) : plan.searched(query, start);
}

}  // namespace

std::optional<PathWork> path_work(const StripePlan& plan, Index query, Index start) {
  const Segment segment = first_segment(plan, query, start);
  if (segment.empty()) return std::nullopt;
  const Totals totals = PathTotals(plan).of(1, segment);
  PathWork work{totals.min, totals.max, totals.pairs.str(), ratio(totals.work, totals.pairs),
                0,          {}};
  work.lower_bound = work_lower_bound(plan.steps(), keys_outside_window(plan, query, start));
  if (SegmentChecker(plan).covered(query, start)) work.ratio = work.mean / work.lower_bound;
  return work;
}

Index keys_outside_window(const StripePlan& plan, Index query, Index start) {
  const Index eligible = query + 1 - start;
  return plan.steps() == 1 ? eligible : eligible - plan.window(query, start).length();
}

double work_lower_bound(Index steps, Index n, Index top_k) {
  require(steps >= 1 && n >= 0 && top_k >= 1,
          "steps {}, keys {}, top_k {}: steps >= 1, keys >= 0, top_k >= 1", steps, n, top_k);
  const auto N = static_cast<long double>(steps);
  const auto paths = std::pow(static_cast<long double>(top_k), N - 1);
  return static_cast<double>(N * std::pow(paths * static_cast<long double>(n), 1 / N));
}

MostChoices::MostChoices(const StripePlan& plan)
    : plan_(plan), known_(plan.schedule().levels.size()) {}

std::vector<Index> MostChoices::of(Index query, Index start) {
  const Segment segment = first_segment(plan_, query, start);
  if (segment.empty()) return std::vector<Index>(static_cast<std::size_t>(plan_.steps()), 0);
  if (plan_.steps() == 1) return {segment.length()};
  return ask_again_when_full(
      asked_, [&] { return of_cut(1, segment); },
      [&] { std::ranges::for_each(known_, [](auto& m) { m.clear(); }); });
}

Index MostChoices::sum(Index query, Index start) {
  const std::vector<Index> most = of(query, start);
  return most.front() +
         plan_.schedule().top_k * std::accumulate(most.begin() + 1, most.end(), Index{0});
}

void MostChoices::raise(Index m, const Segment& segment, Index* most) {
  if (m == plan_.steps()) {
    most[0] = std::max(most[0], segment.length());
    return;
  }
  auto& known = known_[static_cast<std::size_t>(m - 1)];
  const Segment like = plan_.representative(m, segment);
  auto at = known.find(like);
  if (at == known.end()) {
    if (plan_.place_matters(m) && known.size() >= kMaxSegments) known.clear();
    require_few_segments(known.size(), plan_.max_length());
    at = known.emplace(like, of_cut(m, like)).first;
  }
  for (const Index choices : at->second) {
    *most = std::max(*most, choices);
    ++most;
  }
}

std::vector<Index> MostChoices::of_cut(Index m, const Segment& segment) {
  const Cut cut = plan_.cut(m, segment);
  std::vector<Index> most(static_cast<std::size_t>(plan_.steps() - m + 1), 0);
  most.front() = cut.count();
  plan_.for_each_kind(m, cut, [&](Index i, Index) { raise(m + 1, cut.below(i), most.data() + 1); });
  return most;
}

std::vector<Span> routed_spans(const StripePlan& plan, Index query, const AnchorScore& score,
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
