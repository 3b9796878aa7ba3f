#include "judge/gradient_row.hpp"

#include "judge/items.hpp"
#include "judge/key_uses.hpp"

namespace multistep {
namespace {

double square(double x) { return x * x; }

/// An item's attention, and what it has in common with the derivative.
struct Part {
  RoundedItem exact;
  YardstickItem plain;
  double along = 0;      // <dO, O>
  double of_sum = 0;     // its deviation as a sum in float32 alone
  double deviation = 0;  // and as O may be stored
  double lse_deviation = 0;
  float plain_along = 0;
};

template <class T>
Part part_of(const AttentionArgs<T>& args, const Rows& rows, Index row, Span keys,
             const Vector& d_output, Storage storage) {
  const Index d = args.shape.head_dim;
  const double scale = scale_or_default(args.softmax_scale, d);
  const Index first = rows.kv_row(row, 0) * d;
  Part part;
  part.exact = round_item(keys, vector_at(args.query, row, d), args.key + first, args.value + first,
                          scale, storage);
  part.plain = yardstick_item(keys, args.query + row * d, args.key + first, args.value + first, d,
                              scale, storage);
  const Vector output = vector_at(part.exact.output.data(), 0, d);
  part.along = dot(d_output, output);
  part.of_sum = product_deviation(d_output, output, part.along, 1);
  double variance = square(part.of_sum);
  for (Index c = 0; c < d; ++c) {
    const double of_value = std::hypot(part.exact.deviation[at(c)],
                                       stored_deviation(storage, part.exact.output[at(c)]));
    variance += square(d_output[c] * of_value);
  }
  if (std::isfinite(part.exact.lse)) {
    part.lse_deviation = std::hypot(part.exact.lse_deviation, kSingle * part.exact.lse);
  }
  // <dO, O> may be the sum of weights times <dO, v>, and weights have the error of their sum.
  part.deviation = std::sqrt(variance + square(part.along * part.lse_deviation));
  part.plain_along = plain_product(d_output.data(), part.plain.stored(storage).data(), d);
  return part;
}

/// How the spans in use and the window are mixed. Deviations that have an origin in common are
/// added up, others their squares.
class Mixture {
 public:
  Mixture(std::vector<Part> parts, std::vector<Span> keys, const CombineArgs& gates)
      : parts_(std::move(parts)), keys_(std::move(keys)), window_(parts_.back()) {
    const std::vector<double> gate = path_gates(gates);
    const std::vector<float> plain_gate = yardstick_gates(gates);
    double largest = 0;
    for (Index s = 0; s < *gates.count; ++s) largest = std::max(largest, std::abs(gates.scores[s]));
    for (std::size_t s = 0; s + 1 < parts_.size(); ++s) {
      const Part& part = parts_[s];
      const Join<double> join(part.exact.lse, window_.exact.lse);
      const Join<float> plain_join(part.plain.lse, window_.plain.lse);
      Slot slot;
      slot.gate = gate[s];
      slot.span = join.first;
      slot.window = join.second;
      slot.delta = join(part.along, window_.along);
      slot.gate_deviation = slot.gate * std::hypot((1 - slot.gate) * kExponential,
                                                   (1 - slot.gate) * kSingle * largest, kSingle);
      slot.join_deviation =
          slot.span * slot.window *
              std::hypot(part.lse_deviation, window_.lse_deviation, kExponential) +
          kSingle * std::min(slot.span, slot.window);
      slot.of_sum =
          std::hypot(slot.span * part.of_sum, slot.window * window_.of_sum, kSingle * slot.delta);
      slot.deviation =
          std::hypot(std::hypot(slot.span * part.deviation, slot.window * window_.deviation),
                     slot.join_deviation * apart(s), slot.of_sum);
      slot.plain_gate = plain_gate[s];
      slot.plain_span = plain_join.first;
      slot.plain_window = plain_join.second;
      slot.plain_delta = plain_join(part.plain_along, window_.plain_along);
      slots_.push_back(slot);
    }
    for (const Slot& slot : slots_) {
      mean_ += slot.gate * slot.delta;
      absolute_mean_ += slot.gate * std::abs(slot.delta);
      of_mean_ = std::hypot(of_mean_, slot.gate * slot.of_sum);
      windows_ += slot.gate * slot.window;
      plain_mean_ += slot.plain_gate * slot.plain_delta;
    }
  }

