#pragma once

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "multistep/judge.hpp"
#include "multistep/walk.hpp"
#include "support/inputs.hpp"

/// Implementations that are right, each with the rounding of some real kernel: the judge must pass
/// all of them, whatever the seed and the shape.
namespace honest {

using inputs::at;
using inputs::Problem;
using inputs::Random;
using multistep::Index;
using multistep::Span;
using multistep::Storage;

enum class Weights {
  unnormalized,  // exp(logit - running maximum), rounded before the product (FlashAttention)
  normalized,    // divided by the sum, then rounded, then the product (eager PyTorch)
  kept,          // in float32 (kernels without matrix units)
};

struct Kernel {
  std::string name;
  Index tile = 1 << 30;  // keys of an online softmax's step
  Weights weights = Weights::unnormalized;
  bool reversed = false;  // keys and head_dim from the end
  bool base_2 = false;    // exp2 of logits with log2(e) folded into the scale
  bool fused_multiply = false;
  bool truncating = false;   // sums of 16 products at a time, cut off to float32
  double exponential = 0;    // relative error of exponentials
  Index split = 0;           // keys of a part that is attended to alone and merged; 0: all
  bool store_parts = false;  // parts are rounded to the storage type
  bool store_items = true;   // items are rounded to the storage type before they are combined
  bool perfect = false;      // float64, rounded once
};

inline std::vector<Kernel> kernels() {
  return {
      {.name = "plain"},
      {.name = "keys and products from the end", .reversed = true},
      {.name = "online softmax, tiles of 64", .tile = 64, .store_items = false},
      {.name = "online softmax, tiles of 128 in base 2", .tile = 128, .base_2 = true},
      {.name = "weights normalized, then rounded", .weights = Weights::normalized},
      {.name = "weights in float32", .weights = Weights::kept, .store_items = false},
      {.name = "fused multiply-add", .tile = 32, .fused_multiply = true},
      {.name = "matrix units that truncate", .tile = 64, .base_2 = true, .truncating = true},
      {.name = "exponentials of 22 bits", .tile = 16, .exponential = 0x1p-22},
      {.name = "split by 256 keys", .tile = 64, .split = 256, .store_items = false},
      {.name = "split by 64 keys, parts stored", .tile = 64, .split = 64, .store_parts = true},
      {.name = "rounded once from float64", .perfect = true},
  };
}

/// Attention to an item, not rounded to the storage type yet.
struct Item {
  std::vector<float> output;
  double lse = -inputs::kInfinity;
};

/// What it hands in for all rows.
class Run : public multistep::SubmittedArrays {
 public:
  Run(const Kernel& kernel, const Problem<float>& problem, Storage storage)
      : kernel_(kernel), problem_(problem), storage_(storage), d_(problem.sizes.head_dim) {
    // No matrix unit takes float32 whole.
    if (storage == Storage::float32) kernel_.truncating = false;
  }

  multistep::Submission output_alone() const {
    multistep::Submission given;
    given.output = output.data();
    return given;
  }

  void compute() {
    static_cast<SubmittedArrays&>(*this) = {};
    for (Index row = 0; row < problem_.sizes.rows(); ++row) compute_row(row);
  }

 private:
  float round(float x) const { return multistep::round_to(storage_, x); }

  float dot(const float* a, const float* b) const {
    if (kernel_.truncating) return truncated_dot(a, b);
    float sum = 0;
    for (Index i = 0; i < d_; ++i) {
      const Index c = kernel_.reversed ? d_ - 1 - i : i;
      sum = kernel_.fused_multiply ? std::fma(a[c], b[c], sum) : sum + a[c] * b[c];
    }
    return sum;
  }

  static float cut_off(double x) {
    const auto rounded = static_cast<float>(x);
    return std::abs(static_cast<double>(rounded)) > std::abs(x) ? std::nextafter(rounded, 0.0F)
                                                                : rounded;
  }
  float truncated_dot(const float* a, const float* b) const {
    float sum = 0;
    for (Index first = 0; first < d_; first += 16) {
      double step = static_cast<double>(sum);
      for (Index c = first; c < std::min(d_, first + 16); ++c) {
        step += static_cast<double>(a[c]) * static_cast<double>(b[c]);
      }
      sum = cut_off(step);
    }
    return sum;
  }

  float exponential(float x) {
    float y = kernel_.base_2 ? std::exp2(x) : std::exp(x);
    if (kernel_.exponential > 0) {
      const double share = static_cast<double>(noise_.below(2001) - 1000) / 1000;
      y = static_cast<float>(static_cast<double>(y) * (1 + kernel_.exponential * share));
    }
    return y;
  }

