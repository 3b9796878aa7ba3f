#include "calls.hpp"

// A bad argument throws before anything is launched, and the message names the offender.

using namespace multistep;
using namespace gpu;

namespace {

Problem small_problem() {
  Options options;
  options.schedule = preset_schedule("nstep", 3);
  options.schedule.window_index = 1;
  options.queries = 5;
  options.query_offset = 20;
  options.tail = 3;
  return make_problem(options);
}

/// Strides of one level, of the two there are: what the call and the size of its workspace read.
template <class Args>
void refuses_too_few_strides(const Call<Args>& call, Stage<Args> stage) {
  const auto spoil = [](Args& args) { args.routing_strides.resize(1); };
  refuses<Args>(call, stage, {"routing_strides 1"}, spoil);
  Args args = call.args;
  spoil(args);
  CHECK_THROWS_WITH(cuda::workspace_size(args), ContainsSubstring("routing_strides 1"));
}

}  // namespace

TEST_CASE("GPU search refuses bad arguments", "[arguments]") {
  const Problem problem = small_problem();
  const OnDevice device(problem, Dtype::bf16);
  const cuda::DeviceSchedule short_plan(StripePlan(problem.plan.schedule(), 24));
  const auto call = search_call(device);
  const Stage<cuda::SpanSearchArgs> stage = cuda::span_search;
  using Args = cuda::SpanSearchArgs;
  refuses_common(call, stage, short_plan);
  needs(call, stage, "search_keys", &Args::search_keys);
  needs(call, stage, "spans", &Args::spans);
  needs(call, stage, "scores", &Args::scores);
  refuses<Args>(call, stage, {"anchors"}, [](Args& args) { args.anchors = shifted(args.anchors); });
  const auto routing = [&](auto spoil) { refuses<Args>(call, stage, {"routing_queries"}, spoil); };
  routing([](Args& args) { args.routing_queries[1] = nullptr; });
  routing([](Args& args) { args.routing_queries[0] = shifted(args.routing_queries[0]); });
  routing([](Args& args) { args.routing_queries.pop_back(); });
  routing([](Args& args) { args.routing_queries.push_back(args.routing_queries[0]); });
  refuses_too_few_strides(call, stage);
  refuses<Args>(call, stage, {"level"}, [](Args& args) { args.level = -1; });
  refuses<Args>(call, stage, {"level"}, [](Args& args) { args.level = 3; });
  refuses<Args>(call, stage, {"parents"}, [](Args& args) { args.level = 2; });
}

TEST_CASE("GPU span attention refuses bad arguments", "[arguments]") {
  const Problem problem = small_problem();
  const OnDevice device(problem, Dtype::bf16);
  const cuda::DeviceSchedule short_plan(StripePlan(problem.plan.schedule(), 24));
  const auto call = attend_call(device);
  const Stage<cuda::SpanAttentionArgs> stage = cuda::span_attention;
  using Args = cuda::SpanAttentionArgs;
  refuses_common(call, stage, short_plan);
  needs(call, stage, "query", &Args::query);
  needs(call, stage, "key", &Args::key);
  needs(call, stage, "value", &Args::value);
  needs(call, stage, "output", &Args::output);
  needs(call, stage, "lse", &Args::lse);
  refuses<Args>(call, stage, {"spans"}, [](Args& args) { args.spans = shifted(args.spans); });
  refuses<Args>(call, stage, {"slots"}, [](Args& args) { args.slots = 0; });
  refuses<Args>(call, stage, {"slots"}, [](Args& args) { args.slots = 65; });
  refuses<Args>(call, stage, {"slots", "spans"}, [](Args& args) { args.spans = nullptr; });
  // More KV heads than the sort tells apart: refused where the workspace is counted.
  Args many = call.args;
  many.rung = Rung::fast;
  many.shape.batch = 65535;
  many.shape.num_heads = many.shape.num_kv_heads = 129;
  many.shape.keys = 4096;
  CHECK_THROWS_WITH(cuda::workspace_size(many), ContainsSubstring("2^23"));
}

TEST_CASE("GPU combination refuses bad arguments", "[arguments]") {
  const Problem problem = small_problem();
  const OnDevice device(problem, Dtype::bf16);
  const cuda::DeviceSchedule short_plan(StripePlan(problem.plan.schedule(), 24));
  const auto call = combine_call(device);
  const Stage<cuda::CombineArgs> stage = cuda::combine;
  using Args = cuda::CombineArgs;
  refuses_common(call, stage, short_plan);
  needs(call, stage, "query", &Args::query);
  needs(call, stage, "key", &Args::key);
  needs(call, stage, "value", &Args::value);
  needs(call, stage, "output", &Args::output);
  needs(call, stage, "spans", &Args::spans);
  needs(call, stage, "scores", &Args::scores);
  needs(call, stage, "span_outputs", &Args::span_outputs);
  needs(call, stage, "span_lses", &Args::span_lses);
  refuses<Args>(call, stage, {"slots"}, [](Args& args) { args.slots = -1; });
  refuses<Args>(call, stage, {"slots"}, [](Args& args) { args.slots = 65; });
  refuses<Args>(call, stage, {"window_lse_out"},
                [](Args& args) { args.window_lse_out = shifted(args.window_lse_out); });
  refuses<Args>(call, stage, {"window_lse"},
                [](Args& args) { args.window_output = args.span_outputs; });
}

