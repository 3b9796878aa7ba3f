#include "api/check.cuh"
#include "api/stages.cuh"
#include "attend/attend_row.cuh"
#include "device/row_type.cuh"

namespace multistep::cuda {
namespace {

constexpr int kWarps = 4;

/// One warp a query row: the window, joined with every span, summed by the gates.
template <class T, bool kPaged>
__global__ void combine_rows(Combine combine) {
  const int lane = threadIdx.x % 32;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (r >= combine.rows.total()) return;
  const int head_dim = combine.rows.head_dim;
  const Rows::Row row = combine.rows.at(r);

  RowOutput window{{}, -kInfinity};
  if (combine.window_output) {
    window.lse = combine.window_lse[row.index];
#pragma unroll
    for (int i = 0; i < kLaneValues; ++i) {
      const int d = lane + 32 * i;
      const T* given = static_cast<const T*>(combine.window_output) + row.index * head_dim;
      if (d < head_dim) window.value[i] = to_float(given[d]);
    }
  } else {
    const DeviceSpan keys = combine.rows.window_keys(row);
    if (keys.end > keys.begin) {
      const Rows& rows = combine.rows;
      window = attend_row(
          rows.query_row<T>(combine.query, row), rows.kv_rows<T, kPaged>(combine.key, row),
          rows.kv_rows<T, kPaged>(combine.value, row), keys, head_dim, combine.scale);
    }
  }

  if (combine.window_lse_out && lane == 0) combine.window_lse_out[row.index] = window.lse;

  const int used = combine.slots == 0
                       ? 0
                       : slots_in_use(combine.spans + row.index * combine.slots, combine.slots);
  RowOutput sum = window;  // a query without a path gets its window
  if (used > 0) {
    sum = {};
    const float* scores = combine.scores + row.index * combine.slots;
    const Gates gates = gates_of(scores, used);
    for (int s = 0; s < used; ++s) {
      float gate = gates.of(scores[s]);
      if (faulty(combine.rows.fault, Fault::gates_equal)) gate = 1.0f / used;
      const std::int64_t pair = r * combine.slots + s;
      Joined joined = join(combine.span_lses[pair], window.lse);
      if (faulty(combine.rows.fault, Fault::window_lse_ignored)) {
        joined = {0.5f, 0.5f, joined.lse};
      }
      const T* span = static_cast<const T*>(combine.span_outputs) + pair * head_dim;
#pragma unroll
      for (int i = 0; i < kLaneValues; ++i) {
        const int d = lane + 32 * i;
        if (d >= head_dim) continue;
        // Where a side has no key its output is 0 and counts 0.
        sum.value[i] += gate * (joined.first * to_float(span[d]) + joined.second * window.value[i]);
      }
    }
  }
  store_row(sum, static_cast<T*>(combine.output) + row.index * head_dim, head_dim);
}

}  // namespace

void combine_plain(const Combine& combine, Stream stream) {
  const auto blocks = blocks_for(combine.rows.total(), kWarps);
  if (blocks == 0) return;
  with_type_and_pages(combine, [&](auto type, auto paged) {
    combine_rows<decltype(type), paged><<<blocks, 32 * kWarps, 0, stream>>>(combine);
  });
  check_launch("combine_rows");
}

}  // namespace multistep::cuda
