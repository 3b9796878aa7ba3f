#include "judge.hpp"

// The spans' outputs and log-sum-exps are the oracle's, in the GPU's formats: what is judged is the
// window and the combination.

using namespace multistep;
using namespace gpu;

namespace {

Options prefill(const Schedule& schedule, Index window_index) {
  Options options;
  options.schedule = schedule;
  options.schedule.window_index = window_index;
  options.queries = 130;
  options.start = {0, 37};
  options.tail = 5;
  return options;
}

void check_combine(const Problem& problem, Dtype dtype, const Partials& given) {
  const OnDevice device(problem, dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(dtype));
    CHECK(wrong_combination(problem, dtype, given, combine(device, rung, given)) == "");
  }
}

void check_combine(const Options& options) {
  const Problem problem = make_problem(options);
  check_combine(problem, options.dtype,
                partials(problem, options.dtype, span_search(problem.search())));
}

}  // namespace

TEST_CASE("GPU combination for every head_dim and group", "[combine]") {
  for (const Index head_dim : {1, 5, 32, 64, 96, 128, 200, 256}) {
    for (const Dtype dtype : kDtypes) {
      CAPTURE(head_dim);
      Options options = prefill(preset_schedule("nstep"), 3);
      options.dtype = dtype;
      options.head_dim = head_dim;
      check_combine(options);
    }
  }
  for (const Index group : {1, 2, 3, 5, 7, 8, 16, 20, 24, 32, 48}) {
    for (const Index queries : {1, 66}) {
      CAPTURE(group, queries);
      Options options = prefill(preset_schedule("nstep"), 3);
      options.num_heads = 2 * group;
      options.queries = queries;
      options.query_offset = 190;
      options.head_dim = group % 2 ? 64 : 128;
      check_combine(options);
    }
  }
}

TEST_CASE("GPU combination for any number of queries, slots and window", "[combine]") {
  for (const Index queries : {1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 200}) {
    for (const Index window_index : {0, 1, 7, 20}) {
      CAPTURE(queries, window_index);
      Options options = prefill(preset_schedule("nstep", 3), window_index);
      options.queries = queries;
      options.query_offset = queries % 2 ? 0 : 300;
      options.schedule.top_k = 1 + queries % 5;
      check_combine(options);
    }
  }
  Options many = prefill(preset_schedule("nstep"), 1);
  many.query_offset = 4000;
  many.queries = 9;
  many.schedule.top_k = 64;
  check_combine(many);
}

TEST_CASE("GPU combination of infinite and far apart scores", "[combine]") {
  const float inf = INFINITY;
  const std::vector<std::vector<float>> all{
      {inf, inf, 9, -inf},         {inf, 0, 0, 0}, {-inf, -inf, -inf, -inf},
      {0, -inf, -inf, -inf},       {3, 3, 3, 3},   {1000, 999, 998, -1e30F},
      {-1e30F, -1e30F, -inf, -inf}};
  Options options = prefill(preset_schedule("nstep"), 2);
  options.schedule.top_k = 4;
  options.query_offset = 100;
  options.start = {};
  const Problem problem = make_problem(options);
  Partials given = partials(problem, options.dtype, span_search(problem.search()));
  for (std::size_t row = 0; row < given.scores.size() / 4; ++row) {
    std::copy_n(all[row % all.size()].begin(), 4, given.scores.begin() + std::ptrdiff_t(row) * 4);
  }
  check_combine(problem, options.dtype, given);
}

TEST_CASE("GPU combination does not look at slots without a span", "[combine]") {
  Options options = prefill(preset_schedule("nstep"), 1);
  options.schedule.top_k = 5;  // the first queries have fewer paths
  const Problem problem = make_problem(options);
  Partials given = partials(problem, options.dtype, span_search(problem.search()));
  const auto nan = static_cast<float>(inputs::kNaN);
  for (std::size_t slot = 0; slot < given.spans.size(); ++slot) {
    if (given.spans[slot].begin < given.spans[slot].end) continue;
    given.lses[slot] = nan;
    std::fill_n(given.outputs.begin() + std::ptrdiff_t(slot) * options.head_dim, options.head_dim,
                nan);
  }
  check_combine(problem, options.dtype, given);
}

