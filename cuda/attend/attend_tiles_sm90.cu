#include <array>

#include "api/check.cuh"
#include "api/stages.cuh"
#include "attend/attend_row.cuh"
#include "device/fragment.cuh"
#include "device/ptx.cuh"
#include "device/tensor_map.cuh"
#include "group/tile_rows.cuh"

/// Attention of tiles of query rows on Hopper, for span-attention and for window and combination. A
/// block takes 128 rows of one KV head at a time, whoever they are: one warpgroup brings their
/// queries (cp.async) and the tiles of 128 keys that any of them attends to (TMA), two more take 64
/// rows each (WGMMA) with the running softmax of FlashAttention-3 (Shah et al., 2024): the product
/// with the values of one tile runs while the next tile's softmax is computed.
///
/// Key tiles start at multiples of 128 and masks take single keys away, so that a row's sums do not
/// depend on who shares its tile.
namespace multistep::cuda {
namespace {

constexpr int kKeys = 128;
constexpr int kStages = 2;
constexpr int kWarpgroup = 128;
constexpr int kThreads = 3 * kWarpgroup;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kGatherWarps = 3;
constexpr int kPartTiles = kPartKeys / kKeys;

template <int kHeadDim>
struct Shared {
  static constexpr int kPanels = kHeadDim / 64;  // of 64 columns: 128 bytes, the swizzle's width
  static constexpr int kRowPanel = kRows * 64;
  static constexpr int kKeyPanel = kKeys * 64;
  std::uint16_t query[2][2][kPanels * kRowPanel];  // [buffer][warpgroup]
  std::uint16_t key[kStages][kPanels * kKeyPanel];
  std::uint16_t value[kStages][kPanels * kKeyPanel];
  float2 slots[2][2 * kRows][kMaxTileSlots];  // gate and lse of a row's spans; gate -1: not in use
  ptx::Barrier query_full[2];
  ptx::Barrier query_empty[2];
  ptx::Barrier key_full[kStages];
  ptx::Barrier key_empty[kStages];
  ptx::Barrier value_full[kStages];
  ptx::Barrier value_empty[kStages];
  ptx::Barrier value_landed;  // of a tile whose padding is to be cleared before it is full
};

/// Which key tiles a block walks through for its 128 rows, and one warpgroup for its 64.
struct Walk {
  int begin;
  int end;
};
__device__ Walk walk_of(DeviceSpan any) {
  if (any.end <= any.begin) return {0, 0};
  return {any.begin / kKeys, (any.end + kKeys - 1) / kKeys};
}
__device__ Walk walk_of(const Tile& a, const Tile& b) {
  const Walk first = walk_of(a.any);
  const Walk second = walk_of(b.any);
  if (first.begin >= first.end) return second;
  if (second.begin >= second.end) return first;
  return {min(first.begin, second.begin), max(first.end, second.end)};
}

/// The same value, known to the compiler to be the same in all lanes: products of a warpgroup must
/// not stand in what it takes for a divergent branch.
__device__ inline int uniform(int value) { return __shfl_sync(kFullWarp, value, 0); }
__device__ inline DeviceSpan uniform(DeviceSpan span) {
  return {uniform(span.begin), uniform(span.end)};
}

template <class RowsOf>
struct Work {  // a block's next 128 rows
  int kv_head;
  std::int64_t tile;  // of 64 rows, the first of two
  Tile tiles[2];
  Walk walk;

