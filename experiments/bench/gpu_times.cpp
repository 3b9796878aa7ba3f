#include "bench/gpu_times.hpp"

#include <algorithm>

#include "multistep/power.hpp"

namespace multistep::program {
namespace {

/// The q-quantile of sorted times, between neighbours.
double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(truncated(at));
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

Times measure(const cuda::Timer& timer, const std::function<void(cuda::Stream)>& work,
              cuda::Cache cache, Index repeats, double budget) {
  const double once = timer.milliseconds(work, 1, 1, cache).front();
  const auto affordable = truncated(budget / std::max(once, 1e-3));
  const auto count = static_cast<int>(std::clamp<Index>(affordable, 5, repeats));
  std::vector<double> times = timer.milliseconds(work, std::min(count, 10), count, cache);
  std::sort(times.begin(), times.end());
  return {quantile(times, 0.5), quantile(times, 0.2), quantile(times, 0.8), count};
}

}  // namespace multistep::program
