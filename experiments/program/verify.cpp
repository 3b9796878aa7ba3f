#include <fmt/format.h>

#include "multistep/coverage.hpp"
#include "multistep/layers.hpp"
#include "multistep/work.hpp"
#include "program/commands.hpp"
#include "program/csv.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/pattern.hpp"
#include "program/printable.hpp"

namespace multistep::program {
namespace {

struct Options {
  std::string length;
  std::string start = "0";
  std::string queries = "all";
  std::string seed = "1";
  CLI::Option* seed_given = nullptr;
  std::string spans;
  std::string layers;
  PatternOptions pattern;
  ScheduleOptions schedule;
  OutputOptions output;
};

/// Work of one path of the last query beside the lower bound of its mean; nulls where the window
/// has every key, and no ratio where the query does not reach every key.
Json work_json(const Schedule& schedule, Index length, Index start) {
  Json json;
  for (const char* name : {"min", "mean", "max", "lower_bound", "ratio"}) json[name] = nullptr;
  if (const auto work = path_work(StripePlan(schedule, length), length - 1, start)) {
    json["min"] = work->min;
    json["mean"] = work->mean;
    json["max"] = work->max;
    json["lower_bound"] = work->lower_bound;
    if (work->ratio) json["ratio"] = *work->ratio;
  }
  return json;
}

Json exclusion_json(const Exclusion& first) {
  Json json = {{"position", first.position},
               {"key", first.key},
               {"gap", {{"begin", first.gap.begin}, {"end", first.gap.end}}}};
  json["closing_backward"] =
      first.closing_backward ? Json(to_double(*first.closing_backward)) : Json(nullptr);
  return json;
}

/// What --layers asks for.
struct LayersAsked {
  bool any = false;
  std::optional<Index> number;  // none: as many as it takes

  explicit LayersAsked(const std::string& text) : any(!text.empty()) {
    if (!any || text == "closure") return;
    try {
      number = parse_size("--layers", text, 1, kMaxLayersLength);
    } catch (const std::invalid_argument&) {
      throw std::invalid_argument(
          fmt::format("--layers {}: closure, or an integer in [1, {}]", text, kMaxLayersLength));
    }
  }
};

Json layers_json(const LayersReport& report) {
  const auto number = [](std::optional<Index> value) {
    return value ? Json(*value) : Json(nullptr);
  };
  return {{"number", report.layers},
          {"needed", number(report.needed())},
          {"fixed_point", number(report.fixed_point)}};
}

std::string layers_text(const Json& layers) {
  const Index number = layers["number"].get<Index>();
  std::string told;
  if (!layers["needed"].is_null()) {
    const Index needed = layers["needed"].get<Index>();
    told = needed == 1        ? fmt::format("{} one is enough", number == 1 ? "," : ";")
           : needed == number ? ", and not fewer"
                              : fmt::format("; {} are enough", needed);
  } else if (!layers["fixed_point"].is_null()) {
    told = fmt::format("; from {} on, none adds a pair", layers["fixed_point"].get<Index>());
  }
  return fmt::format("layers       {}{}\n", number, told);
}

std::string work_text(const Json& work) {
  if (work.is_null()) return {};  // a list of spans has no schedule
  if (work.contains("scored")) return pattern_work_text(work);
  if (work["mean"].is_null()) return "work         the window has every key of the last query\n";
  const Json& ratio = work["ratio"];
  return fmt::format(
      "work         one path of the last query: min {}, mean {:.1f}, max {}\n"
      "lower bound  {:.1f}; {}\n",
      work["min"].get<Index>(), work["mean"].get<double>(), work["max"].get<Index>(),
      work["lower_bound"].get<double>(),
      ratio.is_null() ? "of a query that reaches every key, as the last one does not"
                      : fmt::format("mean work is {:.3f} times that", ratio.get<double>()));
}

std::string text(const Json& result) {
  std::string out = fmt::format("schedule     {}\n", result["schedule"].get<std::string>());
  out += fmt::format("length       {}, keys from {}\n", result["length"].get<Index>(),
                     result["start"].get<Index>());
  if (result.contains("layers")) out += layers_text(result["layers"]);
  const Json& first = result["first_excluded"];
  if (first.is_null()) {
    out += fmt::format("COVERED      {} queries, each reaches every eligible key\n",
                       result["queries_checked"].get<Index>());
  } else {
    out +=
        fmt::format("NOT COVERED  {} of {} queries exclude a key, {} pairs in all\n",
                    result["excluded_queries"].get<Index>(), result["queries_checked"].get<Index>(),
                    count_text(result["excluded_pairs"]));
    out += fmt::format("first hole   query {}, key {}, in the gap [{}, {})\n",
                       first["position"].get<Index>(), first["key"].get<Index>(),
                       first["gap"]["begin"].get<Index>(), first["gap"]["end"].get<Index>());
    if (!first["closing_backward"].is_null()) {
      out += fmt::format("closed by    --backward {} (that gap; four decimals)\n",
                         first["closing_backward"].get<double>());
    }
  }
  if (result.contains("averaged_pairs") && result["averaged_pairs"] != 0) {
    out += fmt::format(
        "averaged     {} of the pairs are in averages alone: content cannot choose them\n",
        count_text(result["averaged_pairs"]));
  }
  return out + work_text(result["work"]) +
         fmt::format("time         {:.2f} s\n", result["seconds"].get<double>());
}

/// What a verdict is about.
struct Subject {
  std::string name;
  Json steps;
  Json work;
  CoverageReport report;
  Json averaged_pairs;  // of a pattern
  Json layers;          // where they are asked for

