#pragma once

#include <cstdint>

/// Where the rows of a head lie: one behind the other, or in pages that a table tells of.
namespace multistep::cuda {

/// Key j of a sequence is row j % 2^log2 of the page that entry j / 2^log2 of its table names.
struct PageTables {
  const std::int32_t* table = nullptr;  // [batch, max_pages]; null: no pages
  std::int32_t max_pages = 0;
  std::int32_t log2 = 0;  // of a page's keys
};

/// Rows of head_dim values of one head.
template <class T, bool kPaged = false>
struct HeadRows {
  const T* first;
  std::int64_t step;  // from one to the next, in values
#ifdef __CUDACC__
  __device__ const T* operator[](std::int64_t row) const { return first + row * step; }
#endif
};

/// The same in pages. Of a table only the entries of rows that are asked for are read.
template <class T>
struct HeadRows<T, true> {
  const T* first;  // of page 0
  std::int64_t step;
  std::int64_t page_step;     // from one page to the next, in values
  const std::int32_t* table;  // of the sequence
  std::int32_t log2;
#ifdef __CUDACC__
  __device__ std::int32_t page_of(std::int64_t row) const { return __ldg(table + (row >> log2)); }
  /// From `first`, of the row in its page.
  __device__ std::int64_t offset(std::int32_t page, std::int64_t row) const {
    return page * page_step + (row & ((std::int64_t{1} << log2) - 1)) * step;
  }
  __device__ const T* operator[](std::int64_t row) const {
    return first + offset(page_of(row), row);
  }
#endif
};

}  // namespace multistep::cuda