  GradientItem span(std::size_t s, double d_lse) const {
    const Slot& slot = slots_[s];
    GradientItem item = unmixed(s);
    item.share = slot.gate * slot.span;
    item.center = slot.delta;
    item.shift = (item.share > 0 ? item.share * slot.delta : 0) - d_lse;
    item.share_deviation = std::hypot(slot.gate_deviation * slot.span,
                                      slot.gate * slot.join_deviation, kSingle * item.share);
    item.shift_deviation =
        std::hypot(item.share * slot.deviation, 2 * kSingle * item.shift, kSingle * d_lse);
    item.plain_share = slot.plain_gate * slot.plain_span;
    item.plain_shift = item.plain_share * slot.plain_delta - static_cast<float>(d_lse);
    return item;
  }

  GradientItem window(double d_lse) const {
    GradientItem item = unmixed(parts_.size() - 1);
    double share_variance = 0, turned = 0, shift_deviation = 0;
    for (const Slot& slot : slots_) {
      if (slot.window > 0) item.shift += slot.gate * slot.window * slot.delta;
      item.share += slot.gate * slot.window;
      item.plain_share += slot.plain_gate * slot.plain_window;
      item.plain_shift += slot.plain_gate * slot.plain_window * slot.plain_delta;
    }
    if (slots_.empty()) {
      item.share = item.plain_share = 1;
      item.shift = window_.along;
      item.plain_shift = window_.plain_along;
      shift_deviation = window_.deviation;
    }
    item.center = item.share > 0 ? item.shift / item.share : 0;
    for (const Slot& slot : slots_) {
      const double variance =
          square(slot.gate_deviation * slot.window) + square(slot.gate * slot.join_deviation);
      share_variance += variance;
      turned += variance * square(slot.delta - item.center);
      shift_deviation += slot.gate * slot.window * slot.deviation;
    }
    item.shift -= d_lse;
    item.plain_shift -= static_cast<float>(d_lse);
    item.share_deviation = std::sqrt(share_variance + square(kSingle * item.share));
    item.shift_deviation = std::hypot(std::hypot(shift_deviation, std::sqrt(turned)),
                                      2 * kSingle * item.shift, kSingle * d_lse);
    return item;
  }

  /// d score = gate (delta - mean) + what is given.
  Term score(std::size_t s, double given) const {
    const Slot& slot = slots_[s];
    double variance = square((slot.window - windows_) * window_.deviation) + square(slot.of_sum) +
                      square(of_mean_);
    for (std::size_t other = 0; other < slots_.size(); ++other) {
      const Slot& of = slots_[other];
      const double part = (other == s ? 1 : 0) - of.gate;
      variance += square(part * of.span * parts_[other].deviation) +
                  square(part * of.join_deviation * apart(other)) +
                  square(of.gate_deviation * (of.delta - mean_));
    }
    Term term;
    term.factor = slot.gate * (slot.delta - mean_) + given;
    term.deviation = std::hypot(slot.gate * std::sqrt(variance),
                                slot.gate_deviation * (slot.delta - mean_), kSingle * given);
    term.magnitude = slot.gate * (std::abs(slot.delta) + absolute_mean_) + std::abs(given);
    term.plain = slot.plain_gate * (slot.plain_delta - plain_mean_) + static_cast<float>(given);
    return term;
  }

 private:
  struct Slot {
    double gate, span, window, delta;  // `span` and `window`: what these count in their joint
    double gate_deviation, join_deviation, of_sum, deviation;
    float plain_gate, plain_span, plain_window, plain_delta;
  };

  GradientItem unmixed(std::size_t part) const {
    GradientItem item;
    item.keys = keys_[part];
    item.lse = parts_[part].exact.lse;
    item.lse_deviation = parts_[part].lse_deviation;
    item.plain_lse = parts_[part].plain.lse;
    return item;
  }
  double apart(std::size_t s) const { return parts_[s].along - window_.along; }

