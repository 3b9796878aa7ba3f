#include <numeric>

#include "backward.hpp"

// Packed sequences, one behind the other in one call, against each of them alone.

using namespace multistep;
using namespace gpu;

namespace {

constexpr Index kBehind = 5;  // rows behind the last sequence

Options packed_options(const Schedule& schedule, const std::vector<Index>& lengths) {
  Options options;
  options.schedule = schedule;
  options.batch = 1;
  options.num_heads = 8;
  options.head_dim = 128;
  options.queries = std::reduce(lengths.begin(), lengths.end()) + kBehind;
  options.values = Values::rough;
  return options;
}

std::vector<Index> boundaries(const std::vector<Index>& lengths) {
  std::vector<Index> result{0};
  for (const Index length : lengths) result.push_back(result.back() + length);
  return result;
}

/// The sequence in rows [first, first + count) of a packed problem.
Problem sequence_of(const Problem& packed, Index first, Index count) {
  Problem result = packed.chunk(first, count).without_keys(first, first + count);
  result.sizes.query_offset = 0;
  return result;
}

/// What was found for it, in its own keys.
Whole of_sequence(const Whole& packed, Index first, Index count, Index heads) {
  Whole result = packed.of_rows(first, count, heads);
  const auto skipped = static_cast<std::int32_t>(first);
  for (DeviceSpan& span : result.kept.spans) {
    if (span.end > span.begin) span = {span.begin - skipped, span.end - skipped};
  }
  for (std::int32_t& anchor : result.kept.anchors) {
    if (anchor >= 0) anchor -= skipped;
  }
  return result;
}

std::vector<float> some_rows(const std::vector<float>& array, Index heads, Index rows, Index first,
                             Index count) {
  if (array.empty()) return {};
  return inputs::rows_of(array, heads, static_cast<Index>(array.size()) / (heads * rows), first,
                         count);
}

LossGradients of_sequence(const LossGradients& packed, Index heads, Index rows, Index first,
                          Index count) {
  const auto part = [&](const auto& array) { return some_rows(array, heads, rows, first, count); };
  return {part(packed.output), part(packed.scores), part(packed.lse), part(packed.window_lse)};
}

Gradients of_sequence(const Gradients& packed, const Shape& sizes, Index first, Index count) {
  const auto of_queries = [&](const std::vector<float>& array) {
    return some_rows(array, sizes.num_heads, sizes.queries, first, count);
  };
  const auto of_keys = [&](const std::vector<float>& array) {
    return some_rows(array, sizes.num_kv_heads, sizes.keys, first, count);
  };
  Gradients result{of_queries(packed.query),
                   of_keys(packed.key),
                   of_keys(packed.value),
                   of_keys(packed.search_keys),
                   {}};
  for (const auto& level : packed.routing) result.routing.push_back(of_queries(level));
  return result;
}

bool all_equal(const std::vector<float>& array, float value) {
  return std::all_of(array.begin(), array.end(), [&](float x) { return x == value; });
}

/// Of one call with all sequences, each but one that is skipped.
void check_packed(const Problem& problem, const Options& options, const std::vector<Index>& lengths,
                  Index skipped_sequence = -1) {
  const Shape& sizes = problem.sizes;
  const std::vector<Index> begins = boundaries(lengths);
  OnDevice device(problem, options.dtype);
  device.use_cu_seqlens(begins);
  const LossGradients loss = make_loss(problem, options);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(options.dtype));
    const Whole found = gpu::attention(device, rung);
    const Gradients got = backward_of_output(device, rung, found, loss);
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      const Index first = begins[s];
      const Index count = lengths[s];
      if (count == 0 || static_cast<Index>(s) == skipped_sequence) continue;
      CAPTURE(s, first, count);
      const Problem alone = sequence_of(problem, first, count);
      const Whole part = of_sequence(found, first, count, sizes.num_heads);
      CHECK(same_paths(part.kept, gpu::attention(OnDevice(alone, options.dtype), rung).kept));
      CHECK(wrong_whole(alone, options.dtype, part) == "");
      CHECK(wrong_gradients(alone, options.dtype, part.kept,
                            of_sequence(loss, sizes.num_heads, sizes.queries, first, count),
                            of_sequence(got, sizes, first, count)) == "");
    }
    const Whole behind = found.of_rows(begins.back(), kBehind, sizes.num_heads);
    CHECK(all_equal(behind.output, 0));
    CHECK(all_equal(behind.window_lse, -INFINITY));
    CHECK(all_equal(behind.kept.scores, -INFINITY));
    const Gradients none = of_sequence(got, sizes, begins.back(), kBehind);
    for (const auto* array : {&none.query, &none.key, &none.value, &none.search_keys}) {
      CHECK(all_equal(*array, 0));
    }
  }
}

const std::vector<Index> kLengths{0, 1, 37, 128, 0, 300, 65};

}  // namespace

TEST_CASE("Packed sequences on the GPU are as each alone", "[packed]") {
  for (const Index steps : {1, 2, 3, 4}) {
    for (const Dtype dtype : kDtypes) {
      for (const Index window_index : {0, 3}) {
        CAPTURE(steps, window_index);
        Options options = packed_options(preset_schedule("nstep", steps), kLengths);
        options.schedule.window_index = window_index;
        options.dtype = dtype;
        options.head_dim = dtype == Dtype::bf16 ? 128 : 64;
        check_packed(make_problem(options), options, kLengths);
      }
    }
  }
  for (const char* rules : {"paper", "released", "even", "aligned"}) {
    CAPTURE(rules);
    const Options options = packed_options(preset_schedule(rules), kLengths);
    check_packed(make_problem(options), options, kLengths);
  }
}

TEST_CASE("One packed sequence, and many short ones, on the GPU", "[packed]") {
  for (const std::vector<Index>& lengths :
       {std::vector<Index>{300}, std::vector<Index>(100, 3), std::vector<Index>{2}}) {
    CAPTURE(lengths.size());
    Options options = packed_options(preset_schedule("paper"), lengths);
    options.schedule.window_index = 2;
    check_packed(make_problem(options), options, lengths);
  }
}

TEST_CASE("What a packed sequence holds reaches no other on the GPU", "[packed]") {
  for (const Index steps : {1, 2}) {
    Options options = packed_options(preset_schedule("nstep", steps), kLengths);
    options.schedule.window_index = 3;
    Problem problem = make_problem(options);
    const Index sick = 3;
    const Index first = boundaries(kLengths)[at(sick)];
    for (Index head = 0; head < options.num_kv_heads; ++head) {
      for (auto* array : {&problem.key, &problem.value, &problem.search_keys}) {
        std::fill_n(array->begin() + (head * problem.sizes.keys + first) * options.head_dim,
                    kLengths[at(sick)] * options.head_dim, static_cast<float>(inputs::kNaN));
      }
    }
    check_packed(problem, options, kLengths, sick);
  }
}
