#include "gpu_compare.hpp"

#include <algorithm>
#include <cmath>
#include <exception>

#include "gpu_report.hpp"
#include "gpu_stages.hpp"
#include "multistep/cuda/timing.hpp"
#include "multistep/plain.hpp"

namespace multistep {
namespace {

std::size_t size(Index count) { return static_cast<std::size_t>(count); }

/// A row's arrays in float, and its spans.
struct RowProblem {
  Shape shape;
  Index start = 0;
  std::unique_ptr<float[]> query;
  std::vector<std::unique_ptr<float[]>> routing;
  std::vector<const float*> routing_pointers;
  const float* key = nullptr;
  const float* value = nullptr;
  Span window;
};

/// Values of one stage for all sampled rows.
struct Values {
  std::vector<double> got, want, plain;
  Index bad_anywhere = 0;  // NaN or infinite results, sampled or not

  void resize(Index count) {
    got.assign(size(count), 0);
    want.assign(size(count), 0);
    plain.assign(size(count), 0);
  }
  void put(Index at, const std::vector<double>& oracle, const std::vector<double>& yardstick) {
    std::copy(oracle.begin(), oracle.end(), want.begin() + at);
    std::copy(yardstick.begin(), yardstick.end(), plain.begin() + at);
  }
};

/// Floors: what float32 sums in another order and the hardware's exponentials and logarithms, good
/// to 2^-22, may add where the plain implementation happens to make no error: 4 ulp of the largest
/// value, and for log-sum-exps, which hold a logarithm as well as the logits, 16.
double output_floor(const std::vector<double>& want) {
  double largest = 0;
  for (const double x : want) largest = std::max(largest, std::isfinite(x) ? std::abs(x) : 0);
  return 4 * 0x1p-23 * largest;
}
double lse_floor(const std::vector<double>& want) {
  double largest = 1;
  for (const double x : want) largest = std::max(largest, std::isfinite(x) ? std::abs(x) : 0);
  return 16 * 0x1p-23 * largest;
}

class Comparison {
 public:
  Comparison(const GpuProblem& problem, const CompareOptions& options)
      : problem_(problem),
        sizes_(problem.sizes()),
        rung_(options.rung),
        d_(sizes_.head_dim),
        top_k_(problem.levels() == 0 ? 0 : problem.top_k()),
        rows_(sample_rows(sizes_, problem.plan(), options.sample)),
        round_([dtype = problem.dtype()](float x) {
          return cuda::widen(dtype, cuda::narrow(dtype, x));
        }) {}

  Json run(const Progress& progress) {
    const cuda::OwnedStream stream;
    stages_ = run_stages(problem_, rung_, rows_, stream);
    whole_ = run_composition(problem_, rung_, rows_, stream);
    judge(progress);
    return report();
  }

 private:
  // The oracle's side

  void judge(const Progress& progress) {
    const auto count = static_cast<Index>(rows_.size());
    span_outputs_.resize(count * top_k_ * d_);
    lses_.resize(count * top_k_);
    combined_.resize(count * d_);
    composed_.resize(count * d_);
    whole_want_.assign(size(count * d_), 0);
    span_outputs_.bad_anywhere = stages_.bad_span_outputs;
    combined_.bad_anywhere = stages_.bad_outputs;
    composed_.bad_anywhere = whole_.bad_outputs;
    span_outputs_.got = stages_.span_outputs;
    lses_.got = stages_.span_lses;
    combined_.got = stages_.output;
    composed_.got = whole_.output;
    searches_.resize(rows_.size());
    choices_.resize(rows_.size());

    const Index longest = rows_of_last_query();
    for (std::size_t first = 0; first < rows_.size();) {  // rows of one KV head at a time
      const Index kv_head = rows_[first].kv_head(sizes_);
      std::size_t past = first;
      while (past < rows_.size() && rows_[past].kv_head(sizes_) == kv_head) ++past;
      const auto key = problem_.source().rows(InputSource::key, kv_head, 0, longest);
      const auto value = problem_.source().rows(InputSource::value, kv_head, 0, longest);
      std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1)
      for (std::size_t s = first; s < past; ++s) {
        try {
          judge_row(static_cast<Index>(s), key.get(), value.get());
        } catch (...) {
#pragma omp critical(multistep_compare_failure)
          failure = std::current_exception();
        }
      }
      if (failure) std::rethrow_exception(failure);
      first = past;
      if (progress && !progress(static_cast<Index>(past), count)) throw Cancelled();
    }
    if (top_k_ == 0) {  // dense attention has one right answer, however it is asked for
      composed_.want = whole_want_ = combined_.want;
      composed_.plain = combined_.plain;
    }
  }

  Index rows_of_last_query() const {
    Index last = 0;
    for (const SampledRow& row : rows_) last = std::max(last, row.position(sizes_));
    return last + 1;
  }

