#pragma once

#include <cmath>
#include <sstream>

#include "stages.hpp"

/// The oracle's answers, and how far the GPU's may be from them. Each judge returns an empty text,
/// or the first thing that is wrong.
namespace gpu {

/// Unit roundoff of the storage type.
inline double roundoff(Dtype dtype) { return dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11; }

inline double max_value(const Problem& problem) {
  double max = 0;
  for (const float x : problem.value) {
    if (std::isfinite(x)) max = std::max(max, std::abs(static_cast<double>(x)));
  }
  return max;
}

/// Each time that weights or outputs are rounded to the storage type on the way to a convex sum of
/// values, it moves by at most roundoff * max|v|; twice that is allowed. The floor of 2^-13 max|v|
/// is for weights below 2^-14 of the largest, subnormal in fp16 (4096 of them lose 2^-25 each), and
/// for logits and exponentials in float32.
inline double tolerance(const Problem& problem, Dtype dtype, int roundings) {
  return (2 * roundings * roundoff(dtype) + 0x1p-13) * max_value(problem);
}

// How often outputs were rounded on their way.
inline constexpr int kSpanRoundings = 2;     // weights, output
inline constexpr int kCombineRoundings = 2;  // weights of the window, output
inline constexpr int kWholeRoundings = 3;    // weights, span output, output
inline constexpr int kShardRoundings = 4;    // weights, a shard's output, merged output, output

struct Limits {
  double worst;
  double mean;  // of the absolute errors: twice what a plain implementation has here
};

inline Limits limits(const Problem& problem, Dtype dtype, int roundings) {
  const double worst = tolerance(problem, dtype, roundings);
  return {worst, worst / 12};
}

/// Equal, or a difference within the limits; NaN never passes.
inline std::string far(const std::vector<float>& got, const std::vector<double>& want,
                       Limits limits) {
  std::ostringstream text;
  if (got.size() != want.size()) {
    text << got.size() << " values, " << want.size() << " wanted";
    return text.str();
  }
  double sum = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double x = static_cast<double>(got[i]);
    if (x == want[i]) continue;
    const double off = std::abs(x - want[i]);
    if (!(off <= limits.worst)) {
      text << "value " << i << ": " << x << " for " << want[i] << ", off by " << off << " > "
           << limits.worst;
      return text.str();
    }
    sum += off;
  }
  const double mean = got.empty() ? 0 : sum / static_cast<double>(got.size());
  if (!(mean <= limits.mean)) text << "mean error " << mean << " > " << limits.mean;
  return text.str();
}

/// The sum of exponentials and the logits are in float32, the weights summed may be rounded ones.
inline std::string far_lse(const std::vector<float>& got, const std::vector<double>& want) {
  std::ostringstream text;
  if (got.size() != want.size()) text << got.size() << " values, " << want.size() << " wanted";
  for (std::size_t i = 0; text.str().empty() && i < got.size(); ++i) {
    const double x = static_cast<double>(got[i]);
    if (x == want[i] || std::abs(x - want[i]) <= 2e-3 + 1e-5 * std::abs(want[i])) continue;
    text << "lse " << i << ": " << x << " for " << want[i];
  }
  return text.str();
}

/// Spans, scores and anchors (where there are any) equal the oracle's, to the bit.
inline std::string difference(const Paths& got, const Selection& want) {
  std::ostringstream text;
  if (got.top_k != want.top_k || got.spans.size() != want.spans.size() ||
      got.scores.size() != want.scores.size() ||
      (got.levels > 0 && got.anchors.size() != want.anchors.size())) {
    text << "sizes differ";
    return text.str();
  }
  for (std::size_t slot = 0; slot < want.spans.size(); ++slot) {
    const DeviceSpan span = got.spans[slot];
    bool same = Span{span.begin, span.end} == want.spans[slot] &&
                static_cast<double>(got.scores[slot]) == want.scores[slot];
    for (std::size_t m = 0; got.levels > 0 && m < at(want.levels); ++m) {
      const std::size_t i = slot * at(want.levels) + m;
      if (got.anchors[i] == want.anchors[i]) continue;
      text << "level " << m + 1 << " anchor " << got.anchors[i] << " for " << want.anchors[i]
           << ", ";
      same = false;
    }
    if (same) continue;
    text << "row " << slot / at(want.top_k) << " rank " << slot % at(want.top_k) << ": ["
         << span.begin << ", " << span.end << ") score " << got.scores[slot] << " for ["
         << want.spans[slot].begin << ", " << want.spans[slot].end << ") score "
         << want.scores[slot];
    break;
  }
  return text.str();
}

