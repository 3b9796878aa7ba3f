#include <multistep/count.hpp>

#include <boost/multiprecision/cpp_int.hpp>
#include <cstdint>
#include <stdexcept>

#include "schedule/property.hpp"
#include "support/catch.hpp"

using boost::multiprecision::cpp_int;
using multistep::Count;
using multistep::Index;

namespace {

Count power_of_two(int exponent) {
  Count power = 1;
  for (int bit = 0; bit < exponent; ++bit) power += power;
  return power;
}

}  // namespace

TEST_CASE("A count tells its digits and whether 63 bits hold it", "[count]") {
  CHECK(to_string(Count()) == "0");
  CHECK(to_string(Count(907)) == "907");
  CHECK(Count(INT64_MAX).index() == INT64_MAX);
  CHECK_FALSE((Count(INT64_MAX) + 1).index());
  CHECK(to_string(Count(INT64_MAX) + 1) == "9223372036854775808");
  CHECK(to_string(power_of_two(64)) == "18446744073709551616");
  CHECK(to_string(power_of_two(127)) == "170141183460469231731687303715884105728");
  CHECK(power_of_two(100).to_double() == 0x1p100);
  CHECK(power_of_two(64) > power_of_two(63));
}

TEST_CASE("Sums and products of counts are those of integers", "[count]") {
  check_property("big integers agree", [] {
    const auto any = [] { return *rc::gen::inRange<Index>(0, INT64_MAX); };
    const Index a = any(), b = any(), c = any();
    RC_ASSERT(cpp_int(to_string(Count(a) * b + c)) == cpp_int(a) * b + c);
    RC_ASSERT((Count(a) * b < Count(b) * c) == (cpp_int(a) * b < cpp_int(b) * c));
  });
}

TEST_CASE("A count out of range is refused, not wrapped", "[count]") {
  CHECK_THROWS_WITH(Count(-1), "count -1: an integer >= 0");
  CHECK_THROWS_AS(power_of_two(128), std::overflow_error);
  CHECK_THROWS_AS(power_of_two(64) * power_of_two(64), std::overflow_error);
  CHECK(to_string(power_of_two(64) * power_of_two(63)) == to_string(power_of_two(127)));
}
