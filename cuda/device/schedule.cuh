#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <climits>
#include <vector>

#include "multistep/cuda/types.hpp"

/// The schedule on the device: tables, and how they cut a segment (SPEC 2). No powers here: the
/// host made them, exactly.
namespace multistep::cuda {

/// A non-decreasing step function of a segment's length n, 1 <= n <= max_length: its value is how
/// many entries are <= n, and about factor * n^power. The entries decide; the estimate only says
/// where to look first.
struct StepFunction {
  const std::int32_t* from = nullptr;  // [count], from[k - 1]: the smallest n with value >= k
  std::int32_t count = 0;
  float factor = 0;
  float power = 0;
};

/// One search level.
struct LevelTable {
  Rule rule = Rule::tight;
  std::int32_t first = 1;   // first searched stripe
  std::int32_t window = 0;  // keys of the window, at level 1
  std::int32_t inset = 0;   // keys of a window of so many: the segment ends before them
  bool of_row = false;      // aligned: so are all levels above, and parts are as long as the keys
                            // that level 1 searches say
  const std::int32_t* stripes = nullptr;  // tight, power: P(i) at [i]; P(0) = 0
  std::int32_t stripe_count = 0;          // stripes[stripe_count - 1] is beyond max_length
  StepFunction inside;    // tight, power: how many of the stripes are <= n, with P(0)
  StepFunction backward;  // power: B(n)
  StepFunction forward;   // power: F(n)
  StepFunction parts;     // even: ceil(n^(1/M)) - 1; aligned: log2 of a part, by the nominal length
};

/// Entries of `stripes` past stripe_count, all INT_MAX, so that a group of stripes can be read.
inline constexpr std::int32_t kStripePadding = 64;

/// Of one level, whose segments hold up to so many keys: most anchors of a segment, and most keys
/// of a span. From the schedule alone, for whatever length.
struct LevelBounds {
  Index stripes;
  Index span;
};
/// Of every level, where level 1 searches up to `length` keys: [N - 1].
std::vector<LevelBounds> level_bounds(const Schedule& schedule, Index length);

/// Most keys of an item of a query that stands at a position below `length`: of its window, and of
/// a final span.
struct ItemBounds {
  std::int32_t window;
  std::int32_t span;
};
ItemBounds item_bounds(const Schedule& schedule, Index length);

/// Positions of queries by their order of magnitude: the bit width of position + 1, [0, 31].
inline constexpr int kMagnitudes = 32;
/// About that of a row of so many keys, at least one: a power of two counts as one key less.
inline int magnitude_of(Index keys) {
  return std::min(static_cast<int>(std::bit_width(static_cast<std::uint64_t>(keys - 1))),
                  kMagnitudes - 1);
}
inline ItemBounds items_of_magnitude(const Schedule& schedule, int magnitude) {
  return item_bounds(schedule, (Index{1} << magnitude) - 1);
}

struct DeviceSchedule::Tables {
  std::vector<LevelTable> levels;  // [N - 1]
  std::int32_t window = 0;         // W; INT_MAX where N = 1
  std::vector<std::shared_ptr<void>> memory;
  std::vector<std::int32_t> max_stripes;  // [N - 1], most anchors of a segment of the level
  /// By magnitude: how decoding cuts a row depends on its own position alone, not on what the plan
  /// and the cache may hold beside it.
  std::array<ItemBounds, kMagnitudes> items;

