#pragma once

#include <functional>

#include "multistep/cuda/timing.hpp"
#include "multistep/schedule.hpp"

/// Times of work on the GPU, as every result tells them.
namespace multistep::program {

struct Times {
  double median = 0;  // milliseconds
  double low = 0;     // 20 %
  double high = 0;    // 80 %
  int repeats = 0;
};

/// Of so many runs of `work`, or of as many as take `budget` milliseconds, at least 5.
Times measure(const cuda::Timer& timer, const std::function<void(cuda::Stream)>& work,
              cuda::Cache cache, Index repeats, double budget);

}  // namespace multistep::program
