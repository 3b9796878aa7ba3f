#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

/// The 16-bit storage types; sums are float32.
namespace multistep::cuda {

using bf16 = __nv_bfloat16;
using fp16 = __half;

__device__ inline float to_float(bf16 value) { return __bfloat162float(value); }
__device__ inline float to_float(fp16 value) { return __half2float(value); }

template <class T>
__device__ T from_float(float value);
template <>
__device__ inline bf16 from_float<bf16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ inline fp16 from_float<fp16>(float value) {
  return __float2half_rn(value);
}

/// Two values in the bits of one register, the first in the lower half.
template <class T>
__device__ std::uint32_t pack(float low, float high);
template <>
__device__ inline std::uint32_t pack<bf16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}
template <>
__device__ inline std::uint32_t pack<fp16>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

template <class T>
__device__ float2 unpack(std::uint32_t bits);
template <>
__device__ inline float2 unpack<bf16>(std::uint32_t bits) {
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}
template <>
__device__ inline float2 unpack<fp16>(std::uint32_t bits) {
  return __half22float2(reinterpret_cast<const __half2&>(bits));
}

inline constexpr float kInfinity = __builtin_huge_valf();

}  // namespace multistep::cuda