  const ItemBounds& items_of(Index keys) const {
    return items[static_cast<std::size_t>(magnitude_of(keys))];
  }
};

#ifdef __CUDACC__

inline constexpr unsigned kFullWarp = 0xffffffffu;

/// The value at n, in two parts, so that something else can be done while the entries arrive: the
/// whole warp looks up 32 of them around the estimate, and settles the value. All with the same n.
struct Lookup {
  std::int32_t first;  // entry looked up by lane 0
  std::int32_t entry;  // by this lane
};
__device__ inline Lookup look_up(const StepFunction& function, std::int32_t n) {
  const float estimate = function.factor * __powf(static_cast<float>(n), function.power);
  const std::int32_t first = max(static_cast<std::int32_t>(fminf(estimate, 2e9f)) - 16, 0);
  const std::int32_t at = first + static_cast<std::int32_t>(threadIdx.x % 32);
  return {first, at < function.count ? __ldg(function.from + at) : INT_MAX};
}
__device__ inline std::int32_t settle(const StepFunction& function, std::int32_t n, Lookup lookup) {
  const int count = __popc(__ballot_sync(kFullWarp, lookup.entry <= n));
  if ((count > 0 || lookup.first == 0) && count < 32) return lookup.first + count;
  // The estimate was off: a search by 33rds.
  const int lane = threadIdx.x % 32;
  std::int32_t low = 0;  // entries below `low` are <= n, those from `high` on are not
  std::int32_t high = function.count;
  while (high - low > 32) {
    const std::int32_t step = (high - low) / 33 + 1;
    const std::int32_t at = low + (lane + 1) * step - 1;
    const bool below = at < high && __ldg(function.from + at) <= n;
    const int steps_below = __popc(__ballot_sync(kFullWarp, below));
    high = min(high, low + (steps_below + 1) * step - 1);
    low += steps_below * step;
  }
  const bool below = low + lane < high && __ldg(function.from + low + lane) <= n;
  return low + __popc(__ballot_sync(kFullWarp, below));
}
__device__ inline std::int32_t value_at(const StepFunction& function, std::int32_t n) {
  return settle(function, n, look_up(function, n));
}

/// What aligned parts of a query's segments hang on beside the segment.
struct Grid {
  std::int32_t origin;  // the key from which parts are counted
  std::int32_t length;  // of the keys that level 1 searches
};

/// A segment [end - length, end) as one level cuts it. Stripe i's anchor is key end - P(i).
struct DeviceCut {
  Rule rule;
  std::int32_t end;
  std::int32_t length;
  std::int32_t window;
  std::int32_t stride = 0;  // even, aligned: keys of a part
  std::int32_t lacks = 0;   // aligned: keys that the newest part lacks
  const std::int32_t* stripes;
  std::int32_t backward = 0;
  std::int32_t forward = 0;

  __device__ bool is_striped() const { return stride == 0; }

  __device__ std::int32_t stripe(std::int32_t i) const {
    return is_striped() ? __ldg(stripes + i) : newest_of_part(i);
  }

  /// Of the i-th part from the newest.
  __device__ std::int32_t newest_of_part(std::int32_t i) const {
    const std::int64_t whole = static_cast<std::int64_t>(i - 1) * stride + 1 - lacks;
    return static_cast<std::int32_t>(
        min(max(whole, std::int64_t{1}), static_cast<std::int64_t>(INT_MAX)));
  }

  __device__ std::int32_t anchor(std::int32_t i) const { return end - stripe(i); }

  /// The span that stripe i stands for. Reaches are at most `length`, so nothing overflows.
  __device__ DeviceSpan span(std::int32_t i) const {
    const std::int32_t distance = stripe(i) - 1;
    if (rule == Rule::power) {
      const std::int32_t far = backward >= length - distance ? length : distance + backward + 1;
      return {end - far, end - max(window, distance - forward)};
    }
    return {end - min(length, stripe(i + 1) - 1), end - distance};
  }
};

__device__ inline bool is_striped(Rule rule) { return rule == Rule::tight || rule == Rule::power; }

/// Aligned: keys of a part, 2^c, of a segment that has keys. A lane for itself.
__device__ inline int aligned_part_log2(const LevelTable& level, std::int32_t length, Grid grid) {
  const std::int32_t nominal = level.of_row ? grid.length : length;
  int log2 = 0;  // entries below it are <= nominal; there are at most 31
  for (int step = 16; step > 0; step /= 2) {
    const int next = log2 + step;
    if (next <= level.parts.count && __ldg(level.parts.from + next - 1) <= nominal) log2 = next;
  }
  return log2;
}

/// Aligned: a segment that has keys in parts of 2^log2.
__device__ inline void cut_parts(DeviceCut& cut, int log2, Grid grid) {
  cut.stride = 1 << log2;
  cut.lacks = cut.stride - 1 - ((cut.end - 1 - grid.origin) & (cut.stride - 1));
}

/// How the level cuts a segment, without reaches: its anchors. Whole warp.
__device__ inline DeviceCut cut_anchors(const LevelTable& level, DeviceSpan segment, Grid grid) {
  const std::int32_t n = segment.end - segment.begin;
  DeviceCut cut{.rule = level.rule,
                .end = segment.end,
                .length = n,
                .window = min(level.window, n),
                .stripes = level.stripes};
  if (n <= 0) return cut;
  if (level.rule == Rule::even) cut.stride = (n - 1) / (value_at(level.parts, n) + 1) + 1;
  if (level.rule == Rule::aligned) cut_parts(cut, aligned_part_log2(level, n, grid), grid);
  return cut;
}

/// The reaches of a power level, asked for early and settled late. Whole warp.
struct ReachLookup {
  Lookup backward;
  Lookup forward;
};
__device__ inline ReachLookup look_up_reaches(const LevelTable& level, std::int32_t n) {
  if (level.rule != Rule::power) return {};
  return {look_up(level.backward, n), look_up(level.forward, n)};
}
__device__ inline void settle_reaches(const LevelTable& level, ReachLookup lookup, DeviceCut& cut) {
  if (level.rule != Rule::power || cut.length <= 0) return;
  cut.backward = min(settle(level.backward, cut.length, lookup.backward), cut.length);
  cut.forward = min(settle(level.forward, cut.length, lookup.forward), cut.length);
}

/// How the level cuts a segment, its spans too. Whole warp.
__device__ inline DeviceCut cut_segment(const LevelTable& level, DeviceSpan segment, Grid grid) {
  DeviceCut cut = cut_anchors(level, segment, grid);
  if (cut.length > 0) settle_reaches(level, look_up_reaches(level, cut.length), cut);
  return cut;
}

/// One past the last stripe inside the segment. Whole warp.
__device__ inline std::int32_t end_stripe(const LevelTable& level, const DeviceCut& cut) {
  if (cut.length <= 0) return level.first;
  if (!cut.is_striped()) {
    const auto keys =
        static_cast<std::uint32_t>(cut.length) + static_cast<std::uint32_t>(cut.lacks);
    return static_cast<std::int32_t>((keys - 1) / static_cast<std::uint32_t>(cut.stride)) + 2;
  }
  return value_at(level.inside, cut.length);
}

/// Query positions and what they may look at.
struct Sequence {
  std::int64_t query_offset;
  std::int32_t queries;
  const std::int32_t* start;
  const std::int32_t* length;
  std::int32_t packed;  // sequences; 0: not packed
  const std::int32_t* cu_seqlens;
  const std::int32_t* cu_seqlens_k;  // cu_seqlens, where keys lie as queries do

