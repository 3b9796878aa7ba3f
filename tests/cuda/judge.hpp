#pragma once

#include <numeric>

#include "multistep/judge_gradients.hpp"
#include "stages.hpp"

/// What the GPU computed, before the library's judge, every row by its own limits (SPEC 8.3). Each
/// function returns an empty text, or what is wrong.
namespace gpu {

inline multistep::Storage storage_of(Dtype dtype) {
  return dtype == Dtype::bf16 ? multistep::Storage::bfloat16 : multistep::Storage::float16;
}

using multistep::SubmittedArrays;

inline SubmittedArrays handed(const Paths& paths) {
  SubmittedArrays result;
  result.spans = to_host(paths.spans);
  result.scores = cast<double>(paths.scores);
  result.anchors = cast<Index>(paths.anchors);
  return result;
}

using ProblemArgs = multistep::AttentionArgs<float>;

/// Every row.
inline multistep::JudgeReport judged(const ProblemArgs& problem, Dtype dtype,
                                     const SubmittedArrays& given) {
  std::vector<Index> rows(at(problem.shape.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  return multistep::judge_sample(problem, std::span<const Index>(rows), storage_of(dtype),
                                 given.submission())
      .report();
}

inline std::string wrong(const ProblemArgs& problem, Dtype dtype, const SubmittedArrays& given) {
  const multistep::JudgeReport report = judged(problem, dtype, given);
  return report.pass() && report.undecided == 0 ? "" : report.table();
}

/// Near-ties may go either way.
inline std::string wrong_paths(const Problem& problem, const Paths& got) {
  return wrong(problem.attention(), Dtype::bf16, handed(got));
}

/// All that attention() tells. Near-ties may go either way.
inline std::string wrong_whole(const ProblemArgs& problem, Dtype dtype, const Whole& got) {
  SubmittedArrays given = handed(got.kept);
  given.span_lses = cast<double>(got.span_lses);
  given.window_lse = cast<double>(got.window_lse);
  given.output = cast<double>(got.output);
  return wrong(problem, dtype, given);
}
inline std::string wrong_whole(const Problem& problem, Dtype dtype, const Whole& got) {
  return wrong_whole(problem.attention(), dtype, got);
}

/// What a search found, as gradients take it.
inline Selection selection_of(const Problem& problem, const Paths& got) {
  return multistep::selection_of(handed(got).submission(), problem.sizes.rows(),
                                 problem.plan.schedule().top_k, problem.plan.steps() - 1);
}

/// Gradients, of `count` rows and keys or all. In all rows and keys: zeros, NaN and infinities.
inline std::string wrong_gradients(const multistep::SubmittedGradients<float>& given, Dtype dtype,
                                   Index count = Index{1} << 40) {
  const multistep::Shape& shape = given.attention.shape;
  const multistep::StripePlan& plan = *given.attention.plan;
  const multistep::JudgeReport report = multistep::judge_gradients(
      given, storage_of(dtype), multistep::sample_rows(shape, plan, count, 1),
      multistep::sample_keys(shape, plan, *given.selection, count, 1));
  return report.pass() ? "" : report.table();
}

/// Attention to spans [batch, num_heads, L_q, slots], nothing left out of them.
inline std::string wrong_items(const Problem& problem, Dtype dtype, const std::vector<Span>& spans,
                               const Attended& got) {
  const multistep::SpanAttentionArgs<float> args{problem.shape(),
                                                 problem.query.data(),
                                                 problem.key.data(),
                                                 problem.value.data(),
                                                 std::ssize(spans) / problem.sizes.rows(),
                                                 spans.data(),
                                                 nullptr,
                                                 problem.softmax_scale};
  const multistep::ItemsReport report = multistep::judge_items(
      args, storage_of(dtype), cast<double>(got.output).data(), cast<double>(got.lse).data());
  std::ostringstream text;
  for (const auto& [what, of] : {std::pair("outputs", report.outputs), {"lses", report.lses}}) {
    if (of.pass()) continue;
    text << what << " of " << of.wrong_rows << " items, " << of.nans << " NaN, " << of.infs
         << " infinite, ratio " << of.ratio << ", item " << of.worst_row << " value "
         << of.worst_value << " off by " << of.max_error << ", limit " << of.max_limit << "; ";
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

/// The spans without the keys of their queries' windows.
inline std::vector<Span> outside_windows(const Problem& problem, std::vector<Span> spans) {
  const std::vector<Span> windows = row_windows(problem);
  const std::size_t slots = spans.size() / windows.size();
  for (std::size_t i = 0; i < spans.size(); ++i) {
    spans[i] = multistep::outside_window(spans[i], windows[i / slots]);
  }
  return spans;
}

inline multistep::Items attended(const Problem& problem, const std::vector<Span>& spans) {
  return multistep::span_attention<float>(
      {problem.shape(), problem.query.data(), problem.key.data(), problem.value.data(),
       std::ssize(spans) / problem.sizes.rows(), spans.data(), nullptr, problem.softmax_scale});
}

/// The oracle's values as the GPU keeps them.
inline Attended stored(Dtype dtype, const multistep::Items& items) {
  return {cuda::from_16_bits(dtype, cuda::to_16_bits(dtype, cast<float>(items.output))),
          cast<float>(items.lse)};
}

/// The oracle's span attention for a search, in the GPU's number formats.
inline Partials partials(const Problem& problem, Dtype dtype, const Selection& selection) {
  const Attended items =
      stored(dtype, attended(problem, outside_windows(problem, selection.spans)));
  return {to_device(selection.spans), cast<float>(selection.scores), items.output, items.lse};
}

/// Combination of what it was given; the window is its own work, or was given too.
inline std::string wrong_combination(const Problem& problem, Dtype dtype, const Partials& partials,
                                     const std::vector<float>& output,
                                     const Attended& window = {}) {
  SubmittedArrays given;
  given.spans = to_host(partials.spans);
  given.scores = cast<double>(partials.scores);
  given.span_outputs = cast<double>(partials.outputs);
  given.span_lses = cast<double>(partials.lses);
  given.window_output = cast<double>(window.output);
  given.window_lse = cast<double>(window.lse);
  given.output = cast<double>(output);
  const multistep::JudgeReport report = judged(problem.attention(), dtype, given);
  for (const multistep::StageReport& stage : report.stages) {
    if (stage.name == "combination") return stage.pass() ? "" : report.table();
  }
  return "no combination judged";
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

/// Where scores are exact in float32: the oracle's paths to the bit, and the rest close.
inline std::string wrong_exactly(const Problem& problem, Dtype dtype, const Whole& got) {
  const std::string paths = difference(got.kept, span_search(problem.search()));
  return paths.empty() ? wrong_whole(problem, dtype, got) : paths;
}

/// Nothing to look at: output 0, log-sum-exps -inf, no path. Of rows [first, first + count).
inline bool found_nothing(const Whole& got, Index first, Index count) {
  const Index top_k = got.kept.top_k;
  const auto all = [&](const auto& array, Index width, auto&& holds) {
    const auto begin = array.begin() + static_cast<std::ptrdiff_t>(first * width);
    return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(count * width), holds);
  };
  const auto none = [](float x) { return x == -INFINITY; };
  const Index rows = static_cast<Index>(got.window_lse.size());
  const Index head_dim = static_cast<Index>(got.output.size()) / rows;
  return all(got.output, head_dim, [](float x) { return x == 0; }) &&
         all(got.window_lse, 1, none) && all(got.span_lses, top_k, none) &&
         all(got.kept.scores, top_k, none) &&
         all(got.kept.spans, top_k, [](DeviceSpan x) { return x.begin == 0 && x.end == 0; }) &&
         all(got.kept.anchors, top_k * got.kept.levels, [](std::int32_t x) { return x == -1; });
}

}  // namespace gpu