  __device__ Work(const TileArgs& args, std::int64_t work) {
    const std::int64_t per_head = (args.per_head + 2 * kRows - 1) / (2 * kRows);
    kv_head = static_cast<int>(work / per_head);
    tile = work % per_head * 2;
    for (int i = 0; i < 2; ++i) {
      const Tile found = RowsOf::tile(args, kv_head, tile + i);
      tiles[i] = {uniform(found.any), uniform(found.all)};
    }
    walk = walk_of(tiles[0], tiles[1]);
  }
};

__device__ std::int64_t works(const TileArgs& args) {
  const std::int64_t per_head = (args.per_head + 2 * kRows - 1) / (2 * kRows);
  return per_head * args.rows.batch * args.rows.kv_heads;
}

/// The producer's first warp: keys and values, tile by tile. What stands before a sequence's first
/// key may be NaN, and 0 * NaN is NaN: those rows of values are cleared.
template <int kHeadDim, class RowsOf>
__device__ void load_keys(const TileArgs& args, Shared<kHeadDim>& shared, const CUtensorMap* keys,
                          const CUtensorMap* values) {
  using S = Shared<kHeadDim>;
  constexpr int kBytes = kKeys * kHeadDim * 2;
  const int lane = threadIdx.x;
  unsigned count = 0;    // key tiles so far
  unsigned cleared = 0;  // of them with padding
  for (std::int64_t work = blockIdx.x; work < works(args); work += gridDim.x) {
    const Work<RowsOf> w(args, work);
    const int map_head = faulty(args.rows.fault, Fault::wrong_kv_head) ? 0 : w.kv_head;
    const std::int64_t start =
        args.rows.first_key(w.kv_head / args.rows.kv_heads) - args.rows.key_offset;
    for (int j = w.walk.begin; j < w.walk.end; ++j, ++count) {
      const int stage = count % kStages;
      const int parity = count / kStages % 2;
      const auto load = [&](ptx::Barrier& empty, ptx::Barrier& full, std::uint16_t* to,
                            const CUtensorMap* map) {
        empty.wait(parity ^ 1);
        if (lane != 0) return;
        full.arrive_and_expect(kBytes);
        for (int panel = 0; panel < S::kPanels; ++panel) {
          ptx::load_box(to + panel * S::kKeyPanel, map, &full, panel * 64, j * kKeys, map_head);
        }
      };
      load(shared.key_empty[stage], shared.key_full[stage], shared.key[stage], keys);
      const std::int64_t padding =
          min(start - static_cast<std::int64_t>(j) * kKeys, static_cast<std::int64_t>(kKeys));
      if (padding <= 0) {
        load(shared.value_empty[stage], shared.value_full[stage], shared.value[stage], values);
        continue;
      }
      load(shared.value_empty[stage], shared.value_landed, shared.value[stage], values);
      shared.value_landed.wait(cleared++ % 2);
      for (int panel = 0; panel < S::kPanels; ++panel) {
        auto* rows = reinterpret_cast<uint4*>(shared.value[stage] + panel * S::kKeyPanel);
        for (int i = lane; i < padding * 8; i += 32) rows[i] = {0, 0, 0, 0};
      }
      ptx::fence_async_proxy();
      __syncwarp();
      if (lane == 0) shared.value_full[stage].arrive();
    }
  }
}

/// The producer's other warps: the queries of the next 128 rows, while the last ones are attended.
template <class T, int kHeadDim, class RowsOf>
__device__ void gather_queries(const TileArgs& args, Shared<kHeadDim>& shared) {
  using S = Shared<kHeadDim>;
  constexpr int kChunks = kHeadDim / 8;                 // of 16 bytes in a row
  constexpr int kRowsAtOnce = 32 / kChunks;             // by one warp
  constexpr int kShare = 2 * kRows / kGatherWarps + 1;  // rows of a warp, at most 64
  const int warp = threadIdx.x / 32 - 1;
  const int lane = threadIdx.x % 32;
  const T* queries = static_cast<const T*>(args.query);
  unsigned buffer = 0;
  for (std::int64_t work = blockIdx.x; work < works(args); work += gridDim.x, ++buffer) {
    const Work<RowsOf> w(args, work);
    shared.query_empty[buffer % 2].wait((buffer / 2 % 2) ^ 1);
    // Each lane looks up two of the warp's rows; then the lanes copy one row after another.
    std::int64_t index[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = warp * kShare + half * 32 + lane;
      const bool mine = half * 32 + lane < kShare && r < 2 * kRows;
      const TileRow row = mine ? RowsOf::row(args, w.kv_head, w.tile * kRows + r) : TileRow{};
      index[half] = row.index;
      if (row.index >= 0) RowsOf::prepare(args, row, shared.slots[buffer % 2][r], kHeadDim * 2);
    }
#pragma unroll 4
    for (int i = 0; i < kShare; i += kRowsAtOnce) {
      const int mine = i + lane / kChunks;
      const std::int64_t first = __shfl_sync(kFullWarp, index[0], mine % 32);
      const std::int64_t second = __shfl_sync(kFullWarp, index[1], mine % 32);
      const std::int64_t row = mine < 32 ? first : second;
      const int r = warp * kShare + mine;
      if (mine >= kShare || r >= 2 * kRows) continue;
      const int chunk = lane % kChunks;
      const int panel = chunk / 8;
      // The swizzle: the 16-byte chunk's place in its 128 bytes is XORed with the row.
      std::uint16_t* to = shared.query[buffer % 2][r / kRows] + panel * S::kRowPanel +
                          (r % kRows) * 64 + ((chunk % 8) ^ (r % 8)) * 8;
      ptx::copy_async_16(to, queries + max(row, std::int64_t{0}) * kHeadDim + chunk * 8, row >= 0);
    }
    ptx::commit_copies();
    ptx::wait_for_copies<0>();
    ptx::fence_async_proxy();
    shared.query_full[buffer % 2].arrive();
  }
}

/// What a thread holds of its warpgroup's 64 rows: two rows, 8 j + 2 c + {0, 1} of head_dim.
template <int kHeadDim>
struct Accumulator {
  float value[kHeadDim / 2];
  float max[2];  // of the raw products
  float sum[2];  // this thread's share
};

/// What the rows' earlier parts of kPartKeys came to. Rarely is there more than one part: this lies
/// in local memory, out of the registers' way.
template <int kHeadDim>
struct EarlierParts {
  volatile float value[kHeadDim / 2];
  volatile float max[2];
  volatile float sum[2];

