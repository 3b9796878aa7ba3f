#pragma once

#include "bench/gpu_compare.hpp"

/// Gradients on the GPU against the oracle, at the selection that attention() found there.
namespace multistep::program {

/// attention() and its derivatives by seeded ones of its output: all arrays come to this machine,
/// CompareOptions::sample rows of queries and as many of keys are judged.
JudgeReport compare_gradients(const GpuProblem& problem, const CompareOptions& options,
                              const Progress& progress = {});

}  // namespace multistep::program
