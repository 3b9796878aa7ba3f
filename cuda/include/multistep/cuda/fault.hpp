#pragma once

namespace multistep::cuda {

/// Makes the kernels go wrong in way `fault` >= 1, or right again with 0: the test of whatever is
/// to notice. Only in the copy of the library that is built with MULTISTEP_FAULTS.
void inject_fault(int fault);

}  // namespace multistep::cuda
