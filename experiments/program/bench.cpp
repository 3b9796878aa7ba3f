#include <fmt/format.h>

#include <algorithm>

#include "bench/gpu_options.hpp"
#include "bench/sweep_judge.hpp"
#include "program/commands.hpp"
#include "program/configs.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/provenance.hpp"
#include "program/sweep.hpp"
#ifdef MULTISTEP_HAS_CUDA
#include "bench/gpu_bench.hpp"
#include "bench/gpu_compare.hpp"
#include "bench/gpu_report.hpp"
#include "multistep/cuda/timing.hpp"
#endif

namespace multistep::program {
namespace {

/// What is not given; empty in Options.
struct Defaults {
  const char* lengths;
  const char* configs;
  const char* chunk;
  const char* repeats;
  const char* sample;
};
constexpr Defaults kOfBench{"64Ki,256Ki,1Mi,10M", "A,B", "32Ki", "50", "16"};
constexpr Defaults kOfSweep{"64Ki,1Mi", "A", "2Ki", "20", "4"};
constexpr char kWholeLengths[] = "4Ki,8Ki,16Ki,32Ki";

struct Options {
  bool sweep = false;
  std::string lengths;
  std::string whole_lengths;
  std::string configs;
  std::string phases = "decode,prefill";
  std::string chunk;
  std::string repeats;
  std::string sample;
  Provenance provenance;
  GpuShapeOptions shape;
  OutputOptions output;
};

/// A case before its inputs exist.
struct Planned {
  std::string config;
  Schedule schedule;
  std::string phase;
  GpuShape shape;
};

struct Task {
  Json provenance;
  std::vector<Planned> cases;  // in order of length
  Index repeats;
  Index sample;
};

std::vector<Index> read_lengths(const std::string& option, const std::string& text) {
  std::vector<Index> lengths;
  for (const std::string& part : split(option, text)) {
    lengths.push_back(parse_size(option, part, 1, kMaxGpuLength));
  }
  return lengths;
}

/// Queries at the end of the context: chunks are shorter where it is so long that they wait.
Index queries_of(const std::string& phase, Index length, Index chunk) {
  if (phase == "decode") return 1;
  if (phase == "whole" || phase == "train") return length;
  return std::min(length, length > (Index{1} << 22) ? std::max<Index>(1, chunk / 4) : chunk);
}

/// What both kinds of runs read alike.
struct Common {
  std::vector<std::string> phases;
  Index chunk;
  Index repeats;
  Index sample;
};

Common read_common(const Options& options) {
  return {split("--phases", options.phases), parse_size("--chunk", options.chunk, 1, kMaxGpuLength),
          parse_size("--repeats", options.repeats, 5, 10'000),
          parse_size("--sample", options.sample, 1, 65536)};
}

Task read(const Options& options) {
  const Common common = read_common(options);
  Task task{options.provenance.json(), {}, common.repeats, common.sample};
  const std::vector<std::string> configs = split("--configs", options.configs);
  for (const std::string& phase : common.phases) {
    if (phase != "decode" && phase != "prefill" && phase != "whole" && phase != "train") {
      throw std::invalid_argument(
          fmt::format("--phases {}: decode, prefill, whole or train", phase));
    }
    const std::vector<Index> lengths = phase == "whole" || phase == "train"
                                           ? read_lengths("--whole-lengths", options.whole_lengths)
                                           : read_lengths("--lengths", options.lengths);
    for (const Index length : lengths) {
      for (const std::string& config : configs) {
        Planned one{config, config_of("--configs", config).schedule, phase,
                    options.shape.shape(length)};
        one.shape.queries = queries_of(phase, length, common.chunk);
        require_host_memory(one.shape, one.schedule);
        task.cases.push_back(std::move(one));
      }
    }
  }
  // Cases of one length share their keys.
  std::stable_sort(task.cases.begin(), task.cases.end(), [](const Planned& a, const Planned& b) {
    return a.shape.length < b.shape.length;
  });
  return task;
}

SweepTask read_sweep(const Options& options) {
  const Common common = read_common(options);
  for (const std::string& phase : common.phases) {
    if (phase != "decode" && phase != "prefill") {
      throw std::invalid_argument(
          fmt::format("--phases {}: decode or prefill with --sweep", phase));
    }
  }
  if (!options.whole_lengths.empty()) {
    throw std::invalid_argument(
        fmt::format("--whole-lengths {}: none of --sweep, which takes decode and prefill",
                    options.whole_lengths));
  }
  const SweepBases bases{read_lengths("--lengths", options.lengths), common.phases, common.chunk};
  SweepTask task;
  task.provenance = options.provenance.json();
  task.repeats = common.repeats;
  task.sample = common.sample;
  task.output = options.output;
  for (const Index length : bases.lengths) task.shape = options.shape.shape(length);
  for (const std::string& name : split("--configs", options.configs)) {
    task.sweep.add({name, config_of("--configs", name).schedule, task.shape}, bases);
  }
  for (const SweepPoint& point : task.sweep.points) {
    require_host_memory(point.shape, point.schedule);
  }
  return task;
}

#ifdef MULTISTEP_HAS_CUDA

std::string bench_table(const Json& json) {
  std::string text = fmt::format(
      "{:7} {:8} {:>9} {:>7} {:16} {:4} {:>10} {:>10} {:>10} {:>8} {:>8}\n", "config", "phase",
      "length", "queries", "stage", "L2", "median ms", "20 %", "80 %", "TFLOP/s", "copy bw");
  for (const Json& record : json["records"]) {
    const Json& share = record["share_of_copy_bandwidth"];
    text += fmt::format("{:7} {:8} {:9} {:7} {:16} {:4} {:10.4f} {:10.4f} {:10.4f} {:8.1f} {:>8}\n",
                        record["config"].get<std::string>(), record["phase"].get<std::string>(),
                        record["length"].get<Index>(), record["queries"].get<Index>(),
                        record["stage"].get<std::string>(), record["l2"].get<std::string>(),
                        record["median_ms"].get<double>(), record["low_ms"].get<double>(),
                        record["high_ms"].get<double>(), record["useful_tflops"].get<double>(),
                        share.is_null() ? "-" : fmt::format("{:.0f} %", 100 * share.get<double>()));
  }
  for (const Json& one : json["skipped"]) {
    text += fmt::format("{} {} at {}: not run, {}\n", one["config"].get<std::string>(),
                        one["phase"].get<std::string>(), one["length"].get<Index>(),
                        one["reason"].get<std::string>());
  }
  return text;
}

int bench(const Options& options, const Task& task) {
  if (const std::string why = cuda::why_unusable(); !why.empty()) return no_device("bench", why);
  const cuda::OwnedStream stream;
  BenchSettings settings;
  settings.repeats = task.repeats;
  settings.sample = task.sample;
  settings.copy_bandwidth = cuda::measure_copy_bandwidth(stream);
  Json records = Json::array();
  Json skipped = Json::array();
  Json failed = Json::array();
  std::shared_ptr<const DeviceKeys> keys;
  Json device;
  ProgressBar bar("bench");
  for (std::size_t at = 0; at < task.cases.size(); ++at) {
    const Planned& one = task.cases[at];
    bar.show(static_cast<Index>(at), static_cast<Index>(task.cases.size()));
    if (!keys || keys->source.shape().length != one.shape.length) {
      keys.reset();  // one length's at a time
      const StripePlan plan(one.schedule, one.shape.length);
      keys = std::make_shared<const DeviceKeys>(InputSource(one.shape, needle_of(plan, one.shape)));
    }
    BenchOutcome outcome;
    try {
      outcome = bench_case({one.config, one.schedule, one.phase, one.shape}, keys, settings);
    } catch (const std::exception& error) {  // the other cases' times are worth keeping
      outcome.failed = fmt::format("{}\n", error.what());
    }
    for (const Json& record : outcome.records) records.push_back(record);
    const Json name = {{"config", one.config}, {"phase", one.phase}, {"length", one.shape.length}};
    if (!outcome.skipped.empty()) {
      skipped.push_back(name);
      skipped.back()["reason"] = outcome.skipped;
    }
    if (!outcome.failed.empty()) {
      failed.push_back(name);
      failed.back()["reason"] = outcome.failed;
      fmt::print(stderr, "multistep bench: {} {} at {}: no times, as it failed\n{}", one.config,
                 one.phase, one.shape.length, outcome.failed);
    }
    if (at + 1 == task.cases.size()) device = device_json();  // clocks under load
  }
  GpuShape shape = task.cases.front().shape;
  Json shared = shape_json(shape);
  for (const char* varies : {"queries", "keys"}) shared.erase(varies);
  Json json = task.provenance;
  json.update({{"seed", shape.seed},
               {"shape", shared},
               {"device", device},
               {"copy_bytes_per_second", settings.copy_bandwidth},
               {"dense", "N = 1, by this project's own kernel"},
               {"records", records},
               {"skipped", skipped},
               {"failed", failed}});
  options.output.json ? options.output.write(json) : options.output.write(bench_table(json));
  return failed.empty() ? 0 : 1;
}
#else
int bench(const Options&, const Task&) { return no_device("bench", "built without CUDA"); }
#endif

}  // namespace

void add_bench(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "bench", "Time the GPU's stages, each behind a passed comparison with the oracle");
  command->add_flag("--sweep", options->sweep,
                    "find cliffs: vary one thing at a time around every length, phase and "
                    "configuration, and judge each step between neighbours");
  const auto defaults = [](const char* Defaults::*value) {
    return fmt::format("(default {}, with --sweep {})", kOfBench.*value, kOfSweep.*value);
  };
  command->add_option("--lengths", options->lengths,
                      "contexts of decode and prefill " + defaults(&Defaults::lengths));
  command->add_option("--configs", options->configs,
                      fmt::format("of {} {}", kConfigNames, defaults(&Defaults::configs)));
  command->add_option("--phases", options->phases,
                      "of decode, prefill (the last chunk), whole, and train (whole, forward and "
                      "backward) (default decode,prefill, which alone --sweep takes)");
  command->add_option("--whole-lengths", options->whole_lengths,
                      fmt::format("lengths of whole and train (default {})", kWholeLengths));
  command->add_option("--chunk", options->chunk,
                      fmt::format("queries of a prefill chunk {}; without --sweep a quarter above "
                                  "4Mi keys",
                                  defaults(&Defaults::chunk)));
  options->shape.add(*command);
  command->add_option("--repeats", options->repeats,
                      fmt::format("runs timed, in [5, 10000] {}; fewer of long ones",
                                  defaults(&Defaults::repeats)));
  command->add_option(
      "--sample", options->sample,
      "rows compared before each timing, in [1, 65536] " + defaults(&Defaults::sample));
  options->provenance.add(*command);
  options->output.add(*command);
  command->footer(fmt::format(
      "A case that fails, or its comparison, has no times, and the exit code is 1.\n"
      "With --sweep it is 1 as well where the slower of two neighbours takes more than {} times\n"
      "what the other one takes and the growth of its bytes or products explain.\n"
      "Examples:\n"
      "  multistep bench --lengths 64Ki,1Mi --configs A,nstep3 --phases decode --json\n"
      "  multistep bench --sweep --lengths 64Ki",
      kLargestFactor));
  command->callback([options, &run] {
    const Defaults& unsaid = options->sweep ? kOfSweep : kOfBench;
    const auto settle = [](std::string& option, const char* value) {
      if (option.empty()) option = value;
    };
    settle(options->lengths, unsaid.lengths);
    settle(options->configs, unsaid.configs);
    settle(options->chunk, unsaid.chunk);
    settle(options->repeats, unsaid.repeats);
    settle(options->sample, unsaid.sample);
    if (!options->sweep) settle(options->whole_lengths, kWholeLengths);
    run = [options] {
      return options->sweep ? run_sweep(read_sweep(*options)) : bench(*options, read(*options));
    };
  });
}

}  // namespace multistep::program
