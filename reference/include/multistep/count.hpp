#pragma once

#include <compare>
#include <optional>
#include <string>

#include "multistep/types.hpp"

namespace multistep {

/// An exact count in [0, 2^128), for what 64 bits do not hold: pairs of a query and a key, work of
/// many queries, bytes of all heads. It never wraps: std::overflow_error is thrown where a sum or
/// a product passes the range.
class Count {
 public:
  __extension__ using Wide = unsigned __int128;

  /// Throws std::invalid_argument for a value below 0.
  Count(Index value = 0);

  Count& operator+=(Count other);
  friend Count operator+(Count a, Count b) { return a += b; }
  friend Count operator*(Count a, Count b);
  friend bool operator==(const Count&, const Count&) = default;
  friend std::strong_ordering operator<=>(const Count&, const Count&) = default;

  /// The value where it is below 2^63.
  std::optional<Index> index() const;
  /// The nearest double.
  double to_double() const { return static_cast<double>(value_); }

  friend std::string to_string(Count count);

 private:
  Wide value_ = 0;
};

/// Decimal digits.
std::string to_string(Count count);

}  // namespace multistep
