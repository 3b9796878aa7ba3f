#include "judge.hpp"

// Decoding reads keys that several heads chose once for all of them. That leaves no trace: every
// head has the bits that it has among other neighbours.

using namespace multistep;
using namespace gpu;

namespace {

constexpr Index kHeads = 16;  // of a KV head

Options decoding(const Schedule& schedule) {
  Options options;
  options.schedule = schedule;
  options.num_heads = 2 * kHeads;
  options.query_offset = 1500;
  options.start = {0, 37};
  options.tail = 20;
  options.head_dim = 128;
  options.values = Values::rough;
  return options;
}

/// Long spans that overlap, a window, top_k of them. Twice as long, pieces have two tiles a warp.
Schedule overlapping(Index top_k, Index times = 1) {
  Schedule schedule = preset_schedule("paper");
  schedule.window_index = 7;
  schedule.levels[0].backward = make_rational(4 * times);
  schedule.levels[0].forward = make_rational(3 * times);
  schedule.top_k = top_k;
  return schedule;
}

/// Every head of a group routes, and asks, as the group's first one does.
Problem agreeing(Problem problem) {
  const Index d = problem.sizes.head_dim;
  const auto copy = [&](std::vector<float>& array) {
    for (Index row = 0; row < problem.sizes.rows(); ++row) {
      std::copy_n(array.begin() + row / kHeads * kHeads * d, d, array.begin() + row * d);
    }
  };
  copy(problem.query);
  for (auto& level : problem.routing) copy(level);
  return problem;
}

/// The rows of `heads` of `problem`, all others those of `other`.
Problem mixed(const Problem& other, const Problem& problem, const std::vector<Index>& heads) {
  Problem result = other;
  const Index d = problem.sizes.head_dim;
  for (const Index head : heads) {
    const auto copy = [&](std::vector<float>& to, const std::vector<float>& from) {
      std::copy_n(from.begin() + head * d, d, to.begin() + head * d);
    };
    copy(result.query, problem.query);
    for (std::size_t m = 0; m < problem.routing.size(); ++m) {
      copy(result.routing[m], problem.routing[m]);
    }
  }
  return result;
}

/// Every key weighs the same. A dim of the values is 0 but in every 12th piece of 128 keys; there,
/// tiles of 16 keys hold large values of either sign or small ones. Where the large ones cancel,
/// what is left of the small ones tells the order of the sum.
Problem cancelling(Problem problem) {
  const Index d = problem.sizes.head_dim;
  std::fill(problem.query.begin(), problem.query.end(), 0.0f);
  for (Index i = 0; i < std::ssize(problem.value); ++i) {
    const Index key = i / d % problem.sizes.keys;
    const auto tile_and_dim = static_cast<std::uint64_t>(key / 16 * d + i % d);
    const std::array<float, 3> choices{1, 0x1p30f, -0x1p30f};
    const float chosen = choices[at(inputs::Random(tile_and_dim).below(3))];
    problem.value[at(i)] = key / 128 % 12 == i % d % 12 ? chosen : 0;
  }
  return problem;
}

std::vector<float> head_of(const std::vector<float>& output, Index head, Index d) {
  return inputs::rows_of(output, 1, d, head, 1);
}

}  // namespace

TEST_CASE("GPU decoding of heads that agree, and of heads that do not", "[decode][fault]") {
  for (const Index top_k : {1, 2, 3, 4, 5, 8, 11, 16, 17, 31}) {
    for (const Dtype dtype : kDtypes) {
      for (const Index times : {1, 2}) {
        CAPTURE(top_k, name(dtype), times);
        Options options = decoding(overlapping(top_k, times));
        options.dtype = dtype;
        options.values = Values::integers;
        const Problem apart = make_problem(options);
        for (const Problem& problem : {apart, agreeing(apart)}) {
          const Whole got = gpu::attention(OnDevice(problem, dtype), Rung::fast);
          CHECK(wrong_exactly(problem, dtype, got) == "");
        }
      }
    }
  }
}

