#include "bench/gpu_bench.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "bench/gpu_compare.hpp"
#include "bench/gpu_times.hpp"
#include "bench/gpu_work.hpp"
#include "program/options.hpp"

namespace multistep::program {
namespace {

constexpr double kBudget = 2000;  // milliseconds of a measurement

class CaseTimer {
 public:
  CaseTimer(const BenchCase& one, const GpuProblem& problem, const BenchSettings& settings)
      : one_(one), problem_(problem), settings_(settings), results_(problem), timer_(stream_) {}

  Json run(const JudgeReport& comparison) {
    cuda::AttentionArgs whole = attention_into(problem_, results_);
    if (one_.phase == "train") {
      if (problem_.levels() > 0) whole.anchors = elements<std::int32_t>(results_.anchors);
      whole.window_lse = elements<float>(results_.window_lse);
    }
    const cuda::DeviceBuffer memory = with_workspace(whole);
    cuda::attention(whole, stream_.get());
    stream_.synchronize();
    const std::vector<cuda::DeviceSpan> spans = kept_spans(results_);
    work_ = count_work(problem_, spans);
    if (one_.phase == "decode") key_rows_ = key_rows(problem_, spans);
    compared_ = {{"pass", comparison.pass()}, {"rows", comparison.rows}};
    workspace_ = memory.size();
    const std::vector<char> right = bytes_of(results_.output);
    results_.output.fill(0xff);

    if (one_.phase == "decode") {
      // What decoding gives is the output alone.
      whole.spans = nullptr;
      whole.scores = nullptr;
      const cuda::Graph graph(stream_, [&](cuda::Stream on) { cuda::attention(whole, on); });
      const auto replay = [&](cuda::Stream) { graph.launch(stream_); };
      measure("attention", replay, cuda::Cache::cold, work_.span_pairs + work_.window_pairs);
      measure("attention", replay, cuda::Cache::warm, work_.span_pairs + work_.window_pairs);
      require_same(right);
      return records_;
    }
    if (one_.phase == "train") {
      measure_training(whole);
      require_same(right);
      return records_;
    }
    if (one_.phase == "prefill" && problem_.levels() > 0) measure_stages();
    whole.spans = nullptr;
    whole.scores = nullptr;
    measure(
        "attention", [&](cuda::Stream on) { cuda::attention(whole, on); }, cuda::Cache::cold,
        work_.span_pairs + work_.window_pairs);
    require_same(right);
    return records_;
  }

 private:
  /// What was timed has to have given the bits of the run before.
  void require_same(const std::vector<char>& right) const {
    if (bytes_of(results_.output) != right) {
      throw std::runtime_error(fmt::format("{} {} at {}: the timed runs gave another output",
                                           one_.config, one_.phase, one_.shape.length));
    }
  }

  /// Forward with what the backward pass keeps of it, backward, and both.
  void measure_training(const cuda::AttentionArgs& whole) {
    const cuda::DeviceBuffer by_output = problem_.output_gradient();
    const GpuGradients gradients(problem_);
    cuda::AttentionBackwardArgs back = backward_into(problem_, results_, by_output, gradients);
    back.output = results_.output.data();
    back.window_lse = elements<float>(results_.window_lse);
    const cuda::DeviceBuffer memory = with_workspace(back);
    const double pairs = work_.span_pairs + work_.window_pairs;
    const auto forward = [&](cuda::Stream on) { cuda::attention(whole, on); };
    const auto backward = [&](cuda::Stream on) { cuda::attention_backward(back, on); };
    measure("forward", forward, cuda::Cache::cold, pairs);
    workspace_ = memory.size();
    backward(stream_.get());
    stream_.synchronize();
    const std::vector<char> first = bytes_of(gradients.key);
    measure("backward", backward, cuda::Cache::cold, 2.5 * pairs);
    if (bytes_of(gradients.key) != first) {
      throw std::runtime_error(fmt::format("{} train at {}: two backward passes differ",
                                           one_.config, one_.shape.length));
    }
    measure(
        "forward, backward",
        [&](cuda::Stream on) {
          forward(on);
          backward(on);
        },
        cuda::Cache::cold, 3.5 * pairs);
  }

