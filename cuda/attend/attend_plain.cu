#include "api/check.cuh"
#include "api/stages.cuh"
#include "attend/attend_row.cuh"
#include "device/row_type.cuh"

namespace multistep::cuda {
namespace {

constexpr int kWarps = 4;

/// One warp a (query row, slot).
template <class T, bool kPaged>
__global__ void span_attention(SpanAttend attend) {
  const std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (pair >= attend.rows.total() * attend.slots) return;
  const int head_dim = attend.rows.head_dim;
  const Rows::Row row = attend.rows.at(pair / attend.slots);
  const std::int64_t slot = row.index * attend.slots + pair % attend.slots;
  const DeviceSpan span =
      attend.spans ? attend.rows.attended(attend.spans[slot], row) : attend.rows.window_keys(row);
  const RowOutput result = attend_row(
      attend.rows.query_row<T>(attend.query, row), attend.rows.kv_rows<T, kPaged>(attend.key, row),
      attend.rows.kv_rows<T, kPaged>(attend.value, row), span, head_dim, attend.scale);
  store_row(result, static_cast<T*>(attend.output) + pair * head_dim, head_dim);
  if (threadIdx.x % 32 == 0) attend.lse[pair] = result.lse;
}

}  // namespace

void span_attention_plain(const SpanAttend& attend, Stream stream) {
  const unsigned blocks = blocks_for(attend.rows.total() * attend.slots, kWarps);
  if (blocks == 0) return;
  with_type_and_pages(attend, [&](auto type, auto paged) {
    span_attention<decltype(type), paged><<<blocks, 32 * kWarps, 0, stream>>>(attend);
  });
  check_launch("span_attention");
}

}  // namespace multistep::cuda
