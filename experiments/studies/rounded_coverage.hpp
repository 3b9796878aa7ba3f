#pragma once

#include <optional>
#include <vector>

#include "multistep/coverage.hpp"
#include "studies/rounded.hpp"

/// Which keys a two-step schedule reaches when its stripes and reaches come out rounded.
namespace multistep::program {

/// Stripes i = 1, 2, ... as `rounding` has them, up to the first two beyond `limit` both exactly
/// and as computed. Entry 0 is unused.
std::vector<Index> rounded_stripes(const Rounding& rounding, Rational exponent, Index limit);

struct RoundedCoverage {
  Count excluded_pairs;        // pairs of a query and a key that it cannot reach
  Index excluded_queries = 0;  // queries with such a key
  Index least_slack = 0;       // keys by which the scarcest span of any query reaches further than
                               // it must; negative: that many keys between two spans are excluded
  std::optional<Exclusion> first_excluded;  // without a closing factor

  bool covered() const { return !first_excluded; }
};

/// Every query below `length` of a sequence from key 0. Level 1's rule is tight or power. Anchors
/// are the keys t + 1 - P(i) >= 0 for i > w, wherever the rounding puts them; the window is exact.
/// The first excluded pair is found again by verify_spans on that query's spans: throws
/// std::logic_error where the two disagree. Throws std::invalid_argument for another schedule.
RoundedCoverage rounded_coverage(const Schedule& schedule, const Rounding& rounding, Index length);

/// The spans of query t in that schedule, its window first: none empty, clipped as in SPEC 2.3.
std::vector<QuerySpan> rounded_spans(const Schedule& schedule, const Rounding& rounding,
                                     Index query);

}  // namespace multistep::program
