#pragma once

#include <cstdint>
#include <string_view>

#include "multistep/schedule.hpp"

/// One problem of the GPU, without the options that it is read from.
namespace multistep::program {

/// What the arrays hold.
enum class InputKind {
  random,     // everything uniform
  clustered,  // keys near a few centres per region, queries near one of them
  hot,        // one stretch of keys that every query prefers
  needle,     // one key that matches every query strongly
};
std::string_view to_string(InputKind kind);

/// `queries` queries at the end of a context of `length` keys.
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
  friend bool operator==(const GpuShape&, const GpuShape&) = default;
};

}  // namespace multistep::program
