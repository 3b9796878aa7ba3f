#pragma once

#include "accumulate/recurrence.cuh"

/// The fast backward. G_t = d loss / d H_t obeys the recurrence of H from the end, with dr and c
/// for x and b: of a tile, H is the state before its first row and K = a G what comes from behind
/// its last, [d][k]. With D_ts = a_{s+1} ... a_t, P_t = a_first ... a_t:
///   dx_s = D_last,s K b_s + sum over t >= s of D_ts <b_s, c_t> dr_t
///   db_s = D_last,s K^T x_s + sum over t >= s of D_ts <x_s, dr_t> c_t
///   dc_t = P_t H^T dr_t + sum over s <= t of D_ts <dr_t, x_s> b_s
///   H becomes P_last H + sum of D_last,s x_s b_s^T, and K, backwards, P_last K + sum of P_t dr_t
///   c_t^T.
namespace multistep::cuda {

inline constexpr int kStretch = 3;  // tiles between states of a segment that are kept
inline constexpr int kKept = 2;
static_assert(kSegmentRows <= (kKept + 1) * kStretch * kTile, "the first is the segment's own");

/// What a block shares that finds the gradients.
template <class T>
struct alignas(16) BackwardTile {
  Recurrence<T> forward;
  Recurrence<T> back;
  Slab kept[kKept];
  Decays decay;
  float a[kTile];
  // [t][s + 1]: <c_t, b_s> <dr_t, x_s>; with H for x_s b_s^T in column 0, K for dr_t c_t^T in the
  // last row.
  float pairs[kTile + 1][kTile + 1];
};
static_assert(sizeof(BackwardTile<bf16>) <= 99 * 1024, "what any chip has; two fit on Hopper");

/// One warp has 16 rows of 64 columns of a gradient: row r's are [4 n + 2 h], [4 n + 2 h + 1] for
/// columns 8 n + 2 c, 8 n + 2 c + 1, where r = g + 8 h.
using Gradient = float[8][4];

/// Sixteen rows of `rows`, packed: [columns / 16].
using Queries = std::uint32_t[4][4];
template <class T>
__device__ void take_queries(Queries& queries, const Rows<T>& rows, int row) {
#pragma unroll
  for (int j = 0; j < 4; ++j) take_square(queries[j], rows, row, 16 * j);
}

/// scores = <queries, keys>, for the keys from `key` to `key` + 7.
template <class T>
__device__ void score(float (&scores)[4], const Queries& queries, const Rows<T>& keys, int key) {
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    std::uint32_t pieces[4];
    take(pieces, keys, key, 32 * half);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t(&square)[4] = queries[2 * half + i / 2];
      add_product(scores, unpack<T>(square[2 * (i % 2)]), unpack<T>(square[2 * (i % 2) + 1]),
                  unpack<T>(pieces[i]));
    }
  }
}

/// sum = state queries: of the state, piece(n, j) has the rows n ... of the result, summed over
/// j ...
template <class T, class StatePiece>
__device__ void add_state(Gradient& sum, const Queries& queries, StatePiece piece) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const Piece upper = unpack<T>(queries[j / 2][2 * (j % 2)]);
    const Piece lower = unpack<T>(queries[j / 2][2 * (j % 2) + 1]);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const Split right(piece(8 * n, 8 * j));
      add_product(sum[n], upper, lower, right.rest);
      add_product(sum[n], upper, lower, right.most);
    }
  }
}

/// Adds, for the 16 rows from `row`, their sum over keys of decay <queries, key> value: over those
/// of later rows and their own, or of earlier ones and their own. The others are left out, not
/// multiplied by 0: where a value among them is no number, term by term.
template <bool kLater, class T>
__device__ void add_tile(Gradient& sum, const Queries& queries, const Rows<T>& keys,
                         const Rows<T>& values, const Decays& decay, int row) {
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int c = lane % 4;
  const auto sees = [](int row, int key) { return kLater ? key >= row : key <= row; };
  for (int key = 0; key < kTile; key += 8) {
    if (!sees(kLater ? row : row + 15, kLater ? key + 7 : key)) continue;
    float weight[4];
    score(weight, queries, keys, key);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + g + i / 2 * 8;
      const int j = key + 2 * c + i % 2;
      weight[i] = sees(r, j) ? weight[i] * (kLater ? decay[j][r] : decay[r][j]) : 0;
    }
    std::uint32_t pieces[2][4];
    take_columns(pieces[0], values, key, 0);
    take_columns(pieces[1], values, key, 32);
    bool finite = true;
    if (!sees(kLater ? row + 15 : row, kLater ? key : key + 7)) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const Piece value = unpack<T>(pieces[n / 4][n % 4]);
        finite = finite && isfinite(value.x) && isfinite(value.y);
      }
    }
    if (__all_sync(kFullWarp, finite)) {
      const Split upper({weight[0], weight[1]});
      const Split lower({weight[2], weight[3]});
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const Piece value = unpack<T>(pieces[n / 4][n % 4]);
        add_product(sum[n], upper.rest, lower.rest, value);
        add_product(sum[n], upper.most, lower.most, value);
      }
      continue;
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float mine = __shfl_sync(kFullWarp, weight[2 * r + j % 2], lane / 4 * 4 + j / 2);
        if (!sees(row + g + 8 * r, key + j)) continue;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          const Piece value = two(&values[key + j][8 * n + 2 * c]);
          sum[n][2 * r] = fmaf(mine, value.x, sum[n][2 * r]);
          sum[n][2 * r + 1] = fmaf(mine, value.y, sum[n][2 * r + 1]);
        }
      }
    }
  }
}

