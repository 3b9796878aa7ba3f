#pragma once

#include <type_traits>

#include "api/check.cuh"
#include "api/stages.cuh"
#include "device/storage.cuh"

namespace multistep::cuda {

/// Columns that kernels are compiled for, of which a row uses its head_dim.
constexpr int columns_for(int head_dim) {
  return head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : kMaxHeadDim;
}

/// Calls body(T{}, integral constant): the storage type, and the columns for its rows, which are at
/// most kMost.
template <int kMost = kMaxHeadDim, class Args, class Body>
void with_row_type(const Args& args, Body&& body) {
  const int columns = columns_for(args.rows.head_dim);
  require(columns <= kMost, "head_dim {}: up to {} here", args.rows.head_dim, kMost);
  const auto with_columns = [&](auto type) {
    if (columns == 64) return body(type, std::integral_constant<int, 64>{});
    if (columns == 128) return body(type, std::integral_constant<int, 128>{});
    if constexpr (kMost > 128) body(type, std::integral_constant<int, kMaxHeadDim>{});
  };
  args.dtype == Dtype::bf16 ? with_columns(bf16{}) : with_columns(fp16{});
}

/// Calls body(T{}, constant): the storage type, and whether the keys lie in pages.
template <class Args, class Body>
void with_type_and_pages(const Args& args, Body&& body) {
  const auto with_pages = [&](auto type) {
    args.rows.pages.table ? body(type, std::true_type{}) : body(type, std::false_type{});
  };
  args.dtype == Dtype::bf16 ? with_pages(bf16{}) : with_pages(fp16{});
}

}  // namespace multistep::cuda
