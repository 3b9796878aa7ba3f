#include "judge.hpp"

// Sequences of length 0, and query rows before `start`: no key, output 0, log-sum-exp -inf, no path
// (SPEC 7), whatever the arrays hold.

using namespace multistep;
using namespace gpu;

namespace {

constexpr Index kQueries = 70;  // or 1
const std::vector<Index> kLengths{0, 5, 100};
const std::vector<Index> kStarts{0, 3, 90};

Options options_for(Index steps, Index window_index, Index queries) {
  Options options;
  options.schedule = preset_schedule("nstep", steps);
  options.schedule.window_index = window_index;
  options.batch = 3;
  options.num_heads = 8;
  options.queries = queries;
  options.query_offset = 100 - queries;
  options.start = kStarts;
  return options;
}

/// Whether query `i` of `queries` of sequence b has a key.
bool has_key(Index b, Index i, Index queries) {
  const Index position = kLengths[at(b)] - queries + i;
  return position >= kStarts[at(b)];
}

/// Rows of [batch, heads, queries] without a key.
std::vector<Index> empty_rows(Index heads, Index queries) {
  std::vector<Index> rows;
  for (Index row = 0; row < 3 * heads * queries; ++row) {
    if (!has_key(row / queries / heads, row % queries, queries)) rows.push_back(row);
  }
  return rows;
}

/// The keys that no query of the lengths may look at become NaN.
void spoil(Problem& problem) {
  const Index d = problem.sizes.head_dim;
  const Index keys = problem.sizes.keys;
  for (Index head = 0; head < 3 * problem.sizes.num_kv_heads; ++head) {
    const std::size_t b = at(head / problem.sizes.num_kv_heads);
    for (Index j = 0; j < keys; ++j) {
      if (j >= kStarts[b] && j < kLengths[b]) continue;
      for (auto array : {&Problem::key, &Problem::value, &Problem::search_keys}) {
        std::fill_n((problem.*array).begin() + (head * keys + j) * d, d,
                    static_cast<float>(inputs::kNaN));
      }
    }
  }
}

template <class T>
bool all_rows(const std::vector<T>& array, const std::vector<Index>& rows, Index width,
              const T& value) {
  return std::all_of(rows.begin(), rows.end(), [&](Index row) {
    const auto begin = array.begin() + static_cast<std::ptrdiff_t>(row * width);
    return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(width),
                       [&](const T& x) { return x == value; });
  });
}

}  // namespace

TEST_CASE("GPU attention of length 0 and of rows before the start finds nothing", "[empty]") {
  for (const Index steps : {1, 2, 3}) {
    for (const Index window_index : {0, 2}) {
      for (const Index queries : {Index{1}, kQueries}) {
        Problem problem = make_problem(options_for(steps, window_index, queries));
        spoil(problem);
        OnDevice device(problem, Dtype::bf16);
        device.use_length(kLengths);
        for (const Rung rung : kRungs) {
          CAPTURE(steps, window_index, queries, name(rung));
          const Whole got = gpu::attention(device, rung);
          const std::vector<Index> rows = empty_rows(8, queries);
          CHECK(rows.size() >= at(8 * queries));
          CHECK(std::all_of(rows.begin(), rows.end(),
                            [&](Index row) { return found_nothing(got, row, 1); }));
          CHECK(std::all_of(got.output.begin(), got.output.end(),
                            [](float x) { return std::isfinite(x); }));
        }
      }
    }
  }
}

TEST_CASE("Every GPU stage finds nothing for rows without a key", "[empty]") {
  for (const Index queries : {Index{1}, kQueries}) {
    for (const Index window_index : {0, 2}) {
      Problem problem = make_problem(options_for(3, window_index, queries));
      spoil(problem);
      OnDevice device(problem, Dtype::bf16);
      device.use_length(kLengths);
      const std::vector<Index> rows = empty_rows(8, queries);
      const Index all = device.shape.rows();
      const Index d = device.shape.head_dim;
      const float none = -INFINITY;
      for (const Rung rung : kRungs) {
        CAPTURE(queries, window_index, name(rung));
        std::vector<Paths> searches = search_by_level(device, rung);
        searches.push_back(search(device.search_args(rung)));
        for (const Paths& paths : searches) {
          CHECK(all_rows(paths.anchors, rows, 2 * paths.levels, -1));
          CHECK(all_rows(paths.scores, rows, 2, none));
          CHECK(std::all_of(rows.begin(), rows.end(), [&](Index row) {
            const DeviceSpan* spans = paths.spans.data() + row * 2;
            return spans[0].begin == 0 && spans[0].end == 0 && spans[1].begin == 0 &&
                   spans[1].end == 0;
          }));
        }
        // Spans that a row cannot see, and its window.
        for (const auto& spans : {std::vector<DeviceSpan>(at(all * 2), {0, 100}), {}}) {
          const Attended got = attend(device, rung, spans);
          const Index slots = static_cast<Index>(got.lse.size()) / all;
          CHECK(all_rows(got.output, rows, slots * d, 0.0F));
          CHECK(all_rows(got.lse, rows, slots, none));
        }
        // Nothing to combine, and a span in which nothing weighs.
        for (const DeviceSpan span : {DeviceSpan{0, 0}, DeviceSpan{0, 100}}) {
          const Partials given{
              std::vector<DeviceSpan>(at(all * 2), span), std::vector<float>(at(all * 2), 1),
              std::vector<float>(at(all * 2 * d), 0), std::vector<float>(at(all * 2), none)};
          auto args = device.args<cuda::CombineArgs>(rung);
          const auto lse = poisoned<float>(all);
          args.window_lse_out = lse.data();
          CHECK(all_rows(combine(device, args, given), rows, d, 0.0F));
          CHECK(all_rows(lse.download(), rows, 1, none));
        }
      }
    }
  }
}

TEST_CASE("Merging GPU parts that are all empty gives an empty one", "[empty]") {
  const std::vector<std::uint16_t> outputs(3 * 4 * 64, 0);
  const DeviceArray<std::uint16_t> given(outputs);
  const DeviceArray<float> lses(std::vector<float>(3 * 4, -INFINITY));
  const auto output = poisoned<std::uint16_t>(4 * 64);
  const auto lse = poisoned<float>(4);
  cuda::MergeAttentionArgs args;
  args.shards = 3;
  args.rows = 4;
  args.head_dim = 64;
  args.outputs = given.data();
  args.lses = lses.data();
  args.output = output.data();
  args.lse = lse.data();
  const cuda::OwnedStream stream;
  cuda::merge_attention(args, stream.get());
  stream.synchronize();
  CHECK(output.download() == std::vector<std::uint16_t>(4 * 64, 0));
  CHECK(lse.download() == std::vector<float>(4, -INFINITY));
}
