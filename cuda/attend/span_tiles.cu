#include "attend/attend_tiles.cuh"

/// Span-attention by tiles of the sorted (query row, slot) pairs.
namespace multistep::cuda {

struct SpanTiles : SpanRows {
  using SpanRows::SpanRows;

  __device__ void prepare(const TileRow&, SlotWeight*) const {}

  template <class T, int kHeadDim>
  struct Epilogue {
    const SpanTiles& args;
    const TileRow (&rows)[2];
    const SlotWeight (*slots)[kMaxTileSlots];

    __device__ void prefetch() {}
    __device__ void store(const float (&value)[kHeadDim / 2], const float (&lse)[2]) const {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const bool here = rows[r].index >= 0;
        T* output = static_cast<T*>(args.output) + rows[r].item * args.rows.head_dim;
        store_fragment<T, kHeadDim>(value, r, here ? output : nullptr, args.rows.pieces());
        if (here && threadIdx.x % 4 == 0) args.lse[rows[r].item] = lse[r];
      }
    }
  };
};

void span_attention_tiles(const SpanAttend& attend, const Pairs& pairs, Stream stream) {
  launch_attend_tiles(SpanTiles(attend, pairs), stream);
}

}  // namespace multistep::cuda
