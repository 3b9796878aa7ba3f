#include <fmt/format.h>
#include <omp.h>

#include <bit>
#include <functional>
#include <optional>

#include "multistep/coverage.hpp"
#include "multistep/work.hpp"
#include "program/commands.hpp"
#include "program/configs.hpp"
#include "program/fit.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/pattern.hpp"
#include "program/provenance.hpp"
#include "support/parallel.hpp"
#include "support/random.hpp"

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
  CLI::Option* seed_given = nullptr;
  PatternOptions pattern;
  ScheduleOptions schedule;
  Provenance provenance;
  OutputOptions output;
};

/// The queries of a sequence in `queries` equal parts: the first of the k-th.
Index part_begin(Index length, Index queries, Index k) {
  return length / queries * k + length % queries * k / queries;
}

/// The middle of the k-th part: as `queries` go through all parts they are evenly spread.
Index middle_query(Index length, Index queries, Index k) {
  return part_begin(length, queries, k) + length / queries / 2;
}

/// Any one of the k-th part: evenly spread ones would all stand at the same place of their blocks.
Index random_query(Index length, Index queries, Index k, std::uint64_t seed) {
  const Index begin = part_begin(length, queries, k);
  std::uint64_t state = mixed_bits(seed + kRandomStride) + static_cast<std::uint64_t>(k);
  return begin +
         static_cast<Index>(next_random(state) %
                            static_cast<std::uint64_t>(part_begin(length, queries, k + 1) - begin));
}

/// What was counted of `queries`, for all `length` of them: exact where it is of all.
Json of_all(Count counted, Index queries, Index length) {
  if (queries == length) return counted;
  return counted.to_double() / (static_cast<double>(queries) / static_cast<double>(length));
}

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

  Json of_all(Count counted) const { return program::of_all(counted, queries, length); }

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
  const auto query_of = [&](Index k) { return middle_query(length, point.queries, k); };
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

/// Likewise of a pattern: products with what it scores to choose and with what it attends to.
Json measure_pattern(const Pattern& pattern, Index length, Index samples, std::uint64_t seed) {
  const Index queries = std::min(length, samples);
  Count scored;
  Count attended;
  for (Index k = 0; k < queries; ++k) {
    const PatternRow row = pattern.row(random_query(length, queries, k, seed));
    scored += row.scored;
    attended += row.attended;
  }
  const auto all = [&](Count counted) { return of_all(counted, queries, length); };
  return {{"length", length},
          {"queries", queries},
          {"scored", all(scored)},
          {"attended", all(attended)},
          {"work", all(scored + attended)}};
}

/// The exponent that the work of a sequence nears: 1 more than that of the step with most choices.
/// A level with segments of n keys has n^(1/e) stripes, or n^(1/M) parts; each stands for
/// n^(1-1/e), n^(1-1/M) or, by the power rule, n^q keys, of a level whose factors are 0 for one.
double theory(const Schedule& schedule) {
  double keys = 1;  // of a segment, as an exponent of L
  double most = 0;
  for (Index m = 1; m < schedule.steps; ++m) {
    const Level& level = schedule.level(m);
    const double choices =
        1 / (has_stripes(level.rule) ? to_double(level.exponent)
                                     : static_cast<double>(schedule.steps - m + 1));
    most = std::max(most, keys * choices);
    if (level.rule != Rule::power) {
      keys -= keys * choices;
    } else {
      const bool anchor_alone = level.backward.numerator == 0 && level.forward.numerator == 0;
      keys *= anchor_alone ? 0 : to_double(level.span_exponent);
    }
  }
  return 1 + std::max(most, keys);
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
  const Json& first = result["runs"][0];
  const char* const subject = first.contains("pattern") ? "pattern" : "steps";
  std::string out = subject;
  for (const auto& [name, value] : first["points"][0].items()) out += fmt::format(",{}", name);
  for (const Json& run : result["runs"]) {
    const Json& of = run[subject];
    for (const Json& point : run["points"]) {
      out += fmt::format("\n{}", of.is_string() ? of.get<std::string>() : of.dump());
      for (const Json& value : point) {
        out += fmt::format(",{}", value.is_null() ? "" : count_text(value));
      }
    }
  }
  return out + "\n";
}

