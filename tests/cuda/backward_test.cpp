#include "backward.hpp"

// Gradients at the selection that the GPU found, against the oracle's at the same.

using namespace multistep;
using namespace gpu;

namespace {

/// Forward, then backward, in both rungs, with the output and without.
void check(const Lesson& lesson) {
  const auto& [problem, device, found, loss] = lesson;
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(device.dtype));
    for (const bool with_output : {false, true}) {
      CAPTURE(with_output);
      const Gradients got = with_output ? backward_of_output(device, rung, found, loss)
                                        : backward(device, rung, found.kept, loss);
      CHECK(wrong_gradients(problem, device.dtype, found.kept, loss, got) == "");
    }
  }
}

void check(const Options& options, bool by_everything = true) {
  check(Lesson(options, by_everything));
}

Options prefill(const Schedule& schedule, Index queries = 130) {
  Options options;
  options.schedule = schedule;
  options.queries = queries;
  options.start = {0, 37};
  options.tail = 5;
  options.values = Values::rough;
  return options;
}

std::vector<Schedule> all_rules() {
  std::vector<Schedule> result{preset_schedule("paper"), preset_schedule("released")};
  for (const Index steps : {1, 2, 3, 4, 5}) {
    result.push_back(preset_schedule("nstep", steps));
    if (steps > 1) result.push_back(preset_schedule("even", steps));
    if (steps > 1) result.push_back(preset_schedule("aligned", steps));
  }
  return result;
}

/// A selection that no search made: spans anywhere, any keys as anchors, slots without a path.
Paths random_paths(const Problem& problem, Index top_k, std::uint64_t seed) {
  inputs::Random random(seed);
  Paths paths;
  paths.top_k = top_k;
  paths.levels = problem.plan.steps() - 1;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const auto start = static_cast<std::int32_t>(problem.start_of(problem.batch_of(row)));
    const auto end = static_cast<std::int32_t>(problem.position_of(row)) + 1;
    const Index used = end > start ? random.below(top_k + 1) : 0;
    for (Index slot = 0; slot < top_k; ++slot) {
      const auto key = [&] { return start + static_cast<std::int32_t>(random.below(end - start)); };
      const bool use = slot < used;
      const std::int32_t a = use ? key() : 0;
      const std::int32_t b = use ? key() : 0;
      paths.spans.push_back(use ? DeviceSpan{std::min(a, b), std::max(a, b) + 1}
                                : DeviceSpan{0, 0});
      paths.scores.push_back(use ? static_cast<float>(random.below(17) - 8) / 4 : -INFINITY);
      for (Index m = 0; m < paths.levels; ++m) paths.anchors.push_back(use ? key() : -1);
    }
  }
  return paths;
}

/// Every row's one path leads to the same few keys.
Paths hot_paths(const Problem& problem) {
  Paths paths;
  paths.top_k = 2;
  paths.levels = problem.plan.steps() - 1;
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    const auto start = static_cast<std::int32_t>(problem.start_of(problem.batch_of(row)));
    const auto end = static_cast<std::int32_t>(problem.position_of(row)) + 1;
    const bool use = end > start + 3;
    for (Index slot = 0; slot < 2; ++slot) {
      paths.spans.push_back(use ? DeviceSpan{start + 1, start + 3} : DeviceSpan{0, 0});
      paths.scores.push_back(use ? 0.5f - static_cast<float>(slot) : -INFINITY);
      for (Index m = 0; m < paths.levels; ++m) paths.anchors.push_back(use ? start + 2 : -1);
    }
  }
  return paths;
}

/// Every row's paths lead to spans of up to 500 keys at a few places of 8600 keys.
Paths paths_far_apart(const Problem& problem) {
  constexpr std::int32_t kPlaces[] = {0, 2000, 4500, 7900};
  inputs::Random random(5);
  Paths paths;
  paths.top_k = problem.plan.schedule().top_k;
  paths.levels = problem.plan.steps() - 1;
  for (Index slot = 0; slot < problem.sizes.rows() * paths.top_k; ++slot) {
    const auto below = [&](Index count) { return static_cast<std::int32_t>(random.below(count)); };
    const std::int32_t begin = kPlaces[below(std::ssize(kPlaces))] + below(150);
    paths.spans.push_back({begin, begin + 1 + below(500)});
    paths.scores.push_back(static_cast<float>(below(17) - 8) / 4);
    for (Index m = 0; m < paths.levels; ++m) paths.anchors.push_back(begin);
  }
  return paths;
}

