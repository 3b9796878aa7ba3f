#pragma once

#include "problem.hpp"

/// Runs of the GPU's stages. Outputs and workspaces are full of bytes that are no result: 0xff is a
/// NaN in every floating-point type.
namespace gpu {

template <class T>
DeviceArray<T> poisoned(Index count, std::uint8_t byte = 0xff) {
  DeviceArray<T> array(at(count));
  array.fill(byte);
  return array;
}

/// Runs a stage on a stream of its own, with a workspace of exactly the bytes that it asks for.
template <class Args>
void run(Args args, void (*stage)(const Args&, cuda::Stream)) {
  cuda::DeviceBuffer workspace(cuda::workspace_size(args));
  workspace.fill(0xff);
  args.workspace = {workspace.data(), workspace.size()};
  const cuda::OwnedStream stream;
  stage(args, stream.get());
  stream.synchronize();
}

/// What a search kept: [batch, num_heads, L_q, top_k].
struct Paths {
  Index top_k = 0;
  Index levels = 0;  // keys per path in `anchors`
  std::vector<DeviceSpan> spans;
  std::vector<float> scores;
  std::vector<std::int32_t> anchors;
  std::vector<std::int32_t> parent_ranks;  // of a search of one level; else none

  /// Rows [first, first + count) of each of `heads` that the rows are cut into.
  Paths of_rows(Index first, Index count, Index heads) const {
    const auto pick = [&](const auto& array) {
      if (array.empty()) return array;
      const Index width = static_cast<Index>(array.size() * at(top_k) / spans.size());
      return inputs::rows_of(array, heads, width, first, count);
    };
    return {top_k, levels, pick(spans), pick(scores), pick(anchors), pick(parent_ranks)};
  }
};

inline bool same_paths(const Paths& a, const Paths& b) {
  return same_bits(a.spans, b.spans) && same_bits(a.scores, b.scores) &&
         same_bits(a.anchors, b.anchors);
}

inline Paths search(cuda::SpanSearchArgs args) {
  const Index top_k = args.schedule->top_k();
  const Index slots = args.shape.rows() * top_k;
  const Index levels = args.level == 0 ? args.schedule->levels() : 1;
  const auto spans = poisoned<DeviceSpan>(slots);
  const auto scores = poisoned<float>(slots);
  const auto anchors = poisoned<std::int32_t>(slots * levels, 0x77);
  const auto ranks = poisoned<std::int32_t>(args.level == 0 ? 0 : slots, 0x77);
  args.spans = spans.data();
  args.scores = scores.data();
  args.anchors = anchors.data();
  args.parent_ranks = ranks.data();
  run(args, cuda::span_search);
  return {top_k, levels, spans.download(), scores.download(), anchors.download(), ranks.download()};
}

/// The search one level at a time, each inside the spans that the level above kept: [N - 1].
inline std::vector<Paths> search_by_level(const OnDevice& device, Rung rung) {
  std::vector<Paths> levels;
  DeviceArray<DeviceSpan> parents;
  DeviceArray<float> scores;
  for (Index m = 1; m <= device.schedule.levels(); ++m) {
    auto args = device.search_args(rung);
    args.level = m;
    args.parents = parents.data();
    args.parent_scores = scores.data();
    levels.push_back(search(args));
    parents = DeviceArray<DeviceSpan>(levels.back().spans);
    scores = DeviceArray<float>(levels.back().scores);
  }
  return levels;
}

/// The last level's paths with the anchors of all levels, found through the parents' ranks.
inline Paths whole_paths(const std::vector<Paths>& levels) {
  Paths paths = levels.back();
  const auto count = static_cast<Index>(levels.size());
  const auto slots = static_cast<Index>(paths.spans.size());
  paths.levels = count;
  paths.parent_ranks.clear();
  paths.anchors.assign(at(slots * count), -1);
  for (Index slot = 0; slot < slots; ++slot) {
    Index from = slot;
    for (Index m = count; m >= 1; --m) {
      const Paths& level = levels[at(m - 1)];
      if (level.anchors[at(from)] < 0) break;
      paths.anchors[at(slot * count + m - 1)] = level.anchors[at(from)];
      if (m == 1) break;
      const Index rank = level.parent_ranks[at(from)];
      if (rank < 0 || rank >= paths.top_k) break;  // wrong, and -1 above it then says so
      from = slot - slot % paths.top_k + rank;
    }
  }
  return paths;
}

struct Attended {
  std::vector<float> output;
  std::vector<float> lse;
};

/// `spans` empty: the window.
inline Attended attend(const OnDevice& device, Rung rung, const std::vector<DeviceSpan>& spans) {
  auto args = device.args<cuda::SpanAttentionArgs>(rung);
  const Index rows = device.shape.rows();
  const DeviceArray<DeviceSpan> uploaded(spans);
  args.slots = spans.empty() ? 1 : static_cast<Index>(spans.size()) / rows;
  args.spans = uploaded.data();
  const auto output = poisoned<std::uint16_t>(rows * args.slots * device.shape.head_dim);
  const auto lse = poisoned<float>(rows * args.slots);
  args.output = output.data();
  args.lse = lse.data();
  run(args, cuda::span_attention);
  return {cuda::from_16_bits(device.dtype, output.download()), lse.download()};
}

/// What combination takes from the stages before it.
struct Partials {
  std::vector<DeviceSpan> spans;  // [batch, num_heads, L_q, slots]
  std::vector<float> scores;      // the same
  std::vector<float> outputs;     // [batch, num_heads, L_q, slots, head_dim]
  std::vector<float> lses;        // [batch, num_heads, L_q, slots]
};

inline std::vector<float> combine(const OnDevice& device, cuda::CombineArgs args,
                                  const Partials& partials) {
  const DeviceArray<DeviceSpan> spans(partials.spans);
  const DeviceArray<float> scores(partials.scores);
  const auto outputs = device.upload(partials.outputs);
  const DeviceArray<float> lses(partials.lses);
  args.slots = static_cast<Index>(partials.spans.size()) / device.shape.rows();
  args.spans = spans.data();
  args.scores = scores.data();
  args.span_outputs = outputs.data();
  args.span_lses = lses.data();
  const auto output = poisoned<std::uint16_t>(device.shape.rows() * device.shape.head_dim);
  args.output = output.data();
  run(args, cuda::combine);
  return cuda::from_16_bits(device.dtype, output.download());
}

inline std::vector<float> combine(const OnDevice& device, Rung rung, const Partials& partials) {
  return combine(device, device.args<cuda::CombineArgs>(rung), partials);
}

/// What attention() returns: its output, and what it found.
struct Whole {
  std::vector<float> output;
  Paths kept;
  std::vector<float> span_lses;   // [batch, num_heads, L_q, top_k]
  std::vector<float> window_lse;  // [batch, num_heads, L_q]

