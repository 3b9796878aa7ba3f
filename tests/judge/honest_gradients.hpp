#pragma once

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "multistep/judge_gradients.hpp"
#include "support/inputs.hpp"

/// Gradients that are right, each with the rounding of some real kernel, and the wrong ones of
/// `Fault`: the judge must pass all of the former and none of the latter.
namespace honest {

using inputs::at;
using inputs::Problem;
using inputs::Random;
using multistep::Index;
using multistep::Selection;
using multistep::Span;
using multistep::Storage;

struct Backward {
  std::string name;
  Index tile = 1 << 30;  // terms of a sum that are added up by themselves
  bool reversed = false;
  bool base_2 = false;            // exp2 of logits with log2(e) folded into the scale
  bool fused_multiply = false;    // in sums of products
  double exponential = 0;         // relative error of exponentials
  bool flushing = false;          // subnormal numbers are 0
  bool stored_outputs = false;    // delta from items that were rounded to the storage type
  bool delta_of_weights = false;  // delta from weights and <dO, v>
  bool stored_factors = true;     // weights and d logits are rounded to the storage type
  bool scale_first = false;       // d logits are rounded with the scale in them
  bool heads_stored = false;      // a head's part of dk and dv is rounded to the storage type
  bool items_stored = false;      // an item's part of dq is
  bool perfect = false;           // float64, rounded once
};

inline std::vector<Backward> backwards() {
  return {
      {.name = "plain"},
      {.name = "sums from the end", .reversed = true},
      {.name = "tiles of 64", .tile = 64, .stored_outputs = true},
      {.name = "tiles of 16 in base 2", .tile = 16, .base_2 = true, .scale_first = true},
      {.name = "everything in float32", .stored_factors = false},
      {.name = "float32 from the end, fused",
       .reversed = true,
       .fused_multiply = true,
       .stored_factors = false},
      {.name = "delta from stored outputs", .stored_outputs = true},
      {.name = "delta from weights", .tile = 128, .delta_of_weights = true},
      {.name = "exponentials of 22 bits", .tile = 32, .exponential = 0x1p-22},
      {.name = "subnormal numbers flushed", .tile = 16, .flushing = true},
      {.name = "heads and items stored", .heads_stored = true, .items_stored = true},
      {.name = "rounded once from float64", .perfect = true},
  };
}

/// What a wrong kernel forgets or mixes up.
enum class Fault {
  none,
  tile_missing,         // rows [0, 8) of the second head in dk
  delta_of_other,       // slot 0's delta in slot 1
  window_of_each,       // the window's part once for every slot
  neighbour_range,      // the keys of span 0 are those one further
  no_scale,             // in dq
  no_gate_gradient,     // d routing 0
  gate_without_mean,    // d score = gate * delta
  wrong_level,          // d routing of the levels, swapped
  wrong_level_of_keys,  // d search keys by the routing queries of level 1 alone
  not_finite,           // one value of dk
  unselected,           // a key that nobody looks at gets 1e-30
  lost_query,           // of the queries that look at a key the last is lost in dv
  lost_anchor,          // the same in d search keys
  no_share,             // spans count in full beside the window
  lse_ignored,          // the derivative by log-sum-exps
  scores_ignored,       // that by path scores
  search_part_missing,  // in dk, where K is searched
  head_swapped,         // dq of head 0 at head 1
};

struct GradientCase {
  Storage storage = Storage::bfloat16;
  Problem<float> problem;
  Selection selection;
  std::vector<double> d_output, d_scores, d_lse, d_window_lse;

  multistep::AttentionResultGradients by_result() const {
    const auto data = [](const std::vector<double>& array) {
      return array.empty() ? nullptr : array.data();
    };
    return {data(d_output), data(d_scores), data(d_lse), data(d_window_lse)};
  }

  /// What the problem's arrays are rounded to.
  void store() {
    for (auto* array : {&problem.query, &problem.key, &problem.value, &problem.search_keys}) {
      for (float& x : *array) x = multistep::round_to(storage, x);
    }
    for (auto& level : problem.routing) {
      for (float& x : level) x = multistep::round_to(storage, x);
    }
    for (double& x : d_output) {
      x = static_cast<double>(multistep::round_to(storage, static_cast<float>(x)));
    }
  }

