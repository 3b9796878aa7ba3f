#include "attend/backward_keys.cuh"
#include "attend/tile_launch_sm90.cuh"

/// Pass 3 on Hopper: of a block's 128 keys each of two warpgroups has 64.
namespace multistep::cuda {
namespace {

constexpr int kGatherWarps = 4;

/// A block's shared memory.
template <int kHeadDim>
struct OwnerStages {
  static constexpr int kRowStages = kGatherWarps;  // a warp brings every fourth tile
  using Tile64 = SwizzledTile<64, kHeadDim>;
  static_assert(kTileRows == 64 && kOwnedKeys == 128);
  struct Keys {
    Tile64 key[2];  // one for each warpgroup
    Tile64 value[2];
  };
  struct RowTile {
    Tile64 query;
    Tile64 by_output;
    ItemRow item[kTileRows];
    Tile tile;
    bool last;  // no tile, but the end of a piece
  };
  Keys owned;
  RowTile row_tile[kRowStages];
  RingBarriers<1> key_barriers;
  RingBarriers<kRowStages> row_barriers;

  __device__ Ring<Keys, 1> keys() { return {reinterpret_cast<Keys(&)[1]>(owned), key_barriers}; }
  __device__ Ring<RowTile, kRowStages> rows() { return {row_tile, row_barriers}; }

  __device__ void init() {
    key_barriers.init(1, TileBlock::kConsumerWarps);
    row_barriers.init(32, TileBlock::kConsumerWarps);
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// A gathering warp: every fourth tile of rows that a piece's keys are looked at by.
template <class T, int kHeadDim>
struct RowGatherer {
  using RowTile = typename OwnerStages<kHeadDim>::RowTile;
  const LaidRows& args;
  OwnerStages<kHeadDim>& stages;
  unsigned item = 0;  // tiles and ends of pieces so far, everybody's
  unsigned asked = 0;
  bool pending = false;  // item `asked` of this warp is on its way

  __device__ bool mine() const { return item % kGatherWarps == threadIdx.x / 32; }

  __device__ void finish() {
    if (!pending) return;
    ptx::wait_for_copies<0>();
    ptx::fence_async_proxy();
    stages.rows().arrive(asked);
    pending = false;
  }

  /// Asks for 64 rows of an array; a lane knows the places of two, kNoRow: zeros.
  template <class Tile64>
  __device__ void copy(Tile64& tile, const void* array, const std::uint32_t (&places)[2]) const {
    constexpr int kPieces = kHeadDim / 8;  // of a row of the tile
    constexpr int kRowsAtOnce = 32 / kPieces;
    const int lane = threadIdx.x % 32;
    const int head_dim = args.rows.head_dim;
    const bool has = lane % kPieces < args.rows.pieces();  // else zeros
    const T* const from = static_cast<const T*>(array) + (has ? lane % kPieces * 8 : 0);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll 8
      for (int i = 0; i < 32; i += kRowsAtOnce) {
        const int r = i + lane / kPieces;
        const std::uint32_t place = __shfl_sync(kFullWarp, places[half], r);
        const bool here = place != kNoRow;
        ptx::copy_async_16(tile.at(32 * half + r, lane % kPieces),
                           from + (here ? static_cast<std::int64_t>(place) * head_dim : 0),
                           here && has);
      }
    }
  }

  __device__ void bring(int kv_head, std::int32_t tile) {
    const int lane = threadIdx.x % 32;
    const ItemRow* const items =
        args.items + kv_head * args.per_head + static_cast<std::int64_t>(tile) * kTileRows;
    std::uint32_t query[2];
    std::uint32_t by_output[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const ItemRow& item = items[32 * half + lane];
      query[half] = item.query;
      by_output[half] = args.gradients.of_items && query[half] != kNoRow ? item.item : query[half];
    }
    const Tile ranges = args.tile(kv_head, tile);
    finish();  // the rows above were looked up meanwhile
    RowTile& to = stages.rows().empty(item);
    const auto* const pieces = reinterpret_cast<const uint4*>(items);
#pragma unroll
    for (int i = 0; i < kTileRows * static_cast<int>(sizeof(ItemRow) / 16); i += 32) {
      ptx::copy_async_16(reinterpret_cast<uint4*>(to.item) + i + lane, pieces + i + lane, true);
    }
    if (lane == 0) {
      to.tile = ranges;
      to.last = false;
    }
    copy(to.query, args.query.data, query);
    copy(to.by_output, args.gradients.output_gradient, by_output);
    ptx::commit_copies();
    asked = item;
    pending = true;
  }

  __device__ void end_piece() {
    finish();
    RowTile& to = stages.rows().empty(item);
    if (threadIdx.x % 32 == 0) to.last = true;
    __syncwarp();
    stages.rows().arrive(item);
  }

  __device__ void run(const KeyPieces& pieces, const CUtensorMap* keys, const CUtensorMap* values) {
    unsigned number = 0;
    const int lane = threadIdx.x % 32;
    const std::int32_t count = *pieces.count;
    for (std::int32_t p = blockIdx.x; p < count; p += gridDim.x, ++number) {
      const KeyPiece piece = pieces.piece[p];
      const int kv_head = piece.key_tile / pieces.tiles_per_head;
      const std::int32_t first = piece.key_tile % pieces.tiles_per_head * kOwnedKeys;
      if (threadIdx.x < 32) {
        auto& owned = stages.keys().empty(number);
        if (lane == 0) {
          HeadOf head{kv_head % args.rows.kv_heads, kv_head / args.rows.kv_heads};
          if (faulty(args.rows.fault, Fault::wrong_kv_head)) head = {0, 0};
          using Tile64 = typename OwnerStages<kHeadDim>::Tile64;
          ptx::Barrier& barrier = stages.keys().expect(number, 4 * Tile64::kBytes);
          for (int half = 0; half < 2; ++half) {
            owned.key[half].load(keys, barrier, first + 64 * half, head);
            owned.value[half].load(values, barrier, first + 64 * half, head);
          }
        }
        __syncwarp();
      }
      for (std::int32_t begin = piece.begin; begin < piece.end; begin += 32) {
        const std::int32_t mine_to_look = begin + lane;
        const bool wanted = mine_to_look < piece.end &&
                            meet(args.tile(kv_head, mine_to_look).any, first, first + kOwnedKeys);
        for (unsigned todo = __ballot_sync(kFullWarp, wanted); todo; todo &= todo - 1, ++item) {
          if (mine()) bring(kv_head, begin + __ffs(static_cast<int>(todo)) - 1);
        }
      }
      if (mine()) end_piece();
      ++item;
      finish();  // the next piece's keys wait for the end of this one
    }
  }
};

/// A consumer warpgroup: half of the keys.
template <class T, int kHeadDim>
struct KeyOwner {
  using Stages = OwnerStages<kHeadDim>;
  using RowTile = typename Stages::RowTile;
  static constexpr int kProducts = kTileRows / 2;  // of a thread

