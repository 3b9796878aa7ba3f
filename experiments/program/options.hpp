#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "multistep/schedule.hpp"

/// Options arrive as text and are read here, so that every error names option, value and range.
namespace multistep::program {

/// "1000", "1k" = 1000, "1Ki" = 1024, likewise M, Mi, G, Gi. Throws std::invalid_argument unless
/// low <= value <= high.
Index parse_size(const std::string& option, const std::string& text, Index low, Index high);

/// The comma-separated parts of a list; none of them empty.
std::vector<std::string> split(const std::string& option, const std::string& text);

/// Sequences and heads of a shape.
struct Heads {
  Index batch = 1;
  Index heads = 1;     // query heads
  Index kv_heads = 1;  // divides them
  Index head_dim = 0;
};

struct HeadOptions {
  std::string batch = "1";
  std::string heads;  // these are the defaults
  std::string kv_heads;
  std::string head_dim;

  void add(CLI::App& command, Index max_head_dim);

  /// Throws std::invalid_argument.
  Heads read(Index max_head_dim) const;
};

/// The schedule options, the same for every subcommand (SPEC 9).
struct ScheduleOptions {
  std::string preset = "nstep";
  std::string steps = "2";
  std::string rule;
  std::string exponent;
  std::string backward;
  std::string forward;
  std::string span_exponent;
  std::string window_index;
  std::string top_k;
  std::vector<CLI::Option*> all;

  void add(CLI::App& command);

  /// Throws std::invalid_argument.
  Schedule schedule() const { return schedule(steps); }
  Schedule schedule(const std::string& steps_text) const;
};

/// "N = 3 (tight, even)", the schedule in a few words.
std::string describe(const Schedule& schedule);

/// Runs `body`; a library error names the option that it is about: the one with the name that it
/// begins with, and for a length the option that the length came from.
template <class Body>
auto naming_options(Body&& body, const std::string& length_option = "--length") {
  try {
    return body();
  } catch (const std::invalid_argument& error) {
    const std::string message = error.what();
    const std::string name = "length ";
    throw std::invalid_argument(message.rfind(name, 0) == 0
                                    ? length_option + " " + message.substr(name.size())
                                    : "--" + message);
  }
}

}  // namespace multistep::program
