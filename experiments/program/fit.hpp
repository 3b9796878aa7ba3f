#pragma once

#include <vector>

namespace multistep::program {

/// Least squares of log2(work) on log2(length), with the 95 % interval of the slope by Student's t.
/// Counted work deviates from a power law by its rounding, not by noise: the interval describes the
/// fit over these lengths, not the limit of great ones.
struct PowerFit {
  double exponent = 0;
  double low = 0;
  double high = 0;
};
PowerFit fit_exponent(const std::vector<double>& lengths, const std::vector<double>& work);

}  // namespace multistep::program