TEST_CASE("GPU attention refuses bad arguments", "[arguments]") {
  const Problem problem = small_problem();
  const OnDevice device(problem, Dtype::bf16);
  const cuda::DeviceSchedule short_plan(StripePlan(problem.plan.schedule(), 24));
  const auto call = attention_call(device);
  const Stage<cuda::AttentionArgs> stage = cuda::attention;
  using Args = cuda::AttentionArgs;
  refuses_common(call, stage, short_plan);
  needs(call, stage, "query", &Args::query);
  needs(call, stage, "key", &Args::key);
  needs(call, stage, "value", &Args::value);
  needs(call, stage, "output", &Args::output);
  const auto off = [&](const std::string& field, auto spoil) {
    refuses<Args>(call, stage, {field}, spoil);
  };
  off("search_keys", [](Args& args) { args.search_keys = shifted(args.search_keys); });
  off("spans", [](Args& args) { args.spans = shifted(args.spans); });
  off("scores", [](Args& args) { args.scores = shifted(args.scores); });
  off("span_lses", [](Args& args) { args.span_lses = shifted(args.span_lses); });
  off("window_lse", [](Args& args) { args.window_lse = shifted(args.window_lse); });
  off("anchors", [](Args& args) { args.anchors = shifted(args.anchors); });
  off("routing_queries", [](Args& args) { args.routing_queries[0] = nullptr; });
  off("routing_queries", [](Args& args) { args.routing_queries.pop_back(); });
  refuses_too_few_strides(call, stage);
  off("keys", [](Args& args) { args.shape.keys = 24; });  // the last query stands at 24
}

TEST_CASE("GPU merges refuse bad arguments", "[arguments]") {
  const cuda::OwnedStream stream;
  const cuda::DeviceBuffer memory(1 << 16);
  void* const base = memory.data();
  const auto throws = [&](auto args, auto merge, const std::string& offender, auto spoil) {
    CAPTURE(offender);
    spoil(args);
    CHECK_THROWS_WITH(merge(args, stream.get()), ContainsSubstring(offender));
    CHECK_THROWS_AS(merge(args, stream.get()), std::invalid_argument);
  };
  cuda::MergePathsArgs paths;
  paths.shards = 2;
  paths.rows = 4;
  paths.top_k = 2;
  paths.spans = paths.merged_spans = static_cast<DeviceSpan*>(base);
  paths.scores = paths.merged_scores = static_cast<float*>(base);
  paths.anchors = paths.merged_anchors = static_cast<std::int32_t*>(base);
  const auto bad_paths = [&](const std::string& offender, auto spoil) {
    throws(paths, cuda::merge_paths, offender, spoil);
  };
  using Paths = cuda::MergePathsArgs;
  bad_paths("shards", [](Paths& args) { args.shards = 0; });
  bad_paths("rows", [](Paths& args) { args.rows = -1; });
  bad_paths("top_k", [](Paths& args) { args.top_k = 0; });
  bad_paths("top_k", [](Paths& args) { args.top_k = 65; });
  bad_paths("spans", [](Paths& args) { args.spans = nullptr; });
  bad_paths("scores", [](Paths& args) { args.scores = nullptr; });
  bad_paths("anchors", [](Paths& args) { args.anchors = nullptr; });
  bad_paths("merged_spans", [](Paths& args) { args.merged_spans = nullptr; });
  bad_paths("merged_scores", [](Paths& args) { args.merged_scores = nullptr; });
  bad_paths("merged_anchors", [](Paths& args) { args.merged_anchors = nullptr; });

  cuda::MergeAttentionArgs attention;
  attention.shards = 2;
  attention.rows = 4;
  attention.head_dim = 64;
  attention.outputs = attention.output = base;
  attention.lses = attention.lse = static_cast<float*>(base);
  const auto bad_attention = [&](const std::string& offender, auto spoil) {
    throws(attention, cuda::merge_attention, offender, spoil);
  };
  using Attention = cuda::MergeAttentionArgs;
  bad_attention("shards", [](Attention& args) { args.shards = 0; });
  bad_attention("rows", [](Attention& args) { args.rows = -1; });
  bad_attention("head_dim", [](Attention& args) { args.head_dim = 257; });
  bad_attention("dtype", [](Attention& args) { args.dtype = static_cast<Dtype>(7); });
  bad_attention("outputs", [](Attention& args) { args.outputs = nullptr; });
  bad_attention("lses", [](Attention& args) { args.lses = nullptr; });
  bad_attention("output", [](Attention& args) { args.output = nullptr; });
  bad_attention("lse", [](Attention& args) { args.lse = nullptr; });
}

TEST_CASE("Schedules too long for the GPU are refused", "[arguments]") {
  CHECK_THROWS_AS(cuda::DeviceSchedule(StripePlan(preset_schedule("nstep"), cuda::kMaxContext + 1)),
                  std::invalid_argument);
}
