#pragma once

#include <optional>
#include <vector>

#include "multistep/cuda/types.hpp"

/// Gradients on the GPU (SPEC 6): of attention and of each stage alone. Selections are constants,
/// everything else is differentiated. Derivatives by tensors are of their shape and storage type,
/// derivatives by scores and log-sum-exps are float32; sums are in float32. A derivative of the
/// loss that is null is 0, a result that is null is not wanted.
///
/// No sum is made with atomics: results are the same bits in every run. What nobody looked at has
/// gradient 0, exactly. A NaN in a query's row reaches that row's gradients and those of the keys
/// that it looks at; one of a key or a value, its own and those of the rows that look at it.
namespace multistep::cuda {

/// Derivatives by what attention() was given, at the selection that it returned, or at another of
/// the same shape. The workspace is 16 bytes a key, KV head and 2 values of head_dim, beside
/// about a GiB at most, two where head_dim is above 128.
struct AttentionBackwardArgs {
  Shape shape;  // key_offset 0, length null
  Dtype dtype = Dtype::bf16;
  const DeviceSchedule* schedule = nullptr;
  const void* query = nullptr;               // [batch, num_heads, L_q, head_dim]
  const void* key = nullptr;                 // [batch, num_kv_heads, L_kv, head_dim]
  const void* value = nullptr;               // [batch, num_kv_heads, L_kv, head_dim]
  std::vector<const void*> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  const void* search_keys = nullptr;         // [batch, num_kv_heads, L_kv, head_dim]; null: key
  double search_scale = 1;
  std::optional<double> softmax_scale{};  // default 1 / sqrt(head_dim)

  // What attention() found; null with N = 1.
  const DeviceSpan* spans = nullptr;      // [batch, num_heads, L_q, top_k]
  const float* scores = nullptr;          // [batch, num_heads, L_q, top_k]
  const std::int32_t* anchors = nullptr;  // [batch, num_heads, L_q, top_k, N - 1]

  // Its output, with which windows need not be attended to anew; both, or null.
  const void* output = nullptr;       // [batch, num_heads, L_q, head_dim]
  const float* window_lse = nullptr;  // [batch, num_heads, L_q]

  // Derivatives of the loss by what attention() returned.
  const void* output_gradient = nullptr;       // [batch, num_heads, L_q, head_dim]
  const float* score_gradient = nullptr;       // [batch, num_heads, L_q, top_k]
  const float* span_lse_gradient = nullptr;    // [batch, num_heads, L_q, top_k]
  const float* window_lse_gradient = nullptr;  // [batch, num_heads, L_q]

  void* query_gradient = nullptr;
  void* key_gradient = nullptr;  // where search_keys is null, its derivative is in here
  void* value_gradient = nullptr;
  std::vector<void*> routing_gradients;  // [N - 1]
  void* search_key_gradient = nullptr;   // where search_keys is not null

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const AttentionBackwardArgs& args);
void attention_backward(const AttentionBackwardArgs& args, Stream stream);

/// Of span_attention(): by query, key and value. Without spans of the windows, with one slot.
struct SpanAttentionBackwardArgs {
  Shape shape;
  Dtype dtype = Dtype::bf16;
  const DeviceSchedule* schedule = nullptr;  // for the window
  const void* query = nullptr;               // [batch, num_heads, L_q, head_dim]
  const void* key = nullptr;                 // [batch, num_kv_heads, L_kv, head_dim]
  const void* value = nullptr;               // [batch, num_kv_heads, L_kv, head_dim]
  Index slots = 1;                           // spans per query
  const DeviceSpan* spans = nullptr;         // [batch, num_heads, L_q, slots]; null: the windows
  std::optional<double> softmax_scale{};     // default 1 / sqrt(head_dim)

  const void* output_gradient = nullptr;  // [batch, num_heads, L_q, slots, head_dim]
  const float* lse_gradient = nullptr;    // [batch, num_heads, L_q, slots]

  void* query_gradient = nullptr;
  void* key_gradient = nullptr;
  void* value_gradient = nullptr;

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const SpanAttentionBackwardArgs& args);
void span_attention_backward(const SpanAttentionBackwardArgs& args, Stream stream);

/// Of combine(), where the window's own output is given or there is no window: by the items and
/// the scores. One kernel, in either rung.
struct CombineBackwardArgs {
  Shape shape;
  Dtype dtype = Dtype::bf16;
  Index slots = 0;
  const DeviceSpan* spans = nullptr;    // [batch, num_heads, L_q, slots]; in use up to an empty one
  const float* scores = nullptr;        // [batch, num_heads, L_q, slots], path scores
  const void* span_outputs = nullptr;   // [batch, num_heads, L_q, slots, head_dim]
  const float* span_lses = nullptr;     // [batch, num_heads, L_q, slots]
  const void* window_output = nullptr;  // [batch, num_heads, L_q, head_dim], or null
  const float* window_lse = nullptr;    // [batch, num_heads, L_q], or null

  const void* output_gradient = nullptr;  // [batch, num_heads, L_q, head_dim]

  float* score_gradient = nullptr;         // [batch, num_heads, L_q, slots]
  void* span_output_gradient = nullptr;    // [batch, num_heads, L_q, slots, head_dim]
  float* span_lse_gradient = nullptr;      // [batch, num_heads, L_q, slots]
  void* window_output_gradient = nullptr;  // [batch, num_heads, L_q, head_dim]
  float* window_lse_gradient = nullptr;    // [batch, num_heads, L_q]
};
void combine_backward(const CombineBackwardArgs& args, Stream stream);

/// Of span_search(): by the routing queries and the search keys, at the anchors that it kept.
struct SpanSearchBackwardArgs {
  Shape shape;
  Dtype dtype = Dtype::bf16;
  std::vector<const void*> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  const void* search_keys = nullptr;         // [batch, num_kv_heads, L_kv, head_dim]
  double search_scale = 1;

  Index top_k = 0;
  const std::int32_t* anchors = nullptr;  // [batch, num_heads, L_q, top_k, N - 1]; -1: no path
  const float* score_gradient = nullptr;  // [batch, num_heads, L_q, top_k]

  std::vector<void*> routing_gradients;  // [N - 1]
  void* search_key_gradient = nullptr;   // [batch, num_kv_heads, L_kv, head_dim]

  Workspace workspace;
};
std::size_t workspace_size(const SpanSearchBackwardArgs& args);
void span_search_backward(const SpanSearchBackwardArgs& args, Stream stream);

}  // namespace multistep::cuda
