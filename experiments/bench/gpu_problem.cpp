#include "bench/gpu_problem.hpp"

#include "multistep/judge.hpp"

namespace multistep::program {
namespace {

std::size_t size(Index count) { return static_cast<std::size_t>(count); }

std::vector<std::int32_t> starts(const GpuShape& shape) {
  return std::vector<std::int32_t>(size(shape.batch), static_cast<std::int32_t>(shape.start));
}

}  // namespace

DeviceKeys::DeviceKeys(const InputSource& from)
    : source(from),
      key(from.upload(InputSource::key, from.shape().batch * from.shape().kv_heads, 0,
                      from.shape().length)),
      value(from.upload(InputSource::value, from.shape().batch * from.shape().kv_heads, 0,
                        from.shape().length)) {}

GpuProblem::GpuProblem(const GpuShape& shape, const StripePlan& plan,
                       std::shared_ptr<const DeviceKeys> keys)
    : sizes_(shape), schedule_(plan), keys_(std::move(keys)), start_(starts(shape)) {
  const Index first = shape.length - shape.queries;
  const auto upload = [&](std::uint64_t array) {
    return source().upload(array, shape.batch * shape.heads, first, shape.length);
  };
  query_ = upload(InputSource::query);
  for (Index m = 1; m < plan.steps(); ++m) {
    routing_.push_back(upload(InputSource::routing + static_cast<std::uint64_t>(m - 1)));
  }
}

cuda::Shape GpuProblem::shape() const {
  cuda::Shape shape;
  shape.batch = sizes_.batch;
  shape.num_heads = sizes_.heads;
  shape.num_kv_heads = sizes_.kv_heads;
  shape.queries = sizes_.queries;
  shape.keys = sizes_.length;
  shape.head_dim = sizes_.head_dim;
  shape.query_offset = sizes_.length - sizes_.queries;
  shape.start = start_.data();
  return shape;
}

template <class Args>
Args GpuProblem::common() const {
  Args args;
  args.shape = shape();
  args.dtype = dtype();
  args.schedule = &schedule_;
  return args;
}

template <class Args>
Args GpuProblem::attending() const {
  Args args = common<Args>();
  args.query = query_.data();
  args.key = keys_->key.data();
  args.value = keys_->value.data();
  return args;
}

cuda::SpanSearchArgs GpuProblem::search() const {
  auto args = common<cuda::SpanSearchArgs>();
  for (const cuda::DeviceBuffer& level : routing_) args.routing_queries.push_back(level.data());
  args.search_keys = keys_->key.data();
  return args;
}

cuda::SpanAttentionArgs GpuProblem::span_attention() const {
  auto args = attending<cuda::SpanAttentionArgs>();
  args.slots = levels() == 0 ? 1 : top_k();
  return args;
}

cuda::CombineArgs GpuProblem::combine() const {
  auto args = attending<cuda::CombineArgs>();
  args.slots = levels() == 0 ? 0 : top_k();
  return args;
}

cuda::AttentionArgs GpuProblem::attention() const {
  auto args = attending<cuda::AttentionArgs>();
  args.routing_queries = search().routing_queries;
  return args;
}

cuda::AttentionBackwardArgs GpuProblem::backward() const {
  auto args = attending<cuda::AttentionBackwardArgs>();
  args.routing_queries = search().routing_queries;
  return args;
}

cuda::DeviceBuffer GpuProblem::output_gradient() const {
  return source().upload(InputSource::output_gradient, sizes_.batch * sizes_.heads,
                         sizes_.length - sizes_.queries, sizes_.length);
}

std::vector<Index> sample_rows(const GpuProblem& problem, Index count) {
  const GpuShape& sizes = problem.sizes();
  const std::vector<Index> start(size(sizes.batch), sizes.start);
  return sample_rows({sizes.batch, sizes.heads, sizes.kv_heads, sizes.queries, sizes.length,
                      sizes.head_dim, sizes.offset(), start.data()},
                     problem.plan(), count, sizes.seed);
}

namespace {

void make(cuda::DeviceBuffer& buffer, Index count, std::size_t bytes) {
  buffer = cuda::DeviceBuffer(size(count) * bytes);
  buffer.fill(0xff);
}

}  // namespace

GpuResults::GpuResults(const GpuProblem& problem) {
  const Index rows = problem.sizes().rows();
  const Index d = problem.sizes().head_dim;
  const Index slots = problem.levels() == 0 ? 0 : rows * problem.top_k();
  make(spans, slots, sizeof(cuda::DeviceSpan));
  make(scores, slots, sizeof(float));
  make(anchors, slots * problem.levels(), sizeof(std::int32_t));
  make(span_outputs, slots * d, sizeof(std::uint16_t));
  make(span_lses, slots, sizeof(float));
  make(window_lse, rows, sizeof(float));
  make(output, rows * d, sizeof(std::uint16_t));
}

std::vector<cuda::DeviceSpan> kept_spans(const GpuResults& results) {
  std::vector<cuda::DeviceSpan> spans(results.spans.size() / sizeof(cuda::DeviceSpan));
  results.spans.download(spans.data(), results.spans.size());
  return spans;
}

std::vector<char> bytes_of(const cuda::DeviceBuffer& buffer) {
  std::vector<char> bytes(buffer.size());
  buffer.download(bytes.data(), bytes.size());
  return bytes;
}

GpuGradients::GpuGradients(const GpuProblem& problem) {
  const GpuShape& sizes = problem.sizes();
  const Index queries = sizes.rows() * sizes.head_dim;
  const Index keys = sizes.batch * sizes.kv_heads * sizes.length * sizes.head_dim;
  make(query, queries, sizeof(std::uint16_t));
  make(key, keys, sizeof(std::uint16_t));
  make(value, keys, sizeof(std::uint16_t));
  routing.resize(size(problem.levels()));
  for (cuda::DeviceBuffer& level : routing) make(level, queries, sizeof(std::uint16_t));
}

cuda::SpanSearchArgs search_into(const GpuProblem& problem, const GpuResults& results) {
  cuda::SpanSearchArgs args = problem.search();
  args.spans = elements<cuda::DeviceSpan>(results.spans);
  args.scores = elements<float>(results.scores);
  args.anchors = elements<std::int32_t>(results.anchors);
  return args;
}

cuda::SpanAttentionArgs span_attention_into(const GpuProblem& problem, const GpuResults& results) {
  cuda::SpanAttentionArgs args = problem.span_attention();
  args.spans = elements<cuda::DeviceSpan>(results.spans);
  args.output = results.span_outputs.data();
  args.lse = elements<float>(results.span_lses);
  return args;
}

cuda::CombineArgs combine_into(const GpuProblem& problem, const GpuResults& results) {
  cuda::CombineArgs args = problem.combine();
  if (args.slots > 0) {
    args.spans = elements<cuda::DeviceSpan>(results.spans);
    args.scores = elements<float>(results.scores);
    args.span_outputs = results.span_outputs.data();
    args.span_lses = elements<float>(results.span_lses);
  }
  args.output = results.output.data();
  return args;
}

cuda::AttentionArgs attention_into(const GpuProblem& problem, const GpuResults& results) {
  cuda::AttentionArgs args = problem.attention();
  args.output = results.output.data();
  if (problem.levels() > 0) {
    args.spans = elements<cuda::DeviceSpan>(results.spans);
    args.scores = elements<float>(results.scores);
  }
  return args;
}

cuda::AttentionBackwardArgs backward_into(const GpuProblem& problem, const GpuResults& results,
                                          const cuda::DeviceBuffer& output_gradient,
                                          const GpuGradients& gradients) {
  cuda::AttentionBackwardArgs args = problem.backward();
  if (problem.levels() > 0) {
    args.spans = elements<cuda::DeviceSpan>(results.spans);
    args.scores = elements<float>(results.scores);
    args.anchors = elements<std::int32_t>(results.anchors);
  }
  args.output_gradient = output_gradient.data();
  args.query_gradient = gradients.query.data();
  args.key_gradient = gradients.key.data();
  args.value_gradient = gradients.value.data();
  for (const cuda::DeviceBuffer& level : gradients.routing) {
    args.routing_gradients.push_back(level.data());
  }
  return args;
}

}  // namespace multistep::program
