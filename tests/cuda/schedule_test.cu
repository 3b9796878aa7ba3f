#include <algorithm>
#include <random>
#include <vector>

#include "device/schedule.cuh"
#include "multistep/cuda/memory.hpp"
#include "support/catch.hpp"

/// The device's schedule against the oracle's, bit for bit: every stripe and reach.
namespace multistep::cuda {
namespace {

/// What a level makes of a segment of n keys, on the device: one warp a length.
struct CutValues {
  std::int32_t first;
  std::int32_t end;  // one past the last stripe
  std::int32_t stride;
  std::int32_t backward;
  std::int32_t forward;
  DeviceSpan oldest;  // span of the last stripe
  DeviceSpan newest;  // of the first
};

__global__ void cut_lengths(LevelTable level, std::int32_t first_length, std::int32_t count,
                            CutValues* values) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  if (i >= count) return;
  const std::int32_t n = first_length + i;
  const DeviceCut cut = cut_segment(level, {0, n}, {0, n});
  const std::int32_t end = end_stripe(level, cut);
  CutValues result{level.first, end, cut.stride, cut.backward, cut.forward, {0, 0}, {0, 0}};
  if (end > level.first) {
    result.oldest = cut.span(end - 1);
    result.newest = cut.span(level.first);
  }
  if (threadIdx.x % 32 == 0) values[i] = result;
}

/// How the device estimates where in a table to look: well, or not at all.
enum class Estimate { made, far_below, far_above };

/// The first length at which some value differs; 0: none.
Index first_difference(const StripePlan& plan, const DeviceSchedule& schedule, Index m,
                       Index max_length, Estimate estimate) {
  constexpr std::int32_t kBatch = 1 << 20;
  LevelTable level = schedule.tables().levels[static_cast<std::size_t>(m - 1)];
  for (StepFunction* function : {&level.inside, &level.backward, &level.forward, &level.parts}) {
    if (estimate != Estimate::made) function->factor = estimate == Estimate::far_below ? 0 : 1e9f;
  }
  DeviceArray<CutValues> device(kBatch);
  for (Index begin = 1; begin <= max_length; begin += kBatch) {
    const auto count = static_cast<std::int32_t>(std::min<Index>(kBatch, max_length - begin + 1));
    cut_lengths<<<static_cast<unsigned>((count + 7) / 8), 256>>>(
        level, static_cast<std::int32_t>(begin), count, device.data());
    const std::vector<CutValues> values = device.download();
    Index differs = max_length + 1;
#pragma omp parallel for reduction(min : differs) schedule(dynamic, 1024)
    for (std::int32_t i = 0; i < count; ++i) {
      const Index n = begin + i;
      const Cut cut = plan.cut(m, Segment({0, n}));
      const CutValues& got = values[static_cast<std::size_t>(i)];
      const Index last = std::max(cut.last(), cut.first() - 1);
      bool equal = got.first == cut.first() && std::max(got.end, got.first) == last + 1 &&
                   got.backward == std::min(cut.reach().backward, n) &&
                   got.forward == std::min(cut.reach().forward, n);
      const auto same = [&](DeviceSpan span, Index stripe) {
        const Span want = cut.span(stripe).in({0, n});
        return span.begin == want.begin && span.end == want.end;
      };
      if (equal && cut.count() > 0) {
        equal = same(got.oldest, cut.last()) && same(got.newest, cut.first());
      }
      if (!equal) differs = std::min(differs, n);
    }
    if (differs <= max_length) return differs;
  }
  return 0;
}

void require_equal(const Schedule& rules, Index max_length, Estimate estimate = Estimate::made) {
  const StripePlan plan(rules, max_length);
  const DeviceSchedule schedule(plan);
  for (Index m = 1; m < plan.steps(); ++m) {
    INFO("steps " << plan.steps() << ", level " << m);
    CHECK(first_difference(plan, schedule, m, max_length, estimate) == 0);
  }
  if (plan.steps() > 1) CHECK(schedule.tables().window == plan.window(max_length - 1, 0).length());
}

/// Every stripe of a table, read back from the device.
void require_stripes(const Schedule& rules, Index max_length) {
  const StripePlan plan(rules, max_length);
  const DeviceSchedule schedule(plan);
  for (Index m = 1; m < plan.steps(); ++m) {
    const LevelTable& level = schedule.tables().levels[static_cast<std::size_t>(m - 1)];
    if (!has_stripes(level.rule)) continue;
    std::vector<std::int32_t> stripes(static_cast<std::size_t>(level.stripe_count));
    REQUIRE(cudaMemcpy(stripes.data(), level.stripes, stripes.size() * sizeof(std::int32_t),
                       cudaMemcpyDeviceToHost) == cudaSuccess);
    const Cut cut = plan.cut(m, Segment({0, max_length}));
    Index wrong = 0;
    for (Index i = 1; i <= cut.last() + 1; ++i) {
      wrong += stripes[static_cast<std::size_t>(i)] != cut.anchor(i) + 1;
    }
    CHECK(wrong == 0);
  }
}

/// A segment anywhere, and what the device makes of it.
struct Placed {
  DeviceSpan segment;
  Grid grid;
};
__global__ void cut_placed(LevelTable level, const Placed* placed, std::int32_t count,
                           CutValues* values) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  if (i >= count) return;
  const DeviceCut cut = cut_segment(level, placed[i].segment, placed[i].grid);
  const std::int32_t end = end_stripe(level, cut);
  CutValues result{level.first, end, cut.stride, 0, 0, {0, 0}, {0, 0}};
  if (end > level.first) {
    result.oldest = cut.span(end - 1);
    result.newest = cut.span(level.first);
  }
  if (threadIdx.x % 32 == 0) values[i] = result;
}