void check_paths(const Options& options, const Paths& paths) {
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  const LossGradients loss = make_loss(problem, options);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung));
    CHECK(wrong_gradients(problem, options.dtype, paths, loss,
                          backward(device, rung, paths, loss)) == "");
  }
}

/// Which rows of width `width` hold a NaN.
std::vector<bool> nan_rows(const std::vector<float>& values, Index width) {
  std::vector<bool> rows(values.size() / at(width), false);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) rows[i / at(width)] = true;
  }
  return rows;
}

}  // namespace

TEST_CASE("GPU gradients of every rule and number of steps", "[backward]") {
  for (const Schedule& schedule : all_rules()) {
    for (const Dtype dtype : kDtypes) {
      for (const Index window_index : {0, 3}) {
        CAPTURE(name(schedule));
        Options options = prefill(schedule);
        options.schedule.window_index = window_index;
        options.dtype = dtype;
        options.head_dim = dtype == Dtype::bf16 ? 128 : 64;
        check(options);
      }
    }
  }
}

TEST_CASE("GPU gradients for every head_dim", "[backward]") {
  for (const Index head_dim : {1, 5, 32, 40, 64, 80, 96, 128, 200, 256}) {
    CAPTURE(head_dim);
    Options options = prefill(preset_schedule("nstep"), 70);
    options.schedule.window_index = 3;
    options.head_dim = head_dim;
    check(options);
  }
}

TEST_CASE("GPU gradients for every group of heads and number of paths", "[backward]") {
  for (const Index group : {1, 2, 3, 5, 8, 16, 20, 48}) {
    for (const Index top_k : {1, 2, 3, 5, 64}) {
      CAPTURE(group, top_k);
      Options options = prefill(preset_schedule("nstep", group % 2 ? 2 : 3), 66);
      options.schedule.window_index = group % 3;
      options.schedule.top_k = top_k;
      options.batch = 1;
      options.start = {};
      options.num_heads = 2 * group;
      check(options);
    }
  }
}

TEST_CASE("GPU gradients for any number of queries, anywhere", "[backward]") {
  for (const Index queries : {1, 2, 7, 63, 64, 65, 127, 128, 129, 300}) {
    for (const Index offset : {0, 57, 300}) {
      CAPTURE(queries, offset);
      Options options = prefill(preset_schedule("paper"), queries);
      options.schedule.window_index = 2;
      options.query_offset = offset;
      options.start = {offset / 2, offset + queries / 2};
      options.head_dim = 128;
      options.separate_search = queries % 2 == 0;
      check(options, queries % 3 == 0);
    }
  }
}

TEST_CASE("GPU gradients where a window weighs next to nothing", "[backward][fault]") {
  Options options = prefill(preset_schedule("nstep"), 1);
  options.schedule.window_index = 3;
  options.num_heads = 32;
  options.query_offset = 300;
  options.start = {};
  Problem problem = make_problem(options);
  const Index head_dim = options.head_dim;
  std::fill(problem.query.begin(), problem.query.end(), 0.0f);
  for (Index row = 0; row < problem.sizes.rows(); ++row) {
    // Of the window all logits are so far below those of the spans, whose are 0.
    const Index below = 70 + 2 * (row % options.num_heads);
    problem.query[at(row * head_dim)] = -8 * static_cast<float>(below);  // scaled by 64^-1/2
  }
  const Span window = problem.plan.window(options.query_offset, 0);
  for (Index i = 0; i < std::ssize(problem.key) / head_dim; ++i) {
    const Index key = i % problem.sizes.keys;
    const bool inside = window.begin <= key && key < window.end;
    problem.key[at(i * head_dim)] = inside ? 1 : 0;
  }
  check(Lesson(problem, options));
}

TEST_CASE("GPU gradients where the keys themselves are searched", "[backward]") {
  for (const Index steps : {2, 3}) {
    Options options = prefill(preset_schedule("nstep", steps), 200);
    options.separate_search = false;
    options.head_dim = 128;
    check(options);
  }
}

