#include "multistep/gradients.hpp"
#include "schedule/property.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::at;
using inputs::distance;
using inputs::kNaN;
using inputs::Problem;
using inputs::Random;
using inputs::same_bits;
using inputs::Values;

namespace {

// Two softmaxes over at most 80 keys of size 1, and their gated sum.
constexpr double kTolerance = 1e-13;

/// Three steps, a window, overlapping spans: every stage has something to do.
Schedule busy_schedule() {
  Schedule schedule = preset_schedule("nstep", 3);
  schedule.levels[1] = default_level(Rule::power, 2);
  schedule.window_index = 1;
  return schedule;
}

std::vector<double> row_of(const std::vector<double>& output, Index row, Index head_dim) {
  const auto begin = output.begin() + row * head_dim;
  return {begin, begin + head_dim};
}

/// The heads of [heads, length, width] in the order given.
template <class T>
std::vector<T> reordered(const std::vector<T>& array, const std::vector<Index>& order) {
  const Index size = static_cast<Index>(array.size() / order.size());
  std::vector<T> result;
  for (const Index head : order) {
    result.insert(result.end(), array.begin() + head * size, array.begin() + (head + 1) * size);
  }
  return result;
}

/// A copy whose first element lies `shift` elements past a 64-byte boundary.
template <class T>
class Shifted {
 public:
  Shifted(const std::vector<T>& array, std::size_t shift) : storage_(array.size() + 64 + shift) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
    data_ = storage_.data() + (64 - address % 64) % 64 / sizeof(T) + shift;
    std::copy(array.begin(), array.end(), data_);
  }
  const T* data() const { return data_; }

 private:
  std::vector<T> storage_;
  T* data_;
};

template <class T>
std::vector<double> attention_at_shift(const Problem<T>& problem, std::size_t shift) {
  AttentionArgs<T> args = problem.attention();
  const Shifted<T> query(problem.query, shift);
  const Shifted<T> key(problem.key, shift);
  const Shifted<T> value(problem.value, shift);
  const Shifted<T> search_keys(problem.search_keys, shift);
  const Shifted<T> first(problem.routing.at(0), shift);
  const Shifted<T> second(problem.routing.at(1), shift);
  args.query = query.data();
  args.key = key.data();
  args.value = value.data();
  args.search_keys = search_keys.data();
  args.routing_queries = {first.data(), second.data()};
  return attention(args).output;
}

}  // namespace

TEST_CASE("Attention is search, span attention and combination in turn", "[attention]") {
  const inputs::Threads one(1);
  for (Index steps = 1; steps <= 4; ++steps) {
    CAPTURE(steps);
    auto problem =
        inputs::random_problem(preset_schedule("nstep", steps), inputs::grouped_sizes(5, 60, 3, 2),
                               41, Values::exact, {0, 17});
    CHECK(distance(attention(problem.attention()).output,
                   naive::Stages<double>(problem).attention()) <= kTolerance);
    problem.search_keys.clear();  // then the keys are searched
    problem.search_scale = 0.7;
    problem.softmax_scale = 1.5;
    CHECK(distance(attention(problem.attention()).output,
                   naive::Stages<double>(problem).attention()) <= kTolerance);
  }
}

TEST_CASE("Attention with any schedule equals the naive composition", "[attention]") {
  check_property("any schedule, start and offset", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    Random random(seed);
    const Schedule schedule = inputs::random_schedule(random);
    const Shape sizes =
        inputs::grouped_sizes(5, 1 + random.below(6), random.below(40), random.below(2));
    const Values values = random.below(2) ? Values::coarse : Values::exact;
    const auto problem = inputs::random_problem(schedule, sizes, random.next(), values,
                                                {random.below(sizes.keys), random.below(3)});
    RC_ASSERT(distance(attention(problem.attention()).output,
                       naive::Stages<double>(problem).attention()) <= kTolerance);
  });
}

