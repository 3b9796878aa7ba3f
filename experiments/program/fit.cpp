#include "program/fit.hpp"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <stdexcept>

namespace multistep::program {

PowerFit fit_exponent(const std::vector<double>& lengths, const std::vector<double>& work) {
  if (lengths.size() != work.size() || lengths.size() < 3) {
    throw std::invalid_argument("a fit with an interval needs at least 3 points");
  }
  const auto count = static_cast<double>(lengths.size());
  double x = 0;
  double y = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    x += std::log2(lengths[i]) / count;
    y += std::log2(work[i]) / count;
  }
  double xx = 0;
  double xy = 0;
  double yy = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const double dx = std::log2(lengths[i]) - x;
    const double dy = std::log2(work[i]) - y;
    xx += dx * dx;
    xy += dx * dy;
    yy += dy * dy;
  }
  if (xx == 0) throw std::invalid_argument("a fit needs different lengths");
  const double slope = xy / xx;
  const double residual = std::max(0.0, yy - slope * xy);
  const double error = std::sqrt(residual / (count - 2) / xx);
  const boost::math::students_t distribution(count - 2);
  const double margin = error * boost::math::quantile(distribution, 0.975);
  return {slope, slope - margin, slope + margin};
}

}  // namespace multistep::program
