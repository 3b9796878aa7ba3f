#pragma once

#include <Eigen/Core>

#include "judge/gradient_row.hpp"

namespace multistep {

/// One row of a gradient, as a sum of factors times vectors, and what it may be off by.
class GradientSum {
 public:
  GradientSum(Index head_dim, Storage storage);

  void add(const Term& term, const Vector& by);

  /// What a whole part of the sum may be off by, a standard deviation for every value.
  void add_deviation(const Vector& deviation);

  /// Ends a part of the sum that an implementation may store by itself.
  void end_part();

  /// `got` [head_dim]. After the last part.
  RowVerdict judge(const double* got) const;

 private:
  Storage storage_;
  Eigen::ArrayXd want_, variance_, slack_, magnitude_;
  Eigen::ArrayXf plain_;
  // Of the part.
  Eigen::ArrayXd sum_, squares_;
  Eigen::ArrayXd of_parts_;  // variance that storing parts adds
  Index terms_ = 0;
  Index parts_ = 0;
};

}  // namespace multistep