TEST_CASE("The composition calls its stages on nothing but their own inputs", "[attention]") {
  const auto problem = inputs::random_problem(busy_schedule(), inputs::grouped_sizes(5, 30, 8), 42,
                                              Values::rough, {3, 20});
  const Selection selection = span_search(problem.search());
  const std::vector<Span> windows = problem.windows();
  const SpanAttentionArgs<double> attend{
      problem.shape(), problem.query.data(),   problem.key.data(), problem.value.data(),
      selection.top_k, selection.spans.data(), windows.data()};
  SpanAttentionArgs<double> attend_window = attend;
  attend_window.slots = 1;
  attend_window.spans = nullptr;
  const Items spans = span_attention(attend);
  const Items window = span_attention(attend_window);
  const auto staged = combine({problem.sizes.rows(), selection.top_k, problem.sizes.head_dim,
                               selection.count.data(), selection.scores.data(), spans.output.data(),
                               spans.lse.data(), window.output.data(), window.lse.data()});
  const AttentionResult whole = attention(problem.attention());
  CHECK(same_bits(whole.output, staged));
  CHECK(same_bits(whole.lse, spans.lse));
  CHECK(same_bits(whole.window_lse, window.lse));
  CHECK(same_bits(whole.selection.scores, selection.scores));
  CHECK(whole.selection.spans == selection.spans);
  CHECK(whole.selection.anchors == selection.anchors);
  CHECK(whole.selection.count == selection.count);
  WorkCount work;
  for (const WorkCount& row : selection.work) work += row;
  CHECK(whole.work().anchors_scored == work.anchors_scored);
  CHECK(whole.work().keys_attended == work.keys_attended);
  CHECK(whole.seconds.search >= 0);
}

TEST_CASE("One step is dense causal attention", "[attention]") {
  const auto problem = inputs::random_problem(
      preset_schedule("nstep", 1), inputs::grouped_sizes(5, 40, 5, 3), 43, Values::exact, {0, 11});
  const auto dense = dense_attention(problem.attention());
  CHECK(same_bits(attention(problem.attention()).output, dense.output));
  const naive::Stages<double> stages(problem);
  std::vector<double> want;
  Index keys = 0;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const Span eligible{problem.start_of(problem.batch_of(row)), problem.position_of(row) + 1};
    const auto output = stages.attend(row, eligible, {}).output;
    want.insert(want.end(), output.begin(), output.end());
    keys += eligible.length();
  }
  CHECK(distance(dense.output, want) <= kTolerance);
  CHECK(dense.work().keys_attended == keys);
  CHECK(dense.work().anchors_scored == 0);
}

TEST_CASE("Dense attention does not look at the plan or the routing queries", "[attention]") {
  const auto problem =
      inputs::random_problem(preset_schedule("nstep", 1), inputs::grouped_sizes(5, 9), 44);
  auto args = problem.attention();
  const StripePlan sparse(preset_schedule("released"), 1);
  args.plan = &sparse;
  args.routing_queries.assign(7, nullptr);
  args.search_keys = nullptr;
  CHECK(same_bits(dense_attention(args).output, attention(problem.attention()).output));
  args.plan = nullptr;
  CHECK(same_bits(dense_attention(args).output, attention(problem.attention()).output));
}

TEST_CASE("Spans that hold every key make attention dense", "[attention]") {
  const inputs::Threads one(1);
  for (Index steps = 2; steps <= 3; ++steps) {
    for (const Index window_index : {0, 2}) {
      CAPTURE(steps, window_index);
      Schedule schedule = inputs::uniform_schedule(Rule::power, steps, window_index, 1);
      for (Level& level : schedule.levels) {
        level.backward = make_rational(1000);
        level.forward = make_rational(1000);
      }
      const auto problem = inputs::random_problem(schedule, inputs::grouped_sizes(5, 50, 0, 1), 45,
                                                  Values::exact, {0, 13});
      CHECK(distance(attention(problem.attention()).output,
                     dense_attention(problem.attention()).output) <= kTolerance);
    }
  }
}

TEST_CASE("Chunked, decoded and whole prefill give the same bits", "[attention]") {
  const inputs::Threads one(1);
  for (const char* name : {"nstep", "even", "aligned"}) {
    const Index queries = 45;
    const auto problem =
        inputs::random_problem(preset_schedule(name, 3), inputs::grouped_sizes(5, queries, 4, 3),
                               46, Values::rough, {2, 19});
    const Index heads = problem.sizes.batch * problem.sizes.num_heads;
    const Index d = problem.sizes.head_dim;
    const std::vector<double> whole = attention(problem.attention()).output;
    for (const Index step : {1, 7, 44}) {
      for (Index first = 0; first < queries; first += step) {
        CAPTURE(name, step, first);
        const Index count = std::min(step, queries - first);
        const auto part = problem.chunk(first, count);
        CHECK(same_bits(attention(part.attention()).output,
                        inputs::rows_of(whole, heads, d, first, count)));
        // No later key is read: the cache may end with the chunk.
        const auto cut = part.without_keys(0, part.sizes.query_offset + count);
        CHECK(same_bits(attention(cut.attention()).output,
                        inputs::rows_of(whole, heads, d, first, count)));
      }
    }
  }
}

