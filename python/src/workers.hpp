#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

/// The threads that long calls run on, and the interpreter's lock beside them.
namespace multistep::python {

namespace nb = nanobind;

/// How many threads a call from this thread may use: what this OpenMP runtime says
/// (OMP_NUM_THREADS, threadpoolctl), and no more than torch.get_num_threads() where PyTorch is
/// loaded, whose runtime may be another. The interpreter's lock is held.
int threads_of_call();

/// A thread that lives on from call to call, and its team of OpenMP threads with it.
class Worker {
 public:
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Has work() done by so many threads; its exceptions are its own affair.
  void start(int threads, std::function<void()> work);

  /// Waits for its end, but no longer than this. Has it ended?
  bool wait(std::chrono::milliseconds time);

 private:
  friend class Hired;
  Worker() = default;
  void live();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> work_;
  int threads_ = 1;
  bool busy_ = false;
};

/// A worker of one's own while this lives: an idle one, or a new one where there is none. It begins
/// and ends with the interpreter's lock held.
class Hired {
 public:
  Hired();
  ~Hired();
  Hired(const Hired&) = delete;
  Hired& operator=(const Hired&) = delete;
  Worker& operator*() const { return *worker_; }

 private:
  Worker* worker_;
};

/// Without the interpreter's lock while this lives. Where the interpreter ends meanwhile, this
/// thread is a daemon whose next use of the lock would abort the process: it stops here for good.
class Unlocked {
 public:
  Unlocked();
  ~Unlocked();
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

/// Does the interpreter end, and not by this thread? Work for it is in vain.
bool in_vain(std::thread::id caller);

void bind_workers(nb::module_& core);

}  // namespace multistep::python
