#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <optional>

#include "multistep/types.hpp"

namespace multistep {

/// Runs body(begin, end) over the blocks of [0, count), each block on one thread; make_body() gives
/// each thread a body with scratch of its own. Blocks are independent and nothing is reduced across
/// threads, so the number of threads does not change a bit. Of several exceptions that of the first
/// block is rethrown; blocks behind it may be left out.
template <class MakeBody>
void parallel_blocks(Index count, Index block, MakeBody&& make_body) {
  std::exception_ptr failure;
  std::atomic<Index> failed = INT64_MAX;
  const Index blocks = (count + block - 1) / block;
#pragma omp parallel
  {
    std::optional<decltype(make_body())> body;
#pragma omp for schedule(dynamic, 1)
    for (Index at = 0; at < blocks; ++at) {
      if (at > failed) continue;
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

}  // namespace multistep
