#include "multistep/compare.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <numeric>
#include <span>

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"
#include "multistep/plain.hpp"
#include "parallel.hpp"
#include "problem.hpp"
#include "row_oracle.hpp"
#include "verdict.hpp"

/// The judgement of SPEC 8 on sampled rows of what anybody's kernel gave.
namespace multistep::python {
namespace {

/// What was handed in, for the sampled rows; whatever is missing is not judged.
struct Submission {
  Array rows;               // [sample], rows of [batch, num_heads, L_q]
  MaybeArray spans;         // [sample, top_k, 2]
  MaybeArray scores;        // [sample, top_k]
  MaybeArray anchors;       // [sample, top_k, N - 1]
  MaybeArray span_outputs;  // [sample, top_k, head_dim]
  MaybeArray lse;           // [sample, top_k]
  MaybeArray output;        // [sample, head_dim]
  std::string storage;      // type whose rounding the yardstick has: bfloat16, float16, or another
  bool window_apart = false;  // span_outputs and lse leave the window out
};

Rounding rounding_of(const std::string& storage) {
  if (storage == "bfloat16") {
    return [](float x) { return static_cast<float>(Eigen::bfloat16(x)); };
  }
  if (storage == "float16") return [](float x) { return static_cast<float>(Eigen::half(x)); };
  return [](float x) { return x; };
}

/// The paths of one row that its outputs are judged on.
struct Chosen {
  std::vector<Span> spans;     // [top_k]
  std::vector<double> scores;  // [top_k]
  Index count = 0;
  double slack = 0;     // the scores are the oracle's: how far the implementation's may be off
  bool usable = true;   // spans of eligible keys
  bool decided = true;  // no rounding leads to others, nor to gates that are much others
};

/// By how much rounding may move each gate where scores may be off by `slack`: the most that
/// score i and the others bring when they move apart, exp(s_i + slack) against exp(s_j - slack) or
/// the other way. 0 for one path alone, and about 0 where one gate is about 1.
std::vector<double> gate_slacks(const Chosen& chosen) {
  std::vector<double> slacks(at(chosen.count), 0);
  const auto scores = std::span(chosen.scores).first(at(chosen.count));
  if (chosen.slack == 0 ||
      !std::any_of(scores.begin(), scores.end(), [](double s) { return std::isfinite(s); })) {
    return slacks;
  }
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (!std::isfinite(scores[i])) continue;
    double others = 0, less = 0, more = 0;
    for (std::size_t j = 0; j < scores.size(); ++j) {
      if (j == i) continue;
      const double apart = scores[j] - scores[i];
      others += std::exp(apart);
      less += std::exp(apart - 2 * chosen.slack);
      more += std::exp(apart + 2 * chosen.slack);
    }
    const double gate = 1 / (1 + others);
    slacks[i] = std::max(1 / (1 + less) - gate, gate - 1 / (1 + more));
  }
  return slacks;
}

/// What `slacks` of the gates add to each value of an output at most: sum_i slack_i |O_i|.
std::vector<double> output_slacks(const std::vector<double>& slacks,
                                  const std::vector<double>& outputs, Index d) {
  std::vector<double> sums(at(d), 0);
  for (std::size_t i = 0; i < slacks.size(); ++i) {
    for (std::size_t c = 0; c < sums.size(); ++c) {
      const double value = std::abs(outputs[i * sums.size() + c]);
      if (slacks[i] > 0 && std::isfinite(value)) sums[c] += slacks[i] * value;
    }
  }
  return sums;
}

template <class T>
class Judge : public Judgement {
 public:
  Judge(const AttentionArgs<T>& args, const AttentionArgs<float>& narrow, const Submission& given)
      : args_(args),
        narrow_(narrow),
        given_(given),
        all_(args.shape),
        count_(static_cast<Index>(given.rows.size())),
        d_(args.shape.head_dim),
        levels_(args.plan->steps() - 1),
        k_(args.plan->schedule().top_k),
        rows_(elements<Index>(given.rows, "rows", {count_})),
        spans_(elements<Index>(given.spans, "spans", {count_, k_, 2})),
        scores_(elements<double>(given.scores, "scores", {count_, k_})),
        anchors_(elements<Index>(given.anchors, "anchors", {count_, k_, levels_})),
        span_outputs_(elements<double>(given.span_outputs, "span_outputs", {count_, k_, d_})),
        lse_(elements<double>(given.lse, "lse", {count_, k_})),
        output_(elements<double>(given.output, "output", {count_, d_})),
        round_(rounding_of(given.storage)) {
    for (Index s = 0; s < count_; ++s) require_within("row", rows_[s], 0, all_.count() - 1);
    attended.resize(span_outputs_ && spans_, count_, k_ * d_);
    lses.resize(lse_ && spans_, count_, k_);
    const bool whole = !given.window_apart || lse_;
    combined.resize(output_ && span_outputs_ && spans_ && whole, count_, d_);
    composed.resize(output_ != nullptr, count_, d_);
    end_to_end.resize(output_ != nullptr, count_, d_);
    selections.resize(at(spans_ && levels_ > 0 ? count_ : 0));
    undecided_.assign(at(count_), 0);
  }