/// to[row * stride] = <sum, others> of each of the 16 rows from `row`.
template <class T>
__device__ void write_dots(float* to, int stride, const Gradient& sum, const Rows<T>& others,
                           int row) {
  const int g = threadIdx.x % 32 / 4;
  const int c = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float dot = 0;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const Piece other = two(&others[row + g + 8 * r][8 * n + 2 * c]);
      dot = fmaf(sum[n][2 * r], other.x, dot);
      dot = fmaf(sum[n][2 * r + 1], other.y, dot);
    }
    dot = quad_sum(dot);
    if (c == 0) to[(row + g + 8 * r) * stride] = dot;
  }
}

/// Multiplies the 16 rows from `row` by scale(row).
template <class Scale>
__device__ void scale_rows(Gradient& sum, int row, Scale scale) {
  const int g = threadIdx.x % 32 / 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float factor = scale(row + g + 8 * r);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      sum[n][2 * r] *= factor;
      sum[n][2 * r + 1] *= factor;
    }
  }
}

/// The pairs of 16 rows from `row`, by one warp.
template <class T>
__device__ void write_pairs(BackwardTile<T>& tile, int row) {
  const int g = threadIdx.x % 32 / 4;
  const int c = threadIdx.x % 4;
  Queries by_state;
  Queries by_head_dim;
  take_queries(by_state, tile.back.right, row);
  take_queries(by_head_dim, tile.back.left, row);
  for (int s = 0; s < row + 16; s += 8) {
    float one[4];
    float other[4];
    score(one, by_state, tile.forward.right, s);
    score(other, by_head_dim, tile.forward.left, s);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      tile.pairs[row + g + i / 2 * 8][s + 2 * c + i % 2 + 1] = one[i] * other[i];
    }
  }
}

/// pairs[kTile][0] = <K, H>, by one warp.
template <class T>
__device__ void write_state_pair(BackwardTile<T>& tile) {
  float sum = 0;
  for (int i = threadIdx.x % 32; i < kWidth * kWidth; i += 32) {
    const int at = entry(i / kWidth, i % kWidth);
    sum = fmaf(tile.back.state[at], tile.forward.state[at], sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) tile.pairs[kTile][0] = sum;
}

/// da_t = <G_t, H_{t-1}> = sum over u >= t and s < t of D_ut D_{t-1,s} pairs[u][s + 1], where H
/// stands before the first row and K behind the last. By one warp: lane u sums over s as t grows,
/// then lane t over u.
template <class T>
__device__ void write_decay_gradient(BackwardTile<T>& tile, float* to, int count, bool first) {
  const int lane = threadIdx.x % 32;
  float sum = 0;
#pragma unroll 8
  for (int t = 0; t < kTile; ++t) {
    if (t > lane) continue;
    sum = t == 0 ? tile.pairs[lane][0] : fmaf(tile.a[t - 1], sum, tile.pairs[lane][t]);
    tile.pairs[lane][t] = tile.decay[lane][t] * sum;
  }
  __syncwarp();
  const int t = lane;
  float last = tile.pairs[kTile][0];
  if (t > 0) last *= tile.decay[t - 1][kTile];
  for (int s = 0; s < t; ++s) last = fmaf(tile.decay[t - 1][s], tile.pairs[kTile][s + 1], last);
  float total = tile.decay[kTile - 1][t] * last;
  for (int u = t; u < kTile; ++u) total += tile.pairs[u][t];
  if (t < count) to[t] = first ? total : to[t] + total;
}

}  // namespace multistep::cuda
