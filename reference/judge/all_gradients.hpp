#pragma once

#include <vector>

#include "judge/key_uses.hpp"
#include "multistep/judge_gradients.hpp"

namespace multistep {

/// What is found in every row of gradients, sampled or not: by what nobody looked at they are 0,
/// exactly, and of rows that meet no NaN and no infinity they are finite. A key is held to meet
/// all that the queries of its group do.
template <class T>
class AllGradients {
 public:
  AllGradients(const SubmittedGradients<T>& submitted, Storage storage);

  WholeCheck query() const;
  WholeCheck routing_queries() const;
  WholeCheck key() const;
  WholeCheck value() const;
  WholeCheck search_keys() const;

 private:
  /// Of [.., head_dim]: nobody(row) looks at it.
  template <class Nobody>
  WholeCheck look(const double* gradient, const std::vector<char>& clean, Nobody&& nobody) const;

  const SubmittedGradients<T>& submitted_;
  Storage storage_;
  Rows rows_;
  KeyUses uses_;
  std::vector<char> clean_rows_;  // [batch, num_heads, L_q]
  std::vector<char> clean_keys_;  // [batch, num_kv_heads, L_kv]
};

}  // namespace multistep
