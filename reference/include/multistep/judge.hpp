#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multistep/attention.hpp"

/// Judging an implementation by the oracle (SPEC 8): the one judge, whoever computed what is judged
/// and wherever. Values and selections arrive as plain arrays.
namespace multistep {

/// NaN never passes; equal infinities do.
inline bool within_tolerance(double got, double want, double tolerance) {
  return got == want || std::abs(got - want) <= tolerance;
}

// Selections

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

// Values

/// The type that an implementation keeps its values in; it sums in float32. The yardstick rounds to
/// it: float32 stands for float64 as well.
enum class Storage { float32, bfloat16, float16 };

/// "bfloat16" and so on; "float64" is float32. Throws std::invalid_argument.
Storage parse_storage(std::string_view name);

/// The nearest value of the storage type.
float round_to(Storage storage, float value);

/// The values of one row of one stage, and what they may be off by.
struct RowValues {
  std::span<const double> got;
  std::span<const double> want;       // the oracle's, given the stage's own input
  std::span<const double> yardstick;  // the yardstick's
  std::span<const double> luck;       // what rounding moves each value by: see rounding.hpp
  std::span<const double> slack;      // what is explained of each value otherwise; empty: nothing
  std::span<const double> magnitude;  // sum of the absolute terms behind each value
};

/// A row's errors beside its own limits: at most twice the yardstick's, which may happen to be
/// right, plus a floor (SPEC 8.3). The floor is 4 ulp in float32 of the largest `magnitude`, for
/// sums in another order and the hardware's exponentials and logarithms, good to 2^-22, plus the
/// luck: twice its largest for the maximum, its mean for the mean, of a few values somewhat more,
/// of one twice as much. No value hides behind a louder one beside it: each is held, too, to the
/// yardstick's largest error as a share of `magnitude`, twice, and the floor, both by its own
/// magnitude, and to eight times its own luck. No error is a subnormal number of float32, which
/// kernels may flush, in a value or in a weight, and the last bit of those of float16. Where the
/// oracle's value is NaN any will do; where rounding to the storage type makes it infinite, so may
/// the submitted one be.
struct RowVerdict {
  Index values = 0;
  double max_error = 0;  // of the worst value, the one with the largest ratio to its limit
  double max_limit = 0;  // of that value
  double mean_error = 0;
  double mean_base = 0;  // of mean_limit(), all but the luck
  double mean_luck = 0;
  double luck_values = 0;  // so many values with equal luck would be as uncertain in the mean
  double yardstick_max = 0;
  double yardstick_mean = 0;
  Index worst = -1;  // the first of equals; -1 where all errors are 0
  Index nans = 0;    // values that are NaN where the oracle's is not
  Index infs = 0;    // values that are infinite where the oracle's is another

  double mean_limit() const;
  double ratio() const;  // of errors to limits, the larger one; at most 1: passes
  bool pass() const { return ratio() <= 1; }
};
RowVerdict judge_row(const RowValues& values, Storage storage);

/// Many rows of a stage. Their mean error is judged as well, where a row's luck counts 2 / sqrt(n)
/// of n > 4 rows: over all of them, and for each head of each sequence apart, so that one wrong
/// head cannot hide.
struct ValueReport {
  Index rows = 0;
  Index values = 0;
  double max_error = 0;   // of the worst row, the one with the largest ratio
  double max_limit = 0;   // of that row
  double mean_error = 0;  // over all rows
  double mean_limit = 0;
  double yardstick_max = 0;
  double yardstick_mean = 0;
  double ratio = 0;  // largest over rows, heads, and all
  Index wrong_rows = 0;
  Index wrong_heads = 0;
  Index nans = 0;
  Index infs = 0;
  Index worst_row = -1;    // -1: every value is equal
  Index worst_value = -1;  // in that row

  bool pass() const { return ratio <= 1 && nans + infs == 0; }
};
/// `heads`: for each row a number for its head, equal ones in a row.
ValueReport judge_rows(std::span<const RowVerdict> rows, std::span<const Index> heads);

/// Span attention alone, whoever chose the spans.
struct ItemsReport {
  ValueReport outputs;  // rows: items
  ValueReport lses;

