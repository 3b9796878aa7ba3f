#include "judge.hpp"

// A context cut into shards: search level by level, attention and window shard by shard, merged by
// score and key and by log-sum-exp. With integer inputs the merged selection is the oracle's.

using namespace multistep;
using namespace gpu;

namespace {

/// The keys [first, past) of a problem, with the whole's queries.
OnDevice shard(const Problem& whole, Dtype dtype, Span keys) {
  OnDevice device(whole.without_keys(keys.begin, keys.end), dtype);
  device.shape.key_offset = keys.begin;
  return device;
}

std::vector<OnDevice> shards_of(const Problem& whole, Dtype dtype, const std::vector<Index>& cuts,
                                bool by_length) {
  std::vector<OnDevice> result;
  Index from = 0;
  for (std::size_t i = 0; i <= cuts.size(); ++i) {
    const Index to = i < cuts.size() ? cuts[i] : whole.sizes.keys;
    result.push_back(shard(whole, dtype, {from, to}));
    if (by_length) result.back().use_length();
    from = to;
  }
  return result;
}

/// One level: every shard's best paths inside the merged parents, then the best of them.
Paths merged_level(const std::vector<OnDevice>& shards, Index m, const Paths* parents, Rung rung) {
  const Index rows = shards.front().shape.rows();
  const Index top_k = shards.front().schedule.top_k();
  const Index slots = rows * top_k;
  const auto count = static_cast<Index>(shards.size());
  const DeviceArray<DeviceSpan> parent_spans(parents ? parents->spans : std::vector<DeviceSpan>{});
  const DeviceArray<float> parent_scores(parents ? parents->scores : std::vector<float>{});
  const auto spans = poisoned<DeviceSpan>(count * slots);
  const auto scores = poisoned<float>(count * slots);
  const auto anchors = poisoned<std::int32_t>(count * slots, 0x77);
  const auto ranks = poisoned<std::int32_t>(count * slots, 0x77);
  for (Index s = 0; s < count; ++s) {
    auto args = shards[at(s)].search_args(rung);
    args.level = m;
    args.parents = parent_spans.data();
    args.parent_scores = parent_scores.data();
    args.spans = spans.data() + s * slots;
    args.scores = scores.data() + s * slots;
    args.anchors = anchors.data() + s * slots;
    args.parent_ranks = ranks.data() + s * slots;
    run(args, cuda::span_search);
  }
  const auto merged_spans = poisoned<DeviceSpan>(slots);
  const auto merged_scores = poisoned<float>(slots);
  const auto merged_anchors = poisoned<std::int32_t>(slots, 0x77);
  const auto merged_ranks = poisoned<std::int32_t>(slots, 0x77);
  cuda::MergePathsArgs merge;
  merge.shards = count;
  merge.rows = rows;
  merge.top_k = top_k;
  merge.spans = spans.data();
  merge.scores = scores.data();
  merge.anchors = anchors.data();
  merge.parent_ranks = parents ? ranks.data() : nullptr;
  merge.merged_spans = merged_spans.data();
  merge.merged_scores = merged_scores.data();
  merge.merged_anchors = merged_anchors.data();
  merge.merged_parent_ranks = parents ? merged_ranks.data() : nullptr;
  const cuda::OwnedStream stream;
  cuda::merge_paths(merge, stream.get());
  stream.synchronize();
  return {top_k,
          1,
          merged_spans.download(),
          merged_scores.download(),
          merged_anchors.download(),
          merged_ranks.download()};
}

/// Against the oracle's merge of what was given, [shards, rows]: sums of eight parts in float32, of
/// values up to the largest of their row, and the output rounded to its type.
std::string wrong_merge(Dtype dtype, const Attended& given, const Attended& got) {
  const Index rows = std::ssize(got.lse);
  const Index d = std::ssize(got.output) / rows;
  const std::vector<double> outputs = cast<double>(given.output);
  const std::vector<double> lses = cast<double>(given.lse);
  const Index shards = std::ssize(lses) / rows;
  const multistep::Items want =
      multistep::merge_attention({shards, rows, d, outputs.data(), lses.data()});
  const double roundoff = dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11;
  for (Index row = 0; row < rows; ++row) {
    double largest = 0;
    for (Index s = 0; s < shards; ++s) {
      const auto part = outputs.begin() + (s * rows + row) * d;
      for (auto x = part; x != part + d; ++x) largest = std::max(largest, std::abs(*x));
    }
    std::ostringstream text;
    for (Index i = row * d; i < (row + 1) * d; ++i) {
      const double x = want.output[at(i)];
      const double limit = roundoff * std::abs(x) + 0x1p-20 * largest;
      if (multistep::within_tolerance(static_cast<double>(got.output[at(i)]), x, limit)) continue;
      text << "merged row " << row << " value " << i << ": " << got.output[at(i)] << " for " << x;
      return text.str();
    }
    const double lse = want.lse[at(row)];
    if (multistep::within_tolerance(static_cast<double>(got.lse[at(row)]), lse,
                                    0x1p-20 * std::max(1.0, std::abs(lse)))) {
      continue;
    }
    text << "merged row " << row << " lse " << got.lse[at(row)] << " for " << lse;
    return text.str();
  }
  return "";
}

/// `items` without the keys that a shard does not have.
std::vector<Span> inside(const OnDevice& shard, std::vector<Span> items) {
  const Index first = shard.shape.key_offset;
  for (Span& keys : items) {
    keys = {std::max(keys.begin, first), std::min(keys.end, first + shard.shape.keys)};
    if (keys.empty()) keys = {};
  }
  return items;
}

/// The union of what every shard makes of its keys of `items`: each part is held against those
/// keys, the union against the parts. `spans` empty: the window.
Attended merged_attention(const Problem& problem, const std::vector<OnDevice>& shards, Rung rung,
                          const std::vector<DeviceSpan>& spans, const std::vector<Span>& items) {
  std::vector<std::uint16_t> outputs;
  std::vector<float> lses;
  for (const OnDevice& device : shards) {
    const Attended part = attend(device, rung, spans);
    CHECK(wrong_items(problem, device.dtype, inside(device, items), part) == "");
    const auto bits = cuda::to_16_bits(device.dtype, part.output);
    outputs.insert(outputs.end(), bits.begin(), bits.end());
    lses.insert(lses.end(), part.lse.begin(), part.lse.end());
  }
  const OnDevice& any = shards.front();
  const DeviceArray<std::uint16_t> given_outputs(outputs);
  const DeviceArray<float> given_lses(lses);
  cuda::MergeAttentionArgs merge;
  merge.shards = static_cast<Index>(shards.size());
  merge.rows = static_cast<Index>(lses.size()) / merge.shards;
  merge.head_dim = any.shape.head_dim;
  merge.dtype = any.dtype;
  merge.outputs = given_outputs.data();
  merge.lses = given_lses.data();
  const auto output = poisoned<std::uint16_t>(merge.rows * merge.head_dim);
  const auto lse = poisoned<float>(merge.rows);
  merge.output = output.data();
  merge.lse = lse.data();
  const cuda::OwnedStream stream;
  cuda::merge_attention(merge, stream.get());
  stream.synchronize();
  Attended merged{cuda::from_16_bits(any.dtype, output.download()), lse.download()};
  CHECK(wrong_merge(any.dtype, {cuda::from_16_bits(any.dtype, outputs), lses}, merged) == "");
  return merged;
}

void check_shards(const Problem& problem, Dtype dtype, const std::vector<Index>& cuts,
                  bool by_length) {
  const std::vector<OnDevice> shards = shards_of(problem, dtype, cuts, by_length);
  const Selection selection = span_search(problem.search());
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung), name(dtype), cuts.size() + 1, by_length);
    std::vector<Paths> levels;
    for (Index m = 1; m < problem.plan.steps(); ++m) {
      levels.push_back(merged_level(shards, m, m > 1 ? &levels[at(m - 2)] : nullptr, rung));
    }
    const Paths paths = whole_paths(levels);
    CHECK(difference(paths, selection) == "");

    // From here on with the oracle's selection, whatever was merged.
    const Partials spans = [&] {
      const std::vector<DeviceSpan> chosen = to_device(selection.spans);
      const Attended items = merged_attention(problem, shards, rung, chosen,
                                              outside_windows(problem, selection.spans));
      return Partials{chosen, cast<float>(selection.scores), items.output, items.lse};
    }();
    const Attended window = merged_attention(problem, shards, rung, {}, row_windows(problem));

    const OnDevice whole(problem, dtype);
    auto args = whole.args<cuda::CombineArgs>(rung);
    const auto window_output = whole.upload(window.output);
    const DeviceArray<float> window_lse(window.lse);
    args.query = args.key = args.value = nullptr;
    args.window_output = window_output.data();
    args.window_lse = window_lse.data();
    const auto output = combine(whole, args, spans);
    CHECK(wrong_combination(problem, dtype, spans, output, window) == "");
  }
}

