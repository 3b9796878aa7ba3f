#include "attend/backward_queries.cuh"
#include "attend/warp_tiles.cuh"
#include "device/row_type.cuh"

/// Pass 2 without Hopper's instructions: a block takes one tile of 64 rows, 16 a warp. Keys and
/// values come 64 at a time, 16 where head_dim is above 128, the next tile while one is looked at.
namespace multistep::cuda {
namespace {

constexpr int kThreads = 128;

/// A block's shared memory. Queries and dO lie where the last stage will, until all warps have read
/// them; long rows, which do not fit into registers, in a place of their own.
template <int kHeadDim>
struct Stages {
  static constexpr bool kApart = kHeadDim > 128;
  static constexpr int kKeys = kApart ? 16 : 64;  // of a tile
  struct Stage {
    SwizzledTile<kKeys, kHeadDim> key;
    SwizzledTile<kKeys, kHeadDim> value;
  };
  struct Rows64 {
    SwizzledTile<kTileRows, kHeadDim> query;
    SwizzledTile<kTileRows, kHeadDim> by_output;
  };
  static_assert(kApart || sizeof(Rows64) == sizeof(Stage), "rows take the place of keys");
  alignas(1024) char own_rows[kApart ? sizeof(Rows64) : 1024];
  Stage stage[2];
  ItemRow item[kTileRows];

  __device__ Rows64& rows() {
    return kApart ? reinterpret_cast<Rows64&>(own_rows) : reinterpret_cast<Rows64&>(stage[1]);
  }
};

template <class T, int kHeadDim>
struct WarpQueries {
  static constexpr int kKeys = Stages<kHeadDim>::kKeys;
  static constexpr int kAtOnce = kKeys < 32 ? kKeys : 32;  // keys, as registers allow

  const LaidRows& args;
  Stages<kHeadDim>& stages;
  int kv_head;
  DeviceSpan held;  // keys
  QueryGradients<T, kHeadDim> gradients;
  LeftRows<kHeadDim> query;
  LeftRows<kHeadDim> by_output;

  __device__ WarpQueries(const LaidRows& rows, Stages<kHeadDim>& room, int head)
      : args(rows),
        stages(room),
        kv_head(head),
        held(held_keys(rows.rows, head)),
        gradients(rows) {}

  __device__ void ask_for_rows_of(typename Stages<kHeadDim>::Rows64& to) const {
    const std::int64_t d = args.rows.head_dim;
    const auto ask = [&](auto& tile, const void* array, bool of_items) {
      const T* const from = static_cast<const T*>(array);
      ask_for_rows<T, kThreads>(tile, args.rows.pieces(), from, [&](int r) {
        const ItemRow& row = stages.item[r];
        return row.query == kNoRow ? nullptr : from + (of_items ? row.item : row.query) * d;
      });
    };
    ask(to.query, args.query.data, false);
    ask(to.by_output, args.gradients.output_gradient, args.gradients.of_items);
  }

  __device__ void ask_for_keys(int j, int stage) const {
    cuda::ask_for_keys<T, kThreads>(stages.stage[stage], args, kv_head, held, j * kKeys);
  }

  /// As the forward's.
  __device__ int tile_after(int j) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const DeviceSpan spans[2] = {stages.item[lane].keys, stages.item[lane + 32].keys};
    return next_wanted<kKeys>(j, spans, args.rows.fault);
  }

  /// The keys of key tiles `range`, at least one. Whole block.
  __device__ void attend(const Tile& tile, KeyTiles<kKeys> range, const ItemRow (&rows)[2]) {
    auto& own = stages.rows();
    ask_for_rows_of(own);
    ask_for_keys(range.begin, 0);
    ptx::wait_for_copies<0>();
    __syncthreads();
    const int first_row = static_cast<int>(threadIdx.x) / 32 * 16;
    query.take(own.query, first_row);
    by_output.take(own.by_output, first_row);
    __syncthreads();  // keys and values may take their place
    int stage = 0;
    int next;
#pragma unroll 1
    for (int j = range.begin; j < range.end; j = next, stage ^= 1) {
      if (j > range.begin) {
        ptx::wait_for_copies<0>();
        __syncthreads();  // the tile is there, and the one before has been read
      }
      next = tile_after(j);
      if (next < range.end) ask_for_keys(next, stage ^ 1);
      auto& here = stages.stage[stage];
#pragma unroll 1
      for (int k = 0; k < kKeys; k += kAtOnce) {
        float logits[kAtOnce / 2];
        float by_weights[kAtOnce / 2];
        multiply_rows<T>(logits, query, here.key, k);
        multiply_rows<T>(by_weights, by_output, here.value, k);
        const int key = j * kKeys + k;
        if (key >= tile.all.begin && tile.all.end - key >= kAtOnce) {
          gradients.template weigh<false>(logits, key, rows);
          gradients.template differentiate<false>(logits, by_weights, key, rows);
        } else {
          gradients.template weigh<true>(logits, key, rows);
          gradients.template differentiate<true>(logits, by_weights, key, rows);
        }
        std::uint32_t by_logits[kAtOnce / 16][4];
        pack_weights<T>(by_logits, logits);
        add_products<T>(gradients.sum, by_logits, here.key, k);
      }
    }
  }
};

/// blockIdx.x: a tile of a KV head.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads, 2)
    backward_warp_queries(__grid_constant__ const LaidRows args) {
  if constexpr (warps_go_backward<kHeadDim>()) {
    extern __shared__ __align__(1024) char memory[];
    auto& stages = *reinterpret_cast<Stages<kHeadDim>*>(memory);
    const std::int64_t tiles = args.per_head / kTileRows;
    const auto kv_head = static_cast<int>(blockIdx.x / tiles);
    const std::int64_t number = blockIdx.x % tiles;
    if (threadIdx.x < kTileRows) {
      stages.item[threadIdx.x] =
          args.items[kv_head * args.per_head + number * kTileRows + threadIdx.x];
    }
    const Tile tile = args.tile(kv_head, number);
    const auto range = KeyTiles<Stages<kHeadDim>::kKeys>::of(tile.any);
    __syncthreads();
    const int first_row = static_cast<int>(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4);
    const ItemRow rows[2] = {stages.item[first_row], stages.item[first_row + 8]};
    WarpQueries<T, kHeadDim> mine(args, stages, kv_head);
    mine.gradients.clear();
    if (!range.empty()) mine.attend(tile, range, rows);
    mine.gradients.finish(rows, kv_head);
  } else {
    __trap();  // backward_queries_sm90.cu takes it
  }
}

}  // namespace

void query_gradients_sm80(const LaidRows& args, Stream stream) {
  const std::int64_t heads = static_cast<std::int64_t>(args.rows.batch) * args.rows.kv_heads;
  with_row_type(args, [&](auto type, auto head_dim) {
    launch_warp_tiles<sizeof(Stages<head_dim>)>(backward_warp_queries<decltype(type), head_dim>,
                                                args.per_head / kTileRows * heads, kThreads, stream,
                                                args);
  });
}

}  // namespace multistep::cuda
