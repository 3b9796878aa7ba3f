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

  /// Of a representative segment.
  std::int8_t& verdict(const Segment& segment, bool place_matters) {
    if (place_matters || segment.end >= kDense) return other_segments[segment];
    const auto at = static_cast<std::size_t>(segment.end);
    if (at >= segments.size()) segments.resize(std::max(at + 1, 2 * segments.size()), unknown);
    return segments[at];
  }

  Pulse pulse;

  std::vector<std::int8_t> segments;  // [segment length < kDense], where it is all that matters
  std::unordered_map<Segment, std::int8_t> other_segments;

  Index good_until = 0;   // tight: the unclipped spans of stripes [first, good_until) are covered
  Index bad = INT64_MAX;  // tight: the first stripe whose unclipped span is not
  std::vector<Index> widest_gap;  // power: max of P(k+1) - P(k) over first <= k < i, at [i - first]

  static constexpr std::size_t kHoleLists = 4096;
  std::unordered_map<Segment, std::vector<Distances>> holes;  // of some segments

  // The reaches last used and the lengths [from, to] that they are right for.
  Reach reach;
  Index from = 1;
  Index to = 0;
};

void require_checkers(const StripePlan& plan, Index count) {
  double bytes = 0;
  for (Index m = 1; m < plan.steps(); ++m) {
    if (plan.schedule().level(m).rule != Rule::power) continue;
    const Index stripes = plan.cut(m, Segment({0, plan.max_length()}), {}).last();
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
  const Segment segment = plan_.searched(query, start);
  return segment.empty() ||
         ask_again_when_full(
             asked_, [&] { return covered_segment(1, segment); }, [&] { forget(); });
}

std::vector<Span> SegmentChecker::holes(Index query, Index start) {
  const Segment segment = plan_.searched(query, start);
  std::vector<Span> holes;
  if (segment.empty()) return holes;
  const std::vector<Distances> found = ask_again_when_full(
      asked_, [&] { return segment_holes(1, segment); }, [&] { forget(); });
  for (const Distances& hole : found) holes.push_back(hole.in(segment));
  std::reverse(holes.begin(), holes.end());
  return holes;
}

void SegmentChecker::forget() {
  for (Index m = 1; m <= plan_.steps(); ++m) {
    Memory fresh;
    fresh.pulse = memory(m).pulse;
    memory(m) = std::move(fresh);
  }
}

SegmentChecker::Memory& SegmentChecker::memory(Index m) {
  return memory_[static_cast<std::size_t>(m - 1)];
}

/// The reaches are step functions of n, and level 1 sees the lengths in order: most of its cuts
/// reuse the last ones.
Cut SegmentChecker::cut(Index m, const Segment& segment) {
  const Level& level = plan_.schedule().level(m);
  if (level.rule != Rule::power) return plan_.cut(m, segment, {});
  const Index n = segment.length();
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
  return plan_.cut(m, segment, known.reach);
}

bool SegmentChecker::settled(Index m, const Segment& segment) {
  Memory& known = memory(m);
  known.pulse.work(1);
  if (m == plan_.steps()) return true;  // a final span: all of it is attended
  const bool place_matters = plan_.place_matters(m);
  const Segment like = plan_.representative(m, segment);
  if (const auto verdict = known.verdict(like, place_matters); verdict != Memory::unknown) {
    return verdict == Memory::covered;
  }
  // Places are many more than lengths: what is forgotten is settled again where it comes up.
  if (place_matters && known.other_segments.size() >= kMaxSegments) known.other_segments.clear();
  require_few_segments(known.other_segments.size(), plan_.max_length());
  const bool covered = covered_segment(m, like);
  known.verdict(like, place_matters) = covered ? Memory::covered : Memory::holed;
  return covered;
}

bool SegmentChecker::covered_segment(Index m, const Segment& segment) {
  const Cut cut = this->cut(m, segment);
  const bool ends = cut.count() > 0 && cut.span(cut.first()).near == cut.window() &&
                    cut.span(cut.last()).far == cut.length();
  if (!ends) return false;
  switch (cut.rule()) {
    case Rule::even:
    case Rule::aligned:
      return covered_each(m, cut);
    case Rule::tight:
      return covered_tight(m, cut);
    case Rule::power:
      return covered_power(m, cut) || segment_holes(m, segment).empty();
  }
  return false;
}

/// Whether each span is covered, of those that are cut alike one.
bool SegmentChecker::covered_each(Index m, const Cut& cut) {
  bool covered = true;
  plan_.for_each_kind(m, cut,
                      [&](Index i, Index) { covered = covered && settled(m + 1, cut.below(i)); });
  return covered;
}

/// All spans but the oldest are those of any longer segment, so they are settled once, unless it
/// matters where they lie.
bool SegmentChecker::covered_tight(Index m, const Cut& cut) {
  if (plan_.place_matters(m + 1)) return covered_each(m, cut);
  Memory& known = memory(m);
  for (Index i = std::max(known.good_until, cut.first()); i < std::min(cut.last(), known.bad);
       ++i) {
    if (settled(m + 1, cut.below(i))) {
      known.good_until = i + 1;
    } else {
      known.bad = i;
    }
  }
  return cut.last() <= known.bad && settled(m + 1, cut.below(cut.last()));
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
  if (plan_.place_matters(m + 1)) return covered_each(m, cut);

  Index newest = cut.first();  // first stripe whose span the window or the newest key does not clip
  for (; newest <= cut.last() && cut.anchor(newest) - forward < cut.window(); ++newest) {
    if (!settled(m + 1, cut.below(newest))) return false;
  }
  Index oldest = cut.last();  // last stripe whose span the segment's begin does not clip
  for (; oldest >= newest && cut.anchor(oldest) + backward + 1 > cut.length(); --oldest) {
    if (!settled(m + 1, cut.below(oldest))) return false;
  }
  return oldest < newest || settled(m + 1, cut.below(newest));
}

/// segment_holes for m >= 2, remembered: many segments of a level are cut alike.
const std::vector<Cut::Distances>& SegmentChecker::known_holes(Index m, const Segment& segment) {
  auto& known = memory(m).holes;
  const Segment like = plan_.representative(m, segment);
  if (const auto found = known.find(like); found != known.end()) return found->second;
  std::vector<Distances> holes = segment_holes(m, like);
  if (known.size() >= Memory::kHoleLists) known.clear();
  return known[like] = std::move(holes);
}

std::vector<Cut::Distances> SegmentChecker::segment_holes(Index m, const Segment& segment) {
  const Cut cut = this->cut(m, segment);
  Index first = cut.first();
  Index settled_to = cut.window();
  if (cut.rule() == Rule::power && m + 1 == plan_.steps() && cut.count() > 0) {
    first = last_joined(m, cut);  // final spans have no holes, so up to here there is none
    settled_to = cut.span(first).near;
  }
  std::vector<Distances> reached;
  for (Index i = first; i <= cut.last(); ++i) {
    const Distances span = cut.span(i);
    if (settled(m + 1, cut.below(i))) {
      reached.push_back(span);
      continue;
    }
    Index near = span.near;
    for (const Distances& hole : known_holes(m + 1, cut.below(i))) {
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
  if (settled_to < cut.length()) holes.push_back({settled_to, cut.length()});
  return holes;
}

}  // namespace multistep
