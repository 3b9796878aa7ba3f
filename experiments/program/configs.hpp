#pragma once

#include <string>
#include <vector>

#include "program/options.hpp"

namespace multistep::program {

/// A schedule with the short name that results know it by.
struct Config {
  std::string name;    // of kConfigNames
  std::string family;  // the name without N
  Schedule schedule;
};

/// What --configs takes, for help and errors.
inline constexpr char kConfigNames[] =
    "A, B, dense, paper, released, or nstepN, evenN, alignedN, tightN with N in [2, 64]";

/// The configuration of that name; "tight" is the tight rule at every level, A the paper's schedule
/// with a window of 1023 keys, B the authors' model's, `released`. Throws
/// std::invalid_argument.
Config config_of(const std::string& option, const std::string& name);

/// Those of a comma-separated list.
std::vector<Config> configs_of(const std::string& option, const std::string& list);

/// The schedule that the options give, for a list of one.
Config config_of(const ScheduleOptions& options, const std::string& steps);

}  // namespace multistep::program
