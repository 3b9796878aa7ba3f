#pragma once

#include "judge.hpp"
#include "multistep/gradients.hpp"

/// Runs of the GPU's backward pass, and what the judge says of them.
namespace gpu {

/// Derivatives of a loss by what attention() returns.
struct LossGradients {
  std::vector<float> output;                   // [batch, num_heads, L_q, head_dim]
  std::vector<float> scores, lse, window_lse;  // empty: 0
};

inline LossGradients make_loss(const Problem& problem, const Options& options,
                               bool by_everything = true) {
  inputs::Random random(options.seed + 1000);
  const Index rows = problem.sizes.rows();
  const Index slots = options.schedule.steps > 1 ? rows * options.schedule.top_k : 0;
  LossGradients loss{tensor(random, rows * problem.sizes.head_dim, options), {}, {}, {}};
  if (!by_everything) return loss;
  const auto floats = [&](Index count) {
    std::vector<float> result(at(count));
    for (float& x : result) x = static_cast<float>(random.value(inputs::Values::rough));
    return result;
  };
  loss.scores = floats(slots);
  loss.lse = floats(slots);
  loss.window_lse = floats(rows);
  return loss;
}

struct Gradients {
  std::vector<float> query, key, value, search_keys;
  std::vector<std::vector<float>> routing;
};

inline bool same_bits(const Gradients& a, const Gradients& b) {
  bool same = same_bits(a.query, b.query) && same_bits(a.key, b.key) &&
              same_bits(a.value, b.value) && same_bits(a.search_keys, b.search_keys) &&
              a.routing.size() == b.routing.size();
  for (std::size_t m = 0; same && m < a.routing.size(); ++m) {
    same = same_bits(a.routing[m], b.routing[m]);
  }
  return same;
}

/// The device's arrays for a backward pass, for calls that are repeated.
struct BackwardArrays {
  Dtype dtype;
  DeviceArray<DeviceSpan> spans;
  DeviceArray<float> scores;
  DeviceArray<std::int32_t> anchors;
  DeviceArray<std::uint16_t> by_output;
  DeviceArray<float> by_scores, by_lse, by_window_lse;
  DeviceArray<std::uint16_t> query, key, value, search_keys;
  std::vector<DeviceArray<std::uint16_t>> routing;

