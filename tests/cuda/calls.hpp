#pragma once

#include <functional>
#include <stdexcept>

#include "stages.hpp"

/// Good calls of every stage, to be spoiled in one argument each.
namespace gpu {

/// Good arguments for every stage, with outputs full of 0xff and workspaces as large as asked for.
template <class Args>
struct Call {
  Args args;
  std::vector<cuda::DeviceBuffer> memory;
  std::size_t output = 0;  // which buffer is watched

  void* take(Index bytes) {
    memory.emplace_back(at(bytes));
    memory.back().fill(0xff);
    return memory.back().data();
  }
  template <class T>
  T* take_of(Index count) {
    return static_cast<T*>(take(count * static_cast<Index>(sizeof(T))));
  }
  void take_workspace() {  // enough for either rung
    std::size_t size = 0;
    for (const Rung rung : kRungs) {
      args.rung = rung;
      size = std::max(size, cuda::workspace_size(args));
    }
    args.workspace = {take(static_cast<Index>(size)), size};
  }
  bool untouched() const {
    std::vector<std::uint8_t> bytes(memory[output].size());
    memory[output].download(bytes.data(), bytes.size());
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t x) { return x == 0xff; });
  }
};

inline Call<cuda::SpanSearchArgs> search_call(const OnDevice& device) {
  Call<cuda::SpanSearchArgs> call{device.search_args(Rung::fast), {}};
  const Index slots = device.shape.rows() * 2;
  call.args.spans = call.take_of<DeviceSpan>(slots);
  call.args.scores = call.take_of<float>(slots);
  call.args.anchors = call.take_of<std::int32_t>(slots * 2);
  call.take_workspace();
  return call;
}

inline Call<cuda::SpanAttentionArgs> attend_call(const OnDevice& device) {
  Call<cuda::SpanAttentionArgs> call{device.args<cuda::SpanAttentionArgs>(Rung::fast), {}};
  const Index slots = device.shape.rows() * 2;
  call.args.slots = 2;
  call.args.output = call.take(slots * device.shape.head_dim * 2);
  call.args.lse = call.take_of<float>(slots);
  call.args.spans = static_cast<DeviceSpan*>(call.take(slots * 8));
  call.take_workspace();
  return call;
}

inline Call<cuda::CombineArgs> combine_call(const OnDevice& device) {
  Call<cuda::CombineArgs> call{device.args<cuda::CombineArgs>(Rung::fast), {}};
  const Index slots = device.shape.rows() * 2;
  call.args.slots = 2;
  call.args.output = call.take(device.shape.rows() * device.shape.head_dim * 2);
  call.args.window_lse_out = call.take_of<float>(device.shape.rows());
  call.args.spans = call.take_of<DeviceSpan>(slots);
  call.args.scores = call.take_of<float>(slots);
  call.args.span_outputs = call.take(slots * device.shape.head_dim * 2);
  call.args.span_lses = call.take_of<float>(slots);
  call.take_workspace();
  return call;
}

inline Call<cuda::AttentionArgs> attention_call(const OnDevice& device) {
  Call<cuda::AttentionArgs> call{device.attention_args(Rung::fast), {}};
  call.args.output = call.take(device.shape.rows() * device.shape.head_dim * 2);
  call.args.spans = call.take_of<DeviceSpan>(device.shape.rows() * 2);
  call.args.scores = call.take_of<float>(device.shape.rows() * 2);
  call.args.span_lses = call.take_of<float>(device.shape.rows() * 2);
  call.args.window_lse = call.take_of<float>(device.shape.rows());
  call.args.anchors = call.take_of<std::int32_t>(device.shape.rows() * 2 * 2);
  call.take_workspace();
  return call;
}

template <class Args>
using Stage = void (*)(const Args&, cuda::Stream);

/// The call, spoiled, throws std::invalid_argument whose text has one of `names`, and writes
/// nothing.
template <class Args>
void refuses_on(Rung rung, const Call<Args>& call, Stage<Args> stage,
                const std::vector<std::string>& names, const std::function<void(Args&)>& spoil) {
  Args args = call.args;
  args.rung = rung;
  spoil(args);
  const cuda::OwnedStream stream;
  std::string message = "no std::invalid_argument";
  try {
    stage(args, stream.get());
  } catch (const std::invalid_argument& error) {
    message = error.what();
  }
  CAPTURE(name(rung), names.front(), message);
  CHECK(std::any_of(names.begin(), names.end(), [&](const std::string& offender) {
    return message.find(offender) != std::string::npos;
  }));
  stream.synchronize();
  CHECK(call.untouched());
}

template <class Args>
void refuses(const Call<Args>& call, Stage<Args> stage, const std::vector<std::string>& names,
             const std::function<void(Args&)>& spoil) {
  for (const Rung rung : kRungs) refuses_on<Args>(rung, call, stage, names, spoil);
}

