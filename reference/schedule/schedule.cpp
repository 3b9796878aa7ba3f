#include "multistep/schedule.hpp"

#include <algorithm>
#include <bit>
#include <numeric>
#include <string>

#include "multistep/host_memory.hpp"
#include "multistep/power.hpp"
#include "support/error.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

constexpr Index kMaxStripes = Index{1} << 27;
constexpr Index kMaxExponentDenominator = 10'000;

void require_exponent(std::string_view name, Rational value, Index low, Index high) {
  require(value.denominator > 0 && value.denominator <= kMaxExponentDenominator &&
              value.numerator >= low * value.denominator &&
              value.numerator <= high * value.denominator,
          "{} {}: a rational in [{}, {}] with a denominator of at most {}", name, to_string(value),
          low, high, kMaxExponentDenominator);
}

void require_factor(std::string_view name, Rational value) {
  require(value.numerator >= 0 && value.denominator > 0, "{} {}: a factor is a rational >= 0", name,
          to_string(value));
}

/// The last stripe i with floor(i^e) <= max_length.
Index last_stripe(Rational exponent, Index max_length) {
  const auto inside = [&](Index i) { return floor_power(i, exponent) <= max_length; };
  require(!inside(kMaxStripes),
          "length {}: with stripe exponent {} it needs more than {} stripes; raise the exponent or "
          "shorten the sequence",
          max_length, to_string(exponent), kMaxStripes);
  Index last = 1;
  for (Index beyond = kMaxStripes; beyond - last > 1;) {
    const Index middle = last + (beyond - last) / 2;
    (inside(middle) ? last : beyond) = middle;
  }
  return last;
}

/// P(0) = 0 (unused), P(1), ..., up to and including the first stripe beyond `last`.
std::vector<Index> tabulate(Rational exponent, Index last, Watch& watch) {
  constexpr Index kBlock = 1024;  // stripes between two looks at the watch
  std::vector<Index> stripes(static_cast<std::size_t>(last) + 2);
  const auto put = [&](Index i) {
    stripes[static_cast<std::size_t>(i)] = floor_power(i, exponent);
  };
  for (Index i = 1; i <= last; ++i) {
    put(i);
    if (i % kBlock == 0) watch.add(kBlock);
  }
  put(last + 1);
  watch.add(last % kBlock);
  return stripes;
}

/// That of c = 0, 1, ..., up to and including the first that is not below `nominal`.
std::vector<Index> tabulate_parts(Index steps_left, Index nominal) {
  std::vector<Index> longest;
  do {
    longest.push_back(longest_with_parts(std::ssize(longest), steps_left));
  } while (longest.back() < nominal);
  return longest;
}

/// The part length that such a table gives. A nominal length past its end, a part of the level
/// above that has fewer keys to hold, is below twice the last: parts are then the next longer ones.
Index part_of(const std::vector<Index>& longest, Index nominal) {
  return Index{1} << (std::lower_bound(longest.begin(), longest.end(), nominal) - longest.begin());
}

}  // namespace

bool has_stripes(Rule rule) { return rule == Rule::tight || rule == Rule::power; }

Rule parse_rule(std::string_view name) {
  if (name == "tight") return Rule::tight;
  if (name == "power") return Rule::power;
  if (name == "even") return Rule::even;
  if (name == "aligned") return Rule::aligned;
  refuse("rule {}: tight, power, even or aligned", name);
}

std::string_view to_string(Rule rule) {
  switch (rule) {
    case Rule::tight:
      return "tight";
    case Rule::power:
      return "power";
    case Rule::even:
      return "even";
    case Rule::aligned:
      return "aligned";
  }
  refuse("rule {}: unknown", static_cast<int>(rule));
}

Level default_level(Rule rule, Index steps_left) {
  const Index M = steps_left;
  require(M >= 2 && M <= 64, "steps left {}: a search level has 2 to 64", M);
  return {rule, make_rational(M), make_rational(M), make_rational(0), make_rational(M - 1, M)};
}

