#include "api/choose.cuh"
#include "attend/attend_tiles.cuh"
#include "attend/backward_keys.cuh"

/// The backward pass by tiles. Pass 1 attends anew, and keeps of every output its product with dO
/// alone; passes 2 and 3 are Hopper's where the code that was loaded has them and rows are not
/// long.
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

bool hopper_takes(const LaidRows& args) {
  return goes_back_on_hopper(current_device().hopper, args.rows.head_dim);
}

}  // namespace

void item_dots_tiles(const SpanAttend& items, const Pairs* pairs, const ItemGradients& gradients,
                     Stream stream) {
  const auto launch = [&](const auto& rows) {
    launch_attend_tiles(DotTiles<std::decay_t<decltype(rows)>>(rows, gradients), stream);
  };
  if (pairs) {
    launch(SpanRows(items, *pairs));
  } else if (items.rows.sequence.jumps()) {
    launch(WindowRows<true>(windows_of(items)));
  } else {
    launch(WindowRows<false>(windows_of(items)));
  }
}

void query_gradients_tiles(const LaidItems& items, const ItemGradients& gradients, Stream stream) {
  const LaidRows args(items, gradients);
  if (args.per_head == 0 || args.rows.keys == 0) return;
  hopper_takes(args) ? query_gradients_sm90(args, stream) : query_gradients_sm80(args, stream);
}

std::size_t key_gradients_bytes(const Rows& rows) {
  Arena arena;
  KeyPieces(rows, arena);
  return arena.used();
}

void key_gradients_tiles(const LaidItems& items, const ItemGradients& gradients, void* workspace,
                         Stream stream) {
  const LaidRows args(items, gradients);
  if (args.per_head == 0 || args.rows.keys == 0) return;
  Arena arena(workspace);
  const KeyPieces pieces(args.rows, arena);
  cut_pieces(items, pieces, stream);
  hopper_takes(args) ? key_gradients_sm90(args, pieces, stream)
                     : key_gradients_sm80(args, pieces, stream);
  add_pieces(args.rows, pieces, gradients.key_sums, gradients.value_sums, stream);
}

}  // namespace multistep::cuda
