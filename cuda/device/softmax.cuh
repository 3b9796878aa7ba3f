#pragma once

#include "device/ptx.cuh"
#include "device/storage.cuh"

/// Softmax in parts: theorem many_parts of proofs/statements/ResultsSoftmax.v. A part is some of
/// the logits, by their maximum and the sum of exp(logit - maximum), beside which the caller sums
/// values with the same weights. Parts are joined in the order of their keys, so that the bits are
/// always the same; a part that is divided by its sum is one logit, its log-sum-exp.
namespace multistep::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

/// Most keys that are summed in one float32 before it becomes a part, at absolute multiples:
/// beyond, what a sum loses by each addition, or a tensor core by cutting it off, would come to
/// more than the rounding of an output. A sum of equal weights stands still at 2^24 keys.
inline constexpr std::int32_t kPartKeys = 1 << 16;

struct BaseE {
  static constexpr float kNatural = 1;  // of its logarithms
  static __device__ float exp(float x) { return __expf(x); }
};
struct Base2 {
  static constexpr float kNatural = kLn2;
  static __device__ float exp(float x) { return ptx::exp2(x); }
};

template <class Base>
struct Softmax {
  float max = -kInfinity;
  float sum = 0;

  /// exp(logit - max), where equals weigh 1: never exp(inf - inf). NaN stays NaN.
  __device__ float weight(float logit) const {
    return logit == max ? 1.0f : Base::exp(logit - max);
  }
  /// The same for a part, of its maximum; an empty one weighs nothing.
  __device__ float weight_of_part(float part_max) const {
    return part_max == -kInfinity ? 0 : weight(part_max);
  }

  /// Makes room for a larger logit; returns by what the sums so far shrink.
  __device__ float raise(float larger) {
    const float before = max;
    max = larger;
    const float shrink = weight(before);
    sum *= shrink;
    return shrink;
  }
  /// Adds a logit, or a part, at most as large as max; returns its weight.
  __device__ float add(float logit) {
    const float w = weight(logit);
    sum += w;
    return w;
  }
  __device__ float join(const Softmax& part) {
    const float w = weight_of_part(part.max);
    sum += w * part.sum;
    return w;
  }
  /// To base e; -inf where nothing weighs.
  __device__ float log_sum_exp() const {
    return sum == 0 ? -kInfinity : fmaf(max, Base::kNatural, __logf(sum));
  }
};

/// How much two parts count in their union, by their log-sum-exps, and its own. Neither counts
/// where both are empty.
struct Joined {
  float first;
  float second;
  float lse;
};
__device__ inline Joined join(float first, float second) {
  if (first == -kInfinity && second == -kInfinity) return {0, 0, -kInfinity};
  Softmax<BaseE> both{fmaxf(first, second)};
  const float a = both.add(first);
  const float b = both.add(second);
  return {a / both.sum, b / both.sum, both.log_sum_exp()};
}

}  // namespace multistep::cuda
