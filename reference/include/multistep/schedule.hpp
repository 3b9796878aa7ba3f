#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "multistep/types.hpp"

/// The N-step stripe anchor schedule (SPEC 2). Levels are numbered 1 ... N-1, as in the
/// specification; level m has M = N - m + 1 steps left.
namespace multistep {

/// How the anchors of a level stand for spans (SPEC 2.3).
enum class Rule { tight, power, even, aligned };

/// Whether the anchors are stripes, at powers back from the newest key (tight, power), or the
/// newest keys of equal parts (even, aligned), where w counts keys and not stripes.
bool has_stripes(Rule rule);

/// One search level. Rules of parts use none of the rationals, the tight rule the exponent alone.
/// Exponents have denominators of at most 10^4.
struct Level {
  Rule rule = Rule::tight;
  Rational exponent;       // e_m in [1, 64]: stripe i lies floor(i^e_m) keys back
  Rational backward;       // b_m >= 0
  Rational forward;        // f_m >= 0
  Rational span_exponent;  // q_m in [0, 1]
};

/// A schedule is its parameters; StripePlan holds its tables.
struct Schedule {
  Index steps = 2;            // N in [1, 64]; N = 1 is dense attention
  std::vector<Level> levels;  // [N - 1]
  Index window_index = 0;     // w >= 0
  Index top_k = 2;            // [1, 64]

  const Level& level(Index m) const { return levels[static_cast<std::size_t>(m - 1)]; }
};

/// The presets of SPEC 2.7: "nstep", "even", "aligned" (any steps), "paper", "released" (steps =
/// 2). With steps = 1 every preset but those two is dense attention. Throws std::invalid_argument.
Schedule preset_schedule(std::string_view name, Index steps = 2);

/// A level with the defaults for `steps_left` = M: e = M, q = (M-1)/M, b = M, f = 0.
Level default_level(Rule rule, Index steps_left);

/// Throws std::invalid_argument naming the first parameter out of range.
void validate_schedule(const Schedule& schedule);

Rule parse_rule(std::string_view name);
std::string_view to_string(Rule rule);

/// How far a power span reaches from its anchor, in a segment of n keys: B and F of SPEC 2.3.
struct Reach {
  Index backward = 0;
  Index forward = 0;
};
Reach power_reach(const Level& level, Index n);

/// Keys of an aligned level's parts, for a segment of `nominal` >= 1 keys and M = `steps_left`: 2^c
/// for the smallest c >= 0 with 2^(M (2c + 1)) >= nominal^(2 (M - 1)).
Index aligned_part(Index nominal, Index steps_left);

/// The longest nominal length with parts of at most 2^c keys.
Index longest_with_parts(Index c, Index steps_left);

/// The keys that a level searches, and how many they nominally are (SPEC 2.3): a part that the
/// segment above has clipped counts as a whole one. At level 1 a segment has its own length.
struct Segment : Span {
  Index nominal = 0;

  Segment() = default;
  explicit Segment(Span keys) : Segment(keys, keys.length()) {}
  Segment(Span keys, Index nominal_length) : Span(keys), nominal(nominal_length) {}
  friend bool operator==(const Segment&, const Segment&) = default;
};

/// How one level cuts a segment, in distances from the segment's newest key: distance d is key
/// `end - 1 - d`. A span of distances [near, far) is the keys [end - far, end - near).
class Cut {
 public:
  struct Distances {
    Index near;
    Index far;
    Index length() const { return far - near; }
    bool empty() const { return far <= near; }
    Span in(Span segment) const { return {segment.end - far, segment.end - near}; }  // keys
  };

  Index first() const { return first_; }  // first searched stripe: w + 1 at level 1, else 1
  Index last() const { return last_; }    // last stripe inside the segment; last < first: none
  Index count() const { return last_ >= first_ ? last_ - first_ + 1 : 0; }
  Index length() const { return length_; }
  Index window() const { return window_; }  // the newest keys that the window has
  Rule rule() const { return rule_; }
  Reach reach() const { return reach_; }

  /// Distance of stripe i's anchor, P(i) - 1.
  Index anchor(Index i) const { return stripe(i) - 1; }

  /// The span that stripe i stands for, first <= i <= last.
  Distances span(Index i) const;

  /// The same in keys, as the next level searches it.
  Segment below(Index i) const;

