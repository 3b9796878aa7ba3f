#include <fmt/format.h>

#include <algorithm>

#include "bench/gpu_options.hpp"
#include "program/commands.hpp"
#include "program/configs.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/provenance.hpp"
#ifdef MULTISTEP_HAS_CUDA
#include "bench/gpu_bench.hpp"
#include "bench/gpu_compare.hpp"
#include "bench/gpu_report.hpp"
#include "multistep/cuda/timing.hpp"
#endif

namespace multistep::program {
namespace {

struct Options {
  std::string lengths = "64Ki,256Ki,1Mi,10M";
  std::string whole_lengths = "4Ki,8Ki,16Ki,32Ki";
  std::string configs = "A,B";
  std::string phases = "decode,prefill";
  std::string chunk = "32Ki";
  std::string repeats = "50";
  std::string sample = "16";
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

Task read(const Options& options) {
  Task task;
  task.repeats = parse_size("--repeats", options.repeats, 5, 10'000);
  task.sample = parse_size("--sample", options.sample, 1, 65536);
  const Index chunk = parse_size("--chunk", options.chunk, 1, kMaxGpuLength);
  task.provenance = options.provenance.json();
  const std::vector<std::string> configs = split("--configs", options.configs);
  for (const std::string& phase : split("--phases", options.phases)) {
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
        one.shape.queries = queries_of(phase, length, chunk);
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
  command->add_option("--lengths", options->lengths,
                      "contexts of decode and prefill (default 64Ki,256Ki,1Mi,10M)");
  command->add_option("--configs", options->configs,
                      fmt::format("of {} (default A,B)", kConfigNames));
  command->add_option("--phases", options->phases,
                      "of decode, prefill (the last chunk), whole, and train (whole, forward and "
                      "backward) (default decode,prefill)");
  command->add_option("--whole-lengths", options->whole_lengths,
                      "lengths of whole and train (default 4Ki,8Ki,16Ki,32Ki)");
  command->add_option("--chunk", options->chunk,
                      "queries of a prefill chunk (default 32Ki), a quarter above 4Mi keys");
  options->shape.add(*command);
  command->add_option("--repeats", options->repeats,
                      "runs timed, in [5, 10000] (default 50); fewer of runs beyond 40 ms");
  command->add_option("--sample", options->sample,
                      "rows compared before each timing, in [1, 65536] (default 16)");
  options->provenance.add(*command);
  options->output.add(*command);
  command->footer(
      "A case that fails, or its comparison, has no times, and the exit code is 1.\n"
      "Example:\n"
      "  multistep bench --lengths 64Ki,1Mi --configs A,nstep3 --phases decode --json");
  command->callback(
      [options, &run] { run = [options] { return bench(*options, read(*options)); }; });
}

}  // namespace multistep::program
