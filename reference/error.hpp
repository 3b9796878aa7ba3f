#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

namespace multistep {

/// Throws std::invalid_argument with a message that names the offender, its value and the range.
template <class... Values>
void require(bool holds, fmt::format_string<Values...> message, Values&&... values) {
  if (!holds) throw std::invalid_argument(fmt::format(message, std::forward<Values>(values)...));
}

}  // namespace multistep
