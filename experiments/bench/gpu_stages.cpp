#include "bench/gpu_stages.hpp"

#include <algorithm>

namespace multistep::program {
namespace {

std::size_t size(Index count) { return static_cast<std::size_t>(count); }

/// Downloads the sampled rows of arrays [rows, width].
class Gather {
 public:
  Gather(const GpuProblem& problem, const std::vector<Index>& rows)
      : problem_(problem), rows_(rows) {}

  template <class T>
  std::vector<T> rows(const cuda::DeviceBuffer& array, Index width) const {
    std::vector<T> host(rows_.size() * size(width));
    const std::size_t bytes = size(width) * sizeof(T);
    for (std::size_t s = 0; s < rows_.size() && width > 0; ++s) {
      array.download(host.data() + s * size(width), bytes, size(rows_[s]) * bytes);
    }
    return host;
  }
  std::vector<double> floats(const cuda::DeviceBuffer& array, Index width) const {
    const std::vector<float> host = rows<float>(array, width);
    return {host.begin(), host.end()};
  }
  std::vector<double> values(const cuda::DeviceBuffer& array, Index width) const {
    std::vector<double> result;
    for (const std::uint16_t bits : rows<std::uint16_t>(array, width)) {
      result.push_back(static_cast<double>(cuda::from_16_bits(problem_.dtype(), bits)));
    }
    return result;
  }

 private:
  const GpuProblem& problem_;
  const std::vector<Index>& rows_;
};

/// NaN and infinite values in the whole of an array of 16-bit values.
Index bad_values(const cuda::DeviceBuffer& array, cuda::Dtype dtype) {
  const std::size_t piece = std::size_t{1} << 28;  // bytes
  const unsigned exponent = dtype == cuda::Dtype::fp16 ? 0x7c00 : 0x7f80;
  Index bad = 0;
  std::vector<std::uint16_t> host;
  for (std::size_t at = 0; at < array.size(); at += piece) {
    const std::size_t bytes = std::min(piece, array.size() - at);
    host.resize(bytes / sizeof(std::uint16_t));
    array.download(host.data(), bytes, at);
#pragma omp parallel for reduction(+ : bad)
    for (std::size_t i = 0; i < host.size(); ++i) bad += (host[i] & exponent) == exponent;
  }
  return bad;
}

/// What every run gives.
Submitted found(const GpuProblem& problem, const Gather& gather, const GpuResults& results) {
  const Index top_k = problem.levels() == 0 ? 0 : problem.top_k();
  Submitted part;
  for (const cuda::DeviceSpan& span : gather.rows<cuda::DeviceSpan>(results.spans, top_k)) {
    part.spans.push_back({span.begin, span.end});
  }
  part.scores = gather.floats(results.scores, top_k);
  for (const std::int32_t key :
       gather.rows<std::int32_t>(results.anchors, top_k * problem.levels())) {
    part.anchors.push_back(key);
  }
  part.span_lses = gather.floats(results.span_lses, top_k);
  part.window_lse = gather.floats(results.window_lse, 1);
  part.output = gather.values(results.output, problem.sizes().head_dim);
  part.bad_outputs = bad_values(results.output, problem.dtype());
  return part;
}

}  // namespace

Submitted run_stages(const GpuProblem& problem, cuda::Rung rung, const std::vector<Index>& rows,
                     const cuda::OwnedStream& stream) {
  const GpuResults results(problem);
  const Gather gather(problem, rows);
  const bool search = problem.levels() > 0;
  if (search) {
    run_stage(search_into(problem, results), rung, stream,
              [](const auto& args, auto on) { cuda::span_search(args, on); });
    run_stage(span_attention_into(problem, results), rung, stream,
              [](const auto& args, auto on) { cuda::span_attention(args, on); });
  }
  cuda::CombineArgs combining = combine_into(problem, results);
  combining.window_lse_out = elements<float>(results.window_lse);
  run_stage(combining, rung, stream, [](const auto& args, auto on) { cuda::combine(args, on); });
  Submitted part = found(problem, gather, results);
  part.span_outputs =
      gather.values(results.span_outputs, search ? problem.top_k() * problem.sizes().head_dim : 0);
  part.bad_span_outputs = bad_values(results.span_outputs, problem.dtype());
  return part;
}

Submitted run_composition(const GpuProblem& problem, cuda::Rung rung,
                          const std::vector<Index>& rows, const cuda::OwnedStream& stream) {
  const GpuResults results(problem);
  cuda::AttentionArgs args = attention_into(problem, results);
  args.window_lse = elements<float>(results.window_lse);
  if (problem.levels() > 0) {
    args.anchors = elements<std::int32_t>(results.anchors);
    args.span_lses = elements<float>(results.span_lses);
  }
  run_stage(args, rung, stream, [](const auto& with, auto on) { cuda::attention(with, on); });
  return found(problem, Gather(problem, rows), results);
}

}  // namespace multistep::program
