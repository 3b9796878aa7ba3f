#include "multistep/plain.hpp"

#include <limits>

#include "attend_row.hpp"
#include "parallel.hpp"
#include "shape.hpp"

namespace multistep {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

/// exp(x - max), where equals weigh 1: never exp(inf - inf).
template <class Real>
Real share(Real x, Real max) {
  return x == max ? Real{1} : std::exp(x - max);
}

/// Softmax attention of one row in float32. Weights exp(x - max) are rounded before they meet the
/// values, their sum is not; the output [head_dim] is not rounded. Returns the log-sum-exp.
class PlainRow {
 public:
  PlainRow(Index head_dim, const Rounding& round)
      : output(at(head_dim)), d_(head_dim), round_(round) {}

  std::vector<float> output;

  float attend(const Joint& keys, const float* query, const float* key, const float* value,
               float scale) {
    std::fill(output.begin(), output.end(), 0.0F);
    logits_.resize(at(keys.count()));
    float max = kNothing;
    bool nan = false;
    for (Index j = 0; j < keys.count(); ++j) {
      const float logit = scale * product(query, key + keys[j] * d_);
      logits_[at(j)] = logit;
      max = std::max(max, logit);
      nan = nan || std::isnan(logit);
    }
    if (nan) max = std::numeric_limits<float>::quiet_NaN();
    if (max == kNothing) return max;
    float sum = 0;
    for (Index j = 0; j < keys.count(); ++j) {
      const float w = share(logits_[at(j)], max);
      const float rounded = round_(w);
      const float* row = value + keys[j] * d_;
      sum += w;
      for (Index c = 0; c < d_; ++c) output[at(c)] += rounded * row[c];
    }
    for (float& x : output) x /= sum;
    return max + std::log(sum);
  }

 private:
  float product(const float* a, const float* b) const {
    float sum = 0;
    for (Index c = 0; c < d_; ++c) sum += a[c] * b[c];
    return sum;
  }

  Index d_;
  const Rounding& round_;
  std::vector<float> logits_;
};

/// Shares of two log-sum-exps in their union, and the union's.
template <class Real>
struct Join {
  Real first = 0;
  Real second = 0;
  Real lse = -std::numeric_limits<Real>::infinity();

  Join(Real a, Real b) {
    const Real max = std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b);
    if (max == lse) return;
    first = share(a, max);
    second = share(b, max);
    const Real sum = first + second;
    first /= sum;
    second /= sum;
    lse = max + std::log(sum);
  }
};

void require_window_combine(const WindowCombineArgs& args, const Rows& rows) {
  require_within("slots", args.slots, 0, 64);
  require_array_size({rows.count(), std::max<Index>(args.slots, 1), args.shape.head_dim});
  const Index given = args.slots > 0 ? rows.count() : 0;
  require_array(args.count, "count", given);
  require_array(args.scores, "scores", given);
  require_array(args.outputs, "outputs", given);
  require_array(args.lses, "lses", given);
  for (Index row = 0; row < given; ++row) {
    require(args.count[row] >= 0 && args.count[row] <= args.slots,
            "count {} of row {}: an integer in [0, slots {}]", args.count[row], row, args.slots);
  }
}

/// The window of every row as its one span: [batch, num_heads, L_q].
std::vector<Span> windows_of_rows(const WindowCombineArgs& args, const Rows& rows) {
  std::vector<Span> spans(at(rows.count()));
  for (Index row = 0; args.window && row < rows.count(); ++row) {
    spans[at(row)] = args.window[rows.batch(row) * args.shape.queries + row % args.shape.queries];
  }
  return spans;
}

}  // namespace