  BackwardArrays(const OnDevice& device, const Paths& kept, const LossGradients& loss)
      : dtype(device.dtype),
        spans(kept.spans),
        scores(kept.scores),
        anchors(kept.anchors),
        by_output(device.upload(loss.output)),
        by_scores(loss.scores),
        by_lse(loss.lse),
        by_window_lse(loss.window_lse),
        query(device.query.size()),
        key(device.key.size()),
        value(device.value.size()),
        search_keys(device.search_keys.size()) {
    for (const auto& level : device.routing) routing.emplace_back(level.size());
    poison();
  }
  void poison() {
    for (auto* array : {&query, &key, &value, &search_keys}) array->fill(0xff);
    for (auto& level : routing) level.fill(0xff);
  }
  cuda::AttentionBackwardArgs args(const OnDevice& device, Rung rung) const {
    auto args = device.args<cuda::AttentionBackwardArgs>(rung);
    args.routing_queries = device.routing_pointers();
    args.search_keys = device.search_keys.size() > 0 ? device.search_keys.data() : nullptr;
    args.search_scale = device.search_scale;
    args.spans = spans.data();
    args.scores = scores.data();
    args.anchors = anchors.data();
    args.output_gradient = by_output.data();
    args.score_gradient = by_scores.size() > 0 ? by_scores.data() : nullptr;
    args.span_lse_gradient = by_lse.size() > 0 ? by_lse.data() : nullptr;
    args.window_lse_gradient = by_window_lse.size() > 0 ? by_window_lse.data() : nullptr;
    args.query_gradient = query.data();
    args.key_gradient = key.data();
    args.value_gradient = value.data();
    for (const auto& level : routing) args.routing_gradients.push_back(level.data());
    if (args.search_keys) args.search_key_gradient = search_keys.data();
    return args;
  }
  Gradients download() const {
    const auto values = [&](const DeviceArray<std::uint16_t>& array) {
      return cuda::from_16_bits(dtype, array.download());
    };
    Gradients result{values(query), values(key), values(value), values(search_keys), {}};
    for (const auto& level : routing) result.routing.push_back(values(level));
    return result;
  }
};

inline Gradients backward(const OnDevice& device, Rung rung, const Paths& kept,
                          const LossGradients& loss) {
  const BackwardArrays arrays(device, kept, loss);
  run(arrays.args(device, rung), cuda::attention_backward);
  return arrays.download();
}

/// What the GPU kept, as the oracle takes a selection.
inline Selection selection_of(const Paths& kept) {
  Selection selection;
  selection.top_k = kept.top_k;
  selection.levels = kept.levels;
  selection.spans = to_host(kept.spans);
  selection.scores = cast<double>(kept.scores);
  selection.anchors = cast<Index>(kept.anchors);
  const std::size_t slots = at(kept.top_k);
  for (std::size_t row = 0; row < kept.spans.size() / slots; ++row) {
    Index count = 0;
    while (count < kept.top_k && !selection.spans[row * slots + at(count)].empty()) ++count;
    selection.count.push_back(kept.levels > 0 ? count : 0);
  }
  selection.work.resize(selection.count.size());
  return selection;
}

inline std::string wrong_rows(const char* what, Index width, Dtype dtype,
                              const std::vector<float>& got, const std::vector<double>& want) {
  const double u = dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11;
  double all = 0;
  for (const double x : want) all += std::isfinite(x) ? x * x : 0;
  const double typical = std::sqrt(all / static_cast<double>(std::max<std::size_t>(1, want.size())) *
                                   static_cast<double>(width));
  double worst = 0;
  std::size_t worst_row = 0;
  Index nans = 0;
  for (std::size_t row = 0; row < want.size() / at(width); ++row) {
    double error = 0;
    double norm = 0;
    for (std::size_t i = row * at(width); i < (row + 1) * at(width); ++i) {
      if (std::isnan(want[i])) continue;
      if (std::isnan(got[i])) ++nans;
      error += std::pow(static_cast<double>(got[i]) - want[i], 2);
      norm += want[i] * want[i];
    }
    const double ratio = std::sqrt(error) / (2 * u * std::sqrt(norm) + 0.25 * u * typical + 1e-30);
    if (ratio > worst || std::isnan(ratio)) worst = ratio, worst_row = row;
  }
  std::ostringstream text;
  if (!(worst <= 1) || nans > 0 || got.size() != want.size()) {
    text << what << ": row " << worst_row << " ratio " << worst << ", " << nans << " NaN; ";
  }
  return text.str();
}

/// Empty, or what is wrong with gradients at a selection.
inline std::string wrong_gradients(const Problem& problem, Dtype dtype, const Paths& kept,
                                   const LossGradients& loss, const Gradients& got) {
  const Selection selection = selection_of(kept);
  const auto output = cast<double>(loss.output);
  const auto scores = cast<double>(loss.scores);
  const auto lse = cast<double>(loss.lse);
  const auto window_lse = cast<double>(loss.window_lse);
  const auto given = [](const std::vector<double>& x) { return x.empty() ? nullptr : x.data(); };
  multistep::AttentionGradients want = multistep::attention_backward(
      problem.attention(), {given(output), given(scores), given(lse), given(window_lse)},
      problem.plan.steps() > 1 ? &selection : nullptr);
  if (problem.search_keys.empty()) {
    for (std::size_t i = 0; i < want.attention.key.size(); ++i) {
      want.attention.key[i] += want.search.search_keys[i];
    }
  }
  const Index d = problem.sizes.head_dim;
  std::string text = wrong_rows("d query", d, dtype, got.query, want.attention.query) +
                     wrong_rows("d key", d, dtype, got.key, want.attention.key) +
                     wrong_rows("d value", d, dtype, got.value, want.attention.value);
  if (!problem.search_keys.empty()) {
    text += wrong_rows("d search keys", d, dtype, got.search_keys, want.search.search_keys);
  }
  for (std::size_t m = 0; m < got.routing.size(); ++m) {
    text += wrong_rows("d routing queries", d, dtype, got.routing[m],
                       want.search.routing_queries[m]);
  }
  return text;
}

}  // namespace gpu
