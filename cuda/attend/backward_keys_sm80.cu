#include "attend/backward_keys.cuh"
#include "attend/warp_tiles.cuh"
#include "device/row_type.cuh"

/// Pass 3 without Hopper's instructions: a block takes a piece of the rows that look at its keys,
/// 16 of these a warp, which hold keys and values in registers. The next rows come while some are
/// looked at, and these 16 at a time.
namespace multistep::cuda {
namespace {

/// How a piece is shared out among blocks, and a block's shared memory. Long rows do not fit into
/// registers: each of four blocks has 64 keys, and sums half of the columns. Its keys and values
/// stay in shared memory; those of shorter rows lie where the stages will, until all warps have
/// read them.
template <int kHeadDim>
struct Stages {
  static constexpr bool kApart = kHeadDim > 128;
  static constexpr int kKeys = kApart ? 64 : kOwnedKeys;
  static constexpr int kThreads = 2 * kKeys;  // a warp for 16
  static constexpr int kColumns = kHeadDim < 128 ? kHeadDim : 128;
  static constexpr int kKeyBlocks = kOwnedKeys / kKeys;
  static constexpr int kBlocks = kKeyBlocks * (kHeadDim / kColumns);  // of a piece
  static constexpr int kRows = kApart ? 16 : kTileRows;               // that are brought at a time
  using Owned = SwizzledTile<kKeys, kHeadDim>;
  struct SomeRows {
    SwizzledTile<kRows, kHeadDim> query;
    SwizzledTile<kRows, kHeadDim> by_output;
    ItemRow item[kRows];
  };
  static_assert(kApart || sizeof(Owned) <= sizeof(SomeRows), "keys take the place of rows");
  alignas(1024) char own_keys[kApart ? 2 * sizeof(Owned) : 1024];
  SomeRows stage[2];

  /// Keys, values.
  __device__ Owned& owned(int i) {
    return kApart ? reinterpret_cast<Owned(&)[2]>(own_keys)[i] : reinterpret_cast<Owned&>(stage[i]);
  }
};

template <class T, int kHeadDim>
struct WarpKeys {
  using Room = Stages<kHeadDim>;
  static constexpr int kThreads = Room::kThreads;
  static constexpr int kAtOnce = 16;  // rows, as registers allow

  const LaidRows& args;
  Room& stages;
  const KeyPiece piece;
  int kv_head;
  std::int32_t first_of_piece;  // key
  std::int32_t first;           // of the block
  KeyGradients<T, Room::kColumns> gradients;
  LeftRows<kHeadDim> key;
  LeftRows<kHeadDim> value;

  /// `block`: which of the piece's.
  __device__ WarpKeys(const LaidRows& rows, const KeyPieces& pieces, Room& room,
                      const KeyPiece& mine, int block)
      : args(rows),
        stages(room),
        piece(mine),
        kv_head(mine.key_tile / pieces.tiles_per_head),
        first_of_piece(mine.key_tile % pieces.tiles_per_head * kOwnedKeys),
        first(first_of_piece + block % Room::kKeyBlocks * Room::kKeys),
        gradients(rows, pieces, block / Room::kKeyBlocks * Room::kColumns) {}

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

  /// The first tile of rows from `begin` on that looks at any of the block's keys; the piece's end
  /// if none does. Every warp finds it for itself.
  __device__ std::int32_t wanted_from(std::int32_t begin) const {
    for (; begin < piece.end; begin += 32) {
      const auto mine = begin + static_cast<std::int32_t>(threadIdx.x % 32);
      const bool wanted =
          mine < piece.end && meet(args.tile(kv_head, mine).any, first, first + Room::kKeys);
      const unsigned found = __ballot_sync(kFullWarp, wanted);
      if (found) return begin + __ffs(static_cast<int>(found)) - 1;
    }
    return piece.end;
  }

  /// Rows from `part` on of a tile.
  __device__ void ask_for_some(std::int32_t tile, int part, int stage) const {
    auto& to = stages.stage[stage];
    const ItemRow* const items =
        args.items + kv_head * args.per_head + static_cast<std::int64_t>(tile) * kTileRows + part;
    constexpr int kPieces = Room::kRows * static_cast<int>(sizeof(ItemRow) / 16);
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

  /// Rows that have come, of a tile; this warp's first key is `mine`.
  __device__ void add(typename Room::SomeRows& rows, const Tile& tile, int mine) {
    const bool inside = mine >= tile.all.begin && tile.all.end - mine >= 16;
    const int own = mine + static_cast<int>(threadIdx.x % 32) / 4;
    const int column = gradients.first_column;
#pragma unroll 1
    for (int r = 0; r < Room::kRows; r += kAtOnce) {
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
      add_products<T>(gradients.by_value, weights, rows.by_output, r, column);
      add_products<T>(gradients.by_key, by_logits, rows.query, r, column);
    }
  }

  __device__ void run() {
    const int mine = first + static_cast<int>(threadIdx.x) / 32 * 16;
    gradients.clear();
    std::int32_t tile = wanted_from(piece.begin);
    if (tile < piece.end) {
      take_keys();
      ask_for_some(tile, 0, 0);
    }
    int part = 0;
#pragma unroll 1
    for (int stage = 0; tile < piece.end; stage ^= 1) {
      const Tile here = args.tile(kv_head, tile);
      part += Room::kRows;
      if (part == kTileRows) {
        part = 0;
        tile = wanted_from(tile + 1);
      }
      ptx::wait_for_copies<0>();
      __syncthreads();  // the rows are there, and those before have been read
      if (tile < piece.end) ask_for_some(tile, part, stage ^ 1);
      if (meet(here.any, mine, mine + 16)) add(stages.stage[stage], here, mine);
    }
    const int row = mine - first_of_piece + static_cast<int>(threadIdx.x % 32) / 4;
    gradients.finish(piece, kv_head, first_of_piece, row);
  }
};

/// blockIdx.x: a piece, for each of its blocks.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(Stages<kHeadDim>::kThreads, 1)
    backward_warp_keys(__grid_constant__ const LaidRows args,
                       __grid_constant__ const KeyPieces pieces) {
  if constexpr (warps_go_backward<kHeadDim>()) {
    extern __shared__ __align__(1024) char memory[];
    auto& stages = *reinterpret_cast<Stages<kHeadDim>*>(memory);
    constexpr unsigned kBlocks = Stages<kHeadDim>::kBlocks;
    const auto p = static_cast<std::int32_t>(blockIdx.x / kBlocks);
    if (p >= *pieces.count) return;
    WarpKeys<T, kHeadDim>(args, pieces, stages, pieces.piece[p],
                          static_cast<int>(blockIdx.x % kBlocks))
        .run();
  } else {
    __trap();  // backward_keys_sm90.cu takes it
  }
}

}  // namespace

void key_gradients_sm80(const LaidRows& args, const KeyPieces& pieces, Stream stream) {
  with_row_type(args, [&](auto type, auto head_dim) {
    using Room = Stages<head_dim>;
    const std::int64_t most = std::int64_t{pieces.key_tiles} + kMaxPieceSums;
    launch_warp_tiles<sizeof(Room)>(backward_warp_keys<decltype(type), head_dim>,
                                    most * Room::kBlocks, Room::kThreads, stream, args, pieces);
  });
}

}  // namespace multistep::cuda