TEST_CASE("Queries beyond one block of work are computed like the first", "[attention]") {
  Shape sizes;
  sizes.num_heads = 2;
  sizes.num_kv_heads = 1;
  sizes.queries = 4100;
  sizes.keys = 4100;
  sizes.head_dim = 1;
  const auto problem = inputs::random_problem(preset_schedule("nstep", 4), sizes, 47);
  std::vector<Index> reports;
  const auto whole = attention(problem.attention(), [&](Index done, Index total) {
    reports.push_back(done);
    CHECK(total == 8200);
    return true;
  });
  CHECK(!reports.empty());
  CHECK(std::is_sorted(reports.begin(), reports.end()));
  CHECK((reports.empty() ? 0 : reports.back()) == 8200);
  for (const Index first : {4090, 4096}) {
    const auto part = problem.chunk(first, 4);
    CHECK(same_bits(attention(part.attention()).output,
                    inputs::rows_of(whole.output, 2, 1, first, 4)));
  }
}

TEST_CASE("A hook that wants no more ends attention and its gradients", "[attention]") {
  const auto problem =
      inputs::random_problem(preset_schedule("nstep", 2), inputs::grouped_sizes(2, 200), 47);
  for (const Index wanted : {0, 100}) {
    Index calls = 0;
    const auto until = [&](Index done, Index) {
      ++calls;
      return done <= wanted;
    };
    CHECK_THROWS_AS(attention(problem.attention(), until), Cancelled);
    CHECK(calls < 2 + wanted);
    const std::vector<double> ones(at(problem.sizes.rows() * 2), 1);
    CHECK_THROWS_AS(attention_backward(problem.attention(), {ones.data()}, nullptr, until),
                    Cancelled);
  }
}

TEST_CASE("Float inputs give the bits of the same values in double", "[attention]") {
  const inputs::Threads one(1);
  for (const Index head_dim : {1, 3, 8, 17}) {
    CAPTURE(head_dim);
    Shape sizes = inputs::grouped_sizes(5, 30, 6, 1);
    sizes.head_dim = head_dim;
    const auto problem = inputs::random_problem(busy_schedule(), sizes, 48, Values::rough, {0, 5});
    const auto single = inputs::converted<float>(problem);
    const Selection double_search = span_search(problem.search());
    const Selection single_search = span_search(single.search());
    CHECK(same_bits(single_search.scores, double_search.scores));
    CHECK(single_search.anchors == double_search.anchors);
    CHECK(same_bits(attention(single.attention()).output, attention(problem.attention()).output));
  }
}

TEST_CASE("The alignment of the arrays does not change a bit", "[attention]") {
  const inputs::Threads one(1);
  for (const Index head_dim : {3, 8, 17}) {
    CAPTURE(head_dim);
    Shape sizes = inputs::grouped_sizes(5, 20, 6, 1);
    sizes.head_dim = head_dim;
    const auto problem = inputs::random_problem(busy_schedule(), sizes, 49, Values::rough);
    const auto single = inputs::converted<float>(problem);
    for (const std::size_t shift : {1U, 2U, 3U}) {
      CAPTURE(shift);
      CHECK(same_bits(attention_at_shift(problem, shift), attention_at_shift(problem, 0)));
      CHECK(same_bits(attention_at_shift(single, shift), attention_at_shift(single, 0)));
    }
  }
}

TEST_CASE("The number of threads does not change a bit of attention", "[attention]") {
  const auto problem = inputs::random_problem(busy_schedule(), inputs::grouped_sizes(5, 70, 3), 50,
                                              Values::rough, {0, 9});
  const auto with = [&](int threads) {
    const inputs::Threads scope(threads);
    return attention(problem.attention()).output;
  };
  CHECK(same_bits(with(1), with(4)));
}

TEST_CASE("Permuting heads permutes the output", "[attention]") {
  const auto problem = inputs::random_problem(busy_schedule(), inputs::grouped_sizes(5, 25, 3), 51,
                                              Values::rough, {0, 9});
  // In each batch entry the KV heads change places, and the query heads with their group.
  const std::vector<Index> heads{3, 2, 0, 1, 6, 7, 5, 4};
  const std::vector<Index> kv_heads{1, 0, 3, 2};
  auto permuted = problem;
  permuted.query = reordered(problem.query, heads);
  for (auto& level : permuted.routing) level = reordered(level, heads);
  permuted.key = reordered(problem.key, kv_heads);
  permuted.value = reordered(problem.value, kv_heads);
  permuted.search_keys = reordered(problem.search_keys, kv_heads);
  CHECK(same_bits(attention(permuted.attention()).output,
                  reordered(attention(problem.attention()).output, heads)));
}

