#pragma once

#include <vector>

#include "multistep/coverage.hpp"

namespace multistep {

/// The keys of `eligible` that are in none of the spans: maximal spans, oldest first. Sorts them.
std::vector<Span> gaps(std::vector<Span>& spans, Span eligible);

/// Excluded pairs of some queries, and the first query that has any.
struct Tally {
  static constexpr Index kNone = INT64_MAX;

  Count pairs;
  Index queries = 0;
  Index first_query = kNone;
  Span first_gap;

  /// The unreachable keys of one query, oldest first.
  void add(Index query, const std::vector<Span>& holes);
  void add(const Tally& other);

  CoverageReport report(Index length, Index start, Index checked) const;
};

/// Throws std::invalid_argument unless 0 <= start < length <= 2^48.
void require_range(Index length, Index start);

}  // namespace multistep
