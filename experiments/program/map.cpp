#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>

#include "multistep/host_memory.hpp"
#include "multistep/walk.hpp"
#include "program/commands.hpp"
#include "program/options.hpp"
#include "program/output.hpp"

namespace multistep::program {
namespace {

constexpr Index kMaxMapLength = 4096;  // the map has a row for every pair of query and key

constexpr Index kMaxValues = 60'000'000;

struct Options {
  std::string length;
  ScheduleOptions schedule;
  OutputOptions output;
};

/// What one level makes of one query's keys.
struct LevelMap {
  std::vector<Index> anchors;   // [t + 1], anchors on each key, over all parents
  std::vector<Index> spans;     // [t + 1], spans that hold each key
  std::vector<Index> ordinals;  // [t + 1], the newest such span, counted from 0; -1: none
  Index count = 0;              // spans so far
};

void fill(const StripePlan& plan, Index m, const Segment& segment, std::vector<LevelMap>& maps) {
  if (m == plan.steps()) return;
  LevelMap& map = maps[static_cast<std::size_t>(m - 1)];
  for (const Choice choice : Choices(plan, m, segment)) {
    ++map.anchors[static_cast<std::size_t>(choice.key)];
    for (Index key = choice.span.begin; key < choice.span.end; ++key) {
      const auto at = static_cast<std::size_t>(key);
      if (map.spans[at]++ == 0) map.ordinals[at] = map.count;
    }
    ++map.count;
    fill(plan, m + 1, choice.span, maps);
  }
}

int map(const Options& options) {
  const Index length = parse_size("--length", options.length, 1, kMaxMapLength);
  const Schedule schedule = options.schedule.schedule();
  const auto plan = naming_options([&] { return StripePlan(schedule, length); });

  std::vector<std::string> names{"query", "key", "window"};
  for (Index m = 1; m < schedule.steps; ++m) {
    for (const char* column : {"anchors", "spans", "span"}) {
      names.push_back(fmt::format("{}_{}", column, m));
    }
  }
  const Index values = length * (length + 1) / 2 * std::ssize(names);
  if (values > kMaxValues) {
    throw std::invalid_argument(
        fmt::format("--length {}: a map of at most {} values; with {} columns this one has {}",
                    length, kMaxValues, names.size(), values));
  }
  // A value takes 16 bytes of a JSON tree and about 8 of text.
  require_memory(fmt::format("--length {}: the map takes", length),
                 (options.output.json ? 40.0 : 16.0) * static_cast<double>(values));
  std::string csv = fmt::format("{}\n", fmt::join(names, ","));
  Json rows = Json::array();
  std::optional<ProgressBar> bar("map");
  for (Index query = 0; query < length; ++query) {
    const std::vector<Index> zeros(static_cast<std::size_t>(query + 1), 0);
    const std::vector<Index> none(zeros.size(), -1);
    std::vector<LevelMap> maps(schedule.levels.size(), {zeros, zeros, none});
    fill(plan, 1, plan.searched(query, 0), maps);
    const Span window = plan.window(query, 0);
    for (Index key = 0; key <= query; ++key) {
      const auto at = static_cast<std::size_t>(key);
      std::vector<Index> row{query, key, window.contains(key) ? 1 : 0};
      for (const LevelMap& level : maps) {
        row.insert(row.end(), {level.anchors[at], level.spans[at], level.ordinals[at]});
      }
      options.output.json ? rows.push_back(row)
                          : void(csv += fmt::format("{}\n", fmt::join(row, ",")));
    }
    bar->show(query + 1, length);
  }
  bar.reset();
  if (options.output.json) {
    options.output.write(
        Json{{"schedule", describe(schedule)}, {"columns", names}, {"rows", rows}});
  } else {
    options.output.write(csv);
  }
  return 0;
}

}  // namespace

void add_map(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "map", "CSV of what every key is to every query: anchor, span, window, per level");
  command->add_option("--length", options->length, "L in [1, 4096]")->required();
  options->schedule.add(*command);
  options->output.add(*command);
  command->footer(
      "Columns: query, key, window (1: in the window), and for each level m: anchors_m on the "
      "key,\n"
      "spans_m that hold it, and span_m, the newest of them (-1: none). The spans of the last "
      "level\n"
      "are the final ones.\n"
      "Example:\n"
      "  multistep map --length 64 --steps 3 --output map.csv");
  command->callback([options, &run] { run = [options] { return map(*options); }; });
}

}  // namespace multistep::program
