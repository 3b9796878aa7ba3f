#include "multistep/coverage.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <unordered_map>

#include "error.hpp"
#include "multistep/power.hpp"
#include "parallel.hpp"
#include "random.hpp"

namespace multistep {
namespace {

constexpr Index kDecimals = 10'000;  // closing factors are multiples of 1 / kDecimals

bool meets(const std::vector<Span>& holes, Span gap) {
  return std::any_of(holes.begin(), holes.end(),
                     [&](Span hole) { return hole.begin < gap.end && gap.begin < hole.end; });
}

/// Factor kMaxLength reaches back over any segment, so the search for a bracket ends.
Rational closing_factor(const StripePlan& plan, Index query, Index start, Span gap) {
  const auto closes = [&](Index parts) {
    SegmentChecker checker(plan.with_backward(make_rational(parts, kDecimals)));
    return !meets(checker.holes(query, start), gap);
  };
  Index high = kDecimals;
  while (!closes(high)) high *= 2;
  Index low = high == kDecimals ? -1 : high / 2;  // not closing, or below every factor
  while (high - low > 1) {
    const Index middle = low + (high - low) / 2;
    (closes(middle) ? high : low) = middle;
  }
  return make_rational(high, kDecimals);
}

struct Tally {
  Index pairs = 0;
  Index queries = 0;
  Index first_query = INT64_MAX;

  void add(const Tally& other) {
    pairs += other.pairs;
    queries += other.queries;
    first_query = std::min(first_query, other.first_query);
  }
};

/// Checks the queries query_at(0), query_at(1), ..., in ascending order.
template <class QueryAt>
CoverageReport check(const StripePlan& plan, Index start, Index count, QueryAt query_at,
                     const Progress& progress) {
  constexpr Index kBlock = 4096;
  Tally total;
  std::atomic<Index> done = 0;
  parallel_blocks(count, kBlock, [&] {
    return [&, checker = SegmentChecker(plan)](Index begin, Index end) mutable {
      Tally tally;
      for (Index at = begin; at < end; ++at) {
        const Index query = query_at(at);
        if (checker.covered(query, start)) continue;
        Tally here{0, 1, query};
        for (const Span& hole : checker.holes(query, start)) here.pairs += hole.length();
        tally.add(here);
      }
#pragma omp critical(multistep_tally)
      {
        total.add(tally);
        done += end - begin;
        if (progress) progress(done, count);
      }
    };
  });

  CoverageReport report{plan.max_length(), start, count, total.pairs, total.queries, {}};
  if (!report.covered()) {
    const Span gap = SegmentChecker(plan).holes(total.first_query, start).front();
    report.first_excluded = {total.first_query, gap.begin, gap,
                             closing_factor(plan, total.first_query, start, gap)};
  }
  return report;
}

/// `count` different offsets in [0, eligible), in ascending order: the last one, then stripes
/// spread evenly over the logarithm of their index, with both neighbours, for at most half of the
/// sample, then random ones.
std::vector<Index> sample_offsets(Rational exponent, Index eligible, Index count,
                                  std::uint64_t seed) {
  std::vector<Index> offsets{eligible - 1};
  const auto add = [&](Index offset) {
    if (offset >= 0 && offset < eligible) offsets.push_back(offset);
  };
  const auto missing = [&] { return count - static_cast<Index>(offsets.size()); };
  const auto normalize = [&] {
    std::sort(offsets.begin(), offsets.end());
    offsets.erase(std::unique(offsets.begin(), offsets.end()), offsets.end());
  };

  const double largest = std::pow(static_cast<double>(eligible), 1 / to_double(exponent));
  const Index stripes = std::max<Index>(count / 6, 1);
  for (Index k = 1; k <= stripes; ++k) {
    const double share = static_cast<double>(k) / static_cast<double>(stripes);
    const Index n = floor_power(static_cast<Index>(std::pow(largest, share)), exponent);
    for (Index neighbour = -1; neighbour <= 1; ++neighbour) add(n - 1 + neighbour);
  }
  normalize();
  if (missing() < 0) offsets.erase(offsets.begin(), offsets.end() - count);

  if (count <= eligible / 2) {
    while (missing() > 0) {  // every draw is a new offset with probability 1/2 or more
      for (Index draw = missing(); draw > 0; --draw) {
        add(static_cast<Index>(next_random(seed) % static_cast<std::uint64_t>(eligible)));
      }
      normalize();
    }
    return offsets;
  }
  // Selection sampling over the offsets not yet taken.
  const std::vector<Index> taken = offsets;
  Index left = eligible - static_cast<Index>(taken.size());
  for (Index offset = 0; missing() > 0; ++offset) {
    if (std::binary_search(taken.begin(), taken.end(), offset)) continue;
    const double chance = static_cast<double>(missing()) / static_cast<double>(left--);
    if (next_uniform(seed) < chance) offsets.push_back(offset);
  }
  normalize();
  return offsets;
}

void require_range(Index length, Index start) {
  require(length >= 1 && length <= kMaxLength, "length {}: an integer in [1, 2^48]", length);
  require(start >= 0 && start < length, "start {}: an integer in [0, length {})", start, length);
}

template <class Visit>
void visit_final_spans(const StripePlan& plan, Index m, Span segment, const Visit& visit) {
  if (m == plan.steps()) return visit(segment);
  const Cut cut = plan.cut(m, segment.length());
  for (Index i = cut.first(); i <= cut.last(); ++i) {
    visit_final_spans(plan, m + 1, keys(cut.span(i), segment), visit);
  }
}

}  // namespace

/// What a checker keeps for one level.
struct SegmentChecker::Memory {
  static constexpr Index kDense = Index{1} << 24;
  enum : std::int8_t { unknown, covered, holed };