  /// Positions do, from one packed sequence to the next.
  __host__ __device__ bool jumps() const { return cu_seqlens_k != cu_seqlens; }

  /// Neither decreases from one query to the next.
  struct Place {
    std::int32_t position;
    std::int32_t start;
  };
  __device__ Place place(std::int32_t batch, std::int32_t query) const {
    if (packed) return place_in_packed(query);
    const std::int64_t offset =
        length ? static_cast<std::int64_t>(__ldg(length + batch)) - queries : query_offset;
    return {at_most_last(max(offset + query, static_cast<std::int64_t>(-1))), padding(batch)};
  }

  /// Rows that are no keys for any query of a sequence that is not packed.
  __device__ std::int32_t padding(std::int32_t batch) const {
    return start ? max(__ldg(start + batch), 0) : 0;
  }

 private:
  /// Lengths and bounds that nobody has checked may be larger.
  static __device__ std::int32_t at_most_last(std::int64_t position) {
    return static_cast<std::int32_t>(min(position, static_cast<std::int64_t>(kMaxContext - 1)));
  }

  /// Queries without keys, behind all sequences or more than there are keys, stand before `start`.
  __device__ Place place_in_packed(std::int32_t query) const {
    std::int32_t low = 0;  // begins at the query or before
    std::int32_t high = packed + 1;
    while (high - low > 1) {
      const std::int32_t middle = (low + high) / 2;
      (__ldg(cu_seqlens + middle) <= query ? low : high) = middle;
    }
    const std::int32_t start = max(__ldg(cu_seqlens_k + low), 0);
    if (low == packed) return {start - 1, start};
    const std::int64_t left = static_cast<std::int64_t>(__ldg(cu_seqlens + low + 1)) - query;
    const std::int64_t position = __ldg(cu_seqlens_k + low + 1) - left;
    return {at_most_last(max(position, static_cast<std::int64_t>(start) - 1)), start};
  }
};

/// The keys that level 1 searches for the query at `position`; empty where the window has them all.
__device__ inline DeviceSpan searched(const LevelTable& level, std::int32_t window,
                                      std::int32_t position, std::int32_t start) {
  const std::int32_t n = position + 1 - start;
  if (n <= window) return {start, start};
  return {start, position + 1 - level.inset};
}

/// The keys that the query at `position` always attends.
__device__ inline DeviceSpan window_of(std::int32_t window, std::int32_t position,
                                       std::int32_t start) {
  const std::int32_t begin = window > position ? 0 : position + 1 - window;
  return {min(max(begin, start), position + 1), position + 1};
}

#endif

}  // namespace multistep::cuda
