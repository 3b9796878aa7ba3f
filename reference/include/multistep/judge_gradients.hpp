#pragma once

#include "multistep/gradients.hpp"
#include "multistep/judge.hpp"

/// Judging anybody's gradients at their own selection (SPEC 6, 8.3): rows of queries and of keys,
/// each by limits of its own, as values are.
namespace multistep {

/// What an implementation was given and what it hands in. Null: not handed in, and so not judged.
template <class T>
struct SubmittedGradients {
  AttentionArgs<T> attention;
  const Selection* selection = nullptr;  // a constant: spans, scores, anchors as they are
  AttentionResultGradients by_result;

  const double* query = nullptr;               // [batch, num_heads, L_q, head_dim]
  const double* key = nullptr;                 // [batch, num_kv_heads, L_kv, head_dim]; where K
                                               // is searched, all of its derivative
  const double* value = nullptr;               // [batch, num_kv_heads, L_kv, head_dim]
  std::vector<const double*> routing_queries;  // [N - 1] of [batch, num_heads, L_q, head_dim]
  const double* search_keys = nullptr;         // [batch, num_kv_heads, L_kv, head_dim]; null
                                               // where K is searched
};

/// The selection that an implementation of span-search submits, of `rows` rows: the slots from the
/// first without a path on hold nothing.
Selection selection_of(const Submission& given, Index rows, Index top_k, Index levels);

/// `count` keys of [batch, num_kv_heads, L_kv], ascending, or all where there are no more: of every
/// KV head the newest, the first, the one that most queries look at, the one that most paths chose
/// and one that nobody looks at; keys beside tiles and the window's edge, of one head after the
/// other; then seeded random ones.
std::vector<Index> sample_keys(const Shape& shape, const StripePlan& plan,
                               const Selection& selection, Index count, std::uint64_t seed);

/// Judges the gradients by queries of `rows`, ascending indices into [batch, num_heads, L_q], and
/// those by keys of `keys`, into [batch, num_kv_heads, L_kv]. In all rows and keys: what nobody
/// looks at has gradient 0, exactly, and where no input is NaN or infinite no gradient is (but for
/// infinities of float16, which holds little).
///
/// The yardstick rounds to the storage type: the items' outputs of which delta is made, weights
/// times their share before they meet dO, the derivatives by logits before they meet keys and
/// queries, and results. Where an infinite logit makes a weight inf - inf, any value will do.
template <class T>
JudgeReport judge_gradients(const SubmittedGradients<T>& submitted, Storage storage,
                            std::span<const Index> rows, std::span<const Index> keys,
                            const Progress& progress = {});

/// The report of attention's values with that of its gradients behind it.
JudgeReport with_gradients(JudgeReport values, const JudgeReport& gradients);

}  // namespace multistep