 private:
  friend class StripePlan;
  Index stripe(Index i) const {
    if (stripes_) return stripes_[i];
    return i == 1 ? 1 : (i - 1) * stride_ + 1 - short_;
  }

  Rule rule_ = Rule::tight;
  Index end_ = 0;
  Index length_ = 0;
  Index window_ = 0;
  Index first_ = 1;
  Index last_ = 0;
  Index stride_ = 0;                // even, aligned: keys of a part
  Index short_ = 0;                 // aligned: keys that the newest part lacks
  const Index* stripes_ = nullptr;  // tight, power: P(i) at [i]
  Reach reach_;                     // power
};

/// A schedule with its stripes tabulated for segments of up to max_length keys. Copies share the
/// tables. Levels and queries beyond the tables' reach are the caller's error.
class StripePlan {
 public:
  /// Throws std::invalid_argument for a bad schedule, for max_length outside [1, 2^48], and where
  /// the tables would pass 2^27 stripes a level (small exponents at great lengths) or the memory.
  /// Progress is in stripes.
  StripePlan(Schedule schedule, Index max_length, const Progress& progress = {});

  const Schedule& schedule() const { return schedule_; }
  Index steps() const { return schedule_.steps; }
  Index max_length() const { return max_length_; }

  /// Keys that query t always attends: [max(start, t - W + 1), t + 1); all of them where N = 1.
  Span window(Index query, Index start) const;

  /// The keys that level 1 searches for query t; empty where the window has them all.
  Segment searched(Index query, Index start) const;

  /// How level m cuts a segment. `known` skips the two powers of the power rule.
  Cut cut(Index m, const Segment& segment) const {
    return cut(m, segment, reach_at(m, segment.length()));
  }
  Cut cut(Index m, const Segment& segment, Reach known) const;

  /// Whether level m or one below it is aligned, so that it matters where a segment lies.
  bool place_matters(Index m) const { return m <= last_aligned_; }

  /// The oldest segment that level m and those below it cut as they cut this one, in distances.
  Segment representative(Index m, const Segment& segment) const;

  /// Calls visit(i, copies) for the stripes of level m's cut; spans of one kind that lie in a row,
  /// which the levels below cut alike, are one call with their number.
  template <class Visit>
  void for_each_kind(Index m, const Cut& cut, Visit&& visit) const {
    Index i = cut.first();
    if (cut.count() > 3 && parts_are_alike(m)) {  // but for the ends
      visit(i, Index{1});
      visit(i + 1, cut.count() - 2);
      i = cut.last();
    }
    for (; i <= cut.last(); ++i) visit(i, Index{1});
  }

  /// The same plan with the backward factor of every power level replaced.
  StripePlan with_backward(Rational factor) const;

  /// The same plan with another number of paths kept, [1, 64].
  StripePlan with_top_k(Index top_k) const;

 private:
  Reach reach_at(Index m, Index n) const;
  bool window_counts_keys() const;  // level 1 has parts
  bool parts_are_alike(Index m) const;
  Index part(Index m, Index nominal) const;  // of an aligned level

  Schedule schedule_;
  Index max_length_ = 0;
  Index window_length_ = 0;
  Index last_aligned_ = 0;  // level; 0: none
  // [N - 1], by level. Stripes: P(i) at [i]. Aligned: the longest segment with parts of 2^c keys at
  // [c]. Even: empty.
  std::vector<std::shared_ptr<const std::vector<Index>>> tables_;
};

/// The greedy numeral of offset d (SPEC 2.5.1): i_1 = floor((d+1)^(1/N)), and the remainder
/// d - (i_1^N - 1) likewise with N - 1, ..., 1. Sum over m of i_m^(N-m+1) - 1 is d.
std::vector<Index> greedy_path(Index steps, Index offset);

}  // namespace multistep

template <>
struct std::hash<multistep::Segment> {
  std::size_t operator()(const multistep::Segment& segment) const noexcept {
    constexpr std::size_t kOdd = 0x9E3779B97F4A7C15;  // 2^64 divided by the golden ratio
    std::size_t mixed = 0;
    for (const multistep::Index part : {segment.begin, segment.end, segment.nominal}) {
      mixed = (mixed ^ static_cast<std::size_t>(part)) * kOdd;
      mixed ^= mixed >> 32;
    }
    return mixed;
  }
};
