#pragma once

#include "judge.hpp"

/// What attention() found beside its output, against the oracle.
namespace gpu {

/// Paths equal to the bit, the items' log-sum-exps close; else the first thing that is wrong.
inline std::string wrong_finds(const Problem& problem, const Selection& selection,
                               const Whole& got) {
  const std::string paths = difference(got.kept, selection);
  if (!paths.empty()) return paths;
  const auto windows = attended(problem, row_windows(problem));
  const std::string window = far_lse(got.window_lse, windows.lse);
  if (!window.empty()) return "window " + window;
  const auto items = attended(problem, outside_window(problem, selection.spans));
  const std::string span = far_lse(got.span_lses, items.lse);
  return span.empty() ? "" : "span " + span;
}

inline std::string wrong_finds(const Problem& problem, const Whole& got) {
  return wrong_finds(problem, span_search(problem.search()), got);
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
