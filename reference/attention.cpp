#include "multistep/attention.hpp"

#include <chrono>

#include "shape.hpp"

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

}  // namespace

template <class T>
AttentionResult attention(const AttentionArgs<T>& args, const Progress& progress) {
  constexpr Index kChunk = 4096;  // queries of one head taken at a time
  const Shape& whole = args.shape;
  const Rows rows(whole);
  require_attention(args, rows);
  const StripePlan& plan = *args.plan;
  const Index d = whole.head_dim;

  AttentionResult result;
  result.output.assign(at(rows.count() * d), 0);
  for (Index row = 0, count = 0; row < rows.count(); row += count) {
    // A chunk is a problem of one head whose keys are all of the head's.
    count = std::min(kChunk, whole.queries - row % whole.queries);
    const Index length = rows.position(row) + count;
    if (length <= 0) continue;  // no query of the chunk has a key
    const Index kv = rows.kv_row(row, 0) * d;
    const Index start = rows.start(row);
    const Shape shape{1, 1, 1, count, whole.keys, d, 0, &start, &length};

    Stopwatch watch;
    SpanSearchArgs<T> search{shape, &plan, args.routing_queries,
                             (args.search_keys ? args.search_keys : args.key) + kv,
                             args.search_scale};
    for (const T*& level : search.routing_queries) level += row * d;
    const Selection selection = span_search(search);
    result.seconds.search += watch.lap();

    const std::vector<Span> windows = windows_of(plan, shape);
    const SpanAttentionResult spans = span_attention<T>(
        {shape, args.query + row * d, args.key + kv, args.value + kv, selection.top_k,
         selection.spans.data(), windows.data(), args.softmax_scale});
    result.seconds.attend += watch.lap();

    const std::vector<Index> used = slots_in_use(selection.count);
    const std::vector<double> output = combine(
        {count, selection.top_k, d, used.data(), selection.scores.data(), spans.output.data()});
    std::copy(output.begin(), output.end(), result.output.begin() + row * d);
    for (const WorkCount& work : selection.work) result.work += work;
    result.seconds.combine += watch.lap();

    if (progress && !progress(row + count, rows.count())) throw Cancelled();
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

template AttentionResult attention(const AttentionArgs<float>&, const Progress&);
template AttentionResult attention(const AttentionArgs<double>&, const Progress&);
template AttentionResult dense_attention(AttentionArgs<float>);
template AttentionResult dense_attention(AttentionArgs<double>);

}  // namespace multistep
