#include <climits>
#include <numeric>

#include "backward.hpp"

// Packed sequences, one behind the other in one call, against each of them alone.

using namespace multistep;
using namespace gpu;

namespace {

constexpr Index kBehind = 5;  // rows behind the last sequence, of queries and of keys

/// How long the packed sequences are.
struct Lengths {
  std::vector<Index> queries;
  std::vector<Index> keys{};  // none: as many

  bool own_keys() const { return !keys.empty(); }
  const std::vector<Index>& of_keys() const { return own_keys() ? keys : queries; }
};

std::vector<Index> boundaries(const std::vector<Index>& lengths) {
  std::vector<Index> result{0};
  for (const Index length : lengths) result.push_back(result.back() + length);
  return result;
}

Options packed_options(const Schedule& schedule, const Lengths& lengths) {
  Options options;
  options.schedule = schedule;
  options.batch = 1;
  options.num_heads = 8;
  options.head_dim = 128;
  options.queries = boundaries(lengths.queries).back() + kBehind;
  options.tail = boundaries(lengths.of_keys()).back() + kBehind - options.queries;
  options.values = Values::rough;
  return options;
}

/// Every row of [heads, keys, head_dim] in [first, first + count) becomes NaN.
void spoil_keys(Problem& problem, Index first, Index count) {
  const Shape& sizes = problem.sizes;
  for (Index head = 0; head < sizes.num_kv_heads; ++head) {
    for (auto* array : {&problem.key, &problem.value, &problem.search_keys}) {
      std::fill_n(array->begin() + (head * sizes.keys + first) * sizes.head_dim,
                  count * sizes.head_dim, static_cast<float>(inputs::kNaN));
    }
  }
}

/// What is behind the last sequence is NaN.
Problem packed_problem(const Options& options, const Lengths& lengths) {
  Problem problem = make_problem(options);
  spoil_keys(problem, boundaries(lengths.of_keys()).back(), kBehind);
  return problem;
}

/// Where a sequence lies: its queries that have keys, the last ones, and those keys.
struct Part {
  Index first_query;
  Index queries;
  Index first_key;
  Index keys;

  Part(const Lengths& lengths, std::size_t s)
      : first_key(boundaries(lengths.of_keys())[s]), keys(lengths.of_keys()[s]) {
    queries = std::min(lengths.queries[s], keys);
    first_query = boundaries(lengths.queries)[s + 1] - queries;
  }
  Part(Index query, Index query_count, Index key, Index key_count)
      : first_query(query), queries(query_count), first_key(key), keys(key_count) {}
};

/// The sequence alone.
Problem sequence_of(const Problem& packed, const Part& part) {
  Problem result = packed.chunk(part.first_query, part.queries)
                       .without_keys(part.first_key, part.first_key + part.keys);
  result.sizes.query_offset = part.keys - part.queries;
  return result;
}

/// What was found for it, in its own keys.
Whole of_sequence(const Whole& packed, const Part& part, Index heads) {
  Whole result = packed.of_rows(part.first_query, part.queries, heads);
  const auto skipped = static_cast<std::int32_t>(part.first_key);
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

LossGradients of_sequence(const LossGradients& packed, const Shape& sizes, const Part& part) {
  const auto rows = [&](const auto& array) {
    return some_rows(array, sizes.num_heads, sizes.queries, part.first_query, part.queries);
  };
  return {rows(packed.output), rows(packed.scores), rows(packed.lse), rows(packed.window_lse)};
}

Gradients of_sequence(const Gradients& packed, const Shape& sizes, const Part& part) {
  const auto of_queries = [&](const std::vector<float>& array) {
    return some_rows(array, sizes.num_heads, sizes.queries, part.first_query, part.queries);
  };
  const auto of_keys = [&](const std::vector<float>& array) {
    return some_rows(array, sizes.num_kv_heads, sizes.keys, part.first_key, part.keys);
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

bool all_near(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return x == y || std::abs(x - y) <= 1e-4f * std::max(std::abs(x), 1.0f);  // sums of float32
  });
}

/// The stages one by one find what attention() has found.
void check_stages(const OnDevice& device, Rung rung, const Whole& found) {
  if (device.schedule.levels() > 0) {
    CHECK(same_paths(whole_paths(search_by_level(device, rung)), found.kept));
    CHECK(all_near(gpu::attend(device, rung, found.kept.spans).lse, found.span_lses));
  }
  CHECK(all_near(gpu::attend(device, rung, {}).lse, found.window_lse));
}

/// Rows of queries and of keys that have nothing to do with one another.
void check_nothing(const Whole& found, const Gradients& got, const Shape& sizes, const Part& part) {
  const Whole rows = found.of_rows(part.first_query, part.queries, sizes.num_heads);
  CHECK((part.queries == 0 || found_nothing(rows, 0, part.queries * sizes.num_heads)));
  const Gradients none = of_sequence(got, sizes, part);
  for (const auto* array : {&none.query, &none.key, &none.value, &none.search_keys}) {
    CHECK(all_equal(*array, 0));
  }
  for (const auto& level : none.routing) CHECK(all_equal(level, 0));
}

/// Of one call with all sequences, each but one that is skipped.
void check_packed(const Problem& problem, const Options& options, const Lengths& lengths,
                  Index skipped_sequence = -1) {
  const Shape& sizes = problem.sizes;
  OnDevice device(problem, options.dtype);
  if (lengths.own_keys()) {
    device.use_cu_seqlens(boundaries(lengths.queries), boundaries(lengths.keys));
  } else {
    device.use_cu_seqlens(boundaries(lengths.queries));
  }
  const LossGradients loss = make_loss(problem, options);
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(options.dtype));
    const Whole found = gpu::attention(device, rung);
    const Gradients got = backward_of_output(device, rung, found, loss);
    if (skipped_sequence < 0) check_stages(device, rung, found);
    for (std::size_t s = 0; s < lengths.queries.size(); ++s) {
      const Part part(lengths, s);
      CAPTURE(s, part.first_query, part.queries, part.first_key, part.keys);
      const Index without_keys = lengths.queries[s] - part.queries;
      check_nothing(found, got, sizes,
                    {part.first_query - without_keys, without_keys, part.first_key,
                     part.queries == 0 ? part.keys : 0});
      if (part.queries == 0 || static_cast<Index>(s) == skipped_sequence) continue;
      const Problem alone = sequence_of(problem, part);
      const Whole here = of_sequence(found, part, sizes.num_heads);
      CHECK(same_paths(here.kept, gpu::attention(OnDevice(alone, options.dtype), rung).kept));
      CHECK(wrong_whole(alone, options.dtype, here) == "");
      CHECK(wrong_gradients(alone, options.dtype, here.kept, of_sequence(loss, sizes, part),
                            of_sequence(got, sizes, part)) == "");
    }
    check_nothing(found, got, sizes,
                  {sizes.queries - kBehind, kBehind, sizes.keys - kBehind, kBehind});
  }
}

