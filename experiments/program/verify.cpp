#include <fmt/format.h>

#include "multistep/coverage.hpp"
#include "multistep/work.hpp"
#include "program/commands.hpp"
#include "program/csv.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/printable.hpp"

namespace multistep::program {
namespace {

struct Options {
  std::string length;
  std::string start = "0";
  std::string queries = "all";
  std::string seed = "1";
  std::string spans;
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

std::string work_text(const Json& work) {
  if (work.is_null()) return {};  // a list of spans has no schedule
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
  return out + work_text(result["work"]) +
         fmt::format("time         {:.2f} s\n", result["seconds"].get<double>());
}

int verify(const Options& options) {
  const Index length = parse_size("--length", options.length, 1, kMaxLength);
  const Index start = parse_size("--start", options.start, 0, length - 1);
  const Timer timer;
  CoverageReport report;
  std::string name;
  Json steps;
  Json work;
  if (!options.spans.empty()) {
    report = verify_spans(read_spans(options.spans, length, start), length, start);
    name = "spans of " + printable(options.spans);
  } else {
    const Schedule schedule = options.schedule.schedule();
    const bool all = options.queries == "all";
    const Index count = all ? 0 : parse_size("--queries", options.queries, 1, kMaxLength);
    const Index seed = parse_size("--seed", options.seed, 0, INT64_MAX);
    name = describe(schedule);
    steps = schedule.steps;
    naming_options([&] {
      ProgressBar bar("verify");
      report = all ? verify_all(schedule, length, start, bar.callback())
                   : verify_sampled(schedule, length, start, count,
                                    static_cast<std::uint64_t>(seed), bar.callback());
      work = work_json(schedule, length, start);
    });
  }

  const Json result = {
      {"schedule", name},
      {"length", length},
      {"start", start},
      {"steps", steps},
      {"covered", report.covered()},
      {"queries_checked", report.queries_checked},
      {"excluded_queries", report.excluded_queries},
      {"excluded_pairs", report.excluded_pairs},
      {"first_excluded",
       report.first_excluded ? exclusion_json(*report.first_excluded) : Json(nullptr)},
      {"work", work},
      {"seconds", timer.seconds()}};
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
  CLI::Option* seed =
      command->add_option("--seed", options->seed, "seed of the random queries (default 1)");
  CLI::Option* spans = command->add_option(
      "--spans", options->spans,
      "check the final spans in this CSV (query,begin,end; - is standard input) instead");
  options->schedule.add(*command);
  options->output.add(*command);
  spans->excludes(queries);
  spans->excludes(seed);
  for (CLI::Option* option : options->schedule.all) spans->excludes(option);
  command->footer(
      "Examples:\n"
      "  multistep verify --length 1M --steps 3\n"
      "  multistep verify --length 1000000000000 --queries 1000 --preset released --json\n"
      "  multistep verify --length 4096 --spans my_kernel.csv\n"
      "Theorems of proofs/ behind the answers: partitions_cover, factor_M_covers and\n"
      "far_reaching_covers (which schedules cover every length), smaller_factor_excludes (the "
      "factor\n"
      "that closes a gap), mean_work_of_covering_schedules (the lower bound of mean work),\n"
      "checker_lists_the_excluded (what is said of span lists)");
  command->callback([options, &run] { run = [options] { return verify(*options); }; });
}

}  // namespace multistep::program
