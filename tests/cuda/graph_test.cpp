#include "judge.hpp"

// One graph follows a cache whose length moves on the device.

using namespace multistep;
using namespace gpu;

namespace {

/// A cache of 160 keys.
Problem cache(Index steps, Index queries) {
  Options options;
  options.schedule = preset_schedule("nstep", steps);
  options.schedule.window_index = 2;
  options.queries = queries;
  options.query_offset = 160 - queries;
  options.start = {0, 37};
  options.num_heads = 8;
  options.head_dim = 128;
  return make_problem(options);
}

/// The cache at one of its lengths, NaN behind.
Problem moment(Problem whole, Index length) {
  whole.sizes.query_offset = length - whole.sizes.queries;
  fill_unused_rows(whole, static_cast<float>(inputs::kNaN));
  return whole;
}

std::vector<Index> moving_lengths() {
  std::vector<Index> result;
  for (Index length = 100; length <= 130; ++length) result.push_back(length);
  for (const Index length : {100, 64, 160, 65}) result.push_back(length);
  return result;
}

}  // namespace

TEST_CASE("A graph of GPU attention follows the cache's length", "[graph]") {
  for (const Index steps : {1, 2, 3}) {
    for (const Index queries : {1, 5, 60}) {
      const Problem whole = cache(steps, queries);
      for (const Rung rung : kRungs) {
        OnDevice device(whole, Dtype::bf16);
        device.use_length();
        auto args = device.attention_args(rung);
        WholeArrays arrays(args);
        arrays.put_into(args);
        cuda::DeviceBuffer workspace(cuda::workspace_size(args));
        workspace.fill(0xff);
        args.workspace = {workspace.data(), workspace.size()};
        const cuda::OwnedStream stream;
        const cuda::Graph graph(stream, [&](cuda::Stream s) { cuda::attention(args, s); });
        for (const Index length : moving_lengths()) {
          CAPTURE(steps, queries, name(rung), length);
          const Problem now = moment(whole, length);
          OnDevice fresh(now, Dtype::bf16);
          fresh.use_length();
          device.key.upload(fresh.key.download());
          device.value.upload(fresh.value.download());
          device.search_keys.upload(fresh.search_keys.download());
          device.length.upload(to_int32({length, length}));
          arrays.poison();
          graph.launch(stream);
          stream.synchronize();
          const Whole got = arrays.download();
          CHECK(wrong_exactly(now, Dtype::bf16, got) == "");
          CHECK(same_bits(got, gpu::attention(fresh, rung)));
        }
      }
    }
  }
}

TEST_CASE("Every GPU stage can be captured", "[graph]") {
  const Problem problem = moment(cache(3, 5), 130);
  const OnDevice device(problem, Dtype::bf16);
  const Index rows = device.shape.rows();
  const Index d = device.shape.head_dim;
  for (const Rung rung : kRungs) {
    CAPTURE(name(rung));
    auto search_args = device.search_args(rung);
    auto spans = poisoned<DeviceSpan>(rows * 2);
    auto scores = poisoned<float>(rows * 2);
    search_args.spans = spans.data();
    search_args.scores = scores.data();
    cuda::DeviceBuffer search_workspace(cuda::workspace_size(search_args));
    search_args.workspace = {search_workspace.data(), search_workspace.size()};

    auto attend_args = device.args<cuda::SpanAttentionArgs>(rung);
    auto outputs = poisoned<std::uint16_t>(rows * 2 * d);
    auto lses = poisoned<float>(rows * 2);
    attend_args.slots = 2;
    attend_args.spans = spans.data();
    attend_args.output = outputs.data();
    attend_args.lse = lses.data();
    cuda::DeviceBuffer attend_workspace(cuda::workspace_size(attend_args));
    attend_args.workspace = {attend_workspace.data(), attend_workspace.size()};

    auto combine_args = device.args<cuda::CombineArgs>(rung);
    auto output = poisoned<std::uint16_t>(rows * d);
    combine_args.slots = 2;
    combine_args.spans = spans.data();
    combine_args.scores = scores.data();
    combine_args.span_outputs = outputs.data();
    combine_args.span_lses = lses.data();
    combine_args.output = output.data();
    cuda::DeviceBuffer combine_workspace(cuda::workspace_size(combine_args));
    combine_args.workspace = {combine_workspace.data(), combine_workspace.size()};

    const cuda::OwnedStream stream;
    const cuda::Graph graph(stream, [&](cuda::Stream s) {
      cuda::span_search(search_args, s);
      cuda::span_attention(attend_args, s);
      cuda::combine(combine_args, s);
    });
    for (int replay = 0; replay < 3; ++replay) {
      CAPTURE(replay);
      spans.fill(0xff);
      scores.fill(0xff);
      outputs.fill(0xff);
      lses.fill(0xff);
      output.fill(0xff);
      search_workspace.fill(0xff);
      attend_workspace.fill(0xff);
      combine_workspace.fill(0xff);
      graph.launch(stream);
      stream.synchronize();
      const Paths kept{2, 0, spans.download(), scores.download(), {}, {}};
      CHECK(difference(kept, span_search(problem.search())) == "");
      SubmittedArrays given = handed(kept);
      given.span_outputs = cast<double>(cuda::from_16_bits(Dtype::bf16, outputs.download()));
      given.span_lses = cast<double>(lses.download());
      given.output = cast<double>(cuda::from_16_bits(Dtype::bf16, output.download()));
      CHECK(wrong(problem.attention(), Dtype::bf16, given) == "");
    }
  }
}
