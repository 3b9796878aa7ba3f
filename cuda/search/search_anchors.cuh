#pragma once

#include "api/stages.cuh"
#include "device/ptx.cuh"
#include "device/top_k.cuh"

/// How one warp of search_levels.cuh scores a share of a segment's anchors on tensor cores, 8 at a
/// time for all heads: the 16-byte pieces that its lanes load of 8 rows of keys are the B fragments
/// of `mma` under an order of head_dim that the queries are loaded in too, which leaves the
/// products as they are. Nothing goes through shared memory.
///
/// A segment's anchors are shared out among warps without a trace in the result: the scores are the
/// same bits and the order of candidates is total.
namespace multistep::cuda {

/// A block of search_levels.cuh.
struct SearchBlock {
  static constexpr int kWarps = 8;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kHeads = kSearchHeads;  // rows of the matrix product
  static constexpr int kAnchors = 8;           // scored at a time: its columns
};

/// Groups of anchors being loaded. Few warps that score for many heads have few groups each, and
/// need the registers, as long rows do.
template <bool kFew, int kHalves, int kHeadDim>
inline constexpr int kInFlight = kHalves == 2 && (kFew || kHeadDim > 128) ? 2 : 3;

/// Queries of up to 16 heads: lane (g, c) = (lane / 4, lane % 4) holds rows g and g + 8.
template <int kHeadDim>
struct QueryFragment {
  static constexpr int kPieces = kHeadDim / 32;  // 16-byte pieces of a row that a lane holds
  uint4 low[kPieces];
  uint4 high[kPieces];
};

template <class T, int kHeadDim>
__device__ void score_anchors(float (&scores)[4], const QueryFragment<kHeadDim>& query,
                              const uint4 (&key)[kHeadDim / 32]) {
  float odd[4] = {0, 0, 0, 0};  // two sums, so that products need not wait for one another
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = 0;
#pragma unroll
  for (int j = 0; j < kHeadDim / 32; ++j) {
    const uint4 low = query.low[j];
    const uint4 high = query.high[j];
    ptx::mma<T>(scores, {low.x, high.x, low.y, high.y}, key[j].x, key[j].y);
    ptx::mma<T>(odd, {low.z, high.z, low.w, high.w}, key[j].z, key[j].w);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] += odd[i];
}

/// Rounded twice in every kernel: the same score wherever an anchor is scored.
__device__ inline float path_score(const LevelSearch& search, float product, float parent_score) {
  const float score = __fmul_rn(search.scale, product);
  if (!search.parents || faulty(search.rows.fault, Fault::stale_parent_score)) return score;
  return __fadd_rn(score, parent_score);
}

__device__ inline PackedScore candidate_of(const LevelSearch& search, float score, int stripe) {
  if (faulty(search.rows.fault, Fault::tie_turned)) stripe ^= INT_MAX;
  return packed_score(score, stripe);
}

/// Above every candidate.
inline constexpr PackedScore kAnyScore = ~PackedScore{0};

/// Takes a candidate below `bound` into a list; what scores below the `worst` there need not be
/// looked at twice.
template <int kTopK>
__device__ void consider(const LevelSearch& search, float score, int stripe, PackedScore bound,
                         TopK<kTopK>& best, float& worst) {
  if (score < worst) return;
  const PackedScore candidate = candidate_of(search, score, stripe);
  if (candidate >= bound) return;
  best.keep(candidate);
  if (best.best[kTopK - 1] != 0) worst = score_of(best.best[kTopK - 1]);
}

/// Which groups of a segment's anchors a warp scores: part, part + parts, part + 2 parts, ...
struct Share {
  int part;
  int parts;
};

/// How far from its segment's end the anchors of a share are, this lane's column of a group.
struct Distances {
  const LevelTable& level;
  Share share;
  int first;  // stripe

  __device__ Distances(const LevelSearch& search, Share share) : level(search.level), share(share) {
    first = level.first;
    if (faulty(search.rows.fault, Fault::first_anchor_repeated)) first = max(first - 1, 1);
  }
  /// The first of the eight stripes of the share's `u`-th group from `group` on.
  __device__ int stripe(int group, int u) const {
    return first + SearchBlock::kAnchors * (group + u * share.parts);
  }
  __device__ bool from_table() const { return is_striped(level.rule); }
  __device__ int at(int stripe, const DeviceCut& cut) const {
    if (from_table()) return in_table(stripe);
    const int distance = cut.newest_of_part(stripe);
    return distance > cut.length ? INT_MAX : distance;
  }
  __device__ int in_table(int stripe) const {
    return __ldg(level.stripes + min(stripe, level.stripe_count));
  }