  void run(Errand& errand) {
    parallel_blocks(count_, 1, [&] {
      return [&](Index s, Index) {
        errand.check();
        judge_row(s);
      };
    });
    undecided = std::accumulate(undecided_.begin(), undecided_.end(), Index{0});
  }

 private:
  void judge_row(Index s) {
    const Index row = rows_[s];
    const Index start = all_.start(row);
    const Index length = all_.position(row) + 1;
    const AttentionArgs<T> one = part_of(args_, all_, row, 1, &start, &length);
    AttentionArgs<float> plain = part_of(narrow_, all_, row, 1, &start, &length);
    const Span window = args_.plan->window(all_.position(row), start);

    const Chosen chosen = choose(s, one);
    if (attended.wanted || lses.wanted) judge_attended(s, one, plain, window, chosen);
    if (!composed.wanted) return;
    judge_output(s, one, plain, window, chosen);
    const std::vector<double> whole = attention(one).output;
    end_to_end.put(s * d_, d_, output_ + s * d_, whole.data(), whole.data());
  }

  // The paths

  Chosen choose(Index s, const AttentionArgs<T>& one) {
    Chosen chosen{std::vector<Span>(at(k_)), std::vector<double>(at(k_), -kInfinity)};
    if (levels_ == 0) return chosen;
    const SpanSearchArgs<T> search = search_of(one);
    const Rows rows(search.shape);
    if (!spans_) {
      choose_of_oracle(RowOracle<T>(search, rows, 0), chosen);
      return chosen;
    }
    for (Index i = 0; i < k_; ++i) {
      const Index* span = spans_ + 2 * (s * k_ + i);
      chosen.spans[at(i)] = {span[0], span[1]};
    }
    std::vector<Index> anchors(at(anchors_ ? k_ * levels_ : 0));
    if (anchors_) std::copy_n(anchors_ + s * k_ * levels_, k_ * levels_, anchors.begin());
    if (scores_) {
      std::copy_n(scores_ + s * k_, k_, chosen.scores.begin());
    } else {
      resolve(RowOracle<T>(search, rows, 0), chosen, anchors);
    }

    SubmittedPaths<T> paths{search, chosen.spans.data(), chosen.scores.data(),
                            anchors.empty() ? nullptr : anchors.data()};
    selections[at(s)] = judge_selection(paths);
    count_paths(chosen, anchors, one.shape);
    return chosen;
  }

  /// Scores of submitted spans, recomputed where they were not told. Their order is not judged
  /// then: slots are put in the order of these scores.
  void resolve(const RowOracle<T>& oracle, Chosen& chosen, std::vector<Index>& anchors) const {
    struct Slot {
      double score = -kInfinity;
      Span span;
      std::vector<Index> anchors;
    };
    std::vector<Slot> slots(at(k_));
    for (std::size_t i = 0; i < slots.size(); ++i) {
      Slot& slot = slots[i];
      slot.span = chosen.spans[i];
      std::optional<Candidate> path;
      double regret = 0;
      if (!anchors.empty()) {
        const auto from = anchors.begin() + static_cast<std::ptrdiff_t>(i) * levels_;
        slot.anchors.assign(from, from + levels_);
        if (slot.anchors[0] >= 0) path = oracle.walk(slot.anchors.data(), regret);
      } else if (!slot.span.empty()) {
        for (const Candidate& other : oracle.with_span(slot.span)) {
          const bool taken = std::any_of(slots.begin(), slots.end(),
                                         [&](const Slot& s) { return s.anchors == other.anchors; });
          if (!taken && (!path || other.score > path->score)) path = other;
        }
        if (path) slot.anchors = path->anchors;
      }
      if (!path) continue;
      slot.score = path->score;
      chosen.slack = std::max(chosen.slack, path->bound);
    }
    std::stable_sort(slots.begin(), slots.end(),
                     [](const Slot& a, const Slot& b) { return a.score > b.score; });
    for (std::size_t i = 0; i < slots.size(); ++i) {
      chosen.spans[i] = slots[i].span;
      chosen.scores[i] = slots[i].score;
      if (!anchors.empty()) {
        std::copy(slots[i].anchors.begin(), slots[i].anchors.end(),
                  anchors.begin() + static_cast<std::ptrdiff_t>(i) * levels_);
      }
    }
  }

