#include "program/pattern.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace multistep::program {

CLI::Option* PatternOptions::add(CLI::App& command, const char* asked) {
  const char* const group = "Pattern of another attention";
  CLI::Option* pattern =
      command
          .add_option("--pattern", name,
                      fmt::format("{}: {}", asked, fmt::join(pattern_names(), ", ")))
          ->group(group);
  const auto option = [&](const char* option_name, std::string& value, const char* help) {
    command.add_option(option_name, value, help)->group(group)->needs(pattern);
  };
  option("--block", block, "keys of a block");
  option("--stride", stride, "keys from one to the next");
  option("--window", window, "the newest keys");
  option("--summary", summary, "keys that stand for a block, or that one stands for");
  option("--globals", globals, "the oldest keys or blocks, which every query has");
  option("--random", random, "random blocks, or rounds of hashing");
  option("--clusters", clusters, "clusters or buckets of keys");
  if (!command.get_option_no_throw("--seed")) option("--seed", seed, "seed of random blocks");
  return pattern;
}

void exclude_schedule(CLI::Option& pattern, const ScheduleOptions& schedule) {
  for (CLI::Option* option : schedule.all) {
    if (option->get_name() != "--top-k") pattern.excludes(option);
  }
}

Pattern PatternOptions::pattern(const std::string& top_k) const {
  std::vector<PatternParameter> given;
  // The widest ranges of any pattern; its own are narrower.
  const auto add = [&](const char* parameter, const std::string& text, Index low = 1,
                       Index high = kMaxLength) {
    if (text.empty()) return;
    given.push_back({parameter, parse_size(std::string("--") + parameter, text, low, high)});
  };
  add("block", block);
  add("stride", stride);
  add("window", window);
  add("summary", summary);
  add("globals", globals, 0);
  add("random", random, 0);
  add("clusters", clusters);
  add("top-k", top_k);
  add("seed", seed, 0, INT64_MAX);
  return naming_options([&] { return Pattern(name, given); });
}

Json pattern_work_json(const PatternReport& report) {
  const Count total = report.work.scored + report.work.attended;
  return {{"scored", report.work.scored},
          {"attended", report.work.attended},
          {"mean", total.to_double() / static_cast<double>(report.coverage.queries_checked)},
          {"most_scored", report.work.most_scored},
          {"most_attended", report.work.most_attended}};
}

std::string pattern_work_text(const Json& work) {
  return fmt::format("work         of a query: mean {:.1f}, at most {} scored and {} attended\n",
                     work["mean"].get<double>(), work["most_scored"].get<Index>(),
                     work["most_attended"].get<Index>());
}

}  // namespace multistep::program
