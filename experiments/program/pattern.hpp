#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "multistep/patterns.hpp"
#include "program/options.hpp"
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
  std::string seed;  // where the command has none of its own

  /// The option --pattern itself, which the others need; `asked` says what it does there.
  CLI::Option* add(CLI::App& command, const char* asked);

  /// The pattern called `name`; `top_k` is empty where it is not given. Throws
  /// std::invalid_argument.
  Pattern pattern(const std::string& top_k) const;
};

/// No option of a schedule beside --pattern, but --top-k, which some patterns have too.
void exclude_schedule(CLI::Option& pattern, const ScheduleOptions& schedule);

/// One query of a pattern is listed whole: lengths that leave room for that.
constexpr Index kMaxPatternLength = Index{1} << 24;

/// Work of a pattern's queries, and in words.
Json pattern_work_json(const PatternReport& report);
std::string pattern_work_text(const Json& work);

}  // namespace multistep::program
