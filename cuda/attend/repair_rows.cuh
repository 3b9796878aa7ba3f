#pragma once

#include "attend/attend_row.cuh"
#include "device/fragment.cuh"
#include "group/tile_rows.cuh"

namespace multistep::cuda {

/// Attends anew, alone, to the rows that are spoiled: one after another, by the whole warp.
template <class T, class Tiles, int kHeadDim>
__device__ void repair(const Tiles& args, float (&values)[kHeadDim / 2], float (&lse)[2],
                       const TileRow (&rows)[2], int kv_head) {
  if (faulty(args.rows.fault, Fault::repair_skipped)) return;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool mine = spoiled<kHeadDim>(values, r);  // all lanes take part
    unsigned todo = __ballot_sync(kFullWarp, mine && rows[r].index >= 0);
    todo &= 0x11111111u;
    while (todo) {
      const int source = __ffs(static_cast<int>(todo)) - 1;
      todo &= todo - 1;
      const std::int64_t index = __shfl_sync(kFullWarp, rows[r].index, source);
      const DeviceSpan keys{__shfl_sync(kFullWarp, rows[r].keys.begin, source),
                            __shfl_sync(kFullWarp, rows[r].keys.end, source)};
      const std::int64_t query = args.rows.query_offset(args.query, index);
      const RowOutput fresh = attend_row(static_cast<const T*>(args.query.data) + query,
                                         args.rows.template kv_rows<T>(args.key, kv_head),
                                         args.rows.template kv_rows<T>(args.value, kv_head), keys,
                                         args.rows.head_dim, args.scale);
      // attend_row's lane l holds l + 32 i; this layout's lane c of the quad 8 j + 2 c + {0, 1}.
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int from = (8 * j + 2 * (lane % 4) + e) % 32;
          const float value = __shfl_sync(kFullWarp, fresh.value[8 * j / 32], from);
          if (lane / 4 == source / 4) values[4 * j + 2 * r + e] = value;
        }
      }
      if (lane / 4 == source / 4) lse[r] = fresh.lse;
    }
  }
}

}  // namespace multistep::cuda
