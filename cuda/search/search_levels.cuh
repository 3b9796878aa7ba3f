#pragma once

#include <algorithm>

#include "api/check.cuh"
#include "api/choose.cuh"
#include "api/stages.cuh"
#include "device/ptx.cuh"
#include "device/row_type.cuh"
#include "device/top_k.cuh"
#include "search/choose_rows.cuh"
#include "search/search_anchors.cuh"

/// Span-search on tensor cores, of keys that lie dense or, kPaged, in pages: each compiled by a
/// file of its own (search.cu, search_paged.cu). A unit is what searches one segment: at level 1 a
/// query with up to 16 heads of one KV head, whose segment and anchors are the same; below it a
/// query, a head and a parent. Where units are many, each has a warp (search_shared,
/// search_parents; choose_rows, choose_many). Where they are few, as in decoding, one launch takes
/// several levels (search_few). Where many rows search the same anchors, they are rows of a product
/// (search_parts.cu).
namespace multistep::cuda {
namespace {

constexpr int kWarps = SearchBlock::kWarps;
constexpr int kThreads = SearchBlock::kThreads;
constexpr int kHeads = SearchBlock::kHeads;
constexpr int kAnchors = SearchBlock::kAnchors;
constexpr int kMaxCluster = 16;

/// Blocks of a multiprocessor: long lists and long rows take the registers of two.
template <int kHeadDim, int kTopK>
constexpr int kResident = kHeadDim <= 128 && kTopK <= 8 ? 2 : 1;

/// Lists of a head that the warps of a block of level 1 make: short ones are united by each warp,
/// long ones are left as its lanes have them.
template <int kTopK>
constexpr bool kShort = kTopK < 8;
template <int kTopK>
constexpr int kHeadLists = kShort<kTopK> ? kWarps : 4 * kWarps;
/// Of the two halves of the heads, a warp's eight each, those whose lists there is room for at
/// once.
template <int kTopK>
constexpr int kHalves = kTopK <= 8 ? 2 : 1;
static_assert(kHeads == 2 * kWarps && kWarps == 8);

/// Lists of paths that a block of a level from 2 on makes: a warp's each, and more than one where
/// there are more parents than warps.
template <int kTopK>
constexpr int kBlockLists = kTopK < kWarps ? kWarps : kTopK;

/// Passed to search_few.
struct Levels {
  std::int32_t count;
  LevelSearch level[kLevelsAtOnce];
};

/// What the warps of a block tell one another.
template <int kTopK>
struct BlockLists {
  /// Level 1: lists of each head, each of an odd number, so that banks differ.
  PackedScore of_head[kWarps * kHalves<kTopK>][kHeadLists<kTopK>][kTopK | 1];
  /// Level 1, where blocks of a cluster put what they found: [head of this block, block, rank].
  /// Below: what the warps found, [list, rank].
  FoundPath found[kHeads * kTopK];
  static_assert(kBlockLists<kTopK> <= kHeads);
  /// The row's paths, in whose spans the next level searches.
  DeviceSpan segment[kTopK];
  float score[kTopK];
  ptx::Inbox inbox;  // of `found`
  /// Level 1: below which a head's paths of the next turn are.
  uint4 bound[kHeads];
  ptx::Inbox bounds;

