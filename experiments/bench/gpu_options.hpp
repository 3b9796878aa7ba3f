#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "multistep/schedule.hpp"
#include "program/options.hpp"

/// What the subcommands that need a GPU ask for. Options are read and refused the same way in a
/// program that was built without CUDA.
namespace multistep::program {

/// Longest context that the kernels take.
inline constexpr Index kMaxGpuLength = (Index{1} << 31) - 2;

/// What the arrays hold.
enum class InputKind {
  random,     // everything uniform
  clustered,  // keys near a few centres per region, queries near one of them
  hot,        // one stretch of keys that every query prefers
  needle,     // one key that matches every query strongly
};
std::string_view to_string(InputKind kind);

/// One problem: `queries` queries at the end of a context of `length` keys.
struct GpuShape {
  Index batch = 1;
  Index heads = 32;
  Index kv_heads = 2;
  Index head_dim = 128;
  Index length = 0;
  Index queries = 1;
  Index start = 0;
  bool half = false;  // fp16 instead of bf16
  InputKind inputs = InputKind::random;
  std::uint64_t seed = 1;

  Index rows() const { return batch * heads * queries; }
  Index offset() const { return length - queries; }
  Index group() const { return heads / kv_heads; }
};

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
