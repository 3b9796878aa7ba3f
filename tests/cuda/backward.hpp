#pragma once

#include "judge.hpp"

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

/// A problem on the device, what attention() finds there, and a loss.
struct Lesson {
  Problem problem;
  OnDevice device;
  Whole found;
  LossGradients loss;

  explicit Lesson(const Options& options, bool by_everything = true)
      : Lesson(make_problem(options), options, by_everything) {}
  /// A problem with other values than the options'.
  Lesson(Problem given, const Options& options, bool by_everything = true)
      : problem(std::move(given)),
        device(problem, options.dtype),
        found(gpu::attention(device, Rung::fast)),
        loss(make_loss(problem, options, by_everything)) {}
};

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

/// With the output that attention() gave, and what it found.
inline Gradients backward_of_output(const OnDevice& device, Rung rung, const Whole& found,
                                    const LossGradients& loss) {
  const BackwardArrays arrays(device, found.kept, loss);
  auto args = arrays.args(device, rung);
  const auto output = device.upload(found.output);
  const DeviceArray<float> window_lse(found.window_lse);
  args.output = output.data();
  args.window_lse = window_lse.data();
  run(args, cuda::attention_backward);
  return arrays.download();
}

/// Empty, or what the judge finds wrong with gradients at a selection: in every row and key.
inline std::string wrong_gradients(const Problem& problem, Dtype dtype, const Paths& kept,
                                   const LossGradients& loss, const Gradients& got) {
  const Selection selection = selection_of(problem, kept);
  std::vector<std::vector<double>> arrays;  // as many as there is room for: their pointers stay
  arrays.reserve(8 + got.routing.size());
  const auto given = [&](const std::vector<float>& values) -> const double* {
    return values.empty() ? nullptr : arrays.emplace_back(cast<double>(values)).data();
  };
  multistep::SubmittedGradients<float> submitted{
      .attention = problem.attention(),
      .selection = &selection,
      .by_result = {given(loss.output), given(loss.scores), given(loss.lse),
                    given(loss.window_lse)},
      .query = given(got.query),
      .key = given(got.key),
      .value = given(got.value),
      .routing_queries = {},
      .search_keys = given(got.search_keys)};
  for (const std::vector<float>& level : got.routing) {
    submitted.routing_queries.push_back(given(level));
  }
  return wrong_gradients(submitted, dtype);
}

}  // namespace gpu
