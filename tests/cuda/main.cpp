#define CATCH_CONFIG_RUNNER  // Catch2 2 then has its implementation here
#include <cstdio>

#include "../catch.hpp"
#include "multistep/cuda/types.hpp"

/// Exit code 77: no GPU, every test case skipped, and how many is printed.
int main(int argc, char* argv[]) {
  Catch::Session session;
  if (multistep::cuda::device_count() == 0) {
    const auto& tests = Catch::getRegistryHub().getTestCaseRegistry().getAllTests();
    std::printf("%zu GPU test cases skipped: no CUDA device\n", tests.size());
    return 77;
  }
#if CATCH_VERSION_MAJOR == 2  // later ones fail by themselves where no test ran
  session.configData().warnings = Catch::WarnAbout::NoTests;
#endif
  // A count of failures must not be taken for "skipped".
  return session.run(argc, argv) == 0 ? 0 : 1;
}
