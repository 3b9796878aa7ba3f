#include "attend/backward_queries.cuh"
#include "attend/tile_launch_sm90.cuh"

/// Pass 2 on Hopper, as the forward's attend_tiles_sm90.cuh, by tiles of 64 keys.
namespace multistep::cuda {
namespace {

/// A block's shared memory.
template <int kHeadDim>
struct QueryStages {
  static constexpr int kKeys = 64;  // of a tile
  static constexpr int kRowStages = 2;
  static constexpr int kKeyStages = 3;  // read twice, so held longer
  static constexpr int kValueStages = 2;
  using KeyTile = SwizzledTile<kKeys, kHeadDim>;
  struct RowTiles {
    SwizzledTile<kTileRows, kHeadDim> query[2];  // one for each warpgroup
    SwizzledTile<kTileRows, kHeadDim> by_output[2];
    ItemRow item[2 * kTileRows];
  };
  RowTiles row_tiles[kRowStages];
  KeyTile key[kKeyStages];
  KeyTile value[kValueStages];
  RingBarriers<kRowStages> row_barriers;
  RingBarriers<kKeyStages> key_barriers;
  RingBarriers<kValueStages> value_barriers;
  ptx::Barrier key_landed;  // of a tile whose padding is to be cleared before it is full

  __device__ Ring<RowTiles, kRowStages> rows() { return {row_tiles, row_barriers}; }
  __device__ Ring<KeyTile, kKeyStages> keys() { return {key, key_barriers}; }
  __device__ Ring<KeyTile, kValueStages> values() { return {value, value_barriers}; }