  /// The oracle's selection, scores in float32.
  void search() {
    selection = multistep::span_search(problem.search());
    for (double& x : selection.scores) x = static_cast<double>(static_cast<float>(x));
  }
};

/// What it hands in.
class BackwardRun {
 public:
  BackwardRun(const Backward& kernel, const GradientCase& of, Fault fault = Fault::none)
      : kernel_(kernel),
        of_(of),
        problem_(of.problem),
        d_(of.problem.sizes.head_dim),
        top_k_(of.selection.top_k),
        levels_(of.selection.levels),
        fault_(fault),
        windows_(of.problem.windows()) {}

  std::vector<double> query, key, value, search_keys;
  std::vector<std::vector<double>> routing;

  multistep::SubmittedGradients<float> submitted() const {
    multistep::SubmittedGradients<float> given;
    given.attention = problem_.attention();
    given.selection = &of_.selection;
    given.by_result = of_.by_result();
    given.query = query.data();
    given.key = key.data();
    given.value = value.data();
    for (const auto& level : routing) given.routing_queries.push_back(level.data());
    if (!problem_.search_keys.empty()) given.search_keys = search_keys.data();
    return given;
  }

  void compute() {
    if (kernel_.perfect) return compute_perfectly();
    const std::size_t keys = problem_.key.size();
    of_keys_.assign(keys / at(d_), {});
    of_anchors_.assign(keys / at(d_), {});
    query.assign(problem_.query.size(), 0);
    key.assign(keys, 0);
    value.assign(keys, 0);
    search_keys.assign(problem_.search_keys.size(), 0);
    routing.assign(at(levels_), query);
    for (Index row = 0; row < problem_.sizes.rows(); ++row) compute_row(row);
    for (Index kv = 0; kv < std::ssize(of_keys_); ++kv) compute_key(kv);
    spoil();
  }

 private:
  struct Item {
    Span keys;
    std::vector<float> logits, along;
    std::vector<float> output;
    float lse = -std::numeric_limits<float>::infinity();
    float delta = 0;  // <dO, O>
    float share = 0;
    float shift = 0;
  };
  struct OfRow {
    Index row;
    float weight;
    float logit;
  };

  float round(float x) const { return multistep::round_to(of_.storage, x); }
  float seen(float x) const {
    return kernel_.flushing && std::abs(x) < std::numeric_limits<float>::min() ? 0 : x;
  }
  float factor(float x) const { return kernel_.stored_factors ? round(seen(x)) : seen(x); }
  float d_out(Index row, Index c) const {
    return static_cast<float>(of_.d_output[at(row * d_ + c)]);
  }

  /// Sum of count products first(i) * second(i), in the kernel's order.
  template <class First, class Second>
  float sum(Index count, First&& first, Second&& second) const {
    float total = 0;
    const Index tile = std::max<Index>(1, std::min(kernel_.tile, count));
    for (Index begin = 0; begin < count; begin += tile) {
      float part = 0;
      for (Index i = begin; i < std::min(count, begin + tile); ++i) {
        const Index k = kernel_.reversed ? count - 1 - i : i;
        part = kernel_.fused_multiply ? std::fma(first(k), second(k), part)
                                      : part + first(k) * second(k);
      }
      total += part;
    }
    return total;
  }
  float dot(const float* a, const float* b) const {
    return sum(
        d_, [&](Index c) { return a[c]; }, [&](Index c) { return b[c]; });
  }

  double scale() const {
    return problem_.softmax_scale.value_or(1 / std::sqrt(static_cast<double>(d_)));
  }
  float exponential(float x) {
    float y = kernel_.base_2 ? std::exp2(x * 1.44269504F) : std::exp(x);
    if (kernel_.exponential > 0) {
      const double share = static_cast<double>(noise_.below(2001) - 1000) / 1000;
      y = static_cast<float>(static_cast<double>(y) * (1 + kernel_.exponential * share));
    }
    return seen(y);
  }