  /// Those of the first groups, asked for before the segment is known; they do not depend on it.
  template <int kGroups>
  __device__ void early(int (&ahead)[kGroups]) const {
#pragma unroll
    for (int u = 0; u < kGroups; ++u) {
      const int column = threadIdx.x % 32 / 4;
      const int i = min(stripe(share.part, u) + column, level.stripe_count);
      ahead[u] = ptx::load_now(level.stripes + i, from_table());
    }
  }
};

/// Scores a share of a segment's anchors: of the heads in rows g and g + 8 of the fragment, this
/// lane's best. kFew: warps are few and wait for memory; every candidate goes through the list, as
/// most would find a place in it, and the keys of the next groups are on their way to the L2 cache.
/// Candidates from `bound` on are left out. `ahead`: what distances.early() said. `meanwhile`
/// is called once, while the first keys are on their way.
template <class T, int kHeadDim, bool kFew, bool kPaged, int kTopK, int kHalves, class Meanwhile>
__device__ void score_share(const LevelSearch& search, const DeviceCut& cut,
                            const HeadRows<T, kPaged>& keys, const QueryFragment<kHeadDim>& query,
                            float parent_score, const Distances& distances,
                            const PackedScore (&bound)[kHalves],
                            int (&ahead)[kInFlight<kFew, kHalves, kHeadDim>],
                            TopK<kTopK> (&best)[kHalves], Meanwhile&& meanwhile) {
  constexpr int kGroups = kInFlight<kFew, kHalves, kHeadDim>;
  const int lane = threadIdx.x % 32;
  const int column = lane / 4;
  const int c = lane % 4;
  const int fault = search.rows.fault;
  const Share share = distances.share;
  // In rows of the arrays, of which there are less than 2^31: the segment's end, and a key.
  const auto past = static_cast<int>(max(cut.end - search.rows.key_offset, std::int64_t{0}));
  const auto rows = static_cast<int>(min(search.rows.keys, std::int64_t{INT_MAX}));
  const auto is_held = [&](int distance) {
    return distance <= cut.length &&
           static_cast<unsigned>(past - distance) < static_cast<unsigned>(rows);
  };
  const uint4* lane_keys = reinterpret_cast<const uint4*>(keys.first) + c;
  ptx::settle_address(lane_keys);
  const std::int64_t step = keys.step / 8;  // in pieces of 16 bytes
  const int pieces = search.rows.pieces();

#pragma unroll
  for (int u = 0; u < kGroups; ++u) {
    if (distances.from_table()) continue;
    ahead[u] = distances.at(distances.stripe(share.part, u) + column, cut);
  }
  float worst[kHalves];  // of the best
#pragma unroll
  for (float& score : worst) score = -kInfinity;
  bool more = true;
  for (int group = share.part; more; group += kGroups * share.parts) {
    uint4 key[kGroups][kHeadDim / 32];
    unsigned valid[kGroups];
#pragma unroll
    for (int u = 0; u < kGroups; ++u) {
      const int distance = ahead[u];
      bool use = is_held(distance);
      const unsigned inside = __ballot_sync(kFullWarp, distance <= cut.length);
      more = inside == kFullWarp;  // else all further ones are outside
      if (faulty(fault, Fault::oldest_anchor_missed)) {
        const int i = distances.stripe(group, u) + column;
        use = use && distances.at(i + 1, cut) <= cut.length;
      }
      valid[u] = __ballot_sync(kFullWarp, use);
      int scored = past - distance;
      if (faulty(fault, Fault::older_key_scored)) scored = max(scored - 1, 0);
      const uint4* row = lane_keys;
      if constexpr (!kPaged) {
        row += scored * step;
      } else if (use) {
        row = reinterpret_cast<const uint4*>(keys[scored]) + c;
      }
      ptx::settle_address(row);
#pragma unroll
      for (int j = 0; j < kHeadDim / 32; ++j) {
        const bool here = use && 4 * j + c < pieces;
        key[u][j] = here ? __ldg(row + 4 * j) : uint4{0, 0, 0, 0};
      }
    }
    if (group == share.part) meanwhile();
    if (more) {
#pragma unroll
      for (int u = 0; u < kGroups; ++u) {
        ahead[u] = distances.at(distances.stripe(group, kGroups + u) + column, cut);
      }
#pragma unroll
      for (int u = 0; kFew && u < kGroups; ++u) {
        if (!is_held(ahead[u])) continue;
        // A row's lanes: a quarter each.
        ptx::prefetch(keys[past - ahead[u]] + min(c * (kHeadDim / 4), search.rows.head_dim - 8));
      }
    }
#pragma unroll
    for (int u = 0; u < kGroups; ++u) {
      if (kFew && valid[u] == 0) continue;
      float scores[4];
      score_anchors<T, kHeadDim>(scores, query, key[u]);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int i = distances.stripe(group, u) + 2 * c + e;
        const bool is_valid = valid[u] >> (4 * (2 * c + e)) & 1;
        if (!kFew && !is_valid) continue;
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
          const float score = path_score(search, scores[2 * half + e], parent_score);
          if (kFew) {
            PackedScore candidate = is_valid ? candidate_of(search, score, i) : 0;
            if (kTopK == kMaxFastTopK && candidate >= bound[half]) candidate = 0;
            best[half].keep(candidate);
          } else {
            consider(search, score, i, bound[half], best[half], worst[half]);
          }
        }
      }
    }
  }
}

