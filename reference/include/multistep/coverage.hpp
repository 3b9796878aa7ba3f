#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "multistep/count.hpp"
#include "multistep/schedule.hpp"

/// Structural non-exclusion: can every query reach every eligible key? (SPEC 2.5, 9)
namespace multistep {

/// The first pair of a query and an eligible key that no choice of anchors leads to.
struct Exclusion {
  Index position = 0;  // the smallest query with an excluded key
  Index key = 0;       // its smallest excluded key
  Span gap;            // the unreachable keys around it, [begin, end)

  /// The smallest multiple of 1/10000 that leaves no key of the gap excluded when it replaces the
  /// backward factor of every power level. Where a level of parts lies between two power levels,
  /// more reach can exclude a key again: there it is a multiple that closes the gap while 1/10000
  /// less does not. Absent for span lists, which have no factor.
  std::optional<Rational> closing_backward;
};

struct CoverageReport {
  Index length = 0;
  Index start = 0;
  Index queries_checked = 0;
  Count excluded_pairs;        // pairs of a query and an eligible key that it cannot reach
  Index excluded_queries = 0;  // queries with such a key
  std::optional<Exclusion> first_excluded;

  bool covered() const { return !first_excluded; }
};

class Watch;

/// Decides coverage of segments by recursion on the levels, remembering what it has settled.
/// Not for sharing between threads: each takes its own.
class SegmentChecker {
 public:
  /// The library's own work gives a watch, which may end it with Cancelled at any time.
  explicit SegmentChecker(const StripePlan& plan, Watch* watch = nullptr);
  SegmentChecker(SegmentChecker&&) noexcept;
  ~SegmentChecker();

  /// Is every key of query t reachable, given the first eligible key?
  bool covered(Index query, Index start);

  /// The unreachable keys of query t: maximal spans, oldest first.
  std::vector<Span> holes(Index query, Index start);

 private:
  using Distances = Cut::Distances;
  struct Memory;

  Memory& memory(Index m);
  void forget();
  Cut cut(Index m, const Segment& segment);
  bool settled(Index m, const Segment& segment);  // covered_segment for m >= 2, remembered
  bool covered_segment(Index m, const Segment& segment);
  bool covered_each(Index m, const Cut& cut);
  bool covered_tight(Index m, const Cut& cut);
  Index last_joined(Index m, const Cut& cut);
  bool covered_power(Index m, const Cut& cut);
  const std::vector<Distances>& known_holes(Index m, const Segment& segment);
  std::vector<Distances> segment_holes(Index m, const Segment& segment);

  StripePlan plan_;
  std::unique_ptr<Memory[]> memory_;  // [N], by level
  bool asked_ = false;                // about any query
};

/// Throws std::invalid_argument where so many checkers, one a thread, would not fit the memory:
/// each keeps the gaps between the stripes of the power levels.
void require_checkers(const StripePlan& plan, Index count);

/// Checks every query of [start, length). Throws std::invalid_argument for a bad schedule, length
/// or start. The result does not depend on the number of threads.
CoverageReport verify_all(const Schedule& schedule, Index length, Index start = 0,
                          const Progress& progress = {});

/// Checks `count` queries: the last, stripe positions and their neighbours over the whole range,
/// then seeded random ones. Equal to verify_all where count >= length - start; a smaller sample has
/// at most kMaxSample queries.
inline constexpr Index kMaxSample = Index{1} << 24;
CoverageReport verify_sampled(const Schedule& schedule, Index length, Index start, Index count,
                              std::uint64_t seed, const Progress& progress = {});

/// One final span that a query of anybody's kernel can choose.
struct QuerySpan {
  Index query = 0;
  Span span;
};

/// The same question for a list of final spans, window included as one more span: is each eligible
/// key of each query that occurs in the list in one of its spans? Throws std::invalid_argument for
/// a span that is empty, not causal, older than `start`, or of a query outside [start, length).
CoverageReport verify_spans(std::vector<QuerySpan> spans, Index length, Index start = 0);

/// How many final spans hold each eligible key of query t: [query + 1 - start], oldest first. The
/// window counts as one more span.
std::vector<Index> multiplicity(const StripePlan& plan, Index query, Index start = 0);

}  // namespace multistep
