#include "judge.hpp"
#include "multistep/cuda/plan.hpp"

// Scores of integer inputs are exact in float32, so that the GPU has to keep the oracle's paths to
// the bit: spans, scores, anchors and the order of ties.

using namespace multistep;
using namespace gpu;

namespace {

void check_equal(const Problem& problem, Dtype dtype) {
  const Selection want = span_search(problem.search());
  const OnDevice device(problem, dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(dtype));
    CHECK(difference(search(device.search_args(rung)), want) == "");
  }
}

void check_equal(const Options& options) { check_equal(make_problem(options), options.dtype); }

/// 130 rows from the first key on, left padding in the second sequence, a spare tail.
Options prefill(const Schedule& schedule) {
  Options options;
  options.schedule = schedule;
  options.queries = 130;
  options.start = {0, 37};
  options.tail = 5;
  return options;
}

std::vector<Schedule> presets() {
  std::vector<Schedule> result;
  for (Index steps = 2; steps <= 5; ++steps) result.push_back(preset_schedule("nstep", steps));
  for (Index steps = 2; steps <= 4; ++steps) result.push_back(preset_schedule("even", steps));
  result.push_back(preset_schedule("paper"));
  result.push_back(preset_schedule("paper"));
  result.back().window_index = 3;
  for (Index steps = 2; steps <= 5; ++steps) {
    result.push_back(preset_schedule("aligned", steps));
    result.back().window_index = 3 * (steps % 2);
  }
  return result;
}

/// So many rows that the search is a product at every level.
Options product(Index steps, Index group, Index top_k) {
  Options options;
  options.schedule = preset_schedule("aligned", steps);
  options.schedule.top_k = top_k;
  options.schedule.window_index = 5 * (steps % 2);
  options.num_heads = 2 * group;
  options.queries = std::max<Index>(300, (Index{1} << 16) / (4 * group * top_k) + 1);
  options.query_offset = 700;
  options.start = {0, 437};
  options.tail = 5;
  return options;
}

void require_product(const Problem& problem) {
  const OnDevice device(problem, Dtype::bf16);
  const auto kernels =
      cuda::plan_attention(device.shape, problem.plan, cuda::current_chip()).stages[0].kernels;
  CHECK(std::count(kernels.begin(), kernels.end(), "search_parts") == problem.plan.steps() - 1);
}

}  // namespace

TEST_CASE("GPU search keeps the oracle's paths for every preset", "[search]") {
  for (const Schedule& schedule : presets()) {
    CAPTURE(name(schedule));
    for (const Dtype dtype : kDtypes) {
      Options options = prefill(schedule);
      options.dtype = dtype;
      check_equal(options);
      options.values = Values::exact;  // few ties: the order of scores decides
      check_equal(options);
    }
  }
}

TEST_CASE("GPU search at perfect powers and their neighbours", "[search]") {
  std::vector<Schedule> schedules = presets();
  schedules.push_back(preset_schedule("released"));
  schedules.push_back(preset_schedule("paper"));
  schedules.back().window_index = 31;  // W = 1023
  for (const Schedule& schedule : schedules) {
    for (const Index power : {64, 256, 1024, 4096}) {
      CAPTURE(name(schedule), power);
      Options options;
      options.schedule = schedule;
      options.query_offset = power - 2;  // segments of power - 1, power and power + 1 keys
      options.queries = 3;
      options.batch = 1;
      options.head_dim = 32;
      check_equal(options);
    }
  }
}

TEST_CASE("GPU search for every head_dim", "[search]") {
  for (const Index head_dim : {1, 5, 32, 40, 64, 80, 96, 128, 136, 192, 200, 256}) {
    for (const Dtype dtype : kDtypes) {
      CAPTURE(head_dim);
      Options options = prefill(preset_schedule("nstep", 2));
      options.dtype = dtype;
      options.head_dim = head_dim;
      options.queries = 70;
      check_equal(options);
      options.schedule = preset_schedule("nstep", 3);
      options.schedule.window_index = 1;
      check_equal(options);
    }
  }
}

