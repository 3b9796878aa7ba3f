#include "arrays.hpp"
#include "core.hpp"
#include "fields.hpp"
#include "multistep/cuda/accumulation.hpp"
#include "multistep/cuda/attention.hpp"
#include "multistep/cuda/gradients.hpp"
#include "multistep/cuda/memory.hpp"
#include "multistep/cuda/plan.hpp"
#include "workers.hpp"

#include <nanobind/stl/tuple.h>

#include <tuple>

/// The kernels on device memory, which comes as addresses: Python has checked dtype, device, shape
/// and that arrays are dense. Nothing here allocates or waits but the making of a schedule.
namespace multistep::python {
namespace {

cuda::Dtype dtype_of(const std::string& name) {
  if (name == "bfloat16") return cuda::Dtype::bf16;
  if (name == "float16") return cuda::Dtype::fp16;
  throw std::invalid_argument("dtype " + name + ": the kernels take bfloat16 and float16");
}

cuda::Rung rung_of(const std::string& kernels) {
  if (kernels == "automatic") return cuda::Rung::fast;
  if (kernels == "fast") return cuda::Rung::fast_or_refuse;
  if (kernels == "plain") return cuda::Rung::plain;
  throw std::invalid_argument("kernels '" + kernels + "': automatic, fast or plain");
}

/// stages; backward; queries at once; anchors, keys, products, bytes
nb::tuple plan_of(const cuda::AttentionArgs& args, const StripePlan& plan,
                  const std::string& chip) {
  const cuda::AttentionPlan found =
      cuda::plan_attention(args.shape, plan, cuda::chip_named(chip), args.softmax_scale);
  const cuda::ExpectedWork work = cuda::expected_work(args.shape, plan);
  const auto fields = [](const cuda::StagePlan& stage) {
    return nb::make_tuple(stage.stage, stage.kernels, stage.fast, stage.why);
  };
  nb::list stages;
  for (const cuda::StagePlan& stage : found.stages) stages.append(fields(stage));
  return nb::make_tuple(stages, fields(found.backward), found.queries_at_once, work.anchors_scored,
                        work.keys_attended, work.products, work.bytes);
}

/// From one batch, head and row to the next, in values.
using Steps = std::tuple<Index, Index, Index>;
cuda::Strides strides_of(const Steps& steps) {
  return {std::get<0>(steps), std::get<1>(steps), std::get<2>(steps)};
}

/// A call: its arguments, how much workspace they need, and the launch. A copy keeps no schedule
/// alive.
template <class Args>
nb::class_<Args> bind_call(nb::module_& core, const char* name,
                           void (*launch)(const Args&, cuda::Stream)) {
  return bind_arguments<Args>(core, name)
      .def_prop_rw("dtype", nullptr,
                   [](Args& args, const std::string& dtype) { args.dtype = dtype_of(dtype); })
      .def("__copy__", [](const Args& args) { return args; })
      .def_prop_ro("workspace_size", [](const Args& args) { return cuda::workspace_size(args); })
      .def(
          "launch",
          [launch](Args& args, Address workspace, std::size_t bytes, Address stream) {
            args.workspace = {at_address<void*>(workspace), bytes};
            launch(args, at_address<cuda::Stream>(stream));
          },
          nb::call_guard<Unlocked>());
}

/// The shape, and what every call with one can be told.
template <class Args>
nb::class_<Args> bind_call_with_shape(nb::module_& core, const char* name,
                                      void (*launch)(const Args&, cuda::Stream)) {
  using cuda::Shape;
  auto call = bind_call<Args>(core, name, launch);
  bind_field(call, "batch", &Args::shape, &Shape::batch);
  bind_field(call, "heads", &Args::shape, &Shape::num_heads);
  bind_field(call, "kv_heads", &Args::shape, &Shape::num_kv_heads);
  bind_field(call, "queries", &Args::shape, &Shape::queries);
  bind_field(call, "keys", &Args::shape, &Shape::keys);
  bind_field(call, "head_dim", &Args::shape, &Shape::head_dim);
  bind_field(call, "query_offset", &Args::shape, &Shape::query_offset);
  bind_field(call, "key_offset", &Args::shape, &Shape::key_offset);
  bind_address(call, "start", &Args::shape, &Shape::start);
  bind_address(call, "length", &Args::shape, &Shape::length);
  bind_field(call, "sequences", &Args::shape, &Shape::sequences);
  bind_address(call, "cu_seqlens", &Args::shape, &Shape::cu_seqlens);
  bind_address(call, "cu_seqlens_k", &Args::shape, &Shape::cu_seqlens_k);
  bind_address(call, "block_table", &Args::shape, &Shape::block_table);
  bind_field(call, "max_pages", &Args::shape, &Shape::max_pages);
  bind_field(call, "page_size", &Args::shape, &Shape::page_size);
  bind_object(call, "schedule", &Args::schedule);
  call.def_prop_rw("kernels", nullptr,
                   [](Args& args, const std::string& kernels) { args.rung = rung_of(kernels); });
  return call;
}

/// What the forward and its gradient are given, and what the one finds and the other is taken at.
template <class Args>
nb::class_<Args> bind_call_of_attention(nb::module_& core, const char* name,
                                        void (*launch)(const Args&, cuda::Stream)) {
  auto call = bind_call_with_shape<Args>(core, name, launch);
  bind_address(call, "q", &Args::query);
  bind_address(call, "k", &Args::key);
  bind_address(call, "v", &Args::value);
  bind_addresses(call, "routing_queries", &Args::routing_queries);
  bind_address(call, "search_keys", &Args::search_keys);
  bind_field(call, "search_scale", &Args::search_scale);
  bind_field(call, "softmax_scale", &Args::softmax_scale);
  bind_address(call, "spans", &Args::spans);
  bind_address(call, "scores", &Args::scores);
  bind_address(call, "anchors", &Args::anchors);
  return call;
}

void bind_attention_calls(nb::module_& core) {
  using Args = cuda::AttentionArgs;
  auto call = bind_call_of_attention<Args>(core, "CudaAttention", &cuda::attention);
  const auto bind_strides = [&](const char* name, cuda::Strides Args::*member) {
    call.def_prop_rw(name, nullptr, [member](Args& args, const Steps& steps) {
      args.*member = strides_of(steps);
    });
  };
  bind_strides("q_strides", &Args::query_strides);
  bind_strides("k_strides", &Args::key_strides);
  bind_strides("v_strides", &Args::value_strides);
  bind_strides("search_keys_strides", &Args::search_key_strides);
  call.def_prop_rw("routing_queries_strides", nullptr,
                   [](Args& args, const std::vector<Steps>& levels) {
                     args.routing_strides.clear();
                     for (const Steps& one : levels) {
                       args.routing_strides.push_back(strides_of(one));
                     }
                   });
  bind_address(call, "output", &Args::output);
  bind_address(call, "lse", &Args::span_lses);
  bind_address(call, "window_lse", &Args::window_lse);
  call.def("plan", &plan_of);

  using Back = cuda::AttentionBackwardArgs;
  auto back =
      bind_call_of_attention<Back>(core, "CudaAttentionBackward", &cuda::attention_backward);
  bind_address(back, "output", &Back::output);
  bind_address(back, "window_lse", &Back::window_lse);
  bind_address(back, "by_output", &Back::output_gradient);
  bind_address(back, "by_lse", &Back::span_lse_gradient);
  bind_address(back, "by_window_lse", &Back::window_lse_gradient);
  bind_address(back, "by_scores", &Back::score_gradient);
  bind_address(back, "by_q", &Back::query_gradient);
  bind_address(back, "by_k", &Back::key_gradient);
  bind_address(back, "by_v", &Back::value_gradient);
  bind_addresses(back, "by_routing_queries", &Back::routing_gradients);
  bind_address(back, "by_search_keys", &Back::search_key_gradient);
}

/// A merge, which needs no workspace.
template <class Args>
nb::class_<Args> bind_merge(nb::module_& core, const char* name,
                            void (*launch)(const Args&, cuda::Stream)) {
  auto call = bind_arguments<Args>(core, name);
  bind_field(call, "shards", &Args::shards);
  bind_field(call, "rows", &Args::rows);
  call.def_prop_ro("workspace_size", [](const Args&) { return std::size_t{0}; })
      .def(
          "launch",
          [launch](const Args& args, Address, std::size_t, Address stream) {
            launch(args, at_address<cuda::Stream>(stream));
          },
          nb::call_guard<Unlocked>());
  return call;
}

/// The stages one by one, as shards of a context need them.
void bind_stage_calls(nb::module_& core) {
  using Search = cuda::SpanSearchArgs;
  auto search = bind_call_with_shape<Search>(core, "CudaSpanSearch", &cuda::span_search);
  bind_addresses(search, "routing_queries", &Search::routing_queries);
  bind_address(search, "search_keys", &Search::search_keys);
  bind_field(search, "search_scale", &Search::search_scale);
  bind_field(search, "level", &Search::level);
  bind_address(search, "parents", &Search::parents);
  bind_address(search, "parent_scores", &Search::parent_scores);
  bind_address(search, "spans", &Search::spans);
  bind_address(search, "scores", &Search::scores);
  bind_address(search, "anchors", &Search::anchors);
  bind_address(search, "ranks", &Search::parent_ranks);

  using Attend = cuda::SpanAttentionArgs;
  auto attend = bind_call_with_shape<Attend>(core, "CudaSpanAttention", &cuda::span_attention);
  bind_address(attend, "q", &Attend::query);
  bind_address(attend, "k", &Attend::key);
  bind_address(attend, "v", &Attend::value);
  bind_field(attend, "slots", &Attend::slots);
  bind_address(attend, "spans", &Attend::spans);
  bind_field(attend, "softmax_scale", &Attend::softmax_scale);
  bind_address(attend, "output", &Attend::output);
  bind_address(attend, "lse", &Attend::lse);

  using Combine = cuda::CombineArgs;
  auto combine = bind_call_with_shape<Combine>(core, "CudaCombine", &cuda::combine);
  bind_field(combine, "slots", &Combine::slots);
  bind_address(combine, "spans", &Combine::spans);
  bind_address(combine, "scores", &Combine::scores);
  bind_address(combine, "span_outputs", &Combine::span_outputs);
  bind_address(combine, "span_lses", &Combine::span_lses);
  bind_address(combine, "window_output", &Combine::window_output);
  bind_address(combine, "window_lse", &Combine::window_lse);
  bind_address(combine, "output", &Combine::output);

  using Paths = cuda::MergePathsArgs;
  auto paths = bind_merge<Paths>(core, "CudaMergePaths", &cuda::merge_paths);
  bind_field(paths, "top_k", &Paths::top_k);
  bind_address(paths, "spans", &Paths::spans);
  bind_address(paths, "scores", &Paths::scores);
  bind_address(paths, "anchors", &Paths::anchors);
  bind_address(paths, "ranks", &Paths::parent_ranks);
  bind_address(paths, "merged_spans", &Paths::merged_spans);
  bind_address(paths, "merged_scores", &Paths::merged_scores);
  bind_address(paths, "merged_anchors", &Paths::merged_anchors);
  bind_address(paths, "merged_ranks", &Paths::merged_parent_ranks);

  using Items = cuda::MergeAttentionArgs;
  auto items = bind_merge<Items>(core, "CudaMergeAttention", &cuda::merge_attention);
  bind_field(items, "head_dim", &Items::head_dim);
  items.def_prop_rw("dtype", nullptr,
                    [](Items& args, const std::string& dtype) { args.dtype = dtype_of(dtype); });
  bind_address(items, "outputs", &Items::outputs);
  bind_address(items, "lses", &Items::lses);
  bind_address(items, "output", &Items::output);
  bind_address(items, "lse", &Items::lse);
}

template <class Args>
nb::class_<Args> bind_call_of_accumulation(nb::module_& core, const char* name,
                                           void (*launch)(const Args&, cuda::Stream)) {
  auto call = bind_call<Args>(core, name, launch);
  bind_field(call, "batch", &Args::batch);
  bind_field(call, "heads", &Args::num_heads);
  bind_field(call, "length", &Args::length);
  bind_field(call, "head_dim", &Args::head_dim);
  bind_field(call, "state", &Args::state);
  bind_field(call, "offset", &Args::offset);
  bind_address(call, "start", &Args::start);
  bind_address(call, "x", &Args::x);
  bind_address(call, "a", &Args::a);
  bind_address(call, "b", &Args::b);
  bind_address(call, "c", &Args::c);
  bind_address(call, "initial", &Args::initial);
  return call;
}

void bind_accumulation_calls(nb::module_& core) {
  using Args = cuda::AccumulationArgs;
  auto call = bind_call_of_accumulation<Args>(core, "CudaAccumulation", &cuda::accumulate);
  bind_address(call, "output", &Args::output);
  bind_address(call, "final_state", &Args::final_state);

  using Back = cuda::AccumulationBackwardArgs;
  auto back =
      bind_call_of_accumulation<Back>(core, "CudaAccumulationBackward", &cuda::accumulate_backward);
  bind_address(back, "by_output", &Back::output_gradient);
  bind_address(back, "by_state", &Back::final_state_gradient);
  bind_address(back, "by_x", &Back::x_gradient);
  bind_address(back, "by_a", &Back::a_gradient);
  bind_address(back, "by_b", &Back::b_gradient);
  bind_address(back, "by_c", &Back::c_gradient);
  bind_address(back, "by_initial", &Back::initial_gradient);
}

}  // namespace

void bind_cuda(nb::module_& core) {
  core.attr("max_context") = cuda::kMaxContext;
  core.def("cuda_status", &cuda::why_unusable);
  core.def("device_count", &cuda::device_count);
  nb::class_<cuda::DeviceSchedule>(core, "DeviceSchedule")
      .def(nb::init<StripePlan>(), nb::call_guard<Unlocked>())
      .def_prop_ro(
          "max_length",
          [](const cuda::DeviceSchedule& schedule) { return schedule.plan().max_length(); })
      .def("with_top_k", &cuda::DeviceSchedule::with_top_k);
  bind_attention_calls(core);
  bind_stage_calls(core);
  bind_accumulation_calls(core);
}

}  // namespace multistep::python