  Item attend(Index row, Span keys) {
    Item item;
    item.keys = keys;
    item.output.assign(at(d_), 0);
    std::vector<float> d_output(at(d_));
    for (Index c = 0; c < d_; ++c) d_output[at(c)] = d_out(row, c);
    float max = item.lse;
    for (Index j = keys.begin; j < keys.end; ++j) {
      const Index kv = problem_.kv_row(row, j) * d_;
      item.logits.push_back(static_cast<float>(scale()) *
                            dot(problem_.query.data() + row * d_, problem_.key.data() + kv));
      item.along.push_back(dot(d_output.data(), problem_.value.data() + kv));
      max = std::max(max, item.logits.back());
    }
    if (item.logits.empty()) return item;
    float total = 0;
    for (std::size_t j = 0; j < item.logits.size(); ++j) {
      const float w = exponential(item.logits[j] - max);
      const Index kv = problem_.kv_row(row, keys.begin + static_cast<Index>(j)) * d_;
      total += w;
      for (Index c = 0; c < d_; ++c) {
        item.output[at(c)] += factor(w) * problem_.value[at(kv + c)];
      }
    }
    item.lse = max + std::log(total);
    for (float& x : item.output) {
      x /= total;
      if (kernel_.stored_outputs) x = round(x);
    }
    if (kernel_.delta_of_weights) {
      item.delta = sum(
          std::ssize(item.along),
          [&](Index j) { return exponential(item.logits[at(j)] - item.lse); },
          [&](Index j) { return item.along[at(j)]; });
    } else {
      item.delta = dot(d_output.data(), item.output.data());
    }
    return item;
  }

  /// Shares and shifts of a row's items, the window last, and the derivatives by its scores.
  std::vector<float> mix(Index row, std::vector<Item>& items) {
    const Index count = of_.selection.count[at(row)];
    Item& window = items.back();
    std::vector<float> gates, deltas, windows;
    float best = -std::numeric_limits<float>::infinity(), total = 0, mean = 0;
    const auto score = [&](Index s) {
      return static_cast<float>(of_.selection.scores[at(row * top_k_ + s)]);
    };
    for (Index s = 0; s < count; ++s) best = std::max(best, score(s));
    for (Index s = 0; s < count; ++s) total += exponential(score(s) - best);
    for (Index s = 0; s < count; ++s) {
      Item& span = items[at(s)];
      const float top = std::max(span.lse, window.lse);
      float a = std::isinf(span.lse) ? 0 : exponential(span.lse - top);
      float b = std::isinf(window.lse) ? 0 : exponential(window.lse - top);
      if (a + b > 0) {
        const float both = a + b;
        a /= both;
        b /= both;
      }
      gates.push_back(exponential(score(s) - best) / total);
      deltas.push_back(a * span.delta + b * window.delta);
      windows.push_back(b);
      span.share = gates.back() * (fault_ == Fault::no_share ? 1 : a);
      mean += gates.back() * deltas.back();
    }
    std::vector<float> d_scores;
    for (Index s = 0; s < count; ++s) {
      const float delta = fault_ == Fault::delta_of_other && s == 1 ? deltas[0] : deltas[at(s)];
      items[at(s)].shift = items[at(s)].share * delta - of_lse(of_.d_lse, row * top_k_ + s);
      window.share += gates[at(s)] * windows[at(s)];
      window.shift += gates[at(s)] * windows[at(s)] * delta;
      float d_score = gates[at(s)] * (delta - (fault_ == Fault::gate_without_mean ? 0 : mean));
      if (!of_.d_scores.empty() && fault_ != Fault::scores_ignored) {
        d_score += static_cast<float>(of_.d_scores[at(row * top_k_ + s)]);
      }
      d_scores.push_back(fault_ == Fault::no_gate_gradient ? 0 : d_score);
    }
    if (count == 0) {
      window.share = 1;
      window.shift = window.delta;
    }
    if (fault_ == Fault::window_of_each && count > 0) {
      window.share *= static_cast<float>(count);
      window.shift *= static_cast<float>(count);
    }
    window.shift -= of_lse(of_.d_window_lse, row);
    return d_scores;
  }
  float of_lse(const std::vector<double>& array, Index i) const {
    return array.empty() || fault_ == Fault::lse_ignored ? 0 : static_cast<float>(array[at(i)]);
  }

