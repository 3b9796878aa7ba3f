#include "multistep/cuda/memory.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <utility>

#include "api/check.cuh"

namespace multistep::cuda {

DeviceBuffer::DeviceBuffer(std::size_t bytes) : size_(bytes) {
  if (bytes > 0) check(cudaMalloc(&data_, bytes), "cudaMalloc");
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() { cudaFree(data_); }

namespace {

/// A memset is asynchronous, and a copy from pageable memory can return before it has ended; other
/// streams do not wait for either.
void join_default_stream() { check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize"); }

}  // namespace

void DeviceBuffer::fill(std::uint8_t byte) {
  if (size_ == 0) return;
  check(cudaMemset(data_, byte, size_), "cudaMemset");
  join_default_stream();
}

void DeviceBuffer::upload(const void* host, std::size_t bytes, std::size_t offset) {
  require(offset + bytes <= size_, "upload of {} bytes at {}: the buffer holds {}", bytes, offset,
          size_);
  if (bytes == 0) return;
  check(cudaMemcpy(static_cast<char*>(data_) + offset, host, bytes, cudaMemcpyHostToDevice),
        "upload");
  join_default_stream();
}

void DeviceBuffer::download(void* host, std::size_t bytes, std::size_t offset) const {
  require(offset + bytes <= size_, "download of {} bytes at {}: the buffer holds {}", bytes, offset,
          size_);
  if (bytes == 0) return;
  check(cudaMemcpy(host, static_cast<const char*>(data_) + offset, bytes, cudaMemcpyDeviceToHost),
        "download");
}

void copy_rows(void* to, std::size_t to_step, const void* from, std::size_t from_step,
               std::size_t bytes, std::size_t rows) {
  check(cudaMemcpy2D(to, to_step, from, from_step, bytes, rows, cudaMemcpyDeviceToDevice),
        "cudaMemcpy2D");
}

std::uint16_t to_16_bits(Dtype dtype, float value) {
  return dtype == Dtype::bf16 ? __nv_bfloat16_raw(__float2bfloat16_rn(value)).x
                              : __half_raw(__float2half_rn(value)).x;
}

float from_16_bits(Dtype dtype, std::uint16_t bits) {
  return dtype == Dtype::bf16 ? __bfloat162float(__nv_bfloat16_raw{bits})
                              : __half2float(__half_raw{bits});
}

std::vector<std::uint16_t> to_16_bits(Dtype dtype, std::span<const float> values) {
  std::vector<std::uint16_t> bits(values.size());
#pragma omp parallel for
  for (std::size_t i = 0; i < values.size(); ++i) bits[i] = to_16_bits(dtype, values[i]);
  return bits;
}

std::vector<float> from_16_bits(Dtype dtype, std::span<const std::uint16_t> bits) {
  std::vector<float> values(bits.size());
#pragma omp parallel for
  for (std::size_t i = 0; i < bits.size(); ++i) values[i] = from_16_bits(dtype, bits[i]);
  return values;
}

OwnedStream::OwnedStream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

OwnedStream::~OwnedStream() { cudaStreamDestroy(stream_); }

void OwnedStream::synchronize() const {
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
}

void Graph::begin(const OwnedStream& stream) {
  check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
}

void Graph::abandon(const OwnedStream& stream) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream.get(), &graph);
  if (graph) cudaGraphDestroy(graph);
}

void Graph::end(const OwnedStream& stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream.get(), &graph), "cudaStreamEndCapture");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(error, "cudaGraphInstantiate");
  executable_ = executable;
}

Graph::~Graph() { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_)); }

void Graph::launch(const OwnedStream& stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_), stream.get()),
        "cudaGraphLaunch");
}

namespace {

void require_pages(const Shape& shape) {
  if (!shape.block_table) return;
  const Index size = shape.page_size;
  require_within("page_size", size, 16, Index{1} << 30);
  require((size & (size - 1)) == 0, "page_size {}: a power of two", size);
  require_within("max_pages", shape.max_pages, 0, kMaxContext);
  require(shape.keys <= shape.max_pages * size, "keys {}: at most max_pages {} of page_size {}",
          shape.keys, shape.max_pages, size);
  require(shape.length, "length: a null pointer beside block_table");
  require(shape.key_offset == 0, "key_offset {}: 0 beside block_table", shape.key_offset);
}

}  // namespace

void require_shape(const Shape& shape) {
  require_within("batch", shape.batch, 1, 65535);
  require_within("num_heads", shape.num_heads, 1, 65535);
  require_within("num_kv_heads", shape.num_kv_heads, 1, shape.num_heads);
  require(shape.num_heads % shape.num_kv_heads == 0, "num_kv_heads {}: divides num_heads {}",
          shape.num_kv_heads, shape.num_heads);
  require_within("head_dim", shape.head_dim, 1, kMaxHeadDim);
  require_within("query_offset", shape.query_offset, 0, kMaxContext);
  require_within("queries", shape.queries, 0, kMaxContext - shape.query_offset);
  require_within("key_offset", shape.key_offset, 0, kMaxContext);
  require_within("keys", shape.keys, 0, kMaxContext - shape.key_offset);
  for (const std::int32_t* array :
       {shape.start, shape.length, shape.cu_seqlens, shape.cu_seqlens_k, shape.block_table}) {
    require(reinterpret_cast<std::uintptr_t>(array) % sizeof(std::int32_t) == 0,
            "start, length, cu_seqlens, cu_seqlens_k or block_table {}: 4-byte aligned", array);
  }
  require_pages(shape);
  require(shape.cu_seqlens || !shape.cu_seqlens_k,
          "cu_seqlens: a null pointer beside cu_seqlens_k");
  if (!shape.cu_seqlens) return;
  require_within("sequences", shape.sequences, 1, kMaxContext);
  require(shape.batch == 1, "batch {}: 1 beside cu_seqlens", shape.batch);
  require(!shape.start && !shape.length, "start or length: null beside cu_seqlens");
  require(shape.query_offset == 0 && shape.key_offset == 0,
          "query_offset {}, key_offset {}: 0 beside cu_seqlens", shape.query_offset,
          shape.key_offset);
}

void require_workspace(const Workspace& workspace, std::size_t needed) {
  require(workspace.size >= needed, "workspace {} bytes: at least {}", workspace.size, needed);
  require(needed == 0 || workspace.data, "workspace: a null pointer for {} bytes", needed);
  require(reinterpret_cast<std::uintptr_t>(workspace.data) % 256 == 0,
          "workspace {}: 256-byte aligned", workspace.data);
}

}  // namespace multistep::cuda