const Lengths kAlike{{0, 1, 37, 128, 0, 300, 65}};
/// New queries over caches: nobody looks at the first, one has fewer keys than queries, one none.
const Lengths kOwnKeys{{0, 1, 37, 128, 6, 300, 65}, {5, 1, 200, 128, 0, 150, 3000}};

}  // namespace

TEST_CASE("Packed sequences on the GPU are as each alone", "[packed]") {
  for (const Lengths& lengths : {kAlike, kOwnKeys}) {
    for (const Index steps : {1, 2, 3, 4}) {
      for (const Dtype dtype : kDtypes) {
        for (const Index window_index : {0, 3}) {
          // The long caches take the judge a while: half of the cases.
          if (lengths.own_keys() && (dtype == Dtype::bf16) != (window_index == 3)) continue;
          CAPTURE(lengths.own_keys(), steps, window_index);
          Options options = packed_options(preset_schedule("nstep", steps), lengths);
          options.schedule.window_index = window_index;
          options.dtype = dtype;
          options.head_dim = dtype == Dtype::bf16 ? 128 : 64;
          check_packed(packed_problem(options, lengths), options, lengths);
        }
      }
    }
    for (const char* rules : {"paper", "released", "even", "aligned"}) {
      CAPTURE(lengths.own_keys(), rules);
      const Options options = packed_options(preset_schedule(rules), lengths);
      check_packed(packed_problem(options, lengths), options, lengths);
    }
  }
}

TEST_CASE("One packed sequence, and many short ones, on the GPU", "[packed][fault]") {
  for (const Lengths& lengths :
       {Lengths{{300}}, Lengths{std::vector<Index>(100, 3)}, Lengths{{2}}, Lengths{{2}, {700}},
        Lengths{std::vector<Index>(40, 1), std::vector<Index>(40, 90)}}) {
    CAPTURE(lengths.queries.size(), lengths.own_keys());
    Options options = packed_options(preset_schedule("paper"), lengths);
    options.schedule.window_index = 2;
    check_packed(packed_problem(options, lengths), options, lengths);
  }
}

TEST_CASE("A bound of packed keys that is too large harms its own sequence alone", "[packed]") {
  const Lengths lengths{{3, 70, 40}, {90, 70, 200}};
  for (const Index steps : {1, 2, 3}) {
    const Options options = packed_options(preset_schedule("nstep", steps), lengths);
    const Problem problem = packed_problem(options, lengths);
    OnDevice device(problem, options.dtype);
    for (const Index end : {Index{INT_MAX}, Index{INT_MAX} - 1, Index{1000}}) {
      device.use_cu_seqlens(boundaries(lengths.queries), {0, 90, 160, end});
      for (const Rung rung : kRungs) {
        const Whole found = gpu::attention(device, rung);
        for (const std::size_t s : {0, 1}) {
          CAPTURE(steps, end, name(rung), s);
          const Part part(lengths, s);
          CHECK(wrong_whole(sequence_of(problem, part), options.dtype,
                            of_sequence(found, part, options.num_heads)) == "");
        }
      }
    }
  }
}

TEST_CASE("What a packed sequence holds reaches no other on the GPU", "[packed]") {
  for (const Lengths& lengths : {kAlike, kOwnKeys}) {
    for (const Index steps : {1, 2}) {
      CAPTURE(lengths.own_keys(), steps);
      Options options = packed_options(preset_schedule("nstep", steps), lengths);
      options.schedule.window_index = 3;
      Problem problem = packed_problem(options, lengths);
      const Index sick = 3;
      const Part part(lengths, at(sick));
      spoil_keys(problem, part.first_key, part.keys);
      check_packed(problem, options, lengths, sick);
    }
  }
}
