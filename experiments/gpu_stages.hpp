#pragma once

#include <vector>

#include "gpu_problem.hpp"
#include "multistep/judge.hpp"

namespace multistep {

/// What the GPU gave for the sampled rows, as the judge takes it.
struct Submitted {
  std::vector<Span> spans;           // [sample, top_k]
  std::vector<double> scores;        // [sample, top_k]
  std::vector<Index> anchors;        // [sample, top_k, levels]
  std::vector<double> span_outputs;  // [sample, top_k, head_dim]; empty: not told
  std::vector<double> span_lses;     // [sample, top_k]
  std::vector<double> window_lse;    // [sample]
  std::vector<double> output;        // [sample, head_dim]
  Index bad_span_outputs = 0;        // NaN or infinite values in all rows, sampled or not
  Index bad_outputs = 0;

  Submission submission() const;
};

/// Every stage on the results of the one before it. `rows` are of [batch, heads, queries].
Submitted run_stages(const GpuProblem& problem, cuda::Rung rung, const std::vector<Index>& rows,
                     const cuda::OwnedStream& stream);

/// attention(), with what it says it found.
Submitted run_composition(const GpuProblem& problem, cuda::Rung rung,
                          const std::vector<Index>& rows, const cuda::OwnedStream& stream);

}  // namespace multistep