  /// Rows [first, first + count) of each of `heads` that the rows are cut into.
  Whole of_rows(Index first, Index count, Index heads = 1) const {
    const auto rows = static_cast<Index>(window_lse.size());
    const auto pick = [&](const auto& array) {
      if (array.empty()) return array;
      return inputs::rows_of(array, heads, static_cast<Index>(array.size()) / rows, first, count);
    };
    return {pick(output), kept.of_rows(first, count, heads), pick(span_lses), pick(window_lse)};
  }
};

inline bool same_bits(const Whole& a, const Whole& b) {
  return same_bits(a.output, b.output) && same_paths(a.kept, b.kept) &&
         same_bits(a.span_lses, b.span_lses) && same_bits(a.window_lse, b.window_lse);
}

/// The device's arrays for it, for calls that are repeated.
struct WholeArrays {
  Dtype dtype;
  Index top_k;
  Index levels;
  DeviceArray<std::uint16_t> output;
  DeviceArray<DeviceSpan> spans;
  DeviceArray<float> scores, span_lses, window_lse;
  DeviceArray<std::int32_t> anchors;

  explicit WholeArrays(const cuda::AttentionArgs& args)
      : dtype(args.dtype),
        top_k(args.schedule->top_k()),
        levels(args.schedule->levels()),
        output(at(args.shape.rows() * args.shape.head_dim)),
        spans(at(args.shape.rows() * top_k)),
        scores(at(args.shape.rows() * top_k)),
        span_lses(at(args.shape.rows() * top_k)),
        window_lse(at(args.shape.rows())),
        anchors(at(args.shape.rows() * top_k * levels)) {
    poison();
  }
  void poison() {
    output.fill(0xff);
    spans.fill(0xff);
    scores.fill(0xff);
    span_lses.fill(0xff);
    window_lse.fill(0xff);
    anchors.fill(0x77);
  }
  void put_into(cuda::AttentionArgs& args) const {
    args.output = output.data();
    args.spans = spans.data();
    args.scores = scores.data();
    args.span_lses = span_lses.data();
    args.window_lse = window_lse.data();
    args.anchors = anchors.data();
  }
  Whole download() const {
    return {cuda::from_16_bits(dtype, output.download()),
            {top_k, levels, spans.download(), scores.download(), anchors.download(), {}},
            span_lses.download(),
            window_lse.download()};
  }
};

inline Whole attention(cuda::AttentionArgs args) {
  const WholeArrays arrays(args);
  arrays.put_into(args);
  run(args, cuda::attention);
  return arrays.download();
}

inline Whole attention(const OnDevice& device, Rung rung) {
  return attention(device.attention_args(rung));
}

}  // namespace gpu