SpanAttentionResult plain_span_attention(const SpanAttentionArgs<float>& args,
                                         const Rounding& round) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_spans(rows, args);
  require_array_size({rows.count(), args.slots, shape.head_dim});
  const Index d = shape.head_dim;
  const auto scale = static_cast<float>(scale_or_default(args.softmax_scale, d));

  SpanAttentionResult result;
  result.output.assign(at(rows.count() * args.slots * d), 0);
  result.lse.assign(at(rows.count() * args.slots), 0);
  parallel_blocks(rows.count(), 16, [&] {
    return [&, plain = PlainRow(d, round)](Index begin, Index end) mutable {
      for (Index row = begin; row < end; ++row) {
        const Index kv = rows.kv_row(row, 0) * d;
        for (Index slot = row * args.slots; slot < (row + 1) * args.slots; ++slot) {
          const Joint keys = joint(args.spans[slot], window_of(args, rows, row));
          result.lse[at(slot)] =
              plain.attend(keys, args.query + row * d, args.key + kv, args.value + kv, scale);
          auto output = writable_at(result.output.data(), slot, d);
          for (Index c = 0; c < d; ++c) output[c] = round(plain.output[at(c)]);
        }
      }
    };
  });
  return result;
}

void merge(double* output, double& lse, const double* other, double other_lse, Index head_dim) {
  const Join<double> join(lse, other_lse);
  for (Index c = 0; c < head_dim; ++c) {
    output[c] = (join.first == 0 ? 0 : join.first * output[c]) +
                (join.second == 0 ? 0 : join.second * other[c]);
  }
  lse = join.lse;
}

std::vector<double> window_combine(const WindowCombineArgs& args) {
  const Rows rows(args.shape);
  require_window_combine(args, rows);
  const Index d = args.shape.head_dim;
  const std::vector<Span> windows = windows_of_rows(args, rows);
  SpanAttentionResult window =
      span_attention<float>({args.shape, args.query, args.key, args.value, 1, windows.data(),
                             nullptr, args.softmax_scale});
  if (args.slots == 0) return window.output;

  const Index slots = rows.count() * args.slots;
  std::vector<double> joined(args.outputs, args.outputs + slots * d);
  for (Index slot = 0; slot < slots; ++slot) {
    const Index row = slot / args.slots;
    double* output = joined.data() + slot * d;
    double lse = args.lses[slot];
    merge(output, lse, window.output.data() + row * d, window.lse[at(row)], d);
  }
  std::vector<double> result =
      combine({rows.count(), args.slots, d, args.count, args.scores, joined.data()});
  for (Index row = 0; row < rows.count(); ++row) {
    if (args.count[row] == 0) {
      std::copy_n(window.output.begin() + row * d, d, result.begin() + row * d);
    }
  }
  return result;
}

std::vector<double> plain_window_combine(const WindowCombineArgs& args, const Rounding& round) {
  const Rows rows(args.shape);
  require_window_combine(args, rows);
  const Index d = args.shape.head_dim;
  const std::vector<Span> windows = windows_of_rows(args, rows);
  const auto scale = static_cast<float>(scale_or_default(args.softmax_scale, d));
  std::vector<double> result(at(rows.count() * d));
  PlainRow plain(d, round);
  std::vector<float> sum(at(d));
  for (Index row = 0; row < rows.count(); ++row) {
    const Index kv = rows.kv_row(row, 0) * d;
    const float lse = plain.attend(joint(windows[at(row)], {}), args.query + row * d, args.key + kv,
                                   args.value + kv, scale);
    const Index count = args.slots > 0 ? args.count[row] : 0;
    const double* scores = args.scores + row * args.slots;
    float best = kNothing;
    for (Index s = 0; s < count; ++s) best = std::max(best, static_cast<float>(scores[s]));
    float total = 0;
    for (Index s = 0; s < count; ++s) total += share(static_cast<float>(scores[s]), best);
    if (count == 0) sum = plain.output;
    if (count > 0) std::fill(sum.begin(), sum.end(), 0.0F);
    for (Index s = 0; s < count; ++s) {
      const Index slot = row * args.slots + s;
      const Join<float> join(static_cast<float>(args.lses[slot]), lse);
      const float gate = share(static_cast<float>(scores[s]), best) / total;
      for (Index c = 0; c < d; ++c) {
        const auto output = static_cast<float>(args.outputs[slot * d + c]);
        sum[at(c)] += gate * (join.first * output + join.second * plain.output[at(c)]);
      }
    }
    for (Index c = 0; c < d; ++c) result[at(row * d + c)] = round(sum[at(c)]);
  }
  return result;
}

}  // namespace multistep
