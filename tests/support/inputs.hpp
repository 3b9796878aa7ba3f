#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "multistep/attention.hpp"
#include "schedule/brute_force.hpp"
#include "support/random.hpp"

/// Seeded tensors, and the struct that owns one problem.
namespace inputs {

using multistep::Index;
using multistep::Schedule;
using multistep::Shape;
using multistep::Span;

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

inline std::size_t at(Index index) { return static_cast<std::size_t>(index); }

/// What random tensors hold. All of them are floats.
enum class Values {
  exact,   // multiples of 2^-8 in [-1, 1): sums of their products have no rounding error
  rough,   // 24 random bits, magnitudes from 2^-6 to 1: the order of a sum shows in its last bits
  coarse,  // -1, 0 or 1: ties everywhere
};

/// Seeded draws, the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() { return multistep::next_random(state_); }

  /// An integer in [0, n).
  Index below(Index n) { return static_cast<Index>(next() % static_cast<std::uint64_t>(n)); }

  double value(Values values) {
    if (values == Values::coarse) return static_cast<double>(below(3) - 1);
    if (values == Values::exact) return static_cast<double>(below(512) - 256) / 256;
    const double magnitude = static_cast<double>((1 << 23) + below(1 << 23)) / (1 << 24);
    const auto exponent = static_cast<int>(below(6));
    return std::ldexp(below(2) ? magnitude : -magnitude, -exponent);
  }

  std::vector<double> tensor(Index size, Values values = Values::exact) {
    std::vector<double> result(at(size));
    for (double& x : result) x = value(values);
    return result;
  }

 private:
  std::uint64_t state_;
};

/// Rows [first, first + count) of every head in an array [heads, length, width].
template <class T>
std::vector<T> rows_of(const std::vector<T>& array, Index heads, Index width, Index first,
                       Index count) {
  const Index length = static_cast<Index>(array.size()) / heads / width;
  std::vector<T> result;
  for (Index head = 0; head < heads; ++head) {
    const auto begin = array.begin() + (head * length + first) * width;
    result.insert(result.end(), begin, begin + count * width);
  }
  return result;
}

/// Two batch entries of four query heads on two KV heads; `tail` spare rows behind the last query.
inline Shape grouped_sizes(Index head_dim, Index queries, Index offset = 0, Index tail = 0) {
  Shape sizes;
  sizes.batch = 2;
  sizes.num_heads = 4;
  sizes.num_kv_heads = 2;
  sizes.queries = queries;
  sizes.keys = offset + queries + tail;
  sizes.head_dim = head_dim;
  sizes.query_offset = offset;
  return sizes;
}

/// The arrays of one attention problem.
template <class T>
struct Problem {
  Shape sizes;               // its start and length are not used
  std::vector<Index> start;  // [batch], or none
  multistep::StripePlan plan;
  std::vector<T> query, key, value;
  std::vector<std::vector<T>> routing;  // [N - 1]
  std::vector<T> search_keys;           // or none: the keys
  double search_scale = 1;
  std::optional<double> softmax_scale{};
  std::vector<Index> length{};  // [batch], or none

  Shape shape() const {
    Shape result = sizes;
    result.start = start.empty() ? nullptr : start.data();
    result.length = length.empty() ? nullptr : length.data();
    return result;
  }
  std::vector<const T*> routing_pointers() const {
    std::vector<const T*> result;
    for (const std::vector<T>& level : routing) result.push_back(level.data());
    return result;
  }
  const std::vector<T>& searched() const { return search_keys.empty() ? key : search_keys; }

  multistep::AttentionArgs<T> attention() const {
    return {shape(),
            &plan,
            query.data(),
            key.data(),
            value.data(),
            routing_pointers(),
            search_keys.empty() ? nullptr : search_keys.data(),
            search_scale,
            softmax_scale};
  }
  multistep::SpanSearchArgs<T> search() const {
    return {shape(), &plan, routing_pointers(), searched().data(), search_scale};
  }
  /// Of the plan's windows: [batch, L_q].
  std::vector<Span> windows() const {
    std::vector<Span> result;
    for (Index b = 0; b < sizes.batch; ++b) {
      for (Index i = 0; i < sizes.queries; ++i) {
        const Index row = b * sizes.num_heads * sizes.queries + i;
        result.push_back(plan.window(position_of(row), start_of(b)));
      }
    }
    return result;
  }

