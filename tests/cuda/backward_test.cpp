#include "backward.hpp"

// Gradients at the selection that the GPU found, against the oracle's at the same.

using namespace multistep;
using namespace gpu;

namespace {

/// Forward, then backward, in both rungs.
void check(const Options& options, bool by_everything = true) {
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  const Paths kept = gpu::attention(device, Rung::fast).kept;
  const LossGradients loss = make_loss(problem, options, by_everything);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(options.dtype));
    const Gradients got = backward(device, rung, kept, loss);
    CHECK(wrong_gradients(problem, options.dtype, kept, loss, got) == "");
  }
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
  }
  return result;
}

}  // namespace

TEST_CASE("GPU gradients of every rule and number of steps", "[backward]") {
  for (const Schedule& schedule : all_rules()) {
    for (const Dtype dtype : kDtypes) {
      for (const Index window_index : {0, 3}) {
        CAPTURE(schedule.steps, window_index);
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

TEST_CASE("Repeated GPU gradients are the same bits", "[backward]") {
  Options options = prefill(preset_schedule("paper"), 500);
  options.schedule.window_index = 5;
  options.num_heads = 16;
  options.head_dim = 128;
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  const Paths kept = gpu::attention(device, Rung::fast).kept;
  const LossGradients loss = make_loss(problem, options);
  for (const Rung rung : kRungs) {
    const Gradients first = backward(device, rung, kept, loss);
    for (int repeat = 0; repeat < 20; ++repeat) {
      CHECK(same_bits(first, backward(device, rung, kept, loss)));
    }
  }
}
