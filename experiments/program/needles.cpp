#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>

#include "program/commands.hpp"
#include "program/configs.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/provenance.hpp"
#include "studies/routing.hpp"

namespace multistep::program {
namespace {

// A query's search is a loop over its anchors; two steps score 2^20 of them at this length.
constexpr Index kMaxNeedleLength = Index{1} << 40;
constexpr Index kExhaustiveLength = Index{1} << 16;
constexpr const char* kBaselines[] = {"random", "blocks"};

constexpr char kNote[] =
    "A model of routing alone: score = [the candidate's span holds the needle] + noise * normal "
    "draw. It says what the structure of a schedule allows and how noise adds up over its steps. "
    "It claims nothing about the quality of any model, nor how noisy a trained router is. Without "
    "noise every needle must be found.";

struct Options {
  std::string lengths = "4Ki,64Ki,1Mi";
  std::string configs;
  std::string noise = "0,0.1,0.2,0.3,0.5,1";
  std::string depths = "8";
  std::string trials = "256";
  std::string seed = "1";
  ScheduleOptions schedule;
  Provenance provenance;
  OutputOptions output;
};

struct Task {
  std::vector<Config> configs;
  std::vector<Index> top_ks;
  std::vector<Index> lengths;
  std::vector<double> noises;
  Index depths = 0;
  Index trials = 0;
  std::uint64_t seed = 0;
};

double parse_noise(const std::string& text) {
  double value = -1;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !(value >= 0 && value <= 1000)) {
    throw std::invalid_argument(fmt::format("--noise {}: a number in [0, 1000]", text));
  }
  return value;
}

Task read(const Options& options) {
  Task task;
  ScheduleOptions schedule = options.schedule;
  const std::string top_ks = schedule.top_k.empty() ? "1,2,4" : schedule.top_k;
  schedule.top_k.clear();
  for (const std::string& top_k : split("--top-k", top_ks)) {
    task.top_ks.push_back(parse_size("--top-k", top_k, 1, 64));
  }
  if (options.configs.empty()) {
    task.configs = {config_of(schedule, schedule.steps)};
  } else {
    task.configs = configs_of("--configs", options.configs);
  }
  for (const std::string& length : split("--lengths", options.lengths)) {
    task.lengths.push_back(parse_size("--lengths", length, 1, kMaxNeedleLength));
  }
  for (const std::string& noise : split("--noise", options.noise)) {
    task.noises.push_back(parse_noise(noise));
  }
  task.depths = parse_size("--depths", options.depths, 1, 1000);
  for (const Index length : task.lengths) {
    if (length < task.depths) {
      throw std::invalid_argument(
          fmt::format("--lengths {}: keys, as many as --depths {} or more", length, task.depths));
    }
  }
  task.trials = parse_size("--trials", options.trials, 1, 1 << 24);
  task.seed = static_cast<std::uint64_t>(parse_size("--seed", options.seed, 0, INT64_MAX));
  return task;
}

/// What a hunt's trials add up to.
struct Tally {
  Index found = 0;
  Count anchors_scored;
  Count keys_attended;

  double work() const { return (anchors_scored + keys_attended).to_double(); }

  void add(const Hunt& hunt) {
    found += hunt.found;
    anchors_scored += hunt.work.anchors_scored;
    keys_attended += hunt.work.keys_attended;
  }
  void add(const Tally& other) {
    found += other.found;
    anchors_scored += other.anchors_scored;
    keys_attended += other.keys_attended;
  }
};

/// One schedule, top_k, length, noise and range of depths.
struct Cell {
  const Config* config = nullptr;
  Index top_k = 0;
  Index length = 0;
  double noise = 0;
  double depth = 0;
  Index trials = 0;
  std::array<Tally, 3> tallies;  // the schedule, then the baselines
};

/// A seed for trial `trial` of the cell number `cell`: SplitMix64's increment apart would let their
/// streams overlap, so each starts at a hash.
std::uint64_t seed_of(std::uint64_t seed, std::uint64_t cell, std::uint64_t trial) {
  std::uint64_t z = seed;
  for (const std::uint64_t word : {cell, trial}) {
    z = (z ^ word) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 32)) * 0xd6e8feb86659fd93;
    z ^= z >> 32;
  }
  return z;
}