  Item attend(Index row, Span keys) {
    if (kernel_.perfect) return attend_perfectly(row, keys);
    if (kernel_.split == 0) return attend_part(row, keys);
    std::vector<double> outputs, lses;
    for (Index begin = keys.begin; begin < keys.end; begin += kernel_.split) {
      Item part = attend_part(row, {begin, std::min(keys.end, begin + kernel_.split)});
      for (float x : part.output) outputs.push_back(kernel_.store_parts ? round(x) : x);
      lses.push_back(part.lse);
    }
    const multistep::Items merged = multistep::merge_attention(
        {static_cast<Index>(lses.size()), 1, d_, outputs.data(), lses.data()});
    return {{merged.output.begin(), merged.output.end()}, merged.lse[0]};
  }

  Item attend_perfectly(Index row, Span keys) const {
    std::vector<Span> all(at(problem_.sizes.rows()));
    all[at(row)] = keys;
    const multistep::Items items = multistep::span_attention<float>(
        {problem_.shape(), problem_.query.data(), problem_.key.data(), problem_.value.data(), 1,
         all.data(), nullptr, problem_.softmax_scale});
    const auto from = items.output.begin() + row * d_;
    return {{from, from + d_}, items.lse[at(row)]};
  }

  Item attend_part(Index row, Span keys) {
    Item item{std::vector<float>(at(d_), 0.0F)};
    if (keys.empty()) return item;
    const float* query = problem_.query.data() + row * d_;
    const double scale = problem_.softmax_scale.value_or(1 / std::sqrt(static_cast<double>(d_)));
    const auto factor = static_cast<float>(kernel_.base_2 ? scale * 1.4426950408889634 : scale);
    std::vector<Index> order;
    for (Index j = keys.begin; j < keys.end; ++j) order.push_back(problem_.kv_row(row, j));
    if (kernel_.reversed) std::reverse(order.begin(), order.end());
    float max = -std::numeric_limits<float>::infinity();
    float sum = 0;
    std::vector<float> logits;
    for (const Index kv : order) {
      logits.push_back(factor * dot(query, problem_.key.data() + kv * d_));
    }
    if (kernel_.weights == Weights::normalized) {
      for (const float logit : logits) max = std::max(max, logit);
      for (const float logit : logits) sum += exponential(logit - max);
      for (std::size_t j = 0; j < order.size(); ++j) {
        add(item, order[j], round(exponential(logits[j] - max) / sum));
      }
      item.lse = static_cast<double>(max + std::log(sum));
      return item;
    }
    for (std::size_t first = 0; first < order.size(); first += at(kernel_.tile)) {
      const std::size_t past = std::min(order.size(), first + at(kernel_.tile));
      float top = max;
      for (std::size_t j = first; j < past; ++j) top = std::max(top, logits[j]);
      const float shrink = max == top ? 1 : exponential(max - top);
      max = top;
      sum *= shrink;
      for (float& x : item.output) x *= shrink;
      std::vector<double> step(at(d_), 0);
      for (std::size_t j = first; j < past; ++j) {
        const float w = exponential(logits[j] - max);
        sum += w;
        const float kept = kernel_.weights == Weights::kept ? w : round(w);
        if (!kernel_.truncating) {
          add(item, order[j], kept);
          continue;
        }
        for (Index c = 0; c < d_; ++c) {
          step[at(c)] += static_cast<double>(kept) *
                         static_cast<double>(problem_.value[at(order[j] * d_ + c)]);
        }
        if ((j - first) % 16 == 15 || j + 1 == past) {
          for (std::size_t c = 0; c < step.size(); ++c) {
            item.output[c] = cut_off(static_cast<double>(item.output[c]) + step[c]);
            step[c] = 0;
          }
        }
      }
    }
    for (float& x : item.output) x /= sum;
    const float natural = kernel_.base_2 ? max * 0.69314718F : max;
    item.lse = static_cast<double>(natural + std::log(sum));
    return item;
  }

  void add(Item& item, Index kv, float weight) const {
    const float* value = problem_.value.data() + kv * d_;
    for (std::size_t c = 0; c < at(d_); ++c) {
      item.output[c] = kernel_.fused_multiply ? std::fma(weight, value[c], item.output[c])
                                              : item.output[c] + weight * value[c];
    }
  }

  struct Path {
    double score = 0;
    Index key = -1;
    std::size_t parent = 0;
    multistep::Segment span;
    std::vector<Index> anchors;
  };

