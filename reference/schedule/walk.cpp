#include "multistep/walk.hpp"

namespace multistep {

Index Choices::key_of(Index stripe) const { return end_ - 1 - cut_.anchor(stripe); }

Choice Choices::of_stripe(Index stripe) const {
  return {stripe, key_of(stripe), cut_.below(stripe)};
}

std::optional<Choice> Choices::at_key(Index key) const {
  Index low = cut_.first();
  Index high = low + cut_.count();
  const Index past = high;
  while (low < high) {  // keys fall as stripes rise
    const Index middle = low + (high - low) / 2;
    key_of(middle) > key ? low = middle + 1 : high = middle;
  }
  if (low == past || key_of(low) != key) return std::nullopt;
  return of_stripe(low);
}

}  // namespace multistep
