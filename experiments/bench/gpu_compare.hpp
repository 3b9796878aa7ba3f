#pragma once

#include "bench/gpu_problem.hpp"
#include "multistep/judge.hpp"
#include "program/output.hpp"

/// The stages on the GPU against the oracle (SPEC 8), on sampled rows.
namespace multistep::program {

struct CompareOptions {
  cuda::Rung rung = cuda::Rung::fast;
  Index sample = 64;  // rows: pairs of a query and a head
};

/// Every stage given its own input, the composition given its own selection (its stages' names
/// begin with "attention: "), and the whole.
JudgeReport compare_stages(const GpuProblem& problem, const CompareOptions& options,
                           const Progress& progress = {});

/// {name, memory_gib, driver, cuda, ...}.
Json device_json();

}  // namespace multistep::program
