#include "judge.hpp"

// The oracle attends to the spans without their windows' keys, as the GPU does.

using namespace multistep;
using namespace gpu;

namespace {

void check_spans(const Problem& problem, Dtype dtype, const std::vector<Span>& spans) {
  const OnDevice device(problem, dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(dtype));
    const Attended got = attend(device, rung, to_device(spans));
    CHECK(wrong_items(problem, dtype, outside_windows(problem, spans), got) == "");
  }
}

/// The windows of every row, as the one slot.
void check_windows(const Problem& problem, Dtype dtype) {
  const OnDevice device(problem, dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(dtype));
    CHECK(wrong_items(problem, dtype, row_windows(problem), attend(device, rung, {})) == "");
  }
}

void check_searched(const Options& options) {
  const Problem problem = make_problem(options);
  check_spans(problem, options.dtype, span_search(problem.search()).spans);
}

/// Spans anywhere in [start, t + 1), the window's keys included; some of them empty.
std::vector<Span> random_spans(const Problem& problem, Index slots, std::uint64_t seed) {
  inputs::Random random(seed);
  std::vector<Span> spans;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const Index start = problem.start_of(problem.batch_of(row));
    const Index n = std::max<Index>(problem.position_of(row) + 1 - start, 0);
    for (Index slot = 0; slot < slots; ++slot) {
      const Index a = random.below(n + 1);
      const Index b = random.below(n + 1);
      spans.push_back(a < b ? Span{start + a, start + b} : Span{0, 0});
    }
  }
  return spans;
}

Options prefill(const Schedule& schedule) {
  Options options;
  options.schedule = schedule;
  options.queries = 130;
  options.start = {0, 37};
  options.tail = 5;
  return options;
}

Options windowed(Index window_index) {
  Options options = prefill(preset_schedule("nstep"));
  options.schedule.window_index = window_index;
  return options;
}

}  // namespace

TEST_CASE("GPU attention to the spans of a search, for every head_dim", "[attention]") {
  for (const Index head_dim : {1, 5, 32, 40, 64, 80, 96, 128, 200, 256}) {
    for (const Dtype dtype : kDtypes) {
      CAPTURE(head_dim);
      Options options = windowed(3);
      options.dtype = dtype;
      options.head_dim = head_dim;
      check_searched(options);
      options.query_offset = 500;
      options.queries = 1;
      check_searched(options);
    }
  }
}

TEST_CASE("GPU attention to the spans of a search, for every group of heads", "[attention]") {
  for (const Index group : {1, 2, 3, 5, 7, 8, 16, 20, 24, 32, 48}) {
    for (const Index queries : {1, 66}) {
      CAPTURE(group, queries);
      Options options = prefill(preset_schedule("nstep", group % 2 ? 2 : 3));
      options.num_heads = 2 * group;
      options.head_dim = group % 2 ? 64 : 128;
      options.queries = queries;
      options.query_offset = 190;
      check_searched(options);
    }
  }
}

TEST_CASE("GPU attention to spans for any number of queries", "[attention]") {
  for (const Index queries : {1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200}) {
    for (const Index offset : {0, 57, 300}) {
      CAPTURE(queries, offset);
      Options options = windowed(2);
      options.batch = 3;
      options.num_heads = 2;
      options.num_kv_heads = 1;
      options.queries = queries;
      options.query_offset = offset;
      options.start = {0, offset / 2, offset + queries / 2};
      options.head_dim = 128;
      options.dtype = kDtypes[queries % 2];
      check_searched(options);
    }
  }
}

TEST_CASE("GPU attention to long spans", "[attention]") {
  for (const char* rules : {"paper", "released"}) {
    for (const Dtype dtype : kDtypes) {
      CAPTURE(rules);
      Options options;
      options.schedule = preset_schedule(rules);
      options.dtype = dtype;
      options.num_heads = 8;
      options.queries = 70;
      options.query_offset = 4050;
      options.head_dim = 128;
      options.start = {0, 1000};
      check_searched(options);
    }
  }
}

TEST_CASE("GPU attention to any spans, windows left out", "[attention]") {
  for (const Index slots : {1, 2, 3, 8, 64}) {
    for (const Index window_index : {0, 1, 7}) {
      for (const Dtype dtype : kDtypes) {
        CAPTURE(slots, window_index);
        Options options = windowed(window_index);
        options.queries = slots == 64 ? 20 : 130;
        options.dtype = dtype;
        const Problem problem = make_problem(options);
        check_spans(problem, dtype, random_spans(problem, slots, 3));
      }
    }
  }
}

TEST_CASE("GPU attention to one span that every query has", "[attention]") {
  Options options = windowed(3);
  options.query_offset = 700;
  options.num_heads = 32;
  options.head_dim = 128;
  const Problem problem = make_problem(options);
  const std::vector<Span> spans(at(problem.sizes.rows() * 2), Span{100, 163});
  check_spans(problem, options.dtype, spans);
}

/// Spans of up to 700 keys at a few places of 140000 keys, `stray` of ten anywhere of them and the
/// others at one; some are empty.
std::vector<Span> spans_far_apart(const Problem& problem, Index slots, Index stray) {
  constexpr Index kPlaces[] = {40000, 0, 300, 65300, 90000, 131000, 138900};
  inputs::Random random(5);
  std::vector<Span> spans;
  for (Index i = 0; i < problem.sizes.rows() * slots; ++i) {
    const Index place = random.below(10) < stray ? random.below(std::ssize(kPlaces)) : 0;
    const Index begin = kPlaces[place] + random.below(150);
    spans.push_back(random.below(20) == 0 ? Span{} : Span{begin, begin + 1 + random.below(700)});
  }
  return spans;
}