Schedule preset_schedule(std::string_view name, Index steps) {
  const bool fixed = name == "paper" || name == "released";
  require(fixed || name == "nstep" || name == "even" || name == "aligned",
          "preset {}: nstep, even, aligned, paper or released", name);
  require(!fixed || steps == 2, "steps {}: preset {} has 2 steps", steps, name);
  require(steps >= 1 && steps <= 64, "steps {}: an integer in [1, 64]", steps);

  Schedule schedule;
  schedule.steps = steps;
  for (Index m = 1; m < steps; ++m) {
    const Rule first = fixed ? Rule::power : Rule::tight;
    const bool stripes = fixed || (m == 1 && name == "nstep");
    const Rule rule = stripes ? first : name == "aligned" ? Rule::aligned : Rule::even;
    schedule.levels.push_back(default_level(rule, steps - m + 1));
  }
  if (name == "released") {
    schedule.levels.front() = {Rule::power, make_rational(20, 11), make_rational(3),
                               make_rational(1), make_rational(11, 20)};
    schedule.window_index = 65;
    schedule.top_k = 3;
  }
  return schedule;
}

void validate_schedule(const Schedule& schedule) {
  require(schedule.steps >= 1 && schedule.steps <= 64, "steps {}: an integer in [1, 64]",
          schedule.steps);
  require(static_cast<Index>(schedule.levels.size()) == schedule.steps - 1,
          "levels {}: a schedule of {} steps has {} search levels", schedule.levels.size(),
          schedule.steps, schedule.steps - 1);
  require(schedule.window_index >= 0 && schedule.window_index <= kMaxLength,
          "window-index {}: an integer in [0, 2^48]", schedule.window_index);
  require(schedule.top_k >= 1 && schedule.top_k <= 64, "top-k {}: an integer in [1, 64]",
          schedule.top_k);
  for (const Level& level : schedule.levels) {
    to_string(level.rule);
    require_exponent("exponent", level.exponent, 1, 64);
    require_exponent("span-exponent", level.span_exponent, 0, 1);
    require_factor("backward", level.backward);
    require_factor("forward", level.forward);
  }
}

Reach power_reach(const Level& level, Index n) {
  return {ceil_scaled_power(level.backward, n, level.span_exponent),
          ceil_scaled_power(level.forward, n, level.span_exponent)};
}

Index longest_with_parts(Index c, Index steps_left) {
  return floor_power(2, make_rational(steps_left * (2 * c + 1), 2 * (steps_left - 1)));
}

Index aligned_part(Index nominal, Index steps_left) {
  require(nominal >= 1 && nominal <= kMaxLength, "length {}: an integer in [1, 2^48]", nominal);
  require(steps_left >= 2 && steps_left <= 64, "steps left {}: a search level has 2 to 64",
          steps_left);
  return part_of(tabulate_parts(steps_left, nominal), nominal);
}

Cut::Distances Cut::span(Index i) const {
  if (rule_ == Rule::power) {
    const Index a = anchor(i);
    return {std::max(window_, a - reach_.forward), std::min(length_, a + reach_.backward + 1)};
  }
  return {anchor(i), std::min(length_, anchor(i + 1))};
}

Segment Cut::below(Index i) const {
  const Distances part = span(i);
  const Span keys{end_ - part.far, end_ - part.near};
  return rule_ == Rule::aligned ? Segment(keys, stride_) : Segment(keys);
}

StripePlan::StripePlan(Schedule schedule, Index max_length, const Progress& progress)
    : schedule_(std::move(schedule)), max_length_(max_length) {
  validate_schedule(schedule_);
  require(max_length >= 1 && max_length <= kMaxLength, "length {}: an integer in [1, 2^48]",
          max_length);
  std::vector<Index> last;
  for (const Level& level : schedule_.levels) {
    last.push_back(has_stripes(level.rule) ? last_stripe(level.exponent, max_length) : 0);
  }
  const Index stripes = std::reduce(last.begin(), last.end());
  require_memory("length " + std::to_string(max_length) + ": its stripes take",
                 sizeof(Index) * static_cast<double>(stripes));
  Watch watch(progress, stripes);
  for (Index m = 1; m < steps(); ++m) {
    const Level& level = schedule_.level(m);
    std::vector<Index> table;
    if (has_stripes(level.rule)) {
      table = tabulate(level.exponent, last[static_cast<std::size_t>(m - 1)], watch);
    } else if (level.rule == Rule::aligned) {
      table = tabulate_parts(steps() - m + 1, max_length);
      last_aligned_ = m;
    }
    tables_.push_back(std::make_shared<const std::vector<Index>>(std::move(table)));
  }
  watch.finish();
  if (steps() == 1) {
    window_length_ = max_length;
  } else if (window_counts_keys()) {
    window_length_ = schedule_.window_index;
  } else {
    window_length_ = floor_power(schedule_.window_index + 1, schedule_.level(1).exponent) - 1;
  }
}

