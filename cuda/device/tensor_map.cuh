#pragma once

#include <cuda.h>

#include "api/check.cuh"

/// What the copy engine is told of an array. The driver makes it, and is asked for its function at
/// run time: nothing is linked to it.
namespace multistep::cuda {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

/// A tensor map of [heads, row_count, head_dim] in boxes of `box_keys` keys by 64 columns. Keys
/// from `keys` on read as zeros, whatever is there.
inline CUtensorMap tensor_map(const void* base, Dtype dtype, Index head_dim, Index keys,
                              Index row_count, Index heads, unsigned box_keys) {
  static const EncodeTiled encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &result),
          "cuTensorMapEncodeTiled");
    if (result != cudaDriverEntryPointSuccess || !found) {
      throw std::runtime_error("cuTensorMapEncodeTiled: the driver does not have it");
    }
    return reinterpret_cast<EncodeTiled>(found);
  }();
  CUtensorMap map;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(keys),
                               static_cast<cuuint64_t>(heads)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(head_dim) * 2,
                                 static_cast<cuuint64_t>(row_count * head_dim) * 2};
  const cuuint32_t box[3] = {64, box_keys, 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result = encode(
      &map,
      dtype == Dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3,
      const_cast<void*>(base), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error(text("cuTensorMapEncodeTiled: error {}", static_cast<int>(result)));
  }
  return map;
}

}  // namespace multistep::cuda