  void choose_of_oracle(const RowOracle<T>& oracle, Chosen& chosen) const {
    const std::vector<Candidate>& kept = oracle.kept();
    chosen.decided = static_cast<Index>(kept.size()) == oracle.count();
    if (!chosen.decided) return;
    for (const Candidate& path : kept) {
      chosen.spans[at(chosen.count)] = path.span;
      chosen.scores[at(chosen.count)] = path.score;
      chosen.slack = std::max(chosen.slack, path.bound);
      ++chosen.count;
    }
  }

  void count_paths(Chosen& chosen, const std::vector<Index>& anchors, const Shape& shape) const {
    const Span eligible{shape.start[0], shape.length[0]};
    for (Index i = 0; i < k_; ++i) {
      const Span& span = chosen.spans[at(i)];
      const bool used = anchors.empty() ? !span.empty() || chosen.scores[at(i)] != -kInfinity
                                        : anchors[at(i * levels_)] >= 0;
      if (used && chosen.count == i) ++chosen.count;
      chosen.usable = chosen.usable &&
                      (span.empty() || (span.begin >= eligible.begin && span.end <= eligible.end));
    }
    if (!chosen.usable) chosen.spans.assign(at(k_), {});
  }

  // The values

  template <class Real>
  SpanAttentionArgs<Real> attend(const AttentionArgs<Real>& one, const Chosen& chosen,
                                 const Span* window) const {
    return {one.shape, one.query,           one.key, one.value,
            k_,        chosen.spans.data(), window,  one.softmax_scale};
  }

  void judge_attended(Index s, const AttentionArgs<T>& one, const AttentionArgs<float>& plain,
                      const Span& window, Chosen chosen) {
    for (Span& span : chosen.spans) {
      if (given_.window_apart) span = outside(span, window);
    }
    const Span* behind = given_.window_apart ? nullptr : &window;
    const auto want = span_attention(attend(one, chosen, behind));
    const auto rough = plain_span_attention(attend(plain, chosen, behind), round_);
    const Index used = chosen.usable ? chosen.count : k_;  // others may hold anything
    if (attended.wanted) {
      attended.put(s * k_ * d_, used * d_, span_outputs_ + s * k_ * d_, want.output.data(),
                   rough.output.data());
      if (!chosen.usable) attended.spoil(s * k_ * d_, k_ * d_);
    }
    if (lses.wanted) {
      lses.put(s * k_, used, lse_ + s * k_, want.lse.data(), rough.lse.data());
      if (!chosen.usable) lses.spoil(s * k_, k_);
    }
  }

  WindowCombineArgs window_combine_args(const AttentionArgs<float>& plain, const Chosen& chosen,
                                        const Index& count, const double* outputs,
                                        const double* lse, const Span* window) const {
    WindowCombineArgs args;
    args.shape = plain.shape;
    args.query = plain.query;
    args.key = plain.key;
    args.value = plain.value;
    args.window = window;
    args.softmax_scale = plain.softmax_scale;
    args.slots = k_;
    args.count = &count;
    args.scores = chosen.scores.data();
    args.outputs = outputs;
    args.lses = lse;
    return args;
  }

  /// Combination of the submitted partial outputs.
  void judge_combined(Index s, const AttentionArgs<float>& plain, const Span& window,
                      const Chosen& chosen) {
    const double* outputs = span_outputs_ + s * k_ * d_;
    const std::vector<double> no_lse(at(k_), 0);
    const bool apart = given_.window_apart;
    if (!apart && chosen.count == 0) return;  // window attention, which is in no slot
    const Index count = apart ? chosen.count : std::max<Index>(chosen.count, 1);
    const WindowCombineArgs args =
        window_combine_args(plain, chosen, count, outputs, apart ? lse_ + s * k_ : no_lse.data(),
                            apart ? &window : nullptr);
    const std::vector<double> want =
        apart ? window_combine(args) : combine({1, k_, d_, &count, chosen.scores.data(), outputs});
    const std::vector<double> rough = plain_window_combine(args, round_);
    combined.put(s * d_, d_, output_ + s * d_, want.data(), rough.data());
    if (!chosen.usable) combined.spoil(s * d_, d_);
  }

