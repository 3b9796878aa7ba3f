#include "bench/gpu_sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>

#include "bench/gpu_compare.hpp"
#include "bench/gpu_work.hpp"
#include "multistep/cuda/plan.hpp"

namespace multistep::program {
namespace {

constexpr double kBudget = 500;  // milliseconds of a measurement: there are hundreds

/// What the keys depend on of shapes that have start, storage and seed in common.
auto keys_of(const SweepPoint& point) {
  const GpuShape& shape = point.shape;
  return std::tuple(shape.length, shape.batch, shape.kv_heads, shape.head_dim, shape.inputs);
}

/// What a call has to read, write and compute, from the spans that it kept.
void count(const GpuProblem& problem, const std::vector<cuda::DeviceSpan>& spans, bool lse,
           SweepCall& call) {
  const GpuWork work = count_work(problem, spans);
  const auto d = static_cast<double>(problem.sizes().head_dim);
  const auto rows = static_cast<double>(problem.sizes().rows());
  const auto levels = static_cast<double>(problem.levels());
  // Queries of each level, queries and outputs; a log-sum-exp of every item.
  call.bytes = 2 * d * (key_rows(problem, spans) + rows * (levels + 2));
  if (lse) call.bytes += 4 * (rows + static_cast<double>(spans.size()));
  call.products = d * (work.anchors + 2 * (work.span_pairs + work.window_pairs));
}

/// Keys and values of a call as [B, L, H, D].
class InterleavedKeys {
 public:
  explicit InterleavedKeys(cuda::AttentionArgs& args) : shape_(args.shape) {
    lay_out(args.key, args.key_strides);
    lay_out(args.value, args.value_strides);
    if (args.search_keys) lay_out(args.search_keys, args.search_key_strides);
  }

 private:
  void lay_out(const void*& array, cuda::Strides& strides) {
    const Index d = shape_.head_dim;
    strides = {shape_.keys * shape_.num_kv_heads * d, d, shape_.num_kv_heads * d};
    const auto bytes = [](Index values) { return static_cast<std::size_t>(values) * 2; };
    arrays_.emplace_back(bytes(shape_.batch * strides.batch));
    for (Index head = 0; head < shape_.batch * shape_.num_kv_heads; ++head) {
      const Index to =
          head / shape_.num_kv_heads * strides.batch + head % shape_.num_kv_heads * strides.head;
      cuda::copy_rows(static_cast<char*>(arrays_.back().data()) + bytes(to), bytes(strides.row),
                      static_cast<const char*>(array) + bytes(head * shape_.keys * d), bytes(d),
                      bytes(d), static_cast<std::size_t>(shape_.keys));
    }
    array = arrays_.back().data();
  }

  cuda::Shape shape_;
  std::vector<cuda::DeviceBuffer> arrays_;
};

/// Runs a call once with its spans, whose work it has, then in a graph as it is wanted.
void time_call(const GpuProblem& problem, const SweepPoint& point, const SweepSettings& settings,
               TimedCall& timed) {
  const bool lse = point.lse;
  GpuResults results(problem);
  const cuda::OwnedStream stream;
  cuda::AttentionArgs args = attention_into(problem, results);
  if (lse) {
    args.window_lse = elements<float>(results.window_lse);
    if (problem.levels() > 0) args.span_lses = elements<float>(results.span_lses);
  }
  const cuda::DeviceBuffer memory = with_workspace(args);
  cuda::attention(args, stream.get());
  stream.synchronize();
  count(problem, kept_spans(results), lse, timed.call);
  const std::vector<char> right = bytes_of(results.output);
  results.output.fill(0xff);

  args.spans = nullptr;
  args.scores = nullptr;
  std::optional<InterleavedKeys> interleaved;
  if (point.interleaved) interleaved.emplace(args);
  const cuda::Graph graph(stream, [&](cuda::Stream on) { cuda::attention(args, on); });
  timed.times = measure(
      cuda::Timer(stream), [&](cuda::Stream) { graph.launch(stream); }, cuda::Cache::cold,
      settings.repeats, kBudget);
  if (bytes_of(results.output) != right) {
    throw std::runtime_error("the timed runs gave another output");
  }
}

/// The kernels that run, and why a plain one does.
void plan(const GpuProblem& problem, TimedCall& timed) {
  const cuda::AttentionPlan found =
      cuda::plan_attention(problem.shape(), problem.plan(), cuda::current_chip());
  for (const cuda::StagePlan& stage : found.stages) {
    timed.kernels += timed.kernels.empty() ? "" : "; ";
    timed.kernels += stage.stage + ":";
    for (const std::string& kernel : stage.kernels) timed.kernels += " " + kernel;
  }
  timed.call.plain = found.why();
}

TimedCall timed_call(const SweepPoint& point, const std::shared_ptr<const DeviceKeys>& keys,
                     const SweepSettings& settings) {
  TimedCall timed;
  const GpuProblem problem(point.shape, StripePlan(point.schedule, point.shape.length), keys);
  plan(problem, timed);
  const JudgeReport comparison = compare_stages(problem, {cuda::Rung::fast, settings.sample});
  timed.compared = comparison.rows;
  if (!comparison.pass()) {
    timed.failed = "the comparison with the oracle\n" + comparison.table();
    return timed;
  }
  time_call(problem, point, settings, timed);
  timed.call.milliseconds = timed.times.median;
  return timed;
}

}  // namespace

std::vector<TimedCall> time_sweep(const Sweep& sweep, const SweepSettings& settings,
                                  const Progress& progress) {
  // Calls with the same keys follow one another.
  std::vector<std::size_t> order(sweep.points.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return keys_of(sweep.points[a]) < keys_of(sweep.points[b]);
  });
  std::vector<TimedCall> calls(sweep.points.size());
  std::shared_ptr<const DeviceKeys> keys;
  const SweepPoint* last = nullptr;
  for (std::size_t at = 0; at < order.size(); ++at) {
    progress(static_cast<Index>(at), std::ssize(order));
    const SweepPoint& point = sweep.points[order[at]];
    try {  // the other calls' times are worth keeping
      if (!keys || keys_of(*last) != keys_of(point)) {
        keys.reset();  // not two at a time
        const StripePlan plan(point.schedule, point.shape.length);
        keys = std::make_shared<const DeviceKeys>(
            InputSource(point.shape, needle_of(plan, point.shape)));
        last = &point;
      }
      calls[order[at]] = timed_call(point, keys, settings);
    } catch (const std::exception& error) {
      calls[order[at]].failed = error.what();
    }
  }
  return calls;
}

}  // namespace multistep::program
