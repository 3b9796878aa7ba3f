#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "multistep/patterns.hpp"
#include "program/output.hpp"

/// Patterns of other attentions, by name and parameters (SPEC 12).
namespace multistep::program {

struct PatternOptions {
  std::string name;  // empty: none is asked about
  std::string block;
  std::string stride;
  std::string window;
  std::string summary;
  std::string globals;
  std::string random;
  std::string clusters;

  /// The option --pattern itself, which the others need.
  CLI::Option* add(CLI::App& command);

  /// `top_k` and `seed` are empty where they are not given. Throws std::invalid_argument.
  Pattern pattern(const std::string& top_k, const std::string& seed) const;
};

/// Work of a pattern's queries, and in words.
Json pattern_work_json(const PatternReport& report);
std::string pattern_work_text(const Json& work);

}  // namespace multistep::program
