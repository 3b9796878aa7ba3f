#include "attend/backward_keys.cuh"
#include "attend/warp_tiles.cuh"
#include "device/row_type.cuh"

/// Pass 3 without Hopper's instructions: a block takes a piece of the rows that look at its 128
/// keys, 16 a warp, which hold keys and values in registers. The next tile of rows comes while one
/// is looked at, and that one 16 rows at a time.
namespace multistep::cuda {
namespace {

constexpr int kWarps = kOwnedKeys / 16;
constexpr int kThreads = 32 * kWarps;

/// A block's shared memory. Its keys lie where the first tile of rows will, and its values where
/// the second will, until all warps have read them.
template <int kHeadDim>
struct Stages {
  using Owned = SwizzledTile<kOwnedKeys, kHeadDim>;
  struct Rows64 {
    SwizzledTile<kTileRows, kHeadDim> query;
    SwizzledTile<kTileRows, kHeadDim> by_output;
    ItemRow item[kTileRows];
  };
  static_assert(sizeof(Owned) <= sizeof(Rows64), "keys take the place of rows");
  Rows64 stage[2];

  __device__ Owned& owned(int i) { return reinterpret_cast<Owned&>(stage[i]); }
};

#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <class T, int kHeadDim>
struct WarpKeys {
  static constexpr int kAtOnce = 16;  // rows, as registers allow

  const LaidRows& args;
  Stages<kHeadDim>& stages;
  int kv_head;
  std::int32_t first;  // key of the block
  KeyGradients<T, kHeadDim> gradients;
  LeftRows<kHeadDim> key;
  LeftRows<kHeadDim> value;

  __device__ WarpKeys(const LaidRows& rows, const KeyPieces& pieces, Stages<kHeadDim>& room,
                      const KeyPiece& piece)
      : args(rows),
        stages(room),
        kv_head(piece.key_tile / pieces.tiles_per_head),
        first(piece.key_tile % pieces.tiles_per_head * kOwnedKeys),
        gradients(rows, pieces) {}

  /// Whole block.
  __device__ void take_keys() {
    const auto ask = [&](int i, const RowArray& array) {
      const HeadRows<T> rows = args.rows.kv_rows<T>(array, kv_head);
      ask_for_rows<T, kThreads>(stages.owned(i), args.rows.pieces(), rows.first, [&](int r) {
        return first + r < args.rows.keys ? rows[first + r] : nullptr;
      });
    };
    ask(0, args.key);
    ask(1, args.value);
    ptx::commit_copies();
    ptx::wait_for_copies<0>();
    __syncthreads();
    const int mine = static_cast<int>(threadIdx.x) / 32 * 16;
    key.take(stages.owned(0), mine);
    value.take(stages.owned(1), mine);
    __syncthreads();  // rows may take their place
  }

  /// The first tile of rows from `begin` on that looks at any of the block's keys; `end` if none
  /// does. Every warp finds it for itself.
  __device__ std::int32_t wanted_from(std::int32_t begin, std::int32_t end) const {
    for (; begin < end; begin += 32) {
      const auto mine = begin + static_cast<std::int32_t>(threadIdx.x % 32);
      const bool wanted =
          mine < end && meet(args.tile(kv_head, mine).any, first, first + kOwnedKeys);
      const unsigned found = __ballot_sync(kFullWarp, wanted);
      if (found) return begin + __ffs(static_cast<int>(found)) - 1;
    }
    return end;
  }

