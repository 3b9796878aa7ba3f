#pragma once

#include <filesystem>
#include <string_view>

#include "multistep/types.hpp"

namespace multistep {

/// Bytes that this process can still have: what the machine has available, and no more than each of
/// its control groups and their ancestors (v2 and v1) and RLIMIT_AS leave below their limits. File
/// pages that a group would give back first are not counted as used. The files of the kernel are
/// read below `root`.
Index available_memory(const std::filesystem::path& root = "/");

/// Throws std::invalid_argument "WHAT 3.0 GiB, at most 1.8 GiB fit this machine" where `bytes` pass
/// nine tenths of what is available: before they are asked for, as a system that promises more than
/// it has ends the process later.
void require_memory(std::string_view what, double bytes);

}  // namespace multistep