  RowProblem row_problem(const SampledRow& row, const float* key, const float* value) const {
    const Index t = row.position(sizes_);
    const Index head = row.batch * sizes_.heads + row.head;
    RowProblem one;
    one.start = sizes_.start;
    one.shape = {1, 1, 1, 1, t + 1, d_, t, nullptr};
    one.query = problem_.source().rows(InputSource::query, head, t, t + 1);
    for (Index m = 1; m <= problem_.levels(); ++m) {
      const auto array = InputSource::routing + static_cast<std::uint64_t>(m - 1);
      one.routing.push_back(problem_.source().rows(array, head, t, t + 1));
    }
    for (const auto& level : one.routing) {
      one.routing_pointers.push_back(level.get());
    }
    one.key = key;
    one.value = value;
    one.window = problem_.plan().window(t, one.start);
    return one;
  }

  void judge_row(Index s, const float* key, const float* value) {
    RowProblem one = row_problem(rows_[size(s)], key, value);
    one.shape.start = &one.start;
    judge_stages(one, s);
    if (top_k_ == 0) return;  // the window is all there is: see judge()
    searches_[size(s)] = judge_paths(one, s, stages_);
    choices_[size(s)] = judge_paths(one, s, whole_);
    judge_composition(one, s);
    const AttentionArgs<float> args{one.shape, &problem_.plan(),     one.query.get(), key,
                                    value,     one.routing_pointers, nullptr,         1,
                                    {}};
    const std::vector<double> oracle = attention(args).output;
    std::copy(oracle.begin(), oracle.end(), whole_want_.begin() + s * d_);
  }

  SelectionReport judge_paths(const RowProblem& one, Index s, const Submitted& from) const {
    SubmittedPaths<float> paths;
    paths.search = {one.shape, &problem_.plan(), one.routing_pointers, one.key, 1};
    paths.spans = from.spans.data() + s * top_k_;
    paths.scores = from.scores.data() + s * top_k_;
    if (!from.anchors.empty()) {
      paths.anchors = from.anchors.data() + s * top_k_ * problem_.levels();
    }
    return judge_selection(paths);
  }

  /// The submitted spans of a row that are in use, the first ones; none where one of them is not of
  /// eligible keys: then there is nothing to attend to, and the row cannot pass.
  std::vector<Span> usable_spans(const Submitted& from, Index s, Index t, bool& usable) const {
    std::vector<Span> spans(from.spans.begin() + s * top_k_, from.spans.begin() + (s + 1) * top_k_);
    usable = true;
    for (const Span& span : spans) {
      usable = usable && (span.empty() || (span.begin >= sizes_.start && span.end <= t + 1));
    }
    if (!usable) spans.assign(size(top_k_), {});
    return spans;
  }

  static Index in_use(const std::vector<Span>& spans) {
    const auto empty = [](const Span& span) { return span.empty(); };
    return std::find_if(spans.begin(), spans.end(), empty) - spans.begin();
  }

  /// Makes a row of a stage's results fail.
  static void spoil(Values& values, Index at, Index count) {
    std::fill_n(values.got.begin() + at, count, std::numeric_limits<double>::quiet_NaN());
  }

  /// Span attention on the search's spans, and combination on its partial results.
  void judge_stages(const RowProblem& one, Index s) {
    bool usable = true;
    std::vector<Span> spans = usable_spans(stages_, s, one.shape.query_offset, usable);
    const Index count = in_use(spans);
    if (top_k_ > 0) {
      for (Span& span : spans) span = outside(span, one.window);
      const SpanAttentionArgs<float> args{one.shape, one.query.get(), one.key, one.value,
                                          top_k_,    spans.data(),    nullptr, {}};
      const SpanAttentionResult want = span_attention(args);
      const SpanAttentionResult plain = plain_span_attention(args, round_);
      span_outputs_.put(s * top_k_ * d_, want.output, plain.output);
      lses_.put(s * top_k_, want.lse, plain.lse);
    }
    const WindowCombineArgs args{one.shape,
                                 one.query.get(),
                                 one.key,
                                 one.value,
                                 &one.window,
                                 {},
                                 top_k_,
                                 &count,
                                 stages_.scores.data() + s * top_k_,
                                 stages_.span_outputs.data() + s * top_k_ * d_,
                                 stages_.span_lses.data() + s * top_k_};
    combined_.put(s * d_, window_combine(args), plain_window_combine(args, round_));
    if (usable) return;
    spoil(span_outputs_, s * top_k_ * d_, top_k_ * d_);
    spoil(combined_, s * d_, d_);
  }

