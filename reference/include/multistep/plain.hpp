#pragma once

#include <functional>
#include <vector>

#include "multistep/attention.hpp"

/// The yardstick of SPEC 8.3: attention as it is plainly written for matrix units that take a
/// 16-bit storage type and sum in float32. And the same stages in double where they take partial
/// results: attention over a union of keys from the attention over its parts.
namespace multistep {

/// To the nearest value of the storage type.
using Rounding = std::function<float(float)>;

/// The keys of a span that the window behind it does not have.
inline Span outside(Span span, Span window) {
  if (!window.empty() && span.end > window.begin) span.end = window.begin;
  return span.empty() ? Span{} : span;
}

/// span_attention with logits, exponentials and sums in float32, and weights and outputs rounded to
/// the storage type.
SpanAttentionResult plain_span_attention(const SpanAttentionArgs<float>& args,
                                         const Rounding& round);

/// Window and combination from the spans' own attention, their windows left out:
/// sum_s gate_s join(o_s, lse_s, window's o and lse). A query without a path gets its window alone.
struct WindowCombineArgs {
  Shape shape;
  const float* query = nullptr;           // [batch, num_heads, L_q, head_dim]
  const float* key = nullptr;             // [batch, num_kv_heads, L_kv, head_dim]
  const float* value = nullptr;           // [batch, num_kv_heads, L_kv, head_dim]
  const Span* window = nullptr;           // [batch, L_q]; null: no window
  std::optional<double> softmax_scale{};  // default 1 / sqrt(head_dim)
  Index slots = 0;                        // spans per query; 0: the window alone
  const Index* count = nullptr;           // [batch, num_heads, L_q], slots in use
  const double* scores = nullptr;         // [batch, num_heads, L_q, slots], path scores
  const double* outputs = nullptr;        // [batch, num_heads, L_q, slots, head_dim]
  const double* lses = nullptr;           // [batch, num_heads, L_q, slots]
};
std::vector<double> window_combine(const WindowCombineArgs& args);
std::vector<double> plain_window_combine(const WindowCombineArgs& args, const Rounding& round);

/// Attention over the union of two disjoint sets of keys from the attention over each: `output` and
/// `lse` take `other` in. Both empty (lse -inf): 0 and -inf.
void merge(double* output, double& lse, const double* other, double other_lse, Index head_dim);

}  // namespace multistep