/// Needles at distances [near, far) from the query: each once where `every`, else drawn.
void fill(Cell& cell, const StripePlan& plan, Index near, Index far, bool every, std::uint64_t seed,
          std::uint64_t number) {
  const Index query = cell.length - 1;
  std::array<Tally, 3> sums;
#pragma omp parallel
  {
    std::array<Tally, 3> mine;
#pragma omp for schedule(dynamic, 16)
    for (Index trial = 0; trial < cell.trials; ++trial) {
      std::uint64_t bits = seed_of(seed, number, static_cast<std::uint64_t>(trial));
      const Index drawn = static_cast<Index>(bits % static_cast<std::uint64_t>(far - near));
      const Index needle = query - near - (every ? trial : drawn);
      const Hunt own = hunt(plan, query, needle, cell.noise, ++bits);
      mine[0].add(own);
      mine[1].add(hunt_at_random(plan, query, needle, cell.noise, ~bits, own));
      mine[2].add(hunt_in_blocks(plan, query, needle, cell.noise, bits ^ 0x5555555555555555, own));
    }
#pragma omp critical(multistep_needles)
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i].add(mine[i]);  // integers: any order
  }
  cell.tallies = sums;
}

Json record(const Cell& cell, std::size_t which) {
  const Tally& tally = cell.tallies[which];
  const auto trials = static_cast<double>(cell.trials);
  Json json;
  if (which > 0) json["baseline"] = kBaselines[which - 1];
  json.update({{"schedule", cell.config->name},
               {"steps", cell.config->schedule.steps},
               {"rule", cell.config->family},
               {"top_k", cell.top_k},
               {"length", cell.length},
               {"depth", cell.depth},
               {"noise", cell.noise},
               {"trials", cell.trials},
               {"found", tally.found},
               {"anchors_scored", tally.anchors_scored.to_double() / trials},
               {"keys_attended", tally.keys_attended.to_double() / trials},
               {"work", tally.work() / trials}});
  return json;
}

/// The share found over all depths, with the baselines beside it.
std::string text(const std::vector<Cell>& cells, Index depths) {
  std::string out =
      "needles found, over all depths, by routing of its own noise: a model of "
      "routing alone\n\n";
  out += fmt::format("{:10} {:>5} {:>10} {:>6} {:>8} {:>10} {:>8} {:>8} {:>8}\n", "schedule",
                     "top_k", "length", "noise", "trials", "work", "found", "random", "blocks");
  for (std::size_t at = 0; at < cells.size(); at += static_cast<std::size_t>(depths)) {
    std::array<Tally, 3> sums;
    Index trials = 0;
    for (std::size_t i = at; i < at + static_cast<std::size_t>(depths); ++i) {
      trials += cells[i].trials;
      for (std::size_t j = 0; j < sums.size(); ++j) sums[j].add(cells[i].tallies[j]);
    }
    const auto all = static_cast<double>(trials);
    const auto share = [&](const Tally& tally) {
      return 100 * static_cast<double>(tally.found) / all;
    };
    const Cell& cell = cells[at];
    out += fmt::format("{:10} {:5} {:10} {:6} {:8} {:10.1f} {:6.1f} % {:6.1f} % {:6.1f} %\n",
                       cell.config->name, cell.top_k, cell.length, cell.noise, trials,
                       sums[0].work() / all, share(sums[0]), share(sums[1]), share(sums[2]));
  }
  return out;
}