TEST_CASE("GPU gradients over long spans and windows", "[backward]") {
  for (const char* rules : {"paper", "released"}) {
    Options options = prefill(preset_schedule(rules), 300);
    options.num_heads = 16;
    options.num_kv_heads = 1;
    options.batch = 1;
    options.query_offset = 4050;
    options.head_dim = 128;
    options.start = {1000};
    check(options);
  }
}

TEST_CASE("GPU gradients of more tiles of keys than multiprocessors", "[backward]") {
  Options options = prefill(preset_schedule("paper"), 700);
  options.schedule.window_index = 3;
  options.num_heads = 16;
  options.num_kv_heads = 16;
  options.head_dim = 128;
  check(options);
}

TEST_CASE("Repeated GPU gradients of hot keys are the same bits", "[backward][fault]") {
  Options options = prefill(preset_schedule("nstep"), 700);
  options.num_heads = 32;
  options.head_dim = 128;
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  const Paths paths = hot_paths(problem);
  const LossGradients loss = make_loss(problem, options);
  const Gradients first = backward(device, Rung::fast, paths, loss);
  for (int repeat = 0; repeat < 20; ++repeat) {
    CHECK(same_bits(first, backward(device, Rung::fast, paths, loss)));
  }
}

TEST_CASE("A thousand GPU gradients beside another stream's work are the same bits", "[backward]") {
  Options options = prefill(preset_schedule("paper"), 300);
  options.schedule.window_index = 3;
  options.num_heads = 16;
  options.head_dim = 128;
  const Lesson lesson(options);
  const auto& [problem, device, found, loss] = lesson;
  const Paths& kept = found.kept;
  const Gradients first = backward(device, Rung::fast, kept, loss);

  const BackwardArrays arrays(device, kept, loss);
  auto args = arrays.args(device, Rung::fast);
  cuda::DeviceBuffer workspace(cuda::workspace_size(args));
  args.workspace = {workspace.data(), workspace.size()};
  auto busy = device.attention_args(Rung::fast);
  const WholeArrays busy_found(busy);
  busy_found.put_into(busy);
  cuda::DeviceBuffer busy_workspace(cuda::workspace_size(busy));
  busy.workspace = {busy_workspace.data(), busy_workspace.size()};
  const cuda::OwnedStream stream;
  const cuda::OwnedStream beside;
  Index differ = 0;
  for (int repeat = 0; repeat < 1000; ++repeat) {
    for (int i = 0; i < 1 + repeat % 5; ++i) cuda::attention(busy, beside.get());
    cuda::attention_backward(args, stream.get());
    stream.synchronize();
    differ += !same_bits(first, arrays.download());
  }
  CHECK(differ == 0);
}

TEST_CASE("Repeated GPU gradients are the same bits", "[backward]") {
  Options options = prefill(preset_schedule("paper"), 500);
  options.schedule.window_index = 5;
  options.num_heads = 16;
  options.head_dim = 128;
  const Lesson lesson(options);
  const auto& [problem, device, found, loss] = lesson;
  const Paths& kept = found.kept;
  for (const Rung rung : kRungs) {
    const Gradients first = backward(device, rung, kept, loss);
    for (int repeat = 0; repeat < 20; ++repeat) {
      CHECK(same_bits(first, backward(device, rung, kept, loss)));
    }
  }
}

TEST_CASE("GPU gradients at selections that no search made", "[backward]") {
  for (const Index steps : {2, 3}) {
    for (const Index top_k : {1, 2, 7}) {
      for (const Index window_index : {0, 4}) {
        CAPTURE(steps, top_k, window_index);
        Options options = prefill(preset_schedule("nstep", steps), 200);
        options.schedule.top_k = top_k;
        options.schedule.window_index = window_index;
        options.head_dim = top_k == 7 ? 128 : 64;
        check_paths(options, random_paths(make_problem(options), top_k, 7));
      }
    }
  }
}

TEST_CASE("GPU gradients of keys that every query picks", "[backward][fault]") {
  for (const Index steps : {2, 3}) {
    Options options = prefill(preset_schedule("nstep", steps), 700);
    options.num_heads = 32;
    options.num_kv_heads = 2;
    options.head_dim = 128;
    check_paths(options, hot_paths(make_problem(options)));
  }
}

TEST_CASE("GPU gradients of spans that lie far apart", "[backward][fault]") {
  for (const Index head_dim : {64, 128, 256}) {
    CAPTURE(head_dim);
    Options options = prefill(preset_schedule("nstep"), 150);
    options.batch = 1;
    options.start = {};
    options.query_offset = 9000;
    options.head_dim = head_dim;
    check_paths(options, paths_far_apart(make_problem(options)));
  }
}