  /// Scores are sums in float32 of what the kernel's order of products gives.
  std::vector<Path> search(Index row) const {
    const auto& plan = problem_.plan;
    std::vector<Path> kept(1);
    kept[0].span =
        plan.searched(problem_.position_of(row), problem_.start_of(problem_.batch_of(row)));
    for (Index m = 1; m < plan.steps(); ++m) {
      std::vector<Path> all;
      for (std::size_t parent = 0; parent < kept.size(); ++parent) {
        for (const multistep::Choice choice : multistep::Choices(plan, m, kept[parent].span)) {
          const float own = static_cast<float>(problem_.search_scale) *
                            dot(problem_.routing[at(m - 1)].data() + row * d_,
                                problem_.searched().data() + problem_.kv_row(row, choice.key) * d_);
          const float score = static_cast<float>(kept[parent].score) + own;
          all.push_back(
              {static_cast<double>(score), choice.key, parent, choice.span, kept[parent].anchors});
          all.back().anchors.push_back(choice.key);
        }
      }
      std::sort(all.begin(), all.end(), [](const Path& a, const Path& b) {
        if (a.score != b.score) return a.score > b.score;
        return a.key != b.key ? a.key < b.key : a.parent < b.parent;
      });
      all.resize(std::min(all.size(), at(plan.schedule().top_k)));
      kept = std::move(all);
    }
    if (plan.steps() == 1) kept.clear();
    return kept;
  }

  void compute_row(Index row) {
    const auto& plan = problem_.plan;
    const Span window =
        plan.window(problem_.position_of(row), problem_.start_of(problem_.batch_of(row)));
    const Item of_window = attend(row, window);
    const std::vector<Path> kept = search(row);
    const double best = kept.empty() ? 0 : kept[0].score;
    float total = 0;
    for (const Path& path : kept) total += std::exp(static_cast<float>(path.score - best));
    std::vector<float> sum(at(d_), 0.0F);
    if (kept.empty()) sum = of_window.output;
    for (std::size_t slot = 0; slot < at(plan.schedule().top_k); ++slot) {
      const bool used = slot < kept.size();
      Path path = used ? kept[slot] : Path{};
      if (!used) path.score = -inputs::kInfinity;
      spans.push_back(path.span);
      scores.push_back(path.score);
      for (Index m = 0; m + 1 < plan.steps(); ++m)
        anchors.push_back(used ? path.anchors[at(m)] : -1);
      Span keys = path.span;
      if (!window.empty()) keys.end = std::min(keys.end, window.begin);
      Item item = attend(row, keys.empty() ? Span{} : keys);
      for (float& x : item.output) {
        span_outputs.push_back(round(x));
        if (kernel_.store_items && !kernel_.perfect) x = round(x);
      }
      span_lses.push_back(static_cast<double>(static_cast<float>(item.lse)));
      if (!used) continue;
      const double top = std::max(item.lse, of_window.lse);
      const double a = item.lse == top ? 1 : std::exp(item.lse - top);
      const double b = of_window.lse == top ? 1 : std::exp(of_window.lse - top);
      const float gate = std::exp(static_cast<float>(path.score - best)) / total;
      for (std::size_t c = 0; c < sum.size(); ++c) {
        const float joined = static_cast<float>(a / (a + b)) * item.output[c] +
                             static_cast<float>(b / (a + b)) * of_window.output[c];
        sum[c] += gate * joined;
      }
    }
    if (kernel_.perfect) return finish_perfectly(row, kept, of_window);
    for (const float x : sum) output.push_back(round(x));
    finish_window(of_window);
  }

  void finish_window(const Item& window) {
    for (const float x : window.output) window_output.push_back(round(x));
    window_lse.push_back(static_cast<double>(static_cast<float>(window.lse)));
  }

