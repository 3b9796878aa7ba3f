#pragma once

#include <vector>

#include "multistep/types.hpp"

/// Accumulation (SPEC 5): the scalar-decay linear recurrence H_t = a_t H_{t-1} + x_t b_t^T,
/// r_t = H_t c_t, and its gradients. Arithmetic and results in double; T is float or double.
namespace multistep {

template <class T>
struct AccumulationArgs {
  Index batch = 1;
  Index num_heads = 1;
  Index length = 0;
  Index head_dim = 0;
  Index state = 0;
  Index offset = 0;                 // position of row 0: later chunks continue a sequence
  const Index* start = nullptr;     // [batch], first position that counts; null: 0
  const T* x = nullptr;             // [batch, num_heads, length, head_dim]
  const T* a = nullptr;             // [batch, num_heads, length], in [0, 1] or NaN
  const T* b = nullptr;             // [batch, num_heads, length, state]
  const T* c = nullptr;             // [batch, num_heads, length, state]
  const double* initial = nullptr;  // [batch, num_heads, head_dim, state]; null: 0
};

struct AccumulationResult {
  std::vector<double> output;       // r: [batch, num_heads, length, head_dim]
  std::vector<double> final_state;  // [batch, num_heads, head_dim, state]
};

/// Rows before `start` are not read: they leave the state alone and give 0. The final state is the
/// next chunk's initial one. Throws std::invalid_argument for a bad shape or a decay outside [0,
/// 1].
template <class T>
AccumulationResult accumulate(const AccumulationArgs<T>& args, const Progress& progress = {});

struct AccumulationGradients {
  std::vector<double> x;        // [batch, num_heads, length, head_dim]
  std::vector<double> a;        // [batch, num_heads, length]
  std::vector<double> b;        // [batch, num_heads, length, state]
  std::vector<double> c;        // [batch, num_heads, length, state]
  std::vector<double> initial;  // [batch, num_heads, head_dim, state]
};

/// Gradients for a loss with `output` and `final_state` as its derivatives by the results; a null
/// pointer is zero. Memory O(sqrt(length)) states beside the arrays.
template <class T>
AccumulationGradients accumulate_backward(const AccumulationArgs<T>& args,
                                          const double* output_gradient,
                                          const double* final_state_gradient = nullptr,
                                          const Progress& progress = {});

}  // namespace multistep
