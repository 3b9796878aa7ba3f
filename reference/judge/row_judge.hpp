#pragma once

#include <array>

#include "multistep/judge.hpp"

namespace multistep {

/// The stages whose values are judged, in the order of the report.
enum ValueStage {
  kSpanAttention,
  kSpanLse,
  kWindowAttention,
  kWindowLse,
  kCombination,
  kOutput,
  kValueStages
};

/// Which of them a submission has all for, with a schedule of so many search levels.
std::array<bool, kValueStages> stages_of(const Submission& given, Index levels);

/// What was found of one row.
struct RowFindings {
  SelectionReport selection;                    // where spans were handed in
  std::array<RowVerdict, kValueStages> values;  // where the stage has all it needs
  bool undecided = false;                       // its output is not judged
  double end_to_end_max = 0;                    // of the output against the oracle's own
  double end_to_end_mean = 0;
};

/// `one`: one query of one head; `given`: what was handed in for it.
template <class T>
RowFindings judge_row(const AttentionArgs<T>& one, Storage storage, const Submission& given);

}  // namespace multistep