  void compute_row(Index row) {
    const Index count = of_.selection.count[at(row)];
    const Span window = windows_[at(problem_.batch_of(row) * problem_.sizes.queries +
                                    row % problem_.sizes.queries)];
    std::vector<Item> items;
    for (Index s = 0; s < count; ++s) {
      Span keys = multistep::outside_window(of_.selection.spans[at(row * top_k_ + s)], window);
      if (fault_ == Fault::neighbour_range && s == 0 && keys.begin > 0) {
        --keys.begin;
        --keys.end;
      }
      items.push_back(attend(row, keys));
    }
    items.push_back(attend(row, window));
    const std::vector<float> d_scores = mix(row, items);
    const bool no_scale = fault_ == Fault::no_scale;
    const auto own_scale = static_cast<float>(scale());
    std::vector<float> d_query(at(d_), 0);
    for (const Item& item : items) {
      std::vector<float> of_logits;
      for (std::size_t j = 0; j < item.logits.size(); ++j) {
        const float p = exponential(item.logits[j] - item.lse);
        const float ds = p * (item.share * item.along[j] - item.shift);
        const float logit = kernel_.scale_first ? factor(ds * own_scale) : factor(ds) * own_scale;
        of_logits.push_back(no_scale ? logit / own_scale : logit);
        const Index kv = problem_.kv_row(row, item.keys.begin + static_cast<Index>(j));
        of_keys_[at(kv)].push_back({row, factor(p * item.share), logit});
      }
      const Index first = problem_.kv_row(row, item.keys.begin) * d_;
      for (Index c = 0; c < d_; ++c) {
        const float part = sum(
            std::ssize(of_logits), [&](Index j) { return of_logits[at(j)]; },
            [&](Index j) { return problem_.key[at(first + j * d_ + c)]; });
        d_query[at(c)] += kernel_.items_stored ? round(part) : part;
      }
    }
    for (Index c = 0; c < d_; ++c) {
      query[at(row * d_ + c)] = static_cast<double>(round(d_query[at(c)]));
    }
    compute_routing(row, d_scores);
  }

  void compute_routing(Index row, const std::vector<float>& d_scores) {
    const auto scale = static_cast<float>(problem_.search_scale);
    for (Index m = 0; m < levels_; ++m) {
      std::vector<Index> anchors;
      for (Index s = 0; s < std::ssize(d_scores); ++s) {
        const Index key = of_.selection.anchors[at((row * top_k_ + s) * levels_ + m)];
        anchors.push_back(problem_.kv_row(row, key));
        of_anchors_[at(anchors.back())].push_back(
            {row, scale * d_scores[at(s)], static_cast<float>(m)});
      }
      for (Index c = 0; c < d_; ++c) {
        const float total = sum(
            std::ssize(anchors), [&](Index s) { return scale * d_scores[at(s)]; },
            [&](Index s) { return problem_.searched()[at(anchors[at(s)] * d_ + c)]; });
        routing[at(m)][at(row * d_ + c)] = static_cast<double>(round(total));
      }
    }
  }

  /// Sums over the queries of a key, head by head where heads are stored.
  template <class Value>
  float over_rows(const std::vector<OfRow>& uses, Value&& value) const {
    if (!kernel_.heads_stored) {
      return sum(
          std::ssize(uses), [](Index) { return 1.0F; }, value);
    }
    float total = 0;
    for (std::size_t first = 0, past = 0; first < uses.size(); first = past) {
      const Index head = uses[first].row / problem_.sizes.queries;
      while (past < uses.size() && uses[past].row / problem_.sizes.queries == head) ++past;
      total += round(sum(
          static_cast<Index>(past - first), [](Index) { return 1.0F; },
          [&](Index i) { return value(static_cast<Index>(first) + i); }));
    }
    return total;
  }

