#include "judge/yardstick.hpp"

namespace multistep {

std::vector<double> YardstickItem::stored(Storage storage) const {
  std::vector<double> rounded;
  for (const float x : output) rounded.push_back(round_to(storage, x));
  return rounded;
}

template <class T>
YardstickItem yardstick_item(Span keys, const T* query, const T* key, const T* value,
                             Index head_dim, double scale, Storage storage) {
  YardstickItem item{std::vector<float>(at(head_dim), 0.0F)};
  std::vector<float> logits(at(keys.length()));
  float max = item.lse;
  bool nan = false;
  for (Index j = 0; j < keys.length(); ++j) {
    const float logit = static_cast<float>(scale) *
                        plain_product(query, key + (keys.begin + j) * head_dim, head_dim);
    logits[at(j)] = logit;
    max = std::max(max, logit);
    nan = nan || std::isnan(logit);
  }
  if (nan) max = std::numeric_limits<float>::quiet_NaN();
  if (max == item.lse) return item;
  float sum = 0;
  for (Index j = 0; j < keys.length(); ++j) {
    const float w = weight(logits[at(j)], max);
    const float rounded = round_to(storage, w);
    const T* row = value + (keys.begin + j) * head_dim;
    sum += w;
    for (Index c = 0; c < head_dim; ++c) item.output[at(c)] += rounded * static_cast<float>(row[c]);
  }
  for (float& x : item.output) x /= sum;
  item.lse = max + std::log(sum);
  return item;
}

std::vector<float> yardstick_gates(const CombineArgs& args) {
  const Index count = *args.count;
  const auto score = [&](Index s) { return static_cast<float>(args.scores[s]); };
  float best = -std::numeric_limits<float>::infinity();
  for (Index s = 0; s < count; ++s) best = std::max(best, score(s));
  float total = 0;
  for (Index s = 0; s < count; ++s) total += weight(score(s), best);
  std::vector<float> gates;
  for (Index s = 0; s < count; ++s) gates.push_back(weight(score(s), best) / total);
  return gates;
}

std::vector<double> yardstick_combine(const CombineArgs& args, const YardstickItem& window,
                                      Storage storage) {
  const Index count = *args.count;
  const std::vector<float> gates = yardstick_gates(args);
  YardstickItem sum;
  sum.output = count == 0 ? window.output : std::vector<float>(window.output.size(), 0.0F);
  for (Index s = 0; s < count; ++s) {
    const Join<float> join(static_cast<float>(args.lses[s]), window.lse);
    for (std::size_t c = 0; c < sum.output.size(); ++c) {
      const auto of_span = static_cast<float>(args.outputs[at(s * args.head_dim) + c]);
      sum.output[c] += gates[at(s)] * join(of_span, window.output[c]);
    }
  }
  return sum.stored(storage);
}

template YardstickItem yardstick_item(Span, const float*, const float*, const float*, Index, double,
                                      Storage);
template YardstickItem yardstick_item(Span, const double*, const double*, const double*, Index,
                                      double, Storage);

}  // namespace multistep
