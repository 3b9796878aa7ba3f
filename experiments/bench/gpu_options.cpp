#include "bench/gpu_options.hpp"

#include <fmt/format.h>

#include "multistep/host_memory.hpp"

namespace multistep::program {
namespace {

constexpr int kNoDevice = 77;
constexpr Index kMaxHeadDim = 256;

InputKind parse_inputs(const std::string& text) {
  for (const InputKind kind :
       {InputKind::random, InputKind::clustered, InputKind::hot, InputKind::needle}) {
    if (text == to_string(kind)) return kind;
  }
  throw std::invalid_argument(fmt::format("--inputs {}: random, clustered, hot or needle", text));
}

}  // namespace

void GpuShapeOptions::add(CLI::App& command) {
  heads.add(command, kMaxHeadDim);
  command.add_option("--start", start, "first eligible key, in [0, L) (default 0)");
  command.add_option("--dtype", dtype, "bf16 (default) or fp16");
  command.add_option("--inputs", inputs, "random (default), clustered, hot or needle");
  command.add_option("--seed", seed, "seed of the inputs (default 1)");
}

GpuShape GpuShapeOptions::shape(Index length) const {
  GpuShape shape;
  shape.length = length;
  const Heads read = heads.read(kMaxHeadDim);
  shape.batch = read.batch;
  shape.heads = read.heads;
  shape.kv_heads = read.kv_heads;
  shape.head_dim = read.head_dim;
  shape.start = parse_size("--start", start, 0, length - 1);
  if (dtype != "bf16" && dtype != "fp16") {
    throw std::invalid_argument(fmt::format("--dtype {}: bf16 or fp16", dtype));
  }
  shape.half = dtype == "fp16";
  shape.inputs = parse_inputs(inputs);
  shape.seed = static_cast<std::uint64_t>(parse_size("--seed", seed, 0, INT64_MAX));
  return shape;
}

void require_host_memory(const GpuShape& shape, const Schedule& schedule) {
  const auto rows = static_cast<double>(shape.rows());
  const auto row = static_cast<double>(shape.head_dim);
  const double oracle = 2 * static_cast<double>(shape.length) * row * sizeof(float);
  // Spans and scores of every row come back; of other arrays the sampled rows alone.
  const double back = rows * static_cast<double>(schedule.top_k) * 16;
  require_memory(fmt::format("--length {}: the oracle takes", shape.length), oracle + back);
}

void require_memory_of_gradients(const GpuShape& shape, const Schedule& schedule) {
  const auto rows = static_cast<double>(shape.rows());
  const auto keys = static_cast<double>(shape.batch * shape.kv_heads * shape.length);
  const auto d = static_cast<double>(shape.head_dim);
  const auto levels = static_cast<double>(schedule.steps - 1);
  const auto slots = rows * static_cast<double>(schedule.top_k);
  // Inputs as floats; derivatives, given and found, as doubles; spans, scores, anchors; what is
  // computed of a row, 128 bytes an item, and of a key.
  const double of_queries = rows * d * ((1 + levels) * 12 + 8);
  const double of_keys = keys * (2 * d * 12 + 32);
  const double of_paths = slots * (24 + 8 * levels + 192) + rows * 256;
  require_memory(fmt::format("--gradients --length {} --queries {}: the oracle takes", shape.length,
                             shape.queries),
                 of_queries + of_keys + of_paths);
}

int no_device(const std::string& command, const std::string& reason) {
  fmt::print(stderr, "multistep {}: {}\n", command, reason);
  return kNoDevice;
}

}  // namespace multistep::program