/// NaN in all aligned 128 keys, of every head, of which none is in a span.
void spoil_between(Problem& problem, const std::vector<Span>& spans) {
  const Index d = problem.sizes.head_dim;
  const Index keys = problem.sizes.keys;
  std::vector<bool> wanted(at((keys + 127) / 128));
  for (const Span& span : spans) {
    for (Index j = span.begin / 128; j * 128 < span.end; ++j) wanted[at(j)] = true;
  }
  for (Index row = 0; row < std::ssize(problem.key) / d; ++row) {
    if (wanted[at(row % keys / 128)]) continue;
    for (auto* array : {&problem.key, &problem.value}) {
      std::fill_n(array->begin() + row * d, d, static_cast<float>(inputs::kNaN));
    }
  }
}

TEST_CASE("GPU attention to spans that lie far apart", "[attention][fault]") {
  struct Case {
    Index queries, num_heads, head_dim, stray;
  };
  // Tiles of a few pairs, and full ones in which a few rows look elsewhere.
  for (const Case& of : {Case{3, 4, 64, 10}, {40, 4, 128, 10}, {90, 32, 64, 1}, {301, 32, 64, 1}}) {
    CAPTURE(of.queries, of.stray);
    Options options;
    options.batch = 1;
    options.num_heads = of.num_heads;
    options.head_dim = of.head_dim;
    options.queries = of.queries;
    options.query_offset = 140000 - of.queries;
    options.separate_search = false;
    options.dtype = kDtypes[of.queries % 2];
    Problem problem = make_problem(options);
    const std::vector<Span> spans = spans_far_apart(problem, 2, of.stray);
    check_spans(problem, options.dtype, spans);

    const auto got = [&] {
      return attend(OnDevice(problem, options.dtype), Rung::fast, to_device(spans));
    };
    const Attended clean = got();
    spoil_between(problem, spans);
    const Attended spoilt = got();
    CHECK(same_bits(spoilt.output, clean.output));
    CHECK(same_bits(spoilt.lse, clean.lse));
  }
}

TEST_CASE("GPU window attention", "[attention]") {
  for (const Index window_index : {0, 1, 3, 7, 8, 20}) {  // up to 440 keys
    for (const Index queries : {1, 8, 130}) {
      for (const Index head_dim : {64, 96, 128, 200}) {
        CAPTURE(window_index, queries, head_dim);
        Options options = windowed(window_index);
        options.queries = queries;
        options.query_offset = 333;
        options.start = {0, 400};
        options.head_dim = head_dim;
        options.dtype = kDtypes[window_index % 2];
        check_windows(make_problem(options), options.dtype);
      }
    }
  }
  Options even = prefill(preset_schedule("even"));
  even.schedule.window_index = 65;
  check_windows(make_problem(even), even.dtype);
}

TEST_CASE("The GPU's window of one step is the whole context", "[attention]") {
  for (const Index queries : {1, 130, 300}) {
    for (const Dtype dtype : kDtypes) {
      CAPTURE(queries);
      Options options = prefill(preset_schedule("nstep", 1));
      options.queries = queries;
      options.query_offset = 200;
      options.dtype = dtype;
      check_windows(make_problem(options), dtype);
    }
  }
}

TEST_CASE("GPU attention with a softmax scale, and with large logits", "[attention]") {
  for (const double scale : {0.0, 0.03, -0.125, 1.0}) {
    CAPTURE(scale);
    Problem problem = make_problem(windowed(2));
    problem.softmax_scale = scale;
    check_spans(problem, Dtype::bf16, span_search(problem.search()).spans);
    check_windows(problem, Dtype::bf16);
  }
  for (const float size : {8.0F, 1.0F / 32}) {  // logits of hundreds, and close to 0
    CAPTURE(size);
    Problem problem = make_problem(windowed(2));
    for (auto* array : {&problem.query, &problem.key}) {
      for (float& x : *array) x *= size;
    }
    for (const Dtype dtype : kDtypes) {
      check_spans(problem, dtype, span_search(problem.search()).spans);
      check_windows(problem, dtype);
    }
  }
}

TEST_CASE("GPU attention to rounded inputs", "[attention]") {
  for (const Dtype dtype : kDtypes) {
    for (const Index head_dim : {64, 128, 256}) {
      Options options = windowed(3);
      options.values = Values::rough;
      options.dtype = dtype;
      options.head_dim = head_dim;
      options.query_offset = 200;
      check_searched(options);
      check_windows(make_problem(options), dtype);
    }
  }
}

TEST_CASE("GPU logits of -inf weigh nothing", "[attention]") {
  Options options = windowed(2);  // 8 keys
  Problem problem = make_problem(options);
  const Index d = options.head_dim;
  for (std::size_t i = 0; i < problem.query.size(); i += at(d)) problem.query[i] = 1;
  const auto keys = static_cast<Index>(problem.key.size()) / d;
  for (Index j = 0; j < keys; ++j) {  // all of the keys [40, 80), and a third of the others
    const Index position = j % problem.sizes.keys;
    if ((position >= 40 && position < 80) || j % 3 == 0) problem.key[at(j * d)] = -INFINITY;
  }
  std::vector<Span> spans;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const Index end = problem.position_of(row) + 1;
    const Index start = problem.start_of(problem.batch_of(row));
    for (const Span span : {Span{45, 75}, Span{30, 90}}) {
      const Span seen{std::max(start, span.begin), std::min(end, span.end)};
      spans.push_back(seen.empty() ? Span{} : seen);
    }
  }
  check_spans(problem, options.dtype, spans);
  check_windows(problem, options.dtype);
}
