#include "judge.hpp"

// A row's bits depend neither on what the cache and the plan could hold beside its keys, nor on the
// rows that are asked with it: but for the kernels for few queries against those for many.

using namespace multistep;
using namespace gpu;

namespace {

constexpr Index kKeys = 4500;

Schedule paper_schedule() {
  Schedule schedule = preset_schedule("paper");
  schedule.window_index = 31;
  return schedule;
}

std::vector<Schedule> schedules() {
  return {paper_schedule(),        preset_schedule("released"),   preset_schedule("nstep", 3),
          preset_schedule("even"), preset_schedule("aligned", 3), preset_schedule("nstep", 1)};
}

/// The last `queries` positions of a context of kKeys keys.
Problem last_queries(const Schedule& schedule, Index queries) {
  Options options;
  options.schedule = schedule;
  options.batch = 1;
  options.num_heads = 32;
  options.head_dim = 128;
  options.queries = 300;
  options.query_offset = kKeys - 300;
  options.start = {37};
  options.values = Values::rough;
  return make_problem(options).chunk(300 - queries, queries);
}

/// The same problem in arrays of `capacity` rows, NaN behind its keys, with a plan for `length`.
Problem with_room(const Problem& problem, Index capacity, Index length) {
  Problem result = problem;
  const Index heads = problem.sizes.batch * problem.sizes.num_kv_heads;
  const auto size = static_cast<std::ptrdiff_t>(problem.sizes.keys * problem.sizes.head_dim);
  for (auto array : {&Problem::key, &Problem::value, &Problem::search_keys}) {
    const std::vector<float>& given = problem.*array;
    std::vector<float> wide(at(heads * capacity * problem.sizes.head_dim),
                            static_cast<float>(inputs::kNaN));
    for (Index head = 0; head < heads; ++head) {
      std::copy_n(given.begin() + head * size, size,
                  wide.begin() + head * capacity * problem.sizes.head_dim);
    }
    result.*array = wide;
  }
  result.sizes.keys = capacity;
  result.plan = StripePlan(problem.plan.schedule(), length);
  return result;
}

}  // namespace

TEST_CASE("The capacity of cache and plan leaves no trace in a GPU row", "[capacity][fault]") {
  for (const Schedule& schedule : schedules()) {
    for (const Index queries : {1, 4, 300}) {
      const Problem tight = last_queries(schedule, queries);
      for (const Rung rung : kRungs) {
        CAPTURE(name(schedule), queries, name(rung));
        const Whole want = gpu::attention(OnDevice(tight, Dtype::bf16), rung);
        for (const auto& [capacity, length] : {std::pair<Index, Index>{kKeys, 65536},
                                               {8192, 8192},
                                               {65536, kKeys},
                                               {65536, 65536}}) {
          CAPTURE(capacity, length);
          OnDevice device(with_room(tight, capacity, length), Dtype::bf16);
          CHECK(same_bits(gpu::attention(device, rung), want));
          device.use_length({kKeys});
          const Whole got = gpu::attention(device, rung);
          // With the length on the device queries count as few.
          if (rung == Rung::fast && queries == 300) {
            CHECK(same_paths(got.kept, want.kept));
            CHECK(wrong_whole(tight, Dtype::bf16, got) == "");
          } else {
            CHECK(same_bits(got, want));
          }
        }
      }
    }
  }
}

TEST_CASE("The queries of a call leave no trace in a GPU row", "[capacity][fault]") {
  for (const Schedule& schedule : schedules()) {
    const Problem one = last_queries(schedule, 1);
    for (const Rung rung : kRungs) {
      CAPTURE(name(schedule), name(rung));
      const Whole alone = gpu::attention(OnDevice(one, Dtype::bf16), rung);
      const auto among = [&](Index queries) {
        const Problem problem = last_queries(schedule, queries);
        return gpu::attention(OnDevice(problem, Dtype::bf16), rung).of_rows(queries - 1, 1, 32);
      };
      CHECK(same_bits(among(4), alone));
      const Whole many = among(300);
      if (rung == Rung::plain) {
        CHECK(same_bits(many, alone));
      } else {  // tiles, where there are some, sum in another order
        CHECK(same_paths(many.kept, alone.kept));
        CHECK(wrong_whole(one, Dtype::bf16, many) == "");
        CHECK(wrong_whole(one, Dtype::bf16, alone) == "");
      }
      // Dense attention's few queries are more.
      CHECK(same_bits(among(schedule.steps > 1 ? 70 : 150), many));
    }
  }
}
