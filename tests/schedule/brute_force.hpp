#pragma once

#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <map>
#include <utility>
#include <vector>

#include "multistep/schedule.hpp"

/// The schedule as SPEC 2.1-2.4 states it: loops over keys, powers by repeated multiplication.
/// Slow, and independent of the library, of which it uses the plain structs alone.
namespace brute_force {

using multistep::Index;
using multistep::Level;
using multistep::Rational;
using multistep::Rule;
using multistep::Schedule;
using multistep::Span;
using Integer = boost::multiprecision::cpp_int;

inline Integer power(const Integer& base, Index exponent) {
  Integer product = 1;
  for (Index factor = 0; factor < exponent; ++factor) product *= base;
  return product;
}

/// The smallest B with (B v)^b >= u^b n^a, for factor u/v and exponent a/b.
inline Index ceil_scaled_power(Rational factor, Index n, Rational exponent) {
  const Integer target =
      power(factor.numerator, exponent.denominator) * power(n, exponent.numerator);
  Index result = 0;
  while (power(Integer(result) * factor.denominator, exponent.denominator) < target) ++result;
  return result;
}

/// The smallest r with r^degree >= n.
inline Index ceil_root(Index n, Index degree) {
  Index root = 0;
  while (power(root, degree) < n) ++root;
  return root;
}

/// The smallest 2^c with 2^(M (2c + 1)) >= n^(2 (M - 1)).
inline Index aligned_part(Index n, Index steps_left) {
  const Integer target = power(n, 2 * (steps_left - 1));
  Index c = 0;
  while (power(2, steps_left * (2 * c + 1)) < target) ++c;
  return Index{1} << c;
}

/// An anchor and the span that it stands for, which the level below takes to have `nominal` keys.
struct Choice {
  Index anchor = 0;
  Span span;
  Index nominal = 0;
  friend bool operator==(const Choice& a, const Choice& b) {
    return a.anchor == b.anchor && a.span == b.span;
  }
};

/// One choice per search level: the anchors chosen, those scored on the way, the final span.
struct Path {
  std::vector<Index> anchors;
  Index anchors_scored = 0;
  Span span;
};

/// A schedule over sequences of at most `longest` keys.
class Definition {
 public:
  Definition(Schedule schedule, Index longest) : schedule_(std::move(schedule)), longest_(longest) {
    for (const Level& level : schedule_.levels) stripes_.push_back(powers(level.exponent));
  }

  /// [max(start, t - W + 1), t + 1), and every key where N = 1.
  Span window(Index query, Index start) const {
    if (schedule_.steps == 1) return {start, query + 1};
    return {std::max(start, query - window_length() + 1), query + 1};
  }

  /// Level 1: what query t chooses from.
  std::vector<Choice> first_choices(Index query, Index start) const {
    const Index skipped = schedule_.window_index;
    const Index outside = query - window_length();  // the newest key outside the window
    if (counts_keys()) return choices(1, {start, outside + 1}, outside + 1 - start, 0, outside);
    return choices(1, {start, query + 1}, query + 1 - start, skipped, outside);
  }

  /// Level m >= 2: what a segment of that nominal length offers.
  std::vector<Choice> inner_choices(Index m, Span segment, Index nominal) const {
    return choices(m, segment, nominal, 0, segment.end - 1);
  }
  std::vector<Choice> inner_choices(Index m, const Choice& parent) const {
    return inner_choices(m, parent.span, parent.nominal);
  }

  /// Calls visit(path) for every path of query t.
  template <class Visit>
  void for_each_path(Index query, Index start, Visit visit) const {
    if (schedule_.steps == 1) return;  // the window has every key
    Path path;
    follow(1, first_choices(query, start), path, visit);
  }

  /// How many final spans hold each eligible key, the window counted as one more: [t + 1 - start].
  std::vector<Index> counts(Index query, Index start) const {
    std::vector<Index> result(static_cast<std::size_t>(query + 1 - start));
    const auto add = [&](Span span) {
      for (Index key = span.begin; key < span.end; ++key) {
        ++result.at(static_cast<std::size_t>(key - start));
      }
    };
    add(window(query, start));
    for_each_path(query, start, [&](const Path& path) { add(path.span); });
    return result;
  }

  /// The eligible keys that no path leads to, as maximal spans, oldest first.
  std::vector<Span> holes(Index query, Index start) const {
    std::vector<Span> result;
    const std::vector<Index> held = counts(query, start);
    for (Index key = start; key <= query; ++key) {
      if (held[static_cast<std::size_t>(key - start)] > 0) continue;
      if (result.empty() || result.back().end != key) result.push_back({key, key});
      result.back().end = key + 1;
    }
    return result;
  }

 private:
  Index steps_left(Index m) const { return schedule_.steps - m + 1; }

  /// floor(i^e) for i = 0, 1, ..., as long as it is at most `longest`.
  std::vector<Index> powers(Rational exponent) const {
    std::vector<Index> result;
    Index m = 0;
    for (Index i = 0; m <= longest_; ++i) {
      const Integer target = power(i, exponent.numerator);
      while (m <= longest_ && power(m + 1, exponent.denominator) <= target) ++m;
      if (m <= longest_) result.push_back(m);
    }
    return result;
  }

