#include "studies/rounded.hpp"

#include <fmt/format.h>

#include <cmath>
#include <stdexcept>

#include "multistep/power.hpp"

namespace multistep::program {
namespace {

// A function of double rounded to float is the correctly rounded function of float, but for one
// argument in some 2^28 that lies that close to the middle between two floats.
float log_of(float x) { return static_cast<float>(std::log(static_cast<double>(x))); }
float exp_of(float x) { return static_cast<float>(std::exp(static_cast<double>(x))); }
float log2_of(float x) { return static_cast<float>(std::log2(static_cast<double>(x))); }
float exp2_of(float x) { return static_cast<float>(std::exp2(static_cast<double>(x))); }
float pow_of(float x, float y) {
  return static_cast<float>(std::pow(static_cast<double>(x), static_cast<double>(y)));
}

float float_power(Power power, Index base, float exponent) {
  const auto x = static_cast<float>(base);
  switch (power) {
    case Power::float_exp_log:
      return exp_of(exponent * log_of(x));
    case Power::float_exp2_log2:
      return exp2_of(exponent * log2_of(x));
    case Power::float_pow:
      return pow_of(x, exponent);
    default:
      throw std::invalid_argument(
          fmt::format("power {}: one in single precision", static_cast<int>(power)));
  }
}

double double_power(Power power, Index base, double exponent) {
  const auto x = static_cast<double>(base);
  return power == Power::double_pow ? std::pow(x, exponent) : std::exp(exponent * std::log(x));
}

bool in_double(Power power) { return power == Power::double_exp_log || power == Power::double_pow; }

std::string formula(Power power, const std::string& base, const std::string& exponent) {
  switch (power) {
    case Power::exact:
      return fmt::format("{}^{}", base, exponent);
    case Power::float_exp_log:
      return fmt::format("expf({} * logf({}))", exponent, base);
    case Power::float_exp2_log2:
      return fmt::format("exp2f({} * log2f({}))", exponent, base);
    case Power::float_pow:
      return fmt::format("powf({}, {})", base, exponent);
    case Power::double_exp_log:
      return fmt::format("exp({} * log({}))", exponent, base);
    case Power::double_pow:
      return fmt::format("pow({}, {})", base, exponent);
  }
  throw std::invalid_argument(fmt::format("power {}: unknown", static_cast<int>(power)));
}

}  // namespace

const std::vector<Rounding>& roundings() {
  using enum Power;
  static const std::vector<Rounding> kAll{
      {"exact", exact, 0, exact},
      {"exact stripes, float reach", exact, 0, float_exp_log},
      {"float exp(log)", float_exp_log, 0, float_exp_log},
      {"float exp(log) + 1e-6", float_exp_log, 1e-6, float_exp_log},
      {"float exp(log) + 0.5", float_exp_log, 0.5, float_exp_log},
      {"float exp2(log2)", float_exp2_log2, 0, float_exp2_log2},
      {"float pow", float_pow, 0, float_pow},
      {"float pow + 0.5", float_pow, 0.5, float_pow},
      {"double exp(log)", double_exp_log, 0, double_exp_log},
      {"double exp(log) + 1e-6", double_exp_log, 1e-6, double_exp_log},
      {"double pow", double_pow, 0, double_pow},
      {"double pow + 1e-6", double_pow, 1e-6, double_pow},
  };
  return kAll;
}

std::string stripe_formula(const Rounding& rounding) {
  const std::string power = formula(rounding.stripe, "i", "e");
  return rounding.added == 0 ? fmt::format("floor({})", power)
                             : fmt::format("floor({} + {})", power, rounding.added);
}

std::string reach_formula(const Rounding& rounding) {
  return fmt::format("ceil(c * {})", formula(rounding.reach, "n", "q"));
}

Index rounded_stripe(const Rounding& rounding, Index i, Rational exponent) {
  if (rounding.stripe == Power::exact) return floor_power(i, exponent);
  if (in_double(rounding.stripe)) {
    const double power = double_power(rounding.stripe, i, to_double(exponent));
    return truncated(std::floor(power + rounding.added));
  }
  const float power = float_power(rounding.stripe, i, static_cast<float>(to_double(exponent)));
  return truncated(std::floor(power + static_cast<float>(rounding.added)));
}

Reach rounded_reach(const Rounding& rounding, const Level& level, Index n) {
  if (rounding.reach == Power::exact) return power_reach(level, n);
  const double q = to_double(level.span_exponent);
  const double b = to_double(level.backward);
  const double f = to_double(level.forward);
  if (in_double(rounding.reach)) {
    const double power = double_power(rounding.reach, n, q);
    return {truncated(std::ceil(b * power)), truncated(std::ceil(f * power))};
  }
  const float power = float_power(rounding.reach, n, static_cast<float>(q));
  return {truncated(std::ceil(static_cast<float>(b) * power)),
          truncated(std::ceil(static_cast<float>(f) * power))};
}

}  // namespace multistep::program
