#pragma once

#include <vector>

#include "stages/shape.hpp"
#include "stages/softmax.hpp"

namespace multistep {

/// Softmax of scale * <query, key> over the keys of a span: fills weights [span.length()] and
/// returns the log-sum-exp. Where no logit is above -inf there are no weights, and the result is
/// -inf.
template <class T>
double softmax(Span keys, const Vector& query, const T* key, double scale,
               std::vector<double>& weights) {
  weights.resize(at(keys.length()));
  double max = -kInfinity;
  bool nan = false;
  for (Index j = 0; j < keys.length(); ++j) {
    const double logit = scale * dot(query, vector_at(key, keys.begin + j, query.size()));
    weights[at(j)] = logit;
    max = std::max(max, logit);
    nan = nan || std::isnan(logit);
  }
  if (nan) max = std::numeric_limits<double>::quiet_NaN();
  if (max == -kInfinity) {
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

/// The keys of an item that the arrays hold: slot `slot` of [rows, slots].
template <class T>
Span item_keys(const SpanAttentionArgs<T>& args, const Rows& rows, Index slot) {
  const Span window = window_of(args, rows, slot / args.slots);
  const Span keys = args.spans ? outside_window(args.spans[slot], window) : window;
  const Span held{std::max(keys.begin, rows.held().begin), std::min(keys.end, rows.held().end)};
  return held.empty() ? Span{} : held;
}

/// Throws unless every span and window is made of eligible keys.
template <class T>
void require_spans(const Rows& rows, const SpanAttentionArgs<T>& args) {
  require_within("slots", args.slots, 1, 64);
  require_array(args.query, "query", rows.count());
  require_array(args.key, "key", args.shape.keys);
  require_array(args.value, "value", args.shape.keys);
  require_array(args.slots > 1 || !args.window ? args.spans : args.window, "spans", rows.count());
  for (Index row = 0; row < rows.count(); ++row) {
    const Index start = rows.start(row);
    const Index end = rows.position(row) + 1;
    const Span window = window_of(args, rows, row);
    require(window.empty() || (window.begin >= start && window.end == end),
            "window [{}, {}) of query {}: start {} <= begin, end = query + 1", window.begin,
            window.end, end - 1, start);
    for (Index slot = row * args.slots; args.spans && slot < (row + 1) * args.slots; ++slot) {
      const Span span = args.spans[slot];
      require(span.empty() || (span.begin >= start && span.end <= end),
              "span [{}, {}) of query {}: start {} <= begin, end <= query + 1", span.begin,
              span.end, end - 1, start);
    }
  }
}

}  // namespace multistep