/// Level 1: a query with up to 16 heads of one KV head, which share segment and anchors. Of heads
/// lane / 4 and lane / 4 + 8 the best of this lane's part of the share, below `bound`; the cut with
/// its reaches. Whole warp.
template <class T, int kHeadDim, bool kFew, bool kPaged, int kTopK>
__device__ DeviceCut search_heads(const LevelSearch& search, const HeadTile& unit, Share share,
                                  const PackedScore (&bound)[2], TopK<kTopK> (&best)[2]) {
  const Rows& rows = search.rows;
  const int lane = threadIdx.x % 32;
  // Distances and queries are asked for before the position, for which all that follows waits.
  const Distances distances(search, share);
  int ahead[kInFlight<kFew, 2, kHeadDim>];
  distances.early(ahead);
  QueryFragment<kHeadDim> query;
  const auto load = [&](int head, int j) {
    const int piece = 4 * j + lane % 4;
    if (head >= unit.heads || piece >= rows.pieces()) return uint4{0, 0, 0, 0};
    const T* const from = search.routing.of_head<T>(unit.batch, unit.first_head + head)[unit.query];
    return __ldg(reinterpret_cast<const uint4*>(from) + piece);
  };
#pragma unroll
  for (int j = 0; j < kHeadDim / 32; ++j) {
    query.low[j] = load(lane / 4, j);
    query.high[j] = load(lane / 4 + 8, j);
  }
  const auto keys = rows.kv_rows<T, kPaged>(search.keys, unit.batch, unit.kv_head);
  const auto [position, start] = rows.place(unit.batch, unit.query);
  DeviceCut cut = cut_anchors(search.level, searched(search.level, rows.window, position, start),
                              rows.grid(position, start));
  ReachLookup reaches{};  // early where others wait for this warp, else after the loop
  if (cut.length > 0) {
    score_share<T, kHeadDim, kFew, kPaged>(
        search, cut, keys, query, 0, distances, bound, ahead, best, [&] {
          if (kFew) reaches = look_up_reaches(search.level, ptx::known_here(cut.length));
        });
  }
  if (!kFew) reaches = look_up_reaches(search.level, cut.length);
  settle_reaches(search.level, reaches, cut);
  return cut;
}

/// A query row's routing query, and the keys of its KV head.
template <class T, bool kPaged>
struct Searched {
  const T* query;
  HeadRows<T, kPaged> keys;

  __device__ Searched(const LevelSearch& search, std::int32_t batch, std::int32_t kv_head,
                      std::int32_t head, std::int32_t query)
      : query(search.routing.of_head<T>(batch, head)[query]),
        keys(search.rows.kv_rows<T, kPaged>(search.keys, batch, kv_head)) {}
};

/// Levels from 2 on: a query row's parent. Lane s has the s-th best of the share below `bound`,
/// which then is the last of them in the four lanes that score. Whole warp.
template <class T, int kHeadDim, bool kFew, int kTopK, bool kPaged>
__device__ FoundPath search_parent(const LevelSearch& search, const Searched<T, kPaged>& row,
                                   DeviceSpan segment, Grid grid, float parent_score, Share share,
                                   PackedScore& bound) {
  const int lane = threadIdx.x % 32;
  const Distances distances(search, share);
  int ahead[kInFlight<kFew, 1, kHeadDim>];
  distances.early(ahead);
  QueryFragment<kHeadDim> query;
  const auto* const from = reinterpret_cast<const uint4*>(row.query);
#pragma unroll
  for (int j = 0; j < kHeadDim / 32; ++j) {
    query.low[j] = query.high[j] = {0, 0, 0, 0};
    if (lane < 4 && 4 * j + lane < search.rows.pieces()) query.low[j] = __ldg(from + 4 * j + lane);
  }
  TopK<kTopK> best[1];
  DeviceCut cut{};
  if (segment.end > segment.begin) {
    cut = cut_anchors(search.level, segment, grid);
    ReachLookup reaches{};
    score_share<T, kHeadDim, kFew, kPaged>(
        search, cut, row.keys, query, parent_score, distances, {bound}, ahead, best, [&] {
          if (kFew) reaches = look_up_reaches(search.level, ptx::known_here(cut.length));
        });
    if (!kFew) reaches = look_up_reaches(search.level, cut.length);
    settle_reaches(search.level, reaches, cut);
  }
  if (lane >= 4) best[0] = TopK<kTopK>();  // products of rows of zeros
  best[0].merge_lanes(3);
  bound = best[0].best[kTopK - 1];
  return found_path(search, cut, best[0].template of_lane<4>());
}

}  // namespace multistep::cuda