Options sharded(const Schedule& schedule) {
  Options options;
  options.schedule = schedule;
  options.query_offset = 260;
  options.queries = 66;
  options.start = {0, 37};
  return options;
}

/// Two, three and eight shards of 326 keys, unequal; empty ones first, last and between.
const std::vector<std::vector<Index>> kCuts{
    {163}, {1}, {325}, {0}, {326}, {64, 300}, {100, 100}, {0, 10, 10, 65, 200, 310, 326}};

}  // namespace

TEST_CASE("GPU shards of a context, merged, are the whole", "[shard]") {
  std::vector<Schedule> schedules;
  for (Index steps = 2; steps <= 4; ++steps) {
    schedules.push_back(preset_schedule("nstep", steps));
    schedules.push_back(preset_schedule("even", steps));
    schedules.back().window_index = 5;
    schedules.push_back(preset_schedule("aligned", steps));
    schedules.back().window_index = 5;
  }
  schedules.push_back(preset_schedule("paper"));
  schedules.back().window_index = 3;
  schedules.push_back(inputs::uniform_schedule(Rule::power, 3, 1, 5));
  for (const Schedule& schedule : schedules) {
    CAPTURE(name(schedule));
    const Problem problem = make_problem(sharded(schedule));
    for (const auto& cuts : kCuts) check_shards(problem, Dtype::bf16, cuts, false);
  }
}

