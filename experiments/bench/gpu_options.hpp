#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "bench/gpu_shape.hpp"
#include "program/options.hpp"

/// What the subcommands that need a GPU ask for. Options are read and refused the same way in a
/// program that was built without CUDA.
namespace multistep::program {

/// Longest context that the kernels take.
inline constexpr Index kMaxGpuLength = (Index{1} << 31) - 2;

struct GpuShapeOptions {
  HeadOptions heads{.heads = "32", .kv_heads = "2", .head_dim = "128"};
  std::string start = "0";
  std::string dtype = "bf16";
  std::string inputs = "random";
  std::string seed = "1";

  void add(CLI::App& command);

  /// All but the queries. Throws std::invalid_argument.
  GpuShape shape(Index length) const;
};

/// Throws std::invalid_argument where the oracle's arrays pass the memory of this machine: keys and
/// values of one KV head in float32, and what is downloaded.
void require_host_memory(const GpuShape& shape, const Schedule& schedule);

/// The same where gradients and all that they are made of come to this machine.
void require_memory_of_gradients(const GpuShape& shape, const Schedule& schedule);

/// Says on standard error why nothing ran, and returns the exit code 77.
int no_device(const std::string& command, const std::string& reason);

}  // namespace multistep::program
