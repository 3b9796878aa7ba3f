#include "judge.hpp"

// Inputs whose scores are rounded in float32.

using namespace multistep;
using namespace gpu;

namespace {

void check_regret(const Options& options) {
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(options.dtype));
    CHECK(wrong_paths(problem, search(device.search_args(rung))) == "");
    CHECK(wrong_paths(problem, whole_paths(search_by_level(device, rung))) == "");
  }
}

Options rough(const Schedule& schedule) {
  Options options;
  options.schedule = schedule;
  options.values = Values::rough;
  options.queries = 66;
  options.query_offset = 250;
  options.start = {0, 37};
  options.seed = 5;
  return options;
}

}  // namespace

TEST_CASE("GPU search of rounded scores has no regret", "[search]") {
  for (Index steps = 2; steps <= 4; ++steps) {
    for (const char* rules : {"nstep", "even", "aligned"}) {
      for (const Dtype dtype : kDtypes) {
        CAPTURE(steps, rules);
        Options options = rough(preset_schedule(rules, steps));
        options.dtype = dtype;
        options.schedule.top_k = 3;
        check_regret(options);
      }
    }
  }
}

TEST_CASE("GPU search of rounded scores has no regret for any head_dim or scale", "[search]") {
  for (const Index head_dim : {32, 64, 96, 128, 256}) {
    for (const Index queries : {1, 66}) {
      CAPTURE(head_dim, queries);
      Options options = rough(preset_schedule("paper"));
      options.schedule.window_index = 3;
      options.head_dim = head_dim;
      options.queries = queries;
      options.num_heads = 16;
      check_regret(options);
    }
  }
}

TEST_CASE("GPU search of rounded scores has no regret for the released schedule", "[search]") {
  Options options = rough(preset_schedule("released"));
  options.query_offset = 4000;
  options.head_dim = 128;
  options.batch = 1;
  options.start = {37};
  check_regret(options);
}
