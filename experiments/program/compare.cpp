#include <fmt/format.h>

#include "bench/gpu_options.hpp"
#include "program/commands.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#ifdef MULTISTEP_HAS_CUDA
#include "bench/gpu_gradients.hpp"
#include "bench/gpu_report.hpp"
#include "multistep/judge_gradients.hpp"
#endif
#ifdef MULTISTEP_FAULTS
#include "multistep/cuda/fault.hpp"
#endif

namespace multistep::program {
namespace {

struct Options {
  std::string length;
  std::string queries = "1";
  std::string sample = "64";
  std::string rung = "fast";
  std::string fault;
  bool gradients = false;
  GpuShapeOptions shape;
  ScheduleOptions schedule;
  OutputOptions output;
};

/// What is to be compared, read from the options.
struct Task {
  GpuShape shape;
  StripePlan plan;
  Index sample;
  bool plain;
};

Task read(const Options& options) {
  const Index length = parse_size("--length", options.length, 1, kMaxGpuLength);
  GpuShape shape = options.shape.shape(length);
  shape.queries =
      options.queries == "all" ? length : parse_size("--queries", options.queries, 1, length);
  const Index sample = parse_size("--sample", options.sample, 1, 65536);
  if (options.rung != "fast" && options.rung != "plain") {
    throw std::invalid_argument(fmt::format("--rung {}: fast or plain", options.rung));
  }
  const Schedule schedule = options.schedule.schedule();
  if (options.gradients) require_memory_of_gradients(shape, schedule);
  require_host_memory(shape, schedule);
  return {shape, naming_options([&] { return StripePlan(schedule, length); }), sample,
          options.rung == "plain"};
}

#ifdef MULTISTEP_HAS_CUDA
int compare_on_device(const Options& options, const Task& task) {
  if (const std::string why = cuda::why_unusable(); !why.empty()) return no_device("compare", why);
#ifdef MULTISTEP_FAULTS
  if (!options.fault.empty()) {
    cuda::inject_fault(static_cast<int>(parse_size("--fault", options.fault, 0, 1000)));
  }
#endif
  const InputSource source(task.shape, needle_of(task.plan, task.shape));
  const GpuProblem problem(task.shape, task.plan, std::make_shared<const DeviceKeys>(source));
  ProgressBar bar("compare");
  const CompareOptions how{task.plain ? cuda::Rung::plain : cuda::Rung::fast, task.sample};
  JudgeReport report = compare_stages(problem, how, bar.callback());
  if (options.gradients) {
    report = with_gradients(report, compare_gradients(problem, how, bar.callback()));
  }

  const Schedule& schedule = task.plan.schedule();
  Json json = {{"schedule", describe(schedule)}, {"steps", schedule.steps},
               {"top_k", schedule.top_k},        {"shape", shape_json(task.shape)},
               {"seed", task.shape.seed},        {"device", device_json()}};
  json.update(Json::parse(report.json()));
  json["rung"] = task.plain ? "plain" : "fast";
  if (options.output.json) {
    options.output.write(json);
  } else {
    options.output.write(
        fmt::format("schedule  {}, top_k {}\nshape     {}\ndevice    {}, {} kernels\n\n{}\n{}\n",
                    json["schedule"].get<std::string>(), schedule.top_k, shape_text(json["shape"]),
                    json["device"]["name"].get<std::string>(), json["rung"].get<std::string>(),
                    report.table(), report.verdict()));
  }
  return report.pass() ? 0 : 1;
}
#else
int compare_on_device(const Options&, const Task&) {
  return no_device("compare", "built without CUDA");
}
#endif

}  // namespace

void add_compare(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "compare", "Hold the GPU's stages to the oracle on seeded inputs: PASS or FAIL");
  command->add_option("--length", options->length, "keys, in [1, 2^31 - 2]")->required();
  command->add_option("--queries", options->queries,
                      "how many, the last ones of the sequence (default 1: decoding), or all");
  options->shape.add(*command);
  command->add_option("--sample", options->sample,
                      "rows (query and head) that the oracle looks at, in [1, 65536] (default 64)");
  command->add_option("--rung", options->rung, "fast (default) or plain kernels");
  command->add_flag("--gradients", options->gradients,
                    "judge the gradients too, of sampled queries and as many keys; all arrays are "
                    "held in main memory");
#ifdef MULTISTEP_FAULTS
  command->add_option("--fault", options->fault, "tell the kernels to go wrong in this way");
#endif
  options->schedule.add(*command);
  options->output.add(*command);
  command->footer(
      "Example:\n"
      "  multistep compare --length 64Ki --queries 1Ki --preset released\n"
      "  multistep compare --length 4Ki --queries all --gradients");
  command->callback(
      [options, &run] { run = [options] { return compare_on_device(*options, read(*options)); }; });
}

}  // namespace multistep::program