TEST_CASE("GPU search for every top_k", "[search]") {
  for (const Index top_k : {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 40, 64}) {
    for (const Index steps : {2, 3, 4}) {
      for (const char* rules : {"nstep", "aligned"}) {
        for (const Index queries : {1, 3, 300}) {  // of 16 heads: blocks, few and many warps
          CAPTURE(top_k, steps, rules, queries);
          Options options = prefill(preset_schedule(rules, steps));
          options.schedule.top_k = top_k;
          options.num_heads = 16;
          options.queries = queries;
          options.query_offset = 4000 - queries;
          options.values = top_k % 2 == 0 ? Values::integers : Values::exact;
          check_equal(options);
        }
      }
    }
  }
}

TEST_CASE("GPU search in more parents than a block has warps", "[search][fault]") {
  Options options = prefill(preset_schedule("nstep", 3));
  options.schedule.top_k = 13;
  options.num_heads = 16;
  options.queries = 1;
  options.query_offset = 3000;
  check_equal(options);
}

TEST_CASE("GPU search for more paths than a list has", "[search][fault]") {
  for (const Index steps : {2, 3}) {
    for (const Index queries : {1, 70}) {
      for (const Values values : {Values::exact, Values::integers}) {  // of these many are equal
        CAPTURE(steps, queries, values == Values::exact);
        Options options = prefill(preset_schedule("nstep", steps));
        options.schedule.top_k = 40;
        options.num_heads = 16;
        options.query_offset = 3000;
        options.queries = queries;
        options.values = values;
        check_equal(options);
      }
    }
  }
}

TEST_CASE("GPU search for more paths than a list has, by more blocks than heads", "[search]") {
  for (const Index top_k : {17, 40, 64}) {
    for (const char* rules : {"nstep", "aligned"}) {
      CAPTURE(top_k, rules);
      Options options = prefill(preset_schedule(rules));
      options.schedule.top_k = top_k;
      options.num_heads = options.num_kv_heads;
      options.queries = 2;
      options.query_offset = 70000;
      check_equal(options);
    }
  }
}

TEST_CASE("GPU search for every group of heads", "[search]") {
  for (const Index group : {1, 2, 3, 5, 7, 8, 16, 20, 24, 32, 48}) {
    for (const Index steps : {2, 3}) {
      for (const Index queries : {1, 66}) {  // decoding, prefill
        CAPTURE(group, steps, queries);
        Options options = prefill(preset_schedule("nstep", steps));
        options.query_offset = 190;
        options.num_heads = 2 * group;
        options.head_dim = group % 2 ? 64 : 128;
        options.queries = queries;
        check_equal(options);
      }
    }
  }
}

TEST_CASE("GPU search for any number of queries", "[search]") {
  for (const Index queries : {1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200}) {
    for (const Index offset : {0, 57, 300}) {
      for (const char* rules : {"nstep", "even", "aligned", "paper"}) {
        CAPTURE(queries, offset, rules);
        Options options;
        options.schedule = preset_schedule(rules);
        options.schedule.window_index = 2;
        options.batch = 3;
        options.num_heads = 2;
        options.num_kv_heads = 1;
        options.queries = queries;
        options.query_offset = offset;
        options.start = {0, offset / 2, offset + queries / 2};
        options.head_dim = 128;
        check_equal(options);
      }
    }
  }
}

TEST_CASE("GPU search of aligned parts as a product", "[search][aligned][fault]") {
  for (const Index steps : {2, 3, 4}) {
    for (const Index group : {5, 16, 20}) {
      for (const Index top_k : {1, 3, 4, 6, 8}) {
        CAPTURE(steps, group, top_k);
        Options options = product(steps, group, top_k);
        options.dtype = kDtypes[top_k % 2];
        options.head_dim = group == 16 ? 128 : group == 20 ? 80 : top_k % 2 ? 64 : 192;
        options.values = top_k == 3 ? Values::exact : Values::integers;
        Problem problem = make_problem(options);
        fill_unused_rows(problem, static_cast<float>(inputs::kNaN));
        require_product(problem);
        check_equal(problem, options.dtype);
      }
    }
  }
}

