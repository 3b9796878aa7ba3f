#include <fmt/format.h>
#include <omp.h>

#include <bit>
#include <optional>

#include "multistep/coverage.hpp"
#include "multistep/work.hpp"
#include "program/commands.hpp"
#include "program/configs.hpp"
#include "program/fit.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/provenance.hpp"
#include "support/parallel.hpp"

namespace multistep::program {
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

/// What the queries of a sequence do and are offered, per query head.
struct Point {
  Index length = 0;
  Index queries = 0;       // counted: all, or evenly spread ones that stand for the others
  Count anchors_scored;    // of those counted, on paths that are drawn at random
  Count keys_attended;     // likewise
  Count choices;           // of those counted, the most that the steps offer to top_k paths
  double lower_bound = 0;  // of the choices, likewise
  bool covered = true;     // each of those counted reaches all of its keys

  double share() const { return static_cast<double>(queries) / static_cast<double>(length); }
  double drawn_work() const { return (anchors_scored + keys_attended).to_double() / share(); }

  /// Of all queries: exact where all are counted.
  Json of_all(Count counted) const {
    return queries == length ? Json(counted) : Json(counted.to_double() / share());
  }

  Json json() const {
    const bool bounded = covered && lower_bound > 0;  // 0: the windows have every key
    return {{"length", length},
            {"queries", queries},
            {"anchors_scored", of_all(anchors_scored)},
            {"keys_attended", of_all(keys_attended)},
            {"drawn_work", of_all(anchors_scored + keys_attended)},
            {"choices", of_all(choices)},
            {"lower_bound", lower_bound / share()},
            {"ratio", bounded ? Json(choices.to_double() / lower_bound) : Json()}};
  }
};

Point measure(const Schedule& schedule, Index length, Index samples, std::uint64_t seed) {
  const StripePlan plan(schedule, length);
  Point point;
  point.length = length;
  point.queries = std::min(length, samples);
  constexpr Index kBlock = 16;
  require_checkers(plan,
                   std::min<Index>(omp_get_max_threads(), (point.queries + kBlock - 1) / kBlock));
  const auto query_of = [&](Index k) {  // the middle of the k-th of `queries` equal parts
    const Index part = length / point.queries;
    const Index rest = length % point.queries;
    return k * part + k * rest / point.queries + part / 2;
  };
  struct Counted {
    WorkCount work;
    Index choices;
    bool covered;
  };
  std::vector<Counted> counted(static_cast<std::size_t>(point.queries));
  parallel_blocks(point.queries, kBlock, [&] {
    return [&, choices = MostChoices(plan), checker = SegmentChecker(plan)](Index begin,
                                                                            Index end) mutable {
      for (Index k = begin; k < end; ++k) {
        const Index query = query_of(k);
        counted[static_cast<std::size_t>(k)] = {
            random_routing_work(plan, query, seed + static_cast<std::uint64_t>(k)),
            choices.sum(query), checker.covered(query, 0)};
      }
    };
  });
  for (Index k = 0; k < point.queries; ++k) {  // in order: threads do not change a bit
    const auto& [work, choices, covered] = counted[static_cast<std::size_t>(k)];
    point.anchors_scored += work.anchors_scored;
    point.keys_attended += work.keys_attended;
    point.choices += choices;
    point.lower_bound +=
        work_lower_bound(schedule.steps, keys_outside_window(plan, query_of(k)), schedule.top_k);
    point.covered = point.covered && covered;
  }
  return point;
}

/// The exponent that the work of a sequence nears: 1 + 1/N with the default exponents; with two
/// steps of others, 1 + 1/e of the anchors or 1 + that of the spans, whichever is more.
double theory(const Schedule& schedule) {
  if (schedule.steps != 2 || !has_stripes(schedule.level(1).rule)) {
    return 1 + 1 / static_cast<double>(schedule.steps);
  }
  const Level& level = schedule.level(1);
  const double anchors = 1 / to_double(level.exponent);
  return 1 + std::max(anchors,
                      level.rule == Rule::power ? to_double(level.span_exponent) : 1 - anchors);
}

/// Mean work of one path of the last query for N = 1 ... log2 L, by each preset of any steps:
/// which N is cheapest at each length.
Json last_query_json(const std::vector<Index>& lengths) {
  Json records = Json::array();
  for (const Index length : lengths) {
    const Index most = std::bit_width(static_cast<std::uint64_t>(length)) - 1;
    for (const char* rule : {"nstep", "even", "aligned"}) {
      for (Index steps = 1; steps <= std::max<Index>(most, 1); ++steps) {
        const StripePlan plan(preset_schedule(rule, steps), length);
        const PathWork work = path_work(plan, length - 1).value();
        records.push_back({{"length", length},
                           {"rule", rule},
                           {"steps", steps},
                           {"work", work.mean},
                           {"lower_bound", work.lower_bound}});
      }
    }
  }
  return records;
}

std::string csv_text(const Json& result) {
  std::string out =
      "steps,length,queries,anchors_scored,keys_attended,drawn_work,choices,lower_bound,ratio\n";
  for (const Json& run : result["runs"]) {
    for (const Json& point : run["points"]) {
      out += run["steps"].dump();
      for (const Json& value : point) {
        out += fmt::format(",{}", value.is_null() ? "" : count_text(value));
      }
      out += "\n";
    }
  }
  return out;
}

double number(const Json& count) { return std::stod(count_text(count)); }

std::string text(const Json& result) {
  std::string out =
      "all queries of a sequence, per head: anchors scored and keys attended on paths drawn at\n"
      "random; the most choices that the steps offer, and the least that reach every key\n\n";
  for (const Json& run : result["runs"]) {
    out += fmt::format("{}\n{:>14} {:>12} {:>12} {:>12} {:>12} {:>8}\n",
                       run["schedule"].get<std::string>(), "length", "anchors", "keys", "choices",
                       "lower bound", "ratio");
    for (const Json& point : run["points"]) {
      const Json& ratio = point["ratio"];
      out += fmt::format("{:>14} {:>12.4g} {:>12.4g} {:>12.4g} {:>12.4g} {:>8}\n",
                         point["length"].get<Index>(), number(point["anchors_scored"]),
                         number(point["keys_attended"]), number(point["choices"]),
                         point["lower_bound"].get<double>(),
                         ratio.is_null() ? "-" : fmt::format("{:.3f}", ratio.get<double>()));
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
      const Point point = naming_options(
          [&, &of = schedule] { return measure(of, length, samples, seed); }, "--lengths");
      x.push_back(static_cast<double>(length));
      y.push_back(point.drawn_work());
      points.push_back(point.json());
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
      "runs with seeded random scores, so the work is what it did, not a formula; the exponent is\n"
      "fitted to it. Random paths may do less than N n^(1/N). What the steps offer may not: with\n"
      "k = top_k paths kept, c_m the most choices of step m and n the keys outside the window,\n"
      "c_1 + k (c_2 + ... + c_N) >= N (k^(N-1) n)^(1/N) in every scheme that reaches all n: the\n"
      "theorem covering_schedules_pay_for_paths of proofs/. The interval tells how well a power "
      "law\n"
      "fits these lengths, not where the exponent goes beyond them: whole numbers of anchors bend "
      "it.\n"
      "Example:\n"
      "  multistep scale --steps 2,3 --lengths 1Ki,8Ki,64Ki,512Ki --csv");
  command->callback([options, &run] { run = [options] { return scale(*options); }; });
}

}  // namespace multistep::program
