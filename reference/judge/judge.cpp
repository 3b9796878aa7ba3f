#include "judge/row_judge.hpp"

#include <map>

#include "stages/part.hpp"
#include "support/parallel.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

constexpr std::array<const char*, kValueStages> kNames{
    "span attention", "span lse", "window attention", "window lse", "combination", "output"};
constexpr char kSearch[] = "search";

/// The part of a submission that is row s's.
Submission row_of(const Submission& given, Index s, Index top_k, Index levels, Index head_dim) {
  const auto from = [s](const auto* array, Index width) {
    return array ? array + s * width : nullptr;
  };
  return {from(given.spans, top_k),
          from(given.scores, top_k),
          from(given.anchors, top_k * levels),
          from(given.span_outputs, top_k * head_dim),
          from(given.span_lses, top_k),
          from(given.window_output, head_dim),
          from(given.window_lse, 1),
          from(given.output, head_dim)};
}

}  // namespace

Submission SubmittedArrays::submission() const {
  const auto data = [](const auto& array) { return array.empty() ? nullptr : array.data(); };
  return {data(spans),     data(scores),        data(anchors),    data(span_outputs),
          data(span_lses), data(window_output), data(window_lse), data(output)};
}

struct Judge::State {
  Index levels;
  Index top_k;
  Index head_dim;
  Storage storage;
  std::vector<SampledRow> rows;
  Index rows_of;
  Submission given;
  std::vector<RowFindings> findings;  // [sample]
  std::map<std::string, WholeCheck, std::less<>> whole;

  bool has_search() const { return given.spans && levels > 0; }

  /// A number for the head of every row, equal ones in a row.
  std::vector<Index> heads() const {
    std::vector<Index> numbers;
    for (const SampledRow& row : rows) {
      const SampledRow& before = rows[numbers.empty() ? 0 : numbers.size() - 1];
      const bool same = before.batch == row.batch && before.head == row.head;
      numbers.push_back(numbers.empty() ? 0 : numbers.back() + !same);
    }
    return numbers;
  }

  WholeCheck found(std::string_view stage) const {
    const auto at = whole.find(stage);
    return at == whole.end() ? WholeCheck{} : at->second;
  }

  StageReport search_report() const {
    StageReport stage;
    stage.name = kSearch;
    stage.whole = found(kSearch);
    SelectionReport sum;
    for (std::size_t s = 0; s < findings.size(); ++s) {
      SelectionReport row = findings[s].selection;
      if (row.worst_row >= 0) row.worst_row = static_cast<Index>(s);
      sum += row;
    }
    stage.selection = sum;
    if (sum.worst_row >= 0) stage.worst = rows[at(sum.worst_row)];
    return stage;
  }

  StageReport value_report(ValueStage of) const {
    std::vector<RowVerdict> verdicts;
    for (const RowFindings& row : findings) verdicts.push_back(row.values[of]);
    StageReport stage;
    stage.name = kNames[of];
    stage.whole = found(stage.name);
    stage.values = judge_rows(verdicts, heads());
    if (stage.values.worst_row < 0) return stage;
    stage.worst = rows[at(stage.values.worst_row)];
    const Index value = stage.values.worst_value;
    const bool of_slots = of == kSpanAttention || of == kSpanLse;
    const bool is_lse = of == kSpanLse || of == kWindowLse;
    const Index width = is_lse ? 1 : head_dim;
    if (of_slots && value >= 0) stage.slot = value / width;
    if (!is_lse && value >= 0) stage.dim = value % width;
    return stage;
  }
};

Judge::Judge(const StripePlan& plan, Index head_dim, Storage storage, std::vector<SampledRow> rows,
             Index rows_of, const Submission& given)
    : state_(std::make_unique<State>()) {
  require(!rows.empty(), "rows: none to judge");
  state_->levels = plan.steps() - 1;
  state_->top_k = plan.schedule().top_k;
  state_->head_dim = head_dim;
  state_->storage = storage;
  state_->findings.resize(rows.size());
  state_->rows = std::move(rows);
  state_->rows_of = rows_of;
  state_->given = given;
}

Judge::Judge(Judge&&) noexcept = default;
Judge::~Judge() = default;

template <class T>
void Judge::judge_row(Index s, const AttentionArgs<T>& one) {
  require_within("row", s, 0, std::ssize(state_->rows) - 1);
  require(one.shape.rows() == 1 && one.shape.head_dim == state_->head_dim,
          "problem of {} rows and head_dim {}: of one row and head_dim {}", one.shape.rows(),
          one.shape.head_dim, state_->head_dim);
  state_->findings[at(s)] = multistep::judge_row(
      one, state_->storage,
      row_of(state_->given, s, state_->top_k, state_->levels, state_->head_dim));
}

void Judge::found(std::string_view stage, WholeCheck whole) {
  state_->whole.insert_or_assign(std::string(stage), whole);
}

JudgeReport Judge::report() const {
  const State& state = *state_;
  JudgeReport report;
  report.rows = std::ssize(state.rows);
  report.rows_of = state.rows_of;
  report.has_output = state.given.output != nullptr;
  for (const RowFindings& row : state.findings) {
    report.undecided += row.undecided;
    report.end_to_end_max = std::max(report.end_to_end_max, row.end_to_end_max);
    report.end_to_end_mean += row.end_to_end_mean / static_cast<double>(report.rows);
  }
  const bool has_paths = state.levels > 0;
  if (state.has_search()) {
    report.stages.push_back(state.search_report());
  } else if (has_paths) {
    report.not_supplied.emplace_back(kSearch);
  }
  const auto wanted = stages_of(state.given, state.levels);
  for (int of = 0; of < kValueStages; ++of) {
    const bool of_output = of == kCombination || of == kOutput;
    if (wanted[static_cast<std::size_t>(of)]) {
      if (of_output && report.undecided == report.rows) continue;  // nothing of it was judged
      report.stages.push_back(state.value_report(static_cast<ValueStage>(of)));
    } else if (has_paths || of == kOutput) {
      report.not_supplied.emplace_back(kNames[static_cast<std::size_t>(of)]);
    }
  }
  return report;
}

template <class T>
Judge judge_sample(const AttentionArgs<T>& args, std::span<const Index> rows, Storage storage,
                   const Submission& given, const Progress& progress) {
  const Rows all(args.shape);
  require_attention(args, all);
  std::vector<SampledRow> sample;
  for (const Index row : rows) {
    require_within("row", row, 0, all.count() - 1);
    const Index head = row / args.shape.queries % args.shape.num_heads;
    sample.push_back({all.batch(row), head, all.position(row)});
  }
  Judge judge(*args.plan, args.shape.head_dim, storage, std::move(sample), all.count(), given);
  Watch watch(progress, std::ssize(rows));
  parallel_blocks(std::ssize(rows), 1, [&] {
    return [&](Index s, Index) {
      const Place place(all, rows[at(s)], 1);
      judge.judge_row(s, part_of(args, all, place));
      watch.add(1);
    };
  });
  watch.finish();
  return judge;
}

template Judge judge_sample(const AttentionArgs<float>&, std::span<const Index>, Storage,
                            const Submission&, const Progress&);
template Judge judge_sample(const AttentionArgs<double>&, std::span<const Index>, Storage,
                            const Submission&, const Progress&);
template void Judge::judge_row(Index, const AttentionArgs<float>&);
template void Judge::judge_row(Index, const AttentionArgs<double>&);

}  // namespace multistep
