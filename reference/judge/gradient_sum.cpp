#include "judge/gradient_sum.hpp"

#include "judge/items.hpp"

namespace multistep {
namespace {

/// A gradient may be one term's, where roundings of the term and of the result may meet: the sum
/// of two is up to sqrt(6) times its deviation, which is more than the luck of a maximum, 2.
constexpr double kFew = 1.5;

}  // namespace

GradientSum::GradientSum(Index head_dim, Storage storage) : storage_(storage) {
  for (Eigen::ArrayXd* array :
       {&want_, &variance_, &slack_, &magnitude_, &sum_, &squares_, &of_parts_}) {
    array->setZero(head_dim);
  }
  plain_.setZero(head_dim);
}

void GradientSum::add(const Term& term, const Vector& by) {
  const auto x = by.array().transpose();
  sum_ += term.factor * x;
  squares_ += (term.factor * x).square();
  variance_ += (term.deviation * x).square();
  magnitude_ += term.magnitude * x.abs();
  if (term.lost > 0) slack_ += term.lost * x.abs();
  plain_ += term.plain * x.cast<float>();
  ++terms_;
}

void GradientSum::add_deviation(const Vector& deviation) {
  variance_ += deviation.array().transpose().square();
}

void GradientSum::end_part() {
  if (terms_ == 0) return;
  // A sum in float32: see product_deviation().
  const double n = static_cast<double>(terms_);
  variance_ += kSingle * kSingle * (n / 6 * squares_ + n / 9 * sum_.square());
  for (Index c = 0; c < sum_.size(); ++c) {
    of_parts_[c] += std::pow(stored_deviation(storage_, sum_[c]), 2);
  }
  want_ += sum_;
  sum_.setZero();
  squares_.setZero();
  terms_ = 0;
  ++parts_;
}

RowVerdict GradientSum::judge(const double* got) const {
  const std::size_t d = at(want_.size());
  std::vector<double> yardstick, luck;
  for (Index c = 0; c < want_.size(); ++c) {
    yardstick.push_back(static_cast<double>(round_to(storage_, plain_[c])));
    const double last = std::pow(stored_deviation(storage_, want_[c]), 2);
    luck.push_back(kFew * std::sqrt(variance_[c] + (parts_ > 1 ? of_parts_[c] : 0) + last));
  }
  return judge_row(
      {{got, d}, {want_.data(), d}, yardstick, luck, {slack_.data(), d}, {magnitude_.data(), d}},
      storage_);
}

}  // namespace multistep
