#include <list>
#include <span>

#include "arrays.hpp"
#include "core.hpp"
#include "fields.hpp"
#include "interrupt.hpp"
#include "multistep/judge_gradients.hpp"
#include "problem.hpp"
#include "stages/part.hpp"

/// The judge of the library on what anybody's kernel gave.
namespace multistep::python {
namespace {

/// What was handed in, for all rows; whatever is missing is not judged.
struct Results {
  MaybeArray spans;          // [rows, top_k, 2]
  MaybeArray scores;         // [rows, top_k]
  MaybeArray anchors;        // [rows, top_k, N - 1]
  MaybeArray span_outputs;   // [rows, top_k, head_dim]
  MaybeArray lse;            // [rows, top_k]
  MaybeArray window_output;  // [rows, head_dim]
  MaybeArray window_lse;     // [rows]
  MaybeArray output;         // [rows, head_dim]
};

/// The same as plain arrays, all rows of them.
struct Whole {
  std::vector<Span> spans;
  Submission given;

  Whole(const Results& results, Index rows, Index top_k, Index levels, Index head_dim) {
    if (const Index* ends = elements<Index>(results.spans, "spans", {rows, top_k, 2})) {
      for (Index i = 0; i < rows * top_k; ++i) spans.push_back({ends[2 * i], ends[2 * i + 1]});
      given.spans = spans.data();
    }
    given.scores = elements<double>(results.scores, "scores", {rows, top_k});
    given.anchors = elements<Index>(results.anchors, "anchors", {rows, top_k, levels});
    given.span_outputs =
        elements<double>(results.span_outputs, "span_outputs", {rows, top_k, head_dim});
    given.span_lses = elements<double>(results.lse, "lse", {rows, top_k});
    given.window_output =
        elements<double>(results.window_output, "window_output", {rows, head_dim});
    given.window_lse = elements<double>(results.window_lse, "window_lse", {rows});
    given.output = elements<double>(results.output, "output", {rows, head_dim});
  }
};

/// The rows of a sample, copied out of arrays of all rows.
class Sample {
 public:
  Sample(const Submission& whole, std::span<const Index> rows, Index top_k, Index levels,
         Index head_dim)
      : rows_(rows) {
    given.spans = pick(whole.spans, top_k, spans_);
    given.scores = pick(whole.scores, top_k, values_.emplace_back());
    given.anchors = pick(whole.anchors, top_k * levels, anchors_);
    given.span_outputs = pick(whole.span_outputs, top_k * head_dim, values_.emplace_back());
    given.span_lses = pick(whole.span_lses, top_k, values_.emplace_back());
    given.window_output = pick(whole.window_output, head_dim, values_.emplace_back());
    given.window_lse = pick(whole.window_lse, 1, values_.emplace_back());
    given.output = pick(whole.output, head_dim, values_.emplace_back());
  }

  Submission given;

 private:
  template <class T>
  const T* pick(const T* from, Index width, std::vector<T>& to) const {
    if (!from) return nullptr;
    to.reserve(rows_.size() * at(width) + 1);  // not null, whatever the width
    for (const Index row : rows_) to.insert(to.end(), from + row * width, from + (row + 1) * width);
    return to.data();
  }

