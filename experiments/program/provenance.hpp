#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "program/output.hpp"

namespace multistep::program {

/// What a result that is kept says of its making.
struct Provenance {
  std::string commit = "unknown";
  std::string dirty = "no";

  void add(CLI::App& command);

  /// {"command", "commit", "dirty"}. The command is that of this process without its folder and
  /// without --commit, --dirty and --output, which do not change the result. Throws
  /// std::invalid_argument.
  Json json() const;
};

}  // namespace multistep::program
