#pragma once

#include <string>
#include <vector>

#include "multistep/coverage.hpp"

namespace multistep {

/// Reads `query,begin,end` rows, with or without that header; "-" is standard input. Throws
/// std::invalid_argument naming file and line, also for rows that verify_spans would refuse.
std::vector<CandidateSpan> read_spans(const std::string& path, Index length, Index start);

}  // namespace multistep
