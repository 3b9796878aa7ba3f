#include "bench/sweep_judge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace multistep::program {
namespace {

bool is_measure(double value) { return std::isfinite(value) && value > 0; }

/// Why a call cannot be judged; empty where it can.
std::string unusable(const SweepCall& call) {
  if (!is_measure(call.milliseconds)) return fmt::format("{} has no time", call.value);
  if (!is_measure(call.bytes) || !is_measure(call.products)) {
    return fmt::format("the work of {} is not known", call.value);
  }
  return "";
}

std::string named(const SweepCall& call) {
  return call.plain.empty() ? call.value : fmt::format("{} (plain: {})", call.value, call.plain);
}

SweepStep judge(const SweepCall& from, const SweepCall& to) {
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  SweepStep step{from.value, to.value, kUnknown, kUnknown, kUnknown, unusable(from)};
  if (step.pass()) step.why = unusable(to);
  if (!step.pass()) return step;
  step.ratio = to.milliseconds / from.milliseconds;
  const bool rises = step.ratio >= 1;
  const SweepCall& slow = rises ? to : from;
  const SweepCall& fast = rises ? from : to;
  const double times = slow.milliseconds / fast.milliseconds;
  step.explained = std::max({1.0, slow.bytes / fast.bytes, slow.products / fast.products});
  step.factor = times / step.explained;
  if (!(step.factor <= kLargestFactor)) {
    step.why = fmt::format("{} takes {:.3g} times as long as {}, {:.3g} times what work explains",
                           named(slow), times, named(fast), step.factor);
  }
  return step;
}

/// The call without a plain kernel that is the fewest steps away, of equals the one before; none
/// where all have one.
std::optional<std::size_t> nearest_fast(const std::vector<SweepCall>& axis, std::size_t at) {
  for (std::size_t away = 1; away < axis.size(); ++away) {
    if (away <= at && axis[at - away].plain.empty()) return at - away;
    if (at + away < axis.size() && axis[at + away].plain.empty()) return at + away;
  }
  return std::nullopt;
}

/// A plain call beside the nearest one without; as it is where there is none, which fails.
SweepStep beside_fast(const std::vector<SweepCall>& axis, std::size_t at) {
  if (const auto fast = nearest_fast(axis, at)) return judge(axis[*fast], axis[at]);
  SweepStep step = judge(axis[at], axis[at]);
  step.why =
      fmt::format("{}, and no call of the axis runs without a plain kernel", named(axis[at]));
  return step;
}

}  // namespace

std::vector<SweepStep> judge_steps(const std::vector<SweepCall>& axis) {
  std::vector<SweepStep> steps;
  for (std::size_t at = 1; at < axis.size(); ++at) {
    SweepStep step = judge(axis[at - 1], axis[at]);
    if (step.pass() && !axis[at - 1].plain.empty() && !axis[at].plain.empty()) {
      const SweepStep one = beside_fast(axis, at - 1);
      const SweepStep other = beside_fast(axis, at);
      step.why = !one.pass() && !(one.factor < other.factor) ? one.why : other.why;
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

}  // namespace multistep::program
