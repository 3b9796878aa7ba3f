#pragma once

#include <vector>

#include "bench/gpu_problem.hpp"
#include "multistep/judge.hpp"

namespace multistep::program {

/// What the GPU gave for the sampled rows.
struct Submitted : SubmittedArrays {
  Index bad_span_outputs = 0;  // NaN or infinite values in all rows, sampled or not
  Index bad_outputs = 0;
};

/// Every stage on the results of the one before it. `rows` are of [batch, heads, queries].
Submitted run_stages(const GpuProblem& problem, cuda::Rung rung, const std::vector<Index>& rows,
                     const cuda::OwnedStream& stream);

/// attention(), with what it says it found.
Submitted run_composition(const GpuProblem& problem, cuda::Rung rung,
                          const std::vector<Index>& rows, const cuda::OwnedStream& stream);

}  // namespace multistep::program
