#include "program/configs.hpp"

#include <fmt/format.h>

#include <charconv>

namespace multistep::program {

Config config_of(const std::string& option, const std::string& name) {
  if (name == "dense") return {name, name, preset_schedule("nstep", 1)};
  if (name == "paper" || name == "released") return {name, name, preset_schedule(name)};
  if (name == "B") return {name, "released", preset_schedule("released")};
  if (name == "A") {
    Schedule schedule = preset_schedule("paper");
    schedule.window_index = 31;
    return {name, "paper", schedule};
  }
  for (const std::string family : {"nstep", "even", "aligned", "tight"}) {
    if (name.rfind(family, 0) != 0) continue;
    Index steps = 0;
    const char* const end = name.data() + name.size();
    const auto [stop, error] = std::from_chars(name.data() + family.size(), end, steps);
    if (error != std::errc() || stop != end || steps < 2 || steps > 64) break;
    Schedule schedule = preset_schedule(family == "tight" ? "nstep" : family, steps);
    if (family == "tight") {
      for (Level& level : schedule.levels) level.rule = Rule::tight;
    }
    return {name, family, schedule};
  }
  throw std::invalid_argument(fmt::format("{} {}: {}", option, name, kConfigNames));
}

std::vector<Config> configs_of(const std::string& option, const std::string& list) {
  std::vector<Config> configs;
  for (const std::string& name : split(option, list)) configs.push_back(config_of(option, name));
  return configs;
}

Config config_of(const ScheduleOptions& options, const std::string& steps) {
  const Schedule schedule = options.schedule(steps);
  const std::string& family = options.preset;
  if (schedule.steps == 1) return {"dense", "dense", schedule};
  const bool fixed = family == "paper" || family == "released";
  return {fixed ? family : fmt::format("{}{}", family, schedule.steps), family, schedule};
}

}  // namespace multistep::program