double number(const Json& count) { return std::stod(count_text(count)); }

/// A column of the text: what it is called there and in the JSON.
using Column = std::pair<const char*, const char*>;

std::string text(const Json& result) {
  const bool patterns = result["runs"][0].contains("pattern");
  std::string out =
      patterns ? "all queries of a sequence, per head: products with what they score to choose, "
                 "and with\nwhat they attend to\n\n"
               : "all queries of a sequence, per head: anchors scored and keys attended on paths "
                 "drawn at\nrandom; the most choices that the steps offer, and the least that "
                 "reach every key\n\n";
  const std::vector<Column> columns =
      patterns
          ? std::vector<Column>{{"scored", "scored"}, {"attended", "attended"}, {"work", "work"}}
          : std::vector<Column>{{"anchors", "anchors_scored"},
                                {"keys", "keys_attended"},
                                {"choices", "choices"},
                                {"lower bound", "lower_bound"}};
  for (const Json& run : result["runs"]) {
    out += fmt::format("{}\n{:>14}", run["schedule"].get<std::string>(), "length");
    for (const auto& [title, name] : columns) out += fmt::format(" {:>12}", title);
    out += patterns ? "\n" : fmt::format(" {:>8}\n", "ratio");
    for (const Json& point : run["points"]) {
      out += fmt::format("{:>14}", point["length"].get<Index>());
      for (const auto& [title, name] : columns)
        out += fmt::format(" {:>12.4g}", number(point[name]));
      if (!patterns) {
        const Json& ratio = point["ratio"];
        out += fmt::format(" {:>8}",
                           ratio.is_null() ? "-" : fmt::format("{:.3f}", ratio.get<double>()));
      }
      out += "\n";
    }
    const Json& fit = run["fit"];
    out += fmt::format("exponent {:.4f}, 95 % interval [{:.4f}, {:.4f}]",
                       fit["exponent"].get<double>(), fit["low"].get<double>(),
                       fit["high"].get<double>());
    if (!patterns) out += fmt::format("; theory {:.4f}", fit["theory"].get<double>());
    out += "\n\n";
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

std::vector<Index> read_lengths(const Options& options) {
  const Index longest = options.pattern.name.empty() ? kMaxScaleLength : kMaxPatternLength;
  std::vector<Index> lengths;
  for (const std::string& length : split("--lengths", options.lengths)) {
    lengths.push_back(parse_size("--lengths", length, 1, longest));
    if (lengths.size() > 1 && lengths.back() <= lengths[lengths.size() - 2]) {
      throw std::invalid_argument(
          fmt::format("--lengths {}: lengths in ascending order", options.lengths));
    }
  }
  if (lengths.size() < 3) {
    throw std::invalid_argument(
        fmt::format("--lengths {}: a fit needs at least 3 lengths", options.lengths));
  }
  return lengths;
}

/// The points of one subject over the lengths, and the exponent of what `work` names in them.
Json points_json(const std::vector<Index>& lengths, const char* work,
                 const std::function<Json(Index length)>& measured) {
  std::vector<double> x;
  std::vector<double> y;
  Json points = Json::array();
  for (const Index length : lengths) {
    Json point = measured(length);
    x.push_back(static_cast<double>(length));
    y.push_back(number(point[work]));
    points.push_back(std::move(point));
  }
  const PowerFit fit = fit_exponent(x, y);
  return {{"points", std::move(points)},
          {"fit", {{"exponent", fit.exponent}, {"low", fit.low}, {"high", fit.high}}}};
}

Json schedule_runs(const Options& options, const std::vector<Index>& lengths, Index samples,
                   std::uint64_t seed) {
  const std::vector<Config> configs = read_configs(options);
  ProgressBar bar("scale");
  Index done = 0;
  Json runs = Json::array();
  for (const auto& [name, family, schedule] : configs) {
    Json run = {{"config", name},
                {"rule", family},
                {"steps", schedule.steps},
                {"label", fmt::format("{} N={}", family, schedule.steps)},
                {"schedule", describe(schedule)},
                {"top_k", schedule.top_k}};
    run.update(points_json(lengths, "drawn_work", [&, &of = schedule](Index length) {
      const Point point =
          naming_options([&] { return measure(of, length, samples, seed); }, "--lengths");
      bar.show(++done, static_cast<Index>(configs.size() * lengths.size()));
      return point.json();
    }));
    run["fit"]["theory"] = theory(schedule);
    runs.push_back(std::move(run));
  }
  return runs;
}

/// Are there random numbers in a pattern? The seed is that of the queries, too.
bool takes_seed(const std::string& name) {
  return std::ranges::any_of(naming_options([&] { return Pattern(name); }).parameters(),
                             [](const auto& parameter) { return parameter.name == "seed"; });
}

Json pattern_runs(const Options& options, const std::vector<Index>& lengths, Index samples,
                  std::uint64_t seed) {
  PatternOptions given = options.pattern;
  const std::vector<std::string> names = split("--pattern", given.name);
  ProgressBar bar("scale");
  Index done = 0;
  Json runs = Json::array();
  for (const std::string& name : names) {
    given.name = name;
    given.seed = options.seed_given->count() > 0 && takes_seed(name) ? options.seed : "";
    const Pattern pattern = given.pattern(options.schedule.top_k);
    Json run = {{"pattern", name}, {"schedule", "pattern " + describe(pattern)}};
    run.update(points_json(lengths, "work", [&](Index length) {
      bar.show(++done, static_cast<Index>(names.size() * lengths.size()));
      return measure_pattern(pattern, length, samples, seed);
    }));
    runs.push_back(std::move(run));
  }
  return runs;
}

int scale(const Options& options) {
  const std::vector<Index> lengths = read_lengths(options);
  const Index samples = parse_size("--samples", options.samples, 1, 1 << 24);
  const auto seed = static_cast<std::uint64_t>(parse_size("--seed", options.seed, 0, INT64_MAX));
  if (options.csv && options.output.json) {
    throw std::invalid_argument("--csv: one of --csv and --json");
  }
  if (options.last_query && !options.output.json) {
    throw std::invalid_argument("--last-query: with --json alone");
  }
  Json result = options.provenance.json();
  const Timer timer;
  Json runs = options.pattern.name.empty() ? schedule_runs(options, lengths, samples, seed)
                                           : pattern_runs(options, lengths, samples, seed);
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
                      "queries counted of each length, spread over it (default 2048)");
  options->seed_given = command->add_option(
      "--seed", options->seed,
      "seed of the anchors chosen, or of a pattern's blocks and queries (default 1)");
  CLI::Option* configs =
      command->add_option("--configs", options->configs,
                          fmt::format("instead of a schedule, a list of {}", kConfigNames));
  CLI::Option* last_query =
      command->add_flag("--last-query", options->last_query,
                        "for the JSON, one path of the last query too, for N = 1 ... log2 L");
  command->add_flag("--csv", options->csv, "print the points as CSV");
  CLI::Option* pattern =
      options->pattern.add(*command, "instead, a list of these (lengths to 2^24)");
  options->schedule.add(*command);
  exclude_schedule(*pattern, options->schedule);
  pattern->excludes(configs)->excludes(last_query);
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
      "  multistep scale --steps 2,3 --lengths 1Ki,8Ki,64Ki,512Ki --csv\n"
      "  multistep scale --pattern moba,nsa,log-linear --lengths 1Ki,8Ki,64Ki,512Ki");
  command->callback([options, &run] { run = [options] { return scale(*options); }; });
}

}  // namespace multistep::program
