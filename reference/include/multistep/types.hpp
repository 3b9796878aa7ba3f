#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <string_view>

namespace multistep {

/// Positions, lengths and offsets are 64-bit everywhere; keys and queries count from 0.
using Index = std::int64_t;

/// Longest sequence that the schedule is defined for, in keys.
inline constexpr Index kMaxLength = Index{1} << 48;

/// Half-open interval of keys, [begin, end).
struct Span {
  Index begin = 0;
  Index end = 0;

  Index length() const { return end > begin ? end - begin : 0; }
  bool empty() const { return end <= begin; }
  bool contains(Index key) const { return begin <= key && key < end; }
  friend bool operator==(const Span&, const Span&) = default;
};

/// Called now and then, by one thread at a time, with the rows done so far and in all; returns
/// whether to go on. Where not, the function that called it throws Cancelled. Must not throw.
using Progress = std::function<bool(Index done, Index total)>;

/// Thrown by a function whose Progress said not to go on.
struct Cancelled : std::exception {
  const char* what() const noexcept override { return "cancelled"; }
};

/// An exact non-negative rational in lowest terms. Exponents and factors are rationals, so that no
/// rounded number ever decides a schedule.
struct Rational {
  Index numerator = 0;
  Index denominator = 1;

  friend bool operator==(const Rational&, const Rational&) = default;
  friend bool operator<(Rational a, Rational b);  // exact
};

/// numerator / denominator in lowest terms; throws std::invalid_argument unless numerator >= 0 and
/// denominator > 0.
Rational make_rational(Index numerator, Index denominator = 1);

/// Reads "20/11", "3" or an exact decimal such as "0.55". Throws std::invalid_argument on anything
/// else, and where numerator or denominator exceeds 10^9 in lowest terms.
Rational parse_rational(std::string_view text);

/// "20/11", or "3" where the denominator is 1.
std::string to_string(Rational value);

double to_double(Rational value);

}  // namespace multistep
