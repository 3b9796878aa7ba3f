#include "bench/gpu_shape.hpp"

#include <fmt/format.h>

#include <stdexcept>

namespace multistep::program {

std::string_view to_string(InputKind kind) {
  switch (kind) {
    case InputKind::random:
      return "random";
    case InputKind::clustered:
      return "clustered";
    case InputKind::hot:
      return "hot";
    case InputKind::needle:
      return "needle";
  }
  throw std::invalid_argument(fmt::format("inputs {}: unknown", static_cast<int>(kind)));
}

}  // namespace multistep::program