  __device__ void keep(const Accumulator<kHeadDim>& sums) {
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) value[i] = sums.value[i];
#pragma unroll
    for (int r = 0; r < 2; ++r) max[r] = sums.max[r], sum[r] = sums.sum[r];
  }
  __device__ void join_to(Accumulator<kHeadDim>& sums, float scale_log2) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float raw[2] = {max[r], sums.max[r]};
      sums.max[r] = fmaxf(raw[0], raw[1]);
      Softmax<Base2> both{sums.max[r] * scale_log2};
      const float before = both.join({raw[0] * scale_log2, sum[r]});
      const float now = both.join({raw[1] * scale_log2, sums.sum[r]});
      sums.sum[r] = both.sum;
#pragma unroll
      for (int i = 0; i < kHeadDim / 4; ++i) {
        const int at = 4 * (i / 2) + 2 * r + i % 2;
        sums.value[at] = fmaf(now, sums.value[at], before * value[at]);
      }
    }
  }
};

template <class T, int kHeadDim>
__device__ void multiply_keys(float (&logits)[64], const std::uint16_t* query,
                              const std::uint16_t* key) {
  using S = Shared<kHeadDim>;
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    const int within = step % 4 * 16;
    ptx::wgmma_shared<T>(logits, ptx::tile_descriptor(query + step / 4 * S::kRowPanel + within, 0),
                         ptx::tile_descriptor(key + step / 4 * S::kKeyPanel + within, 0), step > 0);
  }
}

template <class T, int kHeadDim>
__device__ void multiply_values(float (&output)[kHeadDim / 2], const std::uint32_t (&weights)[8][4],
                                const std::uint16_t* value) {
  using S = Shared<kHeadDim>;
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    ptx::wgmma_registers<T>(output, weights[step],
                            ptx::tile_descriptor(value + step * 16 * 64, S::kKeyPanel * 2));
  }
}

/// Takes the keys outside a row's span out of its logits.
__device__ inline void mask(float (&logits)[64], int first_key, const TileRow (&rows)[2], int c) {
#pragma unroll
  for (int j = 0; j < 16; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const DeviceSpan keys = rows[e / 2].keys;
      const int key = first_key + 8 * j + 2 * c + e % 2;
      if (static_cast<unsigned>(key - keys.begin) >= static_cast<unsigned>(keys.end - keys.begin)) {
        logits[4 * j + e] = -kInfinity;
      }
    }
  }
}

/// Turns logits into weights, updates maximum and sum, and tells by what the older output shrinks.
template <int kHeadDim>
__device__ void soften(float (&logits)[64], Accumulator<kHeadDim>& sums, float scale_log2,
                       float (&shrink)[2], int fault) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float max = sums.max[r];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      max = fmaxf(max, fmaxf(logits[4 * j + 2 * r], logits[4 * j + 2 * r + 1]));
    }
    max = quad_max(max);
    const float base = max == -kInfinity ? 0 : max * scale_log2;
    shrink[r] = sums.max[r] == max ? 1 : ptx::exp2(sums.max[r] * scale_log2 - base);
    if (faulty(fault, Fault::rescale_forgotten)) shrink[r] = 1;
    sums.max[r] = max;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& logit = logits[4 * j + 2 * r + e];
        logit = ptx::exp2(fmaf(logit, scale_log2, -base));
        sum += logit;
      }
    }
    sums.sum[r] = sums.sum[r] * shrink[r] + sum;
  }
}

