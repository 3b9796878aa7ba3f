#pragma once

#include <type_traits>

#include "api/stages.cuh"
#include "device/storage.cuh"

namespace multistep::cuda {

/// Columns that kernels are compiled for, of which a row uses its head_dim, at most 128.
constexpr int columns_for(int head_dim) { return head_dim <= 64 ? 64 : 128; }

/// Calls body(T{}, integral constant): the storage type, and the columns for its rows.
template <class Args, class Body>
void with_row_type(const Args& args, Body&& body) {
  const auto with_columns = [&](auto type) {
    columns_for(args.rows.head_dim) == 64 ? body(type, std::integral_constant<int, 64>{})
                                          : body(type, std::integral_constant<int, 128>{});
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
