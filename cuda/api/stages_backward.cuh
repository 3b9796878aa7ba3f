#pragma once

#include "api/stages.cuh"
#include "multistep/cuda/gradients.hpp"

/// What the kernels of the backward pass are given, and who launches them. The items of a pass are
/// (query row, slot) pairs of spans or, where a SpanAttend has no spans, the windows of query rows.
namespace multistep::cuda {

/// An item's output by its log-sum-exp, and <dO, O>.
struct ItemDot {
  float lse;
  float dot;
};

/// Of an item with weights P(j) = 2^(logit_j log2(e) - lse_log2), in the gradients (SPEC 6):
/// dv_j = P share dO, d logit_j = P (share <dO, v_j> - mean).
struct alignas(16) ItemWeight {
  float lse_log2;  // +inf: nothing weighs
  float share;     // of a span: its gate times its share in the join; of a window: A
  float mean;      // the same times delta, less the derivative by the log-sum-exp; B
  float unused;
};

/// Beside a SpanAttend: what its items' gradients are made of, and go to.
struct ItemGradients {
  const void* output_gradient;  // dO [batch, heads, queries, head_dim]
  bool of_items;                // dO has a row of its own for every item
  ItemDot* dots;                // [batch, heads, count, slots]
  ItemWeight* weights;          // the same
  float* query_parts;           // spans: [batch, heads, count, slots, head_dim], of the derivative
  std::int32_t part_slots;      // windows: slots of the spans, whose parts are added
  void* query_gradient;         // windows: [batch, heads, queries, head_dim]
  float* key_sums;              // [batch, kv_heads, keys, head_dim], added to
  float* value_sums;            // the same
};

/// A pass over items: kernels read of a Combine what windows need.
inline Combine windows_of(const SpanAttend& items) {
  return {.rows = items.rows,
          .dtype = items.dtype,
          .scale = items.scale,
          .slots = 0,
          .query = items.query,
          .key = items.key,
          .value = items.value,
          .spans = nullptr,
          .scores = nullptr,
          .output = nullptr};
}

/// Fills `dots`.
void item_dots_plain(const SpanAttend& items, const ItemGradients& gradients, Stream stream);
/// `pairs` sorted; null: windows.
void item_dots_tiles(const SpanAttend& items, const Pairs* pairs, const ItemGradients& gradients,
                     Stream stream);

/// From `weights`: parts of the derivative by query, of windows that derivative itself.
void query_gradients_plain(const SpanAttend& items, const ItemGradients& gradients, Stream stream);
struct LaidItems;
void query_gradients_tiles(const LaidItems& items, const ItemGradients& gradients, Stream stream);
/// The derivative by query from the parts of spans alone.
void sum_query_parts(const SpanAttend& items, const ItemGradients& gradients, Stream stream);

/// Adds to the derivatives by key and value.
void key_gradients_plain(const SpanAttend& items, const ItemGradients& gradients, Stream stream);
std::size_t key_gradients_bytes(const Rows& rows);
void key_gradients_tiles(const LaidItems& items, const ItemGradients& gradients, void* workspace,
                         Stream stream);

/// The gates and joins of query rows in the backward pass.
struct CombineGradients {
  Rows rows;
  std::int32_t slots;
  const DeviceSpan* spans;           // [batch, heads, queries, slots]
  const float* scores;               // the same
  const float* given_by_score;       // derivatives by what was returned, the same; or null
  const float* given_by_span_lse;    // the same, or null
  const float* given_by_window_lse;  // [batch, heads, queries], or null
  const ItemDot* span_dots;          // [batch, heads, count, slots]
  const ItemDot* window_dots;        // [batch, heads, count]; null: no window
  bool of_outputs;                   // their products are of the output, not of the window's
  ItemWeight* span_weights;          // [batch, heads, count, slots]
  ItemWeight* window_weights;        // [batch, heads, count], where there are window_dots
  float* by_score;                   // [batch, heads, count, slots]
};
void prepare_gradients(const CombineGradients& combine, Stream stream);

/// <dO, output> beside the windows' log-sum-exps, [batch, heads, count].
void dot_outputs(const Rows& rows, Dtype dtype, const void* output, const void* output_gradient,
                 const float* window_lse, ItemDot* dots, Stream stream);

/// combine_backward(), a warp a row of `rows`.
void combine_rows_backward(const CombineBackwardArgs& args, const Rows& rows, Stream stream);

/// Weights of items that are no part of an output: span_attention_backward().
void weigh_items(const Rows& rows, std::int32_t slots, const ItemDot* dots,
                 const float* lse_gradient, ItemWeight* weights, Stream stream);

/// Search at the anchors that it kept.
struct SearchGradients {
  Rows rows;
  Dtype dtype;
  std::int32_t top_k;
  std::int32_t levels;
  float scale;
  const std::int32_t* anchors;     // [batch, heads, queries, top_k, levels]
  const float* by_score;           // [batch, heads, count, top_k]
  const void* search_keys;         // [batch, kv_heads, keys, head_dim]
  float* search_key_sums;          // the same, added to
  const void* const* routing;      // [levels] on the host, of [batch, heads, queries, head_dim]
  void* const* routing_gradients;  // [levels], the same
};
std::size_t search_gradients_bytes(const Rows& rows, int top_k);
void search_gradients(const SearchGradients& search, void* workspace, Stream stream);

/// Sums become gradients in the storage type: `count` values.
void store_sums(const float* sums, std::int64_t count, Dtype dtype, void* gradient, Stream stream);

}  // namespace multistep::cuda
