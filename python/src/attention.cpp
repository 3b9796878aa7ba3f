#include "multistep/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"
#include "multistep/gradients.hpp"
#include "parallel.hpp"
#include "problem.hpp"

namespace multistep::python {
namespace {

/// What attention() tells: the output, and what was kept on the way to it.
struct Results {
  std::vector<double> output;  // [batch, num_heads, L_q, head_dim]
  std::vector<double> lse;     // [batch, num_heads, L_q, top_k], of span and window
  std::vector<Index> spans;    // [batch, num_heads, L_q, top_k, 2]
  std::vector<double> scores;  // [batch, num_heads, L_q, top_k]
  std::vector<Index> anchors;  // [batch, num_heads, L_q, top_k, N - 1]
  WorkCount work;
};

/// Runs body(task) over [0, tasks) in parallel, a piece at a time: after each the errand may end.
template <class Body>
void in_pieces(Index tasks, Errand& errand, Body&& body) {
  using Clock = std::chrono::steady_clock;
  Index piece = 16;
  for (Index from = 0; from < tasks;) {
    const Clock::time_point begin = Clock::now();
    const Index count = std::min(piece, tasks - from);
    parallel_blocks(count, 1, [&] {
      return [&](Index at, Index) {
        errand.check();
        body(from + at);
      };
    });
    from += count;
    errand.report(from, tasks);
    const std::chrono::duration<double> took = Clock::now() - begin;
    if (took.count() < 0.05) piece *= 2;
    if (took.count() > 0.2) piece = std::max<Index>(1, piece / 2);
  }
}

/// About how many products a query takes: the spans and the window of every slot, or every key.
template <class T>
double products_of_query(const AttentionArgs<T>& args) {
  const auto keys = static_cast<double>(args.shape.keys);
  const Index last = longest(args.shape) - 1;
  const auto window = static_cast<double>(args.plan->window(last, 0).length());
  const auto slots = static_cast<double>(args.plan->schedule().top_k);
  return static_cast<double>(args.shape.head_dim) *
         std::min(keys, slots * (window + 3 * std::sqrt(keys)) + 1);
}

/// Queries taken at a time, in [low, high], so that they take about `products`.
Index queries_of_task(double products, double of_query, Index low, Index high) {
  return static_cast<Index>(
      std::clamp(products / of_query, static_cast<double>(low), static_cast<double>(high)));
}

/// search, attend, combine for queries of one head: attention() of the reference, which keeps to
/// itself what was kept.
template <class T>
void attend_part(const AttentionArgs<T>& whole, const Rows& rows, Index row, Index count,
                 Results& results) {
  const Index start = rows.start(row);
  const Index length = rows.position(row) + count;
  if (length <= 0) return;  // none of them has a key
  const AttentionArgs<T> part = part_of(whole, rows, row, count, &start, &length);
  const Index d = part.shape.head_dim;
  const Selection selection = span_search(search_of(part));
  const std::vector<Span> windows = windows_of(*part.plan, part.shape);
  const SpanAttentionResult spans =
      span_attention<T>({part.shape, part.query, part.key, part.value, selection.top_k,
                         selection.spans.data(), windows.data(), part.softmax_scale});
  const std::vector<Index> used = slots_in_use(selection.count);
  const std::vector<double> output = combine(
      {count, selection.top_k, d, used.data(), selection.scores.data(), spans.output.data()});

  const Index slot = row * selection.top_k;
  std::copy(output.begin(), output.end(), results.output.begin() + row * d);
  std::copy(spans.lse.begin(), spans.lse.end(), results.lse.begin() + slot);
  std::copy(selection.scores.begin(), selection.scores.end(), results.scores.begin() + slot);
  std::copy(selection.anchors.begin(), selection.anchors.end(),
            results.anchors.begin() + slot * selection.levels);
  const std::vector<Index> ends = flat(selection.spans);
  std::copy(ends.begin(), ends.end(), results.spans.begin() + 2 * slot);
#pragma omp critical(multistep_python_work)
  for (const WorkCount& work : selection.work) results.work += work;
}

template <class T>
Results attend(const AttentionArgs<T>& args, Errand& errand) {
  const Rows rows(args.shape);
  const Index slots = rows.count() * args.plan->schedule().top_k;
  Results results;
  results.output.assign(at(rows.count() * args.shape.head_dim), 0);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  results.lse.assign(at(slots), -kInfinity);
  results.scores.assign(at(slots), -kInfinity);
  results.spans.assign(at(2 * slots), 0);
  results.anchors.assign(at(slots * (args.plan->steps() - 1)), -1);
  if (rows.count() == 0) return results;

  const Index queries = args.shape.queries;
  const Index block = queries_of_task(0x1p20, products_of_query(args), 1, 16);
  const Index blocks = (queries + block - 1) / block;
  in_pieces(args.shape.batch * args.shape.num_heads * blocks, errand, [&](Index task) {
    const Index first = task % blocks * block;
    attend_part(args, rows, task / blocks * queries + first, std::min(block, queries - first),
                results);
  });
  return results;
}

nb::tuple attention_of(const Inputs& inputs) {
  const Shape s = inputs.shape();
  Results results = with_type(inputs.query, [&](auto zero) {
    const AttentionArgs<decltype(zero)> args = inputs.args<decltype(zero)>();
    return interruptible(is_short(s), nb::handle(),
                         [&](Errand& errand) { return attend(args, errand); });
  });
  const Index k = inputs.plan->schedule().top_k;
  const Index levels = inputs.plan->steps() - 1;
  return nb::make_tuple(
      to_numpy(std::move(results.output), {s.batch, s.num_heads, s.queries, s.head_dim}),
      to_numpy(std::move(results.lse), {s.batch, s.num_heads, s.queries, k}),
      to_numpy(std::move(results.spans), {s.batch, s.num_heads, s.queries, k, 2}),
      to_numpy(std::move(results.scores), {s.batch, s.num_heads, s.queries, k}),
      to_numpy(std::move(results.anchors), {s.batch, s.num_heads, s.queries, k, levels}),
      nb::make_tuple(results.work.anchors_scored, results.work.keys_attended));
}

/// Gradients in double, arrays of the inputs' shapes.
struct Gradients {
  std::vector<double> query, key, value, search_keys;
  std::vector<std::vector<double>> routing;
};

void add(std::vector<double>& to, Index offset, const std::vector<double>& values) {
  for (std::size_t i = 0; i < values.size(); ++i) to[at(offset) + i] += values[i];
}

/// attention_backward() by pieces of one head's queries. Heads that share keys run one after
/// another and the pieces depend on sizes alone: so do the sums, not on the number of threads.
template <class T>
Gradients differentiate(const AttentionArgs<T>& args, const double* output_gradient,
                        Errand& errand) {
  const Rows rows(args.shape);
  const Shape& s = args.shape;
  const Index d = s.head_dim;
  const auto of_queries = std::vector<double>(at(rows.count() * d), 0);
  const auto of_keys = std::vector<double>(at(s.batch * s.num_kv_heads * s.keys * d), 0);
  Gradients sums{of_queries, of_keys, of_keys, of_keys,
                 std::vector<std::vector<double>>(args.routing_queries.size(), of_queries)};
  if (rows.count() == 0) return sums;
  const Index group_rows = s.num_heads / s.num_kv_heads * s.queries;
  const Index piece_rows = queries_of_task(0x1p24, products_of_query(args), 16, 512);
  parallel_blocks(s.batch * s.num_kv_heads, 1, [&] {
    return [&](Index kv_head, Index) {
      const Index past = (kv_head + 1) * group_rows;
      for (Index row = kv_head * group_rows; row < past;) {
        errand.check();
        const Index count = std::min(piece_rows, s.queries - row % s.queries);
        const Index start = rows.start(row);
        const Index seen = rows.position(row) + count;  // later keys have no part in this piece
        if (seen <= 0) {
          row += count;
          continue;
        }
        AttentionArgs<T> part = part_of(args, rows, row, count, &start, &seen);
        part.shape.keys = seen;
        const AttentionGradients piece = attention_backward(part, output_gradient + row * d);
        const Index kv = rows.kv_row(row, 0) * d;
        add(sums.query, row * d, piece.attention.query);
        add(sums.key, kv, piece.attention.key);
        add(sums.value, kv, piece.attention.value);
        add(sums.search_keys, kv, piece.search.search_keys);
        for (std::size_t m = 0; m < sums.routing.size(); ++m) {
          add(sums.routing[m], row * d, piece.search.routing_queries[m]);
        }
        row += count;
      }
    };
  });
  return sums;
}

/// Derivatives by q, k, v, the routing queries (a list) and the search keys. Where these are the
/// keys themselves, the caller adds the last to the second.
nb::tuple gradients_of(const Inputs& inputs, const Array& output_gradient) {
  const Shape s = inputs.shape();
  const double* by_output = elements<double>(output_gradient, "output_gradient",
                                             {s.batch, s.num_heads, s.queries, s.head_dim});
  Gradients sums = with_type(inputs.query, [&](auto zero) {
    const AttentionArgs<decltype(zero)> args = inputs.args<decltype(zero)>();
    return interruptible(is_short(s), nb::handle(),
                         [&](Errand& errand) { return differentiate(args, by_output, errand); });
  });
  const auto of_queries = [&](std::vector<double>& values) {
    return to_numpy(std::move(values), {s.batch, s.num_heads, s.queries, s.head_dim});
  };
  const auto of_keys = [&](std::vector<double>& values) {
    return to_numpy(std::move(values), {s.batch, s.num_kv_heads, s.keys, s.head_dim});
  };
  nb::list routing;
  for (std::vector<double>& level : sums.routing) routing.append(of_queries(level));
  return nb::make_tuple(of_queries(sums.query), of_keys(sums.key), of_keys(sums.value), routing,
                        of_keys(sums.search_keys));
}

}  // namespace

void bind_attention(nb::module_& core) {
  nb::class_<Inputs>(core, "Inputs")
      .def_ro("query_offset", &Inputs::query_offset)
      .def(
          "__init__",
          [](Inputs* self, const StripePlan* plan, Array q, Array k, Array v,
             std::vector<Array> routing, MaybeArray search_keys, MaybeArray start,
             MaybeArray length, Index query_offset, double search_scale,
             std::optional<double> softmax_scale) {
            new (self) Inputs{plan,
                              std::move(q),
                              std::move(k),
                              std::move(v),
                              std::move(routing),
                              std::move(search_keys),
                              std::move(start),
                              std::move(length),
                              query_offset,
                              search_scale,
                              softmax_scale};
          },
          nb::keep_alive<1, 2>(), nb::arg(), nb::arg().noconvert(), nb::arg().noconvert(),
          nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert().none(),
          nb::arg().noconvert().none(), nb::arg().noconvert().none(), nb::arg(), nb::arg(),
          nb::arg().none());
  core.def("attention", &attention_of);
  core.def("attention_backward", &gradients_of, nb::arg(), nb::arg().noconvert());
}

}  // namespace multistep::python