  /// P_m(i); longest + 1 stands for every stripe beyond the longest segment.
  Index stripe(Index m, Index i) const {
    const std::vector<Index>& known = stripes_[static_cast<std::size_t>(m - 1)];
    return i < static_cast<Index>(known.size()) ? known[static_cast<std::size_t>(i)] : longest_ + 1;
  }

  /// Whether the window index is a number of keys.
  bool counts_keys() const {
    const Rule rule = schedule_.level(1).rule;
    return rule == Rule::even || rule == Rule::aligned;
  }

  Index window_length() const {
    if (schedule_.window_index == 0) return 0;
    if (counts_keys()) return schedule_.window_index;
    return stripe(1, schedule_.window_index + 1) - 1;
  }

  /// SPEC 2.2 and 2.3. `cap` is the newest key that a power span may reach.
  std::vector<Choice> choices(Index m, Span segment, Index nominal, Index skipped,
                              Index cap) const {
    std::vector<Choice> result = cut(m, segment, nominal, skipped, cap);
    if (schedule_.level(m).rule == Rule::aligned) return result;
    for (Choice& choice : result) choice.nominal = choice.span.length();
    return result;
  }

  std::vector<Choice> cut(Index m, Span segment, Index nominal, Index skipped, Index cap) const {
    const Level& level = schedule_.level(m);
    const auto [begin, end] = segment;
    const Index n = end - begin;
    std::vector<Choice> result;
    if (n <= 0) return result;
    if (level.rule == Rule::aligned) {
      const Index s = part(nominal, steps_left(m));
      for (Index key = end - 1; key >= begin; --key) {
        const bool same = !result.empty() && result.back().span.begin / s == key / s;
        if (!same) result.push_back({key, {key, key + 1}, s});
        result.back().span.begin = key;
      }
      return result;
    }
    if (level.rule == Rule::even) {
      const Index parts = root(n, steps_left(m));
      const Index stride = (n + parts - 1) / parts;
      for (Index i = 1; (i - 1) * stride + 1 <= n; ++i) {
        const Index here = (i - 1) * stride + 1;
        const Index next = i * stride + 1;
        result.push_back({end - here, {std::max(begin, end - next + 1), end - here + 1}});
      }
      return result;
    }
    const bool power = level.rule == Rule::power;
    const Index backward = power ? reach(level.backward, n, level.span_exponent) : 0;
    const Index forward = power ? reach(level.forward, n, level.span_exponent) : 0;
    for (Index i = skipped + 1; stripe(m, i) <= n; ++i) {
      const Index a = end - stripe(m, i);
      if (power) {
        result.push_back({a, {std::max(begin, a - backward), std::min(a + forward, cap) + 1}});
      } else {
        result.push_back({a, {std::max(begin, end - stripe(m, i + 1) + 1), a + 1}});
      }
    }
    return result;
  }

  template <class Visit>
  void follow(Index m, const std::vector<Choice>& offered, Path& path, Visit& visit) const {
    path.anchors_scored += static_cast<Index>(offered.size());
    for (const Choice& choice : offered) {
      path.anchors.push_back(choice.anchor);
      if (m == schedule_.steps - 1) {
        path.span = choice.span;
        visit(path);
      } else {
        follow(m + 1, inner_choices(m + 1, choice), path, visit);
      }
      path.anchors.pop_back();
    }
    path.anchors_scored -= static_cast<Index>(offered.size());
  }

  // The slow powers, each worked out once.
  Index root(Index n, Index degree) const {
    const auto [entry, fresh] = roots_.try_emplace({n, degree});
    if (fresh) entry->second = ceil_root(n, degree);
    return entry->second;
  }
  Index part(Index n, Index degree) const {
    const auto [entry, fresh] = parts_.try_emplace({n, degree});
    if (fresh) entry->second = aligned_part(n, degree);
    return entry->second;
  }
  Index reach(Rational factor, Index n, Rational exponent) const {
    const auto [entry, fresh] = reaches_.try_emplace(
        {n, factor.numerator, factor.denominator, exponent.numerator, exponent.denominator});
    if (fresh) entry->second = brute_force::ceil_scaled_power(factor, n, exponent);
    return entry->second;
  }

  Schedule schedule_;
  Index longest_;
  std::vector<std::vector<Index>> stripes_;  // [N - 1], floor(i^(e_m)) at [i]
  mutable std::map<std::pair<Index, Index>, Index> roots_;
  mutable std::map<std::pair<Index, Index>, Index> parts_;
  mutable std::map<std::vector<Index>, Index> reaches_;
};

/// A schedule with the given rules and their defaults; its steps are one more than its rules.
inline Schedule schedule_of(const std::vector<Rule>& rules, Index window_index = 0) {
  Schedule schedule;
  schedule.steps = static_cast<Index>(rules.size()) + 1;
  schedule.window_index = window_index;
  for (Index m = 1; m < schedule.steps; ++m) {
    const Index M = schedule.steps - m + 1;
    schedule.levels.push_back(
        {rules[static_cast<std::size_t>(m - 1)], {M, 1}, {M, 1}, {0, 1}, {M - 1, M}});
  }
  return schedule;
}

/// The same with factors for level m.
inline Schedule with_factors(Schedule schedule, Index m, Rational backward, Rational forward) {
  schedule.levels[static_cast<std::size_t>(m - 1)].backward = backward;
  schedule.levels[static_cast<std::size_t>(m - 1)].forward = forward;
  return schedule;
}

}  // namespace brute_force