  std::int8_t& verdict(Index n) {
    if (n >= kDense) return long_segments[n];
    const auto at = static_cast<std::size_t>(n);
    if (at >= segments.size()) segments.resize(std::max(at + 1, 2 * segments.size()), unknown);
    return segments[at];
  }

  std::vector<std::int8_t> segments;  // [segment length < kDense]
  std::unordered_map<Index, std::int8_t> long_segments;

  Index good_until = 0;   // tight: the unclipped spans of stripes [first, good_until) are covered
  Index bad = INT64_MAX;  // tight: the first stripe whose unclipped span is not
  std::vector<Index> widest_gap;  // power: max of P(k+1) - P(k) over first <= k < i, at [i - first]

  static constexpr std::size_t kHoleLists = 4096;
  std::unordered_map<Index, std::vector<Distances>> holes;  // by segment length, some of them

  // The reaches last used and the lengths [from, to] that they are right for.
  Reach reach;
  Index from = 1;
  Index to = 0;
};

SegmentChecker::SegmentChecker(const StripePlan& plan)
    : plan_(plan), memory_(std::make_unique<Memory[]>(static_cast<std::size_t>(plan.steps()))) {}

SegmentChecker::SegmentChecker(SegmentChecker&&) noexcept = default;
SegmentChecker::~SegmentChecker() = default;

bool SegmentChecker::covered(Index query, Index start) {
  const Index n = plan_.searched(query, start).length();
  return n == 0 || covered_segment(1, n);
}

std::vector<Span> SegmentChecker::holes(Index query, Index start) {
  const Span segment = plan_.searched(query, start);
  std::vector<Span> holes;
  if (segment.empty()) return holes;
  for (const Distances& hole : segment_holes(1, segment.length())) {
    holes.push_back(keys(hole, segment));
  }
  std::reverse(holes.begin(), holes.end());
  return holes;
}

SegmentChecker::Memory& SegmentChecker::memory(Index m) {
  return memory_[static_cast<std::size_t>(m - 1)];
}

/// The reaches are step functions of n, and level 1 sees the lengths in order: most of its cuts
/// reuse the last ones.
Cut SegmentChecker::cut(Index m, Index n) {
  const Level& level = plan_.schedule().level(m);
  if (level.rule != Rule::power) return plan_.cut(m, n, {});
  Memory& known = memory(m);
  if (n < known.from || n > known.to) {
    known.reach = reach(level, n);
    const auto same = [&](Index length) {
      const Reach other = reach(level, length);
      return other.backward == known.reach.backward && other.forward == known.reach.forward;
    };
    known.from = known.to = n;
    if (m == 1) {
      Index step = 1;
      for (; known.to < plan_.max_length() && same(known.to + step); step *= 2) known.to += step;
      for (; step > 0; step /= 2) {
        if (same(known.to + step)) known.to += step;
      }
    }
  }
  return plan_.cut(m, n, known.reach);
}

bool SegmentChecker::settled(Index m, Index n) {
  if (m == plan_.steps()) return true;  // a final span: all of it is attended
  if (const auto verdict = memory(m).verdict(n); verdict != Memory::unknown) {
    return verdict == Memory::covered;
  }
  const bool covered = covered_segment(m, n);
  memory(m).verdict(n) = covered ? Memory::covered : Memory::holed;
  return covered;
}

bool SegmentChecker::covered_segment(Index m, Index n) {
  const Cut cut = this->cut(m, n);
  const bool ends = cut.count() > 0 && cut.span(cut.first()).near == cut.window() &&
                    cut.span(cut.last()).far == n;
  if (!ends) return false;
  switch (cut.rule()) {
    // All parts but the oldest have one length.
    case Rule::even:
      return settled(m + 1, cut.span(cut.first()).length()) &&
             settled(m + 1, cut.span(cut.last()).length());
    case Rule::tight:
      return covered_tight(m, cut);
    case Rule::power:
      return covered_power(m, cut) || segment_holes(m, n).empty();
  }
  return false;
}

/// All spans but the oldest are those of any longer segment, so they are settled once.
bool SegmentChecker::covered_tight(Index m, const Cut& cut) {
  Memory& known = memory(m);
  for (Index i = std::max(known.good_until, cut.first()); i < std::min(cut.last(), known.bad);
       ++i) {
    if (settled(m + 1, cut.span(i).length())) {
      known.good_until = i + 1;
    } else {
      known.bad = i;
    }
  }
  return cut.last() <= known.bad && settled(m + 1, cut.span(cut.last()).length());
}

/// Neighbouring power spans leave a key out exactly where P(i+1) - P(i) > B + F + 1. The last
/// stripe of the cut before which no gap is that wide.
Index SegmentChecker::last_joined(Index m, const Cut& cut) {
  std::vector<Index>& widest = memory(m).widest_gap;
  if (widest.empty()) widest.push_back(0);
  for (Index i = cut.first() + static_cast<Index>(widest.size()); i <= cut.last(); ++i) {
    widest.push_back(std::max(widest.back(), cut.anchor(i) - cut.anchor(i - 1)));
  }
  const Index reached = cut.reach().backward + cut.reach().forward + 1;
  const auto end = widest.begin() + cut.count();
  if (*(end - 1) <= reached) return cut.last();
  return cut.first() + (std::upper_bound(widest.begin(), end, reached) - widest.begin()) - 1;
}

/// Sufficient for coverage, and necessary where spans have no holes of their own. Spans that
/// neither end of the segment clips all have length B + F + 1.
bool SegmentChecker::covered_power(Index m, const Cut& cut) {
  const auto [backward, forward] = cut.reach();
  if (last_joined(m, cut) < cut.last()) return false;
  if (m + 1 == plan_.steps()) return true;

  Index newest = cut.first();  // first stripe whose span the window or the newest key does not clip
  for (; newest <= cut.last() && cut.anchor(newest) - forward < cut.window(); ++newest) {
    if (!settled(m + 1, cut.span(newest).length())) return false;
  }
  Index oldest = cut.last();  // last stripe whose span the segment's begin does not clip
  for (; oldest >= newest && cut.anchor(oldest) + backward + 1 > cut.length(); --oldest) {
    if (!settled(m + 1, cut.span(oldest).length())) return false;
  }
  return oldest < newest || settled(m + 1, backward + forward + 1);
}

/// segment_holes for m >= 2, remembered: the segments of a level share a few lengths.
const std::vector<Cut::Distances>& SegmentChecker::known_holes(Index m, Index n) {
  auto& known = memory(m).holes;
  if (const auto found = known.find(n); found != known.end()) return found->second;
  std::vector<Distances> holes = segment_holes(m, n);
  if (known.size() >= Memory::kHoleLists) known.clear();
  return known[n] = std::move(holes);
}

std::vector<Cut::Distances> SegmentChecker::segment_holes(Index m, Index n) {
  const Cut cut = this->cut(m, n);
  Index first = cut.first();
  Index settled_to = cut.window();
  if (cut.rule() == Rule::power && m + 1 == plan_.steps() && cut.count() > 0) {
    first = last_joined(m, cut);  // final spans have no holes, so up to here there is none
    settled_to = cut.span(first).near;
  }
  std::vector<Distances> reached;
  for (Index i = first; i <= cut.last(); ++i) {
    const Distances span = cut.span(i);
    if (settled(m + 1, span.length())) {
      reached.push_back(span);
      continue;
    }
    Index near = span.near;
    for (const Distances& hole : known_holes(m + 1, span.length())) {
      if (hole.near + span.near > near) reached.push_back({near, span.near + hole.near});
      near = span.near + hole.far;
    }
    if (span.far > near) reached.push_back({near, span.far});
  }
  const auto nearer = [](const Distances& a, const Distances& b) { return a.near < b.near; };
  if (!std::is_sorted(reached.begin(), reached.end(), nearer)) {
    std::sort(reached.begin(), reached.end(), nearer);
  }
  std::vector<Distances> holes;
  for (const Distances& span : reached) {
    if (span.near > settled_to) holes.push_back({settled_to, span.near});
    settled_to = std::max(settled_to, span.far);
  }
  if (settled_to < n) holes.push_back({settled_to, n});
  return holes;
}

CoverageReport verify_all(const Schedule& schedule, Index length, Index start,
                          const Progress& progress) {
  require_range(length, start);
  const StripePlan plan(schedule, length);
  return check(
      plan, start, length - start, [start](Index at) { return start + at; }, progress);
}

CoverageReport verify_sampled(const Schedule& schedule, Index length, Index start, Index count,
                              std::uint64_t seed, const Progress& progress) {
  require_range(length, start);
  require(count >= 1, "queries {}: all, or an integer >= 1", count);
  const Index eligible = length - start;
  if (count >= eligible) return verify_all(schedule, length, start, progress);
  require(count <= kMaxSample, "queries {}: a sample has at most {}", count, kMaxSample);

  const StripePlan plan(schedule, length);
  const Rational exponent = schedule.steps > 1 ? schedule.level(1).exponent : make_rational(1);
  const std::vector<Index> offsets = sample_offsets(exponent, eligible, count, seed);
  return check(
      plan, start, count, [&](Index at) { return start + offsets[static_cast<std::size_t>(at)]; },
      progress);
}

CoverageReport verify_spans(std::vector<CandidateSpan> candidates, Index length, Index start) {
  require_range(length, start);
  for (const auto& [query, span] : candidates) {
    require(query >= start && query < length, "query {}: an integer in [start {}, length {})",
            query, start, length);
    require(start <= span.begin && span.begin < span.end && span.end <= query + 1,
            "span [{}, {}) of query {}: start {} <= begin < end <= query + 1", span.begin, span.end,
            query, start);
  }
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.query != b.query ? a.query < b.query : a.span.begin < b.span.begin;
  });

  CoverageReport report{length, start, 0, 0, 0, {}};
  for (std::size_t at = 0; at < candidates.size();) {
    const Index query = candidates[at].query;
    const Index before = report.excluded_pairs;
    Index reached = start;
    const auto hole = [&](Index end) {
      if (end <= reached) return;
      report.excluded_pairs += end - reached;
      if (!report.first_excluded) report.first_excluded = {query, reached, {reached, end}, {}};
    };
    for (; at < candidates.size() && candidates[at].query == query; ++at) {
      hole(candidates[at].span.begin);
      reached = std::max(reached, candidates[at].span.end);
    }
    hole(query + 1);
    ++report.queries_checked;
    report.excluded_queries += report.excluded_pairs > before;
  }
  return report;
}

std::vector<Index> multiplicity(const StripePlan& plan, Index query, Index start) {
  require(query >= start && query < plan.max_length(), "query {}: an integer in [start {}, {})",
          query, start, plan.max_length());
  const auto at = [start](Index key) { return static_cast<std::size_t>(key - start); };
  std::vector<Index> counts(at(query + 2));
  const auto add = [&](Span span) {
    ++counts[at(span.begin)];
    --counts[at(span.end)];
  };
  if (const Span window = plan.window(query, start); !window.empty()) add(window);
  if (const Span segment = plan.searched(query, start); !segment.empty()) {
    visit_final_spans(plan, 1, segment, add);
  }
  for (std::size_t key = 1; key < counts.size(); ++key) counts[key] += counts[key - 1];
  counts.pop_back();
  return counts;
}

}  // namespace multistep
