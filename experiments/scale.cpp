#include <fmt/format.h>

#include <optional>

#include "commands.hpp"
#include "fit.hpp"
#include "multistep/work.hpp"
#include "options.hpp"
#include "output.hpp"

namespace multistep {
namespace {

constexpr Index kMaxScaleLength = Index{1} << 40;

struct Options {
  std::string lengths = "1Ki,2Ki,4Ki,8Ki,16Ki,32Ki,64Ki,128Ki,256Ki,512Ki,1Mi";
  std::string samples = "2048";
  std::string seed = "1";
  bool csv = false;
  ScheduleOptions schedule;
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
  for (Index k = 0; k < point.queries; ++k) {
    // The middle of the k-th of `queries` equal parts of the sequence.
    const Index part = length / point.queries;
    const Index rest = length % point.queries;
    const Index query = k * part + k * rest / point.queries + part / 2;
    const WorkCount work = random_routing_work(plan, query, seed + static_cast<std::uint64_t>(k));
    point.anchors_scored += weight * static_cast<double>(work.anchors_scored);
    point.keys_attended += weight * static_cast<double>(work.keys_attended);
    point.lower_bound += weight * lower_bound(schedule.steps, query + 1);
  }
  return point;
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
  std::vector<Schedule> schedules;
  const std::string& preset = options.schedule.preset;
  const std::string all = preset == "paper" || preset == "released" ? "2" : "1,2,3,4";
  const std::string& given = options.schedule.steps;
  for (const std::string& steps : split("--steps", given.empty() ? all : given)) {
    schedules.push_back(options.schedule.schedule(steps));
  }
  if (options.csv && options.output.json) {
    throw std::invalid_argument("--csv: one of --csv and --json");
  }

  std::optional<ProgressBar> bar("scale");
  Index done = 0;
  Json runs = Json::array();
  for (const Schedule& schedule : schedules) {
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
      bar->show(++done, static_cast<Index>(schedules.size() * lengths.size()));
    }
    const PowerFit fit = fit_exponent(x, y);
    runs.push_back({{"steps", schedule.steps},
                    {"label", fmt::format("{} N={}", options.schedule.preset, schedule.steps)},
                    {"schedule", describe(schedule)},
                    {"top_k", schedule.top_k},
                    {"points", points},
                    {"fit",
                     {{"exponent", fit.exponent},
                      {"low", fit.low},
                      {"high", fit.high},
                      {"theory", 1 + 1 / static_cast<double>(schedule.steps)}}}});
  }
  bar.reset();
  const Json result = {{"samples", samples}, {"seed", seed}, {"runs", runs}};
  if (options.output.json) {
    options.output.write(result);
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
  command->add_flag("--csv", options->csv, "print the points as CSV");
  options->schedule.add(*command);
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
