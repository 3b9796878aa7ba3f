#pragma once

#include <nanobind/nanobind.h>
#include <omp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "multistep/types.hpp"

/// Long work runs without the interpreter's lock on a thread of its own, while the caller's thread
/// looks out for Ctrl-C and shows progress.
namespace multistep::python {

namespace nb = nanobind;

/// Between the two threads: how far the work is, and whether it is still wanted.
class Errand {
 public:
  struct Cancelled : std::exception {};

  /// Called by the work now and then, from any of its threads. Throws where it is not wanted.
  void report(Index done, Index total) {
    done_ = done;
    total_ = total;
    if (cancelled_) throw Cancelled();
  }
  void check() const {
    if (cancelled_) throw Cancelled();
  }
  /// The same for a library that takes no exception from its callback.
  Progress progress() {
    return [this](Index done, Index total) {
      done_ = done;
      total_ = total;
      return !cancelled_;
    };
  }

  void cancel() { cancelled_ = true; }
  std::pair<Index, Index> state() const { return {done_, total_}; }

  void finish() {
    const std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }
  bool wait(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [this] { return finished_; });
  }

 private:
  std::atomic<bool> cancelled_ = false;
  std::atomic<Index> done_ = 0;
  std::atomic<Index> total_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool finished_ = false;
};

/// Waits for an errand without the lock; takes it to look for signals and to call `progress`, if
/// any, with done and total. Throws nb::python_error where one of the two raised.
inline void wait_for(Errand& errand, nb::handle progress) {
  while (!errand.wait(std::chrono::milliseconds(50))) {
    const nb::gil_scoped_acquire lock;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    const auto [done, total] = errand.state();
    if (progress.is_valid() && !progress.is_none()) progress(done, total);
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
  using Result = decltype(work(std::declval<Errand&>()));
  const nb::gil_scoped_release unlocked;
  Errand errand;
  if (is_short) {
    const OneThread alone;
    return work(errand);
  }

  std::optional<Result> result;
  std::exception_ptr failure;
  std::thread worker([&] {
    try {
      result.emplace(work(errand));
    } catch (...) {
      failure = std::current_exception();
    }
    errand.finish();
  });
  try {
    wait_for(errand, progress);
  } catch (...) {
    errand.cancel();
    worker.join();
    throw;
  }
  worker.join();
  if (failure) std::rethrow_exception(failure);
  return std::move(*result);
}

/// Runs work(progress) that cannot be stopped. After an interrupt it ends by itself, unheard: it
/// must own whatever it reads.
template <class Work>
auto abandonable(nb::handle progress, Work work) {
  using Result = decltype(work(std::declval<const Progress&>()));
  struct State {
    explicit State(Work given) : work(std::move(given)) {}
    Work work;
    Errand errand;
    std::optional<Result> result;
    std::exception_ptr failure;
  };
  const nb::gil_scoped_release unlocked;
  const auto state = std::make_shared<State>(std::move(work));
  std::thread worker([state] {
    try {
      state->result.emplace(state->work(state->errand.progress()));
    } catch (...) {
      state->failure = std::current_exception();
    }
    state->errand.finish();
  });
  try {
    wait_for(state->errand, progress);
  } catch (...) {
    worker.detach();
    throw;
  }
  worker.join();
  if (state->failure) std::rethrow_exception(state->failure);
  return std::move(*state->result);
}

}  // namespace multistep::python