  const LaidRows& args;
  Stages& stages;
  const KeyPieces& pieces;
  KeyGradients<T, kHeadDim> gradients{args, pieces};

  __device__ __forceinline__ void add(const typename Stages::Keys& owned, int half,
                                      const RowTile& rows, const Tile& tile, int first_key,
                                      int key) {
    float logits[kProducts] = {};
    float by_weights[kProducts] = {};
    std::uint32_t weights[kTileRows / 16][4];
    std::uint32_t by_logits[kTileRows / 16][4];
    begin_products(logits, by_weights);
    multiply_keys<T>(logits, owned.key[half], rows.query);
    multiply_keys<T>(by_weights, owned.value[half], rows.by_output);
    finish_products<0>(logits, by_weights);
    const bool inside = first_key >= tile.all.begin && tile.all.end - first_key >= 64;
    inside ? gradients.template weigh<false>(logits, by_weights, rows.item, key)
           : gradients.template weigh<true>(logits, by_weights, rows.item, key);
    pack_weights<T>(weights, logits);
    pack_weights<T>(by_logits, by_weights);
    begin_products(weights, by_logits, gradients.by_value, gradients.by_key);
    multiply_values<T, kHeadDim>(gradients.by_value, weights, rows.by_output);
    multiply_values<T, kHeadDim>(gradients.by_key, by_logits, rows.query);
    finish_products<0>(weights, by_logits, gradients.by_value, gradients.by_key);
  }

  __device__ void run() {
    const int half = uniform(threadIdx.x / TileBlock::kWarpgroup) - 1;
    // This thread's keys of a tile are this one and the one 8 further.
    const int row =
        64 * half + threadIdx.x % TileBlock::kWarpgroup / 32 * 16 + threadIdx.x % 32 / 4;
    unsigned number = 0;
    unsigned item = 0;
    const std::int32_t count = *pieces.count;
    for (std::int32_t p = blockIdx.x; p < count; p += gridDim.x, ++number) {
      const KeyPiece piece = pieces.piece[p];
      const int kv_head = piece.key_tile / pieces.tiles_per_head;
      const std::int32_t first = piece.key_tile % pieces.tiles_per_head * kOwnedKeys;
      const std::int32_t mine = first + 64 * half;
      gradients.clear();
      const auto& owned = stages.keys().full(number);
      for (;; ++item) {
        const RowTile& rows = stages.rows().full(item);
        if (uniform(rows.last)) break;
        const Tile tile{uniform(rows.tile.any), uniform(rows.tile.all)};
        if (meet(tile.any, mine, mine + 64)) add(owned, half, rows, tile, mine, first + row);
        stages.rows().release(item);
      }
      stages.rows().release(item++);
      stages.keys().release(number);
      gradients.finish(piece, kv_head, first, row);
    }
  }
};

#endif  // Hopper

template <class T, int kHeadDim>
__global__ void __launch_bounds__(TileBlock::kThreads, 1)
    backward_keys(__grid_constant__ const LaidRows args, __grid_constant__ const KeyPieces pieces,
                  __grid_constant__ const CUtensorMap keys,
                  __grid_constant__ const CUtensorMap values) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  auto& stages = start_block<OwnerStages<kHeadDim>>();
  if (threadIdx.x < TileBlock::kWarpgroup) {
    ptx::shrink_registers<40>();
    RowGatherer<T, kHeadDim>{args, stages}.run(pieces, &keys, &values);
  } else {
    ptx::grow_registers<232>();
    KeyOwner<T, kHeadDim>{args, stages, pieces}.run();
  }
#else
  __trap();  // launched where it was compiled alone: Device::hopper
#endif
}

}  // namespace

void key_gradients_sm90(const LaidRows& args, const KeyPieces& pieces, Stream stream) {
  const TileMaps maps(args, 64);
  with_row_type<kMaxHopperBackwardHeadDim>(args, [&](auto type, auto head_dim) {
    launch_tile_block<OwnerStages<head_dim>>(backward_keys<decltype(type), head_dim>,
                                             pieces.key_tiles + kMaxPieceSums, stream, args, pieces,
                                             maps.keys, maps.values);
  });
}

}  // namespace multistep::cuda