template <class T>
__device__ void pack_weights(std::uint32_t (&weights)[8][4], const float (&logits)[64]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) weights[i / 4][i % 4] = pack<T>(logits[2 * i], logits[2 * i + 1]);
}

/// Attends anew, alone, to the rows that are spoiled: one after another, by the whole warp.
template <class T, int kHeadDim>
__device__ void repair(const TileArgs& args, Accumulator<kHeadDim>& sums, float (&lse)[2],
                       const TileRow (&rows)[2], int kv_head) {
  if (faulty(args.rows.fault, Fault::repair_skipped)) return;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool mine = spoiled<kHeadDim>(sums.value, r);  // all lanes take part
    unsigned todo = __ballot_sync(kFullWarp, mine && rows[r].index >= 0);
    todo &= 0x11111111u;
    while (todo) {
      const int source = __ffs(static_cast<int>(todo)) - 1;
      todo &= todo - 1;
      const std::int64_t index = __shfl_sync(kFullWarp, rows[r].index, source);
      const DeviceSpan keys{__shfl_sync(kFullWarp, rows[r].keys.begin, source),
                            __shfl_sync(kFullWarp, rows[r].keys.end, source)};
      const std::int64_t base = kv_head * args.rows.keys * kHeadDim;
      const RowOutput fresh =
          attend_row(static_cast<const T*>(args.query) + index * kHeadDim,
                     static_cast<const T*>(args.key) + base,
                     static_cast<const T*>(args.value) + base, keys, kHeadDim, args.scale);
      // attend_row's lane l holds l + 32 i; this layout's lane c of the quad 8 j + 2 c + {0, 1}.
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int from = (8 * j + 2 * (lane % 4) + e) % 32;
          const float value = __shfl_sync(kFullWarp, fresh.value[8 * j / 32], from);
          if (lane / 4 == source / 4) sums.value[4 * j + 2 * r + e] = value;
        }
      }
      if (lane / 4 == source / 4) lse[r] = fresh.lse;
    }
  }
}

/// What a thread reads for the end of its two rows, asked for while the last product runs.
template <class T, int kHeadDim, class RowsOf>
struct Ahead {
  __device__ void load(const TileArgs&, const TileRow (&)[2], const float2 (*)[kMaxTileSlots]) {}
};

/// The outputs of the rows' first spans; those of further ones are read when they are added.
template <class T, int kHeadDim>
struct Ahead<T, kHeadDim, WindowRows> {
  static constexpr int kSlots = 2;
  RowPieces<kHeadDim> of[2][kSlots];  // zeros: not in use

  static __device__ const T* span_output(const TileArgs& args, const TileRow& row, int slot) {
    return static_cast<const T*>(args.combine.span_outputs) +
           (row.item * args.combine.slots + slot) * kHeadDim;
  }

  /// `slots` is of this thread's first row, the second's is 8 further.
  __device__ void load(const TileArgs& args, const TileRow (&rows)[2],
                       const float2 (*slots)[kMaxTileSlots]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        const bool use = rows[r].index >= 0 && s < args.combine.slots && slots[8 * r][s].x >= 0;
        of[r][s].load(use ? span_output(args, rows[r], s) : nullptr);
      }
    }
  }
};

template <class T, int kHeadDim>
__device__ void finish(const Ahead<T, kHeadDim, SpanRows>&, const TileArgs& args,
                       Accumulator<kHeadDim>& sums, const float (&lse)[2], const TileRow (&rows)[2],
                       const float2 (*)[kMaxTileSlots]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    T* output = static_cast<T*>(args.output) + rows[r].item * kHeadDim;
    store_fragment<T, kHeadDim>(sums.value, r, rows[r].index >= 0 ? output : nullptr);
    if (rows[r].index >= 0 && threadIdx.x % 4 == 0) args.lse[rows[r].item] = lse[r];
  }
}

