#include "multistep/gradients.hpp"
#include "schedule/property.hpp"
#include "support/catch.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::at;
using inputs::kInfinity;
using inputs::Problem;
using inputs::Random;
using inputs::same_bits;
using inputs::Values;

namespace {

// Two softmaxes over at most 60 keys of size 1, and their gated sum.
constexpr double kTolerance = 1e-13;

/// Any schedule over sequences of any lengths, none and fewer than there are queries among them.
Problem<double> random_lengths(std::uint64_t seed) {
  Random random(seed);
  const Schedule schedule = inputs::random_schedule(random);
  const Index queries = 1 + random.below(6);
  const Shape sizes = inputs::grouped_sizes(5, queries, random.below(40));
  auto problem = inputs::random_problem(schedule, sizes, random.next(), Values::rough);
  for (Index b = 0; b < sizes.batch; ++b) {
    problem.length.push_back(random.below(random.below(2) ? queries + 1 : sizes.keys + 1));
    problem.start.push_back(random.below(2) ? 0 : random.below(sizes.keys));
  }
  problem.sizes.query_offset = -7;  // counts for nothing
  return problem;
}

bool keyless(const Problem<double>& problem, Index row) {
  return problem.position_of(row) < problem.start_of(problem.batch_of(row));
}

/// The queries of one sequence that stand at or behind key 0, at an offset.
struct Behind {
  Problem<double> problem;
  Index left_out;  // queries before key 0

  Behind(const Problem<double>& whole, Index b) : problem(whole.sequence(b)) {
    const Index length = problem.length[0];
    const Index queries = problem.sizes.queries;
    left_out = std::max<Index>(queries - length, 0);
    problem.sizes.query_offset = 0;
    problem = problem.chunk(left_out, queries - left_out);
    problem.sizes.query_offset = length - problem.sizes.queries;
    problem.length.clear();
  }
};

/// Rows of sequence b of [batch, num_heads, L_q, width] that are not left out.
std::vector<double> of_sequence(const std::vector<double>& array, const Shape& sizes, Index b,
                                Index left_out) {
  const Index size = static_cast<Index>(array.size()) / sizes.batch;
  const auto whole = inputs::rows_of(array, 1, 1, b * size, size);
  const Index width = size / sizes.num_heads / sizes.queries;
  return inputs::rows_of(whole, sizes.num_heads, width, left_out, sizes.queries - left_out);
}

}  // namespace

TEST_CASE("Sequences of any length equal the naive composition", "[attention]") {
  check_property("any schedule, length and start", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    const auto problem = random_lengths(seed);
    const auto output = attention(problem.attention()).output;
    RC_ASSERT(inputs::distance(output, naive::Stages<double>(problem).attention()) <= kTolerance);
    RC_ASSERT(output.size() == at(problem.sizes.rows() * 5));
  });
}

TEST_CASE("A row before its first key has no path, output 0 and lse -inf", "[search][attention]") {
  check_property("any schedule, length and start", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    const auto problem = random_lengths(seed);
    const Selection selection = span_search(problem.search());
    const auto windows = problem.windows();
    const Items spans = span_attention<double>(
        {problem.shape(), problem.query.data(), problem.key.data(), problem.value.data(),
         selection.top_k, selection.spans.data(), windows.data()});
    const auto output = attention(problem.attention()).output;
    for (Index row = 0; row < problem.sizes.rows(); ++row) {
      if (!keyless(problem, row)) continue;
      RC_ASSERT(selection.count[at(row)] == 0);
      RC_ASSERT(selection.work[at(row)].anchors_scored == 0);
      RC_ASSERT(selection.work[at(row)].keys_attended == 0);
      for (Index slot = row * selection.top_k; slot < (row + 1) * selection.top_k; ++slot) {
        RC_ASSERT(selection.spans[at(slot)] == Span());
        RC_ASSERT(selection.scores[at(slot)] == -kInfinity);
        RC_ASSERT(spans.lse[at(slot)] == -kInfinity);
      }
      for (Index c = row * 5; c < (row + 1) * 5; ++c) RC_ASSERT(output[at(c)] == 0);
    }
  });
}

TEST_CASE("A sequence's length is an offset of its queries", "[attention][gradients]") {
  check_property("any schedule, length and start", [](std::uint64_t seed) {
    const inputs::Threads one(1);
    const auto problem = random_lengths(seed);
    const Shape& sizes = problem.sizes;
    const auto weights = Random(seed).tensor(sizes.rows() * 5, Values::rough);
    const auto output = attention(problem.attention()).output;
    const auto whole = attention_backward(problem.attention(), {weights.data()});
    for (Index b = 0; b < sizes.batch; ++b) {
      const auto [part, left_out] = Behind(problem, b);
      const auto rows = [&, left_out = left_out](const std::vector<double>& array) {
        return of_sequence(array, sizes, b, left_out);
      };
      RC_ASSERT(same_bits(rows(output), attention(part.attention()).output));
      const auto by_part = rows(weights);
      const auto got = attention_backward(part.attention(), {by_part.data()});
      RC_ASSERT(same_bits(rows(whole.attention.query), got.attention.query));
      for (std::size_t m = 0; m < problem.routing.size(); ++m) {
        RC_ASSERT(same_bits(rows(whole.search.routing_queries[m]), got.search.routing_queries[m]));
      }
      const auto keys = [&](const std::vector<double>& array) {
        const Index size = static_cast<Index>(array.size()) / sizes.batch;
        return inputs::rows_of(array, 1, 1, b * size, size);
      };
      RC_ASSERT(same_bits(keys(whole.attention.key), got.attention.key));
      RC_ASSERT(same_bits(keys(whole.attention.value), got.attention.value));
      RC_ASSERT(same_bits(keys(whole.search.search_keys), got.search.search_keys));
    }
  });
}

TEST_CASE("Sequences of no keys need none, and have output 0", "[attention]") {
  for (Index steps = 1; steps <= 3; ++steps) {
    auto problem =
        inputs::random_problem(preset_schedule("nstep", steps), inputs::grouped_sizes(5, 3), 57);
    problem.sizes.keys = 0;
    problem.length = {0, 0};
    auto args = problem.attention();
    args.key = args.value = args.search_keys = nullptr;
    CHECK(attention(args).output == std::vector<double>(at(problem.sizes.rows() * 5), 0));
    CHECK(dense_attention(args).output == std::vector<double>(at(problem.sizes.rows() * 5), 0));
  }
}

TEST_CASE("More queries before key 0 than one block of work holds", "[attention]") {
  Shape sizes;
  sizes.queries = 9000;
  sizes.keys = 10;
  sizes.head_dim = 1;
  sizes.query_offset = -8990;  // for the plan alone: lengths say where the queries stand
  auto problem = inputs::random_problem(preset_schedule("nstep"), sizes, 58);
  problem.length = {10};
  const auto output = attention(problem.attention()).output;
  const auto [part, left_out] = Behind(problem, 0);
  CHECK(left_out == 8990);
  CHECK(std::vector<double>(output.begin(), output.begin() + 8990) == std::vector<double>(8990, 0));
  CHECK(same_bits({output.begin() + 8990, output.end()}, attention(part.attention()).output));
}