TEST_CASE("Batch entries are independent", "[attention]") {
  const auto problem = inputs::random_problem(busy_schedule(), inputs::grouped_sizes(5, 25, 3), 52,
                                              Values::rough, {2, 9});
  const std::vector<double> whole = attention(problem.attention()).output;
  for (Index b = 0; b < 2; ++b) {
    const auto size = static_cast<Index>(whole.size()) / 2;
    CHECK(same_bits(attention(problem.sequence(b).attention()).output,
                    inputs::rows_of(whole, 1, 1, b * size, size)));
  }
}

TEST_CASE("A left-padded sequence equals the sequence without its padding", "[attention]") {
  const inputs::Threads one(1);
  for (const Index padding : {1, 8, 29}) {
    for (const char* name : {"nstep", "even"}) {
      CAPTURE(padding, name);
      Schedule schedule = preset_schedule(name, 3);
      schedule.window_index = 1;
      const auto padded = inputs::random_problem(schedule, inputs::grouped_sizes(5, 30, 0, 2), 53,
                                                 Values::rough, {padding, padding});
      auto bare = padded.chunk(padding, 30 - padding).without_keys(padding, 30);
      bare.start.clear();
      bare.sizes.query_offset = 0;
      const std::vector<double> got = attention(padded.attention()).output;
      CHECK(same_bits(inputs::rows_of(got, 8, 5, padding, 30 - padding),
                      attention(bare.attention()).output));
      CHECK(inputs::rows_of(got, 8, 5, 0, padding) == std::vector<double>(at(8 * 5 * padding), 0));
    }
  }
}

TEST_CASE("Queries before start have no key and give 0", "[attention]") {
  const inputs::Threads one(1);
  for (Index steps = 1; steps <= 3; ++steps) {
    const auto problem =
        inputs::random_problem(preset_schedule("nstep", steps), inputs::grouped_sizes(5, 6, 2), 54,
                               Values::exact, {0, 100});
    const AttentionResult got = attention(problem.attention());
    for (Index row = 24; row < 48; ++row) {
      CHECK(row_of(got.output, row, 5) == std::vector<double>(5, 0));
    }
  }
}

TEST_CASE("No queries give an empty output", "[attention]") {
  const auto problem =
      inputs::random_problem(preset_schedule("nstep", 3), inputs::grouped_sizes(5, 0, 3), 55);
  CHECK(attention(problem.attention()).output.empty());
  CHECK(dense_attention(problem.attention()).output.empty());
}

namespace {

/// What each clean query row looked at.
struct Seen {
  std::vector<std::vector<Index>> scored;  // keys that span-search scored
  std::vector<std::vector<Span>> spans;    // kept spans and the window
};

Seen what_is_seen(const Problem<double>& problem) {
  const naive::Stages<double> stages(problem);
  Seen seen;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const naive::Search search = stages.search(row);
    seen.scored.push_back(search.scored);
    seen.spans.push_back({stages.window(row)});
    for (const naive::Path& path : search.kept) seen.spans.back().push_back(path.span);
  }
  return seen;
}

bool attends(const Seen& seen, Index row, Index key) {
  const auto& spans = seen.spans[at(row)];
  return std::any_of(spans.begin(), spans.end(), [&](Span span) { return span.contains(key); });
}

bool scores(const Seen& seen, Index row, Index key) {
  const auto& keys = seen.scored[at(row)];
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

enum class Row { same, nan, any };

/// Each row of `got` is what `expected(row)` says next to the clean output.
template <class Expected>
bool confined(const Problem<double>& problem, const std::vector<double>& clean,
              const std::vector<double>& got, Expected expected) {
  const Index d = problem.sizes.head_dim;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const auto now = row_of(got, row, d);
    const Row want = expected(row);
    if (want == Row::same && !same_bits(now, row_of(clean, row, d))) return false;
    for (const double x : now) {
      if (want == Row::nan && !std::isnan(x)) return false;
    }
  }
  return true;
}

void fill_row(std::vector<double>& array, Index row, Index width) {
  std::fill_n(array.begin() + row * width, width, kNaN);
}

Problem<double> confinement_problem() {
  return inputs::random_problem(busy_schedule(), inputs::grouped_sizes(5, 26, 8, 3), 56,
                                Values::exact, {0, 12});
}

}  // namespace