int needles(const Options& options) {
  const Task task = read(options);
  Json result = options.provenance.json();
  const Timer timer;
  std::optional<ProgressBar> bar("needles");
  std::vector<Cell> cells;
  const std::size_t count = task.configs.size() * task.top_ks.size() * task.lengths.size() *
                            task.noises.size() * static_cast<std::size_t>(task.depths);
  for (const Config& config : task.configs) {
    for (const Index top_k : task.top_ks) {
      Schedule schedule = config.schedule;
      schedule.top_k = top_k;
      for (const Index length : task.lengths) {
        const auto plan = naming_options([&] { return StripePlan(schedule, length); }, "--lengths");
        for (const double noise : task.noises) {
          const bool every = noise == 0 && length <= kExhaustiveLength;
          for (Index at = 0; at < task.depths; ++at) {
            const Index near = length / task.depths * at;
            const Index far = at + 1 == task.depths ? length : near + length / task.depths;
            Cell cell{&config, top_k, length, noise, 0, every ? far - near : task.trials, {}};
            cell.depth = (static_cast<double>(at) + 0.5) / static_cast<double>(task.depths);
            fill(cell, plan, near, far, every, task.seed, cells.size());
            cells.push_back(cell);
            bar->show(static_cast<Index>(cells.size()), static_cast<Index>(count));
          }
        }
      }
    }
  }
  bar.reset();

  Json records = Json::array();
  Json baselines = Json::array();
  Index missed = 0;
  for (const Cell& cell : cells) {
    records.push_back(record(cell, 0));
    baselines.push_back(record(cell, 1));
    baselines.push_back(record(cell, 2));
    if (cell.noise > 0 || cell.tallies[0].found == cell.trials) continue;
    if (missed++ == 0) {
      fmt::print(stderr,
                 "multistep needles: {} at {}: {} of {} needles around depth {} not found, and "
                 "nothing was noisy\n",
                 cell.config->name, cell.length, cell.trials - cell.tallies[0].found, cell.trials,
                 cell.depth);
    }
  }
  result["seed"] = task.seed;
  result["note"] = kNote;
  result["perfect"] = missed == 0;
  result["records"] = std::move(records);
  result["baselines"] = std::move(baselines);
  result["seconds"] = timer.seconds();
  options.output.json ? options.output.write(record_lines(result))
                      : options.output.write(text(cells, task.depths));
  return missed == 0 ? 0 : 1;
}

}  // namespace

void add_needles(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "needles", "Are planted keys found as the routing grows noisy? Structure, not model quality");
  command->add_option("--lengths", options->lengths,
                      "comma-separated, in [1, 2^40] (default 4Ki,64Ki,1Mi)");
  CLI::Option* configs =
      command->add_option("--configs", options->configs,
                          fmt::format("instead of a schedule, a list of {}", kConfigNames));
  command->add_option("--noise", options->noise,
                      "standard deviations of the scores' noise, the signal being 1 (default "
                      "0,0.1,0.2,0.3,0.5,1)");
  command->add_option("--depths", options->depths,
                      "equal ranges of depth, newest first, in [1, 1000] (default 8)");
  command->add_option("--trials", options->trials,
                      "needles in each range (default 256); without noise, up to 64Ki keys, every "
                      "key is one");
  command->add_option("--seed", options->seed, "seed of needles and noise (default 1)");
  options->schedule.add(*command);
  for (CLI::Option* option : options->schedule.all) {
    if (option->get_name() != "--top-k") configs->excludes(option);
  }
  options->provenance.add(*command);
  options->output.add(*command);
  command->footer(
      "Here --top-k takes a list (default 1,2,4). A candidate scores 1 if its span holds the\n"
      "needle, else 0, plus noise. Beside each schedule: as many random anchors with spans of the\n"
      "same mean length, and as many of the newest blocks of that length; blocks not scored are "
      "not\n"
      "found. This claims nothing about the quality of any model. Exit code 1: a needle was "
      "missed\n"
      "without noise.\n"
      "Example:\n"
      "  multistep needles --configs nstep2,nstep3,even3 --lengths 64Ki --top-k 2");
  command->callback([options, &run] { run = [options] { return needles(*options); }; });
}

}  // namespace multistep::program
