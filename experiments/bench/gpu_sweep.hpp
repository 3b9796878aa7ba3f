#pragma once

#include <vector>

#include "bench/gpu_times.hpp"
#include "bench/sweep_axes.hpp"
#include "bench/sweep_judge.hpp"

/// The calls of a sweep on the GPU.
namespace multistep::program {

struct SweepSettings {
  Index repeats = 0;  // runs timed, fewer of long ones
  Index sample = 0;   // rows compared
};

/// A point of a sweep.
struct TimedCall {
  SweepCall call;       // without its value, which is the axis's
  Times times;          // of one call in a graph, with a cold L2 cache
  std::string kernels;  // stage by stage
  Index compared = 0;   // rows, with the oracle
  std::string failed;   // why it has no time; empty: it has one
};

/// All points, each timed once its comparison with the oracle has passed.
std::vector<TimedCall> time_sweep(const Sweep& sweep, const SweepSettings& settings,
                                  const Progress& progress);

}  // namespace multistep::program
