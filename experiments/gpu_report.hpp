#pragma once

#include "gpu_options.hpp"
#include "multistep/compare.hpp"
#include "output.hpp"

/// Comparisons as JSON and as text.
namespace multistep {

/// `bad_anywhere`: NaN or infinite results in all rows, sampled or not.
Json values_json(const char* stage, const ValueReport& report, Index bad_anywhere,
                 const Json& worst);
Json selection_json(const char* stage, const SelectionReport& report, const Json& worst);
Json shape_json(const GpuShape& shape);

/// The stages of a comparison as a table, a line each, and their regrets.
std::string stage_table(const Json& comparison);

/// "batch 1, 32 heads over 2, ...".
std::string shape_text(const Json& shape);

}  // namespace multistep