TEST_CASE("GPU search of aligned parts where all rows look at the same, and from the first key on",
          "[search][aligned]") {
  for (const Index steps : {2, 3}) {
    Options options = product(steps, 16, 4);
    options.query_offset = 0;
    Problem problem = make_problem(options);
    require_product(problem);
    std::fill(problem.search_keys.begin(), problem.search_keys.end(), 1.0F);
    check_equal(problem, options.dtype);
    for (std::vector<float>& level : problem.routing) std::fill(level.begin(), level.end(), 0.0F);
    check_equal(problem, options.dtype);
  }
}

TEST_CASE("GPU paths of aligned parts are the same bits as a product and without",
          "[search][aligned]") {
  for (const Index steps : {2, 3}) {
    Options options = product(steps, 16, 4);
    options.head_dim = 128;
    options.values = Values::rough;
    const Problem problem = make_problem(options);
    require_product(problem);
    const Paths want = search(OnDevice(problem, options.dtype).search_args(Rung::fast));
    for (const Index query : {Index{0}, Index{7}, options.queries - 1}) {
      const Paths one =
          search(OnDevice(problem.chunk(query, 1), options.dtype).search_args(Rung::fast));
      CHECK(same_paths(want.of_rows(query, 1, options.batch * options.num_heads), one));
    }
  }
}

TEST_CASE("GPU search behind a window, and inside one", "[search]") {
  for (const Rule rule : {Rule::tight, Rule::power, Rule::even, Rule::aligned}) {
    for (const Index steps : {2, 3}) {
      for (const Index window_index : {0, 1, 3, 7, 11, 31}) {
        CAPTURE(to_string(rule), steps, window_index);
        check_equal(prefill(inputs::uniform_schedule(rule, steps, window_index, 2)));
      }
    }
  }
}

TEST_CASE("GPU search keeps top_k paths", "[search]") {
  for (const Index top_k : {1, 2, 3, 4, 5, 8, 16, 33, 64}) {
    for (const Index steps : {2, 3, 4}) {
      CAPTURE(top_k, steps);
      Options options = prefill(preset_schedule("nstep", steps));
      options.schedule.top_k = top_k;
      check_equal(options);
      options.query_offset = 500;
      options.queries = 1;
      check_equal(options);
    }
  }
}

TEST_CASE("GPU search with mixed rules, rational exponents and forward spans", "[search]") {
  inputs::Random random(2024);
  for (int i = 0; i < 60; ++i) {
    Options options;
    options.schedule = inputs::random_schedule(random, 3);  // none aligned
    options.seed = random.next();
    options.dtype = kDtypes[random.below(2)];
    options.head_dim = random.below(2) ? 64 : 128;
    options.queries = 1 + random.below(90);
    options.query_offset = random.below(400);
    options.start = {random.below(500), random.below(20)};
    if (options.schedule.steps == 1) continue;
    CAPTURE(i, options.schedule.steps, options.queries, options.query_offset);
    check_equal(options);
  }
}

TEST_CASE("GPU search with a scale, and with K searched", "[search]") {
  for (const double scale : {-0.5, 0.25, 0.0, 3.0}) {  // exact products
    for (const bool separate : {false, true}) {
      CAPTURE(scale, separate);
      Options options = prefill(preset_schedule("nstep", 3));
      options.separate_search = separate;
      Problem problem = make_problem(options);
      problem.search_scale = scale;
      check_equal(problem, options.dtype);
    }
  }
}