TEST_CASE("What other heads choose leaves no trace in a decoded head", "[decode][fault]") {
  const auto got = [](const Problem& problem) {
    return gpu::attention(OnDevice(problem, Dtype::bf16), Rung::fast);
  };
  const auto check = [&](const Problem& apart, const Problem& strangers) {
    const Whole want = got(apart);
    for (const std::vector<Index>& heads :
         {std::vector<Index>{0}, {5, 21, 40}, {31, 63}, {1, 2, 3, 4, 8, 16, 32}}) {
      const Whole among = got(mixed(strangers, apart, heads));
      const Whole agreed = got(mixed(agreeing(apart), apart, heads));
      for (const Index head : heads) {
        CAPTURE(head);
        CHECK(same_bits(among.of_rows(head, 1), want.of_rows(head, 1)));
        CHECK(same_bits(agreed.of_rows(head, 1), want.of_rows(head, 1)));
      }
    }
  };
  for (const Index top_k : {1, 2, 3, 4, 7, 16, 31}) {
    for (const Index times : {1, 2}) {
      CAPTURE(top_k, times);
      Options options = decoding(overlapping(top_k, times));
      const Problem apart = make_problem(options);
      options.seed = 2;
      Problem strangers = make_problem(options);
      strangers.key = apart.key;
      strangers.value = apart.value;
      strangers.search_keys = apart.search_keys;
      check(apart, strangers);
      check(cancelling(apart), cancelling(strangers));
    }
  }
}

TEST_CASE("Of decoded heads a NaN or infinity reaches those that attend to it", "[decode][fault]") {
  const Problem clean = make_problem(decoding(overlapping(3)));
  const Index d = clean.sizes.head_dim;
  const Whole want = gpu::attention(OnDevice(clean, Dtype::bf16), Rung::fast);
  const Index position = clean.sizes.query_offset;
  const Index window = clean.plan.window(position, 0).length();
  Index with = 0;
  Index without = 0;
  for (const Index key : {Index{40}, Index{100}, Index{700}, Index{1201}, position - window - 1}) {
    for (const float bad : {static_cast<float>(inputs::kNaN), INFINITY}) {
      for (auto array : {&Problem::key, &Problem::value}) {
        Problem dirty = clean;
        std::fill_n((dirty.*array).begin() + key * d, d, bad);  // of KV head 0 of sequence 0
        const Whole got = gpu::attention(OnDevice(dirty, Dtype::bf16), Rung::fast);
        CHECK(same_paths(got.kept, want.kept));
        for (Index head = 0; head < clean.sizes.rows(); ++head) {
          CAPTURE(key, bad, head, array == &Problem::key);
          bool attends = false;
          for (Index slot = 0; slot < 3; ++slot) {
            const DeviceSpan span = want.kept.spans[at(head * 3 + slot)];
            attends = attends || (head < kHeads && key >= span.begin && key < span.end);
          }
          const auto now = head_of(got.output, head, d);
          const auto before = head_of(want.output, head, d);
          if (!attends) {
            CHECK(same_bits(now, before));
            ++without;
          } else if (std::isnan(bad)) {
            CHECK(std::all_of(now.begin(), now.end(), [](float x) { return std::isnan(x); }));
            ++with;
          }
        }
      }
    }
  }
  CHECK(with > 10);
  CHECK(without > 10);
}

TEST_CASE("GPU decoding with many steps keeps the oracle's paths", "[decode]") {
  for (const Index steps : {2, 3, 4, 5, 6, 7, 8, 11, 16}) {
    for (const char* rules : {"nstep", "even", "aligned"}) {
      for (const Index head_dim : {64, 128, 256}) {
        for (const Index heads : {1, 5, 7, 16, 20, 24, 32, 48}) {  // of a KV head
          CAPTURE(steps, rules, head_dim, heads);
          Options options = decoding(preset_schedule(rules, steps));
          options.values = Values::integers;
          options.head_dim = head_dim;
          options.num_heads = 2 * heads;
          options.schedule.top_k = 1 + (steps + heads) % 4;
          const Problem problem = make_problem(options);
          const Selection selection = span_search(problem.search());
          const OnDevice device(problem, options.dtype);
          const Paths whole = search(device.search_args(Rung::fast));
          CHECK(difference(whole, selection) == "");
          CHECK(same_paths(whole, whole_paths(search_by_level(device, Rung::fast))));
        }
      }
    }
  }
}

TEST_CASE("GPU decoding of more sequences than one launch of a search takes", "[decode]") {
  // Level 1 is searched with few units, level 2, of a unit for each head and parent, with many.
  for (const Index batch : {16, 33, 70}) {
    for (const Index steps : {2, 3, 5}) {
      CAPTURE(batch, steps);
      Options options = decoding(preset_schedule("nstep", steps));
      options.schedule.window_index = 2;
      options.values = Values::integers;
      options.batch = batch;
      options.head_dim = 64;
      options.query_offset = 200;
      options.start.assign(at(batch), 0);
      for (std::size_t b = 0; b < options.start.size(); b += 3) options.start[b] = 37;
      const Problem problem = make_problem(options);
      const Whole got = gpu::attention(OnDevice(problem, options.dtype), Rung::fast);
      CHECK(wrong_exactly(problem, options.dtype, got) == "");
    }
  }
}
