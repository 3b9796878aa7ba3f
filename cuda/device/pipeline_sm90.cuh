#pragma once

#include "device/swizzled_tile.cuh"

/// How the warpgroups of a block on Hopper hand tiles to one another in shared memory, and multiply
/// them.
namespace multistep::cuda {

/// The barriers of a ring, in shared memory.
template <int kPlaces>
struct RingBarriers {
  ptx::Barrier filled[kPlaces];
  ptx::Barrier released[kPlaces];
  int number[kPlaces];  // that came with the items, where they have one

  /// One thread of the block, before all others are let on: how many arrivals make an item full,
  /// and how many warps release it.
  __device__ void init(int arrivals, int consumer_warps) {
    for (int i = 0; i < kPlaces; ++i) {
      filled[i].init(arrivals);
      released[i].init(consumer_warps);
    }
  }
};

/// Items 0, 1, 2, ... on their way from a producer to consumers, each in the next of a few places
/// of shared memory. Both sides count items; where an item is, and which phase of a barrier tells
/// of it, is known here alone.
template <class Item, int kPlaces>
struct Ring {
  Item (&item)[kPlaces];
  RingBarriers<kPlaces>& barriers;

  /// Producer: the place of item i, once it is free.
  __device__ Item& empty(unsigned i) const {
    barriers.released[i % kPlaces].wait(i / kPlaces % 2 ^ 1);
    return item[i % kPlaces];
  }
  /// Producer, one thread: arrives, and has so many bytes of item i arrive at the barrier returned.
  __device__ ptx::Barrier& expect(unsigned i, int bytes) const {
    barriers.filled[i % kPlaces].arrive_and_expect(bytes);
    return barriers.filled[i % kPlaces];
  }
  /// Producer, the thread that then arrives: a number that comes with item i.
  __device__ void tell(unsigned i, int number) const { barriers.number[i % kPlaces] = number; }
  /// Producer: arrives.
  __device__ void arrive(unsigned i) const { barriers.filled[i % kPlaces].arrive(); }

  /// Consumer: item i, once it is full.
  __device__ const Item& full(unsigned i) const {
    barriers.filled[i % kPlaces].wait(i / kPlaces % 2);
    return item[i % kPlaces];
  }
  /// Consumer: the number that came with item i, which is full.
  __device__ int number(unsigned i) const { return barriers.number[i % kPlaces]; }
  /// Consumer, whole warp: has read item i. (racecheck does not follow the lanes through the warp's
  /// barrier to the arrival, and calls a place's next item a race; where every lane arrives it
  /// calls none.)
  __device__ void release(unsigned i) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) barriers.released[i % kPlaces].arrive();
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Begins products of a warpgroup that read or write these registers; until they are finished
/// nothing else may.
template <class... Registers>
__device__ void begin_products(Registers&... registers) {
  (ptx::pin(registers), ...);
  ptx::wgmma_fence();
}
/// Waits for all products but the last `kPending` of those asked for, which leave these registers
/// alone.
template <int kPending, class... Registers>
__device__ void finish_products(Registers&... registers) {
  ptx::wgmma_wait<kPending>();
  (ptx::pin(registers), ...);
}

/// Asks for logits = rows keys^T.
template <class T, int kHeadDim, int kKeys>
__device__ void multiply_keys(float (&logits)[kKeys / 2], const SwizzledTile<64, kHeadDim>& rows,
                              const SwizzledTile<kKeys, kHeadDim>& keys) {
#pragma unroll
  for (int column = 0; column < kHeadDim; column += 16) {
    ptx::wgmma_shared<T>(logits, rows.columns_from(column), keys.columns_from(column), column > 0);
  }
  ptx::wgmma_commit();
}

/// Asks for sums += weights values, 128 columns at a time.
template <class T, int kHeadDim, int kKeys>
__device__ void multiply_values(float (&sums)[kHeadDim / 2],
                                const std::uint32_t (&weights)[kKeys / 16][4],
                                const SwizzledTile<kKeys, kHeadDim>& values) {
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    if constexpr (kHeadDim <= 128) {
      ptx::wgmma_registers<T>(sums, weights[step], values.rows_from(16 * step));
    } else {
      auto& halves = reinterpret_cast<float(&)[2][kHeadDim / 4]>(sums);
      ptx::wgmma_registers<T>(halves[0], weights[step], values.rows_from(16 * step));
      ptx::wgmma_registers<T>(halves[1], weights[step], values.rows_from(16 * step, 2));
    }
  }
  ptx::wgmma_commit();
}

#endif  // Hopper

}  // namespace multistep::cuda
