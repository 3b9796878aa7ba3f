#include <charconv>
#include <numeric>

#include "multistep/types.hpp"
#include "support/error.hpp"

namespace multistep {
namespace {

constexpr Index kMaxTerm = 1'000'000'000;

bool read_digits(std::string_view text, Index& value) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Rational make_rational(Index numerator, Index denominator) {
  require(numerator >= 0 && denominator > 0, "{}/{}: a rational here is >= 0, its denominator > 0",
          numerator, denominator);
  const Index divisor = std::gcd(numerator, denominator);
  return {numerator / divisor, denominator / divisor};
}

Rational parse_rational(std::string_view text) {
  Index numerator = 0;
  Index denominator = 1;
  bool ok = false;
  if (const auto slash = text.find('/'); slash != std::string_view::npos) {
    ok = read_digits(text.substr(0, slash), numerator) &&
         read_digits(text.substr(slash + 1), denominator) && denominator > 0;
  } else if (const auto point = text.find('.'); point != std::string_view::npos) {
    std::string_view decimals = text.substr(point + 1);
    while (decimals.size() > 1 && decimals.back() == '0') decimals.remove_suffix(1);
    ok = decimals.size() <= 15 && read_digits(decimals, numerator);
    Index whole = 0;
    ok = ok && (point == 0 || read_digits(text.substr(0, point), whole));
    for (std::size_t digit = 0; ok && digit < decimals.size(); ++digit) denominator *= 10;
    __extension__ using Wide = __int128;
    const Wide total = static_cast<Wide>(whole) * denominator + numerator;
    ok = ok && total <= INT64_MAX;
    numerator = ok ? static_cast<Index>(total) : 0;
  } else {
    ok = read_digits(text, numerator);
  }
  require(ok, "{}: a rational >= 0 such as 20/11, 0.55 or 3", text);
  const Rational value = make_rational(numerator, denominator);
  require(value.numerator <= kMaxTerm && value.denominator <= kMaxTerm,
          "{}: numerator and denominator of a rational are at most {}", text, kMaxTerm);
  return value;
}

std::string to_string(Rational value) {
  return value.denominator == 1 ? fmt::format("{}", value.numerator)
                                : fmt::format("{}/{}", value.numerator, value.denominator);
}

double to_double(Rational value) {
  return static_cast<double>(value.numerator) / static_cast<double>(value.denominator);
}

bool operator<(Rational a, Rational b) {
  __extension__ using Wide = __int128;
  return static_cast<Wide>(a.numerator) * b.denominator <
         static_cast<Wide>(b.numerator) * a.denominator;
}

}  // namespace multistep