  // What query row `row` of [batch, num_heads, L_q] is.
  Index batch_of(Index row) const { return row / (sizes.num_heads * sizes.queries); }
  Index head_of(Index row) const { return row / sizes.queries % sizes.num_heads; }
  Index kv_head_of(Index row) const {
    return head_of(row) / (sizes.num_heads / sizes.num_kv_heads);
  }
  Index position_of(Index row) const {
    const Index first =
        length.empty() ? sizes.query_offset : length[at(batch_of(row))] - sizes.queries;
    return first + row % sizes.queries;
  }
  Index start_of(Index batch) const { return start.empty() ? 0 : start[at(batch)]; }

  /// Row of `key` in [batch, num_kv_heads, L_kv] as query row `row` sees it.
  Index kv_row(Index row, Index key_position) const {
    return (batch_of(row) * sizes.num_kv_heads + kv_head_of(row)) * sizes.keys + key_position;
  }

  /// Sequence b of the batch as a problem of its own.
  Problem sequence(Index b) const {
    Problem part = *this;
    part.sizes.batch = 1;
    if (!start.empty()) part.start = {start[at(b)]};
    if (!length.empty()) part.length = {length[at(b)]};
    const auto keep = [&](std::vector<T>& array) {
      const Index size = static_cast<Index>(array.size()) / sizes.batch;
      array = rows_of(array, 1, 1, b * size, size);
    };
    for (auto* array : {&part.query, &part.key, &part.value, &part.search_keys}) keep(*array);
    for (std::vector<T>& level : part.routing) keep(level);
    return part;
  }

  /// The same problem for its queries [first, first + count) alone.
  Problem chunk(Index first, Index count) const {
    Problem part = *this;
    const Index heads = sizes.batch * sizes.num_heads;
    part.sizes.query_offset += first;
    part.sizes.queries = count;
    part.query = rows_of(query, heads, sizes.head_dim, first, count);
    for (std::vector<T>& level : part.routing) {
      level = rows_of(level, heads, sizes.head_dim, first, count);
    }
    return part;
  }

  /// The same problem without each head's keys before `first` and from `past` on.
  Problem without_keys(Index first, Index past) const {
    Problem part = *this;
    const Index heads = sizes.batch * sizes.num_kv_heads;
    part.sizes.keys = past - first;
    for (std::vector<T>* array : {&part.key, &part.value, &part.search_keys}) {
      if (!array->empty()) *array = rows_of(*array, heads, sizes.head_dim, first, past - first);
    }
    return part;
  }
};

/// Every array random; the search keys are an array of their own.
inline Problem<double> random_problem(const Schedule& schedule, const Shape& sizes,
                                      std::uint64_t seed, Values values = Values::exact,
                                      std::vector<Index> start = {}) {
  Random random(seed);
  const Index queries = sizes.rows() * sizes.head_dim;
  const Index keys = sizes.batch * sizes.num_kv_heads * sizes.keys * sizes.head_dim;
  Problem<double> problem{sizes,
                          std::move(start),
                          {schedule, std::max<Index>(1, sizes.query_offset + sizes.queries)},
                          random.tensor(queries, values),
                          random.tensor(keys, values),
                          random.tensor(keys, values),
                          {},
                          random.tensor(keys, values)};
  for (Index m = 1; m < schedule.steps; ++m) {
    problem.routing.push_back(random.tensor(queries, values));
  }
  return problem;
}

