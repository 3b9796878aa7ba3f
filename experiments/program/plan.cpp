#include <fmt/format.h>

#include "program/call.hpp"
#include "program/commands.hpp"
#ifdef MULTISTEP_HAS_CUDA
#include "multistep/cuda/plan.hpp"
#endif

namespace multistep::program {
namespace {

struct Options {
  CallOptions call;
  std::string chip;
  OutputOptions output;
};

#ifdef MULTISTEP_HAS_CUDA

std::string text(const Call& call, const Json& result) {
  std::string lines = call.text();
  Json stages = result["stages"];
  stages.push_back(result["backward"]);
  for (const Json& stage : stages) {
    std::string kernels;
    for (const Json& kernel : stage["kernels"]) {
      kernels += (kernels.empty() ? "" : ", ") + kernel.get<std::string>();
    }
    lines += fmt::format("{:<12} {}", stage["stage"].get<std::string>(), kernels);
    if (!stage["fast"].get<bool>()) {
      lines += fmt::format(" (no faster one: {})", stage["why"].get<std::string>());
    }
    lines += '\n';
  }
  const Json& work = result["work"];
  return lines + fmt::format(
                     "chunks       of {} queries\n"
                     "scratch      {}\n"
                     "work         a row scores {:.1f} anchors and attends to {:.1f} keys; {:.4g} "
                     "products, {:.4g} bytes in all\n",
                     result["queries_at_once"].get<Index>(), scratch_text(result),
                     work["anchors_scored"].get<double>(), work["keys_attended"].get<double>(),
                     work["products"].get<double>(), work["bytes"].get<double>());
}

Json json_of(const cuda::StagePlan& stage) {
  return {
      {"stage", stage.stage}, {"kernels", stage.kernels}, {"fast", stage.fast}, {"why", stage.why}};
}

int plan(const Options& options) {
  const Call call(options.call);
  if (call.value_bytes() != 2) {
    throw std::invalid_argument(fmt::format("--dtype {}: bf16 or fp16", call.dtype));
  }
  const cuda::Chip chip = naming_options([&] { return cuda::chip_named(options.chip); });
  const cuda::AttentionPlan found = cuda::plan_attention(call.shape(), call.plan, chip);
  Json result = call.json();
  result["chip"] = {{"multiprocessors", chip.multiprocessors},
                    {"hopper", chip.hopper},
                    {"cluster", chip.cluster}};
  result["fast"] = found.fast();
  result["stages"] = Json::array();
  for (const cuda::StagePlan& stage : found.stages) result["stages"].push_back(json_of(stage));
  result["backward"] = json_of(found.backward);
  result["queries_at_once"] = found.queries_at_once;
  result.update(call.scratch());
  const cuda::ExpectedWork work = cuda::expected_work(call.shape(), call.plan);
  result["work"] = {{"anchors_scored", work.anchors_scored},
                    {"keys_attended", work.keys_attended},
                    {"products", work.products},
                    {"bytes", work.bytes}};
  options.output.json ? options.output.write(result) : options.output.write(text(call, result));
  return 0;
}

#else

int plan(const Options&) { throw std::runtime_error("built without CUDA"); }

#endif

}  // namespace

void add_plan(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("plan", "Which kernels a call of attention runs, and why no faster ones");
  options->call.add(*command);
  command->add_option("--chip", options->chip,
                      "h100 or a100 (default: the GPU that is there, or h100)");
  options->output.add(*command);
  command->footer(
      "The work is that of random scores; bytes are those of the keys and values that rows "
      "choose,\n"
      "or of all where those are fewer, and of queries and outputs. Nothing is launched.\n"
      "Example:\n"
      "  multistep plan --length 1Mi --queries 4096 --steps 3 --top-k 5");
  command->callback([options, &run] { run = [options] { return plan(*options); }; });
}

}  // namespace multistep::program
