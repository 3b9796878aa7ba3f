#include <benchmark/benchmark.h>

#include "inputs.hpp"
#include "multistep/attention.hpp"
#include "multistep/coverage.hpp"

/// The times that the README reports. Every benchmark checks its result and fails on a wrong one.
namespace multistep {
namespace {

void expect_covered(benchmark::State& state, const CoverageReport& report) {
  if (!report.covered()) state.SkipWithError("not covered");
}

void verify(benchmark::State& state, const char* name, Index steps) {
  for (auto _ : state) expect_covered(state, verify_all(preset(name, steps), state.range(0)));
}

void verify_failing(benchmark::State& state) {
  Schedule schedule = preset("paper");
  schedule.levels.front().backward = make_rational(19, 10);
  for (auto _ : state) {
    const CoverageReport report = verify_all(schedule, state.range(0));
    if (report.covered() || report.first_excluded->position != 898) state.SkipWithError("wrong");
  }
}

void sample(benchmark::State& state, const char* name, Index steps) {
  for (auto _ : state) {
    expect_covered(state, verify_sampled(preset(name, steps), state.range(0), 0, 1000, 1));
  }
}

void attend(benchmark::State& state) {
  const Index length = state.range(0);
  const Shape shape{1, 1, 1, length, length, 64};
  const auto count = static_cast<std::size_t>(length * shape.head_dim);
  std::vector<std::vector<float>> arrays;
  for (std::uint64_t stream = 0; stream < 4; ++stream) {
    arrays.push_back(random_inputs<float>(count, 1, stream));
  }
  const StripePlan plan(preset("nstep"), length);
  const AttentionArgs<float> args{
      shape, &plan, arrays[0].data(), arrays[1].data(), arrays[2].data(), {arrays[3].data()}};
  for (auto _ : state) benchmark::DoNotOptimize(attention(args).output.data());
}

constexpr Index kMillion = 1'000'000;
constexpr auto kUnit = benchmark::kMillisecond;

BENCHMARK_CAPTURE(verify, nstep_2, "nstep", 2)
    ->Arg(kMillion)
    ->Arg(10 * kMillion)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK_CAPTURE(verify, nstep_3, "nstep", 3)
    ->Arg(kMillion)
    ->Arg(10 * kMillion)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK_CAPTURE(verify, nstep_4, "nstep", 4)
    ->Arg(kMillion)
    ->Arg(10 * kMillion)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK_CAPTURE(verify, even_2, "even", 2)
    ->Arg(kMillion)
    ->Arg(10 * kMillion)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK_CAPTURE(verify, even_3, "even", 3)->Arg(10 * kMillion)->Unit(kUnit)->UseRealTime();
BENCHMARK_CAPTURE(verify, paper, "paper", 2)
    ->Arg(kMillion)
    ->Arg(10 * kMillion)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK_CAPTURE(verify, released, "released", 2)
    ->Arg(kMillion)
    ->Arg(10 * kMillion)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK(verify_failing)->Arg(kMillion)->Arg(10 * kMillion)->Unit(kUnit)->UseRealTime();
BENCHMARK_CAPTURE(sample, nstep_2, "nstep", 2)->Arg(kMillion* kMillion)->Unit(kUnit)->UseRealTime();
BENCHMARK_CAPTURE(sample, nstep_3, "nstep", 3)->Arg(kMillion* kMillion)->Unit(kUnit)->UseRealTime();
BENCHMARK_CAPTURE(sample, released, "released", 2)
    ->Arg(kMillion* kMillion)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK(attend)->Arg(1 << 14)->Arg(1 << 16)->Unit(kUnit)->UseRealTime()->Iterations(1);

}  // namespace
}  // namespace multistep

BENCHMARK_MAIN();
