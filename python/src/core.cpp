#include "core.hpp"

#include "workers.hpp"

#ifndef MULTISTEP_NO_CUDA_REASON
#define MULTISTEP_NO_CUDA_REASON "nvcc was not found, or MULTISTEP_CUDA is OFF"
#endif

/// multistep._core: the reference library, and the kernels where there are any, on plain arrays.
/// Python checks and converts what users pass; nothing here is part of the public interface.
NB_MODULE(_core, core) {
  using namespace multistep::python;
  // Schedules that are kept for the next call outlive the module: no leak to warn of.
  nanobind::set_leak_warnings(false);
  core.attr("version") = MULTISTEP_VERSION;
  bind_workers(core);
  bind_schedule(core);
  bind_memory(core);
  bind_coverage(core);
  bind_attention(core);
  bind_shards(core);
  bind_accumulation(core);
  bind_compare(core);
#ifdef MULTISTEP_HAS_CUDA
  core.attr("has_cuda") = true;
  bind_cuda(core);
#else
  core.attr("has_cuda") = false;
  core.def("cuda_status", [] { return "built without CUDA: " MULTISTEP_NO_CUDA_REASON; });
#endif
}