TEST_CASE("GPU search gives ties to the smaller keys, then to the first parents",
          "[search][fault]") {
  for (const Schedule& schedule : presets()) {
    CAPTURE(name(schedule));
    Options options = prefill(schedule);
    options.schedule.top_k = 4;
    Problem problem = make_problem(options);
    std::fill(problem.search_keys.begin(), problem.search_keys.end(), 1.0F);
    check_equal(problem, options.dtype);
  }
  // Every parent's segment is the whole context: all of them offer the same keys.
  Schedule wide = inputs::uniform_schedule(Rule::power, 3, 0, 4);
  for (Level& level : wide.levels) level.backward = level.forward = make_rational(1000);
  Problem problem = make_problem(prefill(wide));
  check_equal(problem, Dtype::bf16);
  std::fill(problem.routing[0].begin(), problem.routing[0].end(), 0.0F);
  check_equal(problem, Dtype::bf16);
}

TEST_CASE("GPU search of NaN and infinite keys", "[search]") {
  for (const char* rules : {"nstep", "even", "aligned"}) {
    for (const Index steps : {2, 3}) {
      CAPTURE(rules, steps);
      Options options = prefill(preset_schedule(rules, steps));
      options.schedule.top_k = 5;
      Problem problem = make_problem(options);
      inputs::Random random(77);
      const auto keys = static_cast<Index>(problem.search_keys.size()) / options.head_dim;
      const float special[] = {static_cast<float>(inputs::kNaN), INFINITY, -INFINITY};
      for (Index j = 0; j < keys; ++j) {  // one number of a key: no infinities of both signs
        if (random.below(3) > 0) continue;
        const Index i = j * options.head_dim + random.below(options.head_dim);
        problem.search_keys[at(i)] = special[random.below(3)];
      }
      check_equal(problem, options.dtype);
    }
  }
}

TEST_CASE("GPU search without a path", "[search]") {
  for (const Index steps : {2, 3}) {
    CAPTURE(steps);
    Options options = prefill(preset_schedule("nstep", steps));
    options.start = {0, 500};  // beyond every query
    Problem problem = make_problem(options);
    // Every third query of the first sequence scores NaN at level 1.
    for (Index row = 0; row < problem.sizes.rows(); row += 3) {
      problem.routing[0][at(row * options.head_dim)] = static_cast<float>(inputs::kNaN);
    }
    check_equal(problem, options.dtype);
  }
}

TEST_CASE("GPU search one level at a time is the search of all levels", "[search]") {
  for (const Schedule& schedule : presets()) {
    CAPTURE(name(schedule));
    Options options = prefill(schedule);
    options.schedule.top_k = 3;
    const Problem problem = make_problem(options);
    const Selection want = span_search(problem.search());
    const OnDevice device(problem, options.dtype);
    for (const Rung rung : kRungs) {
      CAPTURE(name(rung));
      CHECK(difference(whole_paths(search_by_level(device, rung)), want) == "");
    }
  }
}

TEST_CASE("GPU search without anchors or ranks wanted", "[search]") {
  const Options options = prefill(preset_schedule("nstep", 3));
  const Problem problem = make_problem(options);
  const Selection want = span_search(problem.search());
  const OnDevice device(problem, options.dtype);
  for (const Rung rung : kRungs) {
    for (const Index level : {0, 1}) {
      CAPTURE(name(rung), level);
      auto args = device.search_args(rung);
      const Index slots = args.shape.rows() * want.top_k;
      const auto spans = poisoned<DeviceSpan>(slots);
      const auto scores = poisoned<float>(slots);
      args.level = level;
      args.spans = spans.data();
      args.scores = scores.data();
      run(args, cuda::span_search);
      const Paths got{want.top_k, 0, spans.download(), scores.download(), {}, {}};
      if (level == 0) CHECK(difference(got, want) == "");
      args = device.search_args(rung);
      args.level = level;
      const Paths full = search(args);
      CHECK(same_bits(got.spans, full.spans));
      CHECK(same_bits(got.scores, full.scores));
    }
  }
}
