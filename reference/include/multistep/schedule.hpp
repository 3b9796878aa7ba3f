#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "multistep/types.hpp"

/// The N-step stripe anchor schedule (SPEC 2). Levels are numbered 1 ... N-1, as in the
/// specification; level m has M = N - m + 1 steps left.
namespace multistep {

/// How the anchors of a level stand for spans (SPEC 2.3).
enum class Rule { tight, power, even };

/// One search level. The even rule uses none of the rationals, the tight rule the exponent alone.
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

/// The presets of SPEC 2.7: "nstep", "even" (any steps), "paper", "released" (steps = 2). With
/// steps = 1 every preset but those two is dense attention. Throws std::invalid_argument.
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

/// How one level cuts a segment of n keys, in distances from the segment's newest key: distance d
/// is key `end - 1 - d`. A span of distances [near, far) is the keys [end - far, end - near).
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

 private:
  friend class StripePlan;
  Index stripe(Index i) const { return stripes_ ? stripes_[i] : (i - 1) * stride_ + 1; }

  Rule rule_ = Rule::tight;
  Index length_ = 0;
  Index window_ = 0;
  Index first_ = 1;
  Index last_ = 0;
  Index stride_ = 0;                // even
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
  Span searched(Index query, Index start) const;

  /// How level m cuts a segment of n >= 0 keys. `known` skips the two powers of the power rule.
  Cut cut(Index m, Index n) const { return cut(m, n, reach_at(m, n)); }
  Cut cut(Index m, Index n, Reach known) const;

  /// The same plan with the backward factor of every power level replaced.
  StripePlan with_backward(Rational factor) const;

  /// The same plan with another number of paths kept, [1, 64].
  StripePlan with_top_k(Index top_k) const;

 private:
  Reach reach_at(Index m, Index n) const;
  bool window_counts_keys() const;  // level 1 is even: w counts keys

  Schedule schedule_;
  Index max_length_ = 0;
  Index window_length_ = 0;
  std::vector<std::shared_ptr<const std::vector<Index>>> stripes_;  // [N - 1]; null: even
};

/// The greedy numeral of offset d (SPEC 2.5.1): i_1 = floor((d+1)^(1/N)), and the remainder
/// d - (i_1^N - 1) likewise with N - 1, ..., 1. Sum over m of i_m^(N-m+1) - 1 is d.
std::vector<Index> greedy_path(Index steps, Index offset);

}  // namespace multistep