/// The window's output is at hand: joins it with the spans'. `slots` is of this thread's first row,
/// the second's is 8 further.
template <class T, int kHeadDim>
__device__ void finish(const Ahead<T, kHeadDim, WindowRows>& ahead, const TileArgs& args,
                       Accumulator<kHeadDim>& sums, const float (&lse)[2], const TileRow (&rows)[2],
                       const float2 (*slots)[kMaxTileSlots]) {
  using Spans = Ahead<T, kHeadDim, WindowRows>;
  const Combine& combine = args.combine;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool here = rows[r].index >= 0;
    if (combine.slots > 0) {
      float add[kMaxTileSlots];
      float of_window = here && slots[8 * r][0].x >= 0 ? 0 : 1;  // without a path the window alone
#pragma unroll
      for (int s = 0; s < kMaxTileSlots; ++s) {
        add[s] = 0;
        if (!here || s >= combine.slots || slots[8 * r][s].x < 0) continue;
        Joined joined = join(slots[8 * r][s].y, lse[r]);
        if (faulty(args.rows.fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
        add[s] = slots[8 * r][s].x * joined.first;
        of_window += slots[8 * r][s].x * joined.second;
      }
#pragma unroll
      for (int s = 0; s < kMaxTileSlots; ++s) {
        if (s >= combine.slots) break;
        RowPieces<kHeadDim> span;
        if (s < Spans::kSlots) {
          span = ahead.of[r][s];
        } else if (here && slots[8 * r][s].x >= 0) {
          span.load(Spans::span_output(args, rows[r], s));
        }
        add_fragment<T, kHeadDim>(sums.value, r, span, s == 0 ? of_window : 1, add[s]);
      }
    }
    if (combine.window_lse_out && here && threadIdx.x % 4 == 0) {
      combine.window_lse_out[rows[r].index] = lse[r];
    }
    T* output = static_cast<T*>(combine.output) + rows[r].index * kHeadDim;
    store_fragment<T, kHeadDim>(sums.value, r, here ? output : nullptr);
  }
}

/// A consumer warpgroup: 64 rows at a time.
template <class T, int kHeadDim, class RowsOf>
__device__ void attend(const TileArgs& args, Shared<kHeadDim>& shared) {
  const int lane = threadIdx.x % 32;
  const int warpgroup = uniform(threadIdx.x / kWarpgroup) - 1;
  const int first_row = threadIdx.x % kWarpgroup / 32 * 16 + lane / 4;  // and the one 8 further
  const int c = lane % 4;
  float scale = args.scale;
  if (faulty(args.rows.fault, Fault::scale_forgotten)) scale = 1;
  const float scale_log2 = scale * kLog2E;
  const auto release = [&](ptx::Barrier& barrier) {
    __syncwarp();
    if (lane == 0) barrier.arrive();
  };
  unsigned count = 0;   // key tiles so far
  unsigned buffer = 0;  // of queries
  for (std::int64_t work = blockIdx.x; work < works(args); work += gridDim.x) {
    const Work<RowsOf> w(args, work);
    const Tile tile = warpgroup == 0 ? w.tiles[0] : w.tiles[1];
    const std::int64_t row = (w.tile + warpgroup) * kRows + first_row;
    const TileRow rows[2] = {RowsOf::row(args, w.kv_head, row),
                             RowsOf::row(args, w.kv_head, row + 8)};
    Accumulator<kHeadDim> sums{{}, {-kInfinity, -kInfinity}, {0, 0}};

    const Walk mine = walk_of(tile.any);
    const auto* slots = &shared.slots[buffer % 2][warpgroup * kRows + first_row];
    Ahead<T, kHeadDim, RowsOf> ahead;
    const auto skip = [&](int j) {
      for (; j > 0; --j, ++count) {
        shared.key_full[count % kStages].wait(count / kStages % 2);
        release(shared.key_empty[count % kStages]);
        shared.value_full[count % kStages].wait(count / kStages % 2);
        release(shared.value_empty[count % kStages]);
      }
    };
    const std::uint16_t* query = shared.query[buffer % 2][warpgroup];
    shared.query_full[buffer % 2].wait(buffer / 2 % 2);
    if (mine.begin < mine.end) {
      skip(mine.begin - w.walk.begin);
      float logits[64] = {};
      std::uint32_t weights[8][4];
      float shrink[2];
      const auto masked = [&](int j) {
        int first = j * kKeys;
        const bool inside = first >= tile.all.begin && first + kKeys <= tile.all.end;
        if (!inside && !faulty(args.rows.fault, Fault::mask_missing)) {
          mask(logits, first, rows, c);
        }
      };
      EarlierParts<kHeadDim> earlier;
      // Parts end at absolute multiples: a row's sums do not depend on where its tile begins.
      const auto join_earlier = [&](int begin) {  // to the sums of the part from `begin` on
        if (begin > mine.begin && !faulty(args.rows.fault, Fault::earlier_parts_lost)) {
          earlier.join_to(sums, scale_log2);
        }
      };
      shared.key_full[count % kStages].wait(count / kStages % 2);
      ptx::pin(logits);
      ptx::wgmma_fence();
      multiply_keys<T, kHeadDim>(logits, query, shared.key[count % kStages]);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      ptx::pin(logits);
      release(shared.key_empty[count % kStages]);
      masked(mine.begin);
      soften<kHeadDim>(logits, sums, scale_log2, shrink, args.rows.fault);
      pack_weights<T>(weights, logits);
      for (int j = mine.begin + 1; j < mine.end; ++j) {
        const unsigned last = count++;
        shared.key_full[count % kStages].wait(count / kStages % 2);
        shared.value_full[last % kStages].wait(last / kStages % 2);
        ptx::pin(logits);
        ptx::pin(weights);
        ptx::pin(sums.value);
        ptx::wgmma_fence();
        multiply_keys<T, kHeadDim>(logits, query, shared.key[count % kStages]);
        ptx::wgmma_commit();
        multiply_values<T, kHeadDim>(sums.value, weights, shared.value[last % kStages]);
        ptx::wgmma_commit();
        ptx::wgmma_wait<1>();
        ptx::pin(logits);
        release(shared.key_empty[count % kStages]);
        masked(j);
        if (j % kPartTiles == 0) {
          ptx::wgmma_wait<0>();
          ptx::pin(sums.value);
          join_earlier(j - kPartTiles);
          earlier.keep(sums);
          sums = {{}, {-kInfinity, -kInfinity}, {0, 0}};
        }
        soften<kHeadDim>(logits, sums, scale_log2, shrink, args.rows.fault);
        ptx::wgmma_wait<0>();
        ptx::pin(weights);
        ptx::pin(sums.value);
        release(shared.value_empty[last % kStages]);
        pack_weights<T>(weights, logits);
#pragma unroll
        for (int i = 0; i < kHeadDim / 2; ++i) sums.value[i] *= shrink[i / 2 % 2];
      }
      shared.value_full[count % kStages].wait(count / kStages % 2);
      ptx::pin(weights);
      ptx::pin(sums.value);
      ptx::wgmma_fence();
      multiply_values<T, kHeadDim>(sums.value, weights, shared.value[count % kStages]);
      ptx::wgmma_commit();
      ahead.load(args, rows, slots);
      ptx::wgmma_wait<0>();
      ptx::pin(sums.value);
      release(shared.value_empty[count % kStages]);
      ++count;
      join_earlier((mine.end - 1) / kPartTiles * kPartTiles);
      skip(w.walk.end - mine.end);
    } else {
      ahead.load(args, rows, slots);
      skip(w.walk.end - w.walk.begin);
    }

    float lse[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum = quad_sum(sums.sum[r]);
      const float inverse = sum == 0 ? 0 : 1 / sum;
      lse[r] = sum == 0 ? -kInfinity : scale * sums.max[r] + __logf(sum);
#pragma unroll
      for (int i = 0; i < kHeadDim / 4; ++i) sums.value[4 * (i / 2) + 2 * r + i % 2] *= inverse;
    }
    repair<T, kHeadDim>(args, sums, lse, rows, w.kv_head);
    finish<T, kHeadDim>(ahead, args, sums, lse, rows, slots);
    release(shared.query_empty[buffer % 2]);
    ++buffer;
  }
}

#endif  // Hopper

template <class T, int kHeadDim, class RowsOf>
__global__ void __launch_bounds__(kThreads, 1)
    attend_tiles(__grid_constant__ const TileArgs args, __grid_constant__ const CUtensorMap keys,
                 __grid_constant__ const CUtensorMap values) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char memory[];
  // The swizzle's pattern repeats every 1024 bytes of addresses.
  auto& shared = *reinterpret_cast<Shared<kHeadDim>*>(
      (reinterpret_cast<std::uintptr_t>(memory) + 1023) / 1024 * 1024);
  constexpr int kConsumerWarps = 2 * kWarpgroup / 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      shared.query_full[i].init(32 * kGatherWarps);
      shared.query_empty[i].init(kConsumerWarps);
    }
    for (int i = 0; i < kStages; ++i) {
      shared.key_full[i].init(1);
      shared.value_full[i].init(1);
      shared.key_empty[i].init(kConsumerWarps);
      shared.value_empty[i].init(kConsumerWarps);
    }
    shared.value_landed.init(1);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    ptx::shrink_registers<40>();
    if (threadIdx.x < 32) {
      load_keys<kHeadDim, RowsOf>(args, shared, &keys, &values);
    } else {
      gather_queries<T, kHeadDim, RowsOf>(args, shared);
    }
  } else {
    ptx::grow_registers<232>();
    attend<T, kHeadDim, RowsOf>(args, shared);
  }
