#include "multistep/shards.hpp"

#include "multistep/judge.hpp"
#include "schedule/property.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"

// A context cut into shards: search level by level and attention shard by shard, merged by the one
// order and by log-sum-exp. Selections are the whole's bit for bit.

using namespace multistep;
using inputs::at;
using inputs::kNaN;
using inputs::Problem;
using inputs::Values;

namespace {

/// A problem of which a shard has the keys [first, past).
struct Shard {
  Problem<double> problem;
  Index first;

  Shard(const Problem<double>& whole, Index first, Index past)
      : problem(whole.without_keys(first, past)), first(first) {}
  Shape shape() const {
    Shape shape = problem.shape();
    shape.key_offset = first;
    return shape;
  }
};

std::vector<Shard> shards_of(const Problem<double>& whole, std::vector<Index> cuts) {
  std::vector<Shard> shards;
  Index from = 0;
  cuts.push_back(whole.sizes.keys);
  for (const Index to : cuts) {
    shards.emplace_back(whole, from, to);
    from = to;
  }
  return shards;
}

template <class V>
void append(std::vector<V>& to, const std::vector<V>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

/// What search_level() gives on every shard, merged.
LevelPaths merged_level(const std::vector<Shard>& shards, Index level,
                        const std::vector<Index>& parents, const std::vector<double>& scores) {
  LevelPaths all;
  for (const Shard& shard : shards) {
    LevelSearchArgs<double> args{shard.shape(), &shard.problem.plan, level};
    args.routing_query = shard.problem.routing[at(level - 1)].data();
    args.search_keys = shard.problem.search_keys.data();
    args.search_scale = shard.problem.search_scale;
    args.parents = parents.data();
    args.parent_scores = scores.data();
    const LevelPaths found = search_level(args);
    append(all.spans, found.spans);
    append(all.scores, found.scores);
    append(all.anchors, found.anchors);
    append(all.ranks, found.ranks);
  }
  const Shard& any = shards.front();
  return merge_paths({std::ssize(shards), any.shape().rows(), any.problem.plan.schedule().top_k,
                      all.spans.data(), all.scores.data(), all.anchors.data(), all.ranks.data()});
}

/// Level by level; the paths' anchors as the whole search has them.
void check_search(const Problem<double>& whole, const std::vector<Shard>& shards) {
  const Selection want = span_search(whole.search());
  std::vector<Index> anchors;  // [.., top_k, level]
  LevelPaths paths;
  for (Index m = 1; m < whole.plan.steps(); ++m) {
    const std::vector<double> scores = paths.scores;
    paths = merged_level(shards, m, anchors, scores);
    std::vector<Index> longer;
    const Index slots = std::ssize(paths.scores);
    for (Index slot = 0; slot < slots; ++slot) {
      const Index rank = paths.ranks[at(slot)];
      const Index parent = slot / paths.top_k * paths.top_k + rank;
      for (Index above = 0; above < m - 1; ++above) {
        longer.push_back(rank < 0 ? -1 : anchors[at(parent * (m - 1) + above)]);
      }
      longer.push_back(paths.anchors[at(slot)]);
    }
    anchors = longer;
  }
  CHECK(paths.spans == want.spans);
  CHECK(paths.scores == want.scores);
  CHECK(anchors == want.anchors);
}

/// Items of spans, or of the windows, merged: equal but for the rounding of the merge.
void check_items(const Problem<double>& whole, const std::vector<Shard>& shards,
                 const Span* spans) {
  const Index top_k = spans ? whole.plan.schedule().top_k : 1;
  const auto attend = [&](const Problem<double>& problem, const Shape& shape) {
    const std::vector<Span> windows = query_windows(problem.plan, shape);
    return span_attention(SpanAttentionArgs<double>{shape, problem.query.data(), problem.key.data(),
                                                    problem.value.data(), top_k, spans,
                                                    windows.data()});
  };
  const Items want = attend(whole, whole.shape());
  std::vector<double> outputs, lses;
  for (const Shard& shard : shards) {
    const Items part = attend(shard.problem, shard.shape());
    append(outputs, part.output);
    append(lses, part.lse);
  }
  const Items got = merge_attention({std::ssize(shards), std::ssize(want.lse), whole.sizes.head_dim,
                                     outputs.data(), lses.data()});
  for (std::size_t i = 0; i < want.lse.size(); ++i) {
    CHECK(within_tolerance(got.lse[i], want.lse[i], 1e-13));
  }
  for (std::size_t i = 0; i < want.output.size(); ++i) {
    CHECK(within_tolerance(got.output[i], want.output[i], 1e-13));  // values are below 1
  }
}

const std::vector<std::vector<Index>> kCuts{{},   {1},     {20},     {0},
                                            {46}, {9, 30}, {15, 15}, {0, 3, 3, 8, 21, 40, 46}};

void check_shards(const Problem<double>& whole) {
  const Selection selection = span_search(whole.search());
  for (const std::vector<Index>& cuts : kCuts) {
    CAPTURE(cuts);
    const std::vector<Shard> shards = shards_of(whole, cuts);
    check_search(whole, shards);
    check_items(whole, shards, selection.spans.data());
    check_items(whole, shards, nullptr);
  }
}

Problem<double> problem_of(const Schedule& schedule, Values values = Values::rough) {
  auto problem = inputs::random_problem(schedule, inputs::grouped_sizes(8, 6, 40), 5, values);
  problem.start = {0, 17};
  return problem;
}

}  // namespace

TEST_CASE("Shards of a context, merged, are the whole", "[shards]") {
  for (Index steps = 2; steps <= 4; ++steps) {
    for (const char* name : {"nstep", "even", "aligned"}) {
      CAPTURE(steps, name);
      Schedule schedule = preset_schedule(name, steps);
      schedule.window_index = steps - 2;
      schedule.top_k = 3;
      check_shards(problem_of(schedule));
      check_shards(problem_of(schedule, Values::coarse));  // ties within and across shards
    }
  }
  Schedule paper = preset_schedule("paper");
  paper.window_index = 3;
  check_shards(problem_of(paper));
}

TEST_CASE("Aligned levels of shards cut by nominal lengths", "[shards]") {
  Schedule schedule = preset_schedule("nstep", 4);  // even, then two aligned levels below it
  schedule.levels[0] = default_level(Rule::even, 4);
  schedule.levels[1] = default_level(Rule::aligned, 3);
  schedule.levels[2] = default_level(Rule::aligned, 2);
  check_shards(problem_of(schedule));
}

TEST_CASE("What a shard holds of no query may be NaN", "[shards]") {
  const Schedule schedule = preset_schedule("nstep", 3);
  Problem<double> whole = problem_of(schedule);
  whole.length = {46, 20};
  for (Index head = 0; head < 4; ++head) {  // of the second sequence all behind, and the padding
    for (Index key = 0; key < 46; ++key) {
      const Index b = head / 2;
      if (key < whole.length[at(b)] && key >= whole.start[at(b)]) continue;
      for (Index i = 0; i < 8; ++i) {
        const std::size_t entry = at((head * 46 + key) * 8 + i);
        whole.key[entry] = whole.value[entry] = whole.search_keys[entry] = kNaN;
      }
    }
  }
  check_shards(whole);
}

TEST_CASE("Shards are refused where whole contexts are asked for", "[shards]") {
  const Problem<double> whole = problem_of(preset_schedule("nstep", 3));
  const Shard shard(whole, 10, 30);
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "nothing thrown";
  };
  SpanSearchArgs<double> search = shard.problem.search();
  search.shape = shard.shape();
  CHECK_THAT(message([&] { span_search(search); }), ContainsSubstring("key_offset 10"));
  AttentionArgs<double> attend = shard.problem.attention();
  attend.shape = shard.shape();
  CHECK_THAT(message([&] { attention(attend); }), ContainsSubstring("key_offset 10"));

  LevelSearchArgs<double> level{shard.shape(), &whole.plan, 3};
  level.routing_query = whole.routing[0].data();
  level.search_keys = shard.problem.search_keys.data();
  CHECK_THAT(message([&] { search_level(level); }),
             ContainsSubstring("level 3") && ContainsSubstring("[1, 2]"));
  level.level = 2;
  CHECK_THAT(message([&] { search_level(level); }), ContainsSubstring("parents"));
  const std::vector<Index> parents(at(level.shape.rows() * 2), 2);  // no stripe lies there
  const std::vector<double> scores(parents.size(), 0);
  level.parents = parents.data();
  level.parent_scores = scores.data();
  CHECK_THAT(message([&] { search_level(level); }), ContainsSubstring("anchor 2 of query"));
}