  __device__ void ask_for_tile(std::int32_t tile, int stage) const {
    auto& to = stages.stage[stage];
    const ItemRow* const items =
        args.items + kv_head * args.per_head + static_cast<std::int64_t>(tile) * kTileRows;
    constexpr int kPieces = kTileRows * static_cast<int>(sizeof(ItemRow) / 16);
    if (threadIdx.x < kPieces) {
      ptx::copy_async_16(reinterpret_cast<uint4*>(to.item) + threadIdx.x,
                         reinterpret_cast<const uint4*>(items) + threadIdx.x, true);
    }
    const std::int64_t d = args.rows.head_dim;
    const auto ask = [&](auto& rows, const void* array, bool of_items) {
      const T* const from = static_cast<const T*>(array);
      ask_for_rows<T, kThreads>(rows, args.rows.pieces(), from, [&](int r) {
        const std::uint32_t query = __ldg(&items[r].query);
        if (query == kNoRow) return static_cast<const T*>(nullptr);
        return from + (of_items ? __ldg(&items[r].item) : query) * d;
      });
    };
    ask(to.query, args.query.data, false);
    ask(to.by_output, args.gradients.output_gradient, args.gradients.of_items);
    ptx::commit_copies();
  }

  /// A tile of rows; this warp's first key is `mine`.
  __device__ void add(typename Stages<kHeadDim>::Rows64& rows, const Tile& tile, int mine) {
    const bool inside = mine >= tile.all.begin && tile.all.end - mine >= 16;
    const int own = mine + static_cast<int>(threadIdx.x % 32) / 4;
#pragma unroll 1
    for (int r = 0; r < kTileRows; r += kAtOnce) {
      float logits[kAtOnce / 2];
      float by_weights[kAtOnce / 2];
      multiply_rows<T>(logits, key, rows.query, r);
      multiply_rows<T>(by_weights, value, rows.by_output, r);
      inside ? gradients.template weigh<false>(logits, by_weights, rows.item + r, own)
             : gradients.template weigh<true>(logits, by_weights, rows.item + r, own);
      std::uint32_t weights[kAtOnce / 16][4];
      std::uint32_t by_logits[kAtOnce / 16][4];
      pack_weights<T>(weights, logits);
      pack_weights<T>(by_logits, by_weights);
      add_products<T>(gradients.by_value, weights, rows.by_output, r);
      add_products<T>(gradients.by_key, by_logits, rows.query, r);
    }
  }

  __device__ void run(const KeyPiece& piece) {
    const int warp_first = static_cast<int>(threadIdx.x) / 32 * 16;
    gradients.clear();
    std::int32_t next = wanted_from(piece.begin, piece.end);
    if (next < piece.end) {
      take_keys();
      ask_for_tile(next, 0);
    }
#pragma unroll 1
    for (int stage = 0; next < piece.end; stage ^= 1) {
      const Tile tile = args.tile(kv_head, next);
      next = wanted_from(next + 1, piece.end);
      ptx::wait_for_copies<0>();
      __syncthreads();  // the tile is there, and the one before has been read
      if (next < piece.end) ask_for_tile(next, stage ^ 1);
      const int mine = first + warp_first;
      if (meet(tile.any, mine, mine + 16)) add(stages.stage[stage], tile, mine);
    }
    gradients.finish(piece, kv_head, first, warp_first + static_cast<int>(threadIdx.x % 32) / 4);
  }
};

#endif

template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    backward_warp_keys(__grid_constant__ const LaidRows args,
                       __grid_constant__ const KeyPieces pieces) {
#if !defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) char memory[];
  auto& stages = *reinterpret_cast<Stages<kHeadDim>*>(memory);
  const auto p = static_cast<std::int32_t>(blockIdx.x);
  if (p >= *pieces.count) return;
  const KeyPiece piece = pieces.piece[p];
  WarpKeys<T, kHeadDim>(args, pieces, stages, piece).run(piece);
#else
  __trap();  // where Hopper's instructions are there, backward_keys_sm90.cu uses them
#endif
}

}  // namespace

void key_gradients_sm80(const LaidRows& args, const KeyPieces& pieces, Stream stream) {
  with_row_type<kMaxBackwardHeadDim>(args, [&](auto type, auto head_dim) {
    launch_warp_tiles<sizeof(Stages<head_dim>)>(backward_warp_keys<decltype(type), head_dim>,
                                                pieces.key_tiles + kMaxPieceSums, kThreads, stream,
                                                args, pieces);
  });
}

}  // namespace multistep::cuda