/// Level by level, each in a part that the level above has cut: the newest, the oldest, or any.
/// Parts are counted from the origin.
void require_equal_parts(const Schedule& rules, Index max_length, Index origin) {
  const StripePlan plan(rules, max_length);
  const DeviceSchedule schedule(plan);
  std::mt19937_64 random(7);
  const auto below = [&](Index past) {
    return static_cast<Index>(random() % static_cast<std::uint64_t>(past));
  };
  std::vector<Segment> segments;  // from the origin on
  std::vector<std::int32_t> lengths;
  const auto add = [&](Index query) {
    for (const Index start : {Index{0}, below(query + 1)}) {
      segments.push_back(plan.searched(query, start));
      lengths.push_back(static_cast<std::int32_t>(segments.back().length()));
    }
  };
  for (Index query = 0; query < std::min<Index>(3000, max_length); ++query) add(query);
  for (int i = 0; i < 3000; ++i) add(below(max_length));
  const std::vector<LevelBounds> bounds = level_bounds(plan.schedule(), max_length);
  const auto moved = [&](Index key) { return static_cast<std::int32_t>(key + origin); };
  for (Index m = 1; m < plan.steps(); ++m) {
    std::vector<Placed> placed;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      placed.push_back(
          {{moved(segments[i].begin), moved(segments[i].end)}, {moved(0), lengths[i]}});
    }
    const DeviceArray<Placed> given(placed);
    const DeviceArray<CutValues> device(static_cast<Index>(placed.size()));
    const auto count = static_cast<std::int32_t>(placed.size());
    const auto at = static_cast<std::size_t>(m - 1);
    cut_placed<<<static_cast<unsigned>((count + 7) / 8), 256>>>(schedule.tables().levels[at],
                                                                given.data(), count, device.data());
    const std::vector<CutValues> values = device.download();
    Index wrong = 0;
    Index most = 0;
    Index longest = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const Cut cut = plan.cut(m, segments[i]);
      const CutValues& got = values[i];
      if (cut.count() <= 0) {
        wrong += got.end > got.first;
        continue;
      }
      const auto same = [&](DeviceSpan span, Index stripe) {
        const Span want = cut.below(stripe);
        return span.begin == moved(want.begin) && span.end == moved(want.end);
      };
      wrong += got.first != cut.first() || got.end != cut.last() + 1 ||
               !same(got.oldest, cut.last()) || !same(got.newest, cut.first());
      const Index stripes[] = {cut.first(), cut.last(), cut.first() + below(cut.count())};
      segments[i] = cut.below(stripes[i % 3]);
      most = std::max(most, cut.count());
      longest = std::max(longest, segments[i].length());
    }
    INFO("steps " << plan.steps() << ", level " << m);
    CHECK(wrong == 0);
    CHECK(most <= bounds[at].stripes);
    CHECK(longest <= bounds[at].span);
  }
}

