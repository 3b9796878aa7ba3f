#include <algorithm>
#include <string>
#include <unordered_map>

#include "multistep/coverage.hpp"
#include "multistep/host_memory.hpp"
#include "support/error.hpp"
#include "support/watch.hpp"

namespace multistep {

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

  Pulse pulse;

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

void require_checkers(const StripePlan& plan, Index count) {
  double bytes = 0;
  for (Index m = 1; m < plan.steps(); ++m) {
    if (plan.schedule().level(m).rule != Rule::power) continue;
    const Index stripes = plan.cut(m, plan.max_length(), {}).last();
    bytes += 2 * sizeof(Index) * static_cast<double>(stripes);  // a vector that grows doubles
  }
  require_memory("length " + std::to_string(plan.max_length()) + ": " + std::to_string(count) +
                     " checkers take",
                 static_cast<double>(count) * bytes);
}

SegmentChecker::SegmentChecker(const StripePlan& plan, Watch* watch)
    : plan_(plan), memory_(std::make_unique<Memory[]>(static_cast<std::size_t>(plan.steps()))) {
  for (Index m = 1; m <= plan.steps(); ++m) memory(m).pulse = Pulse(watch);
}

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
    holes.push_back(hole.in(segment));
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
    known.reach = power_reach(level, n);
    const auto same = [&](Index length) {
      const Reach other = power_reach(level, length);
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
  memory(m).pulse.work(1);
  if (m == plan_.steps()) return true;  // a final span: all of it is attended
  if (const auto verdict = memory(m).verdict(n); verdict != Memory::unknown) {
    return verdict == Memory::covered;
  }
  require_few_segments(memory(m).long_segments.size(), plan_.max_length());
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
  Memory& known = memory(m);
  std::vector<Index>& widest = known.widest_gap;
  if (widest.empty()) widest.push_back(0);
  for (Index i = cut.first() + static_cast<Index>(widest.size()); i <= cut.last(); ++i) {
    widest.push_back(std::max(widest.back(), cut.anchor(i) - cut.anchor(i - 1)));
    known.pulse.work(1);
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
      memory(m).pulse.work(1);
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

}  // namespace multistep
