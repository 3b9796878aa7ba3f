#include <multistep/power.hpp>

#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "schedule/property.hpp"
#include "support/catch.hpp"

using multistep::ceil_root;
using multistep::ceil_scaled_power;
using multistep::floor_power;
using multistep::Index;
using multistep::kMaxLength;
using multistep::kPowerLimit;
using multistep::make_rational;
using multistep::parse_rational;
using multistep::Rational;
using multistep::truncated;

namespace {

using Integer = boost::multiprecision::cpp_int;

Integer power(const Integer& base, Index exponent) {
  return boost::multiprecision::pow(base, static_cast<unsigned>(exponent));
}

/// m is floor(base^exponent), or the limit where that is no less.
bool is_floor_power(Index m, Index base, Rational exponent) {
  const Integer target = power(base, exponent.numerator);
  const bool reached = m >= 0 && power(m, exponent.denominator) <= target;
  if (m == kPowerLimit) return reached;
  return reached && m < kPowerLimit && power(Integer(m) + 1, exponent.denominator) > target;
}

/// B is ceil(factor base^exponent), or the limit where that is no less.
bool is_ceil_scaled_power(Index B, Rational factor, Index base, Rational exponent) {
  const Integer target =
      power(factor.numerator, exponent.denominator) * power(base, exponent.numerator);
  const auto enough = [&](Index reach) {
    return power(Integer(reach) * factor.denominator, exponent.denominator) >= target;
  };
  if (B < 0 || B > kPowerLimit || (B > 0 && enough(B - 1))) return false;
  return B == kPowerLimit || enough(B);
}

void require_floor_power(Index base, Rational exponent) {
  const Index m = floor_power(base, exponent);
  if (is_floor_power(m, base, exponent)) return;
  FAIL("floor_power(" << base << ", " << to_string(exponent) << ") is not " << m);
}

void require_ceil_scaled_power(Rational factor, Index base, Rational exponent) {
  const Index B = ceil_scaled_power(factor, base, exponent);
  if (is_ceil_scaled_power(B, factor, base, exponent)) return;
  FAIL("ceil_scaled_power(" << to_string(factor) << ", " << base << ", " << to_string(exponent)
                            << ") is not " << B);
}

/// k^degree and its neighbours, for k = 0, 1, ... below `count`, as far as they are below the
/// limit.
std::vector<Index> around_powers(Index degree, Index count) {
  std::vector<Index> values;
  for (Index k = 0; k < count; ++k) {
    const Integer center = power(k, degree);
    if (center >= kPowerLimit) break;
    for (Index shift = -1; shift <= 1; ++shift) {
      const auto value = static_cast<Index>(center) + shift;
      if (value >= 0) values.push_back(value);
    }
  }
  return values;
}

std::vector<Index> lengths() {
  std::vector<Index> values = {999'999'999'999, 1'000'000'000'000, 1'000'000'000'001,
                               kMaxLength - 1,  kMaxLength,        kMaxLength + 1,
                               10'000'000,      Index{1} << 20,    (Index{1} << 20) + 1};
  for (Index n = 0; n <= 300; ++n) values.push_back(n);
  for (Index degree : {2, 3, 4, 20}) {
    for (Index value : around_powers(degree, 400)) values.push_back(value);
  }
  return values;
}

const std::vector<Rational> kSpanExponents = {{0, 1}, {1, 3}, {1, 2},  {11, 20},
                                              {2, 3}, {3, 4}, {9, 20}, {1, 1}};

}  // namespace

TEST_CASE("From floating point to an integer: without the fraction, within 2^60", "[power]") {
  CHECK(truncated(0.99) == 0);
  CHECK(truncated(-2.5) == -2);
  CHECK(truncated(0x1p53 + 2) == (Index{1} << 53) + 2);
  CHECK(truncated(0x1.fffffffffffffp59) < kPowerLimit);
  for (const double beyond : {0x1p60, 0x1p63, 1e300, static_cast<double>(INFINITY)}) {
    CHECK(truncated(beyond) == kPowerLimit);
    CHECK(truncated(-beyond) == -kPowerLimit);
  }
  CHECK_THROWS_WITH(truncated(NAN), "nan: a number");
}

