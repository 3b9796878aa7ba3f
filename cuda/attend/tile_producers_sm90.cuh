#pragma once

#include "device/pipeline_sm90.cuh"
#include "group/tile_rows.cuh"

/// How a block of the tile kernels brings keys, values and rows of queries into shared memory: its
/// first warpgroup, for the two others.
namespace multistep::cuda {

struct TileBlock {
  static constexpr int kWarpgroup = 128;
  static constexpr int kThreads = 3 * kWarpgroup;
  static constexpr int kConsumerWarps = 8;
  static constexpr int kGatherWarps = 3;
  static constexpr int kStages = 2;  // of keys, of values
};

/// A block's shared memory. Long rows leave room for fewer of them.
template <int kHeadDim>
struct TileStages {
  static constexpr int kStages = TileBlock::kStages;
  static constexpr int kQueryStages = kHeadDim <= 128 ? 2 : 1;
  static constexpr int kKeys = kHeadDim <= 128 ? kTileKeys : kTileKeys / 2;
  using KeyTile = SwizzledTile<kKeys, kHeadDim>;
  struct Queries {
    SwizzledTile<kTileRows, kHeadDim> tile[2];       // one for each warpgroup
    SlotWeight slots[2 * kTileRows][kMaxTileSlots];  // where they are windows' rows
  };
  Queries query[kQueryStages];
  KeyTile key[kStages];
  KeyTile value[kStages];
  RingBarriers<kQueryStages> query_barriers;
  RingBarriers<kStages> key_barriers;
  RingBarriers<kStages> value_barriers;
  ptx::Barrier value_landed;  // of a tile whose padding is to be cleared before it is full

  __device__ Ring<Queries, kQueryStages> queries() { return {query, query_barriers}; }
  __device__ Ring<KeyTile, kStages> keys() { return {key, key_barriers}; }
  __device__ Ring<KeyTile, kStages> values() { return {value, value_barriers}; }

  __device__ void init() {
    query_barriers.init(32 * TileBlock::kGatherWarps, TileBlock::kConsumerWarps);
    key_barriers.init(1, TileBlock::kConsumerWarps);
    value_barriers.init(1, TileBlock::kConsumerWarps);
    value_landed.init(1);
  }
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Where tiles of keys or values come from, and go to.
template <class KeyTile, int kPlaces>
struct KeySource {
  const CUtensorMap* map;
  Ring<KeyTile, kPlaces> ring;
};

/// The first warp: keys and values, tile by tile of those that some row looks at. Where there may
/// be others between them, the number of each comes with `other`. What stands before a sequence's
/// first key or, where the device alone knows it, behind its last may be NaN, and 0 * NaN is NaN:
/// those rows are cleared of what is summed over the keys, `summed`, which then lands first.
template <class TileRows, int kKeys, int kHeadDim, int kPlaces, int kSummedPlaces>
__device__ void load_keys(const TileRows& args,
                          const KeySource<SwizzledTile<kKeys, kHeadDim>, kPlaces>& other,
                          const KeySource<SwizzledTile<kKeys, kHeadDim>, kSummedPlaces>& summed,
                          ptx::Barrier& landed) {
  using KeyTile = SwizzledTile<kKeys, kHeadDim>;
  const bool leader = threadIdx.x == 0;
  unsigned item = 0;     // key tiles so far
  unsigned cleared = 0;  // of them with padding
  for (std::int64_t i = blockIdx.x; i < task_count(args); i += gridDim.x) {
    const TileTask<kKeys> task(args, i);
    const int batch = task.kv_head / args.rows.kv_heads;
    HeadOf head{task.kv_head - batch * args.rows.kv_heads, batch};
    if (faulty(args.rows.fault, Fault::wrong_kv_head)) head = {0, 0};
    const std::int64_t start = args.rows.padding(batch) - args.rows.key_offset;
    const std::int64_t past = args.rows.past_keys(batch);
    const KeyWalk<TileRows, kKeys> walk(args, task);
    for (int j = task.keys.begin; j < task.keys.end; j = walk.after(j), ++item) {
      const int first_key = j * kKeys;
      KeyTile& tile = other.ring.empty(item);
      if (leader) {
        if (TileRows::kGaps) other.ring.tell(item, j);
        tile.load(other.map, other.ring.expect(item, KeyTile::kBytes), first_key, head);
      }
      KeyTile& sums = summed.ring.empty(item);
      const std::int64_t padding = min(start - first_key, std::int64_t{kKeys});
      const std::int64_t held = max(past - first_key, std::int64_t{0});
      if (padding <= 0 && held >= kKeys) {
        if (leader) {
          sums.load(summed.map, summed.ring.expect(item, KeyTile::kBytes), first_key, head);
        }
        continue;
      }
      if (leader) {
        landed.arrive_and_expect(KeyTile::kBytes);
        sums.load(summed.map, landed, first_key, head);
      }
      landed.wait(cleared++ % 2);
      sums.clear_rows(0, static_cast<int>(padding));
      sums.clear_rows(static_cast<int>(min(held, std::int64_t{kKeys})), kKeys);
      ptx::fence_async_proxy();
      __syncwarp();
      if (leader) summed.ring.arrive(item);
    }
  }
}

/// The key tile that came as item i, which is full; without gaps it is tile `next`.
template <bool kGaps, class Tile, int kPlaces>
__device__ int key_tile(const Ring<Tile, kPlaces>& ring, unsigned i, int next) {
  return kGaps ? uniform(ring.number(i)) : next;
}

/// The rows of a task that one of the gathering warps copies.
struct GatherShare {
  static constexpr int kRows = 2 * kTileRows / TileBlock::kGatherWarps + 1;
  static_assert(kRows <= 64, "a lane looks up two");

