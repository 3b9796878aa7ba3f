#include "multistep/count.hpp"

#include <algorithm>
#include <stdexcept>

#include "support/error.hpp"

namespace multistep {
namespace {

constexpr char kRange[] = "count: an integer below 2^128";

}  // namespace

Count::Count(Index value) : value_(static_cast<Wide>(value)) {
  require(value >= 0, "count {}: an integer >= 0", value);
}

Count& Count::operator+=(Count other) {
  if (__builtin_add_overflow(value_, other.value_, &value_)) throw std::overflow_error(kRange);
  return *this;
}

Count operator*(Count a, Count b) {
  Count product;
  if (__builtin_mul_overflow(a.value_, b.value_, &product.value_)) {
    throw std::overflow_error(kRange);
  }
  return product;
}

std::optional<Index> Count::index() const {
  if (value_ > static_cast<Wide>(INT64_MAX)) return std::nullopt;
  return static_cast<Index>(value_);
}

std::string to_string(Count count) {
  std::string digits;
  do {
    digits += static_cast<char>('0' + static_cast<int>(count.value_ % 10));
    count.value_ /= 10;
  } while (count.value_ > 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

}  // namespace multistep