  std::vector<Part> parts_;
  std::vector<Span> keys_;
  const Part& window_;
  std::vector<Slot> slots_;
  double mean_ = 0;  // of delta, by gates
  double absolute_mean_ = 0;
  double of_mean_ = 0;  // its deviation as a sum in float32
  double windows_ = 0;  // mean of what windows count
  float plain_mean_ = 0;
};

/// As matrix units take it. What overflows float16 is kept: the yardstick has no infinities.
float stored(Storage storage, float x) {
  const float rounded = round_to(storage, x);
  return std::isinf(rounded) ? x : rounded;
}

}  // namespace

Term Term::scaled(double by) const {
  const double size = std::abs(by);
  return {by * factor, size * deviation, size * lost, size * magnitude,
          static_cast<float>(by) * plain};
}

Term PairTerms::logit_alone() const {
  Term term = logit;
  term.deviation = std::hypot(std::hypot(logit.deviation, by_lse), by_share, by_shift);
  return term;
}

template <class T>
GradientRow gradient_row(const SubmittedGradients<T>& submitted, const Rows& rows, Index row,
                         Storage storage) {
  const AttentionArgs<T>& args = submitted.attention;
  const Selection& selection = *submitted.selection;
  const Index top_k = selection.top_k;
  const AttentionResultGradients& by = submitted.by_result;
  const Vector d_output = output_gradient(submitted, row);
  const std::vector<Span> keys = row_items(*args.plan, rows, selection, row);
  std::vector<Part> parts;
  for (const Span& of : keys) parts.push_back(part_of(args, rows, row, of, d_output, storage));
  const Mixture mixture(std::move(parts), keys,
                        {1, top_k, args.shape.head_dim, &selection.count[at(row)],
                         selection.scores.data() + row * top_k});
  GradientRow result;
  for (std::size_t s = 0; s + 1 < keys.size(); ++s) {
    const Index slot = row * top_k + static_cast<Index>(s);
    result.items.push_back(mixture.span(s, by.lse ? by.lse[slot] : 0));
    result.scores.push_back(mixture.score(s, by.scores ? by.scores[slot] : 0));
  }
  result.items.push_back(mixture.window(by.window_lse ? by.window_lse[row] : 0));
  return result;
}

template <class T>
PairTerms pair_terms(const GradientItem& item, const T* query, const T* key, const T* value,
                     const Vector& output_gradient, double scale, Storage storage) {
  const Index d = output_gradient.size();
  const Vector q = vector_at(query, 0, d);
  const Vector k = vector_at(key, 0, d);
  const Vector v = vector_at(value, 0, d);
  const double logit = scale * dot(q, k);
  const double p = std::exp(logit - item.lse);
  const double along = dot(output_gradient, v);
  const double of_value = p * item.share;
  const double of_logit = p * (item.share * along - item.shift);
  const double relative = std::hypot(product_deviation(q, k, logit, scale), kExponential);
  const double of_along = product_deviation(output_gradient, v, along, 1);
  const double size = std::abs(scale);

  PairTerms terms;
  terms.by_lse = scale * of_logit * item.lse_deviation;
  terms.by_share = scale * p * (along - item.center) * item.share_deviation;
  terms.by_shift = scale * p * item.shift_deviation;
  terms.logit.factor = scale * of_logit;
  // Rounded to the storage type before or after the scale.
  const double rounded = std::max(size * stored_deviation(storage, of_logit),
                                  stored_deviation(storage, scale * of_logit));
  terms.logit.deviation =
      std::hypot(size * of_logit * relative, size * of_value * of_along, rounded);
  const auto flushed = [&](double x) { return p < kFlushed || std::abs(x) < kFlushed; };
  if (flushed(of_logit)) terms.logit.lost = size * std::abs(of_logit);
  terms.logit.magnitude = size * p * (std::abs(item.share * along) + std::abs(item.shift));
  terms.value.factor = of_value;
  terms.value.deviation = std::hypot(of_value * std::hypot(relative, item.lse_deviation),
                                     p * item.share_deviation, stored_deviation(storage, of_value));
  if (flushed(of_value)) terms.value.lost = std::abs(of_value);
  terms.value.magnitude = std::abs(of_value);

  const float plain_scale = static_cast<float>(scale);
  const float plain_p = std::exp(plain_scale * plain_product(query, key, d) - item.plain_lse);
  const float plain_along = plain_product(output_gradient.data(), value, d);
  terms.value.plain = stored(storage, plain_p * item.plain_share);
  const float plain_logit = plain_p * (item.plain_share * plain_along - item.plain_shift);
  terms.logit.plain = size < 1 ? stored(storage, plain_scale * plain_logit)
                               : plain_scale * stored(storage, plain_logit);
  return terms;
}

template GradientRow gradient_row(const SubmittedGradients<float>&, const Rows&, Index, Storage);
template GradientRow gradient_row(const SubmittedGradients<double>&, const Rows&, Index, Storage);
template PairTerms pair_terms(const GradientItem&, const float*, const float*, const float*,
                              const Vector&, double, Storage);
template PairTerms pair_terms(const GradientItem&, const double*, const double*, const double*,
                              const Vector&, double, Storage);

}  // namespace multistep