TEST_CASE("GPU combination where spans or windows have no weight", "[combine]") {
  for (const Index window_index : {0, 2}) {
    CAPTURE(window_index);
    Options options = prefill(preset_schedule("nstep"), window_index);
    const Problem problem = make_problem(options);
    Partials given = partials(problem, options.dtype, span_search(problem.search()));
    for (std::size_t slot = 0; slot < given.lses.size(); slot += 3) {  // all logits -inf
      given.lses[slot] = -INFINITY;
      std::fill_n(given.outputs.begin() + std::ptrdiff_t(slot) * options.head_dim, options.head_dim,
                  0.0F);
    }
    for (std::size_t slot = 1; slot < given.lses.size(); slot += 3) given.lses[slot] += 1000;
    check_combine(problem, options.dtype, given);
  }
}

TEST_CASE("GPU combination of no slots is the window", "[combine]") {
  for (const Index steps : {1, 2}) {
    for (const Index queries : {1, 130}) {
      for (const Dtype dtype : kDtypes) {
        CAPTURE(steps, queries, name(dtype));
        Options options = prefill(preset_schedule("nstep", steps), 4);
        options.dtype = dtype;
        options.queries = queries;
        options.query_offset = 77;
        const Problem problem = make_problem(options);
        const OnDevice device(problem, dtype);
        for (const Rung rung : kRungs) {
          CAPTURE(name(rung));
          auto args = device.args<cuda::CombineArgs>(rung);
          const auto output = poisoned<std::uint16_t>(args.shape.rows() * options.head_dim);
          const auto lse = poisoned<float>(args.shape.rows());
          args.output = output.data();
          args.window_lse_out = lse.data();
          run(args, cuda::combine);
          const Attended got{cuda::from_16_bits(dtype, output.download()), lse.download()};
          CHECK(wrong_items(problem, dtype, row_windows(problem), got) == "");
        }
      }
    }
  }
}

TEST_CASE("GPU combination tells the window's log-sum-exp", "[combine]") {
  for (const Index window_index : {0, 3}) {
    for (const Index head_dim : {64, 96, 128, 200}) {
      for (const Index queries : {1, 130}) {
        Options options = prefill(preset_schedule("nstep"), window_index);
        options.head_dim = head_dim;
        options.queries = queries;
        options.query_offset = 30;  // padding to the second sequence's first rows
        const Problem problem = make_problem(options);
        const Partials given = partials(problem, options.dtype, span_search(problem.search()));
        const Attended window = stored(options.dtype, attended(problem, row_windows(problem)));
        const OnDevice device(problem, options.dtype);
        const auto window_output = device.upload(window.output);
        const DeviceArray<float> window_lse(window.lse);
        for (const Rung rung : kRungs) {
          CAPTURE(window_index, head_dim, queries, name(rung));
          auto args = device.args<cuda::CombineArgs>(rung);
          const std::vector<float> want = combine(device, args, given);
          const auto lse = poisoned<float>(device.shape.rows());
          args.window_lse_out = lse.data();
          CHECK(same_bits(combine(device, args, given), want));
          CHECK(wrong_items(problem, options.dtype, row_windows(problem),
                            {window.output, lse.download()}) == "");
          args.window_output = window_output.data();
          args.window_lse = window_lse.data();
          combine(device, args, given);
          CHECK(same_bits(lse.download(), window.lse));
        }
      }
    }
  }
}

TEST_CASE("GPU combination takes a window that is given", "[combine]") {
  for (const Dtype dtype : kDtypes) {
    const Options options = [&] {
      Options result = prefill(preset_schedule("nstep"), 3);
      result.dtype = dtype;
      return result;
    }();
    const Problem problem = make_problem(options);
    const Partials given = partials(problem, dtype, span_search(problem.search()));
    const Attended window = stored(dtype, attended(problem, row_windows(problem)));
    const OnDevice device(problem, dtype);
    const auto window_output = device.upload(window.output);
    const DeviceArray<float> window_lse(window.lse);
    for (const Rung rung : kRungs) {
      CAPTURE(name(rung), name(dtype));
      auto args = device.args<cuda::CombineArgs>(rung);
      args.query = args.key = args.value = nullptr;
      args.window_output = window_output.data();
      args.window_lse = window_lse.data();
      CHECK(wrong_combination(problem, dtype, given, combine(device, args, given), window) == "");
    }
  }
}