  __device__ void init() {
    row_barriers.init(32 * TileBlock::kGatherWarps, TileBlock::kConsumerWarps);
    key_barriers.init(1, TileBlock::kConsumerWarps);
    value_barriers.init(1, TileBlock::kConsumerWarps);
    key_landed.init(1);
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// The gathering warps: items, queries and dO of the next task.
template <class T, int kHeadDim>
__device__ void gather_rows(const LaidRows& args, QueryStages<kHeadDim>& stages) {
  using Stages = QueryStages<kHeadDim>;
  unsigned number = 0;
  for (std::int64_t i = blockIdx.x; i < task_count(args); i += gridDim.x, ++number) {
    const TileTask<Stages::kKeys> task(args, i);
    GatherShare share;
    std::int64_t by_output[2] = {-1, -1};
    share.look_up(args, task, [&](const TileRow& row, int r) {
      by_output[(r - share.first) / 32] = args.gradient_row(row);
    });
    auto& rows = stages.rows().empty(number);
    const std::int64_t first = task.kv_head * args.per_head + task.tile * kTileRows;
    const std::int64_t left = args.per_head - task.tile * kTileRows;  // a tile, or two
    for (int r = threadIdx.x % 32; share.has(r); r += 32) {
      const int at = share.first + r;
      if (at >= left) {
        rows.item[at].query = kNoRow;
        continue;
      }
      const auto* const item = reinterpret_cast<const uint4*>(args.items + first + at);
      auto* const to = reinterpret_cast<uint4*>(&rows.item[at]);
      ptx::copy_async_16(to, item, true);
      ptx::copy_async_16(to + 1, item + 1, true);
    }
    const auto copy = [&](auto& tiles, const void* array, const std::int64_t(&places)[2]) {
      share.copy(tiles, static_cast<const T*>(array), places, args.rows.head_dim,
                 args.rows.pieces());
    };
    copy(rows.query, args.query.data, share.index);
    copy(rows.by_output, args.gradients.output_gradient, by_output);
    ptx::commit_copies();
    ptx::wait_for_copies<0>();
    ptx::fence_async_proxy();
    stages.rows().arrive(number);
  }
}

/// A consumer warpgroup: of each task one of the two tiles.
template <class T, int kHeadDim>
struct QueryConsumer {
  using Stages = QueryStages<kHeadDim>;
  static constexpr int kKeys = Stages::kKeys;
  using KeyRange = KeyTiles<kKeys>;

  const LaidRows& args;
  Stages& stages;
  QueryGradients<T, kHeadDim> gradients{args};
  unsigned item = 0;  // key tiles so far

  /// The forward's walk over key tiles.
  __device__ void skip(int begin, int end) {
    for (int j = begin; j < end; ++j, ++item) {
      stages.keys().full(item);
      stages.values().full(item);
      j = key_tile<LaidRows::kGaps>(stages.values(), item, j);
      if (j >= end) break;
      stages.keys().release(item);
      stages.values().release(item);
    }
  }

  __device__ __forceinline__ void attend(const typename Stages::RowTiles& tiles, int warpgroup,
                                         const Tile& tile, KeyRange range,
                                         const ItemRow (&rows)[2]) {
    float logits[kKeys / 2] = {};
    float by_weights[kKeys / 2] = {};
    std::uint32_t by_logits[kKeys / 16][4] = {};
    for (int j = range.begin; j < range.end; ++j, ++item) {
      const auto& keys = stages.keys().full(item);
      const auto& values = stages.values().full(item);
      begin_products(logits, by_weights);
      multiply_keys<T>(logits, tiles.query[warpgroup], keys);
      multiply_keys<T>(by_weights, tiles.by_output[warpgroup], values);
      j = key_tile<LaidRows::kGaps>(stages.values(), item, j);
      finish_products<1>(logits, by_logits, gradients.sum);  // dS K of the tile before, too
      if (j > range.begin) stages.keys().release(item - 1);
      const int first = j * kKeys;
      const bool inside = first >= tile.all.begin && tile.all.end - first >= kKeys;
      inside ? gradients.template weigh<false>(logits, first, rows)
             : gradients.template weigh<true>(logits, first, rows);
      finish_products<0>(by_weights);
      stages.values().release(item);
      inside ? gradients.template differentiate<false>(logits, by_weights, first, rows)
             : gradients.template differentiate<true>(logits, by_weights, first, rows);
      pack_weights<T>(by_logits, logits);
      begin_products(by_logits, gradients.sum);
      multiply_values<T, kHeadDim>(gradients.sum, by_logits, keys);
    }
    finish_products<0>(by_logits, gradients.sum);
    stages.keys().release(item - 1);
  }

  __device__ void run() {
    const int warpgroup = uniform(threadIdx.x / TileBlock::kWarpgroup) - 1;
    // This thread's rows of a tile are this one and the one 8 further.
    const int first_row = threadIdx.x % TileBlock::kWarpgroup / 32 * 16 + threadIdx.x % 32 / 4;
    unsigned rows_item = 0;
    for (std::int64_t i = blockIdx.x; i < task_count(args); i += gridDim.x, ++rows_item) {
      const TileTask<kKeys> task(args, i);
      const Tile tile = warpgroup == 0 ? task.tiles[0] : task.tiles[1];
      const KeyRange range = KeyRange::of(tile.any);
      const auto& tiles = stages.rows().full(rows_item);
      const int at = warpgroup * kTileRows + first_row;
      const ItemRow rows[2] = {tiles.item[at], tiles.item[at + 8]};
      gradients.clear();
      if (range.empty()) {
        skip(task.keys.begin, task.keys.end);
      } else {
        skip(task.keys.begin, range.begin);
        attend(tiles, warpgroup, tile, range, rows);
        skip(range.end, task.keys.end);
      }
      stages.rows().release(rows_item);
      gradients.finish(rows, task.kv_head);
    }
  }
};

#endif  // Hopper

template <class T, int kHeadDim>
__global__ void __launch_bounds__(TileBlock::kThreads, 1)
    backward_queries(__grid_constant__ const LaidRows args,
                     __grid_constant__ const CUtensorMap keys,
                     __grid_constant__ const CUtensorMap values) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  auto& stages = start_block<QueryStages<kHeadDim>>();
  if (threadIdx.x < TileBlock::kWarpgroup) {
    ptx::shrink_registers<40>();
    if (threadIdx.x < 32) {
      load_keys(args, KeySource{&values, stages.values()}, KeySource{&keys, stages.keys()},
                stages.key_landed);
    } else {
      gather_rows<T>(args, stages);
    }
  } else {
    ptx::grow_registers<232>();
    QueryConsumer<T, kHeadDim>{args, stages}.run();
  }
#else
  __trap();  // launched where it was compiled alone: Device::hopper
#endif
}

}  // namespace

void query_gradients_sm90(const LaidRows& args, Stream stream) {
  const TileMaps maps(args, 64);
  with_row_type<kMaxHopperBackwardHeadDim>(args, [&](auto type, auto head_dim) {
    launch_tile_block<QueryStages<head_dim>>(backward_queries<decltype(type), head_dim>,
                                             task_count(args), stream, args, maps.keys,
                                             maps.values);
  });
}

}  // namespace multistep::cuda