bool StripePlan::window_counts_keys() const {
  return steps() > 1 && !has_stripes(schedule_.level(1).rule);
}

Span StripePlan::window(Index query, Index start) const {
  const Index begin = query - std::min(window_length_, query + 1) + 1;
  return {std::min(std::max(start, begin), query + 1), query + 1};
}

bool StripePlan::parts_are_alike(Index m) const {
  const Rule rule = schedule_.level(m).rule;
  return rule == Rule::aligned || (rule == Rule::even && !place_matters(m + 1));
}

Index StripePlan::part(Index m, Index nominal) const {
  return part_of(*tables_[static_cast<std::size_t>(m - 1)], nominal);
}

Segment StripePlan::searched(Index query, Index start) const {
  const Index n = query + 1 - start;
  if (n <= window_length_) return Segment({start, start});
  return Segment({start, window_counts_keys() ? query + 1 - window_length_ : query + 1});
}

Reach StripePlan::reach_at(Index m, Index n) const {
  const Level& level = schedule_.level(m);
  return level.rule == Rule::power ? power_reach(level, n) : Reach{};
}

Cut StripePlan::cut(Index m, const Segment& segment, Reach known) const {
  const Index n = segment.length();
  Cut cut;
  cut.rule_ = schedule_.level(m).rule;
  cut.end_ = segment.end;
  cut.length_ = n;
  if (n == 0) return cut;
  if (cut.rule_ == Rule::even) {
    const Index parts = ceil_root(n, steps() - m + 1);
    cut.stride_ = (n + parts - 1) / parts;
    cut.last_ = (n + cut.stride_ - 1) / cut.stride_;
    return cut;
  }
  if (cut.rule_ == Rule::aligned) {
    cut.stride_ = part(m, segment.nominal);
    const Index newest = (segment.end - 1) % cut.stride_ + 1;  // keys of the newest part
    cut.short_ = cut.stride_ - newest;
    cut.last_ = (n + cut.short_ + cut.stride_ - 1) / cut.stride_;
    return cut;
  }
  const std::vector<Index>& stripes = *tables_[static_cast<std::size_t>(m - 1)];
  cut.stripes_ = stripes.data();
  cut.last_ = std::upper_bound(stripes.begin(), stripes.end(), n) - stripes.begin() - 1;
  if (m == 1) {
    cut.first_ = schedule_.window_index + 1;
    cut.window_ = std::min(window_length_, n);
  }
  cut.reach_ = known;
  return cut;
}

Segment StripePlan::representative(Index m, const Segment& segment) const {
  const Index n = segment.length();
  if (!place_matters(m)) return Segment({0, n});
  // Parts are powers of two, none below longer than these. Where the level has none, no part below
  // is longer than the next power of two to n.
  const bool aligned = schedule_.level(m).rule == Rule::aligned;
  const Index longest = aligned ? part(m, segment.nominal)
                                : static_cast<Index>(std::bit_ceil(static_cast<std::uint64_t>(n)));
  const Index begin = segment.begin % longest;
  return Segment({begin, begin + n}, aligned ? segment.nominal : n);
}

StripePlan StripePlan::with_backward(Rational factor) const {
  StripePlan changed = *this;
  for (Level& level : changed.schedule_.levels) level.backward = factor;
  return changed;
}

StripePlan StripePlan::with_top_k(Index top_k) const {
  StripePlan changed = *this;
  changed.schedule_.top_k = top_k;
  validate_schedule(changed.schedule_);
  return changed;
}

std::vector<Index> greedy_path(Index steps, Index offset) {
  require(steps >= 1 && steps <= 64, "steps {}: an integer in [1, 64]", steps);
  require(offset >= 0 && offset < kMaxLength, "offset {}: an integer in [0, 2^48)", offset);
  std::vector<Index> digits;
  for (Index left = steps; left >= 1; --left) {
    Index digit = ceil_root(offset + 2, left) - 1;  // the largest i with i^left <= offset + 1
    offset -= floor_power(digit, make_rational(left)) - 1;
    digits.push_back(digit);
  }
  return digits;
}

}  // namespace multistep