TEST_CASE("A NaN reaches the gradients of its row and of the keys that the row looks at",
          "[backward][robustness]") {
  Options options = prefill(preset_schedule("paper"), 200);
  options.schedule.window_index = 2;
  options.head_dim = GENERATE(128, 256);
  options.start = {};
  options.separate_search = false;
  const Problem clean = make_problem(options);
  const Paths kept = gpu::attention(OnDevice(clean, options.dtype), Rung::fast).kept;
  const LossGradients loss = make_loss(clean, options, false);
  const Index d = options.head_dim;
  const Index row = 3 * options.queries + 140;  // of head 3
  for (const bool in_query : {true, false}) {
    Problem problem = clean;
    LossGradients by = loss;
    (in_query ? problem.query : by.output)[at(row * d + 5)] = std::nanf("");
    const OnDevice device(problem, options.dtype);
    std::vector<bool> looked(
        at(problem.sizes.batch * problem.sizes.num_kv_heads * problem.sizes.keys), false);
    const auto look = [&](Span span) {
      for (Index j = span.begin; j < span.end; ++j) {
        looked[at(problem.kv_head_of(row) * problem.sizes.keys + j)] = true;
      }
    };
    look(problem.plan.window(problem.position_of(row), 0));
    for (Index slot = row * kept.top_k; slot < (row + 1) * kept.top_k; ++slot) {
      look({kept.spans[at(slot)].begin, kept.spans[at(slot)].end});
    }
    for (const Rung rung : kRungs) {
      CAPTURE(name(rung), in_query);
      const Gradients got = backward(device, rung, kept, by);
      std::vector<bool> want_rows(at(problem.sizes.rows()), false);
      want_rows[at(row)] = true;
      CHECK(nan_rows(got.query, d) == want_rows);
      std::vector<bool> keys = looked;
      for (Index slot = row * kept.top_k; slot < (row + 1) * kept.top_k; ++slot) {
        keys[at(problem.kv_head_of(row) * problem.sizes.keys + kept.anchors[at(slot)])] = true;
      }
      CHECK(nan_rows(got.key, d) == keys);
      CHECK(nan_rows(got.value, d) == looked);
      CHECK(wrong_gradients(problem, options.dtype, kept, by, got) == "");
    }
  }
}

TEST_CASE("A NaN key reaches its own gradient and those of the rows that look at it",
          "[backward][robustness]") {
  Options options = prefill(preset_schedule("paper"), 200);
  options.schedule.window_index = 2;
  options.head_dim = GENERATE(64, 256);
  options.start = {};
  const Problem clean = make_problem(options);
  const Paths kept = gpu::attention(OnDevice(clean, options.dtype), Rung::fast).kept;
  const LossGradients loss = make_loss(clean, options, false);
  for (const bool in_key : {true, false}) {
    Problem problem = clean;
    (in_key ? problem.key : problem.value)[at(70 * options.head_dim + 3)] = std::nanf("");
    const OnDevice device(problem, options.dtype);
    for (const Rung rung : kRungs) {
      CAPTURE(name(rung), in_key);
      const Gradients got = backward(device, rung, kept, loss);
      CHECK(wrong_gradients(problem, options.dtype, kept, loss, got) == "");
      const std::vector<bool> rows = nan_rows(got.query, options.head_dim);
      CHECK(std::count(rows.begin(), rows.end(), true) > 0);
      for (std::size_t row = 0; row < rows.size(); ++row) {
        const auto index = static_cast<Index>(row);
        bool looks = problem.kv_head_of(index) == 0 && problem.batch_of(index) == 0 &&
                     problem.position_of(index) >= 70;
        Span span = problem.plan.window(problem.position_of(index), 0);
        bool inside = span.begin <= 70 && 70 < span.end;
        for (Index s = 0; s < kept.top_k; ++s) {
          const DeviceSpan one = kept.spans[row * at(kept.top_k) + at(s)];
          inside = inside || (one.begin <= 70 && 70 < one.end);
        }
        looks = looks && inside;
        CHECK(rows[row] == looks);
      }
    }
  }
}

