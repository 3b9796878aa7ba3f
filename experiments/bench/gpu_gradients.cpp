#include "bench/gpu_gradients.hpp"

#include "multistep/judge_gradients.hpp"

namespace multistep::program {
namespace {

std::size_t size(Index count) { return static_cast<std::size_t>(count); }

/// Rows [begin, end) of all heads: [heads, end - begin, head_dim].
std::vector<float> whole(const InputSource& source, std::uint64_t array, Index heads, Index begin,
                         Index end) {
  const Index of_head = (end - begin) * source.shape().head_dim;
  std::vector<float> values(size(heads * of_head));
  for (Index head = 0; head < heads; ++head) {
    const auto rows = source.rows(array, head, begin, end);
    std::copy_n(rows.get(), of_head, values.begin() + head * of_head);
  }
  return values;
}

/// The problem's arrays as the oracle takes them.
struct HostProblem {
  explicit HostProblem(const GpuProblem& problem)
      : start(size(problem.sizes().batch), problem.sizes().start) {
    const GpuShape& sizes = problem.sizes();
    const auto of_queries = [&](std::uint64_t array) {
      return whole(problem.source(), array, sizes.batch * sizes.heads, sizes.offset(),
                   sizes.length);
    };
    const auto of_keys = [&](std::uint64_t array) {
      return whole(problem.source(), array, sizes.batch * sizes.kv_heads, 0, sizes.length);
    };
    query = of_queries(InputSource::query);
    key = of_keys(InputSource::key);
    value = of_keys(InputSource::value);
    const std::vector<float> derivatives = of_queries(InputSource::output_gradient);
    output_gradient.assign(derivatives.begin(), derivatives.end());
    for (Index m = 0; m < problem.levels(); ++m) {
      routing.push_back(of_queries(InputSource::routing + static_cast<std::uint64_t>(m)));
    }
    args.shape = {sizes.batch,  sizes.heads,    sizes.kv_heads, sizes.queries,
                  sizes.length, sizes.head_dim, sizes.offset(), start.data()};
    args.plan = &problem.plan();
    args.query = query.data();
    args.key = key.data();
    args.value = value.data();
    for (const std::vector<float>& level : routing) args.routing_queries.push_back(level.data());
  }
  HostProblem(const HostProblem&) = delete;
  HostProblem& operator=(const HostProblem&) = delete;

  std::vector<Index> start;
  std::vector<float> query, key, value;
  std::vector<std::vector<float>> routing;
  std::vector<double> output_gradient;
  AttentionArgs<float> args;
};

template <class T>
std::vector<T> download(const cuda::DeviceBuffer& buffer) {
  std::vector<T> host(buffer.size() / sizeof(T));
  buffer.download(host.data(), buffer.size());
  return host;
}

std::vector<double> values(const cuda::DeviceBuffer& buffer, cuda::Dtype dtype) {
  std::vector<double> result;
  result.reserve(buffer.size() / sizeof(std::uint16_t));
  for (const std::uint16_t bits : download<std::uint16_t>(buffer)) {
    result.push_back(static_cast<double>(cuda::from_16_bits(dtype, bits)));
  }
  return result;
}

/// What attention() found, as the oracle has it.
Selection selection_on(const GpuProblem& problem, const GpuResults& results) {
  SubmittedArrays found;
  for (const cuda::DeviceSpan& span : download<cuda::DeviceSpan>(results.spans)) {
    found.spans.push_back({span.begin, span.end});
  }
  for (const float score : download<float>(results.scores)) {
    found.scores.push_back(static_cast<double>(score));
  }
  for (const std::int32_t key : download<std::int32_t>(results.anchors)) {
    found.anchors.push_back(key);
  }
  return selection_of(found.submission(), problem.sizes().rows(), problem.top_k(),
                      problem.levels());
}

}  // namespace

JudgeReport compare_gradients(const GpuProblem& problem, const CompareOptions& options,
                              const Progress& progress) {
  const GpuShape& sizes = problem.sizes();
  const GpuResults results(problem);
  cuda::AttentionArgs forward = attention_into(problem, results);
  if (problem.levels() > 0) forward.anchors = elements<std::int32_t>(results.anchors);
  const cuda::OwnedStream stream;
  run_stage(forward, options.rung, stream,
            [](const auto& args, auto on) { cuda::attention(args, on); });

  const cuda::DeviceBuffer output_gradient = problem.output_gradient();
  const GpuGradients gradients(problem);
  cuda::AttentionBackwardArgs backward =
      backward_into(problem, results, output_gradient, gradients);
  run_stage(backward, options.rung, stream,
            [](const auto& args, auto on) { cuda::attention_backward(args, on); });

  const HostProblem host(problem);
  const Selection selection = selection_on(problem, results);
  const std::vector<double> of_query = values(gradients.query, problem.dtype());
  const std::vector<double> of_key = values(gradients.key, problem.dtype());
  const std::vector<double> of_value = values(gradients.value, problem.dtype());
  std::vector<std::vector<double>> of_routing;
  for (const cuda::DeviceBuffer& level : gradients.routing) {
    of_routing.push_back(values(level, problem.dtype()));
  }
  SubmittedGradients<float> given;
  given.attention = host.args;
  given.selection = &selection;
  given.by_result.output = host.output_gradient.data();
  given.query = of_query.data();
  given.key = of_key.data();
  given.value = of_value.data();
  for (const std::vector<double>& level : of_routing) given.routing_queries.push_back(level.data());
  return judge_gradients(
      given, sizes.half ? Storage::float16 : Storage::bfloat16,
      sample_rows(problem, options.sample),
      sample_keys(host.args.shape, problem.plan(), selection, options.sample, sizes.seed),
      progress);
}

}  // namespace multistep::program
