#include "multistep/power.hpp"

#include <algorithm>
#include <bit>
#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <initializer_list>

#include "support/error.hpp"

namespace multistep {
namespace {

__extension__ using Wide = unsigned __int128;

/// One factor of a product of integer powers, base^exponent with base >= 1.
struct Power {
  Index base;
  Index exponent;
};
using Product = std::initializer_list<Power>;

enum class Rounding { down, up };

/// mantissa * 2^exponent with the mantissa's top bit set: 64 significant bits, rounded one way.
/// Integer arithmetic only, so a bound is a proof.
struct Bound {
  std::uint64_t mantissa;
  Index exponent;
};

Bound bound_of(Index value) {
  const auto bits = static_cast<std::uint64_t>(value);
  const int shift = std::countl_zero(bits);
  return {bits << shift, -shift};
}

Bound multiply(Bound a, Bound b, Rounding rounding) {
  const Wide product = static_cast<Wide>(a.mantissa) * b.mantissa;
  const int shift = (product >> 127) != 0 ? 64 : 63;
  Bound result{static_cast<std::uint64_t>(product >> shift), a.exponent + b.exponent + shift};
  const bool exact = (product & ((Wide{1} << shift) - 1)) == 0;
  if (!exact && rounding == Rounding::up && ++result.mantissa == 0) {
    result = {std::uint64_t{1} << 63, result.exponent + 1};
  }
  return result;
}

Bound bound_of(Product product, Rounding rounding) {
  Bound result = bound_of(1);
  for (const Power& power : product) {
    Bound square = bound_of(power.base);
    for (Index left = power.exponent; left > 0; left >>= 1) {
      if ((left & 1) != 0) result = multiply(result, square, rounding);
      if (left > 1) square = multiply(square, square, rounding);
    }
  }
  return result;
}

bool at_most(Bound a, Bound b) {
  return a.exponent != b.exponent ? a.exponent < b.exponent : a.mantissa <= b.mantissa;
}

boost::multiprecision::cpp_int value_of(Product product) {
  boost::multiprecision::cpp_int value = 1;
  for (const Power& power : product) {
    value *= boost::multiprecision::pow(boost::multiprecision::cpp_int(power.base),
                                        static_cast<unsigned>(power.exponent));
  }
  return value;
}

/// a <= b. The bounds settle all but the closest pairs; big integers settle those.
bool at_most(Product a, Product b) {
  if (at_most(bound_of(a, Rounding::up), bound_of(b, Rounding::down))) return true;
  if (!at_most(bound_of(a, Rounding::down), bound_of(b, Rounding::up))) return false;
  return value_of(a) <= value_of(b);
}

/// min(base^exponent, kPowerLimit).
Index saturated_power(Index base, Index exponent) {
  Index result = 1;
  for (Index step = 0; step < exponent && base > 1 && result < kPowerLimit; ++step) {
    result = static_cast<Index>(
        std::min(static_cast<Wide>(result) * static_cast<Wide>(base), Wide{kPowerLimit}));
  }
  return base == 0 && exponent > 0 ? 0 : result;
}

double real(Index value) { return static_cast<double>(value); }

}  // namespace

Index truncated(double value) {
  require(!std::isnan(value), "{}: a number", value);
  constexpr auto kLimit = static_cast<double>(kPowerLimit);
  return static_cast<Index>(std::clamp(value, -kLimit, kLimit));
}

// Floating point tells where the search for an exact value starts, never what it ends with.

Index floor_power(Index base, Rational exponent) {
  require(base >= 0, "base {}: a power is taken of an integer >= 0", base);
  const auto [a, b] = exponent;
  require(a >= 0 && b > 0, "exponent {}/{}: a rational >= 0", a, b);
  if (b == 1) return saturated_power(base, a);
  if (base <= 1) return base;
  Index m = truncated(std::pow(real(base), real(a) / real(b)));
  if (m >= kPowerLimit) return kPowerLimit;
  while (m > 1 && !at_most({{m, b}}, {{base, a}})) --m;
  while (at_most({{m + 1, b}}, {{base, a}})) ++m;
  return m;
}

Index ceil_scaled_power(Rational factor, Index base, Rational exponent) {
  require(base >= 0, "base {}: a power is taken of an integer >= 0", base);
  const auto [u, v] = factor;
  const auto [a, b] = exponent;
  require(u >= 0 && v > 0 && a >= 0 && b > 0, "{}/{} and {}/{}: rationals >= 0", u, v, a, b);
  if (u == 0 || (base == 0 && a > 0)) return 0;
  const Index n = std::max(base, Index{1});
  Index reach = truncated(real(u) / real(v) * std::pow(real(n), real(a) / real(b)));
  if (reach >= kPowerLimit) return kPowerLimit;
  reach = std::max(reach, Index{1});
  while (!at_most({{u, b}, {n, a}}, {{reach, b}, {v, b}})) ++reach;
  while (reach > 1 && at_most({{u, b}, {n, a}}, {{reach - 1, b}, {v, b}})) --reach;
  return reach;
}

Index ceil_root(Index value, Index degree) {
  require(value >= 0 && value <= kPowerLimit && degree >= 1,
          "root {} of {}: degree >= 1, value in [0, 2^60]", degree, value);
  if (value <= 1) return value;
  Index root = std::max(truncated(std::pow(real(value), 1 / real(degree))), Index{1});
  while (saturated_power(root, degree) < value) ++root;
  while (root > 1 && saturated_power(root - 1, degree) >= value) --root;
  return root;
}

}  // namespace multistep
