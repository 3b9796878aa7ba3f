#include <cstdlib>
#include <string>

#include "multistep/cuda/memory.hpp"
#include "support/catch.hpp"

// What was compiled decides what the kernels do, not the device. CUDA_FORCE_PTX_JIT=1 has the
// device compile the PTX for 80 anew, as a later chip does: then all tests are of that code.

namespace cuda = multistep::cuda;

TEST_CASE("The device says which of the compiled code it runs", "[device]") {
  CHECK(cuda::why_unusable() == "");
  const cuda::DeviceInfo info = cuda::device_info();
  const char* forced = std::getenv("CUDA_FORCE_PTX_JIT");
  CAPTURE(info.compute_capability, info.architecture);
  if (forced && std::string(forced) == "1") {
    CHECK(info.architecture == 80);
  } else {
    CHECK(info.architecture <= info.compute_capability);
    if (info.compute_capability == 90) CHECK(info.architecture == 90);
  }
}
