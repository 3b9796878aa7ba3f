#pragma once

#include <nanobind/nanobind.h>
#include <omp.h>

#include <atomic>
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include "multistep/types.hpp"
#include "workers.hpp"

/// Long work runs without the interpreter's lock on a worker, while the caller's thread looks out
/// for Ctrl-C and shows progress.
namespace multistep::python {

/// Between the two threads: how far the work is, and whether it is still wanted.
class Errand {
 public:
  /// For the work, which ends with Cancelled where it is not wanted.
  Progress progress() {
    return [this](Index done, Index total) {
      done_ = done;
      total_ = total;
      return wanted();
    };
  }

  void cancel() { cancelled_ = true; }
  std::pair<Index, Index> state() const { return {done_, total_}; }

 private:
  bool wanted() const { return !cancelled_ && !in_vain(caller_); }

  const std::thread::id caller_ = std::this_thread::get_id();
  std::atomic<bool> cancelled_ = false;
  std::atomic<Index> done_ = 0;
  std::atomic<Index> total_ = 0;
};

/// Waits for a worker, with a look for signals now and then and a call of `progress`, if any, with
/// done and total. Where one of the two raises, the work is cancelled, and nb::python_error thrown
/// when it has ended.
inline void wait_for(Worker& worker, Errand& errand, nb::handle progress) {
  const auto ended = [&] {
    const Unlocked unlocked;
    bool done = worker.wait(std::chrono::milliseconds(50));
    while (!done && in_vain(std::this_thread::get_id())) {
      done = worker.wait(std::chrono::milliseconds(50));
    }
    return done;
  };
  try {
    while (!ended()) {
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      const auto [done, total] = errand.state();
      if (progress.is_valid() && !progress.is_none()) progress(done, total);
    }
  } catch (...) {
    errand.cancel();
    while (!ended()) {
    }
    throw;
  }
}

/// While it lives, parallel regions of this thread have one thread: what is short ends before the
/// others have woken up.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

/// Runs work(errand), which checks its errand several times a second; an interrupt waits for that.
/// Work that is known to be short stays on the caller's thread.
template <class Work>
auto interruptible(bool is_short, nb::handle progress, Work&& work) {
  Errand errand;
  if (is_short) {
    const Unlocked unlocked;
    const OneThread alone;
    return work(errand);
  }
  std::optional<decltype(work(errand))> result;
  std::exception_ptr failure;
  const Hired worker;
  (*worker).start(threads_of_call(), [&] {
    try {
      result.emplace(work(errand));
    } catch (...) {
      failure = std::current_exception();
    }
  });
  wait_for(*worker, errand, progress);
  if (failure) std::rethrow_exception(failure);
  return std::move(*result);
}

}  // namespace multistep::python
