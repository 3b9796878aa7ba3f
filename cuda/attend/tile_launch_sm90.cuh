#pragma once

#include <algorithm>

#include "api/check.cuh"
#include "attend/tile_producers_sm90.cuh"
#include "device/row_type.cuh"
#include "device/tensor_map.cuh"

/// How the tile kernels are launched: persistent blocks with most of a multiprocessor's shared
/// memory.
namespace multistep::cuda {

/// What a block keeps in dynamic shared memory, at its alignment, with its barriers ready. Whole
/// block.
template <class Stages>
__device__ Stages& start_block() {
  extern __shared__ char memory[];
  constexpr std::uintptr_t kAlignment = alignof(Stages);
  auto& stages = *reinterpret_cast<Stages*>(
      (reinterpret_cast<std::uintptr_t>(memory) + kAlignment - 1) / kAlignment * kAlignment);
  if (threadIdx.x == 0) {
    stages.init();
    ptx::fence_barrier_init();
  }
  __syncthreads();
  return stages;
}

/// At most `tasks` blocks, and one a multiprocessor.
template <class Stages, class... Parameters, class... Arguments>
void launch_tile_block(void (*kernel)(Parameters...), std::int64_t tasks, Stream stream,
                       const Arguments&... arguments) {
  constexpr int kBytes = sizeof(Stages) + alignof(Stages);
  static_assert(kBytes <= 227 * 1024, "a block has so much shared memory");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "cudaFuncSetAttribute");
  const auto blocks =
      static_cast<unsigned>(std::min<std::int64_t>(tasks, current_device().multiprocessors));
  kernel<<<blocks, TileBlock::kThreads, kBytes, stream>>>(arguments...);
  check_launch("tiles");
}

/// The copy engine's maps of keys and values, in boxes of `box_keys`.
struct TileMaps {
  CUtensorMap keys;
  CUtensorMap values;

  template <class Args>
  TileMaps(const Args& args, unsigned box_keys) {
    const Rows& rows = args.rows;
    // Rows that no query of the call can see may hold anything.
    const Index seen = std::max<Index>(rows.past_seen(), 1);
    const auto map = [&](const RowArray& array) {
      return tensor_map(array, args.dtype, {rows.head_dim, seen, rows.kv_heads, rows.batch},
                        box_keys);
    };
    keys = map(args.key);
    values = map(args.value);
  }
};

}  // namespace multistep::cuda
