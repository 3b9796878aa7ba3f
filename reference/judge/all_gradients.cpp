#include "judge/all_gradients.hpp"

#include <Eigen/Core>
#include <algorithm>

namespace multistep {

template <class T>
AllGradients<T>::AllGradients(const SubmittedGradients<T>& submitted, Storage storage)
    : submitted_(submitted),
      storage_(storage),
      rows_(submitted.attention.shape),
      uses_(key_uses(submitted.attention.shape, *submitted.attention.plan, *submitted.selection)) {
  const Shape& shape = submitted.attention.shape;
  const Selection& selection = *submitted.selection;
  const AllRows<T> inputs(submitted.attention, storage);
  const AttentionResultGradients& by = submitted.by_result;
  const Index d = shape.head_dim;
  const Index top_k = selection.top_k;
  std::vector<char> clean_heads(at(shape.batch * shape.num_kv_heads), 1);
  for (Index row = 0; row < rows_.count(); ++row) {
    const Index slots = selection.count[at(row)];
    const auto finite = [&](const double* array, Index width, Index count) {
      return !array || vector_at(array + row * width, 0, count).allFinite();
    };
    clean_rows_.push_back(inputs.clean(row) && finite(by.output, d, d) &&
                          finite(by.window_lse, 1, 1) && finite(by.lse, top_k, slots) &&
                          finite(by.scores, top_k, slots) &&
                          finite(selection.scores.data(), top_k, slots));
    clean_heads[at(rows_.kv_head(row))] &= clean_rows_.back();
  }
  for (const char clean : clean_heads) clean_keys_.insert(clean_keys_.end(), at(shape.keys), clean);
}

template <class T>
template <class Nobody>
WholeCheck AllGradients<T>::look(const double* gradient, const std::vector<char>& clean,
                                 Nobody&& nobody) const {
  const Index d = submitted_.attention.shape.head_dim;
  WholeCheck found;
  for (Index row = 0; row < std::ssize(clean); ++row) {
    const bool zero = nobody(row);
    for (const double* x = gradient + row * d; x < gradient + (row + 1) * d; ++x) {
      const bool overflows = storage_ == Storage::float16 && std::isinf(*x);
      found.not_zero += zero && *x != 0;
      found.not_finite += !zero && clean[at(row)] && !std::isfinite(*x) && !overflows;
    }
  }
  return found;
}

template <class T>
WholeCheck AllGradients<T>::query() const {
  return look(submitted_.query, clean_rows_, [&](Index row) {
    const std::vector<Span> items =
        row_items(*submitted_.attention.plan, rows_, *submitted_.selection, row);
    return std::all_of(items.begin(), items.end(), [](Span span) { return span.empty(); });
  });
}

template <class T>
WholeCheck AllGradients<T>::routing_queries() const {
  WholeCheck sum;
  for (const double* level : submitted_.routing_queries) {
    const WholeCheck found = look(
        level, clean_rows_, [&](Index row) { return submitted_.selection->count[at(row)] == 0; });
    sum.not_zero += found.not_zero;
    sum.not_finite += found.not_finite;
  }
  return sum;
}

template <class T>
WholeCheck AllGradients<T>::key() const {
  const bool searched = !submitted_.attention.search_keys;
  return look(submitted_.key, clean_keys_, [&](Index key) {
    return uses_.items[at(key)] == 0 && (!searched || uses_.anchors[at(key)] == 0);
  });
}

template <class T>
WholeCheck AllGradients<T>::value() const {
  return look(submitted_.value, clean_keys_, [&](Index key) { return uses_.items[at(key)] == 0; });
}

template <class T>
WholeCheck AllGradients<T>::search_keys() const {
  return look(submitted_.search_keys, clean_keys_,
              [&](Index key) { return uses_.anchors[at(key)] == 0; });
}

template class AllGradients<float>;
template class AllGradients<double>;

}  // namespace multistep
