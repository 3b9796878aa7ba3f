#pragma once

#include "attend/repair_rows.cuh"
#include "attend/softmax_state.cuh"
#include "attend/tile_launch_sm90.cuh"

/// Attention of tiles of query rows on Hopper, for span-attention and for window and combination. A
/// block takes 128 rows of one KV head at a time, whoever they are: one warpgroup brings their
/// queries (cp.async) and the tiles of 128 keys (64 where head_dim is above 128) that any of them
/// attends to (TMA), leaving out those between that none does; two more take 64 rows each (WGMMA)
/// with the running softmax of FlashAttention-3 (Shah et al., 2024): the product with the values of
/// one tile runs while the next tile's softmax is computed.
///
/// Key tiles start at multiples of their keys and masks take single keys away, so that a row's sums
/// do not depend on who shares its tile.
///
/// `Tiles` is SpanTiles or WindowTiles: rows, what is prepared for them ahead of their use, and in
/// an `Epilogue` what becomes of a thread's two rows once they are attended to.
namespace multistep::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// A consumer warpgroup: of each task one of the two tiles.
template <class T, int kHeadDim, class Tiles>
struct Consumer {
  static constexpr int kKeys = TileStages<kHeadDim>::kKeys;

  const Tiles& args;
  TileStages<kHeadDim>& stages;
  TileScale scale;
  unsigned item = 0;  // key tiles so far
  SoftmaxState<kHeadDim> softmax;

  /// Goes past key tiles [begin, end), or those of them that come: the other warpgroup's rows alone
  /// attend to them. Either tile `end` comes after them, or the last of them does come.
  __device__ void skip(int begin, int end) {
    for (int j = begin; j < end; ++j, ++item) {
      stages.keys().full(item);
      j = key_tile<Tiles::kGaps>(stages.keys(), item, j);
      if (j >= end) break;
      stages.keys().release(item);
      stages.values().full(item);
      stages.values().release(item);
    }
  }

  /// Attends with one tile of queries to those of key tiles `range` that come, the first and the
  /// last among them. (A tile that none of these rows looks at changes no bit of theirs.)
  /// `meanwhile` is called once, while the last product runs.
  template <class Meanwhile>
  __device__ __forceinline__ void attend(const SwizzledTile<kTileRows, kHeadDim>& queries,
                                         const Tile& tile, KeyTiles<kKeys> range,
                                         const TileRow (&rows)[2], Meanwhile&& meanwhile) {
    constexpr int kPartTiles = kPartKeys / kKeys;
    float logits[kKeys / 2] = {};
    std::uint32_t weights[kKeys / 16][4];
    // Parts end at absolute multiples: a row's sums do not depend on where its tile begins.
    EarlierParts<kHeadDim> earlier;
    const auto join_earlier = [&](int begin) {  // to the part from `begin` on
      if (begin > range.begin && !faulty(args.rows.fault, Fault::earlier_parts_lost)) {
        earlier.join_to(softmax, scale.log2);
      }
    };

    const auto& first_keys = stages.keys().full(item);
    begin_products(logits);
    multiply_keys<T>(logits, queries, first_keys);
    finish_products<0>(logits);
    stages.keys().release(item);
    finish_logits(logits, scale, tile, range.begin, rows, args.rows.fault);
    softmax.update(logits, scale.log2, args.rows.fault);
    pack_weights<T>(weights, logits);

    for (int j = range.begin; j + 1 < range.end;) {
      const int part = j / kPartTiles;
      const unsigned last = item++;
      const auto& keys = stages.keys().full(item);
      const auto& values = stages.values().full(last);
      begin_products(logits, weights, softmax.value);
      multiply_keys<T>(logits, queries, keys);
      multiply_values<T, kHeadDim>(softmax.value, weights, values);
      j = key_tile<Tiles::kGaps>(stages.keys(), item, j + 1);
      finish_products<1>(logits);
      stages.keys().release(item);
      finish_logits(logits, scale, tile, j, rows, args.rows.fault);
      if (j / kPartTiles > part) {
        finish_products<0>(softmax.value);
        join_earlier(part * kPartTiles);
        earlier.keep(softmax);
        softmax = {};
      }
      softmax.update(logits, scale.log2, args.rows.fault);
      finish_products<0>(weights, softmax.value);
      stages.values().release(last);
      pack_weights<T>(weights, logits);
      softmax.rescale();
    }

    const auto& last_values = stages.values().full(item);
    begin_products(weights, softmax.value);
    multiply_values<T, kHeadDim>(softmax.value, weights, last_values);
    meanwhile();
    finish_products<0>(softmax.value);
    stages.values().release(item);
    ++item;
    join_earlier((range.end - 1) / kPartTiles * kPartTiles);
  }

