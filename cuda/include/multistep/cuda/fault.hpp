#pragma once

#include "multistep/cuda/types.hpp"

namespace multistep::cuda {

/// Makes the kernels go wrong in way `fault` >= 1, or right again with 0: the test of whatever is
/// to notice. Only in the copy of the library that is built with MULTISTEP_FAULTS.
void inject_fault(int fault);

/// Has attention() take long prefills in chunks of at most `pairs` (row, slot) pairs, one query at
/// least, so that short ones are chunked too; 0: as it does by itself. In the same copy.
void set_chunk_pairs(Index pairs);

}  // namespace multistep::cuda
