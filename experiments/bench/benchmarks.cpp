#include <benchmark/benchmark.h>
#include <sys/resource.h>

#include <algorithm>
#include <string>

#include "multistep/attention.hpp"
#include "multistep/coverage.hpp"
#include "program/inputs.hpp"

/// The times that the README reports. Every benchmark checks its result and fails on a wrong one.
namespace multistep::program {
namespace {

void expect_covered(benchmark::State& state, const CoverageReport& report) {
  if (!report.covered()) state.SkipWithError("not covered");
}

void verify(benchmark::State& state, const char* name, Index steps) {
  for (auto _ : state)
    expect_covered(state, verify_all(preset_schedule(name, steps), state.range(0)));
}

void verify_failing(benchmark::State& state) {
  Schedule schedule = preset_schedule("paper");
  schedule.levels.front().backward = make_rational(19, 10);
  for (auto _ : state) {
    const CoverageReport report = verify_all(schedule, state.range(0));
    if (report.covered() || report.first_excluded->position != 898) state.SkipWithError("wrong");
  }
}

void sample(benchmark::State& state, const char* name, Index steps) {
  for (auto _ : state) {
    expect_covered(state, verify_sampled(preset_schedule(name, steps), state.range(0), 0, 1000, 1));
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
  const StripePlan plan(preset_schedule("nstep"), length);
  const AttentionArgs<float> args{
      shape, &plan, arrays[0].data(), arrays[1].data(), arrays[2].data(), {arrays[3].data()}};
  AttentionResult result;
  for (auto _ : state) result = attention(args);
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  state.counters["peak_gib"] = static_cast<double>(usage.ru_maxrss) / (1 << 20);  // of KiB

  // The last query decoded alone must have the same bits.
  AttentionArgs<float> last = args;
  last.shape.queries = 1;
  last.shape.query_offset = length - 1;
  last.query += count - 64;
  last.routing_queries.front() += count - 64;
  const AttentionResult decoded = attention(last);
  if (!std::equal(decoded.output.begin(), decoded.output.end(), result.output.end() - 64)) {
    state.SkipWithError("the last query differs from its decoding");
  }
}

constexpr Index kMillion = 1'000'000;
constexpr Index kTrillion = 1'000'000'000'000;

void add_benchmarks() {
  const auto timed = [](benchmark::internal::Benchmark* added) {
    return added->Unit(benchmark::kMillisecond)->UseRealTime();
  };
  struct Case {
    const char* name;
    const char* preset;
    Index steps;
  };
  for (const Case& c :
       {Case{"nstep_2", "nstep", 2}, Case{"nstep_3", "nstep", 3}, Case{"nstep_4", "nstep", 4},
        Case{"even_2", "even", 2}, Case{"even_3", "even", 3}, Case{"paper", "paper", 2},
        Case{"released", "released", 2}}) {
    const std::string name = c.name;
    timed(benchmark::RegisterBenchmark(("verify/" + name).c_str(), verify, c.preset, c.steps))
        ->Arg(kMillion)
        ->Arg(10 * kMillion);
    timed(benchmark::RegisterBenchmark(("sample/" + name).c_str(), sample, c.preset, c.steps))
        ->Arg(kTrillion);
  }
  timed(benchmark::RegisterBenchmark("verify_failing", verify_failing))
      ->Arg(kMillion)
      ->Arg(10 * kMillion);
  timed(benchmark::RegisterBenchmark("attend", attend))->Arg(1 << 14)->Arg(1 << 16)->Arg(1 << 20);
}

}  // namespace
}  // namespace multistep::program

int main(int count, char** arguments) {
  multistep::program::add_benchmarks();
  benchmark::Initialize(&count, arguments);
  if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
