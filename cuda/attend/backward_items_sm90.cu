#include "attend/attend_tiles_sm90.cuh"
#include "attend/backward_row.cuh"

/// Backward, pass 1: attends anew, and keeps of every output its product with dO alone.
namespace multistep::cuda {
namespace {

template <class TileRows>
struct DotTiles : BackwardRows<TileRows> {
  using BackwardRows<TileRows>::BackwardRows;

  __device__ void prepare(const TileRow&, SlotWeight*) const {}

  template <class T, int kHeadDim>
  struct Epilogue {
    const DotTiles& args;
    const TileRow (&rows)[2];
    const SlotWeight (*slots)[kMaxTileSlots];
    RowPieces<kHeadDim> by_output[2];

    __device__ void prefetch() {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const T* const gradients = static_cast<const T*>(args.gradients.output_gradient);
        const bool here = rows[r].index >= 0;
        const std::int64_t at = args.gradient_row(rows[r]) * args.rows.head_dim;
        by_output[r].load(here ? gradients + at : nullptr, args.rows.pieces());
      }
    }
    __device__ void store(const float (&value)[kHeadDim / 2], const float (&lse)[2]) const {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float dot = dot_fragment<T, kHeadDim>(value, r, by_output[r]);
        const bool here = rows[r].index >= 0;
        if (here && threadIdx.x % 4 == 0) args.gradients.dots[rows[r].item] = {lse[r], dot};
      }
    }
  };
};

}  // namespace

void item_dots_tiles(const SpanAttend& items, const Pairs* pairs, const ItemGradients& gradients,
                     Stream stream) {
  if (pairs) {
    launch_attend_tiles_sm90(DotTiles<SpanRows>(SpanRows(items, *pairs), gradients), stream);
  } else {
    launch_attend_tiles_sm90(DotTiles<WindowRows>(WindowRows(windows_of(items)), gradients),
                             stream);
  }
}

}  // namespace multistep::cuda