  /// Of head `head` of the unit.
  __device__ PackedScore bound_of(int head) const {
    return static_cast<PackedScore>(bound[head].y) << 32 | bound[head].x;
  }
  /// To all blocks of the cluster.
  __device__ void send_bound(int head, PackedScore last, int blocks) {
    const uint4 value{static_cast<unsigned>(last), static_cast<unsigned>(last >> 32), 0, 0};
    for (int block = 0; block < blocks; ++block) bounds.send(&bound[head], block, value);
  }
  __device__ void keep(int slot, const FoundPath& path) {
    segment[slot] = path.span;
    score[slot] = path.path != 0 ? score_of(path.path) : -kInfinity;
  }
};

__device__ void reset_counters(const SearchScratch& scratch) {
  const std::int64_t block = static_cast<std::int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.y) * gridDim.x * kThreads;
#pragma unroll 1
  for (std::int64_t i = block * kThreads + threadIdx.x; i < scratch.counter_count; i += threads) {
    scratch.counters[i] = 0;
  }
}

/// Level 1, one warp a unit. The best are found kTopK at a time: behind a list of kMaxFastTopK come
/// those below its last.
template <class T, int kHeadDim, int kTopK, bool kPaged>
__global__ void __launch_bounds__(kThreads, kResident<kHeadDim, kTopK>)
    search_shared(__grid_constant__ const LevelSearch search, SearchScratch scratch,
                  std::int64_t units) {
  ptx::launch_dependents();
  reset_counters(scratch);
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (i >= units) return;
  const HeadTile unit(search.rows, kHeads, static_cast<std::uint32_t>(i));
  const std::int64_t row = search.rows.index(unit.batch, unit.first_head, unit.query);
  const int lane = threadIdx.x % 32;
  PackedScore bound[2] = {kAnyScore, kAnyScore};
#pragma unroll 1
  for (int first = 0; first < search.top_k; first += kTopK) {
    TopK<kTopK> best[2];
    const DeviceCut cut =
        search_heads<T, kHeadDim, false, kPaged>(search, unit, {0, 1}, bound, best);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      best[half].merge_lanes(3);  // the quad's columns
      bound[half] = best[half].best[kTopK - 1];
      if (faulty(search.rows.fault, Fault::turn_repeated)) bound[half] = kAnyScore;
      const int head = lane / 4 + 8 * half;
      if (head >= unit.heads) continue;
      const std::int64_t index = row + head * static_cast<std::int64_t>(search.rows.queries);
#pragma unroll
      for (int slot = lane % 4; slot < kTopK; slot += 4) {
        if (first + slot >= search.top_k) break;
        store_slot(search, index * search.top_k + first + slot,
                   found_path(search, cut, best[half].at(slot)), 0);
      }
    }
    if (kTopK < kMaxFastTopK) break;  // that were all
  }
}

/// Levels from 2 on: a warp a unit, (query row, parent), which leaves a list.
template <class T, int kHeadDim, int kTopK, bool kPaged>
__global__ void __launch_bounds__(kThreads, kResident<kHeadDim, kTopK>)
    search_parents(__grid_constant__ const LevelSearch search, SearchScratch scratch,
                   std::int64_t units) {
  ptx::launch_dependents();
  ptx::wait_for_previous_kernel();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (i >= units) return;
  const std::int64_t pair = scratch.order ? scratch.order[i] : i;
  const int rank = static_cast<int>(pair % search.top_k);
  const Rows::Row row = search.rows.at(pair / search.top_k);
  const std::int64_t parent = row.index * search.top_k + rank;
  FoundPath* const list = scratch.lists + (row.dense * search.top_k + rank) * search.top_k;
  const int lane = threadIdx.x % 32;
  PackedScore bound = kAnyScore;
#pragma unroll 1
  for (int first = 0; first < search.top_k; first += kTopK) {
    const FoundPath found = search_parent<T, kHeadDim, false, kTopK, kPaged>(
        search, {search, row.batch, row.kv_head, row.head, row.query}, search.parents[parent],
        search.rows.grid(row), search.parent_scores[parent], {0, 1}, bound);
    if (faulty(search.rows.fault, Fault::turn_repeated)) bound = kAnyScore;
    if (lane < kTopK && first + lane < search.top_k) list[first + lane] = found;
    if (kTopK < kMaxFastTopK) break;  // that were all
  }
}

/// Asks for what a level below will need: each thread of a cluster for a line of the tables, which
/// is all of them but where they are very long; a block for its row's query.
template <class T>
__device__ void prefetch_level(const LevelSearch& search, const HeadTile& unit, std::int32_t head,
                               int thread) {
  constexpr int kEntries = 32;  // of a line
  const auto table = [&](const std::int32_t* entries, std::int32_t count) {
    if (thread < (count + kEntries - 1) / kEntries) ptx::prefetch(entries + kEntries * thread);
  };
  table(search.level.stripes, search.level.stripe_count);
  table(search.level.backward.from, search.level.backward.count);
  table(search.level.forward.from, search.level.forward.count);
  table(search.level.parts.from, search.level.parts.count);
  if (64 * static_cast<int>(threadIdx.x) < search.rows.head_dim) {
    ptx::prefetch(search.routing.of_head<T>(unit.batch, head)[unit.query] + 64 * threadIdx.x);
  }
}

