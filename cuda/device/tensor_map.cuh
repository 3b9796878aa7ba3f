#pragma once

#include <cuda.h>

#include <array>

#include "api/check.cuh"
#include "api/stages.cuh"

/// What the copy engine is told of an array. The driver makes it, and is asked for its function at
/// run time: nothing is linked to it.
namespace multistep::cuda {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

/// A tensor map of an array in boxes of `box_keys` keys by 64 columns. `sizes`: head_dim, keys,
/// heads, batch; what lies beyond them reads as zeros.
inline CUtensorMap tensor_map(const RowArray& array, Dtype dtype, const std::array<Index, 4>& sizes,
                              unsigned box_keys) {
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
  cuuint64_t counts[4];
  std::copy(sizes.begin(), sizes.end(), counts);
  // Where there is one of a dimension, its stride may be anything; here it is told as a valid one.
  const auto stride = [&](int i, std::int64_t step) {
    return static_cast<cuuint64_t>(counts[i] > 1 ? step : array.row) * 2;
  };
  const cuuint64_t strides[3] = {static_cast<cuuint64_t>(array.row) * 2, stride(2, array.head),
                                 stride(3, array.batch)};
  const cuuint32_t box[4] = {64, box_keys, 1, 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const CUresult result = encode(
      &map,
      dtype == Dtype::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4,
      const_cast<void*>(array.data), counts, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw std::runtime_error(text("cuTensorMapEncodeTiled: error {}", static_cast<int>(result)));
  }
  return map;
}

}  // namespace multistep::cuda
