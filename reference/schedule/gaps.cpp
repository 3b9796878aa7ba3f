#include "schedule/gaps.hpp"

#include <algorithm>

#include "support/error.hpp"

namespace multistep {

std::vector<Span> gaps(std::vector<Span>& spans, Span eligible) {
  const auto older = [](const Span& a, const Span& b) { return a.begin < b.begin; };
  if (!std::is_sorted(spans.begin(), spans.end(), older)) {
    std::sort(spans.begin(), spans.end(), older);
  }
  std::vector<Span> found;
  Index reached = eligible.begin;
  for (const Span& span : spans) {
    if (span.begin > reached) found.push_back({reached, span.begin});
    reached = std::max(reached, span.end);
  }
  if (reached < eligible.end) found.push_back({reached, eligible.end});
  return found;
}

void Tally::add(Index query, const std::vector<Span>& holes) {
  if (holes.empty()) return;
  Tally here{0, 1, query, holes.front()};
  for (const Span& hole : holes) here.pairs += hole.length();
  add(here);
}

void Tally::add(const Tally& other) {
  pairs += other.pairs;
  queries += other.queries;
  if (other.first_query >= first_query) return;
  first_query = other.first_query;
  first_gap = other.first_gap;
}

CoverageReport Tally::report(Index length, Index start, Index checked) const {
  CoverageReport report{length, start, checked, pairs, queries, {}};
  if (first_query != kNone) report.first_excluded = {first_query, first_gap.begin, first_gap, {}};
  return report;
}

void require_range(Index length, Index start) {
  require(length >= 1 && length <= kMaxLength, "length {}: an integer in [1, 2^48]", length);
  require(start >= 0 && start < length, "start {}: an integer in [0, length {})", start, length);
}

}  // namespace multistep
