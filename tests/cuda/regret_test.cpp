#include "regret.hpp"

// Inputs whose scores are rounded in float32.

using namespace multistep;
using namespace gpu;

namespace {

void check_regret(const Options& options) {
  const Problem problem = make_problem(options);
  const OnDevice device(problem, options.dtype);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(options.dtype));
    const Paths whole = search(device.search_args(rung));
    CHECK(judge_paths(problem, whole) == "");
    if (options.schedule.steps == 2) CHECK(judge_level(problem, 1, whole, nullptr) == "");
    // A near-tie at one level changes what the next is offered: each is judged by its own input.
    const std::vector<Paths> levels = search_by_level(device, rung);
    for (Index m = 1; m < options.schedule.steps; ++m) {
      CAPTURE(m);
      const Paths* parents = m > 1 ? &levels[at(m - 2)] : nullptr;
      CHECK(judge_level(problem, m, levels[at(m - 1)], parents) == "");
    }
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
    for (const char* rules : {"nstep", "even"}) {
      for (const Dtype dtype : kDtypes) {
        CAPTURE(steps, rules);
        Options options = rough(preset(rules, steps));
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
      Options options = rough(preset("paper"));
      options.schedule.window_index = 3;
      options.head_dim = head_dim;
      options.queries = queries;
      options.num_heads = 16;
      check_regret(options);
    }
  }
}

TEST_CASE("GPU search of rounded scores has no regret for the released schedule", "[search]") {
  Options options = rough(preset("released"));
  options.query_offset = 4000;
  options.head_dim = 128;
  options.batch = 1;
  options.start = {37};
  check_regret(options);
}

TEST_CASE("The judges of searches refuse wrong paths", "[search]") {
  const Problem problem = make_problem(rough(preset("nstep", 2)));
  const Selection selection = span_search(problem.search());
  const Paths right{selection.top_k,
                    1,
                    to_device(selection.spans),
                    cast<float>(selection.scores),
                    to_int32(selection.anchors),
                    {}};
  CHECK(judge_level(problem, 1, right, nullptr) == "");
  CHECK(judge_paths(problem, right) == "");
  CHECK(difference(right, selection) != "");  // the scores were rounded

  Paths wrong = right;
  wrong.spans[7].begin += 1;
  CHECK(judge_level(problem, 1, wrong, nullptr) != "");
  CHECK(judge_paths(problem, wrong) != "");
  wrong = right;
  wrong.scores[7] *= 1 + 0x1p-10F;
  CHECK(judge_level(problem, 1, wrong, nullptr) != "");
  CHECK(judge_paths(problem, wrong) != "");
  wrong = right;
  wrong.scores[7] = static_cast<float>(inputs::kNaN);
  CHECK(judge_level(problem, 1, wrong, nullptr) != "");
  CHECK(judge_paths(problem, wrong) != "");
  wrong = right;
  wrong.spans[1] = wrong.spans[0];
  wrong.scores[1] = wrong.scores[0];
  wrong.anchors[1] = wrong.anchors[0];
  CHECK(judge_level(problem, 1, wrong, nullptr) != "");
  CHECK(judge_paths(problem, wrong) != "");
  wrong = right;
  wrong.spans[1] = {0, 0};
  wrong.scores[1] = -INFINITY;
  wrong.anchors[1] = -1;
  CHECK(judge_level(problem, 1, wrong, nullptr) != "");
  wrong = right;  // another real candidate, with its own score, that is not among the best
  std::vector<Candidate> candidates = offered(problem, 1, 0, nullptr);
  const auto last =
      std::min_element(candidates.begin(), candidates.end(),
                       [](const Candidate& a, const Candidate& b) { return a.score < b.score; });
  wrong.spans[1] = to_device({last->span})[0];
  wrong.scores[1] = static_cast<float>(last->score);
  wrong.anchors[1] = static_cast<std::int32_t>(last->anchor);
  CHECK(judge_paths(problem, wrong) == "");
  CHECK(judge_level(problem, 1, wrong, nullptr) != "");
}
