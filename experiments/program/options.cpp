#include "program/options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <map>

namespace multistep::program {
namespace {

const char kScheduleGroup[] = "Schedule";

/// The value of level m in a list with one value for all levels or one for each.
template <class Parse>
void for_each_level(const std::string& option, const std::string& text, Schedule& schedule,
                    Parse&& assign) {
  if (text.empty()) return;
  const std::vector<std::string> values = split(option, text);
  if (values.size() != 1 && values.size() != schedule.levels.size()) {
    throw std::invalid_argument(fmt::format("{} {}: one value, or one for each of {} levels",
                                            option, text, schedule.levels.size()));
  }
  // A single value is read even where there is no level to use it.
  Level unused;
  if (schedule.levels.empty()) assign(unused, values.front());
  for (std::size_t m = 0; m < schedule.levels.size(); ++m) {
    assign(schedule.levels[m], values[values.size() == 1 ? 0 : m]);
  }
}

Rational read_rational(const std::string& option, const std::string& text) {
  try {
    return parse_rational(text);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(fmt::format("{} {}", option, error.what()));
  }
}

}  // namespace

Index parse_size(const std::string& option, const std::string& text, Index low, Index high) {
  static const std::map<std::string, Index> kUnits{{"", 1},
                                                   {"k", 1000},
                                                   {"M", 1000'000},
                                                   {"G", 1000'000'000},
                                                   {"Ki", Index{1} << 10},
                                                   {"Mi", Index{1} << 20},
                                                   {"Gi", Index{1} << 30}};
  Index value = 0;
  const char* const past = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), past, value);
  const auto unit = kUnits.find(std::string(end, past));
  const bool read = error == std::errc() && unit != kUnits.end() && value >= 0;
  const bool small = error == std::errc() && value < low;
  if (!read || small || value > high / unit->second || value * unit->second < low) {
    throw std::invalid_argument(fmt::format("{} {}: an integer in [{}, {}]{}", option,
                                            text.empty() ? "''" : text, low, high,
                                            high > 1000 ? ", as 1000, 1k, 1Ki, 1M, ..." : ""));
  }
  return value * unit->second;
}

std::vector<std::string> split(const std::string& option, const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char letter : text) {
    if (letter == ',') {
      parts.emplace_back();
    } else {
      parts.back() += letter;
    }
  }
  for (const std::string& part : parts) {
    if (part.empty()) {
      throw std::invalid_argument(
          fmt::format("{} '{}': values separated by commas, none empty", option, text));
    }
  }
  return parts;
}

void HeadOptions::add(CLI::App& command, Index max_head_dim) {
  command.add_option("--batch", batch, "in [1, 1024] (default 1)");
  command.add_option("--heads", heads,
                     fmt::format("query heads, in [1, 1024] (default {})", heads));
  command.add_option("--kv-heads", kv_heads,
                     fmt::format("a divisor of --heads (default {})", kv_heads));
  command.add_option("--head-dim", head_dim,
                     fmt::format("in [1, {}] (default {})", max_head_dim, head_dim));
}

Heads HeadOptions::read(Index max_head_dim) const {
  Heads read;
  read.batch = parse_size("--batch", batch, 1, 1024);
  read.heads = parse_size("--heads", heads, 1, 1024);
  read.kv_heads = parse_size("--kv-heads", kv_heads, 1, read.heads);
  if (read.heads % read.kv_heads != 0) {
    throw std::invalid_argument(
        fmt::format("--kv-heads {}: a divisor of --heads {}", read.kv_heads, read.heads));
  }
  read.head_dim = parse_size("--head-dim", head_dim, 1, max_head_dim);
  return read;
}

void ScheduleOptions::add(CLI::App& command) {
  const auto option = [&](const char* name, std::string& value, const char* help) {
    all.push_back(command.add_option(name, value, help)->group(kScheduleGroup));
  };
  option("--preset", preset, "nstep (default), even, aligned, paper or released");
  option("--steps", steps, "N in [1, 64] (default 2); 1 is dense attention");
  option("--rule", rule, "tight, power, even or aligned; per level, or one for all levels");
  option("--exponent", exponent, "stripe exponent of level 1, a rational in [1, 64]");
  option("--backward", backward, "backward factor of the power rule, a rational >= 0; per level");
  option("--forward", forward, "forward factor of the power rule, a rational >= 0; per level");
  option("--span-exponent", span_exponent,
         "span exponent of the power rule, a rational in [0, 1]; per level");
  option("--window-index", window_index,
         "w >= 0: stripes 1 ... w, or w keys where level 1 has parts, are left to the window");
  option("--top-k", top_k, "spans kept per query, in [1, 64]");
}

Schedule ScheduleOptions::schedule(const std::string& steps_text) const {
  const Index N = parse_size("--steps", steps_text, 1, 64);
  Schedule schedule = naming_options([&] { return multistep::preset_schedule(preset, N); });
  for_each_level("--rule", rule, schedule, [](Level& level, const std::string& value) {
    level.rule = naming_options([&] { return parse_rule(value); });
  });
  if (!exponent.empty()) {
    const Rational value = read_rational("--exponent", exponent);
    Schedule probe = multistep::preset_schedule("nstep", 2);
    probe.levels.front().exponent = value;
    naming_options([&] { validate_schedule(probe); });
    if (N > 1) schedule.levels.front().exponent = value;
  }
  for_each_level("--backward", backward, schedule, [](Level& level, const std::string& value) {
    level.backward = read_rational("--backward", value);
  });
  for_each_level("--forward", forward, schedule, [](Level& level, const std::string& value) {
    level.forward = read_rational("--forward", value);
  });
  for_each_level("--span-exponent", span_exponent, schedule,
                 [](Level& level, const std::string& value) {
                   level.span_exponent = read_rational("--span-exponent", value);
                 });
  if (!window_index.empty()) {
    schedule.window_index = parse_size("--window-index", window_index, 0, kMaxLength);
  }
  if (!top_k.empty()) schedule.top_k = parse_size("--top-k", top_k, 1, 64);
  naming_options([&] { validate_schedule(schedule); });
  return schedule;
}

std::string describe(const Schedule& schedule) {
  if (schedule.steps == 1) return "N = 1 (dense)";
  std::vector<std::string> levels;
  for (const Level& level : schedule.levels) {
    std::string text(to_string(level.rule));
    if (level.rule == Rule::power) {
      text += fmt::format(" b {} f {} q {}", to_string(level.backward), to_string(level.forward),
                          to_string(level.span_exponent));
    }
    levels.push_back(text);
  }
  std::string text = fmt::format("N = {} ({})", schedule.steps, fmt::join(levels, ", "));
  if (has_stripes(schedule.level(1).rule)) {
    text += fmt::format(", stripes i^{}", to_string(schedule.level(1).exponent));
  }
  if (schedule.window_index > 0) text += fmt::format(", w = {}", schedule.window_index);
  return text;
}

}  // namespace multistep::program