  std::span<const Index> rows_;
  std::vector<Span> spans_;
  std::vector<Index> anchors_;
  std::list<std::vector<double>> values_;
};

template <class T>
void look_at_all(Judge& judge, const AttentionArgs<T>& args, Storage storage,
                 const Submission& whole) {
  const AllRows<T> all(args, storage);
  const Index k = args.plan->schedule().top_k;
  const Index d = args.shape.head_dim;
  if (whole.scores) judge.found("search", all.items(whole.scores, nullptr, k, 1, false));
  if (whole.spans && whole.span_outputs) {
    judge.found("span attention", all.items(whole.span_outputs, whole.spans, k, d, true));
  }
  if (whole.spans && whole.span_lses) {
    judge.found("span lse", all.items(whole.span_lses, whole.spans, k, 1, false));
  }
  if (whole.window_output) {
    judge.found("window attention", all.items(whole.window_output, nullptr, 1, d, true));
  }
  if (whole.window_lse) {
    judge.found("window lse", all.items(whole.window_lse, nullptr, 1, 1, false));
  }
  if (whole.output) {
    for (const char* stage : {"combination", "output"})
      judge.found(stage, all.output(whole.output));
  }
}

/// Derivatives of a loss, by the output and by what attention was given.
struct Gradients {
  MaybeArray output;           // [batch, num_heads, L_q, head_dim], given
  MaybeArray query;            // the same
  MaybeArray key;              // [batch, num_kv_heads, L_kv, head_dim]
  MaybeArray value;            // the same
  std::vector<Array> routing;  // [N - 1] of query's shape, or none
  MaybeArray search_keys;      // key's shape
};

/// What was handed in, up to the first path of a row whose keys are not eligible; the oracle's
/// where a part of it is missing.
template <class T>
Selection selection_for(const AttentionArgs<T>& args, const Submission& given) {
  const Index levels = args.plan->steps() - 1;
  if (levels == 0 || !given.spans || !given.scores || !given.anchors) {
    return span_search(search_of(args));
  }
  const Rows rows(args.shape);
  Selection selection = selection_of(given, rows.count(), args.plan->schedule().top_k, levels);
  for (Index row = 0; row < rows.count(); ++row) {
    const Span eligible{rows.start(row), rows.position(row) + 1};
    const auto usable = [&](Index slot) {
      const Span span = selection.spans[at(slot)];
      bool inside = span.empty() || (span.begin >= eligible.begin && span.end <= eligible.end);
      for (Index m = 0; m < levels; ++m) {
        inside = inside && eligible.contains(selection.anchors[at(slot * levels + m)]);
      }
      return inside;
    };
    Index used = 0;
    while (used < selection.count[at(row)] && usable(row * selection.top_k + used)) ++used;
    selection.count[at(row)] = used;
  }
  return selection;
}

template <class T>
JudgeReport judge_gradients_of(const AttentionArgs<T>& args, std::span<const Index> rows,
                               Storage storage, const Submission& found, const Gradients& gradients,
                               std::uint64_t seed, const Progress& progress) {
  const Shape& s = args.shape;
  const auto of_queries = [&](const auto& array, const char* name) {
    return elements<double>(array, name, {s.batch, s.num_heads, s.queries, s.head_dim});
  };
  const auto of_keys = [&](const MaybeArray& array, const char* name) {
    return elements<double>(array, name, {s.batch, s.num_kv_heads, s.keys, s.head_dim});
  };
  const Selection selection = selection_for(args, found);
  SubmittedGradients<T> given;
  given.attention = args;
  given.selection = &selection;
  given.by_result.output = of_queries(gradients.output, "output_gradient");
  given.query = of_queries(gradients.query, "gradient by q");
  given.key = of_keys(gradients.key, "gradient by k");
  given.value = of_keys(gradients.value, "gradient by v");
  for (const Array& level : gradients.routing) {
    given.routing_queries.push_back(of_queries(level, "gradient by routing_queries"));
  }
  given.search_keys = of_keys(gradients.search_keys, "gradient by search_keys");
  const std::vector<Index> keys =
      sample_keys(s, *args.plan, selection, static_cast<Index>(rows.size()), seed);
  return judge_gradients(given, storage, rows, keys, progress);
}

/// The report as JSON and as a table; `seed`: of the keys whose gradients are judged.
std::pair<std::string, std::string> judge(const Inputs& inputs, const Array& rows,
                                          const std::string& storage_name, const Results& results,
                                          const Gradients* gradients, std::uint64_t seed) {
  const Storage storage = parse_storage(storage_name);
  const auto count = static_cast<Index>(rows.size());
  const std::span<const Index> sample(elements<Index>(rows, "rows", {count}), rows.size());
  return with_type(inputs.query, [&](auto zero) {
    using T = decltype(zero);
    const AttentionArgs<T> args = inputs.args<T>();
    const Index k = args.plan->schedule().top_k;
    const Index levels = args.plan->steps() - 1;
    const Index d = args.shape.head_dim;
    Shape sampled = args.shape;
    sampled.batch = sampled.num_heads = sampled.num_kv_heads = 1;
    sampled.queries = count;
    const JudgeReport report = interruptible(is_short(sampled), nb::handle(), [&](Errand& errand) {
      const Whole whole(results, args.shape.rows(), k, levels, d);
      const Sample some(whole.given, sample, k, levels, d);
      Judge judge = judge_sample(args, sample, storage, some.given, errand.progress());
      look_at_all(judge, args, storage, whole.given);
      const JudgeReport values = judge.report();
      if (!gradients) return values;
      return with_gradients(values, judge_gradients_of(args, sample, storage, whole.given,
                                                       *gradients, seed, errand.progress()));
    });
    return std::pair(report.json(), report.table());
  });
}

/// Rows to judge where nothing else is said: `count`, or what a few seconds allow for.
nb::ndarray<nb::numpy, Index> sample(const Inputs& inputs, std::optional<Index> count,
                                     std::uint64_t seed) {
  const Shape shape = inputs.shape();
  const StripePlan& plan = *inputs.plan;
  std::vector<Index> rows =
      sample_rows(shape, plan, count ? *count : affordable_rows(shape, plan), seed);
  const Index number = std::ssize(rows);
  return to_numpy(std::move(rows), {number});
}

}  // namespace

void bind_compare(nb::module_& core) {
  auto results = bind_arguments<Results>(core, "Results");
  bind_field(results, "spans", &Results::spans);
  bind_field(results, "scores", &Results::scores);
  bind_field(results, "anchors", &Results::anchors);
  bind_field(results, "span_outputs", &Results::span_outputs);
  bind_field(results, "lse", &Results::lse);
  bind_field(results, "window_output", &Results::window_output);
  bind_field(results, "window_lse", &Results::window_lse);
  bind_field(results, "output", &Results::output);
  auto gradients = bind_arguments<Gradients>(core, "Gradients");
  bind_field(gradients, "output", &Gradients::output);
  bind_field(gradients, "q", &Gradients::query);
  bind_field(gradients, "k", &Gradients::key);
  bind_field(gradients, "v", &Gradients::value);
  bind_field(gradients, "routing_queries", &Gradients::routing);
  bind_field(gradients, "search_keys", &Gradients::search_keys);
  core.def("judge", &judge, nb::arg(), nb::arg().noconvert(), nb::arg(), nb::arg(),
           nb::arg().none(), nb::arg());
  core.def("sample_rows", &sample, nb::arg(), nb::arg().none(), nb::arg());
}

}  // namespace multistep::python
