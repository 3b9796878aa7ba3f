#include <fmt/format.h>

#include <bit>
#include <optional>

#include "commands.hpp"
#include "configs.hpp"
#include "fit.hpp"
#include "multistep/work.hpp"
#include "options.hpp"
#include "output.hpp"
#include "provenance.hpp"

namespace multistep {
namespace {

constexpr Index kMaxScaleLength = Index{1} << 40;

struct Options {
  std::string lengths = "1Ki,2Ki,4Ki,8Ki,16Ki,32Ki,64Ki,128Ki,256Ki,512Ki,1Mi";
  std::string samples = "2048";
  std::string seed = "1";
  std::string configs;
  bool last_query = false;
  bool csv = false;
  ScheduleOptions schedule;
  Provenance provenance;
  OutputOptions output;
};

/// Work of all queries of a sequence, per query head.
struct Point {
  Index length = 0;
  Index queries = 0;  // counted: all, or evenly spread ones that stand for the others
  double anchors_scored = 0;
  double keys_attended = 0;
  double lower_bound = 0;

  double work() const { return anchors_scored + keys_attended; }
};

Point measure(const Schedule& schedule, Index length, Index samples, std::uint64_t seed) {
  const auto plan = naming_options([&] { return StripePlan(schedule, length); }, "--lengths");
  Point point{length, std::min(length, samples)};
  const double weight = static_cast<double>(length) / static_cast<double>(point.queries);
  const auto query_of = [&](Index k) {  // the middle of the k-th of `queries` equal parts
    const Index part = length / point.queries;
    const Index rest = length % point.queries;
    return k * part + k * rest / point.queries + part / 2;
  };
  std::vector<WorkCount> counts(static_cast<std::size_t>(point.queries));
#pragma omp parallel for schedule(dynamic, 16)
  for (Index k = 0; k < point.queries; ++k) {
    counts[static_cast<std::size_t>(k)] =
        random_routing_work(plan, query_of(k), seed + static_cast<std::uint64_t>(k));
  }
  for (Index k = 0; k < point.queries; ++k) {  // in order: threads do not change a bit
    const WorkCount& work = counts[static_cast<std::size_t>(k)];
    point.anchors_scored += weight * static_cast<double>(work.anchors_scored);
    point.keys_attended += weight * static_cast<double>(work.keys_attended);
    point.lower_bound += weight * lower_bound(schedule.steps, query_of(k) + 1);
  }
  return point;
}

/// The exponent that the work of a sequence nears: 1 + 1/N with the default exponents; with two
/// steps of others, 1 + 1/e of the anchors or 1 + that of the spans, whichever is more.
double theory(const Schedule& schedule) {
  if (schedule.steps != 2 || schedule.level(1).rule == Rule::even) {
    return 1 + 1 / static_cast<double>(schedule.steps);
  }
  const Level& level = schedule.level(1);
  const double anchors = 1 / to_double(level.exponent);
  return 1 + std::max(anchors,
                      level.rule == Rule::power ? to_double(level.span_exponent) : 1 - anchors);
}

/// Mean work of one path of the last query for N = 1 ... log2 L, by the default and the even rule:
/// which N is cheapest at each length.
Json last_query_json(const std::vector<Index>& lengths) {
  Json records = Json::array();
  for (const Index length : lengths) {
    const Index most = std::bit_width(static_cast<std::uint64_t>(length)) - 1;
    for (const char* rule : {"nstep", "even"}) {
      for (Index steps = 1; steps <= std::max<Index>(most, 1); ++steps) {
        const StripePlan plan(preset(rule, steps), length);
        records.push_back({{"length", length},
                           {"rule", rule},
                           {"steps", steps},
                           {"work", path_work(plan, length - 1).mean},
                           {"lower_bound", lower_bound(steps, length)}});
      }
    }
  }
  return records;
}

std::string csv_text(const Json& result) {
  std::string out = "steps,length,queries,anchors_scored,keys_attended,work,lower_bound,ratio\n";
  for (const Json& run : result["runs"]) {
    for (const Json& point : run["points"]) {
      out += fmt::format("{},{},{},{},{},{},{},{}\n", run["steps"].get<Index>(),
                         point["length"].get<Index>(), point["queries"].get<Index>(),
                         point["anchors_scored"].get<double>(),
                         point["keys_attended"].get<double>(), point["work"].get<double>(),
                         point["lower_bound"].get<double>(), point["ratio"].get<double>());
    }
  }
  return out;
}

std::string text(const Json& result) {
  std::string out = "work of a sequence, all its queries, in keys per head\n\n";
  for (const Json& run : result["runs"]) {
    out +=
        fmt::format("{}\n{:>14} {:>14} {:>14} {:>14} {:>8}\n", run["schedule"].get<std::string>(),
                    "length", "anchors", "keys", "lower bound", "ratio");
    for (const Json& point : run["points"]) {
      out += fmt::format("{:>14} {:>14.4g} {:>14.4g} {:>14.4g} {:>8.3f}\n",
                         point["length"].get<Index>(), point["anchors_scored"].get<double>(),
                         point["keys_attended"].get<double>(), point["lower_bound"].get<double>(),
                         point["ratio"].get<double>());
    }
    const Json& fit = run["fit"];
    out += fmt::format("exponent {:.4f}, 95 % interval [{:.4f}, {:.4f}]; theory {:.4f}\n\n",
                       fit["exponent"].get<double>(), fit["low"].get<double>(),
                       fit["high"].get<double>(), fit["theory"].get<double>());
  }
  return out;
}

std::vector<Config> read_configs(const Options& options) {
  if (!options.configs.empty()) return configs_of("--configs", options.configs);
  const std::string& preset = options.schedule.preset;
  const std::string all = preset == "paper" || preset == "released" ? "2" : "1,2,3,4";
  const std::string& given = options.schedule.steps;
  std::vector<Config> configs;
  for (const std::string& steps : split("--steps", given.empty() ? all : given)) {
    configs.push_back(config_of(options.schedule, steps));
  }
  return configs;
}

int scale(const Options& options) {
  std::vector<Index> lengths;
  for (const std::string& length : split("--lengths", options.lengths)) {
    lengths.push_back(parse_size("--lengths", length, 1, kMaxScaleLength));
    if (lengths.size() > 1 && lengths.back() <= lengths[lengths.size() - 2]) {
      throw std::invalid_argument(
          fmt::format("--lengths {}: lengths in ascending order", options.lengths));
    }
  }
  if (lengths.size() < 3) {
    throw std::invalid_argument(
        fmt::format("--lengths {}: a fit needs at least 3 lengths", options.lengths));
  }
  const Index samples = parse_size("--samples", options.samples, 1, 1 << 24);
  const auto seed = static_cast<std::uint64_t>(parse_size("--seed", options.seed, 0, INT64_MAX));
  if (options.csv && options.output.json) {
    throw std::invalid_argument("--csv: one of --csv and --json");
  }
  if (options.last_query && !options.output.json) {
    throw std::invalid_argument("--last-query: with --json alone");
  }
  Json result = options.provenance.json();
  const std::vector<Config> configs = read_configs(options);
  const Timer timer;

  std::optional<ProgressBar> bar("scale");
  Index done = 0;
  Json runs = Json::array();
  for (const auto& [name, family, schedule] : configs) {
    std::vector<double> x;
    std::vector<double> y;
    Json points = Json::array();
    for (const Index length : lengths) {
      const Point point = measure(schedule, length, samples, seed);
      x.push_back(static_cast<double>(length));
      y.push_back(point.work());
      points.push_back({{"length", length},
                        {"queries", point.queries},
                        {"anchors_scored", point.anchors_scored},
                        {"keys_attended", point.keys_attended},
                        {"work", point.work()},
                        {"lower_bound", point.lower_bound},
                        {"ratio", point.work() / point.lower_bound}});
      bar->show(++done, static_cast<Index>(configs.size() * lengths.size()));
    }
    const PowerFit fit = fit_exponent(x, y);
    runs.push_back({{"config", name},
                    {"rule", family},
                    {"steps", schedule.steps},
                    {"label", fmt::format("{} N={}", family, schedule.steps)},
                    {"schedule", describe(schedule)},
                    {"top_k", schedule.top_k},
                    {"points", points},
                    {"fit",
                     {{"exponent", fit.exponent},
                      {"low", fit.low},
                      {"high", fit.high},
                      {"theory", theory(schedule)}}}});
  }
  bar.reset();
  result["samples"] = samples;
  result["seed"] = seed;
  result["runs"] = std::move(runs);
  if (options.last_query) result["last_query"] = last_query_json(lengths);
  result["seconds"] = timer.seconds();
  if (options.output.json) {
    options.output.write(record_lines(result));
  } else {
    options.output.write(options.csv ? csv_text(result) : text(result));
  }
  return 0;
}

}  // namespace

void add_scale(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  options->schedule.steps.clear();
  CLI::App* command =
      app.add_subcommand("scale", "Work counted over a range of lengths, with the fitted exponent");
  command->add_option("--lengths", options->lengths,
                      "comma-separated, ascending, in [1, 2^40] (default 1Ki to 1Mi by doubling)");
  command->add_option("--samples", options->samples,
                      "queries counted of each length, evenly spread (default 2048)");
  command->add_option("--seed", options->seed, "seed of the anchors chosen (default 1)");
  CLI::Option* configs =
      command->add_option("--configs", options->configs,
                          fmt::format("instead of a schedule, a list of {}", kConfigNames));
  command->add_flag("--last-query", options->last_query,
                    "for the JSON, one path of the last query too, for N = 1 ... log2 L");
  command->add_flag("--csv", options->csv, "print the points as CSV");
  options->schedule.add(*command);
  for (CLI::Option* option : options->schedule.all) configs->excludes(option);
  options->provenance.add(*command);
  options->output.add(*command);
  command->footer(
      "Here --steps takes a list (default 1,2,3,4, or 2 for the presets of two steps). The search\n"
      "runs with seeded random scores, so the work is what it did, not a formula. The bound is "
      "for\n"
      "one path; top_k = 2 follows two. The interval tells how well a power law fits these\n"
      "lengths, not where the exponent goes beyond them: whole numbers of anchors bend it.\n"
      "Example:\n"
      "  multistep scale --steps 2,3 --lengths 1Ki,8Ki,64Ki,512Ki --csv");
  command->callback([options, &run] { run = [options] { return scale(*options); }; });
}

}  // namespace multistep