  int first = (static_cast<int>(threadIdx.x) / 32 - 1) * kRows;
  std::int64_t index[2];  // of rows first + lane and first + 32 + lane; -1: zeros
  std::int64_t query[2];  // where their queries are; -1: zeros

  __device__ bool has(int i) const { return i < kRows && first + i < 2 * kTileRows; }

  /// Calls visit(row, r) for every row r of the task that there is, from one lane.
  template <class TileRows, class Task, class Visit>
  __device__ void look_up(const TileRows& args, const Task& task, Visit&& visit) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int mine = half * 32 + static_cast<int>(threadIdx.x) % 32;
      const int r = first + mine;
      const TileRow row = has(mine) ? args.row(task.kv_head, task.tile * kTileRows + r) : TileRow{};
      index[half] = row.index;
      query[half] = row.index < 0 ? -1 : row.query;
      if (row.index >= 0) visit(row, r);
    }
  }

  /// Asks for the rows at `places` of an array, which are `step` values apart and have `pieces` of
  /// 16 bytes, each by a lane; what a tile has beside them is zeros. Whole warp.
  template <class T, int kHeadDim>
  __device__ void copy(SwizzledTile<kTileRows, kHeadDim> (&tiles)[2], const T* array,
                       const std::int64_t (&places)[2], int step, int pieces) const {
    constexpr int kPieces = kHeadDim / 8;
    constexpr int kRowsAtOnce = 32 / kPieces;
    const int lane = threadIdx.x % 32;
#pragma unroll 4
    for (int i = 0; i < kRows; i += kRowsAtOnce) {
      const int mine = i + lane / kPieces;
      const std::int64_t low = __shfl_sync(kFullWarp, places[0], mine % 32);
      const std::int64_t high = __shfl_sync(kFullWarp, places[1], mine % 32);
      const std::int64_t row = mine < 32 ? low : high;
      const int r = first + mine;
      if (!has(mine)) continue;
      const int piece = lane % kPieces;
      const bool here = row >= 0 && piece < pieces;
      ptx::copy_async_16(tiles[r / kTileRows].at(r % kTileRows, piece),
                         array + (here ? row * step + piece * 8 : 0), here);
    }
  }
};

/// The other warps: the queries of the next task, while the last one's are attended with.
template <class T, class TileRows, int kHeadDim>
__device__ void gather_queries(const TileRows& args, TileStages<kHeadDim>& stages) {
  unsigned item = 0;
  for (std::int64_t i = blockIdx.x; i < task_count(args); i += gridDim.x) {
    const TileTask<> task(args, i);
    if (task.none()) continue;
    auto& queries = stages.queries().empty(item);
    GatherShare share;
    share.look_up(args, task,
                  [&](const TileRow& row, int r) { args.prepare(row, queries.slots[r]); });
    share.copy(queries.tile, static_cast<const T*>(args.query.data), share.query, 1,
               args.rows.pieces());
    ptx::commit_copies();
    ptx::wait_for_copies<0>();
    ptx::fence_async_proxy();
    stages.queries().arrive(item++);
  }
}

#endif  // Hopper

}  // namespace multistep::cuda