template <class To>
Problem<To> converted(const Problem<double>& from) {
  const auto convert = [](const std::vector<double>& array) {
    std::vector<To> result;
    for (const double x : array) result.push_back(static_cast<To>(x));
    return result;
  };
  Problem<To> problem{from.sizes,        from.start,          from.plan, convert(from.query),
                      convert(from.key), convert(from.value), {},        convert(from.search_keys),
                      from.search_scale, from.softmax_scale};
  for (const std::vector<double>& level : from.routing) problem.routing.push_back(convert(level));
  return problem;
}

/// A schedule of `steps` steps whose levels all follow one rule.
inline Schedule uniform_schedule(multistep::Rule rule, Index steps, Index window_index = 0,
                                 Index top_k = 2) {
  Schedule schedule{steps, {}, window_index, top_k};
  for (Index m = 1; m < steps; ++m) {
    schedule.levels.push_back(multistep::default_level(rule, steps - m + 1));
  }
  return schedule;
}

/// Any schedule of 1 to 4 steps: rules, rationals, window and top_k at random.
inline Schedule random_schedule(Random& random, Index rules = 4) {
  using multistep::make_rational;
  Schedule schedule{1 + random.below(4), {}, random.below(4), 1 + random.below(5)};
  for (Index m = 1; m < schedule.steps; ++m) {
    const Index M = schedule.steps - m + 1;
    const multistep::Rational exponents[] = {make_rational(M), make_rational(M), make_rational(1),
                                             make_rational(3, 2), make_rational(20, 11)};
    const multistep::Rational backwards[] = {make_rational(M), make_rational(0), make_rational(3),
                                             make_rational(19, 10)};
    const multistep::Rational forwards[] = {make_rational(0), make_rational(1, 2),
                                            make_rational(1)};
    const multistep::Rational spans[] = {make_rational(M - 1, M), make_rational(1, 2),
                                         make_rational(0), make_rational(1)};
    schedule.levels.push_back({static_cast<multistep::Rule>(random.below(rules)),
                               exponents[random.below(5)], backwards[random.below(4)],
                               forwards[random.below(3)], spans[random.below(4)]});
  }
  return schedule;
}

/// max |got - want|; infinite where a size differs or a NaN stands.
inline double distance(const std::vector<double>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return kInfinity;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i]) continue;
    const double off = std::abs(got[i] - want[i]);
    worst = off <= worst ? worst : std::isnan(off) ? kInfinity : off;
  }
  return worst;
}

/// Bit for bit, NaN included.
inline bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

