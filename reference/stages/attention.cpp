#include "multistep/attention.hpp"

#include <omp.h>

#include <chrono>
#include <cmath>

#include "stages/attend_row.hpp"
#include "stages/part.hpp"
#include "stages/stage_gradients.hpp"
#include "support/parallel.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

class Stopwatch {
 public:
  /// Seconds since the last call.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double> passed = now - last_;
    last_ = now;
    return passed.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// Queries of one head taken at a time, so that they take about `products`: the spans and the
/// window of every slot, or every key. Sizes alone decide.
template <class T>
Index queries_at_once(const AttentionArgs<T>& args, double products, Index low, Index high) {
  const auto keys = static_cast<double>(args.shape.keys);
  const auto window =
      static_cast<double>(args.plan->window(args.plan->max_length() - 1, 0).length());
  const auto slots = static_cast<double>(args.plan->schedule().top_k);
  const double of_query = static_cast<double>(args.shape.head_dim) *
                          std::min(keys, slots * (window + 3 * std::sqrt(keys)) + 1);
  return static_cast<Index>(
      std::clamp(products / of_query, static_cast<double>(low), static_cast<double>(high)));
}

/// Search, attend, combine for queries of one head.
template <class T>
struct Composition {
  AttentionArgs<T> part;
  Selection selection;
  std::vector<Span> windows;
  Items spans;
  Items window;
  StageSeconds seconds;

  Composition(AttentionArgs<T> args, std::optional<Selection> given) : part(std::move(args)) {
    Stopwatch watch;
    selection = given ? std::move(*given) : span_search(search_of(part));
    seconds.search = watch.lap();
    windows = query_windows(*part.plan, part.shape);
    spans = span_attention(attend_spans());
    window = span_attention(attend_window());
    seconds.attend = watch.lap();
  }

  SpanAttentionArgs<T> attend_spans() const {
    return attend_of(part, selection.top_k, selection.spans.data(), windows);
  }
  SpanAttentionArgs<T> attend_window() const { return attend_of(part, 1, nullptr, windows); }
  CombineArgs combination() const {
    return {part.shape.rows(),      selection.top_k,         part.shape.head_dim,
            selection.count.data(), selection.scores.data(), spans.output.data(),
            spans.lse.data(),       window.output.data(),    window.lse.data()};
  }
};

}  // namespace

WorkCount AttentionResult::work() const {
  WorkCount sum;
  for (const WorkCount& row : selection.work) sum += row;
  return sum;
}

template <class T>
AttentionResult attention(const AttentionArgs<T>& args, const Progress& progress) {
  const Shape& whole = args.shape;
  const Rows rows(whole);
  require_attention(args, rows);
  const Index d = whole.head_dim;
  const Index top_k = args.plan->schedule().top_k;

  AttentionResult result;
  result.output.assign(at(rows.count() * d), 0);
  result.selection = no_paths(rows.count(), top_k, args.plan->steps() - 1);
  result.lse.assign(at(rows.count() * top_k), -kInfinity);
  result.window_lse.assign(at(rows.count()), -kInfinity);
  if (rows.count() == 0) return result;

  const Index block = std::min(whole.queries, queries_at_once(args, 0x1p20, 1, 16));
  const Index blocks = (whole.queries + block - 1) / block;  // of a head
  const Index tasks = whole.batch * whole.num_heads * blocks;
  Watch watch(progress, rows.count());
  parallel_blocks(tasks, 1, [&] {
    return [&](Index task, Index) {
      const Index first = task % blocks * block;
      const Index row = task / blocks * whole.queries + first;
      const Index count = std::min(block, whole.queries - first);
      const Place place(rows, row, count);
      Composition<T> composed(part_of(args, rows, place), {});
      Stopwatch stopwatch;
      const std::vector<double> output = combine(composed.combination());
      composed.seconds.combine = stopwatch.lap();
      std::copy(output.begin(), output.end(), result.output.begin() + row * d);
      std::copy(composed.spans.lse.begin(), composed.spans.lse.end(),
                result.lse.begin() + row * top_k);
      std::copy(composed.window.lse.begin(), composed.window.lse.end(),
                result.window_lse.begin() + row);
      put(composed.selection, row, result.selection);
#pragma omp critical(multistep_seconds)
      {
        result.seconds.search += composed.seconds.search;
        result.seconds.attend += composed.seconds.attend;
        result.seconds.combine += composed.seconds.combine;
      }
      watch.add(count);
    };
  });
  watch.finish();
  const auto threads = static_cast<double>(std::min<Index>(omp_get_max_threads(), tasks));
  for (double* seconds :
       {&result.seconds.search, &result.seconds.attend, &result.seconds.combine}) {
    *seconds /= threads;
  }
  return result;
}

