#include "bench/gpu_compare.hpp"

#include <algorithm>
#include <exception>

#include "bench/gpu_stages.hpp"
#include "multistep/cuda/timing.hpp"

namespace multistep::program {
namespace {

/// One query of one head with its arrays in float; keys and values are the KV head's.
class RowProblem {
 public:
  RowProblem(const GpuProblem& problem, const SampledRow& row, const float* key, const float* value)
      : start_(problem.sizes().start) {
    const GpuShape& sizes = problem.sizes();
    const Index t = row.position;
    const Index head = row.batch * sizes.heads + row.head;
    query_ = problem.source().rows(InputSource::query, head, t, t + 1);
    args_.shape = {1, 1, 1, 1, t + 1, sizes.head_dim, t, &start_};
    args_.plan = &problem.plan();
    args_.query = query_.get();
    args_.key = key;
    args_.value = value;
    for (Index m = 1; m <= problem.levels(); ++m) {
      const auto array = InputSource::routing + static_cast<std::uint64_t>(m - 1);
      routing_.push_back(problem.source().rows(array, head, t, t + 1));
      args_.routing_queries.push_back(routing_.back().get());
    }
  }
  RowProblem(const RowProblem&) = delete;
  RowProblem& operator=(const RowProblem&) = delete;

  const AttentionArgs<float>& args() const { return args_; }

 private:
  Index start_;
  std::unique_ptr<float[]> query_;
  std::vector<std::unique_ptr<float[]>> routing_;
  AttentionArgs<float> args_;
};

std::vector<SampledRow> places(const GpuShape& sizes, const std::vector<Index>& rows) {
  std::vector<SampledRow> result;
  for (const Index row : rows) {
    const Index head = row / sizes.queries;
    result.push_back(
        {head / sizes.heads, head % sizes.heads, sizes.offset() + row % sizes.queries});
  }
  return result;
}

/// Judges both runs of every row; the arrays of a KV head are made once for all its rows.
void judge_rows(const GpuProblem& problem, const std::vector<SampledRow>& rows, Judge& stages,
                Judge& whole, const Progress& progress) {
  const GpuShape& sizes = problem.sizes();
  const auto kv_head_of = [&](const SampledRow& row) {
    return row.batch * sizes.kv_heads + row.head / sizes.group();
  };
  Index longest = 0;
  for (const SampledRow& row : rows) longest = std::max(longest, row.position + 1);
  for (std::size_t first = 0, past = 0; first < rows.size(); first = past) {
    const Index kv_head = kv_head_of(rows[first]);
    while (past < rows.size() && kv_head_of(rows[past]) == kv_head) ++past;
    const auto key = problem.source().rows(InputSource::key, kv_head, 0, longest);
    const auto value = problem.source().rows(InputSource::value, kv_head, 0, longest);
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1)
    for (std::size_t s = first; s < past; ++s) {
      try {
        const RowProblem row(problem, rows[s], key.get(), value.get());
        stages.judge_row(static_cast<Index>(s), row.args());
        whole.judge_row(static_cast<Index>(s), row.args());
      } catch (...) {
#pragma omp critical(multistep_compare_failure)
        failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    if (progress && !progress(static_cast<Index>(past), std::ssize(rows))) throw Cancelled();
  }
}

/// The stages, each on its own input, then the composition. The output of the one run is that of
/// its combination.
JudgeReport joined(const JudgeReport& stages, JudgeReport whole, bool dense) {
  const std::vector<StageReport> of_whole = std::move(whole.stages);
  whole.stages.clear();
  whole.not_supplied.clear();
  for (StageReport stage : stages.stages) {
    if (stage.name == "output") {
      if (!dense) continue;
      stage.name = "combination";
    }
    whole.stages.push_back(std::move(stage));
  }
  for (StageReport stage : of_whole) {
    stage.name = "attention: " + stage.name;
    whole.stages.push_back(std::move(stage));
  }
  return whole;
}

}  // namespace

Json device_json() {
  const cuda::DeviceInfo info = cuda::device_info();
  const cuda::OwnedStream stream;
  const cuda::Clocks clocks = cuda::measure_clocks(stream);
  return {{"name", info.name},
          {"memory_gib", static_cast<double>(info.memory_bytes) * 0x1p-30},
          {"l2_mib", static_cast<double>(info.l2_bytes) * 0x1p-20},
          {"multiprocessors", info.multiprocessors},
          {"compute_capability", info.compute_capability},
          {"driver_cuda", info.driver},
          {"cuda", info.runtime},
          {"sm_mhz_highest", clocks.sm_highest},
          {"sm_mhz_measured", clocks.sm_measured},
          {"memory_mhz_highest", clocks.memory_highest}};
}

JudgeReport compare_stages(const GpuProblem& problem, const CompareOptions& options,
                           const Progress& progress) {
  const GpuShape& sizes = problem.sizes();
  const std::vector<Index> rows = sample_rows(problem, options.sample);
  const std::vector<SampledRow> of_rows = places(sizes, rows);
  const cuda::OwnedStream stream;
  const Submitted of_stages = run_stages(problem, options.rung, rows, stream);
  const Submitted of_whole = run_composition(problem, options.rung, rows, stream);
  const auto judge_of = [&](const Submitted& submitted) {
    Judge judge(problem.plan(), sizes.head_dim, sizes.half ? Storage::float16 : Storage::bfloat16,
                of_rows, sizes.rows(), submitted.submission());
    judge.found("span attention", {submitted.bad_span_outputs, 0});
    for (const char* stage : {"combination", "output"}) {
      judge.found(stage, {submitted.bad_outputs, 0});
    }
    return judge;
  };
  Judge stages = judge_of(of_stages);
  Judge whole = judge_of(of_whole);
  judge_rows(problem, of_rows, stages, whole, progress);
  return joined(stages.report(), whole.report(), problem.levels() == 0);
}

}  // namespace multistep::program
