#include "attend/attend_tiles.cuh"

/// Dense attention of few queries by tiles. Their rows do not occupy the device: the keys of each
/// are cut into chunks, whose softmaxes are merged afterwards (merge/merge.cu).
namespace multistep::cuda {

/// The queries of one KV head, once for every chunk. A row's own position says how long its chunks
/// are: its sums depend neither on the other rows nor on the cache.
struct ChunkTiles : WindowRows<false> {
  int chunks;             // that a row may have
  float* outputs;         // [chunks, batch, heads, count, head_dim]
  float* lses;            // [chunks, batch, heads, count]
  std::int64_t of_chunk;  // rows of one KV head, in whole tasks
  std::int64_t per_head;  // and of all chunks

  ChunkTiles(const Combine& combine, int most, float* chunk_outputs, float* chunk_lses)
      : WindowRows(combine), chunks(most), outputs(chunk_outputs), lses(chunk_lses) {
    constexpr int kTask = 2 * kTileRows;
    of_chunk = (WindowRows::per_head + kTask - 1) / kTask * kTask;
    per_head = of_chunk * chunks;
  }

  static __device__ DeviceSpan chunk_of(std::int32_t position, std::int64_t chunk) {
    const int log2 = dense_chunk_log2(max(position, 0));
    const auto end = [&](std::int64_t i) {
      return static_cast<std::int32_t>(min(i << log2, static_cast<std::int64_t>(INT_MAX)));
    };
    return {end(chunk), end(chunk + 1)};
  }
  static __device__ DeviceSpan both(DeviceSpan a, DeviceSpan b) {
    const DeviceSpan result{max(a.begin, b.begin), min(a.end, b.end)};
    return result.begin < result.end ? result : DeviceSpan{0, 0};
  }

  __device__ TileRow row(int kv_head, std::int64_t i) const {
    const std::int64_t chunk = i / of_chunk;
    TileRow found = WindowRows::row(kv_head, i % of_chunk);
    if (found.index < 0) return {};
    const std::int32_t position = query_row(kv_head, i % of_chunk).position;
    found.keys = both(found.keys, chunk_of(position, chunk));
    if (chunk == 1 && faulty(rows.fault, Fault::dense_chunk_lost)) found.keys = {0, 0};
    found.item += chunk * rows.total();
    return found;
  }
  __device__ Tile tile(int kv_head, std::int64_t tile) const {
    const std::int64_t tiles = of_chunk / kTileRows;
    const std::int64_t chunk = tile / tiles;
    const std::int64_t first = tile % tiles * kTileRows;
    if (chunk >= chunks || first >= WindowRows::per_head) return {{0, 0}, {0, 0}};
    const std::int64_t last = min(first + kTileRows, WindowRows::per_head) - 1;
    const DeviceSpan oldest = chunk_of(query_row(kv_head, first).position, chunk);
    const DeviceSpan newest = chunk_of(query_row(kv_head, last).position, chunk);
    const Tile whole = WindowRows::tile(kv_head, tile % tiles);
    return {both(whole.any, {oldest.begin, newest.end}),
            both(whole.all, {newest.begin, oldest.end})};
  }

  __device__ void prepare(const TileRow&, SlotWeight*) const {}

  template <class T, int kHeadDim>
  struct Epilogue {
    const ChunkTiles& args;
    const TileRow (&rows)[2];
    const SlotWeight (*slots)[kMaxTileSlots];

    __device__ void prefetch() {}
    __device__ void store(const float (&value)[kHeadDim / 2], const float (&lse)[2]) const {
      const int c = threadIdx.x % 4;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (rows[r].index < 0) continue;
        if (c == 0) args.lses[rows[r].item] = lse[r];
        if (rows[r].keys.end <= rows[r].keys.begin) continue;  // nobody reads it
        float* const output = args.outputs + rows[r].item * args.rows.head_dim;
#pragma unroll
        for (int j = 0; j < kHeadDim / 8; ++j) {
          if (j >= args.rows.pieces()) break;
          *reinterpret_cast<float2*>(output + 8 * j + 2 * c) = {value[4 * j + 2 * r],
                                                                value[4 * j + 2 * r + 1]};
        }
      }
    }
  };
};

void dense_chunks(const Combine& combine, int chunks, float* outputs, float* lses, Stream stream) {
  launch_attend_tiles(ChunkTiles(combine, chunks, outputs, lses), stream);
}

}  // namespace multistep::cuda
