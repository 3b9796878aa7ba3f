#pragma once

#include <memory>
#include <vector>

#include "bench/gpu_options.hpp"
#include "multistep/cuda/attention.hpp"
#include "multistep/cuda/gradients.hpp"
#include "multistep/cuda/memory.hpp"

namespace multistep::program {

inline cuda::Dtype dtype_of(const GpuShape& shape) {
  return shape.half ? cuda::Dtype::fp16 : cuda::Dtype::bf16;
}

/// The seeded arrays of a problem, row by row: the device's copy and the oracle's come from the
/// same function, and a query's row does not depend on how many queries there are.
class InputSource {
 public:
  enum Array : std::uint64_t {
    query = 0,
    key = 1,
    value = 2,
    routing = 3,           // + level - 1
    output_gradient = 100  // of the loss
  };

  /// `needle`: the key that matches every query where the inputs are of that kind.
  InputSource(const GpuShape& shape, Index needle);

  /// The row of `head` (of batch * heads, or batch * KV heads) at `position`, as 16-bit values.
  void row(std::uint64_t array, Index head, Index position, std::uint16_t* bits) const;

  /// Rows [begin, end) of a head as floats: [end - begin, head_dim].
  std::unique_ptr<float[]> rows(std::uint64_t array, Index head, Index begin, Index end) const;

  /// [heads, end - begin, head_dim] on the device.
  cuda::DeviceBuffer upload(std::uint64_t array, Index heads, Index begin, Index end) const;

  const GpuShape& shape() const { return shape_; }

 private:
  void shape_row(bool is_key, Index position, std::vector<float>& row) const;
  void lean(std::vector<float>& row, std::uint64_t centre, double share) const;

  GpuShape shape_;
  Index needle_;
  Span hot_;
};

/// A key at an anchor of the last query's first level.
Index needle_of(const StripePlan& plan, const GpuShape& shape);

/// Keys and values on the device, for every schedule and any number of queries.
struct DeviceKeys {
  explicit DeviceKeys(const InputSource& source);
  InputSource source;
  cuda::DeviceBuffer key;    // [batch, kv_heads, length, head_dim]
  cuda::DeviceBuffer value;  // [batch, kv_heads, length, head_dim]
};

/// A schedule and the queries that follow it, beside keys that may be shared.
class GpuProblem {
 public:
  GpuProblem(const GpuShape& shape, const StripePlan& plan, std::shared_ptr<const DeviceKeys> keys);

  const GpuShape& sizes() const { return sizes_; }
  const StripePlan& plan() const { return schedule_.plan(); }
  const InputSource& source() const { return keys_->source; }
  Index levels() const { return schedule_.levels(); }
  Index top_k() const { return schedule_.top_k(); }
  cuda::Dtype dtype() const { return dtype_of(sizes_); }
  cuda::Shape shape() const;

  // The stages' arguments, all but results, rung and workspace.
  cuda::SpanSearchArgs search() const;
  cuda::SpanAttentionArgs span_attention() const;
  cuda::CombineArgs combine() const;
  cuda::AttentionArgs attention() const;
  cuda::AttentionBackwardArgs backward() const;

  /// The derivative of a loss by the output, [batch, heads, queries, head_dim].
  cuda::DeviceBuffer output_gradient() const;

 private:
  /// Arguments of a stage with what all of them take, and with what those that attend take.
  template <class Args>
  Args common() const;
  template <class Args>
  Args attending() const;

  GpuShape sizes_;
  cuda::DeviceSchedule schedule_;
  std::shared_ptr<const DeviceKeys> keys_;
  cuda::DeviceBuffer query_;                 // [batch, heads, queries, head_dim]
  std::vector<cuda::DeviceBuffer> routing_;  // [N - 1] of the same
  cuda::DeviceArray<std::int32_t> start_;    // [batch]
};

/// Rows to look at, as the judge samples them.
std::vector<Index> sample_rows(const GpuProblem& problem, Index count);

/// The elements of a buffer.
template <class T>
T* elements(const cuda::DeviceBuffer& buffer) {
  return static_cast<T*>(buffer.data());
}

/// The results of all stages on the device, poisoned: what a stage leaves out is NaN or -1.
struct GpuResults {
  explicit GpuResults(const GpuProblem& problem);
  cuda::DeviceBuffer spans;         // [rows, top_k] of cuda::DeviceSpan
  cuda::DeviceBuffer scores;        // [rows, top_k] of float
  cuda::DeviceBuffer anchors;       // [rows, top_k, N - 1] of std::int32_t
  cuda::DeviceBuffer span_outputs;  // [rows, top_k, head_dim]
  cuda::DeviceBuffer span_lses;     // [rows, top_k] of float
  cuda::DeviceBuffer window_lse;    // [rows] of float
  cuda::DeviceBuffer output;        // [rows, head_dim]
};

/// The spans that a run kept: [rows, top_k].
std::vector<cuda::DeviceSpan> kept_spans(const GpuResults& results);

/// What is on the device.
std::vector<char> bytes_of(const cuda::DeviceBuffer& buffer);

/// Of the backward pass, poisoned.
struct GpuGradients {
  explicit GpuGradients(const GpuProblem& problem);
  cuda::DeviceBuffer query;                 // [rows, head_dim]
  cuda::DeviceBuffer key;                   // [batch * kv_heads, keys, head_dim]
  cuda::DeviceBuffer value;                 // the same
  std::vector<cuda::DeviceBuffer> routing;  // [N - 1] as query
};

/// A call with its workspace: `args` of any stage.
template <class Args>
cuda::DeviceBuffer with_workspace(Args& args) {
  cuda::DeviceBuffer memory(cuda::workspace_size(args));
  args.workspace = {memory.data(), memory.size()};
  return memory;
}

/// Runs a stage to its end.
template <class Args, class Stage>
void run_stage(Args args, cuda::Rung rung, const cuda::OwnedStream& stream, Stage&& stage) {
  args.rung = rung;
  const cuda::DeviceBuffer memory = with_workspace(args);
  stage(args, stream.get());
  stream.synchronize();
}

// The stages' arguments with their results in `results`: what every caller wants of them.
cuda::SpanSearchArgs search_into(const GpuProblem& problem, const GpuResults& results);
cuda::SpanAttentionArgs span_attention_into(const GpuProblem& problem, const GpuResults& results);
cuda::CombineArgs combine_into(const GpuProblem& problem, const GpuResults& results);
cuda::AttentionArgs attention_into(const GpuProblem& problem, const GpuResults& results);
/// At the selection in `results`, anchors included.
cuda::AttentionBackwardArgs backward_into(const GpuProblem& problem, const GpuResults& results,
                                          const cuda::DeviceBuffer& output_gradient,
                                          const GpuGradients& gradients);

}  // namespace multistep::program
