#pragma once

#include <memory>
#include <string>

#include "bench/gpu_problem.hpp"
#include "program/output.hpp"

/// Times of the stages on the GPU, each behind a passed comparison with the oracle.
namespace multistep::program {

struct BenchCase {
  std::string config;
  Schedule schedule;
  std::string phase;  // decode, prefill, whole or train
  GpuShape shape;
};

struct BenchSettings {
  Index repeats = 50;          // runs timed, fewer of long ones
  Index sample = 16;           // rows compared
  double copy_bandwidth = 0;   // bytes per second, measured
  double longest_seconds = 5;  // a dense run beyond is not made
};

/// What became of a case: times, or why there are none.
struct BenchOutcome {
  Json records = Json::array();  // one for each stage and state of the cache
  std::string failed;            // the comparison's table, where it failed
  std::string skipped;           // why nothing ran
};
BenchOutcome bench_case(const BenchCase& one, const std::shared_ptr<const DeviceKeys>& keys,
                        const BenchSettings& settings);

}  // namespace multistep::program