/// Too small, none, misaligned: where the rung needs one at all.
template <class Args>
void refuses_workspaces(const Call<Args>& call, Stage<Args> stage) {
  for (const Rung rung : kRungs) {
    Args args = call.args;
    args.rung = rung;
    const std::size_t needed = cuda::workspace_size(args);
    if (needed == 0) continue;
    const auto spoilt = [&](const std::function<void(cuda::Workspace&)>& spoil) {
      refuses_on<Args>(rung, call, stage, {"workspace"}, [&](Args& bad) { spoil(bad.workspace); });
    };
    spoilt([&](cuda::Workspace& workspace) { workspace.size = needed - 1; });
    spoilt([&](cuda::Workspace& workspace) { workspace.data = nullptr; });
    spoilt([&](cuda::Workspace& workspace) { workspace = {}; });
    spoilt([&](cuda::Workspace& workspace) {
      workspace.data = static_cast<char*>(workspace.data) + 16;
    });
  }
}

template <class T>
T* shifted(T* pointer, std::size_t bytes = 2) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer) + bytes;
  return reinterpret_cast<T*>(address);
}
inline const void* shifted(const void* pointer) { return static_cast<const char*>(pointer) + 2; }
inline void* shifted(void* pointer) { return static_cast<char*>(pointer) + 2; }

/// A pointer that must not be null, nor lie off its alignment.
template <class Args, class T>
void needs(const Call<Args>& call, Stage<Args> stage, const std::string& field, T* Args::*pointer) {
  refuses<Args>(call, stage, {field}, [&](Args& args) { args.*pointer = nullptr; });
  refuses<Args>(call, stage, {field}, [&](Args& args) { args.*pointer = shifted(args.*pointer); });
}

/// What is wrong alike in every stage. `short_plan` is too short for the last query.
template <class Args>
void refuses_common(const Call<Args>& call, Stage<Args> stage,
                    const cuda::DeviceSchedule& short_plan) {
  const auto spoilt = [&](const std::vector<std::string>& names, auto spoil) {
    refuses<Args>(call, stage, names, spoil);
  };
  spoilt({"head_dim"}, [](Args& args) { args.shape.head_dim = 0; });
  spoilt({"head_dim"}, [](Args& args) { args.shape.head_dim = 257; });
  spoilt({"num_kv_heads"}, [](Args& args) { args.shape.num_kv_heads = 3; });
  spoilt({"num_kv_heads"}, [](Args& args) { args.shape.num_kv_heads = 0; });
  spoilt({"num_heads"}, [](Args& args) { args.shape.num_heads = 0; });
  spoilt({"batch"}, [](Args& args) { args.shape.batch = 0; });
  spoilt({"queries"}, [](Args& args) { args.shape.queries = -1; });
  spoilt({"keys"}, [](Args& args) { args.shape.keys = -1; });
  spoilt({"keys"}, [](Args& args) { args.shape.keys = cuda::kMaxContext + 1; });
  const std::int32_t not_looked_at = 0;
  spoilt({"shape"}, [&](Args& args) {  // rows fit 64 bits, rows times slots do not
    args.shape.batch = args.shape.num_heads = args.shape.num_kv_heads = 65535;
    args.shape.queries = cuda::kMaxContext;
    args.shape.query_offset = 0;
    args.shape.length = &not_looked_at;
  });
  spoilt({"query_offset"}, [](Args& args) { args.shape.query_offset = -1; });
  const auto pack = [&](cuda::Shape& shape) {
    shape.batch = 1;
    shape.query_offset = 0;
    shape.start = shape.length = nullptr;
    shape.cu_seqlens = &not_looked_at;
    shape.sequences = 1;
  };
  const auto spoilt_packed = [&](const std::vector<std::string>& names, auto spoil) {
    spoilt(names, [&](Args& args) {
      pack(args.shape);
      spoil(args.shape);
    });
  };
  spoilt_packed({"a null pointer beside cu_seqlens_k"}, [](cuda::Shape& shape) {
    shape.cu_seqlens_k = shape.cu_seqlens;
    shape.cu_seqlens = nullptr;
  });
  spoilt_packed({"4-byte aligned"},
                [](cuda::Shape& shape) { shape.cu_seqlens_k = shifted(shape.cu_seqlens); });
  spoilt({"schedule for lengths"}, [&](Args& args) {  // too short for the keys alone
    pack(args.shape);
    args.shape.queries = 1;
    args.shape.cu_seqlens_k = &not_looked_at;
    args.schedule = &short_plan;
  });
  spoilt_packed({"sequences"}, [](cuda::Shape& shape) { shape.sequences = 0; });
  spoilt_packed({"batch", "cu_seqlens"}, [](cuda::Shape& shape) { shape.batch = 2; });
  spoilt_packed({"query_offset", "cu_seqlens"}, [](cuda::Shape& shape) { shape.query_offset = 1; });
  spoilt_packed({"key_offset", "cu_seqlens"}, [](cuda::Shape& shape) { shape.key_offset = 1; });
  spoilt_packed({"start", "cu_seqlens"}, [&](cuda::Shape& shape) { shape.start = &not_looked_at; });
  spoilt_packed({"length", "cu_seqlens"},
                [&](cuda::Shape& shape) { shape.length = &not_looked_at; });
  spoilt({"dtype"}, [](Args& args) { args.dtype = static_cast<Dtype>(7); });
  spoilt({"schedule"}, [](Args& args) { args.schedule = nullptr; });
  spoilt({"plan", "schedule"}, [&](Args& args) { args.schedule = &short_plan; });
  refuses_workspaces(call, stage);
}

}  // namespace gpu
