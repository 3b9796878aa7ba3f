#pragma once

#include <string>

#include "multistep/schedule.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#ifdef MULTISTEP_HAS_CUDA
#include "multistep/cuda/types.hpp"
#endif

/// One call of attention, as `memory` and `plan` ask about it: queries at the end of a context.
namespace multistep::program {

struct CallOptions {
  std::string length;
  std::string queries = "1";
  std::string dtype = "bf16";
  HeadOptions heads{.heads = "32", .kv_heads = "2", .head_dim = "128"};
  ScheduleOptions schedule;

  void add(CLI::App& command);
};

struct Call {
  Index length;
  Index queries;
  Heads heads;
  std::string dtype;
  StripePlan plan;

  /// Throws std::invalid_argument.
  explicit Call(const CallOptions& options);

  Index value_bytes() const;
  Json json() const;         // schedule, steps, top_k, shape
  std::string text() const;  // the first lines of a report

  /// `scratch`, bytes of the kernels' workspace on the current device, or null and in
  /// `scratch_reason` why they are not known.
  Json scratch() const;

#ifdef MULTISTEP_HAS_CUDA
  cuda::Shape shape() const;
#endif
};

/// "6144 bytes, 6.00 KiB", from a count's JSON.
std::string size_text(const Json& bytes);

/// The same of a report's scratch, or that it is not known and why.
std::string scratch_text(const Json& result);

}  // namespace multistep::program