  /// Largest share of a row's largest value that scores which were not told may leave open.
  static constexpr double kDecided = 0x1p-6;

  /// The output, of what was submitted and of what should have been. Where the scores were not
  /// told, gates are the oracle's, and errors count beyond what rounding of the scores explains;
  /// a row where that is much is not judged.
  void judge_output(Index s, const AttentionArgs<T>& one, const AttentionArgs<float>& plain,
                    const Span& window, const Chosen& chosen) {
    undecided_[at(s)] = !chosen.decided;
    if (!chosen.decided) return;
    const std::vector<double> exact = span_attention(attend(one, chosen, &window)).output;
    const Index count = std::max<Index>(chosen.count, 1);
    const std::vector<double> want =
        combine({1, k_, d_, &count, chosen.scores.data(), exact.data()});
    const std::vector<double> slacks = output_slacks(gate_slacks(chosen), exact, d_);
    undecided_[at(s)] = largest_of(slacks, 0) > kDecided * largest_of(want, 0);
    if (undecided_[at(s)]) return;
    if (combined.wanted) {
      judge_combined(s, plain, window, chosen);
      combined.forgive(s * d_, slacks);
    }
    judge_composed(s, want, plain, window, chosen);
    composed.forgive(s * d_, slacks);
  }

  /// The output on the chosen spans and their scores, which is `want`.
  void judge_composed(Index s, const std::vector<double>& want, const AttentionArgs<float>& plain,
                      const Span& window, const Chosen& chosen) {
    const auto rough = plain_span_attention(attend(plain, chosen, &window), round_);
    const Index count = std::max<Index>(chosen.count, 1);
    const std::vector<double> no_lse(at(k_), 0);
    const std::vector<double> yardstick = plain_window_combine(
        window_combine_args(plain, chosen, count, rough.output.data(), no_lse.data(), nullptr),
        round_);
    composed.put(s * d_, d_, output_ + s * d_, want.data(), yardstick.data());
    if (!chosen.usable) composed.spoil(s * d_, d_);
  }

  const AttentionArgs<T>& args_;
  const AttentionArgs<float>& narrow_;
  const Submission& given_;
  Rows all_;
  Index count_;
  Index d_;
  Index levels_;
  Index k_;
  const Index* rows_;
  const Index* spans_;
  const double* scores_;
  const Index* anchors_;
  const double* span_outputs_;
  const double* lse_;
  const double* output_;
  Rounding round_;
  std::vector<Index> undecided_;  // [sample]
};

/// `narrow` is `inputs` in float32: what the yardstick takes.
nb::dict judge(const Inputs& inputs, const Inputs& narrow, const Submission& given) {
  const AttentionArgs<float> narrow_args = narrow.args<float>();
  require(given.rows.size() > 0, "rows: none to compare");
  return with_type(inputs.query, [&](auto zero) {
    using T = decltype(zero);
    const AttentionArgs<T> args = inputs.args<T>();
    Judge<T> judge(args, narrow_args, given);
    Shape given_shape = args.shape;  // of the sampled rows
    given_shape.batch = given_shape.num_heads = given_shape.num_kv_heads = 1;
    given_shape.queries = static_cast<Index>(given.rows.size());
    interruptible(is_short(given_shape), nb::handle(), [&](Errand& errand) {
      judge.run(errand);
      return true;
    });
    std::vector<Index> heads;  // [sample]
    const Index* rows = static_cast<const Index*>(given.rows.data());
    for (std::size_t s = 0; s < given.rows.size(); ++s)
      heads.push_back(rows[s] / args.shape.queries);
    return report_of(judge, heads, given.storage);
  });
}

}  // namespace

void bind_compare(nb::module_& core) {
  nb::class_<Submission>(core, "Submission")
      .def(
          "__init__",
          [](Submission* self, Array rows, MaybeArray spans, MaybeArray scores, MaybeArray anchors,
             MaybeArray span_outputs, MaybeArray lse, MaybeArray output, std::string storage,
             bool window_apart) {
            new (self) Submission{std::move(rows),    std::move(spans),        std::move(scores),
                                  std::move(anchors), std::move(span_outputs), std::move(lse),
                                  std::move(output),  std::move(storage),      window_apart};
          },
          nb::arg().noconvert(), nb::arg().noconvert().none(), nb::arg().noconvert().none(),
          nb::arg().noconvert().none(), nb::arg().noconvert().none(), nb::arg().noconvert().none(),
          nb::arg().noconvert().none(), nb::arg(), nb::arg());
  core.def("judge", &judge);
}

}  // namespace multistep::python
