#include <type_traits>

#include "arrays.hpp"
#include "core.hpp"
#include "multistep/cuda/accumulation.hpp"
#include "multistep/cuda/attention.hpp"
#include "multistep/cuda/memory.hpp"
#include "workers.hpp"

/// The kernels on device memory, which comes as addresses: Python has checked dtype, device, shape
/// and that arrays are dense. Nothing here allocates or waits but the making of a schedule.
namespace multistep::python {
namespace {

using Address = std::uintptr_t;  // 0: null

template <class T>
T* at_address(Address address) {
  return reinterpret_cast<T*>(address);
}

cuda::Dtype dtype_of(const std::string& name) {
  if (name == "bfloat16") return cuda::Dtype::bf16;
  if (name == "float16") return cuda::Dtype::fp16;
  throw std::invalid_argument("dtype " + name + ": the kernels take bfloat16 and float16");
}

/// batch, num_heads, num_kv_heads, L_q, L_kv, head_dim, query_offset
using Sizes = std::tuple<Index, Index, Index, Index, Index, Index, Index>;

cuda::Shape shape_of(const Sizes& sizes, Address start, Address length) {
  cuda::Shape shape;
  std::tie(shape.batch, shape.num_heads, shape.num_kv_heads, shape.queries, shape.keys,
           shape.head_dim, shape.query_offset) = sizes;
  shape.start = at_address<const std::int32_t>(start);
  shape.length = at_address<const std::int32_t>(length);
  return shape;
}

cuda::AttentionArgs attention_args(const cuda::DeviceSchedule& schedule, const Sizes& sizes,
                                   const std::string& dtype, Address q, Address k, Address v,
                                   const std::vector<Address>& routing, Address search_keys,
                                   Address start, Address length, double search_scale,
                                   std::optional<double> softmax_scale, Address output,
                                   Address spans, Address scores, Address span_lses,
                                   Address window_lse, Address anchors) {
  cuda::AttentionArgs args;
  args.shape = shape_of(sizes, start, length);
  args.dtype = dtype_of(dtype);
  args.schedule = &schedule;
  args.query = at_address<const void>(q);
  args.key = at_address<const void>(k);
  args.value = at_address<const void>(v);
  for (const Address level : routing) args.routing_queries.push_back(at_address<void>(level));
  args.search_keys = at_address<const void>(search_keys);
  args.search_scale = search_scale;
  args.softmax_scale = softmax_scale;
  args.output = at_address<void>(output);
  args.spans = at_address<cuda::DeviceSpan>(spans);
  args.scores = at_address<float>(scores);
  args.span_lses = at_address<float>(span_lses);
  args.window_lse = at_address<float>(window_lse);
  args.anchors = at_address<std::int32_t>(anchors);
  return args;
}

/// batch, num_heads, length, head_dim, state, offset
using WalkSizes = std::tuple<Index, Index, Index, Index, Index, Index>;

cuda::AccumulationArgs accumulation_args(const WalkSizes& sizes, const std::string& dtype,
                                         Address x, Address a, Address b, Address c,
                                         Address initial, Address start, Address output,
                                         Address final_state) {
  cuda::AccumulationArgs args;
  std::tie(args.batch, args.num_heads, args.length, args.head_dim, args.state, args.offset) = sizes;
  args.dtype = dtype_of(dtype);
  args.start = at_address<const std::int32_t>(start);
  args.x = at_address<const void>(x);
  args.a = at_address<const float>(a);
  args.b = at_address<const void>(b);
  args.c = at_address<const void>(c);
  args.initial = at_address<const float>(initial);
  args.output = at_address<void>(output);
  args.final_state = at_address<float>(final_state);
  return args;
}

/// A call in two halves: how much workspace it needs, and the launch.
template <class Args>
void bind_call(nb::module_& core, const char* name, void (*launch)(const Args&, cuda::Stream)) {
  nb::class_<Args>(core, name)
      .def_prop_ro("workspace_size", [](const Args& args) { return cuda::workspace_size(args); })
      .def(
          "launch",
          [launch](Args& args, Address workspace, std::size_t bytes, Address stream) {
            args.workspace = {at_address<void>(workspace), bytes};
            launch(args, at_address<std::remove_pointer_t<cuda::Stream>>(stream));
          },
          nb::call_guard<Unlocked>());
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
  bind_call<cuda::AttentionArgs>(core, "CudaAttention", &cuda::attention);
  bind_call<cuda::AccumulationArgs>(core, "CudaAccumulation", &cuda::accumulate);
  // The schedule is looked at by the call: it lives as long.
  core.def("cuda_attention", &attention_args, nb::keep_alive<0, 1>(), nb::arg(), nb::arg(),
           nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg());
  core.def("cuda_accumulation", &accumulation_args);
}

}  // namespace multistep::python
