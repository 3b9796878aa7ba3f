#pragma once

#include <optional>
#include <vector>

#include "multistep/cuda/types.hpp"

/// Span-search, span-attention, combination, and their composition (SPEC 3, 4, 7).
namespace multistep::cuda {

/// Steps 1 ... N-1: the top_k best paths of every query, best first. Better path score first; of
/// equals the smaller key, then the parent ranked first; NaN is never kept. Slots without a path
/// hold the span [0, 0), score -inf and anchors -1.
///
/// A shard searches the anchors that it holds. With more than two steps the shards' kept paths have
/// to be merged after every level: set `level` and search one level at a time.
struct SpanSearchArgs {
  Shape shape;
  Dtype dtype = Dtype::bf16;
  const DeviceSchedule* schedule = nullptr;
  std::vector<const void*> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  const void* search_keys = nullptr;         // [batch, num_kv_heads, L_kv, head_dim]
  std::vector<Strides> routing_strides;      // [N - 1], or none: dense
  Strides search_key_strides;
  double search_scale = 1;

  DeviceSpan* spans = nullptr;      // [batch, num_heads, L_q, top_k], final spans
  float* scores = nullptr;          // [batch, num_heads, L_q, top_k], path scores
  std::int32_t* anchors = nullptr;  // [batch, num_heads, L_q, top_k, N - 1], keys; null: not wanted

  /// 0: all levels. m >= 1: level m alone, inside the spans `parents` with their path scores (null
  /// at level 1), both [batch, num_heads, L_q, top_k]; `anchors` is then [.., top_k], level m's
  /// key, and `parent_ranks` [.., top_k], which parent it descends from (null: not wanted).
  Index level = 0;
  const DeviceSpan* parents = nullptr;
  const float* parent_scores = nullptr;
  std::int32_t* parent_ranks = nullptr;

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const SpanSearchArgs& args);
void span_search(const SpanSearchArgs& args, Stream stream);

/// The best top_k of the paths that `shards` searches of one level kept: what one search of the
/// whole context would have kept.
struct MergePathsArgs {
  Index shards = 0;
  Index rows = 0;  // batch * num_heads * L_q
  Index top_k = 0;
  const DeviceSpan* spans = nullptr;           // [shards, rows, top_k]
  const float* scores = nullptr;               // [shards, rows, top_k]
  const std::int32_t* anchors = nullptr;       // [shards, rows, top_k]
  const std::int32_t* parent_ranks = nullptr;  // [shards, rows, top_k]; null: level 1

  DeviceSpan* merged_spans = nullptr;           // [rows, top_k]
  float* merged_scores = nullptr;               // [rows, top_k]
  std::int32_t* merged_anchors = nullptr;       // [rows, top_k]
  std::int32_t* merged_parent_ranks = nullptr;  // [rows, top_k]; null: not wanted
};
void merge_paths(const MergePathsArgs& args, Stream stream);

/// Softmax attention inside every span, the window left out: keys that a span shares with the
/// query's window count for the window. With `spans` null the one slot is the window itself.
/// No key, or no key with a logit above -inf: output 0, lse -inf.
///
/// A shard attends to the keys that it holds.
struct SpanAttentionArgs {
  Shape shape;
  Dtype dtype = Dtype::bf16;
  const DeviceSchedule* schedule = nullptr;  // for the window
  const void* query = nullptr;               // [batch, num_heads, L_q, head_dim]
  const void* key = nullptr;                 // [batch, num_kv_heads, L_kv, head_dim]
  const void* value = nullptr;               // [batch, num_kv_heads, L_kv, head_dim]
  Index slots = 0;                           // spans per query, [1, 64]; 1 where spans is null
  const DeviceSpan* spans = nullptr;         // [batch, num_heads, L_q, slots]
  std::optional<double> softmax_scale{};     // default 1 / sqrt(head_dim)