  void compute_key(Index kv) {
    std::vector<OfRow> uses = of_keys_[at(kv)];
    std::vector<OfRow> anchors = of_anchors_[at(kv)];
    if (fault_ == Fault::lost_anchor && anchors.size() > 1) anchors.pop_back();
    std::vector<OfRow> for_value = uses;
    if (fault_ == Fault::lost_query && for_value.size() > 1) for_value.pop_back();
    if (fault_ == Fault::tile_missing) {
      std::erase_if(uses, [&](const OfRow& use) {
        return use.row >= problem_.sizes.queries && use.row % problem_.sizes.queries < 8 &&
               use.row < 2 * problem_.sizes.queries;
      });
    }
    for (Index c = 0; c < d_; ++c) {
      const float d_value = over_rows(for_value, [&](Index i) {
        return for_value[at(i)].weight * d_out(for_value[at(i)].row, c);
      });
      float d_key = over_rows(uses, [&](Index i) {
        return uses[at(i)].logit * problem_.query[at(uses[at(i)].row * d_ + c)];
      });
      const float d_search = over_rows(anchors, [&](Index i) {
        const OfRow& use = anchors[at(i)];
        const auto level =
            fault_ == Fault::wrong_level_of_keys ? 0 : static_cast<std::size_t>(use.logit);
        return use.weight * problem_.routing[level][at(use.row * d_ + c)];
      });
      if (!search_keys.empty()) {
        search_keys[at(kv * d_ + c)] = static_cast<double>(round(d_search));
      } else if (fault_ != Fault::search_part_missing) {
        d_key += kernel_.heads_stored ? round(d_search) : d_search;
      }
      key[at(kv * d_ + c)] = static_cast<double>(round(d_key));
      value[at(kv * d_ + c)] = static_cast<double>(round(d_value));
    }
  }

  /// The faults of finished arrays.
  void spoil() {
    const Index queries = problem_.sizes.queries * d_;
    if (fault_ == Fault::wrong_level) std::swap(routing.front(), routing.back());
    if (fault_ == Fault::head_swapped) {
      std::copy_n(query.begin(), queries, query.begin() + queries);
    }
    if (fault_ == Fault::not_finite) {
      key[at(problem_.kv_row(0, problem_.position_of(0)) * d_)] = inputs::kNaN;
    }
    if (fault_ == Fault::unselected) {
      for (std::size_t kv = 0; kv < of_keys_.size(); ++kv) {
        if (of_keys_[kv].empty()) value[kv * at(d_)] = 1e-30;
      }
    }
  }

  void compute_perfectly() {
    auto exact =
        multistep::attention_backward(problem_.attention(), of_.by_result(), &of_.selection);
    const auto stored = [&](const std::vector<double>& array) {
      std::vector<double> result;
      for (const double x : array) {
        result.push_back(static_cast<double>(round(static_cast<float>(x))));
      }
      return result;
    };
    std::vector<double>& of_search = exact.search.search_keys;
    if (problem_.search_keys.empty()) {
      for (std::size_t i = 0; i < of_search.size(); ++i) exact.attention.key[i] += of_search[i];
    }
    query = stored(exact.attention.query);
    key = stored(exact.attention.key);
    value = stored(exact.attention.value);
    search_keys = stored(of_search);
    for (const auto& level : exact.search.routing_queries) routing.push_back(stored(level));
  }