TEST_CASE("Unused rows of the cache may hold NaN in the GPU's backward pass",
          "[backward][robustness]") {
  Options options = prefill(preset_schedule("nstep"), 200);
  options.schedule.window_index = 3;
  options.tail = 90;
  options.head_dim = 128;
  Problem problem = make_problem(options);
  const LossGradients loss = make_loss(problem, options);
  const OnDevice whole(problem, options.dtype);
  const Paths kept = gpu::attention(whole, Rung::fast).kept;
  fill_unused_rows(problem, static_cast<float>(inputs::kNaN));
  const OnDevice device(problem, options.dtype);
  for (const Rung rung : kRungs) {
    CHECK(same_bits(backward(whole, rung, kept, loss), backward(device, rung, kept, loss)));
  }
}

TEST_CASE("The GPU's backward pass can be captured, and waits for nothing", "[backward][graph]") {
  Options options = prefill(preset_schedule("nstep", 3), 300);
  options.schedule.window_index = 2;
  options.head_dim = 128;
  const Lesson lesson(options);
  const auto& [problem, device, found, loss] = lesson;
  const Paths& kept = found.kept;
  for (const Rung rung : kRungs) {
    const Gradients want = backward(device, rung, kept, loss);
    BackwardArrays arrays(device, kept, loss);
    auto args = arrays.args(device, rung);
    cuda::DeviceBuffer workspace(cuda::workspace_size(args));
    args.workspace = {workspace.data(), workspace.size()};
    const cuda::OwnedStream stream;
    const cuda::Graph graph(stream, [&](cuda::Stream s) { cuda::attention_backward(args, s); });
    for (int replay = 0; replay < 3; ++replay) {
      arrays.poison();
      workspace.fill(0xff);
      graph.launch(stream);
      stream.synchronize();
      CHECK(same_bits(arrays.download(), want));
    }
  }
}

TEST_CASE("Chunked queries have the GPU gradients of whole ones, added up", "[backward]") {
  Options options = prefill(preset_schedule("nstep"), 300);
  options.schedule.window_index = 3;
  options.head_dim = 128;
  options.tail = 0;
  const Lesson lesson(options);
  const auto& [problem, device, found, loss] = lesson;
  const Paths& kept = found.kept;
  const Gradients whole = backward(device, Rung::fast, kept, loss);
  const Index d = options.head_dim;
  const Index heads = options.batch * options.num_heads;
  std::vector<double> key(whole.key.size(), 0), value(whole.value.size(), 0);
  std::vector<double> magnitude(whole.key.size(), 0);
  for (const auto& [first, count] : {std::pair<Index, Index>{0, 130}, {130, 1}, {131, 169}}) {
    const auto of_rows = [&, first = first, count = count](const auto& array, Index width) {
      return array.empty() ? array : inputs::rows_of(array, heads, width, first, count);
    };
    Problem part = problem;
    part.sizes.queries = count;
    part.sizes.query_offset = first;
    part.query = of_rows(problem.query, d);
    for (auto& level : part.routing) level = of_rows(level, d);
    const Paths paths{
        2, 1, of_rows(kept.spans, 2), of_rows(kept.scores, 2), of_rows(kept.anchors, 2), {}};
    const LossGradients by{of_rows(loss.output, d), of_rows(loss.scores, 2), of_rows(loss.lse, 2),
                           of_rows(loss.window_lse, 1)};
    const Gradients got = backward(OnDevice(part, options.dtype), Rung::fast, paths, by);
    CHECK(same_bits(got.query, of_rows(whole.query, d)));
    CHECK(same_bits(got.routing[0], of_rows(whole.routing[0], d)));
    for (std::size_t i = 0; i < key.size(); ++i) {
      key[i] += static_cast<double>(got.key[i]);
      value[i] += static_cast<double>(got.value[i]);
      magnitude[i] +=
          std::abs(static_cast<double>(got.key[i])) + std::abs(static_cast<double>(got.value[i]));
    }
  }
  // A part's values are rounded to bf16 by half an ulp, 2^-9; so is the whole's.
  for (std::size_t i = 0; i < key.size(); ++i) {
    const double limit = 0x1p-7 * magnitude[i] + 1e-3;
    CHECK(within_tolerance(static_cast<double>(whole.key[i]), key[i], limit));
    CHECK(within_tolerance(static_cast<double>(whole.value[i]), value[i], limit));
  }
}
