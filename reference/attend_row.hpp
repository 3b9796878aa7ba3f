#pragma once

#include <limits>
#include <vector>

#include "shape.hpp"

namespace multistep {

/// The union of a span and the window behind it, in ascending order of keys: a key that both hold
/// counts once.
struct Joint {
  Span span;    // ends where the window begins, or before
  Span window;  // may be empty

  Index count() const { return span.length() + window.length(); }
  Index operator[](Index j) const {
    return j < span.length() ? span.begin + j : window.begin + j - span.length();
  }
};

inline Joint joint(Span span, Span window) {
  if (!window.empty()) span.end = std::min(span.end, window.begin);
  return {span, window};
}

/// Softmax of scale * <query, key> over `keys`: fills weights [keys.count()] and returns the
/// log-sum-exp. Where no logit is above -inf there are no weights, and the result is -inf.
template <class T>
double softmax(const Joint& keys, const Vector& query, const T* key, double scale,
               std::vector<double>& weights) {
  weights.resize(at(keys.count()));
  double max = -std::numeric_limits<double>::infinity();
  bool nan = false;
  for (Index j = 0; j < keys.count(); ++j) {
    const double logit = scale * dot(query, vector_at(key, keys[j], query.size()));
    weights[at(j)] = logit;
    max = std::max(max, logit);
    nan = nan || std::isnan(logit);
  }
  if (nan) max = std::numeric_limits<double>::quiet_NaN();
  if (max == -std::numeric_limits<double>::infinity()) {
    weights.clear();
    return max;
  }
  double sum = 0;
  for (double& w : weights) sum += w = weight(w, max);
  for (double& w : weights) w /= sum;
  return max + std::log(sum);
}

template <class T>
Span window_of(const SpanAttentionArgs<T>& args, const Rows& rows, Index row) {
  const Index queries = args.shape.queries;
  return args.window ? args.window[rows.batch(row) * queries + row % queries] : Span{};
}

/// Throws unless every span and window is made of eligible keys.
template <class T>
void require_spans(const Rows& rows, const SpanAttentionArgs<T>& args) {
  require(args.slots >= 1 && args.slots <= 64, "slots {}: an integer in [1, 64]", args.slots);
  require_array(args.query, "query", rows.count());
  require_array(args.key, "key", args.shape.keys);
  require_array(args.value, "value", args.shape.keys);
  require_array(args.spans, "spans", rows.count());
  for (Index row = 0; row < rows.count(); ++row) {
    const Index start = rows.start(row);
    const Index end = rows.position(row) + 1;
    const Span window = window_of(args, rows, row);
    require(window.empty() || (window.begin >= start && window.end == end),
            "window [{}, {}) of query {}: start {} <= begin, end = query + 1", window.begin,
            window.end, end - 1, start);
    for (Index slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
      const Span span = args.spans[slot];
      require(span.empty() || (span.begin >= start && span.end <= end),
              "span [{}, {}) of query {}: start {} <= begin, end <= query + 1", span.begin,
              span.end, end - 1, start);
    }
  }
}

}  // namespace multistep