  __device__ void run() {
    const int warpgroup = uniform(threadIdx.x / TileBlock::kWarpgroup) - 1;
    // This thread's rows of a tile are this one and the one 8 further.
    const int first_row = threadIdx.x % TileBlock::kWarpgroup / 32 * 16 + threadIdx.x % 32 / 4;
    unsigned queries_item = 0;
    for (std::int64_t i = blockIdx.x; i < task_count(args); i += gridDim.x) {
      const TileTask<kKeys> task(args, i);
      if (task.none()) continue;
      const Tile tile = warpgroup == 0 ? task.tiles[0] : task.tiles[1];
      const auto range = KeyTiles<kKeys>::of(tile.any);
      const std::int64_t row = (task.tile + warpgroup) * kTileRows + first_row;
      const TileRow rows[2] = {args.row(task.kv_head, row), args.row(task.kv_head, row + 8)};
      softmax = {};

      const auto& queries = stages.queries().full(queries_item);
      typename Tiles::template Epilogue<T, kHeadDim> epilogue{
          args, rows, queries.slots + warpgroup * kTileRows + first_row};
      if (range.empty()) {
        epilogue.prefetch();
        skip(task.keys.begin, task.keys.end);
      } else {
        skip(task.keys.begin, range.begin);
        attend(queries.tile[warpgroup], tile, range, rows, [&] { epilogue.prefetch(); });
        skip(range.end, task.keys.end);
      }

      float lse[2];
      softmax.finish(lse, scale.above);
      repair<T, Tiles, kHeadDim>(args, softmax.value, lse, rows, task.kv_head);
      epilogue.store(softmax.value, lse);
      stages.queries().release(queries_item++);
    }
  }
};

#endif  // Hopper

template <class T, int kHeadDim, class Tiles>
__global__ void __launch_bounds__(TileBlock::kThreads, 1)
    attend_tiles(__grid_constant__ const Tiles args, __grid_constant__ const CUtensorMap keys,
                 __grid_constant__ const CUtensorMap values) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  auto& stages = start_block<TileStages<kHeadDim>>();
  if (threadIdx.x < TileBlock::kWarpgroup) {
    ptx::shrink_registers<40>();
    if (threadIdx.x < 32) {
      load_keys(args, KeySource{&keys, stages.keys()}, KeySource{&values, stages.values()},
                stages.value_landed);
    } else {
      gather_queries<T>(args, stages);
    }
  } else {
    ptx::grow_registers<232>();
    Consumer<T, kHeadDim, Tiles>{args, stages, TileScale(args.scale, args.rows.fault)}.run();
  }
#else
  __trap();  // launched where it was compiled alone: Device::hopper
#endif
}

template <class Tiles>
void launch_attend_tiles_sm90(const Tiles& args, Stream stream) {
  with_row_type(args, [&](auto type, auto head_dim) {
    const TileMaps maps(args, TileStages<head_dim>::kKeys);
    launch_tile_block<TileStages<head_dim>>(attend_tiles<decltype(type), head_dim, Tiles>,
                                            task_count(args), stream, args, maps.keys, maps.values);
  });
}

}  // namespace multistep::cuda
