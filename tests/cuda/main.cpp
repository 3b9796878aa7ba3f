#define CATCH_CONFIG_RUNNER  // Catch2 2 then has its implementation here
#include <cstdio>
#include <cstdlib>
#include <string>

#include "multistep/cuda/types.hpp"
#include "support/catch.hpp"

#ifdef MULTISTEP_FAULTS
#include "multistep/cuda/fault.hpp"
#endif

/// Linked with the kernels that can be told to go wrong, they do so as MULTISTEP_FAULT, a number of
/// cuda/device/fault.cuh, says. Exit code 77: no GPU that runs the kernels, every test case
/// skipped, and how many is printed.
int main(int argc, char* argv[]) {
  Catch::Session session;
  if (const std::string why = multistep::cuda::why_unusable(); !why.empty()) {
    const auto& tests = Catch::getRegistryHub().getTestCaseRegistry().getAllTests();
    std::printf("%zu GPU test cases skipped: %s\n", tests.size(), why.c_str());
    return 77;
  }
#ifdef MULTISTEP_FAULTS
  const char* fault = std::getenv("MULTISTEP_FAULT");
  multistep::cuda::inject_fault(fault ? std::atoi(fault) : 0);
#endif
#if CATCH_VERSION_MAJOR == 2  // later ones fail by themselves where no test ran
  session.configData().warnings = Catch::WarnAbout::NoTests;
#endif
  // A count of failures must not be taken for "skipped".
  return session.run(argc, argv) == 0 ? 0 : 1;
}