  Backward kernel_;
  const GradientCase& of_;
  const Problem<float>& problem_;
  Index d_;
  Index top_k_;
  Index levels_;
  Fault fault_;
  std::vector<Span> windows_;
  std::vector<std::vector<OfRow>> of_keys_;     // [kv], in the order of rows
  std::vector<std::vector<OfRow>> of_anchors_;  // weight: d score; logit: the level
  Random noise_{5};
};

/// A problem of any shape and schedule: loud queries, uneven values and derivatives, keys that
/// everybody picks, rows without keys, few queries and many.
inline GradientCase random_case(std::uint64_t seed) {
  Random random(seed * 7919 + 13);
  GradientCase of{static_cast<Storage>(random.below(3)),
                  {{}, {}, {multistep::preset_schedule("nstep"), 1}, {}, {}, {}, {}, {}},
                  {},
                  {},
                  {},
                  {},
                  {}};
  using multistep::preset_schedule;
  multistep::Schedule schedule = random.below(3) == 0
                                     ? preset_schedule("paper")
                                     : preset_schedule("nstep", 1 + random.below(4));
  if (random.below(4) == 0) schedule = preset_schedule("even", 2 + random.below(2));
  const Index windows[] = {0, 3, 7};
  schedule.window_index = windows[random.below(3)];
  schedule.top_k = 1 + random.below(3);
  multistep::Shape sizes;
  sizes.batch = 1 + random.below(2);
  sizes.num_kv_heads = 1 + random.below(2);
  sizes.num_heads = sizes.num_kv_heads * (1 + random.below(2));
  const Index counts[] = {1, 2, 8, 40};
  sizes.queries = counts[random.below(4)];
  const Index dims[] = {1, 2, 4, 8, 16, 64, 128};
  sizes.head_dim = dims[random.below(7)];
  const Index offsets[] = {0, 20, 200, 700};
  sizes.query_offset = offsets[random.below(4)] + random.below(40);
  sizes.keys = sizes.query_offset + sizes.queries + random.below(3);
  std::vector<Index> start;
  if (random.below(2) == 0) {
    for (Index b = 0; b < sizes.batch; ++b) start.push_back(random.below(sizes.query_offset + 5));
  }
  of.problem = inputs::converted<float>(
      inputs::random_problem(schedule, sizes, seed, inputs::Values::rough, start));
  Problem<float>& problem = of.problem;
  if (random.below(3) == 0) problem.search_keys.clear();
  if (random.below(4) == 0) problem.search_scale = 0.25;
  if (random.below(4) == 0) problem.softmax_scale = 0.5;
  const float loud[] = {1, 1, 8, 64};
  const float by = loud[random.below(4)];
  for (float& x : problem.query) x *= by;
  const Index kind = random.below(8);
  const std::size_t d = at(sizes.head_dim);
  for (std::size_t i = 0; i < problem.value.size(); ++i) {
    float& x = problem.value[i];
    if (kind == 0 && i % 50 == 0) x *= 100;
    if (kind == 1 && i % d == 0) x *= 300;
    if (kind == 2 && i % d != 0) x = 0;
    if (kind == 3) x *= of.storage == Storage::float16 ? 0x1p-18F : 0x1p-100F;
    if (kind == 4) x += 4;  // what cancels
  }
  if (random.below(3) == 0) {  // all queries of a head pick the same keys
    for (auto& level : problem.routing) {
      for (std::size_t i = 0; i < level.size(); ++i) level[i] = level[i % d];
    }
  }
  Random derivatives(seed + 1);
  const auto tensor = [&](Index size, double factor) {
    std::vector<double> result = derivatives.tensor(size, inputs::Values::rough);
    for (double& x : result) x = static_cast<double>(static_cast<float>(x * factor));
    return result;
  };
  const double sizes_of[] = {1, 1, 1e-3, 100};
  const double factor = sizes_of[random.below(4)];
  of.d_output = tensor(sizes.rows() * sizes.head_dim, factor);
  if (random.below(6) == 0) {
    for (std::size_t i = 0; i < of.d_output.size(); i += 50) of.d_output[i] *= 100;
  }
  if (random.below(3) == 0) {
    of.d_scores = tensor(sizes.rows() * schedule.top_k, factor);
    of.d_lse = tensor(sizes.rows() * schedule.top_k, factor);
    of.d_window_lse = tensor(sizes.rows(), factor);
  }
  of.store();
  of.search();
  return of;
}

inline std::vector<Index> first_rows(Index count) {
  std::vector<Index> rows(at(count));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

/// Every row and every key, or as many as are asked for.
inline multistep::JudgeReport judged(const GradientCase& of, const BackwardRun& run,
                                     Index count = 1 << 30) {
  const multistep::Shape shape = of.problem.shape();
  return multistep::judge_gradients(
      run.submitted(), of.storage, multistep::sample_rows(shape, of.problem.plan, count, 7),
      multistep::sample_keys(shape, of.problem.plan, of.selection, count, 7));
}

}  // namespace honest
