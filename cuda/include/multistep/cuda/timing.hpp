#pragma once

#include <functional>
#include <vector>

#include "multistep/cuda/memory.hpp"

/// Times on the device, by CUDA events. Unlike the stages, these functions allocate and wait.
namespace multistep::cuda {

/// What the L2 cache holds when a run begins: nothing of its arrays, or what the last run left.
enum class Cache { cold, warm };

class Timer {
 public:
  /// Holds three times the L2 cache's size to read it full of something else.
  explicit Timer(const OwnedStream& stream);

  /// Milliseconds of each of `repeats` runs of `work`, which enqueues on the timer's stream, after
  /// `warmup` runs that are not timed.
  std::vector<double> milliseconds(const std::function<void(Stream)>& work, int warmup, int repeats,
                                   Cache cache) const;

 private:
  void flush() const;

  const OwnedStream& stream_;
  DeviceBuffer other_;
};

/// Bytes per second of a large copy from the device to itself, read and written ones counted.
double measure_copy_bandwidth(const OwnedStream& stream);

/// Clock rates in MHz: the highest that the device reports, and the one that the multiprocessors
/// run at when asked, measured over a millisecond of work.
struct Clocks {
  double sm_highest = 0;
  double memory_highest = 0;
  double sm_measured = 0;
};
Clocks measure_clocks(const OwnedStream& stream);

}  // namespace multistep::cuda
