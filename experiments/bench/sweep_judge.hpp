#pragma once

#include <limits>
#include <string>
#include <vector>

/// Whether times along an axis have a cliff: a step between neighbours that work does not explain.
namespace multistep::program {

/// A larger one is a cliff.
inline constexpr double kLargestFactor = 1.5;

/// One call on an axis.
struct SweepCall {
  std::string value;                                               // where it stands
  double milliseconds = std::numeric_limits<double>::quiet_NaN();  // not finite: it has no time
  double bytes = 0;                                                // that it has to read and write
  double products = 0;                                             // that it has to compute
  std::string plain;  // why a plain kernel runs; empty: none does
};

/// From a call to its neighbour.
struct SweepStep {
  std::string from;
  std::string to;
  double ratio = 0;      // of the times, `to` over `from`
  double explained = 0;  // how many times as long the slower may take for its work, at least 1
  double factor = 0;     // the slower's time over what the other's and the work explain
  std::string why;       // it is a cliff, in one line; empty: it is none

  bool pass() const { return why.empty(); }
};

/// The steps between neighbours. The slower of two calls may take as many times as long as it has
/// bytes or products, whichever grew more, and where it has fewer of both, as long. Two plain
/// kernels would excuse each other's times: both are held to the nearest call without one.
std::vector<SweepStep> judge_steps(const std::vector<SweepCall>& axis);

}  // namespace multistep::program