/// The windows of all query rows: [batch, num_heads, L_q].
inline std::vector<Span> row_windows(const Problem& problem) {
  std::vector<Span> result;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    result.push_back(
        problem.plan.window(problem.position_of(row), problem.start_of(problem.batch_of(row))));
  }
  return result;
}

/// The spans without the keys of their queries' windows, as the GPU attends to them.
inline std::vector<Span> outside_window(const Problem& problem, std::vector<Span> spans) {
  const std::vector<Span> windows = row_windows(problem);
  const std::size_t slots = spans.size() / windows.size();
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const Span window = windows[i / slots];
    if (!window.empty()) spans[i].end = std::min(spans[i].end, window.begin);
  }
  return spans;
}

inline multistep::SpanAttentionResult attended(const Problem& problem,
                                               const std::vector<Span>& spans) {
  return multistep::span_attention<float>({problem.shape(), problem.query.data(),
                                           problem.key.data(), problem.value.data(),
                                           static_cast<Index>(spans.size()) / problem.sizes.rows(),
                                           spans.data(), nullptr, problem.softmax_scale});
}

/// The oracle's span attention for a search, in the GPU's number formats.
inline Partials partials(const Problem& problem, Dtype dtype, const Selection& selection) {
  const auto result = attended(problem, outside_window(problem, selection.spans));
  return {to_device(selection.spans), cast<float>(selection.scores),
          cuda::widen(dtype, cuda::narrow(dtype, cast<float>(result.output))),
          cast<float>(result.lse)};
}

/// Window and combination of what the GPU is given. Slots in use come first.
inline std::vector<double> combined(const Problem& problem, const Partials& given) {
  const auto windows = attended(problem, row_windows(problem));
  const Index rows = problem.sizes.rows();
  const Index slots = static_cast<Index>(given.spans.size()) / rows;
  const Index d = problem.sizes.head_dim;
  std::vector<Index> count(at(rows), 0);
  std::vector<double> outputs = cast<double>(given.outputs);
  const std::vector<double> scores = cast<double>(given.scores);
  for (Index row = 0; row < rows; ++row) {
    while (count[at(row)] < slots) {
      const DeviceSpan span = given.spans[at(row * slots + count[at(row)])];
      if (span.begin >= span.end) break;
      ++count[at(row)];
    }
    const double window_lse = windows.lse[at(row)];
    for (Index slot = row * slots; slot < row * slots + std::max<Index>(count[at(row)], 1);
         ++slot) {
      const bool alone = count[at(row)] == 0;
      const double span_lse =
          alone ? -inputs::kInfinity : static_cast<double>(given.lses[at(slot)]);
      const double max = std::max(span_lse, window_lse);
      const bool none = max == -inputs::kInfinity;
      const double span_weight = none ? 0 : std::exp(span_lse - max);
      const double window_weight = none ? 0 : std::exp(window_lse - max);
      for (Index c = 0; c < d; ++c) {
        double& x = outputs[at(slot * d + c)];
        const double from_window = window_weight * windows.output[at(row * d + c)];
        const double from_span = alone ? 0 : span_weight * x;
        x = none ? 0 : (from_span + from_window) / (span_weight + window_weight);
      }
    }
    count[at(row)] = std::max<Index>(count[at(row)], 1);
  }
  return multistep::combine({rows, slots, d, count.data(), scores.data(), outputs.data()});
}

/// The whole on the oracle.
inline std::vector<double> oracle(const Problem& problem) {
  return multistep::attention(problem.attention()).output;
}

}  // namespace gpu
