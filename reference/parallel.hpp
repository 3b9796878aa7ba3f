#pragma once

#include <algorithm>
#include <exception>

#include "multistep/types.hpp"

namespace multistep {

/// Runs body(begin, end) over the blocks of [0, count), each block on one thread; make_body() gives
/// each thread a body with scratch of its own. Blocks are independent and nothing is reduced across
/// threads, so the number of threads does not change a bit. The first exception is rethrown.
template <class MakeBody>
void parallel_blocks(Index count, Index block, MakeBody&& make_body) {
  std::exception_ptr failure;
  const Index blocks = (count + block - 1) / block;
#pragma omp parallel
  {
    try {
      auto body = make_body();
#pragma omp for schedule(dynamic, 1)
      for (Index at = 0; at < blocks; ++at) {
        try {
          body(at * block, std::min(count, (at + 1) * block));
        } catch (...) {
#pragma omp critical(multistep_failure)
          if (!failure) failure = std::current_exception();
        }
      }
    } catch (...) {
#pragma omp critical(multistep_failure)
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace multistep
