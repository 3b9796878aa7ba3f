#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace multistep::program {

/// The text with every byte that is not printable ASCII as \xNN: what a file or an argument holds
/// must not command the terminal.
inline std::string printable(std::string_view text) {
  std::string shown;
  for (const char letter : text) {
    if (letter >= ' ' && letter <= '~') {
      shown += letter;
    } else {
      shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(letter));
    }
  }
  return shown;
}

}  // namespace multistep::program