  bool pass() const { return outputs.pass() && lses.pass(); }
};
template <class T>
ItemsReport judge_items(const SpanAttentionArgs<T>& args, Storage storage,
                        const double* outputs,  // [batch, num_heads, L_q, slots, head_dim]
                        const double* lses);    // [batch, num_heads, L_q, slots]

// Implementations

/// A query row of a problem.
struct SampledRow {
  Index batch = 0;
  Index head = 0;
  Index position = 0;
};

/// `count` rows of [batch, num_heads, L_q], ascending, or all where there are no more: first and
/// last query, queries beside tiles, powers and the edges of padding and window, of one head after
/// the other, then seeded random ones.
std::vector<Index> sample_rows(const Shape& shape, const StripePlan& plan, Index count,
                               std::uint64_t seed);

/// How many rows can be judged with about `products` products of values, 2^34 a few seconds: all of
/// them or 1024 at least.
Index affordable_rows(const Shape& shape, const StripePlan& plan, double products = 0x1p34);

/// What an implementation hands in, for the sampled rows. Null: not handed in, and so not judged.
struct Submission {
  const Span* spans = nullptr;            // [sample, top_k]
  const double* scores = nullptr;         // [sample, top_k]
  const Index* anchors = nullptr;         // [sample, top_k, N - 1]
  const double* span_outputs = nullptr;   // [sample, top_k, head_dim]
  const double* span_lses = nullptr;      // [sample, top_k]
  const double* window_output = nullptr;  // [sample, head_dim]
  const double* window_lse = nullptr;     // [sample]
  const double* output = nullptr;         // [sample, head_dim]
};

/// The same with arrays of its own. Empty: not handed in.
struct SubmittedArrays {
  std::vector<Span> spans;
  std::vector<double> scores;
  std::vector<Index> anchors;
  std::vector<double> span_outputs, span_lses, window_output, window_lse, output;

  Submission submission() const;
};

/// What is found in every row of the results, sampled or not, as it is cheap to look at.
struct WholeCheck {
  Index not_finite = 0;  // values that are NaN or infinite, of rows that meet no such input
  Index unbounded = 0;   // values of the output that are larger than all that they can be made of
  Index not_zero = 0;    // of gradients, by what nobody looked at
};

/// Looks at all rows of results. Rows that meet a NaN or an infinity are left to the judge of
/// sampled rows: those whose own queries hold one, or whose KV head does among the eligible keys.
template <class T>
class AllRows {
 public:
  AllRows(const AttentionArgs<T>& args, Storage storage);

  /// Of an output [batch, num_heads, L_q, head_dim].
  WholeCheck output(const double* values) const;

  /// NaN, and where `infinite_too` infinities, in [batch, num_heads, L_q, slots, width]; of slots
  /// whose span is empty nothing is asked. `spans` null: every slot counts.
  WholeCheck items(const double* values, const Span* spans, Index slots, Index width,
                   bool infinite_too) const;

  /// Meets row `row` no NaN and no infinity?
  bool clean(Index row) const { return clean_[static_cast<std::size_t>(row)]; }

 private:
  AttentionArgs<T> args_;
  std::vector<char> clean_;     // [batch, num_heads, L_q]
  std::vector<double> bounds_;  // [batch, num_kv_heads, head_dim], of an output's value
};

/// A stage of the report.
struct StageReport {
  std::string name;
  std::optional<SelectionReport> selection;  // of a search; else
  ValueReport values;
  WholeCheck whole;
  std::optional<SampledRow> worst;
  bool of_keys = false;  // rows are keys of KV heads
  Index level = -1;      // of the worst value; -1: it is of none
  Index slot = -1;
  Index dim = -1;

  bool pass() const;
};

struct JudgeReport {
  std::vector<StageReport> stages;
  std::vector<std::string> not_supplied;  // stages that there is nothing to judge by
  Index rows = 0;                         // looked at
  Index rows_of = 0;                      // of how many
  Index keys = 0;                         // looked at, of gradients
  Index keys_of = 0;                      // of how many; 0: no gradients were judged
  Index undecided = 0;  // of them, whose selection was not told and hangs on rounding, or whose
                        // scores were not and the gates do: their output is bounded, no more
  double end_to_end_max = 0;  // error of the output against the oracle's own; not judged
  double end_to_end_mean = 0;
  bool has_output = false;

  /// Every stage passes, one at least was judged, and no more than half of the rows are undecided.
  bool pass() const;
  /// "PASS, 64 of 4096 rows looked at, 3 undecided" and the like.
  std::string verdict() const;
  /// The report as JSON (null for what is no number), and as a table with what is wrong below it.
  std::string json() const;
  std::string table() const;
};

/// Judges rows one by one, and reports. Different threads may judge different rows.
class Judge {
 public:
  /// `rows_of`: how many rows the implementation computed. The arrays of `given` stay the caller's.
  Judge(const StripePlan& plan, Index head_dim, Storage storage, std::vector<SampledRow> rows,
        Index rows_of, const Submission& given);
  Judge(Judge&&) noexcept;
  ~Judge();

  /// Row s of the sample: `one` is its problem, one query of one head.
  template <class T>
  void judge_row(Index s, const AttentionArgs<T>& one);

  /// What was found in all rows, for the stage of this name.
  void found(std::string_view stage, WholeCheck whole);

  /// After every row was judged.
  JudgeReport report() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Judges `rows` of a problem that lies in memory: ascending indices into [batch, num_heads, L_q].
template <class T>
Judge judge_sample(const AttentionArgs<T>& args, std::span<const Index> rows, Storage storage,
                   const Submission& given, const Progress& progress = {});

}  // namespace multistep
