#pragma once

#include <string>
#include <vector>

#include "multistep/coverage.hpp"

namespace multistep::program {

/// Reads `query,begin,end` rows, with or without that header, in capitals or not, behind a
/// byte-order mark or none, with spaces around fields, blank lines, lines ended by LF or CRLF; "-"
/// is standard input. Throws std::invalid_argument naming file and line, what is found and what is
/// wanted, also for rows that verify_spans would refuse.
std::vector<QuerySpan> read_spans(const std::string& path, Index length, Index start);

}  // namespace multistep::program
