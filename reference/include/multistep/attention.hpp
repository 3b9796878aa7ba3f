#pragma once

#include <optional>
#include <vector>

#include "multistep/schedule.hpp"
#include "multistep/work.hpp"

/// The stages of multi-step attention and their composition (SPEC 3, 4, 7). Every stage can be
/// called alone on its own input. T is float or double; all arithmetic is in double, every row is
/// computed by one thread in one order, and results are double. Arrays are dense, row-major.
///
/// Every function throws std::invalid_argument where a shape, a pointer or a span is out of range.
namespace multistep {

/// Key row j stands at position j, query row i at query_offset + i. With `length` query row i of
/// sequence b stands at length[b] - queries + i instead, and query_offset counts for nothing. A row
/// before `start`, or before key 0, has no keys: output 0, lse -inf, no path.
///
/// With `key_offset` the arrays hold a shard of a longer context: key row j stands at position
/// key_offset + j, and queries may stand anywhere. search_level() and span_attention() take shards.
struct Shape {
  Index batch = 1;
  Index num_heads = 1;
  Index num_kv_heads = 1;  // divides num_heads; query head h reads KV head h / (num_heads / this)
  Index queries = 0;       // L_q
  Index keys = 0;          // L_kv >= query_offset + queries; rows past the last query are not read
  Index head_dim = 0;
  Index query_offset = 0;
  const Index* start =
      nullptr;  // [batch], first eligible key, rows before it are not read; null: 0
  const Index* length = nullptr;  // [batch], keys of each sequence, in [0, keys]; null: see above
  std::optional<Index> key_offset{};  // of a shard, whose sequences are longer than `keys`

  Index rows() const { return batch * num_heads * queries; }  // [batch, num_heads, L_q]
};

/// What span-search keeps. Rank 0 is the best path; slots from count[row] on hold an empty span at
/// key 0, score -inf and anchors -1.
struct Selection {
  Index top_k = 0;
  Index levels = 0;
  std::vector<Index> count;     // [batch, num_heads, L_q], kept paths
  std::vector<Span> spans;      // [batch, num_heads, L_q, top_k], final spans
  std::vector<double> scores;   // [batch, num_heads, L_q, top_k], path scores
  std::vector<Index> anchors;   // [batch, num_heads, L_q, top_k, levels], keys along the path
  std::vector<WorkCount> work;  // [batch, num_heads, L_q]
};

template <class T>
struct SpanSearchArgs {
  Shape shape;
  const StripePlan* plan = nullptr;       // for lengths up to the last position + 1 at least
  std::vector<const T*> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  const T* search_keys = nullptr;         // [batch, num_kv_heads, L_kv, head_dim]
  double search_scale = 1;
};

/// Steps 1 ... N-1: the top_k best paths of every query. Better path score first; of equals the
/// smaller key, then the parent ranked first; NaN is never kept.
template <class T>
Selection span_search(const SpanSearchArgs<T>& args);

/// The keys of a span that the query's window, which ends at the query, does not have.
inline Span outside_window(Span span, Span window) {
  if (!window.empty() && span.end > window.begin) span.end = window.begin;
  return span.empty() ? Span{} : span;
}

/// The windows of the rows of a shape, [batch, L_q]: what span_attention() leaves out of spans.
std::vector<Span> query_windows(const StripePlan& plan, const Shape& shape);

/// Attention is cut into items (SPEC 4): a query's window, and each of its spans without the keys
/// that the window has. On a shard, without the keys that it does not hold.
template <class T>
struct SpanAttentionArgs {
  Shape shape;
  const T* query = nullptr;      // [batch, num_heads, L_q, head_dim]
  const T* key = nullptr;        // [batch, num_kv_heads, L_kv, head_dim]
  const T* value = nullptr;      // [batch, num_kv_heads, L_kv, head_dim]
  Index slots = 0;               // spans per query; 1 where spans is null
  const Span* spans = nullptr;   // [batch, num_heads, L_q, slots], inside [start, t + 1); null: the
                                 // one slot is the window
  const Span* window = nullptr;  // [batch, L_q], ending at t + 1: its keys are left out of the
                                 // spans; null: no window
  std::optional<double> softmax_scale{};  // default 1 / sqrt(head_dim)
};

/// Attention over sets of keys, with what it takes to join them.
struct Items {
  std::vector<double> output;  // [.., head_dim]
  std::vector<double> lse;     // [..], log-sum-exp of the logits, base e
};

/// Softmax attention over the keys of every item: [batch, num_heads, L_q, slots]. No key, or no key
/// with a logit above -inf: output 0, lse -inf.
template <class T>
Items span_attention(const SpanAttentionArgs<T>& args);

struct MergeAttentionArgs {
  Index parts = 0;
  Index rows = 0;
  Index head_dim = 0;
  const double* outputs = nullptr;  // [parts, rows, head_dim]
  const double* lses = nullptr;     // [parts, rows]
};

/// Attention over the union of disjoint sets of keys from the attention over each, [rows]. A part
/// that weighs nothing, as one without keys, lse -inf, may hold anything.
Items merge_attention(const MergeAttentionArgs& args);

struct CombineArgs {
  Index rows = 0;   // batch * num_heads * L_q
  Index slots = 0;  // spans per query
  Index head_dim = 0;
  const Index* count = nullptr;           // [rows], slots in use
  const double* scores = nullptr;         // [rows, slots], path scores
  const double* outputs = nullptr;        // [rows, slots, head_dim], of the spans' items
  const double* lses = nullptr;           // [rows, slots]
  const double* window_output = nullptr;  // [rows, head_dim]; null: no window
  const double* window_lse = nullptr;     // [rows]; null: no window
};

/// The gates, softmax over the kept path scores: [rows, slots], 0 in unused slots. Equal scores,
/// infinite ones included, have equal gates.
std::vector<double> path_gates(const CombineArgs& args);

/// Sum over slots of gate * (span joined with the window): [rows, head_dim]. The window alone where
/// no slot is in use; 0 without a window too.
std::vector<double> combine(const CombineArgs& args);

template <class T>
struct AttentionArgs {
  Shape shape;
  const StripePlan* plan = nullptr;
  const T* query = nullptr;               // [batch, num_heads, L_q, head_dim]
  const T* key = nullptr;                 // [batch, num_kv_heads, L_kv, head_dim]
  const T* value = nullptr;               // [batch, num_kv_heads, L_kv, head_dim]
  std::vector<const T*> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  const T* search_keys = nullptr;         // [batch, num_kv_heads, L_kv, head_dim]; null: key
  double search_scale = 1;
  std::optional<double> softmax_scale{};  // default 1 / sqrt(head_dim)
};

/// Wall-clock seconds of the stages: what the threads took, over their number.
struct StageSeconds {
  double search = 0;
  double attend = 0;
  double combine = 0;
};

struct AttentionResult {
  std::vector<double> output;      // [batch, num_heads, L_q, head_dim]
  Selection selection;             // what was found on the way
  std::vector<double> lse;         // [batch, num_heads, L_q, top_k], of the kept spans' items
  std::vector<double> window_lse;  // [batch, num_heads, L_q]
  StageSeconds seconds;

  WorkCount work() const;  // over all rows
};

/// Search, attend, combine: the one composition. A query without a path gets window attention; one
/// without an eligible key gets 0. Memory beside inputs and results does not grow with L_q.
template <class T>
AttentionResult attention(const AttentionArgs<T>& args, const Progress& progress = {});

/// Dense causal attention, O(L_q L_kv) time: the plan, if any, is not looked at.
template <class T>
AttentionResult dense_attention(AttentionArgs<T> args);

}  // namespace multistep