constexpr Index kFar = 10'000'000;

}  // namespace

TEST_CASE("the device cuts every segment up to 10^7 keys as the oracle does", "[gpu][schedule]") {
  for (const char* name : {"paper", "released"}) {
    INFO(name);
    require_equal(preset_schedule(name), kFar);
  }
  for (const Index steps : {2, 3, 4}) require_equal(preset_schedule("nstep", steps), kFar);
  for (const Index steps : {2, 3}) require_equal(preset_schedule("even", steps), kFar);
}

TEST_CASE("the device cuts aligned parts as the oracle does", "[gpu][schedule][aligned]") {
  for (const Index steps : {2, 3, 4, 5, 12}) {
    for (const Index max_length : {Index{1}, Index{700}, kFar}) {
      for (const Index origin : {0, 12345}) {
        Schedule rules = preset_schedule("aligned", steps);
        require_equal_parts(rules, max_length, origin);
        rules.window_index = 37;
        require_equal_parts(rules, max_length, origin);
      }
    }
  }
  Schedule mixed = preset_schedule("nstep", 5);  // tight, even, even, even
  mixed.levels[1] = default_level(Rule::aligned, 4);
  mixed.levels[3] = default_level(Rule::aligned, 2);
  mixed.window_index = 2;
  require_equal_parts(mixed, kFar, 0);
  require_equal_parts(mixed, kFar, 77);
  mixed.levels[0] = default_level(Rule::aligned, 5);
  require_equal_parts(mixed, kFar, 0);
}

TEST_CASE("the device holds every stripe up to 10^7", "[gpu][schedule]") {
  for (const char* name : {"paper", "released"}) require_stripes(preset_schedule(name), kFar);
  for (const Index steps : {2, 3, 4}) require_stripes(preset_schedule("nstep", steps), kFar);
}

TEST_CASE("the device cuts short segments under odd rules as the oracle does", "[gpu][schedule]") {
  Schedule rules = preset_schedule("nstep", 4);
  rules.levels[0] = {Rule::power, parse_rational("7/2"), parse_rational("5/3"),
                     parse_rational("2/7"), parse_rational("3/5")};
  rules.levels[1] = default_level(Rule::power, 3);
  rules.levels[2] = {Rule::tight, parse_rational("1"), {}, {}, {}};
  rules.window_index = 3;
  require_equal(rules, 20'000);
  rules.levels[0] = default_level(Rule::even, 4);
  rules.levels[2] = {Rule::power, parse_rational("3/2"), parse_rational("0"), parse_rational("9"),
                     parse_rational("1")};
  require_equal(rules, 20'000);
  require_equal(preset_schedule("nstep", 12), 20'000);
}

TEST_CASE("the device's estimates decide nothing", "[gpu][schedule]") {
  for (const Estimate estimate : {Estimate::far_below, Estimate::far_above}) {
    for (const char* name : {"paper", "released"})
      require_equal(preset_schedule(name), 20'000, estimate);
    for (const char* name : {"nstep", "even"})
      require_equal(preset_schedule(name, 3), 20'000, estimate);
    // Tables of 33, 66, 1122 entries, which a search by 33rds cuts without a rest.
    Schedule rules = preset_schedule("paper");
    rules.levels[0].backward = parse_rational("1000");
    for (const Index length : {33, 66, 1122}) require_equal(rules, length, estimate);
  }
}

TEST_CASE("schedules that the kernels do not take are refused", "[gpu][schedule]") {
  CHECK_THROWS_WITH(DeviceSchedule(StripePlan(preset_schedule("nstep", 3), Index{1} << 31)),
                    ContainsSubstring("length 2147483648"));
  Schedule below = preset_schedule("aligned", 4);
  below.levels[0] = default_level(Rule::even, 4);
  CHECK_THROWS_WITH(DeviceSchedule(StripePlan(below, 100)),
                    ContainsSubstring("rule aligned at level 3: "));
  Schedule rules = preset_schedule("paper");
  rules.levels[0].span_exponent = parse_rational("1");
  CHECK_THROWS_WITH(DeviceSchedule(StripePlan(rules, Index{1} << 30)),
                    ContainsSubstring("backward reach"));
}

}  // namespace multistep::cuda