/// Level 1 by the blocks of a cluster: each scores a share of the anchors for all heads and sends
/// its best of a head to the block that the head belongs to, which chooses; and where more than
/// kTopK paths are kept, tells all blocks below which the next turn's are. `row` is head 0's.
template <class T, int kHeadDim, int kTopK, bool kPaged>
__device__ void search_by_cluster(const Levels& levels, const SearchScratch& scratch,
                                  const HeadTile& unit, std::int64_t row, int block, int blocks,
                                  BlockLists<kTopK>& lists) {
  constexpr bool kTurns = kTopK == kMaxFastTopK;
  const LevelSearch& search = levels.level[0];
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto row_of = [&](int head) {
    return row + head * static_cast<std::int64_t>(search.rows.queries);
  };
  // Head h belongs to block h % blocks, a power of two.
  const int heads = (unit.heads - block + blocks - 1) >> (__ffs(blocks) - 1);
  const int list_bytes = heads * blocks * kTopK * static_cast<int>(sizeof(FoundPath));
  const int bound_bytes = unit.heads * static_cast<int>(sizeof(uint4));
  if (threadIdx.x == 0) {
    lists.inbox.open(list_bytes);
    if (kTurns) lists.bounds.open(bound_bytes);
  }
  ptx::cluster_arrive();
  PackedScore bound[2] = {kAnyScore, kAnyScore};
#pragma unroll 1
  for (int first = 0; first < search.top_k; first += kTopK) {
    const int turn = first / kTopK;
    TopK<kTopK> best[2];
    const DeviceCut cut = search_heads<T, kHeadDim, true, kPaged>(
        search, unit, {block * kWarps + warp, blocks * kWarps}, bound, best);
    // The block's best of the heads that this warp has, one of either half: lane s has the s-th.
    PackedScore found[2] = {0, 0};
#pragma unroll
    for (int at_once = 0; at_once < 2; at_once += kHalves<kTopK>) {
      if (at_once > 0) __syncthreads();  // the lists before are read
#pragma unroll
      for (int i = 0; i < kHalves<kTopK>; ++i) {
        TopK<kTopK>& own = best[at_once + i];
        if (kShort<kTopK>) own.merge_lanes(3);  // the quad's columns
        if (kShort<kTopK> && lane % 4 != i) continue;
        const int list = kShort<kTopK> ? warp : 4 * warp + lane % 4;
#pragma unroll
        for (int s = 0; s < kTopK; ++s) {
          lists.of_head[kWarps * i + lane / 4][list][s] = own.best[s];
        }
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kHalves<kTopK>; ++i) {
        if (warp + kWarps * (at_once + i) >= unit.heads) continue;
        const auto& of_head = lists.of_head[kWarps * i + warp];
        if constexpr (kShort<kTopK>) {
          TopK<kTopK> merged;
#pragma unroll
          for (int s = 0; s < kTopK; ++s) {
            if (lane < kWarps) merged.best[s] = of_head[lane][s];
          }
          merged.merge_lanes(kWarps - 1);
          found[at_once + i] = merged.template of_lane<kWarps>();
        } else {
          found[at_once + i] =
              select_scores<kTopK>(kHeadLists<kTopK>, [&](int at) { return of_head[lane][at]; });
        }
      }
    }
    if (first == 0) ptx::cluster_wait();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int head = warp + kWarps * i;
      if (head >= unit.heads || lane >= kTopK) continue;
      const FoundPath mine{found[i], {0, 0}};
      lists.inbox.send(&lists.found[((head & -blocks) + block) * kTopK + lane], head & (blocks - 1),
                       reinterpret_cast<const uint4&>(mine));
    }
    if (first == 0) {  // while the lists are on their way
      reset_counters(scratch);
#pragma unroll 1
      for (int m = 1; m < levels.count; ++m) {
        const int thread = block * kThreads + static_cast<int>(threadIdx.x);
        const std::int32_t head = unit.first_head + min(block, unit.heads - 1);
        prefetch_level<T>(levels.level[m], unit, head, thread);
      }
    }
    if (heads > 0) lists.inbox.wait(turn);  // else its turns end at once, and nobody is to see one
    const bool more = kTurns && first + kTopK < search.top_k;
    for (int i = warp; i < heads; i += kWarps) {
      const int head = block + blocks * i;
      const FoundPath* const sent = lists.found + i * blocks * kTopK;
      const PackedScore mine =
          select_scores<kTopK>(blocks, [&](int at) { return sent[lane * kTopK + at].path; });
      if (more && lane == kTopK - 1) lists.send_bound(head, mine, blocks);
      if (lane >= kTopK || first + lane >= search.top_k) continue;
      const FoundPath path = found_path(search, cut, mine);
      store_slot(search, row_of(head) * search.top_k + first + lane, path, 0);
      if (levels.count > 1) lists.keep(lane, path);  // a block has one head
    }
    if (!more) break;
    // No block sends for the next turn before it has the bounds of all heads, and none of these was
    // sent before the lists that it is from were read.
    lists.bounds.wait(turn);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int head = lane / 4 + 8 * half;
      bound[half] = head < unit.heads ? lists.bound_of(head) : kAnyScore;
      if (faulty(search.rows.fault, Fault::turn_repeated)) bound[half] = kAnyScore;
    }
    if (threadIdx.x == 0) {
      if (heads > 0) lists.inbox.expect(list_bytes);
      lists.bounds.expect(bound_bytes);
    }
  }
}