/// Sets the number of OpenMP threads while it lives. Tests of many small problems run on one
/// thread: starting more costs more than they save.
class Threads {
 public:
  explicit Threads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~Threads() { omp_set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace inputs

/// SPEC 3 and 4 as they are written: nested loops over keys, plain exponentials.
namespace naive {

using inputs::at;
using inputs::Index;
using inputs::Problem;
using inputs::Span;

struct Path {
  double score = 0;
  Span span;
  Index nominal = 0;  // keys that the level below takes the span to have
  std::vector<Index> anchors;
  Index parent = 0;
};

struct Search {
  std::vector<Path> kept;     // best first
  std::vector<Index> scored;  // keys scored, once for every level and parent
  Index keys_attended = 0;
};

struct Attended {
  std::vector<double> output;
  double lse = -inputs::kInfinity;
};

template <class T>
double dot(const std::vector<T>& a, Index row_a, const std::vector<T>& b, Index row_b, Index size) {
  double sum = 0;
  for (Index i = 0; i < size; ++i) {
    sum +=
        static_cast<double>(a[at(row_a * size + i)]) * static_cast<double>(b[at(row_b * size + i)]);
  }
  return sum;
}

template <class T>
class Stages {
 public:
  explicit Stages(const Problem<T>& problem)
      : problem_(problem),
        schedule_(problem.plan.schedule()),
        definition_(schedule_, std::max<Index>(problem.sizes.keys, 1)) {}

  Span window(Index row) const {
    return definition_.window(problem_.position_of(row), problem_.start_of(problem_.batch_of(row)));
  }

  Search search(Index row) const {
    Search result;
    if (schedule_.steps > 1) result.kept.resize(1);
    for (Index m = 1; m < schedule_.steps; ++m) {
      std::vector<Path> candidates;
      for (Index parent = 0; parent < static_cast<Index>(result.kept.size()); ++parent) {
        const Path& above = result.kept[at(parent)];
        for (const brute_force::Choice& choice : choices(m, row, above)) {
          if (m < schedule_.steps - 1 && choice.span.empty()) continue;
          result.scored.push_back(choice.anchor);
          Path path{above.score + score(m, row, choice.anchor), choice.span, choice.nominal,
                    above.anchors, parent};
          path.anchors.push_back(choice.anchor);
          if (!std::isnan(path.score)) candidates.push_back(path);
        }
      }
      result.kept.clear();
      while (!candidates.empty() && static_cast<Index>(result.kept.size()) < schedule_.top_k) {
        const auto best = std::min_element(candidates.begin(), candidates.end(), ranks_before);
        result.kept.push_back(*best);
        candidates.erase(best);
      }
    }
    result.keys_attended = window(row).length();
    for (const Path& path : result.kept) result.keys_attended += path.span.length();
    return result;
  }

  /// Softmax attention over the keys that `holds`.
  template <class Holds>
  Attended attend(Index row, Holds holds) const {
    const Index d = problem_.sizes.head_dim;
    const double scale = problem_.softmax_scale.value_or(1 / std::sqrt(static_cast<double>(d)));
    Attended result{std::vector<double>(at(d), 0)};
    double sum = 0;
    for (Index j = 0; j < problem_.sizes.keys; ++j) {
      if (!holds(j)) continue;
      const Index kv = problem_.kv_row(row, j);
      const double weight = std::exp(scale * dot(problem_.query, row, problem_.key, kv, d));
      sum += weight;
      for (Index c = 0; c < d; ++c) {
        result.output[at(c)] += weight * static_cast<double>(problem_.value[at(kv * d + c)]);
      }
    }
    if (sum > 0) {
      for (double& x : result.output) x /= sum;
    }
    result.lse = std::log(sum);
    return result;
  }

  /// Over the keys that the span or the window holds.
  Attended attend(Index row, Span span, Span window) const {
    return attend(row, [&](Index j) { return span.contains(j) || window.contains(j); });
  }

  /// Search, attend, combine for every row: [batch, num_heads, L_q, head_dim].
  std::vector<double> attention() const {
    std::vector<double> output;
    for (Index row = 0; row < problem_.sizes.rows(); ++row) {
      std::vector<double> sum(at(problem_.sizes.head_dim), 0);
      const std::vector<Path> kept = search(row).kept;
      double total = 0;
      for (const Path& path : kept) total += std::exp(path.score);
      for (const Path& path : kept) {
        const Attended part = attend(row, path.span, window(row));
        for (std::size_t c = 0; c < sum.size(); ++c) {
          sum[c] += std::exp(path.score) / total * part.output[c];
        }
      }
      if (kept.empty()) sum = attend(row, {}, window(row)).output;
      output.insert(output.end(), sum.begin(), sum.end());
    }
    return output;
  }

 private:
  static bool ranks_before(const Path& a, const Path& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.anchors.back() != b.anchors.back()) return a.anchors.back() < b.anchors.back();
    return a.parent < b.parent;
  }

  std::vector<brute_force::Choice> choices(Index m, Index row, const Path& above) const {
    if (m > 1) return definition_.inner_choices(m, above.span, above.nominal);
    return definition_.first_choices(problem_.position_of(row),
                                     problem_.start_of(problem_.batch_of(row)));
  }

  double score(Index m, Index row, Index key) const {
    return problem_.search_scale * dot(problem_.routing[at(m - 1)], row, problem_.searched(),
                                       problem_.kv_row(row, key), problem_.sizes.head_dim);
  }

  const Problem<T>& problem_;
  multistep::Schedule schedule_;
  brute_force::Definition definition_;
};

}  // namespace naive