  void* output = nullptr;  // [batch, num_heads, L_q, slots, head_dim]
  float* lse = nullptr;    // [batch, num_heads, L_q, slots], base e

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const SpanAttentionArgs& args);
void span_attention(const SpanAttentionArgs& args, Stream stream);

/// Attention over the union of disjoint key sets from the attention over each: the shards' partial
/// outputs weighed by exp(lse).
struct MergeAttentionArgs {
  Index shards = 0;
  Index rows = 0;  // batch * num_heads * L_q * slots
  Index head_dim = 0;
  Dtype dtype = Dtype::bf16;
  const void* outputs = nullptr;  // [shards, rows, head_dim]
  const float* lses = nullptr;    // [shards, rows]
  void* output = nullptr;         // [rows, head_dim]
  float* lse = nullptr;           // [rows]
};
void merge_attention(const MergeAttentionArgs& args, Stream stream);

/// Window and combination: attends to the window, joins it with every span by their log-sum-exps,
/// and sums the spans by gate = softmax of the path scores. A query without a path gets its window
/// alone; without a window too, 0.
///
/// Where the window's own output is given (a sharded context merges it first), it is taken from
/// there, and query, key and value are not looked at.
struct CombineArgs {
  Shape shape;
  Dtype dtype = Dtype::bf16;
  const DeviceSchedule* schedule = nullptr;  // for the window
  const void* query = nullptr;               // [batch, num_heads, L_q, head_dim]
  const void* key = nullptr;                 // [batch, num_kv_heads, L_kv, head_dim]
  const void* value = nullptr;               // [batch, num_kv_heads, L_kv, head_dim]
  std::optional<double> softmax_scale{};     // default 1 / sqrt(head_dim)

  Index slots = 0;                      // 0: window attention alone
  const DeviceSpan* spans = nullptr;    // [batch, num_heads, L_q, slots]; in use up to an empty one
  const float* scores = nullptr;        // [batch, num_heads, L_q, slots], path scores
  const void* span_outputs = nullptr;   // [batch, num_heads, L_q, slots, head_dim]
  const float* span_lses = nullptr;     // [batch, num_heads, L_q, slots]
  const void* window_output = nullptr;  // [batch, num_heads, L_q, head_dim], or null
  const float* window_lse = nullptr;    // [batch, num_heads, L_q], or null

  void* output = nullptr;           // [batch, num_heads, L_q, head_dim]
  float* window_lse_out = nullptr;  // [batch, num_heads, L_q], the window's own; null: not wanted

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const CombineArgs& args);
void combine(const CombineArgs& args, Stream stream);

/// Search, attend, combine; with N = 1 dense causal attention. The kernels for few queries
/// (decoding) or many (prefill) are chosen by the shape; with Shape::length, which the host does
/// not know, always those for few, and their workspace grows with the queries (with N = 1, for up
/// to 4096 rows, by up to 64 outputs of a row in float32). Long prefills run in chunks of queries:
/// the workspace is 12 bytes a row and slot (24 with N = 3, 36 beyond) and about a GiB,
/// two where head_dim is above 128. The
/// log-sum-exps are those of the items (SPEC 4), by the way; anchors of more than one level cost a
/// launch and 8 (N - 1) bytes a row and slot more: of all outputs they alone count in
/// workspace_size().
struct AttentionArgs {
  Shape shape;
  Dtype dtype = Dtype::bf16;
  const DeviceSchedule* schedule = nullptr;
  const void* query = nullptr;               // [batch, num_heads, L_q, head_dim]
  const void* key = nullptr;                 // [batch, num_kv_heads, L_kv, head_dim]
  const void* value = nullptr;               // [batch, num_kv_heads, L_kv, head_dim]
  std::vector<const void*> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  const void* search_keys = nullptr;         // [batch, num_kv_heads, L_kv, head_dim]; null: key
  Strides query_strides;
  Strides key_strides;
  Strides value_strides;
  std::vector<Strides> routing_strides;  // [N - 1], or none: dense
  Strides search_key_strides;
  double search_scale = 1;
  std::optional<double> softmax_scale{};  // default 1 / sqrt(head_dim)

  void* output = nullptr;  // [batch, num_heads, L_q, head_dim]

  // What was found; null: not wanted. Slots without a path: [0, 0), -inf, -inf, -1.
  DeviceSpan* spans = nullptr;      // [batch, num_heads, L_q, top_k]
  float* scores = nullptr;          // [batch, num_heads, L_q, top_k]
  float* span_lses = nullptr;       // [batch, num_heads, L_q, top_k], without the window's keys
  float* window_lse = nullptr;      // [batch, num_heads, L_q]; base e, -inf where there is no key
  std::int32_t* anchors = nullptr;  // [batch, num_heads, L_q, top_k, N - 1], keys

  Rung rung = Rung::fast;
  Workspace workspace;
};
std::size_t workspace_size(const AttentionArgs& args);
void attention(const AttentionArgs& args, Stream stream);

}  // namespace multistep::cuda