/// A level from 2 on of one row, whose parents are in `lists`, by a block. Its warps' lists share
/// the parents out, in order.
template <class T, int kHeadDim, int kTopK, bool kPaged>
__device__ void search_by_block(const LevelSearch& search, const HeadTile& unit, std::int32_t head,
                                std::int64_t row, BlockLists<kTopK>& lists) {
  constexpr int kLists = kBlockLists<kTopK>;
  const Rows& rows = search.rows;
  const int lane = threadIdx.x % 32;
  const int top_k = search.top_k;
  const auto rank_of = [&](int list) { return list * top_k / kLists; };
  const auto first_of = [&](int rank) { return (rank * kLists + top_k - 1) / top_k; };
  Grid grid{};
  if (search.level.of_row || rows.sequence.packed) {
    const auto [position, start] = rows.place(unit.batch, unit.query);
    grid = rows.grid(position, start);
  }
  const Searched<T, kPaged> searched(search, unit.batch, unit.kv_head, head, unit.query);
  __syncthreads();  // the parents stand, the lists before are read
#pragma unroll 1
  for (int list = threadIdx.x / 32; list < kLists; list += kWarps) {
    const int rank = rank_of(list);
    const Share share{list - first_of(rank), first_of(rank + 1) - first_of(rank)};
    DeviceSpan parent = lists.segment[rank];
    if (list >= kWarps && faulty(rows.fault, Fault::late_parents_missed)) parent = {0, 0};
    PackedScore bound = kAnyScore;
    const FoundPath mine = search_parent<T, kHeadDim, true, kTopK, kPaged>(
        search, searched, parent, grid, lists.score[rank], share, bound);
    if (lane < kTopK) lists.found[list * kTopK + lane] = mine;
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  static_assert(kLists <= 32, "a lane has one");
  select_paths<1>(
      top_k,
      [&](int, int at) {
        return lane < kLists && at < kTopK ? lists.found[lane * kTopK + at] : FoundPath{};
      },
      [&](int slot, PackedScore best, const FoundPath& path, int i) {
        if (i < 0 && (best != 0 || lane > 0)) return;
        store_slot(search, row * top_k + slot, path, rank_of(lane));
        lists.keep(slot, path);
      });
}

/// Few rows: gridDim.x blocks take a unit of level 1, blockIdx.y, through all levels of the launch.
/// Where that begins with level 1 they are a cluster; from level 2 on each has a head of its own.
template <class T, int kHeadDim, int kTopK, bool kPaged>
__global__ void __launch_bounds__(kThreads, kResident<kHeadDim, kTopK>)
    search_few(__grid_constant__ const Levels levels, SearchScratch scratch) {
  __shared__ BlockLists<kTopK> lists;
  ptx::launch_dependents();
  const LevelSearch& top = levels.level[0];
  const Rows& rows = top.rows;
  const auto block = static_cast<int>(blockIdx.x);
  const HeadTile unit(rows, kHeads, blockIdx.y);
  const std::int64_t first_row = rows.index(unit.batch, unit.first_head, unit.query);
  const std::int64_t row = first_row + block * static_cast<std::int64_t>(rows.queries);
  int m = 0;
  if (!top.parents) {
    search_by_cluster<T, kHeadDim, kTopK, kPaged>(levels, scratch, unit, first_row, block,
                                                  static_cast<int>(gridDim.x), lists);
    m = 1;
  } else if (block < unit.heads) {
    // Whoever waits for this launch waits for the searches before it too, as some block of it does.
    ptx::wait_for_previous_kernel();
    if (threadIdx.x < top.top_k) {
      const std::int64_t slot = row * top.top_k + threadIdx.x;
      lists.segment[threadIdx.x] = top.parents[slot];
      lists.score[threadIdx.x] = top.parent_scores[slot];
    }
  }
  if (block >= unit.heads) return;
#pragma unroll 1
  for (; m < levels.count; ++m) {
    search_by_block<T, kHeadDim, kTopK, kPaged>(levels.level[m], unit, unit.first_head + block, row,
                                                lists);
  }
}

std::int64_t units_of(const LevelSearch& search) {
  const Rows& rows = search.rows;
  if (search.parents) return rows.total() * search.top_k;
  return HeadTile::count(rows, kHeads);
}

bool are_few(const LevelSearch& search) {
  return units_are_few(search.rows, search.top_k, search.parents != nullptr,
                       current_device().multiprocessors);
}

/// Blocks of a unit in search_few. At level 1 as many as there are groups of anchors for their
/// warps, from two, which share the choice out, up to a cluster's size; with levels below at least
/// one for each head, which levels_at_once() has seen to; a power of two.
int blocks_of(const Levels& levels) {
  const LevelSearch& top = levels.level[0];
  const int heads = std::min(top.rows.group(), kHeads);
  if (top.parents) return heads;
  const int most = largest_cluster();
  const int groups = (top.max_stripes + kAnchors - 1) / kAnchors;
  int blocks = std::min(2, most);
  while (blocks < most && (blocks * kWarps < groups || (levels.count > 1 && blocks < heads))) {
    blocks *= 2;
  }
  return blocks;
}

template <class T, int kHeadDim, int kTopK, bool kPaged>
void launch_few(const LevelSearch* first, int count, const SearchScratch& scratch, Stream stream) {
  Levels levels{count, {}};
  std::copy_n(first, count, levels.level);
  const int blocks = blocks_of(levels);
  constexpr auto kernel = search_few<T, kHeadDim, kTopK, kPaged>;
  Launch how{static_cast<unsigned>(blocks), kThreads, stream};
  how.blocks_y = static_cast<unsigned>(HeadTile::count(first->rows, kHeads));
  how.mostly_shared = true;  // as the kernels of decoding that follow
  how.early = first->parents != nullptr;
  how.cluster = first->parents ? 1 : blocks;
  if (how.cluster > 8) tell_once<kernel>(cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  launch_kernel(how, kernel, levels, scratch);
}

template <class T, int kHeadDim, int kTopK, bool kPaged>
void launch(const LevelSearch* levels, int count, const SearchScratch& scratch, Stream stream) {
  const LevelSearch& search = *levels;
  if (are_few(search))
    return launch_few<T, kHeadDim, kTopK, kPaged>(levels, count, scratch, stream);
  const std::int64_t units = units_of(search);
  Launch how{blocks_for(units, kWarps), kThreads, stream};
  how.early = search.parents != nullptr;
  if (search.as_product) {
    search_level_product(search, scratch, stream);
  } else if (search.parents) {
    launch_kernel(how, search_parents<T, kHeadDim, kTopK, kPaged>, search, scratch, units);
  } else {
    launch_kernel(how, search_shared<T, kHeadDim, kTopK, kPaged>, search, scratch, units);
  }
  if (!search.parents) return;
  const std::int64_t rows = search.rows.total();
  const auto* const lists = static_cast<const FoundPath*>(scratch.lists);
  search.top_k <= kTopK
      ? launch_kernel({blocks_for(rows, kThreads), kThreads, stream}, choose_rows<kTopK>, search,
                      lists)
      : launch_kernel({blocks_for(rows, kWarps), kThreads, stream}, choose_many, search, lists);
}

template <bool kPaged>
void search_levels(const LevelSearch* levels, int count, const SearchScratch& scratch,
                   Stream stream) {
  with_row_type(*levels, [&](auto type, auto columns) {
    with_list<kMaxFastTopK, columns>(levels->top_k, [&](auto top_k) {
      launch<decltype(type), columns, top_k, kPaged>(levels, count, scratch, stream);
    });
  });
}

}  // namespace
}  // namespace multistep::cuda
