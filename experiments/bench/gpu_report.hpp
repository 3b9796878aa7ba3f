#pragma once

#include "bench/gpu_options.hpp"
#include "program/output.hpp"

/// The shape of a problem, for reports.
namespace multistep::program {

Json shape_json(const GpuShape& shape);

/// "batch 1, 32 heads over 2, ...".
std::string shape_text(const Json& shape);

}  // namespace multistep::program