  /// The report through one layer, or through those that are asked for.
  template <class One, class Layers>
  void verify(const LayersAsked& asked, One&& one, Layers&& through) {
    if (!asked.any) {
      report = one();
      return;
    }
    const LayersReport several = through(asked.number);
    report = several.coverage;
    layers = layers_json(several);
  }
};

Subject verify_file(const Options& options, const LayersAsked& asked, Index length, Index start) {
  Subject subject;
  subject.name = "spans of " + printable(options.spans);
  std::vector<QuerySpan> spans = read_spans(options.spans, length, start);
  naming_options([&] {
    ProgressBar bar("verify");
    subject.verify(
        asked, [&] { return verify_spans(std::move(spans), length, start); },
        [&](auto layers) {
          return verify_layers(std::move(spans), length, start, layers, bar.callback());
        });
  });
  return subject;
}

Subject verify_pattern(const Options& options, const LayersAsked& asked, Index length,
                       Index start) {
  PatternOptions given = options.pattern;
  if (options.seed_given->count() > 0) given.seed = options.seed;
  const Pattern pattern = given.pattern(options.schedule.top_k);
  Subject subject;
  subject.name = "pattern " + describe(pattern);
  naming_options([&] {
    ProgressBar bar("verify");
    const PatternReport report = multistep::verify_pattern(pattern, length, start, bar.callback());
    subject.work = pattern_work_json(report);
    subject.averaged_pairs = report.averaged_pairs;
    subject.verify(
        asked, [&] { return report.coverage; },
        [&](auto layers) { return verify_layers(pattern, length, start, layers, bar.callback()); });
  });
  return subject;
}

Subject verify_schedule(const Options& options, const LayersAsked& asked, Index length,
                        Index start) {
  const Schedule schedule = options.schedule.schedule();
  const bool all = options.queries == "all";
  const Index count = all ? 0 : parse_size("--queries", options.queries, 1, kMaxLength);
  const Index seed = parse_size("--seed", options.seed, 0, INT64_MAX);
  Subject subject;
  subject.name = describe(schedule);
  subject.steps = schedule.steps;
  naming_options([&] {
    ProgressBar bar("verify");
    subject.verify(
        asked,
        [&] {
          return all ? verify_all(schedule, length, start, bar.callback())
                     : verify_sampled(schedule, length, start, count,
                                      static_cast<std::uint64_t>(seed), bar.callback());
        },
        [&](auto layers) {
          return verify_layers(schedule, length, start, layers, bar.callback());
        });
    subject.work = work_json(schedule, length, start);
  });
  return subject;
}

int verify(const Options& options) {
  const Index length = parse_size("--length", options.length, 1, kMaxLength);
  const Index start = parse_size("--start", options.start, 0, length - 1);
  const Timer timer;
  const auto verify_subject = !options.spans.empty()          ? verify_file
                              : !options.pattern.name.empty() ? verify_pattern
                                                              : verify_schedule;
  const Subject subject = verify_subject(options, LayersAsked(options.layers), length, start);
  const CoverageReport& report = subject.report;

  Json result = {{"schedule", subject.name},
                 {"length", length},
                 {"start", start},
                 {"steps", subject.steps},
                 {"covered", report.covered()},
                 {"queries_checked", report.queries_checked},
                 {"excluded_queries", report.excluded_queries},
                 {"excluded_pairs", report.excluded_pairs},
                 {"first_excluded",
                  report.first_excluded ? exclusion_json(*report.first_excluded) : Json(nullptr)},
                 {"work", subject.work}};
  if (!subject.averaged_pairs.is_null()) result["averaged_pairs"] = subject.averaged_pairs;
  if (!subject.layers.is_null()) result["layers"] = subject.layers;
  result["seconds"] = timer.seconds();
  options.output.json ? options.output.write(result) : options.output.write(text(result));
  return report.covered() ? 0 : 1;
}

}  // namespace

void add_verify(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("verify", "Is every eligible key of every query reachable?");
  command->add_option("--length", options->length, "L in [1, 2^48], as 1000, 1M, 64Ki")->required();
  command->add_option("--start", options->start, "first eligible key, in [0, L) (default 0)");
  CLI::Option* queries = command->add_option(
      "--queries", options->queries,
      "all (default), or how many: stripe positions and their neighbours first, then random ones");
  CLI::Option* seed = options->seed_given = command->add_option(
      "--seed", options->seed, "seed of the random queries, or of a pattern's (default 1)");
  CLI::Option* spans = command->add_option(
      "--spans", options->spans,
      "check the final spans in this CSV (query,begin,end; - is standard input) instead");
  CLI::Option* layers = command->add_option(
      "--layers", options->layers,
      "through so many layers, or closure: through any number; up to 64Ki keys");
  CLI::Option* pattern = options->pattern.add(*command, "verify it instead");
  options->schedule.add(*command);
  options->output.add(*command);
  spans->excludes(queries);
  spans->excludes(seed);
  spans->excludes(pattern);
  layers->excludes(queries);
  pattern->excludes(queries);
  for (CLI::Option* option : options->schedule.all) spans->excludes(option);
  exclude_schedule(*pattern, options->schedule);
  command->footer(
      "Examples:\n"
      "  multistep verify --length 1M --steps 3\n"
      "  multistep verify --length 1000000000000 --queries 1000 --preset released --json\n"
      "  multistep verify --length 4096 --spans my_kernel.csv\n"
      "  multistep verify --length 257 --pattern strided --stride 16 --layers closure\n"
      "Theorems of proofs/ behind the answers: partitions_cover, factor_M_covers and\n"
      "far_reaching_covers (which schedules cover every length), smaller_factor_excludes (the "
      "factor\n"
      "that closes a gap), mean_work_of_covering_schedules (the lower bound of mean work),\n"
      "checker_lists_the_excluded (what is said of span lists)");
  command->callback([options, &run] { run = [options] { return verify(*options); }; });
}

}  // namespace multistep::program