TEST_CASE("GPU shards when decoding, for head_dims and groups", "[shard]") {
  for (const Index head_dim : {64, 96, 128, 192}) {
    for (const Index queries : {1, 9}) {
      CAPTURE(head_dim, queries);
      Options options = sharded(preset_schedule("nstep", 3));
      options.schedule.window_index = 1;
      options.dtype = kDtypes[queries % 2];
      options.head_dim = head_dim;
      options.query_offset = 326 - queries;
      options.queries = queries;
      options.num_heads = 32;
      const Problem problem = make_problem(options);
      check_shards(problem, options.dtype, kCuts.back(), false);
      check_shards(problem, options.dtype, kCuts.back(), true);
    }
  }
}

TEST_CASE("GPU shards of aligned parts, searched as products", "[shard][aligned]") {
  Options options = sharded(preset_schedule("aligned", 3));
  options.schedule.top_k = 4;
  options.query_offset = 20;
  options.queries = 306;
  options.num_heads = 32;
  const Problem problem = make_problem(options);
  check_shards(problem, options.dtype, kCuts.back(), false);
}

TEST_CASE("GPU shards with a spare tail and padding of NaN", "[shard]") {
  Options options = sharded(preset_schedule("nstep", 3));
  options.query_offset = 200;  // the last shards lie behind the last position
  options.tail = 60;
  Problem problem = make_problem(options);
  fill_unused_rows(problem, static_cast<float>(inputs::kNaN));
  for (const bool by_length : {false, true}) {
    check_shards(problem, options.dtype, kCuts.back(), by_length);
  }
}

TEST_CASE("Merging GPU paths keeps the order of ties", "[shard]") {
  for (const Index steps : {2, 3}) {
    CAPTURE(steps);
    Options options = sharded(preset_schedule("nstep", steps));
    options.schedule.top_k = 4;
    Problem problem = make_problem(options);
    std::fill(problem.search_keys.begin(), problem.search_keys.end(), 1.0F);
    check_shards(problem, options.dtype, kCuts.back(), false);
  }
}
