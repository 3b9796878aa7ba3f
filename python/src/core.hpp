#pragma once

#include <nanobind/nanobind.h>

/// The parts of the extension module, one file each.
namespace multistep::python {

void bind_schedule(nanobind::module_& core);
void bind_memory(nanobind::module_& core);
void bind_coverage(nanobind::module_& core);
void bind_attention(nanobind::module_& core);
void bind_shards(nanobind::module_& core);
void bind_accumulation(nanobind::module_& core);
void bind_compare(nanobind::module_& core);
void bind_cuda(nanobind::module_& core);

}  // namespace multistep::python