template <class T>
AttentionResult dense_attention(AttentionArgs<T> args) {
  const Rows checked(args.shape);
  const StripePlan dense(Schedule{1, {}, 0, 1}, std::max<Index>(longest(args.shape), 1));
  args.plan = &dense;
  args.routing_queries.clear();
  return attention(args);
}

namespace {

void add(const double* from, std::vector<double>& to) {
  for (std::size_t i = 0; from && i < to.size(); ++i) to[i] += from[i];
}

/// The derivatives of queries [row, row + count) of one head, added to the whole's.
template <class T>
void add_part(const AttentionArgs<T>& args, const Rows& rows, Index row, Index count,
              const AttentionResultGradients& by_result, const Selection* selection,
              AttentionGradients& sums) {
  const Place place(rows, row, count);
  const Index d = args.shape.head_dim;
  std::optional<Selection> given;
  if (selection) given = part_of(*selection, row, count);
  const Composition<T> composed(part_of(args, rows, place), std::move(given));
  const Selection& chosen = composed.selection;
  const auto from = [&](const double* array, Index width) {
    return array ? array + row * width : nullptr;
  };

  const std::vector<double> zeros(at(by_result.output ? 0 : count * d), 0);
  CombineGradients by_items = combine_backward(
      composed.combination(), by_result.output ? by_result.output + row * d : zeros.data());
  add(from(by_result.lse, chosen.top_k), by_items.lses);
  add(from(by_result.window_lse, 1), by_items.window_lse);
  add(from(by_result.scores, chosen.top_k), by_items.scores);

  const Index kv = rows.kv_row(row, 0) * d;
  const AttendSums attend{sums.attention.query.data() + row * d, sums.attention.key.data() + kv,
                          sums.attention.value.data() + kv};
  add_gradients(composed.attend_spans(), by_items.outputs.data(), by_items.lses.data(), attend);
  add_gradients(composed.attend_window(), by_items.window_output.data(), by_items.window_lse.data(),
                attend);
  SearchSums search{{}, sums.search.search_keys.data() + kv};
  for (std::vector<double>& level : sums.search.routing_queries) {
    search.routing_queries.push_back(level.data() + row * d);
  }
  add_gradients(search_of(composed.part), chosen, by_items.scores.data(), search);
}

}  // namespace

template <class T>
AttentionGradients attention_backward(const AttentionArgs<T>& args,
                                      const AttentionResultGradients& by_result,
                                      const Selection* selection, const Progress& progress) {
  const Shape& shape = args.shape;
  const Rows rows(shape);
  require_attention(args, rows);
  if (selection) require_given(rows, *selection, args.plan->steps() - 1);

  const auto of_queries = std::vector<double>(at(query_values(shape)), 0);
  const auto of_keys = std::vector<double>(at(key_values(shape)), 0);
  AttentionGradients sums{
      {of_queries, of_keys, of_keys},
      {std::vector<std::vector<double>>(args.routing_queries.size(), of_queries), of_keys}};
  if (rows.count() == 0) return sums;
  const Index group_rows = shape.num_heads / shape.num_kv_heads * shape.queries;
  const Index at_once = queries_at_once(args, 0x1p22, 1, 512);
  Watch watch(progress, rows.count());
  parallel_blocks(shape.batch * shape.num_kv_heads, 1, [&] {
    return [&](Index kv_head, Index) {
      for (Index row = kv_head * group_rows; row < (kv_head + 1) * group_rows;) {
        const Index count = std::min(at_once, shape.queries - row % shape.queries);
        add_part(args, rows, row, count, by_result, selection, sums);
        watch.add(count);
        row += count;
      }
    };
  });
  watch.finish();
  return sums;
}

template AttentionResult attention(const AttentionArgs<float>&, const Progress&);
template AttentionResult attention(const AttentionArgs<double>&, const Progress&);
template AttentionResult dense_attention(AttentionArgs<float>);
template AttentionResult dense_attention(AttentionArgs<double>);
template AttentionGradients attention_backward(const AttentionArgs<float>&,
                                               const AttentionResultGradients&, const Selection*,
                                               const Progress&);
template AttentionGradients attention_backward(const AttentionArgs<double>&,
                                               const AttentionResultGradients&, const Selection*,
                                               const Progress&);

}  // namespace multistep
