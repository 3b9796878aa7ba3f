#pragma once

#include <array>
#include <cmath>
#include <span>
#include <string_view>
#include <vector>

#include "multistep/attention.hpp"

/// Judging an implementation by the oracle (SPEC 8). Nothing here knows who computed what is
/// judged: values and selections arrive as plain arrays.
namespace multistep {

/// NaN never passes; equal infinities do.
inline bool close(double got, double want, double tolerance) {
  return got == want || std::abs(got - want) <= tolerance;
}

/// Distances of an array from the right one. A difference that is no number counts as infinite.
struct Errors {
  Index count = 0;
  double max = 0;
  double mean = 0;
  Index worst = -1;  // index of the largest error, the first of equals; -1 where all are 0
  Index nans = 0;    // values that are NaN
  Index infs = 0;    // values that are infinite, and not equal to the right one
};
/// Throws std::invalid_argument where the sizes differ.
Errors errors_of(std::span<const double> got, std::span<const double> want);

/// A stage's result against float64, given that stage's own input: at most twice the error of a
/// plain implementation plus a floor, in the maximum and in the mean.
struct ValueReport {
  Errors got;
  Errors plain;
  double floor = 0;

  double max_limit() const { return 2 * plain.max + floor; }
  double mean_limit() const { return 2 * plain.mean + floor; }
  bool pass() const;
};
ValueReport judge_values(std::span<const double> got, std::span<const double> want,
                         std::span<const double> plain, double floor);

/// What an implementation of span-search submits. Slots are in order of rank; those without a path
/// hold the span [0, 0), score -inf and anchors -1.
template <class T>
struct SubmittedPaths {
  SpanSearchArgs<T> search;        // what the implementation was given
  const Span* spans = nullptr;     // [batch, num_heads, L_q, top_k], final spans
  const double* scores = nullptr;  // [batch, num_heads, L_q, top_k], path scores
  const Index* anchors = nullptr;  // [batch, num_heads, L_q, top_k, N - 1]; null: not told
};

/// Counts of what is wrong with a selection, and how far its scores are from the oracle's. Scores
/// are measured in bounds: 1 is the most that rounding can explain.
///
/// Regret of a path: the oracle's k-th best score less the path's, both in float64, over the sum of
/// their bounds; for more than two steps the largest over the levels, each level's path so far
/// against the k-th best among the children of parents that no rounding can have dropped.
struct SelectionReport {
  static constexpr std::size_t kBins = 6;

  Index rows = 0;
  Index paths = 0;
  Index not_candidates = 0;  // paths that the schedule does not offer, or with another final span
  Index out_of_range = 0;    // final spans not inside [start, t + 1)
  Index duplicates = 0;
  Index missing = 0;       // paths that must be there and are not, whichever way near-ties fall
  Index unordered = 0;     // paths with a better score than the one ranked before them
  Index unclean = 0;       // slots without a path that hold something, or stand before one
  Index nans = 0;          // NaN scores: submitted, or of a path that was chosen
  Index infs = 0;          // submitted scores that are infinite where the oracle's is another
  Index wrong_scores = 0;  // submitted scores further than a bound from the path's
  Index regretted = 0;     // paths with a regret beyond 1
  double score_error = 0;  // largest |submitted - recomputed| in bounds
  double mean_score_error = 0;
  double regret = 0;        // largest, in bounds
  double regret_score = 0;  // largest, as a difference of scores
  Index worst_row = -1;     // where something is wrong, or regret is largest; -1: none
  std::array<Index, kBins> histogram = {};  // rows by regret: see regret_bin

  bool pass() const;
  SelectionReport& operator+=(const SelectionReport& other);
};

/// Bins of regret in bounds: 0, (0, 1/8], (1/8, 1/4], (1/4, 1/2], (1/2, 1], beyond.
std::size_t regret_bin(double regret);
std::string_view regret_bin_name(std::size_t bin);

/// Judges every row. Throws std::invalid_argument for arguments that span_search refuses.
template <class T>
SelectionReport judge_selection(const SubmittedPaths<T>& submitted);

}  // namespace multistep
