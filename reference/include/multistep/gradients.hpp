#pragma once

#include <vector>

#include "multistep/attention.hpp"

/// Gradients (SPEC 6): selections are constants, everything else is differentiated. Each function
/// takes the derivative of a loss by its stage's result and returns the derivatives by the stage's
/// inputs, all in double. Sums over queries run in the order of heads and queries, whatever the
/// number of threads.
namespace multistep {

struct CombineGradients {
  std::vector<double> outputs;        // [rows, slots, head_dim]
  std::vector<double> lses;           // [rows, slots]
  std::vector<double> scores;         // [rows, slots]; all 0 in unused slots
  std::vector<double> window_output;  // [rows, head_dim]
  std::vector<double> window_lse;     // [rows]
};
CombineGradients combine_backward(const CombineArgs& args,
                                  const double* output_gradient);  // [rows, head_dim]

struct SpanAttentionGradients {
  std::vector<double> query;  // [batch, num_heads, L_q, head_dim]
  std::vector<double> key;    // [batch, num_kv_heads, L_kv, head_dim]
  std::vector<double> value;  // [batch, num_kv_heads, L_kv, head_dim]
};
template <class T>
SpanAttentionGradients span_attention_backward(
    const SpanAttentionArgs<T>& args,
    const double* output_gradient,          // [batch, num_heads, L_q, slots, head_dim]
    const double* lse_gradient = nullptr);  // [batch, num_heads, L_q, slots]; null: 0

struct SpanSearchGradients {
  std::vector<std::vector<double>> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  std::vector<double> search_keys;                   // [batch, num_kv_heads, L_kv, head_dim]
};
template <class T>
SpanSearchGradients span_search_backward(
    const SpanSearchArgs<T>& args, const Selection& selection,
    const double* score_gradient);  // [batch, num_heads, L_q, top_k]

/// Where the search keys are K itself (search_keys null), the whole derivative by K is the sum of
/// attention.key and search.search_keys.
struct AttentionGradients {
  SpanAttentionGradients attention;
  SpanSearchGradients search;
};

/// Derivatives of a loss by what attention() returned. Null: 0. Unused slots count nothing.
struct AttentionResultGradients {
  const double* output = nullptr;      // [batch, num_heads, L_q, head_dim]
  const double* scores = nullptr;      // [batch, num_heads, L_q, top_k]
  const double* lse = nullptr;         // [batch, num_heads, L_q, top_k]
  const double* window_lse = nullptr;  // [batch, num_heads, L_q]
};

/// At a given selection, whose scores and spans count as they are, or at the oracle's own (null).
template <class T>
AttentionGradients attention_backward(const AttentionArgs<T>& args,
                                      const AttentionResultGradients& by_result,
                                      const Selection* selection = nullptr,
                                      const Progress& progress = {});

}  // namespace multistep
