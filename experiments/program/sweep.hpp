#pragma once

#include "bench/sweep_axes.hpp"
#include "program/output.hpp"

/// `multistep bench --sweep`: neighbours of a shape, and every factor between their times.
namespace multistep::program {

struct SweepTask {
  Json provenance;
  GpuShape shape;  // that the sweep is around, but for queries and keys
  Sweep sweep;
  Index repeats = 0;
  Index sample = 0;
  OutputOptions output;
};

/// The exit code: 1 where a call has no time or a step is a cliff, 77 without a GPU.
int run_sweep(const SweepTask& task);

}  // namespace multistep::program
