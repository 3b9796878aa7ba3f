#include "judge/row_judge.hpp"

#include <Eigen/Core>
#include <algorithm>

#include "judge/items.hpp"
#include "judge/possible_paths.hpp"
#include "stages/part.hpp"

namespace multistep {
namespace {

/// The paths that a row's outputs are judged on.
struct Chosen {
  std::vector<Span> spans;     // [top_k]
  std::vector<double> scores;  // [top_k]
  Index count = 0;
  double slack = 0;     // the scores are the oracle's: how far the implementation's may be off
  bool usable = true;   // spans of eligible keys
  bool decided = true;  // no rounding leads to others
};

/// By how much rounding may move each gate where scores may be off by `slack`: the most that score
/// i and the others bring when they move apart, exp(s_i + slack) against exp(s_j - slack) or the
/// other way. 0 for one path alone, and about 0 where one gate is about 1.
std::vector<double> gate_slacks(const Chosen& chosen) {
  std::vector<double> slacks(at(chosen.count), 0);
  const auto scores = std::span(chosen.scores).first(at(chosen.count));
  const auto finite = [](double score) { return std::isfinite(score); };
  if (chosen.slack == 0 || std::none_of(scores.begin(), scores.end(), finite)) return slacks;
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

/// The largest finite magnitude.
double largest_of(std::span<const double> values) {
  double largest = 0;
  for (const double x : values) largest = std::max(largest, std::isfinite(x) ? std::abs(x) : 0);
  return largest;
}

/// A row that fails, whatever its values.
RowVerdict wrong_row() {
  RowVerdict row;
  row.values = row.nans = 1;
  row.max_error = kInfinity;
  row.worst = 0;
  return row;
}

/// What moves the values of an output: variances, which add up, and what is explained as it is.
struct Allowance {
  std::vector<double> variance;   // [head_dim]
  std::vector<double> slack;      // [head_dim]
  std::vector<double> magnitude;  // [head_dim], sums of the absolute terms

  explicit Allowance(Index head_dim)
      : variance(at(head_dim), 0), slack(at(head_dim), 0), magnitude(at(head_dim), 0) {}

  void add_deviation(std::size_t c, double deviation) {
    if (std::isfinite(deviation)) variance[c] += deviation * deviation;
  }
  void add_slack(std::size_t c, double amount) {
    if (std::isfinite(amount)) slack[c] += std::abs(amount);
  }
  std::vector<double> luck() const {
    std::vector<double> roots;
    for (const double sum : variance) roots.push_back(std::sqrt(sum));
    return roots;
  }
};

/// A part of an output: an item as it is given or computed.
struct Part {
  const double* output;  // [head_dim]
  double lse;
  const RoundedItem* computed;  // null: given, in the storage type and float32

  double magnitude(std::size_t c) const {
    return computed ? computed->magnitude[c] : std::abs(output[c]);
  }
};

template <class T>
class RowJudge {
 public:
  RowJudge(const AttentionArgs<T>& one, Storage storage, const Submission& given)
      : one_(one),
        storage_(storage),
        given_(given),
        d_(one.shape.head_dim),
        levels_(one.plan->steps() - 1),
        top_k_(one.plan->schedule().top_k),
        position_(Rows(one.shape).position(0)),
        eligible_{one.shape.start ? one.shape.start[0] : 0, position_ + 1},
        window_(one.plan->window(position_, eligible_.begin)),
        scale_(scale_or_default(one.softmax_scale, d_)),
        query_(vector_at(one.query, 0, d_)) {}

  RowFindings judge() {
    const auto wanted = stages_of(given_, levels_);
    Chosen chosen = choose();
    const Span window = window_;
    exact_window_ = exact(window);
    yardstick_window_ = yardstick(window);
    if (wanted[kSpanAttention] || wanted[kSpanLse] || wanted[kOutput]) {
      for (const Span& span : chosen.spans) {
        exact_.push_back(exact(outside_window(span, window)));
        yardstick_.push_back(yardstick(outside_window(span, window)));
      }
    }
    if (wanted[kSpanAttention] || wanted[kSpanLse]) judge_items(wanted, chosen);
    if (wanted[kWindowAttention]) {
      findings_.values[kWindowAttention] =
          judge_outputs({&exact_window_}, {&yardstick_window_}, given_.window_output, storage_);
    }
    if (wanted[kWindowLse]) {
      findings_.values[kWindowLse] =
          judge_lses({&exact_window_}, {&yardstick_window_}, given_.window_lse);
    }
    if (wanted[kOutput]) judge_results(wanted[kCombination], chosen);
    return findings_;
  }

 private:
  RoundedItem exact(Span keys) const {
    return round_item(keys, query_, one_.key, one_.value, scale_, storage_);
  }
  YardstickItem yardstick(Span keys) const {
    return yardstick_item(keys, one_.query, one_.key, one_.value, d_, scale_, storage_);
  }

  // The paths

  Chosen choose() {
    Chosen chosen{std::vector<Span>(at(top_k_)), std::vector<double>(at(top_k_), -kInfinity)};
    if (levels_ == 0) return chosen;
    const SpanSearchArgs<T> search = search_of(one_);
    const Rows rows(search.shape);
    if (!given_.spans) {
      choose_of_oracle(RowOracle<T>(search, rows, 0), chosen);
      return chosen;
    }
    std::copy_n(given_.spans, top_k_, chosen.spans.begin());
    if (given_.scores) {
      std::copy_n(given_.scores, top_k_, chosen.scores.begin());
      findings_.selection =
          judge_selection<T>({search, given_.spans, given_.scores, given_.anchors});
    } else {
      resolve(search, RowOracle<T>(search, rows, 0), chosen);
    }
    count_paths(chosen);
    return chosen;
  }

  void choose_of_oracle(const RowOracle<T>& oracle, Chosen& chosen) const {
    const std::vector<PossiblePath>& kept = oracle.kept();
    chosen.decided = static_cast<Index>(kept.size()) == oracle.count();
    if (!chosen.decided) return;
    for (const PossiblePath& path : kept) {
      chosen.spans[at(chosen.count)] = path.span;
      chosen.scores[at(chosen.count)] = path.score;
      chosen.slack = std::max(chosen.slack, path.bound);
      ++chosen.count;
    }
  }

  /// Scores of submitted spans that were not told: the oracle's. The order of the slots is not
  /// judged then: the selection is judged as these scores order it.
  void resolve(const SpanSearchArgs<T>& search, const RowOracle<T>& oracle, Chosen& chosen) {
    struct Slot {
      double score = -kInfinity;
      Span span;
      std::vector<Index> anchors;
    };
    std::vector<Slot> slots(at(top_k_));
    for (std::size_t i = 0; i < slots.size(); ++i) {
      Slot& slot = slots[i];
      slot.span = chosen.spans[i];
      std::optional<PossiblePath> path;
      typename RowOracle<T>::Regret regret;
      if (given_.anchors) {
        const Index* from = given_.anchors + static_cast<Index>(i) * levels_;
        slot.anchors.assign(from, from + levels_);
        if (slot.anchors[0] >= 0) path = oracle.walk(slot.anchors.data(), regret);
      } else if (!slot.span.empty()) {
        for (const PossiblePath& other : oracle.with_span(slot.span)) {
          const bool taken = std::any_of(slots.begin(), slots.end(),
                                         [&](const Slot& s) { return s.anchors == other.anchors; });
          if (!taken && (!path || other.score > path->score)) path = other;
        }
        if (path) slot.anchors = path->anchors;
      }
      if (!path) continue;
      chosen.scores[i] = slot.score = path->score;
      chosen.slack = std::max(chosen.slack, path->bound);
    }
    std::stable_sort(slots.begin(), slots.end(),
                     [](const Slot& a, const Slot& b) { return a.score > b.score; });
    std::vector<Span> spans;
    std::vector<double> scores;
    std::vector<Index> anchors;
    for (const Slot& slot : slots) {
      spans.push_back(slot.span);
      scores.push_back(slot.score);
      if (given_.anchors) anchors.insert(anchors.end(), slot.anchors.begin(), slot.anchors.end());
    }
    findings_.selection = judge_selection<T>(
        {search, spans.data(), scores.data(), given_.anchors ? anchors.data() : nullptr});
  }

  void count_paths(Chosen& chosen) const {
    for (Index i = 0; i < top_k_; ++i) {
      const Span& span = chosen.spans[at(i)];
      const bool used = given_.anchors ? given_.anchors[i * levels_] >= 0
                                       : !span.empty() || chosen.scores[at(i)] != -kInfinity;
      if (used && chosen.count == i) ++chosen.count;
      const bool inside = span.begin >= eligible_.begin && span.end <= eligible_.end;
      chosen.usable = chosen.usable && (span.empty() || inside);
    }
    if (!chosen.usable) chosen.spans.assign(at(top_k_), {});
  }

  // The items

  void judge_items(const std::array<bool, kValueStages>& wanted, const Chosen& chosen) {
    if (!chosen.usable) {
      findings_.values[kSpanAttention] = findings_.values[kSpanLse] = wrong_row();
      return;
    }
    std::vector<const RoundedItem*> exact;  // of slots in use: others may hold anything
    std::vector<const YardstickItem*> yardstick;
    for (std::size_t i = 0; i < at(chosen.count); ++i) {
      exact.push_back(&exact_[i]);
      yardstick.push_back(&yardstick_[i]);
    }
    if (wanted[kSpanAttention]) {
      findings_.values[kSpanAttention] =
          judge_outputs(exact, yardstick, given_.span_outputs, storage_);
    }
    if (wanted[kSpanLse])
      findings_.values[kSpanLse] = judge_lses(exact, yardstick, given_.span_lses);
  }

  // What is made of them

  Part window_part() const {
    return {exact_window_.output.data(), exact_window_.lse, &exact_window_};
  }

  CombineArgs combination(const Chosen& chosen, const std::vector<double>& outputs,
                          const std::vector<double>& lses, const Part& window) const {
    return {
        1,           top_k_,        d_,         &chosen.count, chosen.scores.data(), outputs.data(),
        lses.data(), window.output, &window.lse};
  }

  /// What rounding may make of an output that is combined of these parts, the window last.
  Allowance allowance(const Chosen& chosen, const std::vector<Part>& spans, const Part& window,
                      const std::vector<double>& gate, const std::vector<double>& want) const {
    Allowance allowed(d_);
    const std::vector<double> slacks = gate_slacks(chosen);
    double of_window = chosen.count == 0 ? 1 : 0;
    for (std::size_t s = 0; s < at(chosen.count); ++s) {
      const Join<double> join(spans[s].lse, window.lse);
      of_window += gate[s] * join.second;
      add_part(allowed, spans[s], gate[s] * join.first);
      const double moved = gate[s] * join.first * join.second;  // by an error of a log-sum-exp
      for (std::size_t c = 0; c < at(d_) && moved > 0; ++c) {
        const double apart = spans[s].output[c] - window.output[c];
        for (const Part* part : {&spans[s], &window}) {
          if (part->computed) {
            allowed.add_deviation(c, moved * apart * part->computed->lse_deviation);
          } else {
            allowed.add_slack(c, moved * apart * kSingle * part->lse);
          }
        }
      }
      for (std::size_t c = 0; c < at(d_); ++c) {
        allowed.add_slack(c, slacks[s] * join(spans[s].output[c], window.output[c]));
      }
    }
    add_part(allowed, window, of_window);
    for (std::size_t c = 0; c < at(d_); ++c) {
      allowed.add_deviation(c, stored_deviation(storage_, want[c]));
    }
    return allowed;
  }

  /// A part that was computed may have been rounded to the storage type on the way; one that was
  /// handed in has been, where the output may be made of what it was before.
  void add_part(Allowance& allowed, const Part& part, double share) const {
    for (std::size_t c = 0; c < at(d_) && share > 0; ++c) {
      allowed.magnitude[c] += share * part.magnitude(c);
      if (part.computed) {
        allowed.add_slack(c, share * part.computed->flushed[c]);
        allowed.add_deviation(c, share * part.computed->deviation[c]);
        allowed.add_deviation(c, share * stored_deviation(storage_, part.output[c]));
      } else {
        allowed.add_slack(c, share * rounding_of(storage_, part.output[c]));
      }
    }
  }

  void judge_results(bool has_items, const Chosen& chosen) {
    findings_.undecided = !chosen.decided;
    report_end_to_end();
    if (!chosen.decided) return;
    if (!chosen.usable) {
      findings_.values[kOutput] = wrong_row();
      if (has_items) findings_.values[kCombination] = wrong_row();
      return;
    }
    std::vector<double> outputs, lses, yardstick_outputs, yardstick_lses;
    std::vector<Part> parts;
    for (std::size_t i = 0; i < exact_.size(); ++i) {
      const std::vector<double> stored = yardstick_[i].stored(storage_);
      outputs.insert(outputs.end(), exact_[i].output.begin(), exact_[i].output.end());
      yardstick_outputs.insert(yardstick_outputs.end(), stored.begin(), stored.end());
      lses.push_back(exact_[i].lse);
      yardstick_lses.push_back(static_cast<double>(yardstick_[i].lse));
      parts.push_back({exact_[i].output.data(), exact_[i].lse, &exact_[i]});
    }
    const Part window = window_part();
    const CombineArgs args = combination(chosen, outputs, lses, window);
    const std::vector<double> want = combine(args);
    const Allowance allowed = allowance(chosen, parts, window, path_gates(args), want);

    // Where what is left open of the gates moves the output by much, there is nothing to judge.
    constexpr double kDecided = 0x1p-6;
    const auto of_gates = allowance_of_gates(chosen, parts, window);
    findings_.undecided = largest_of(of_gates) > kDecided * largest_of(want);
    if (findings_.undecided) return;
    const std::vector<double> yardstick =
        yardstick_combine(combination(chosen, yardstick_outputs, yardstick_lses, window),
                          yardstick_window_, storage_);
    findings_.values[kOutput] = judge_row({{given_.output, at(d_)},
                                           want,
                                           yardstick,
                                           allowed.luck(),
                                           allowed.slack,
                                           allowed.magnitude},
                                          storage_);
    if (has_items) judge_combination(chosen);
  }

  std::vector<double> allowance_of_gates(const Chosen& chosen, const std::vector<Part>& spans,
                                         const Part& window) const {
    std::vector<double> sums(at(d_), 0);
    const std::vector<double> slacks = gate_slacks(chosen);
    for (std::size_t s = 0; s < slacks.size(); ++s) {
      const Join<double> join(spans[s].lse, window.lse);
      for (std::size_t c = 0; c < sums.size(); ++c) {
        const double value = std::abs(join(spans[s].output[c], window.output[c]));
        if (slacks[s] > 0 && std::isfinite(value)) sums[c] += slacks[s] * value;
      }
    }
    return sums;
  }

  /// Combination of the items that were handed in.
  void judge_combination(const Chosen& chosen) {
    const std::vector<double> outputs(given_.span_outputs, given_.span_outputs + top_k_ * d_);
    const std::vector<double> lses(given_.span_lses, given_.span_lses + top_k_);
    Part window = window_part();
    YardstickItem yardstick_window = yardstick_window_;
    if (given_.window_output && given_.window_lse) {
      window = {given_.window_output, *given_.window_lse, nullptr};
      yardstick_window.output.assign(given_.window_output, given_.window_output + d_);
      yardstick_window.lse = static_cast<float>(*given_.window_lse);
    }
    std::vector<Part> parts;
    for (Index s = 0; s < chosen.count; ++s) {
      parts.push_back({outputs.data() + s * d_, lses[at(s)], nullptr});
    }
    const CombineArgs args = combination(chosen, outputs, lses, window);
    const std::vector<double> want = combine(args);
    const Allowance allowed = allowance(chosen, parts, window, path_gates(args), want);
    findings_.values[kCombination] = judge_row({{given_.output, at(d_)},
                                                want,
                                                yardstick_combine(args, yardstick_window, storage_),
                                                allowed.luck(),
                                                allowed.slack,
                                                allowed.magnitude},
                                               storage_);
  }

  void report_end_to_end() {
    const std::vector<double> whole = attention(one_).output;
    for (std::size_t c = 0; c < whole.size(); ++c) {
      if (given_.output[c] == whole[c]) continue;
      double error = std::abs(given_.output[c] - whole[c]);
      if (std::isnan(error)) error = kInfinity;
      findings_.end_to_end_max = std::max(findings_.end_to_end_max, error);
      findings_.end_to_end_mean += error / static_cast<double>(d_);
    }
  }

  const AttentionArgs<T>& one_;
  Storage storage_;
  const Submission& given_;
  Index d_;
  Index levels_;
  Index top_k_;
  Index position_;
  Span eligible_;
  Span window_;
  double scale_;
  Vector query_;
  RoundedItem exact_window_;
  YardstickItem yardstick_window_;
  std::vector<RoundedItem> exact_;  // [top_k], of the chosen spans
  std::vector<YardstickItem> yardstick_;
  RowFindings findings_;
};

}  // namespace

std::array<bool, kValueStages> stages_of(const Submission& given, Index levels) {
  const bool spans = given.spans && levels > 0;
  std::array<bool, kValueStages> wanted{};
  wanted[kSpanAttention] = spans && given.span_outputs;
  wanted[kSpanLse] = spans && given.span_lses;
  wanted[kWindowAttention] = given.window_output != nullptr;
  wanted[kWindowLse] = given.window_lse != nullptr;
  wanted[kCombination] = wanted[kSpanAttention] && wanted[kSpanLse] && given.output;
  wanted[kOutput] = given.output != nullptr;
  return wanted;
}

template <class T>
RowFindings judge_row(const AttentionArgs<T>& one, Storage storage, const Submission& given) {
  return RowJudge<T>(one, storage, given).judge();
}

template RowFindings judge_row(const AttentionArgs<float>&, Storage, const Submission&);
template RowFindings judge_row(const AttentionArgs<double>&, Storage, const Submission&);

}  // namespace multistep