  /// The composition on the spans and scores that it says it kept.
  void judge_composition(const RowProblem& one, Index s) {
    bool usable = true;
    std::vector<Span> spans = usable_spans(whole_, s, one.shape.query_offset, usable);
    const Index count = in_use(spans);
    for (Span& span : spans) span = outside(span, one.window);
    WindowCombineArgs args{one.shape, one.query.get(), one.key,
                           one.value, &one.window,     {},
                           top_k_,    &count,          whole_.scores.data() + s * top_k_};
    const SpanAttentionArgs<float> attend{one.shape, one.query.get(), one.key, one.value,
                                          top_k_,    spans.data(),    nullptr, {}};
    const auto with = [&](const SpanAttentionResult& partial) {
      args.outputs = partial.output.data();
      args.lses = partial.lse.data();
      return args;
    };
    const SpanAttentionResult want = span_attention(attend);
    const SpanAttentionResult plain = plain_span_attention(attend, round_);
    composed_.put(s * d_, window_combine(with(want)), plain_window_combine(with(plain), round_));
    if (!usable) spoil(composed_, s * d_, d_);
  }

  // The report

  Json report() const {
    const auto values = [&](const char* name, const Values& of, double floor, Index slots,
                            Index width) {
      const ValueReport report = judge_values(of.got, of.want, of.plain, floor);
      const Index at = report.got.worst;
      Json worst = at < 0 ? Json(nullptr) : row_json(at / (slots * width));
      if (at >= 0) worst["slot"] = at / width % slots;
      if (at >= 0) worst["dim"] = at % width;
      return values_json(name, report, of.bad_anywhere, worst);
    };
    const auto outputs = [&](const char* name, const Values& of, Index slots) {
      return values(name, of, output_floor(of.want), slots, d_);
    };
    Json stages = Json::array();
    if (top_k_ > 0) {
      stages.push_back(selection("search", searches_));
      stages.push_back(outputs("span attention", span_outputs_, top_k_));
      stages.push_back(values("span lse", lses_, lse_floor(lses_.want), top_k_, 1));
    }
    stages.push_back(outputs("window, combine", combined_, 1));
    if (top_k_ > 0) stages.push_back(selection("attention: spans", choices_));
    stages.push_back(outputs("attention: output", composed_, 1));
    const bool pass = std::all_of(stages.begin(), stages.end(),
                                  [](const Json& stage) { return stage["pass"].get<bool>(); });
    const Errors whole = errors_of(composed_.got, whole_want_);
    return {
        {"pass", pass},
        {"rung", rung_ == cuda::Rung::fast ? "fast" : "plain"},
        {"rows", rows_.size()},
        {"rows_of", sizes_.rows()},
        {"stages", stages},
        {"end_to_end", {{"max_error", whole.max}, {"mean_error", whole.mean}, {"judged", false}}}};
  }

  Json row_json(Index s) const {
    const SampledRow& row = rows_[size(s)];
    return {{"batch", row.batch}, {"head", row.head}, {"query", row.position(sizes_)}};
  }

  Json selection(const char* name, const std::vector<SelectionReport>& rows) const {
    SelectionReport sum;
    for (std::size_t s = 0; s < rows.size(); ++s) {
      SelectionReport row = rows[s];
      if (row.worst_row >= 0) row.worst_row = static_cast<Index>(s);
      sum += row;
    }
    return selection_json(name, sum, sum.worst_row < 0 ? Json(nullptr) : row_json(sum.worst_row));
  }

  const GpuProblem& problem_;
  GpuShape sizes_;
  cuda::Rung rung_;
  Index d_;
  Index top_k_;  // 0 where N = 1
  std::vector<SampledRow> rows_;
  Rounding round_;
  Submitted stages_, whole_;
  Values span_outputs_, lses_, combined_, composed_;
  std::vector<double> whole_want_;
  std::vector<SelectionReport> searches_, choices_;
};

}  // namespace

Json device_json() {
  const cuda::DeviceInfo info = cuda::device_info();
  const cuda::OwnedStream stream;
  const cuda::Clocks clocks = cuda::measure_clocks(stream);
  return {{"name", info.name},
          {"memory_gib", static_cast<double>(info.memory_bytes) * 0x1p-30},
          {"l2_mib", static_cast<double>(info.l2_bytes) * 0x1p-20},
          {"multiprocessors", info.multiprocessors},
          {"compute_capability", info.compute_capability},
          {"driver_cuda", info.driver},
          {"cuda", info.runtime},
          {"sm_mhz_highest", clocks.sm_highest},
          {"sm_mhz_measured", clocks.sm_measured},
          {"memory_mhz_highest", clocks.memory_highest}};
}

Json compare_stages(const GpuProblem& problem, const CompareOptions& options,
                    const Progress& progress) {
  return Comparison(problem, options).run(progress);
}

}  // namespace multistep
