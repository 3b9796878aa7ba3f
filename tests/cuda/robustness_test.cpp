#include "judge.hpp"

// Runs, batches, heads and NaN: what must not change a row does not.

using namespace multistep;
using namespace gpu;

namespace {

const float kNaN = static_cast<float>(inputs::kNaN);

/// Three steps, a window, overlapping spans: every stage has something to do.
Schedule busy_schedule() {
  Schedule schedule = preset_schedule("nstep", 3);
  schedule.levels[1] = default_level(Rule::power, 2);
  schedule.window_index = 1;
  return schedule;
}

std::vector<Schedule> schedules() {
  return {preset_schedule("nstep", 1), preset_schedule("nstep", 2), busy_schedule(),
          preset_schedule("even", 3), preset_schedule("aligned", 3)};
}

Options options_for(const Schedule& schedule, Index queries, Values values) {
  Options options;
  options.schedule = schedule;
  options.queries = queries;
  options.query_offset = 150;
  options.tail = 20;
  options.batch = 3;
  options.num_heads = 8;
  options.start = {0, 37, 160};
  options.values = values;
  return options;
}

/// The heads of [heads, ...] in the order given.
template <class T>
std::vector<T> reordered(const std::vector<T>& array, const std::vector<Index>& order) {
  const Index size = static_cast<Index>(array.size() / order.size());
  std::vector<T> result;
  for (const Index head : order) {
    const auto part = inputs::rows_of(array, 1, 1, head * size, size);
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

/// The batch entries in the order given, some perhaps left out.
Problem batches(const Problem& problem, const std::vector<Index>& order) {
  Problem result = problem;
  const auto pick = [&](std::vector<float>& array) {
    const Index size = static_cast<Index>(array.size()) / problem.sizes.batch;
    std::vector<float> picked;
    for (const Index b : order) {
      const auto part = inputs::rows_of(array, 1, 1, b * size, size);
      picked.insert(picked.end(), part.begin(), part.end());
    }
    array = picked;
  };
  for (auto* array : {&result.query, &result.key, &result.value, &result.search_keys}) pick(*array);
  for (auto& level : result.routing) pick(level);
  result.sizes.batch = static_cast<Index>(order.size());
  result.start.clear();
  for (const Index b : order) result.start.push_back(problem.start[at(b)]);
  return result;
}

void fill_row(std::vector<float>& array, Index row, Index width, float value) {
  std::fill_n(array.begin() + row * width, width, value);
}

/// Where the oracle's output for `reference` is a number, the GPU's for `dirty` is that number.
void check_confined(const Problem& dirty, const Problem& reference) {
  const OnDevice device(dirty, Dtype::bf16);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung));
    CHECK(wrong_whole(reference, Dtype::bf16, gpu::attention(device, rung)) == "");
  }
}

}  // namespace

TEST_CASE("Twenty GPU runs give the same bits", "[robust]") {
  for (const Schedule& schedule : schedules()) {
    for (const Index queries : {1, 130}) {
      const Problem problem = make_problem(options_for(schedule, queries, Values::rough));
      const OnDevice device(problem, Dtype::bf16);
      for (const Rung rung : kRungs) {
        CAPTURE(name(schedule), queries, name(rung));
        const Whole first = gpu::attention(device, rung);
        const Attended window = attend(device, rung, {});
        bool same = true;
        for (int run = 1; run < 20; ++run) {
          same = same && same_bits(gpu::attention(device, rung), first);
          const Attended again = attend(device, rung, {});
          same = same && same_bits(again.output, window.output) && same_bits(again.lse, window.lse);
        }
        CHECK(same);
      }
    }
  }
}

TEST_CASE("GPU sequences do not depend on their batch", "[robust]") {
  for (const Schedule& schedule : schedules()) {
    for (const Index queries : {1, 130}) {
      const Problem problem = make_problem(options_for(schedule, queries, Values::rough));
      const OnDevice together(problem, Dtype::bf16);
      const OnDevice turned(batches(problem, {2, 0, 1}), Dtype::bf16);
      for (const Rung rung : kRungs) {
        CAPTURE(name(schedule), queries, name(rung));
        const std::vector<float> whole = gpu::attention(together, rung).output;
        CHECK(same_bits(gpu::attention(turned, rung).output, reordered(whole, {2, 0, 1})));
        const Index size = static_cast<Index>(whole.size()) / 3;
        for (Index b = 0; b < 3; ++b) {
          CAPTURE(b);
          const OnDevice alone(batches(problem, {b}), Dtype::bf16);
          CHECK(same_bits(gpu::attention(alone, rung).output,
                          inputs::rows_of(whole, 1, 1, b * size, size)));
        }
      }
    }
  }
}

TEST_CASE("Permuting heads permutes the GPU's output", "[robust]") {
  // In each batch entry the two KV heads change places, and the query heads with their groups.
  std::vector<Index> heads;
  std::vector<Index> kv_heads;
  for (Index b = 0; b < 3; ++b) {
    for (const Index head : {5, 4, 7, 6, 2, 3, 0, 1}) heads.push_back(8 * b + head);
    for (const Index head : {1, 0}) kv_heads.push_back(2 * b + head);
  }
  for (const Schedule& schedule : schedules()) {
    for (const Index queries : {1, 130}) {
      const Problem problem = make_problem(options_for(schedule, queries, Values::rough));
      Problem permuted = problem;
      permuted.query = reordered(problem.query, heads);
      for (auto& level : permuted.routing) level = reordered(level, heads);
      for (auto* array : {&permuted.key, &permuted.value, &permuted.search_keys}) {
        *array = reordered(*array, kv_heads);
      }
      const OnDevice device(problem, Dtype::bf16);
      const OnDevice other(permuted, Dtype::bf16);
      for (const Rung rung : kRungs) {
        CAPTURE(name(schedule), queries, name(rung));
        CHECK(same_bits(gpu::attention(other, rung).output,
                        reordered(gpu::attention(device, rung).output, heads)));
      }
    }
  }
}

