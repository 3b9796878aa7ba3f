#include <fmt/format.h>
#include <fmt/ranges.h>

#include <functional>
#include <optional>

#include "multistep/host_memory.hpp"
#include "multistep/walk.hpp"
#include "program/commands.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/pattern.hpp"

namespace multistep::program {
namespace {

constexpr Index kMaxMapLength = 4096;  // the map has a row for every pair of query and key

constexpr Index kMaxValues = 60'000'000;

struct Options {
  std::string length;
  PatternOptions pattern;
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

/// What is written of every query: rows of values, one a key, in such columns.
struct Source {
  std::string schedule;
  std::vector<std::string> columns;
  std::function<std::vector<std::vector<Index>>(Index query)> rows;
};

Source source_of(const Schedule& schedule, const StripePlan& plan) {
  std::vector<std::string> columns{"query", "key", "window"};
  for (Index m = 1; m < schedule.steps; ++m) {
    for (const char* column : {"anchors", "spans", "span"}) {
      columns.push_back(fmt::format("{}_{}", column, m));
    }
  }
  return {describe(schedule), columns, [&plan, levels = schedule.levels.size()](Index query) {
            const std::vector<Index> zeros(static_cast<std::size_t>(query + 1), 0);
            const std::vector<Index> none(zeros.size(), -1);
            std::vector<LevelMap> maps(levels, {zeros, zeros, none});
            fill(plan, 1, plan.searched(query, 0), maps);
            const Span window = plan.window(query, 0);
            std::vector<std::vector<Index>> rows;
            for (Index key = 0; key <= query; ++key) {
              const auto at = static_cast<std::size_t>(key);
              std::vector<Index> row{query, key, window.contains(key) ? 1 : 0};
              for (const LevelMap& level : maps) {
                row.insert(row.end(), {level.anchors[at], level.spans[at], level.ordinals[at]});
              }
              rows.push_back(std::move(row));
            }
            return rows;
          }};
}

Source source_of(const Pattern& pattern) {
  return {"pattern " + describe(pattern),
          {"query", "key", "selectable", "averages"},
          [&pattern](Index query) {
            const PatternRow row = pattern.row(query);
            std::vector<std::vector<Index>> rows;
            for (Index key = 0; key <= query; ++key) rows.push_back({query, key, 0, 0});
            const auto each_key = [&](const std::vector<Span>& spans, auto&& mark) {
              for (const Span& span : spans) {
                for (Index key = span.begin; key < span.end; ++key) {
                  mark(rows[static_cast<std::size_t>(key)]);
                }
              }
            };
            each_key(row.selectable, [](std::vector<Index>& key) { key[2] = 1; });
            each_key(row.averaged, [](std::vector<Index>& key) { ++key[3]; });
            return rows;
          }};
}

void write(const OutputOptions& output, Index length, const Source& source) {
  const std::vector<std::string>& names = source.columns;
  const Index values = length * (length + 1) / 2 * std::ssize(names);
  if (values > kMaxValues) {
    throw std::invalid_argument(
        fmt::format("--length {}: a map of at most {} values; with {} columns this one has {}",
                    length, kMaxValues, names.size(), values));
  }
  // A value takes 16 bytes of a JSON tree and about 8 of text.
  require_memory(fmt::format("--length {}: the map takes", length),
                 (output.json ? 40.0 : 16.0) * static_cast<double>(values));
  std::string csv = fmt::format("{}\n", fmt::join(names, ","));
  Json rows = Json::array();
  std::optional<ProgressBar> bar("map");
  for (Index query = 0; query < length; ++query) {
    for (const std::vector<Index>& row : source.rows(query)) {
      output.json ? rows.push_back(row) : void(csv += fmt::format("{}\n", fmt::join(row, ",")));
    }
    bar->show(query + 1, length);
  }
  bar.reset();
  if (output.json) {
    output.write(Json{{"schedule", source.schedule}, {"columns", names}, {"rows", rows}});
  } else {
    output.write(csv);
  }
}

int map(const Options& options) {
  const Index length = parse_size("--length", options.length, 1, kMaxMapLength);
  if (!options.pattern.name.empty()) {
    const Pattern pattern = options.pattern.pattern(options.schedule.top_k);
    write(options.output, length, source_of(pattern));
    return 0;
  }
  const Schedule schedule = options.schedule.schedule();
  const auto plan = naming_options([&] { return StripePlan(schedule, length); });
  write(options.output, length, source_of(schedule, plan));
  return 0;
}

}  // namespace

void add_map(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "map", "CSV of what every key is to every query: anchor, span, window, per level");
  command->add_option("--length", options->length, "L in [1, 4096]")->required();
  CLI::Option* pattern = options->pattern.add(*command, "what a pattern reaches, instead");
  options->schedule.add(*command);
  exclude_schedule(*pattern, options->schedule);
  options->output.add(*command);
  command->footer(
      "Columns: query, key, window (1: in the window), and for each level m: anchors_m on the "
      "key,\n"
      "spans_m that hold it, and span_m, the newest of them (-1: none). The spans of the last "
      "level\n"
      "are the final ones. Of a pattern: selectable (1: attended to, or content can choose it) "
      "and\n"
      "averages, how many of them have it.\n"
      "Example:\n"
      "  multistep map --length 64 --steps 3 --output map.csv");
  command->callback([options, &run] { run = [options] { return map(*options); }; });
}

}  // namespace multistep::program
