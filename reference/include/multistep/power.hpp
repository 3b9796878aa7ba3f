#pragma once

#include "multistep/types.hpp"

/// Exact powers (SPEC 2.1). Results beyond kPowerLimit are reported as kPowerLimit, which exceeds
/// any length by so much that sums of a few of them still fit 64 bits.
namespace multistep {

inline constexpr Index kPowerLimit = Index{1} << 60;

/// A floating-point value without its fraction, kept within kPowerLimit on either side: the one way
/// from floating point to an integer. Throws std::invalid_argument for NaN.
Index truncated(double value);

/// floor(base^exponent): the largest m with m^b <= base^a, for exponent a/b and base >= 0.
Index floor_power(Index base, Rational exponent);

/// ceil(factor * base^exponent): the smallest B with (B v)^b >= u^b base^a, for factor u/v,
/// exponent a/b and base >= 0.
Index ceil_scaled_power(Rational factor, Index base, Rational exponent);

/// ceil(value^(1/degree)): the smallest r with r^degree >= value, for value in [0, kPowerLimit],
/// degree >= 1.
Index ceil_root(Index value, Index degree);

}  // namespace multistep