  void finish_perfectly(Index row, const std::vector<Path>& kept, const Item& of_window) {
    const auto at_row = [&](const multistep::Items& items) {
      return items.output.data() + row * d_;
    };
    const std::vector<Span> windows = problem_.windows();
    std::vector<Span> all(at(problem_.sizes.rows() * std::max<Index>(std::ssize(kept), 1)));
    const Index slots = std::max<Index>(std::ssize(kept), 1);
    for (std::size_t s = 0; s < kept.size(); ++s) all[at(row * slots) + s] = kept[s].span;
    multistep::SpanAttentionArgs<float> args{problem_.shape(),
                                             problem_.query.data(),
                                             problem_.key.data(),
                                             problem_.value.data(),
                                             slots,
                                             all.data(),
                                             windows.data(),
                                             problem_.softmax_scale};
    const multistep::Items items = multistep::span_attention(args);
    args.slots = 1;
    args.spans = nullptr;
    const multistep::Items window = multistep::span_attention(args);
    std::vector<double> path_scores(at(slots), 0);
    for (std::size_t s = 0; s < kept.size(); ++s) path_scores[s] = kept[s].score;
    const Index count = std::ssize(kept);
    const double window_lse_here = window.lse[at(row)];
    const std::vector<double> combined = multistep::combine(
        {1, slots, d_, &count, path_scores.data(), items.output.data() + row * slots * d_,
         items.lse.data() + row * slots, at_row(window), &window_lse_here});
    for (const double x : combined) output.push_back(round(static_cast<float>(x)));
    finish_window(of_window);
  }

  Kernel kernel_;
  const Problem<float>& problem_;
  Storage storage_;
  Index d_;
  Random noise_{5};
};

/// A problem of any shape, rounded to the storage type: loud queries, uneven values, few rows and
/// many.
struct Case {
  Storage storage;
  Problem<float> problem;

  explicit Case(std::uint64_t seed) : Case(seed, Random(seed * 7919 + 13)) {}

 private:
  Case(std::uint64_t seed, Random random)
      : storage(static_cast<Storage>(random.below(3))), problem(make(seed, random, storage)) {}

  /// Values as they are, or with some that stand out: here and there, or in one channel, which may
  /// be the only one that is not 0; or all of them nearly 0.
  static void make_uneven(Problem<float>& problem, Storage storage, Random& random) {
    const Index kind = random.below(8);
    const float by[] = {100, 300, 10'000};
    const float channel = by[random.below(3)];
    const std::size_t d = at(problem.sizes.head_dim);
    for (std::size_t i = 0; i < problem.value.size(); ++i) {
      float& x = problem.value[i];
      if (kind == 0 && i % 50 == 0) x *= 100;
      if (kind == 1 && i % d == 0) x *= channel;
      if (kind == 2 && i % d != 0) x = 0;
      if (kind == 3) x *= storage == Storage::float16 ? 0x1p-18F : 0x1p-124F;
    }
  }

  static Problem<float> make(std::uint64_t seed, Random& random, Storage storage) {
    using multistep::preset_schedule;
    multistep::Schedule schedule =
        random.below(2) ? preset_schedule("paper") : preset_schedule("nstep", 1 + random.below(4));
    const Index windows[] = {0, 3, 7};
    schedule.window_index = windows[random.below(3)];
    schedule.top_k = 1 + random.below(3);
    multistep::Shape sizes;
    sizes.num_kv_heads = 1 + random.below(2);
    sizes.num_heads = sizes.num_kv_heads * (1 + random.below(2));
    const Index few[] = {1, 1, 2, 8};
    sizes.queries = few[random.below(4)];
    const Index dims[] = {1, 2, 4, 8, 16, 64, 128};
    sizes.head_dim = dims[random.below(7)];
    const Index offsets[] = {0, 20, 200, 900};
    sizes.query_offset = offsets[random.below(4)] + random.below(40);
    sizes.keys = sizes.query_offset + sizes.queries;
    auto problem = inputs::converted<float>(
        inputs::random_problem(schedule, sizes, seed, inputs::Values::rough));
    const float loud[] = {1, 1, 8, 64};
    const float factor = loud[random.below(4)];
    for (float& x : problem.query) x *= factor;
    make_uneven(problem, storage, random);
    const float routed[] = {1, 0.25F, 4};
    const float route = routed[random.below(3)];
    const auto store = [&](std::vector<float>& array, float by) {
      for (float& x : array) x = multistep::round_to(storage, x * by);
    };
    for (auto* array : {&problem.query, &problem.key, &problem.value, &problem.search_keys}) {
      store(*array, 1);
    }
    for (auto& level : problem.routing) store(level, route);
    return problem;
  }
};

inline std::vector<Index> all_rows(const Problem<float>& problem) {
  std::vector<Index> rows(at(problem.sizes.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

/// The judge's report of a run, of what it hands in.
inline multistep::JudgeReport judged(const Case& of, const Run& run, bool output_alone) {
  const auto given = output_alone ? run.output_alone() : run.submission();
  const std::vector<Index> rows = all_rows(of.problem);
  return multistep::judge_sample(of.problem.attention(), rows, of.storage, given).report();
}

}  // namespace honest