  void measure_stages() {
    cuda::SpanSearchArgs search = search_into(problem_, results_);
    search.anchors = nullptr;
    const cuda::DeviceBuffer search_memory = with_workspace(search);
    measure(
        "search", [&](cuda::Stream on) { cuda::span_search(search, on); }, cuda::Cache::cold,
        work_.anchors / 2);  // an anchor takes half the products of a key that is attended
    cuda::SpanAttentionArgs attend = span_attention_into(problem_, results_);
    const cuda::DeviceBuffer attend_memory = with_workspace(attend);
    measure(
        "span attention", [&](cuda::Stream on) { cuda::span_attention(attend, on); },
        cuda::Cache::cold, work_.span_pairs);
    cuda::CombineArgs combine = combine_into(problem_, results_);
    const cuda::DeviceBuffer combine_memory = with_workspace(combine);
    measure(
        "window, combine", [&](cuda::Stream on) { cuda::combine(combine, on); }, cuda::Cache::cold,
        work_.window_pairs);
  }

  void measure(const char* stage, const std::function<void(cuda::Stream)>& work, cuda::Cache cache,
               double pairs) {
    const Times times = program::measure(timer_, work, cache, settings_.repeats, kBudget);
    const double flops = 4 * static_cast<double>(problem_.sizes().head_dim);
    const auto tera = [&](double of) { return flops * of / (times.median * 1e-3) * 1e-12; };
    const bool whole = std::string(stage) == "attention";
    const bool has_workspace = whole || one_.phase == "train";
    Json record = {{"config", one_.config},
                   {"schedule", describe(one_.schedule)},
                   {"steps", one_.schedule.steps},
                   {"top_k", one_.schedule.top_k},
                   {"phase", one_.phase},
                   {"length", one_.shape.length},
                   {"queries", one_.shape.queries},
                   {"stage", stage},
                   {"graph", one_.phase == "decode"},
                   {"l2", cache == cuda::Cache::cold ? "cold" : "warm"},
                   {"median_ms", times.median},
                   {"low_ms", times.low},
                   {"high_ms", times.high},
                   {"repeats", times.repeats},
                   {"useful_tflops", tera(pairs)},
                   {"dense_equivalent_tflops", whole ? Json(tera(work_.dense_pairs)) : Json()},
                   {"bytes", nullptr},
                   {"share_of_copy_bandwidth", nullptr},
                   {"workspace_bytes", has_workspace ? Json(workspace_) : Json()},
                   {"compared", compared_}};
    if (one_.phase == "decode") {
      const double bytes = key_rows_ * 2 * static_cast<double>(problem_.sizes().head_dim);
      record["bytes"] = bytes;
      record["share_of_copy_bandwidth"] = bytes / (times.median * 1e-3) / settings_.copy_bandwidth;
    }
    records_.push_back(record);
  }

  const BenchCase& one_;
  const GpuProblem& problem_;
  BenchSettings settings_;
  GpuResults results_;
  cuda::OwnedStream stream_;
  cuda::Timer timer_;
  GpuWork work_;
  double key_rows_ = 0;
  Json compared_;
  std::size_t workspace_ = 0;
  Json records_ = Json::array();
};

/// Seconds that a dense run of the case would take, from one with few queries.
double dense_seconds(const BenchCase& one, const StripePlan& plan,
                     const std::shared_ptr<const DeviceKeys>& keys) {
  GpuShape few = one.shape;
  few.queries = std::min<Index>(few.queries, 256);
  const GpuProblem problem(few, plan, keys);
  const GpuResults results(problem);
  cuda::AttentionArgs args = attention_into(problem, results);
  const cuda::DeviceBuffer memory = with_workspace(args);
  const cuda::OwnedStream stream;
  const auto work = [&](cuda::Stream on) { cuda::attention(args, on); };
  const double once =
      cuda::Timer(stream).milliseconds(work, 1, 1, cuda::Cache::warm).front() * 1e-3;
  return once * static_cast<double>(one.shape.queries) / static_cast<double>(few.queries);
}

}  // namespace

BenchOutcome bench_case(const BenchCase& one, const std::shared_ptr<const DeviceKeys>& keys,
                        const BenchSettings& settings) {
  BenchOutcome outcome;
  const StripePlan plan(one.schedule, one.shape.length);
  if (one.schedule.steps == 1) {
    const double seconds = dense_seconds(one, plan, keys);
    if (seconds > settings.longest_seconds) {
      outcome.skipped =
          fmt::format("about {:.0f} s, more than {:.0f} s", seconds, settings.longest_seconds);
      return outcome;
    }
  }
  const GpuProblem problem(one.shape, plan, keys);
  const JudgeReport comparison = compare_stages(problem, {cuda::Rung::fast, settings.sample});
  if (!comparison.pass()) {
    outcome.failed = comparison.table();
    return outcome;
  }
  outcome.records = CaseTimer(one, problem, settings).run(comparison);
  return outcome;
}

}  // namespace multistep::program
