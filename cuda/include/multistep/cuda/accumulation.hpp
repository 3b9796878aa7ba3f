#pragma once

#include "multistep/cuda/types.hpp"

/// Accumulation on the GPU (SPEC 5), and its gradients (SPEC 6).
namespace multistep::cuda {

/// H_t = a_t H_{t-1} + x_t b_t^T, r_t = H_t c_t. Rows before `start` are not read: they leave the
/// state alone and give 0. The plain kernel walks the sequence, the fast one scans chunks of it.
/// States, decays and sums are float32; a decay outside [0, 1] is the caller's error.
struct AccumulationArgs {
  Index batch = 1;
  Index num_heads = 1;
  Index length = 0;
  Index head_dim = 0;  // [1, 256]
  Index state = 0;     // [1, 256]
  Index offset = 0;    // position of row 0: later chunks continue a sequence
  Dtype dtype = Dtype::bf16;
  const std::int32_t* start = nullptr;  // [batch], first position that counts; null: 0
  const void* x = nullptr;              // [batch, num_heads, length, head_dim]
  const float* a = nullptr;             // [batch, num_heads, length]
  const void* b = nullptr;              // [batch, num_heads, length, state]
  const void* c = nullptr;              // [batch, num_heads, length, state]
  const float* initial = nullptr;       // [batch, num_heads, head_dim, state]; null: 0

  void* output = nullptr;        // r: [batch, num_heads, length, head_dim]
  float* final_state = nullptr;  // [batch, num_heads, head_dim, state]; may be `initial`

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const AccumulationArgs& args);
void accumulate(const AccumulationArgs& args, Stream stream);

/// The gradients of a loss by the inputs, for its derivatives by the results. Rows before `start`
/// get 0. The plain kernel keeps a state every sqrt(length) rows in the workspace; the fast ones
/// two states every 256 rows, and where head_dim or state pass 64, the float32 sums of rows.
struct AccumulationBackwardArgs {
  Index batch = 1;
  Index num_heads = 1;
  Index length = 0;
  Index head_dim = 0;  // [1, 256]
  Index state = 0;     // [1, 256]
  Index offset = 0;
  Dtype dtype = Dtype::bf16;
  const std::int32_t* start = nullptr;  // [batch]; null: 0
  const void* x = nullptr;              // [batch, num_heads, length, head_dim]
  const float* a = nullptr;             // [batch, num_heads, length]
  const void* b = nullptr;              // [batch, num_heads, length, state]
  const void* c = nullptr;              // [batch, num_heads, length, state]
  const float* initial = nullptr;       // [batch, num_heads, head_dim, state]; null: 0

  const void* output_gradient = nullptr;        // as x; null: 0
  const float* final_state_gradient = nullptr;  // as initial; null: 0

  void* x_gradient = nullptr;         // as x
  float* a_gradient = nullptr;        // as a
  void* b_gradient = nullptr;         // as b
  void* c_gradient = nullptr;         // as c
  float* initial_gradient = nullptr;  // as initial; may be final_state_gradient; null: not wanted

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const AccumulationBackwardArgs& args);
void accumulate_backward(const AccumulationBackwardArgs& args, Stream stream);

}  // namespace multistep::cuda
