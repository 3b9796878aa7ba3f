#pragma once

#include <string>
#include <vector>

#include "multistep/schedule.hpp"

/// Stripes and reaches as programs commonly compute them, in rounded arithmetic.
namespace multistep::program {

enum class Power {
  exact,
  float_exp_log,    // expf(e * logf(x))
  float_exp2_log2,  // exp2f(e * log2f(x)), what exp and log are made of on many devices
  float_pow,        // powf(x, e)
  double_exp_log,
  double_pow
};

/// One way to compute the stripes floor(i^e + added) and the reaches ceil(c * n^q).
struct Rounding {
  std::string name;
  Power stripe = Power::exact;
  double added = 0;  // a repair, added in the stripe's own precision before it is rounded down
  Power reach = Power::exact;
};

/// The exact way first, then the rounded ones.
const std::vector<Rounding>& roundings();

/// "floor(expf(e * logf(i)) + 0.5)", and for reaches "ceil(c * expf(q * logf(n)))".
std::string stripe_formula(const Rounding& rounding);
std::string reach_formula(const Rounding& rounding);

/// Each step of the single-precision powers - logarithm, product, exponential - is rounded
/// correctly, so that the result does not depend on a device's approximations: those of GPUs add
/// their own errors to these.
Index rounded_stripe(const Rounding& rounding, Index i, Rational exponent);
Reach rounded_reach(const Rounding& rounding, const Level& level, Index n);

}  // namespace multistep::program
