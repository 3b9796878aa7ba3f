#include "support/error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <stdexcept>

namespace multistep {

void refuse_formatted(fmt::string_view message, fmt::format_args values) {
  throw std::invalid_argument(fmt::vformat(message, values));
}

void require_within(std::string_view name, std::int64_t value, std::int64_t low,
                    std::int64_t high) {
  require(value >= low && value <= high, "{} {}: an integer in [{}, {}]", name, value, low, high);
}

void require_few_segments(std::size_t count, std::int64_t length) {
  if (count <= kMaxSegments) return;
  throw TooManySegments(
      fmt::format("length {}: its segments have more than {} different lengths; shorten the "
                  "sequence",
                  length, kMaxSegments));
}

void require_array_size(std::initializer_list<std::int64_t> extents) {
  std::int64_t size = 1;
  bool fits = true;
  for (const std::int64_t extent : extents) {
    fits = fits && !__builtin_mul_overflow(size, extent, &size);
  }
  require(fits && size < (std::int64_t{1} << 57), "shape {}: its array passes 2^60 bytes",
          fmt::join(extents, " x "));
}

}  // namespace multistep
