#include "device/schedule.cuh"

#include <algorithm>
#include <bit>
#include <cmath>

#include "api/check.cuh"
#include "device/fault.cuh"
#include "multistep/cuda/memory.hpp"
#include "multistep/power.hpp"

#ifdef MULTISTEP_FAULTS
#include "multistep/cuda/fault.hpp"
#endif

namespace multistep::cuda {

#ifdef MULTISTEP_FAULTS
int injected_fault = 0;
void inject_fault(int fault) { injected_fault = fault; }
std::int64_t injected_chunk_pairs = 0;
void set_chunk_pairs(Index pairs) { injected_chunk_pairs = pairs; }
#endif

namespace {

constexpr Index kMaxEntries = Index{1} << 26;

std::int32_t clamp_to_32_bits(Index value) {
  return static_cast<std::int32_t>(std::min<Index>(value, INT_MAX));
}

/// The smallest n in [1, max_length] with value(n) >= k, for k = 1, 2, ..., for a non-decreasing
/// function. The search gallops on from the last answer: the function alone decides.
template <class Value>
std::vector<std::int32_t> entries_of(Index max_length, Value&& value, const char* name) {
  const Index top = std::min(value(max_length), max_length);
  require(top <= kMaxEntries, "{} {} at length {}: its table holds at most {}", name, top,
          max_length, kMaxEntries);
  std::vector<std::int32_t> from;
  Index n = 1;       // value(m) < k for all m < n
  Index stride = 1;  // the last distance between entries: where the next one is looked for
  for (Index k = 1; k <= top; ++k) {
    Index below = n - 1;
    Index reached = n;
    for (Index jump = stride; value(reached) < k; jump *= 2) {
      below = reached;
      reached = std::min(max_length, reached + jump);
    }
    while (reached - below > 1) {
      const Index middle = below + (reached - below) / 2;
      (value(middle) < k ? below : reached) = middle;
    }
    stride = std::max<Index>(1, reached - n);
    n = reached;
    from.push_back(clamp_to_32_bits(n));
  }
  return from;
}

/// log2 of the keys of an aligned level's parts, by the keys that level 1 searches or, if these do
/// not decide, by the segment's.
Index part_log2(const StripePlan& plan, Index m, bool of_row, Index n) {
  Index nominal = n;
  for (Index above = 1; of_row && above < m; ++above) {
    nominal = aligned_part(nominal, plan.steps() - above + 1);
  }
  const Index part = aligned_part(nominal, plan.steps() - m + 1);
  require(part <= Index{1} << 30, "length {}: parts of {} keys, of at most 2^30", n, part);
  return std::countr_zero(static_cast<std::uint64_t>(part));
}

/// The last stripe i of a tight or power level with P(i) <= n, n >= 1.
Index stripes_within(const Level& rules, Index n) {
  Index inside = 1;       // P(1) = 1
  Index outside = n + 1;  // P(i) >= i
  while (outside - inside > 1) {
    const Index middle = inside + (outside - inside) / 2;
    (floor_power(middle, rules.exponent) <= n ? inside : outside) = middle;
  }
  return inside;
}

class Uploader {
 public:
  explicit Uploader(DeviceSchedule::Tables& tables) : tables_(tables) {}

  const std::int32_t* upload(const std::vector<std::int32_t>& host) {
    auto array = std::make_shared<DeviceArray<std::int32_t>>(host);
    const std::int32_t* data = array->data();
    tables_.memory.push_back(std::move(array));
    return data;
  }

  /// `factor` and `power` estimate the value.
  StepFunction upload_function(const std::vector<std::int32_t>& from, double factor, double power) {
    return {.from = upload(from),
            .count = clamp_to_32_bits(static_cast<Index>(from.size())),
            .factor = static_cast<float>(factor),
            .power = static_cast<float>(power)};
  }

