#include "workers.hpp"

#include <omp.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <memory>
#include <vector>

namespace multistep::python {
namespace {

std::vector<Worker*>& idle() {  // guarded by the interpreter's lock; never freed, nor are workers
  static auto* const workers = new std::vector<Worker*>;
  return *workers;
}

std::atomic<int> unlocked = 0;  // threads that will want the interpreter's lock back
std::atomic<bool> ending = false;
std::thread::id ends;  // the thread that ends the interpreter, once it is ending

/// In a forked child, which has the forking thread alone: it starts anew.
void forget() {
  idle().clear();
  unlocked = 0;
}

/// Runs before the interpreter ends, when its other threads are daemons: waits until those that
/// are here have seen it.
void end() {
  ends = std::this_thread::get_id();
  ending = true;
  const nb::gil_scoped_release released;
  while (unlocked > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

int threads_of_torch() {
  const nb::dict modules = nb::module_::import_("sys").attr("modules");
  const nb::object torch = modules.contains("torch") ? modules["torch"] : nb::none();
  if (!nb::hasattr(torch, "get_num_threads")) return INT_MAX;  // or it is being imported
  return nb::cast<int>(torch.attr("get_num_threads")());
}

}  // namespace

int threads_of_call() {
  const int told = omp_get_max_threads();
  const int threads = std::min(told, threads_of_torch());
  // Where PyTorch has the same runtime, its first answer in a thread tells that its own number.
  omp_set_num_threads(std::min(told, omp_get_max_threads()));
  return threads;
}

void Worker::start(int threads, std::function<void()> work) {
  const std::lock_guard lock(mutex_);
  threads_ = threads;
  work_ = std::move(work);
  busy_ = true;
  changed_.notify_all();
}

bool Worker::wait(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, time, [this] { return !busy_; });
}

void Worker::live() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return busy_; });
    lock.unlock();
    omp_set_num_threads(threads_);
    work_();
    work_ = nullptr;
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

Hired::Hired() {
  if (idle().empty()) {
    std::unique_ptr<Worker> fresh(new Worker);
    std::thread(&Worker::live, fresh.get()).detach();
    idle().push_back(fresh.release());
  }
  worker_ = idle().back();
  idle().pop_back();
}

Hired::~Hired() { idle().push_back(worker_); }

Unlocked::Unlocked() {
  ++unlocked;
  state_ = PyEval_SaveThread();
}

Unlocked::~Unlocked() {
  if (in_vain(std::this_thread::get_id())) {
    --unlocked;
    for (;;) pause();
  }
  PyEval_RestoreThread(state_);
  --unlocked;
}

bool in_vain(std::thread::id caller) { return ending && caller != ends; }

void bind_workers(nb::module_& core) {
  idle();  // before any fork
  pthread_atfork(nullptr, nullptr, &forget);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&end));
  core.def("threads", &threads_of_call);
}

}  // namespace multistep::python
