#pragma once

#include <atomic>
#include <chrono>
#include <mutex>

#include "multistep/types.hpp"

namespace multistep {

/// Stands between the threads of a long computation and its caller's Progress, which is asked at
/// once and then about twenty times a second, by whichever thread comes by.
class Watch {
 public:
  Watch(const Progress& progress, Index total) : progress_(progress), total_(total) {}

  /// `count` more of the total are done. Throws Cancelled once the caller does not want to go on.
  void add(Index count) {
    done_ += count;
    look();
  }

  /// The same in the midst of one.
  void look() {
    if (!progress_) return;
    if (Clock::now().time_since_epoch().count() >= next_ && asking_.try_lock()) {
      const std::lock_guard lock(asking_, std::adopt_lock);
      if (!stopped_) stopped_ = !progress_(done_, total_);
      next_ = (Clock::now() + std::chrono::milliseconds(50)).time_since_epoch().count();
    }
    if (stopped_) throw Cancelled();
  }

  /// For a function within this one, whose own counts do not show.
  Progress within() const {
    if (!progress_) return {};
    return [this](Index, Index) { return progress_(done_, total_); };
  }

  /// All is done: asks once more.
  void finish() {
    next_ = 0;
    look();
  }

 private:
  using Clock = std::chrono::steady_clock;

  const Progress& progress_;
  const Index total_;
  std::atomic<Index> done_ = 0;
  std::atomic<Clock::rep> next_ = 0;
  std::atomic<bool> stopped_ = false;
  std::mutex asking_;
};

/// One thread's eye on a watch: it looks up after so much work that looking takes no time beside
/// it. A unit of work takes a microsecond at most.
class Pulse {
 public:
  explicit Pulse(Watch* watch = nullptr) : watch_(watch) {}

  void work(Index units) {
    if (!watch_ || (spent_ += units) < kUnits) return;
    spent_ = 0;
    watch_->look();
  }

 private:
  static constexpr Index kUnits = 4096;
  Watch* watch_;
  Index spent_ = 0;
};

}  // namespace multistep