TEST_CASE("Integer exponents give exact powers", "[power]") {
  for (Index exponent = 0; exponent <= 64; ++exponent) {
    for (Index base = 0; base <= 2000; ++base) require_floor_power(base, {exponent, 1});
  }
  CHECK(floor_power(0, {0, 1}) == 1);
  CHECK(floor_power(0, {3, 1}) == 0);
  CHECK(floor_power(7, {3, 1}) == 343);
}

TEST_CASE("Fractional exponents give the floor of every small base", "[power]") {
  for (const Rational exponent :
       {Rational{20, 11}, Rational{11, 20}, Rational{5, 2}, Rational{1, 2}, Rational{2, 3},
        Rational{3, 4}, Rational{7, 3}, Rational{64, 63}}) {
    for (Index base = 0; base <= 3000; ++base) require_floor_power(base, exponent);
  }
  for (Index base = 0; base <= 300; ++base) require_floor_power(base, {1819, 1000});
}

TEST_CASE("Roots step exactly at perfect powers", "[power]") {
  for (Index degree = 2; degree <= 64; ++degree) {
    for (Index value : around_powers(degree, 2000)) {
      require_floor_power(value, {1, degree});
      require_floor_power(value, {degree - 1, degree});
    }
  }
  for (Index degree : {2, 3}) {
    // Squares and cubes as large as they come: a rounded root of k^degree - 1 is k.
    const Index largest = ceil_root(kPowerLimit, degree) - 1;
    for (Index k = largest - 50; k <= largest; ++k) {
      const auto center = static_cast<Index>(power(k, degree));
      CHECK(floor_power(center - 1, {1, degree}) == k - 1);
      CHECK(floor_power(center, {1, degree}) == k);
      CHECK(floor_power(center + 1, {1, degree}) == k);
    }
  }
}

TEST_CASE("Mixed exponents step exactly at perfect powers", "[power]") {
  for (Index base : around_powers(11, 40)) require_floor_power(base, {20, 11});
  for (Index base : around_powers(20, 9)) require_floor_power(base, {11, 20});
  for (Index base : around_powers(2, 2000)) require_floor_power(base, {5, 2});
  for (Index base : around_powers(3, 2000)) require_floor_power(base, {2, 3});
  for (Index base : around_powers(4, 2000)) require_floor_power(base, {3, 4});
}

TEST_CASE("The stripes of exponent 20/11 are exact far out", "[power]") {
  CHECK(floor_power(360, {20, 11}) == 44444);
  CHECK(floor_power(410, {20, 11}) == 56300);
  CHECK(floor_power(425, {20, 11}) == 60102);
  for (Index i = 1; i <= 7100; i += 3) require_floor_power(i, {20, 11});
  for (Index i = 4'000'000; i < 4'000'500; ++i) require_floor_power(i, {20, 11});
}

TEST_CASE("Scaled powers round up exactly", "[power]") {
  for (const Rational factor : {Rational{1, 1}, Rational{2, 1}, Rational{3, 1}, Rational{19, 10},
                                Rational{1, 3}, Rational{0, 1}, Rational{9999, 10000}}) {
    for (const Rational exponent : kSpanExponents) {
      for (Index n : lengths()) require_ceil_scaled_power(factor, n, exponent);
    }
  }
}

TEST_CASE("Scaled powers at known lengths", "[power]") {
  CHECK(ceil_scaled_power({2, 1}, 20, {1, 2}) == 9);
  CHECK(ceil_scaled_power({2, 1}, 1'000'000'000'000, {1, 2}) == 2'000'000);
  CHECK(ceil_scaled_power({2, 1}, 1'000'000'000'001, {1, 2}) == 2'000'001);
  CHECK(ceil_scaled_power({19, 10}, 1'000'000'000'000, {1, 2}) == 1'900'000);
  CHECK(ceil_scaled_power({1, 3}, kMaxLength, {1, 2}) == 5'592'406);
  CHECK(ceil_scaled_power({3, 1}, kMaxLength, {3, 4}) == 3 * (Index{1} << 36));
  CHECK(ceil_scaled_power({3, 1}, kMaxLength + 1, {3, 4}) == 3 * (Index{1} << 36) + 1);
  CHECK(ceil_scaled_power({3, 1}, Index{1} << 20, {11, 20}) == 6144);
  CHECK(ceil_scaled_power({1, 1}, Index{1} << 20, {11, 20}) == 2048);
  CHECK(ceil_scaled_power({1, 1}, (Index{1} << 20) + 1, {11, 20}) == 2049);
  CHECK(ceil_scaled_power({5, 2}, 0, {0, 1}) == 3);  // n^0 is 1
  CHECK(ceil_scaled_power({5, 2}, 0, {1, 2}) == 0);
}