#else
  __trap();  // launched where it was compiled alone: Device::tiles
#endif
}

template <class T, int kHeadDim, class RowsOf>
void launch(const TileArgs& args, const CUtensorMap& keys, const CUtensorMap& values,
            Stream stream) {
  constexpr int kSlotBytes = 2 * 2 * kRows * kMaxTileSlots * 8;
  constexpr int kBytes =
      2 * 2 * kRows * kHeadDim * 2 + 2 * kStages * kKeys * kHeadDim * 2 + kSlotBytes + 256;
  const auto kernel = attend_tiles<T, kHeadDim, RowsOf>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes + 1024),
        "cudaFuncSetAttribute");
  const std::int64_t works =
      (args.per_head + 2 * kRows - 1) / (2 * kRows) * args.rows.batch * args.rows.kv_heads;
  const auto blocks =
      static_cast<unsigned>(std::min<std::int64_t>(works, current_device().multiprocessors));
  kernel<<<blocks, kThreads, kBytes + 1024, stream>>>(args, keys, values);
  check_launch("attend_tiles");
}

template <class RowsOf>
void launch(const TileArgs& args, Dtype dtype, Stream stream) {
  if (args.per_head == 0 || args.rows.keys == 0) return;
  const Rows& rows = args.rows;
  // Rows that no query of the call can see may hold anything.
  Index seen = rows.keys;
  if (!rows.sequence.length) {
    const Index last = rows.sequence.query_offset + rows.queries - rows.key_offset;
    seen = std::clamp<Index>(last, 1, rows.keys);
  }
  const Index heads = static_cast<Index>(rows.batch) * rows.kv_heads;
  const auto map = [&](const void* base) {
    return tensor_map(base, dtype, rows.head_dim, seen, rows.keys, heads, kKeys);
  };
  const CUtensorMap keys = map(args.key);
  const CUtensorMap values = map(args.value);
  const bool wide = rows.head_dim == 128;
  require(wide || rows.head_dim == 64, "head_dim {}: the tile kernels are built for 64 and 128",
          rows.head_dim);
  if (dtype == Dtype::bf16) {
    wide ? launch<bf16, 128, RowsOf>(args, keys, values, stream)
         : launch<bf16, 64, RowsOf>(args, keys, values, stream);
  } else {
    wide ? launch<fp16, 128, RowsOf>(args, keys, values, stream)
         : launch<fp16, 64, RowsOf>(args, keys, values, stream);
  }
}

}  // namespace

void span_attention_tiles(const SpanAttend& attend, const Pairs& pairs, Stream stream) {
  const Rows& rows = attend.rows;
  const std::int64_t per_head = static_cast<std::int64_t>(rows.group()) * rows.count * attend.slots;
  launch<SpanRows>({rows,
                    attend.scale,
                    attend.slots,
                    per_head,
                    attend.query,
                    attend.key,
                    attend.value,
                    pairs,
                    attend.output,
                    attend.lse,
                    {}},
                   attend.dtype, stream);
}

void combine_tiles(const Combine& combine, Stream stream) {
  const Rows& rows = combine.rows;
  const std::int64_t per_head = static_cast<std::int64_t>(rows.group()) * rows.count;
  launch<WindowRows>({rows,
                      combine.scale,
                      combine.slots,
                      per_head,
                      combine.query,
                      combine.key,
                      combine.value,
                      {},
                      nullptr,
                      nullptr,
                      combine},
                     combine.dtype, stream);
}

}  // namespace multistep::cuda
