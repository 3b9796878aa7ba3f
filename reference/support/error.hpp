#pragma once

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace multistep {

/// Throws std::invalid_argument. Not a template, so that the code of fmt is compiled once.
[[noreturn]] void refuse_formatted(fmt::string_view message, fmt::format_args values);

/// Throws std::invalid_argument with a message that names the offender, its value and the range.
template <class... Values>
[[noreturn]] void refuse(fmt::format_string<Values...> message, Values&&... values) {
  refuse_formatted(message, fmt::make_format_args(values...));
}

template <class... Values>
void require(bool holds, fmt::format_string<Values...> message, Values&&... values) {
  if (!holds) refuse_formatted(message, fmt::make_format_args(values...));
}

void require_within(std::string_view name, std::int64_t value, std::int64_t low, std::int64_t high);

/// Throws TooManySegments where a recursion over the segments of a schedule has met more different
/// ones than it remembers.
inline constexpr std::size_t kMaxSegments = 1'000'000;
class TooManySegments : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
void require_few_segments(std::size_t count, std::int64_t length);

/// What `ask` answers about a query: where its segments and those remembered of queries `asked`
/// before are too many, then after `forget`. So a query is refused for its own alone.
template <class Ask, class Forget>
auto ask_again_when_full(bool& asked, Ask&& ask, Forget&& forget) {
  if (std::exchange(asked, true)) {
    try {
      return ask();
    } catch (const TooManySegments&) {
      forget();
    }
  }
  return ask();
}

/// Throws unless an array of these extents, 0 or more each, stays below 2^60 bytes as doubles.
void require_array_size(std::initializer_list<std::int64_t> extents);

}  // namespace multistep