TEST_CASE("A NaN key or value reaches only the queries that look at it", "[attention]") {
  const inputs::Threads one(1);
  const auto problem = confinement_problem();
  const Seen seen = what_is_seen(problem);
  const std::vector<double> clean = attention(problem.attention()).output;
  const Index d = problem.sizes.head_dim;
  REQUIRE(distance(clean, clean) == 0);
  for (Index head = 0; head < 4; ++head) {  // [batch, num_kv_heads]
    for (const Index j : {0, 11, 12, 13, 20, 25, 33, 34, 36}) {
      CAPTURE(head, j);
      const Index nan_row = head * problem.sizes.keys + j;
      const auto mine = [&](Index row) { return problem.kv_row(row, j) == nan_row; };
      const auto attended = [&](Index row) {
        return mine(row) && attends(seen, row, j) ? Row::nan : Row::same;
      };
      auto dirty = problem;
      fill_row(dirty.value, nan_row, d);
      CHECK(confined(problem, clean, attention(dirty.attention()).output, attended));

      dirty = problem;
      fill_row(dirty.key, nan_row, d);
      CHECK(confined(problem, clean, attention(dirty.attention()).output, attended));

      // A NaN score drops its anchor: another choice, and no NaN.
      dirty = problem;
      fill_row(dirty.search_keys, nan_row, d);
      const auto got = attention(dirty.attention()).output;
      CHECK(confined(problem, clean, got, [&](Index row) {
        return mine(row) && scores(seen, row, j) ? Row::any : Row::same;
      }));
      CHECK(distance(got, got) == 0);
      CHECK(std::none_of(got.begin(), got.end(), [](double x) { return std::isnan(x); }));
    }
  }
}

TEST_CASE("A NaN key that is also searched reaches anchors, spans and windows", "[attention]") {
  const inputs::Threads one(1);
  auto problem = confinement_problem();
  problem.search_keys.clear();
  const Seen seen = what_is_seen(problem);
  const std::vector<double> clean = attention(problem.attention()).output;
  for (const Index j : {2, 14, 29, 34}) {
    CAPTURE(j);
    auto dirty = problem;
    const Index nan_row = problem.sizes.keys + j;  // KV head 1 of batch entry 0
    fill_row(dirty.key, nan_row, problem.sizes.head_dim);
    CHECK(confined(problem, clean, attention(dirty.attention()).output, [&](Index row) {
      if (problem.kv_row(row, j) != nan_row) return Row::same;
      if (scores(seen, row, j)) return Row::any;
      return attends(seen, row, j) ? Row::nan : Row::same;
    }));
  }
}

TEST_CASE("A NaN in one query's row reaches that row alone", "[attention]") {
  const inputs::Threads one(1);
  const auto problem = confinement_problem();
  const std::vector<double> clean = attention(problem.attention()).output;
  const Index d = problem.sizes.head_dim;
  for (const Index row : {0, 25, 26, 80, 110, 111, 207}) {
    CAPTURE(row);
    const bool sees = problem.position_of(row) >= problem.start_of(problem.batch_of(row));
    const auto only = [&](Row what) {
      return [row, what](Index other) { return other == row ? what : Row::same; };
    };
    auto dirty = problem;
    fill_row(dirty.query, row, d);
    CHECK(confined(problem, clean, attention(dirty.attention()).output,
                   only(sees ? Row::nan : Row::same)));

    for (Index m = 0; m < 2; ++m) {  // no path is left: the window alone
      dirty = problem;
      fill_row(dirty.routing[at(m)], row, d);
      const auto got = attention(dirty.attention()).output;
      CHECK(confined(problem, clean, got, only(Row::any)));
      const naive::Stages<double> stages(problem);
      CHECK(distance(row_of(got, row, d), stages.attend(row, {}, stages.window(row)).output) <=
            kTolerance);
    }
  }
}

TEST_CASE("Keys before start and behind the last query are not read", "[attention]") {
  const auto problem = confinement_problem();
  auto dirty = problem;
  for (Index head = 0; head < 4; ++head) {
    for (Index j = 0; j < problem.sizes.keys; ++j) {
      if (j >= problem.start_of(head / 2) && j < 34) continue;
      const Index nan_row = head * problem.sizes.keys + j;
      for (auto* array : {&dirty.key, &dirty.value, &dirty.search_keys}) {
        fill_row(*array, nan_row, problem.sizes.head_dim);
      }
    }
  }
  CHECK(same_bits(attention(dirty.attention()).output, attention(problem.attention()).output));
  CHECK(same_bits(dense_attention(dirty.attention()).output,
                  dense_attention(problem.attention()).output));
}
