#pragma once

#include <vector>

#include "multistep/judge_gradients.hpp"
#include "stages/shape.hpp"

/// What one query has to do with the gradients, and how it is rounded (SPEC 6, 8.3).
namespace multistep {

/// A factor before a vector: of such products gradients are sums.
struct Term {
  double factor = 0;
  double deviation = 0;  // standard, of the factor, by rounding
  double lost = 0;       // of the factor, where kernels may flush it
  double magnitude = 0;  // sum of the absolute terms of the factor
  float plain = 0;       // the yardstick's

  Term scaled(double by) const;
};

/// A query's window, or one of its spans without the window's keys. With weights p of its own,
/// dv_j = p_j share dO and d logit_j = p_j (share <dO, v_j> - shift).
struct GradientItem {
  Span keys;
  double lse = 0;
  double share = 0;   // in the output
  double shift = 0;   // share * center, less the derivative by the log-sum-exp
  double center = 0;  // <dO, .> of what the item is joined to: an error of `share` turns about it
  double lse_deviation = 0;
  double share_deviation = 0;
  double shift_deviation = 0;
  float plain_lse = 0;
  float plain_share = 0;
  float plain_shift = 0;
};

struct GradientRow {
  std::vector<GradientItem> items;  // the spans in use, then the window
  std::vector<Term> scores;         // d score of the slots in use
};

template <class T>
GradientRow gradient_row(const SubmittedGradients<T>& submitted, const Rows& rows, Index row,
                         Storage storage);

/// The derivative of the loss by a row's output: [head_dim].
template <class T>
Vector output_gradient(const SubmittedGradients<T>& submitted, Index row) {
  const Index d = submitted.attention.shape.head_dim;
  const double* all = submitted.by_result.output;
  return all ? Vector(vector_at(all, row, d)) : Vector(Vector::Zero(d));
}

/// A query and one key of an item.
struct PairTerms {
  Term value;  // before dO, in dv
  Term logit;  // before the key in dq, the query in dk
  // Deviations of `logit` that the keys of an item have in common: signed, not in `logit` yet.
  double by_lse = 0;
  double by_share = 0;
  double by_shift = 0;

  /// Of one key alone.
  Term logit_alone() const;
};
template <class T>
PairTerms pair_terms(const GradientItem& item, const T* query, const T* key, const T* value,
                     const Vector& output_gradient, double scale, Storage storage);

}  // namespace multistep
