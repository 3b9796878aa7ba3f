#pragma once

#include <type_traits>

#include "api/stages.cuh"
#include "device/storage.cuh"

namespace multistep::cuda {

/// Calls body(T{}, integral constant): the columns of tiles, of which head_dim are used.
template <class Args, class Body>
void with_tile_type(const Args& args, Body&& body) {
  const bool wide = args.rows.head_dim > 64;
  const auto with_head_dim = [&](auto type) {
    wide ? body(type, std::integral_constant<int, 128>{})
         : body(type, std::integral_constant<int, 64>{});
  };
  args.dtype == Dtype::bf16 ? with_head_dim(bf16{}) : with_head_dim(fp16{});
}

}  // namespace multistep::cuda
