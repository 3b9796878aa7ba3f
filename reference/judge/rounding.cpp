#include "judge/rounding.hpp"

#include <Eigen/Core>
#include <algorithm>

namespace multistep {

double product_deviation(const Vector& a, const Vector& b, double product, double scale) {
  const double norm = a.cwiseProduct(b).norm() * std::abs(scale);
  const double d = static_cast<double>(a.size());
  return kSingle * (std::sqrt(d / 6) * norm + (std::sqrt(d) / 3 + 2) * std::abs(product));
}

template <class T>
RoundedItem round_item(Span keys, const Vector& query, const T* key, const T* value, double scale,
                       Storage storage) {
  const Index d = query.size();
  RoundedItem item;
  item.output.assign(at(d), 0);
  item.deviation.assign(at(d), 0);
  item.magnitude.assign(at(d), 0);
  item.flushed.assign(at(d), 0);
  std::vector<double> weights;
  item.lse = softmax(keys, query, key, scale, weights);
  if (weights.empty()) return item;

  auto output = writable_at(item.output.data(), 0, d);
  Eigen::ArrayXd magnitude = Eigen::ArrayXd::Zero(d);
  Eigen::ArrayXd flushed = Eigen::ArrayXd::Zero(d);
  const double largest = *std::max_element(weights.begin(), weights.end());
  for (std::size_t j = 0; j < weights.size(); ++j) {
    const Vector v = vector_at(value, keys.begin + static_cast<Index>(j), d);
    output += weights[j] * v;
    const Eigen::ArrayXd term = weights[j] * v.array().abs().transpose();
    magnitude += term;
    if (weights[j] < kFlushed * largest) flushed += term;
  }
  item.magnitude.assign(magnitude.begin(), magnitude.end());
  item.flushed.assign(flushed.begin(), flushed.end());

  // The scale, which may be rounded with log2(e) in it, is off by the same share for all logits.
  constexpr double kScale = 2 * kSingle;
  Eigen::ArrayXd variance = Eigen::ArrayXd::Zero(d);
  Eigen::ArrayXd by_scale = Eigen::ArrayXd::Zero(d);
  double lse_variance = 0;
  double lse_by_scale = 0;
  for (std::size_t j = 0; j < weights.size(); ++j) {
    const double w = weights[j];
    if (w == 0) continue;
    const Index row = keys.begin + static_cast<Index>(j);
    const Vector k = vector_at(key, row, d);
    const Eigen::ArrayXd v = vector_at(value, row, d).array().transpose();
    const double logit = scale * dot(query, k);
    const double off = std::hypot(product_deviation(query, k, logit, scale), kExponential);
    const Eigen::ArrayXd apart = v - output.array().transpose();
    // A weight is rounded to the storage type before or after it is divided by the sum.
    const double stored = rounding_of(storage, w);
    variance += w * w * off * off * apart.square() + stored * stored / 3 * v.square();
    by_scale += w * logit * apart;
    lse_variance += w * w * off * off;
    lse_by_scale += w * logit;
  }
  variance += (kScale * by_scale).square();
  for (Index c = 0; c < d; ++c) item.deviation[at(c)] = std::sqrt(variance[c]);
  const auto count = static_cast<double>(weights.size());
  item.lse_deviation =
      std::sqrt(lse_variance + std::pow(kScale * lse_by_scale, 2) + count * kSingle * kSingle);
  return item;
}

template RoundedItem round_item(Span, const Vector&, const float*, const float*, double, Storage);
template RoundedItem round_item(Span, const Vector&, const double*, const double*, double, Storage);

}  // namespace multistep
