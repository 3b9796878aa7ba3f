#pragma once

#include "bench/gpu_problem.hpp"

namespace multistep::program {

/// What a run has to do, over all rows; exact but for inner levels' anchors.
struct GpuWork {
  double anchors = 0;       // scored; below level 1 the mean of seeded random routing
  double span_pairs = 0;    // pairs of a query row and a key in a kept span, outside the window
  double window_pairs = 0;  // pairs of a query row and a key in its window
  double dense_pairs = 0;   // pairs of a query row and an eligible key
};

/// Counts from the spans that the GPU kept: [rows, top_k], or none where N = 1.
GpuWork count_work(const GpuProblem& problem, const std::vector<cuda::DeviceSpan>& spans);

/// Rows of keys that some query of a group of heads searches, and of keys and values that one
/// attends to: each once for the group, whatever number of its queries want it.
double key_rows(const GpuProblem& problem, const std::vector<cuda::DeviceSpan>& spans);

}  // namespace multistep::program