TEST_CASE("Powers saturate at the limit and not before", "[power]") {
  const Index root = Index{1} << 40;  // root^(3/2) is the limit
  CHECK(floor_power(2, {59, 1}) == kPowerLimit / 2);
  CHECK(floor_power(2, {60, 1}) == kPowerLimit);
  CHECK(floor_power(2, {61, 1}) == kPowerLimit);
  CHECK(floor_power(3, {37, 1}) == 450'283'905'890'997'363);
  CHECK(floor_power(3, {38, 1}) == kPowerLimit);
  CHECK(floor_power(kMaxLength, {64, 1}) == kPowerLimit);
  CHECK(floor_power(kPowerLimit - 1, {1, 1}) == kPowerLimit - 1);
  CHECK(floor_power(kPowerLimit + 1, {1, 1}) == kPowerLimit);
  CHECK(floor_power(root + 1, {3, 2}) == kPowerLimit);
  CHECK(floor_power(root, {3, 2}) == kPowerLimit);
  require_floor_power(root - 1, {3, 2});
  CHECK(floor_power(kMaxLength, {20, 11}) == kPowerLimit);

  CHECK(ceil_scaled_power({1, 1}, root, {3, 2}) == kPowerLimit);
  CHECK(ceil_scaled_power({1, 1}, root + 1, {3, 2}) == kPowerLimit);
  require_ceil_scaled_power({1, 1}, root - 1, {3, 2});
  CHECK(ceil_scaled_power({1'000'000'000, 1}, kMaxLength, {1, 1}) == kPowerLimit);
  CHECK(ceil_scaled_power({4096, 1}, kMaxLength, {1, 1}) == kPowerLimit);
  CHECK(ceil_scaled_power({4095, 1}, kMaxLength, {1, 1}) == 4095 * kMaxLength);
}

TEST_CASE("Roots round up exactly", "[power]") {
  for (Index degree = 1; degree <= 64; ++degree) {
    for (Index value : around_powers(degree, 2000)) {
      const Index root = ceil_root(value, degree);
      const bool enough = power(root, degree) >= value;
      if (!enough || (root > 0 && power(root - 1, degree) >= value)) {
        FAIL("ceil_root(" << value << ", " << degree << ") is not " << root);
      }
    }
  }
  CHECK(ceil_root(0, 5) == 0);
  CHECK(ceil_root(1, 5) == 1);
  CHECK(ceil_root(2, 64) == 2);
  CHECK(ceil_root(kMaxLength, 2) == Index{1} << 24);
  CHECK(ceil_root(kMaxLength + 1, 2) == (Index{1} << 24) + 1);
  CHECK(ceil_root(kMaxLength, 1) == kMaxLength);
}

TEST_CASE("Powers of any base and exponent are exact", "[power]") {
  check_property("floor and ceil settle both neighbours", [] {
    const auto exponent =
        make_rational(*rc::gen::inRange<Index>(0, 200), *rc::gen::inRange<Index>(1, 100));
    const auto factor =
        make_rational(*rc::gen::inRange<Index>(0, 10'000), *rc::gen::inRange<Index>(1, 10'000));
    const auto base = *rc::gen::inRange<Index>(0, kMaxLength + 1);
    RC_ASSERT(is_floor_power(floor_power(base, exponent), base, exponent));
    RC_ASSERT(
        is_ceil_scaled_power(ceil_scaled_power(factor, base, exponent), factor, base, exponent));
  });
}

TEST_CASE("Powers of negative numbers are refused", "[power]") {
  CHECK_THROWS_WITH(floor_power(-1, {2, 1}), "base -1: a power is taken of an integer >= 0");
  CHECK_THROWS_WITH(ceil_scaled_power({1, 1}, -1, {1, 2}),
                    "base -1: a power is taken of an integer >= 0");
  CHECK_THROWS_WITH(ceil_root(-1, 2), "root 2 of -1: degree >= 1, value in [0, 2^60]");
  CHECK_THROWS_WITH(ceil_root(kPowerLimit + 1, 2),
                    "root 2 of 1152921504606846977: degree >= 1, value in [0, 2^60]");
  CHECK_THROWS_WITH(floor_power(5, {1, 0}), "exponent 1/0: a rational >= 0");
  CHECK_THROWS_WITH(ceil_scaled_power({1, 0}, 5, {1, 2}), "1/0 and 1/2: rationals >= 0");
  CHECK_THROWS_WITH(ceil_root(8, 0), "root 0 of 8: degree >= 1, value in [0, 2^60]");
}

TEST_CASE("Rationals are read exactly and kept in lowest terms", "[power]") {
  CHECK(parse_rational("20/11") == Rational{20, 11});
  CHECK(parse_rational("40/22") == Rational{20, 11});
  CHECK(parse_rational("3") == Rational{3, 1});
  CHECK(parse_rational("0") == Rational{0, 1});
  CHECK(parse_rational("0/7") == Rational{0, 1});
  CHECK(parse_rational("0.55") == Rational{11, 20});
  CHECK(parse_rational(".5") == Rational{1, 2});
  CHECK(parse_rational("1.9") == Rational{19, 10});
  CHECK(parse_rational("12.050") == Rational{241, 20});
  CHECK(parse_rational("0.50000000000000000000") == Rational{1, 2});
  CHECK(parse_rational("3.0") == Rational{3, 1});
  CHECK(parse_rational("0.000000001") == Rational{1, 1'000'000'000});
  CHECK(parse_rational("1000000000") == Rational{1'000'000'000, 1});
  CHECK(parse_rational("2000000000/4000000000") == Rational{1, 2});
  CHECK(make_rational(6, 4) == Rational{3, 2});
  CHECK(make_rational(0, 9) == Rational{0, 1});
  CHECK(to_string(Rational{20, 11}) == "20/11");
  CHECK(to_string(Rational{3, 1}) == "3");
  CHECK(to_double(Rational{11, 20}) == 0.55);
}

TEST_CASE("What is no rational is refused by name", "[power]") {
  for (const std::string text :
       {"",      "-1",  "+1",   " 1",    "1 ",   "x",    "1/0",
        "1/-2",  "/2",  "1/",   "1/2/3", "1.",   ".",    "1.2.3",
        "0.5/2", "1e3", "0x10", "1,5",   "-0.5", "0.-5", "99999999999999999999",
        "nan"}) {
    CHECK_THROWS_AS(parse_rational(text), std::invalid_argument);
    CHECK_THROWS_WITH(parse_rational(text), text + ": a rational >= 0 such as 20/11, 0.55 or 3");
  }
  for (const std::string text : {"1000000001", "1/1000000001", "0.0000000001", "2000000001/2"}) {
    CHECK_THROWS_WITH(parse_rational(text),
                      text + ": numerator and denominator of a rational are at most 1000000000");
  }
  CHECK_THROWS_WITH(make_rational(-1, 2), "-1/2: a rational here is >= 0, its denominator > 0");
  CHECK_THROWS_WITH(make_rational(1, 0), "1/0: a rational here is >= 0, its denominator > 0");
}

TEST_CASE("Rationals compare exactly", "[power]") {
  CHECK(Rational{1, 3} < Rational{1, 2});
  CHECK_FALSE(Rational{1, 2} < Rational{1, 3});
  CHECK_FALSE(Rational{2, 3} < Rational{2, 3});
  CHECK(Rational{INT64_MAX - 1, INT64_MAX} < Rational{1, 1});
  CHECK(Rational{INT64_MAX - 2, INT64_MAX - 1} < Rational{INT64_MAX - 1, INT64_MAX});
}
