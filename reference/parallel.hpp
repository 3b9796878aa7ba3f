#pragma once

#include <algorithm>
#include <exception>
#include <optional>

#include "multistep/types.hpp"

namespace multistep {

/// Runs body(begin, end) over the blocks of [0, count), each block on one thread; make_body() gives
/// each thread a body with scratch of its own. Blocks are independent and nothing is reduced across
/// threads, so the number of threads does not change a bit. Of several exceptions that of the first
/// block is rethrown.
template <class MakeBody>
void parallel_blocks(Index count, Index block, MakeBody&& make_body) {
  std::exception_ptr failure;
  Index failed = INT64_MAX;
  const Index blocks = (count + block - 1) / block;
#pragma omp parallel
  {
    std::optional<decltype(make_body())> body;
#pragma omp for schedule(dynamic, 1)
    for (Index at = 0; at < blocks; ++at) {
      try {
        if (!body) body.emplace(make_body());
        (*body)(at * block, std::min(count, (at + 1) * block));
      } catch (...) {
#pragma omp critical(multistep_failure)
        if (at < failed) {
          failed = at;
          failure = std::current_exception();
        }
      }
    }
  }
  if (failure) std::rethrow_exception(failure);
}

/// What the threads of a call have done, told to a Progress.
class Meter {
 public:
  Meter(Index total, const Progress& progress) : total_(total), progress_(progress) {}

  /// `count` more rows are done. Calls also() on one thread at a time. Throws Cancelled where the
  /// Progress wants no more.
  template <class Also>
  void add(Index count, Also&& also) {
    bool wanted = true;
#pragma omp critical(multistep_meter)
    {
      done_ += count;
      also();
      wanted_ = wanted_ && (!progress_ || progress_(done_, total_));
      wanted = wanted_;
    }
    if (!wanted) throw Cancelled();
  }
  void add(Index count) {
    add(count, [] {});
  }

 private:
  Index total_;
  const Progress& progress_;
  Index done_ = 0;
  bool wanted_ = true;
};

}  // namespace multistep