TEST_CASE("GPU padding and spare tail may hold anything", "[robust]") {
  for (const Schedule& schedule : schedules()) {
    for (const Index queries : {1, 130}) {
      for (const Index head_dim : {64, 96, 128, 200}) {
        for (const float anything : {kNaN, INFINITY, -INFINITY}) {
          CAPTURE(name(schedule), queries, head_dim, anything);
          Options options = options_for(schedule, queries, Values::integers);
          options.head_dim = head_dim;
          const Problem clean = make_problem(options);
          Problem dirty = clean;
          fill_unused_rows(dirty, anything);
          const OnDevice device(clean, Dtype::bf16);
          const OnDevice other(dirty, Dtype::bf16);
          for (const Rung rung : kRungs) {
            CAPTURE(name(rung));
            CHECK(same_bits(gpu::attention(other, rung), gpu::attention(device, rung)));
          }
          check_confined(dirty, clean);
        }
      }
    }
  }
}

TEST_CASE("A NaN in one query's row reaches that row alone", "[robust]") {
  for (const Index queries : {1, 130}) {
    const Problem clean = make_problem(options_for(busy_schedule(), queries, Values::integers));
    const Index d = clean.sizes.head_dim;
    const OnDevice device(clean, Dtype::bf16);
    for (const Rung rung : kRungs) {
      const std::vector<float> want = gpu::attention(device, rung).output;
      for (const Index row : {Index{0}, queries + queries / 2, clean.sizes.rows() - 1}) {
        for (int which = 0; which < 3; ++which) {
          CAPTURE(queries, name(rung), row, which);
          Problem dirty = clean;
          fill_row(which == 0 ? dirty.query : dirty.routing[at(which - 1)], row, d, kNaN);
          const Whole found = gpu::attention(OnDevice(dirty, Dtype::bf16), rung);
          CHECK(wrong_whole(dirty, Dtype::bf16, found) == "");  // without a path: the window
          std::vector<float> got = found.output;
          std::copy_n(want.begin() + row * d, d, got.begin() + row * d);
          CHECK(same_bits(got, want));
        }
      }
    }
  }
}

TEST_CASE("A NaN or infinite key or value reaches only the GPU's queries that look at it",
          "[robust][fault]") {
  for (const Index queries : {1, 130}) {
    const Options options = options_for(busy_schedule(), queries, Values::integers);
    const Problem clean = make_problem(options);
    const Index d = options.head_dim;
    const Index last = options.query_offset + queries - 1;
    for (const Index head : {0, 3}) {  // of [batch, num_kv_heads]
      for (const Index j : {Index{0}, Index{40}, Index{149}, last - 64, last - 1, last}) {
        CAPTURE(queries, head, j);
        const Index row = head * clean.sizes.keys + j;
        const auto spoilt = [&](std::vector<float> Problem::*array, float value) {
          Problem problem = clean;
          fill_row(problem.*array, row, d, value);
          return problem;
        };
        const Problem nan_key = spoilt(&Problem::key, kNaN);
        const Problem nan_value = spoilt(&Problem::value, kNaN);
        const Problem nan_search = spoilt(&Problem::search_keys, kNaN);
        check_confined(nan_key, nan_key);
        check_confined(nan_value, nan_value);
        check_confined(nan_search, nan_search);
        check_confined(spoilt(&Problem::key, INFINITY), nan_key);
        check_confined(spoilt(&Problem::value, INFINITY), nan_value);
        check_confined(spoilt(&Problem::value, -INFINITY), nan_value);
        Problem both = nan_key;  // K is searched: anchors, spans and windows
        both.search_keys.clear();
        check_confined(both, both);
      }
    }
  }
}

TEST_CASE("GPU attention on two streams at once", "[robust]") {
  const Problem first = make_problem(options_for(busy_schedule(), 130, Values::integers));
  Options options = options_for(busy_schedule(), 130, Values::integers);
  options.seed = 2;
  const Problem second = make_problem(options);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung));
    const Problem* problems[] = {&first, &second};
    std::vector<OnDevice> devices;
    std::vector<DeviceArray<std::uint16_t>> outputs;
    std::vector<cuda::DeviceBuffer> workspaces;
    const cuda::OwnedStream streams[2];
    for (const Problem* problem : problems) {
      devices.emplace_back(*problem, Dtype::bf16);
      const cuda::Shape& shape = devices.back().shape;
      outputs.push_back(poisoned<std::uint16_t>(shape.rows() * shape.head_dim));
      workspaces.emplace_back(cuda::workspace_size(devices.back().attention_args(rung)));
    }
    for (int repeat = 0; repeat < 5; ++repeat) {
      for (std::size_t i = 0; i < 2; ++i) {
        auto args = devices[i].attention_args(rung);
        args.output = outputs[i].data();
        args.workspace = {workspaces[i].data(), workspaces[i].size()};
        cuda::attention(args, streams[i].get());
      }
    }
    for (std::size_t i = 0; i < 2; ++i) {
      streams[i].synchronize();
      const OnDevice& device = devices[i];
      Whole got = gpu::attention(device, rung);
      CHECK(same_bits(cuda::from_16_bits(Dtype::bf16, outputs[i].download()), got.output));
      CHECK(wrong_exactly(*problems[i], Dtype::bf16, got) == "");
    }
  }
}