 private:
  DeviceSchedule::Tables& tables_;
};

/// Most parts of a segment of at most `longest` keys, or of nominally as many, where that is a part
/// of an aligned level and begins at a border.
Index most_aligned_parts(Index longest, Index steps_left, bool is_part) {
  Index most = 0;
  Index n = 1;
  for (Index c = 0; n <= longest; ++c) {
    const Index part = Index{1} << c;
    const Index last = std::min(longest, longest_with_parts(c, steps_left));
    if (!is_part) most = std::max(most, 1 + (last + part - 2) / part);
    for (; n <= last; n *= 2) {
      if (is_part) most = std::max(most, (n - 1) / part + 1);
    }
    if (last == longest) break;
  }
  return most;
}

}  // namespace

std::vector<LevelBounds> level_bounds(const Schedule& schedule, Index length) {
  std::vector<LevelBounds> result;
  Index longest = length;  // segment of the level
  for (Index m = 1; m < schedule.steps; ++m) {
    const Level& rules = schedule.level(m);
    const Index steps_left = schedule.steps - m + 1;
    LevelBounds bounds{0, 0};
    // Anchors and spans grow with the segment, but for an even level, which is bounded by its root.
    if (longest > 0 && rules.rule == Rule::even) {
      bounds.stripes = ceil_root(longest, steps_left);
      // ceil(n / r) is greatest at the last n or at the last perfect power, r^M.
      const Index root = ceil_root(longest + 1, steps_left) - 1;
      bounds.span = std::max((longest - 1) / bounds.stripes + 1,
                             floor_power(root, make_rational(steps_left - 1)));
    } else if (longest > 0 && rules.rule == Rule::aligned) {
      const bool is_part = m > 1 && schedule.level(m - 1).rule == Rule::aligned;
      bounds = {most_aligned_parts(longest, steps_left, is_part),
                aligned_part(longest, steps_left)};
    } else if (longest > 0) {
      const Index last = stripes_within(rules, longest);
      bounds.stripes = std::max<Index>(last - (m == 1 ? schedule.window_index : 0), 0);
      // Gaps between convex stripes grow, save for one key that rounding takes.
      Index more = floor_power(last + 1, rules.exponent) - floor_power(last, rules.exponent);
      if (rules.rule == Rule::power) {
        const Reach far = power_reach(rules, longest);
        more = far.backward + far.forward;
      }
      bounds.span = std::min(longest, more + 1);
    }
    result.push_back(bounds);
    longest = bounds.span;
  }
  return result;
}

ItemBounds item_bounds(const Schedule& schedule, Index length) {
  if (schedule.steps == 1) return {clamp_to_32_bits(length), 0};
  const Level& first = schedule.level(1);
  const Index window = has_stripes(first.rule)
                           ? floor_power(schedule.window_index + 1, first.exponent) - 1
                           : schedule.window_index;
  return {clamp_to_32_bits(std::min(window, length)),
          clamp_to_32_bits(level_bounds(schedule, length).back().span)};
}

DeviceSchedule::DeviceSchedule(StripePlan plan) : plan_(std::move(plan)) {
  const Index max_length = plan_.max_length();
  require(max_length <= kMaxContext, "length {}: the kernels take contexts of at most {}",
          max_length, kMaxContext);
  auto tables = std::make_shared<Tables>();
  Uploader uploader(*tables);
  const Index newest = max_length - 1;
  tables->window = clamp_to_32_bits(plan_.window(newest, 0).length());
  if (plan_.steps() == 1) tables->window = INT_MAX;

  for (Index m = 1; m < plan_.steps(); ++m) {
    const Level& rules = plan_.schedule().level(m);
    const Index steps_left = plan_.steps() - m + 1;
    const Cut cut = plan_.cut(m, Segment({0, max_length}));
    LevelTable level;
    level.rule = rules.rule;
    level.first = clamp_to_32_bits(cut.first());
    const bool window_counts_keys = m == 1 && !has_stripes(rules.rule);
    level.window = m == 1 && !window_counts_keys ? tables->window : 0;
    level.inset = window_counts_keys ? tables->window : 0;
    if (rules.rule == Rule::even) {
      const auto parts = [&](Index n) { return ceil_root(n, steps_left) - 1; };
      level.parts = uploader.upload_function(entries_of(max_length, parts, "parts of a segment"), 1,
                                             1 / static_cast<double>(steps_left));
    } else if (rules.rule == Rule::aligned) {
      const bool below_aligned = m > 1 && plan_.schedule().level(m - 1).rule == Rule::aligned;
      level.of_row = m == 1 || (below_aligned && tables->levels.back().of_row);
      require(
          !below_aligned || level.of_row,
          "rule aligned at level {}: the kernels take it below an aligned level where all levels "
          "above are aligned",
          m);
      level.parts = uploader.upload_function(
          entries_of(
              max_length, [&](Index n) { return part_log2(plan_, m, level.of_row, n); },
              "log2 of an aligned part"),
          0, 0);
    } else {
      require(cut.last() < kMaxEntries, "stripes {} at length {}: a table holds at most {}",
              cut.last(), max_length, kMaxEntries);
      std::vector<std::int32_t> stripes{0};
      for (Index i = 1; i <= cut.last() + 1; ++i) {
        stripes.push_back(clamp_to_32_bits(floor_power(i, rules.exponent)));
      }
      level.stripe_count = clamp_to_32_bits(static_cast<Index>(stripes.size()));
      stripes.insert(stripes.end(), kStripePadding, INT_MAX);
      level.stripes = uploader.upload(stripes);
      level.inside = {.from = level.stripes,
                      .count = level.stripe_count,
                      .factor = 1,
                      .power = static_cast<float>(1 / to_double(rules.exponent))};
    }
    if (rules.rule == Rule::power) {
      const auto backward = [&](Index n) { return power_reach(rules, n).backward; };
      const auto forward = [&](Index n) { return power_reach(rules, n).forward; };
      const double power = to_double(rules.span_exponent);
      level.backward = uploader.upload_function(entries_of(max_length, backward, "backward reach"),
                                                to_double(rules.backward), power);
      level.forward = uploader.upload_function(entries_of(max_length, forward, "forward reach"),
                                               to_double(rules.forward), power);
    }
    tables->levels.push_back(level);
  }
  for (const LevelBounds& level : level_bounds(plan_.schedule(), max_length)) {
    tables->max_stripes.push_back(clamp_to_32_bits(level.stripes));
  }
  for (int magnitude = 0; magnitude < kMagnitudes; ++magnitude) {
    tables->items[static_cast<std::size_t>(magnitude)] =
        items_of_magnitude(plan_.schedule(), magnitude);
  }
  tables_ = std::move(tables);
}

}  // namespace multistep::cuda
