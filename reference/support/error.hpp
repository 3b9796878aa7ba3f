#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace multistep {

/// Throws std::invalid_argument with a message that names the offender, its value and the range.
template <class... Values>
void require(bool holds, fmt::format_string<Values...> message, Values&&... values) {
  if (!holds) throw std::invalid_argument(fmt::format(message, std::forward<Values>(values)...));
}

inline void require_within(std::string_view name, std::int64_t value, std::int64_t low,
                           std::int64_t high) {
  require(value >= low && value <= high, "{} {}: an integer in [{}, {}]", name, value, low, high);
}

/// Throws where a recursion over the segments of a schedule meets too many different lengths.
inline void require_few_segments(std::size_t count, std::int64_t length) {
  constexpr std::size_t kMaxSegments = 1'000'000;
  require(count <= kMaxSegments,
          "length {}: its segments have more than {} different lengths; shorten the sequence",
          length, kMaxSegments);
}

/// Throws unless an array of these extents, 0 or more each, stays below 2^60 bytes as doubles.
inline void require_array_size(std::initializer_list<std::int64_t> extents) {
  std::int64_t size = 1;
  bool fits = true;
  for (const std::int64_t extent : extents) {
    fits = fits && !__builtin_mul_overflow(size, extent, &size);
  }
  require(fits && size < (std::int64_t{1} << 57), "shape {}: its array passes 2^60 bytes",
          fmt::join(extents, " x "));
}

}  // namespace multistep
