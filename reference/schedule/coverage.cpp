#include "multistep/coverage.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "multistep/power.hpp"
#include "multistep/walk.hpp"
#include "schedule/gaps.hpp"
#include "support/error.hpp"
#include "support/parallel.hpp"
#include "support/random.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

constexpr Index kDecimals = 10'000;  // closing factors are multiples of 1 / kDecimals

bool meets(const std::vector<Span>& holes, Span gap) {
  return std::any_of(holes.begin(), holes.end(),
                     [&](Span hole) { return hole.begin < gap.end && gap.begin < hole.end; });
}

/// Factor kMaxLength reaches back over any segment, so the search for a bracket ends.
Rational closing_factor(const StripePlan& plan, Index query, Index start, Span gap, Watch& watch) {
  const auto closes = [&](Index parts) {
    SegmentChecker checker(plan.with_backward(make_rational(parts, kDecimals)), &watch);
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

/// Checks the queries query_at(0), query_at(1), ..., in ascending order.
template <class QueryAt>
CoverageReport check(const StripePlan& plan, Index start, Index count, QueryAt query_at,
                     Watch& watch) {
  constexpr Index kBlock = 512;
  require_checkers(plan, std::min<Index>(omp_get_max_threads(), (count + kBlock - 1) / kBlock));
  Tally total;
  parallel_blocks(count, kBlock, [&] {
    return [&, checker = SegmentChecker(plan, &watch)](Index begin, Index end) mutable {
      Tally tally;
      for (Index at = begin; at < end; ++at) {
        const Index query = query_at(at);
        if (checker.covered(query, start)) continue;
        tally.add(query, checker.holes(query, start));
      }
#pragma omp critical(multistep_tally)
      total.add(tally);
      watch.add(end - begin);
    };
  });

  CoverageReport report = total.report(plan.max_length(), start, count);
  if (auto& first = report.first_excluded) {
    first->closing_backward = closing_factor(plan, first->position, start, first->gap, watch);
  }
  watch.finish();
  return report;
}

/// `count` different offsets in [0, eligible), in ascending order: the last one, then stripes
/// spread evenly over the logarithm of their index, with both neighbours, for at most half of the
/// sample, then random ones.
std::vector<Index> sample_offsets(Rational exponent, Index eligible, Index count,
                                  std::uint64_t seed, Watch& watch) {
  Pulse pulse(&watch);
  const auto before = [&](Index a, Index b) {
    pulse.work(1);
    return a < b;
  };
  std::vector<Index> offsets{eligible - 1};
  const auto add = [&](Index offset) {
    pulse.work(1);
    if (offset >= 0 && offset < eligible) offsets.push_back(offset);
  };
  const auto missing = [&] { return count - static_cast<Index>(offsets.size()); };
  const auto normalize = [&] {
    std::sort(offsets.begin(), offsets.end(), before);
    offsets.erase(std::unique(offsets.begin(), offsets.end()), offsets.end());
  };

  const double largest = std::pow(static_cast<double>(eligible), 1 / to_double(exponent));
  const Index stripes = std::max<Index>(count / 6, 1);
  for (Index k = 1; k <= stripes; ++k) {
    const double share = static_cast<double>(k) / static_cast<double>(stripes);
    const Index n = floor_power(truncated(std::pow(largest, share)), exponent);
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

}  // namespace

CoverageReport verify_all(const Schedule& schedule, Index length, Index start,
                          const Progress& progress) {
  require_range(length, start);
  Watch watch(progress, length - start);
  const StripePlan plan(schedule, length, watch.within());
  return check(
      plan, start, length - start, [start](Index at) { return start + at; }, watch);
}

CoverageReport verify_sampled(const Schedule& schedule, Index length, Index start, Index count,
                              std::uint64_t seed, const Progress& progress) {
  require_range(length, start);
  require(count >= 1, "queries {}: all, or an integer >= 1", count);
  const Index eligible = length - start;
  if (count >= eligible) return verify_all(schedule, length, start, progress);
  require(count <= kMaxSample, "queries {}: a sample has at most {}", count, kMaxSample);

  Watch watch(progress, count);
  const StripePlan plan(schedule, length, watch.within());
  const Rational exponent = schedule.steps > 1 ? schedule.level(1).exponent : make_rational(1);
  const std::vector<Index> offsets = sample_offsets(exponent, eligible, count, seed, watch);
  return check(
      plan, start, count, [&](Index at) { return start + offsets[static_cast<std::size_t>(at)]; },
      watch);
}

CoverageReport verify_spans(std::vector<QuerySpan> spans, Index length, Index start) {
  require_range(length, start);
  for (const auto& [query, span] : spans) {
    require(query >= start && query < length, "query {}: an integer in [start {}, length {})",
            query, start, length);
    require(start <= span.begin && span.begin < span.end && span.end <= query + 1,
            "span [{}, {}) of query {}: start {} <= begin < end <= query + 1", span.begin, span.end,
            query, start);
  }
  std::sort(spans.begin(), spans.end(), [](const auto& a, const auto& b) {
    return a.query != b.query ? a.query < b.query : a.span.begin < b.span.begin;
  });

  Tally tally;
  Index checked = 0;
  std::vector<Span> own;  // of one query
  for (std::size_t at = 0; at < spans.size(); ++checked) {
    const Index query = spans[at].query;
    own.clear();
    for (; at < spans.size() && spans[at].query == query; ++at) own.push_back(spans[at].span);
    tally.add(query, gaps(own, {start, query + 1}));
  }
  return tally.report(length, start, checked);
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
  for_each_path(plan, plan.searched(query, start), {},
                [&](const std::vector<Choice>& path) { add(path.back().span); });
  for (std::size_t key = 1; key < counts.size(); ++key) counts[key] += counts[key - 1];
  counts.pop_back();
  return counts;
}

}  // namespace multistep
