#pragma once

#include "accumulate/product.cuh"
#include "device/fragment.cuh"

/// The fast backward. G_t = d loss / d H_t obeys the recurrence of H from the end, with dr and c
/// for x and b: of a tile, H is the state before its first row and K = a G what comes from behind
/// its last, [d][k]. With D_ts = a_{s+1} ... a_t, P_t = a_first ... a_t:
///   dx_s = D_last,s K b_s + sum over t >= s of D_ts <b_s, c_t> dr_t
///   db_s = D_last,s K^T x_s + sum over t >= s of D_ts <x_s, dr_t> c_t
///   dc_t = P_t H^T dr_t + sum over s <= t of D_ts <dr_t, x_s> b_s
///   H becomes P_last H + sum of D_last,s x_s b_s^T, and K, backwards, P_last K + sum of P_t dr_t
///   c_t^T.
namespace multistep::cuda {

inline constexpr int kBackThreads = 256;
inline constexpr int kStretch = 3;  // tiles between states of a segment that are kept
inline constexpr int kKept = 2;
static_assert(kSegmentRows <= (kKept + 1) * kStretch * kTile, "the first is the segment's own");

/// A slab of 64 x 64 entries of H or K.
using Slab = float[kWidth * kStride];
__device__ inline int entry(int d, int k) { return kStride * d + 8 * (d / 4 % 2) + k; }

/// H with x and b, or K with dr and c.
template <class T>
struct alignas(16) Recurrence {
  Rows<T> left;
  Rows<T> right;
  Slab state;
};

/// What a block shares that walks a recurrence.
template <class T>
struct alignas(16) Walk {
  Recurrence<T> of;
  Decays decay;
};

/// What it shares to find the gradients.
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

/// Loads `count` rows of `width` columns, 0 elsewhere. Until wait_for_rows() they are on their way.
template <class T>
__device__ void load_rows(Rows<T>& to, const T* from, Index stride, int count, int width) {
  if (stride % 8 == 0) {
    static_assert(kBackThreads == kTile * kWidth / 8, "16 bytes for each thread");
    const int t = threadIdx.x / 8;
    const int column = threadIdx.x % 8 * 8;
    const bool there = t < count && column < width;
    ptx::copy_async_16(&to[t][column], there ? from + t * stride + column : from, there);
    return;
  }
  for (int i = threadIdx.x; i < kTile * kWidth; i += kBackThreads) {
    const int t = i / kWidth;
    const int column = i % kWidth;
    to[t][column] = t < count && column < width ? from[t * stride + column] : from_float<T>(0);
  }
}
__device__ inline void wait_for_rows() {
  ptx::commit_copies();
  ptx::wait_for_copies<0>();
  __syncthreads();
}

/// Entries [D - d0, S - k0] at most of a state in memory, 0 elsewhere; a null pointer is 0.
__device__ inline void load_slab(Slab& to, const float* from, Index S, int rows, int columns) {
#pragma unroll 4
  for (int i = threadIdx.x; i < kWidth * kWidth; i += kBackThreads) {
    const int d = i / kWidth;
    const int k = i % kWidth;
    to[entry(d, k)] = from && d < rows && k < columns ? from[d * S + k] : 0;
  }
}
__device__ inline void store_slab(float* to, const Slab& from, Index S, int rows, int columns) {
  for (int i = threadIdx.x; i < kWidth * kWidth; i += kBackThreads) {
    const int d = i / kWidth;
    const int k = i % kWidth;
    if (d < rows && k < columns) to[d * S + k] = from[entry(d, k)];
  }
}
__device__ inline void copy_slab(Slab& to, const Slab& from) {
  for (int i = 4 * threadIdx.x; i < kWidth * kStride; i += 4 * kBackThreads) {
    *reinterpret_cast<float4*>(&to[i]) = *reinterpret_cast<const float4*>(&from[i]);
  }
}

/// The state becomes decay times itself + sum over t of weight(t) left_t right_t^T. A warp has 16 x
/// 32 entries.
template <class T, class Weight>
__device__ void advance(Recurrence<T>& of, float decay, Weight weight) {
  const int g = threadIdx.x % 32 / 4;
  const int c = threadIdx.x % 4;
  const int d = threadIdx.x / 64 * 16;
  const int k = threadIdx.x / 32 % 2 * 32;
  static_assert(kBackThreads == 256, "four warps down, two across");
  float sum[4][4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Piece old = two(&of.state[entry(d + g + 8 * r, k + 8 * n + 2 * c)]);
      sum[n][2 * r] = decay * old.x;
      sum[n][2 * r + 1] = decay * old.y;
    }
  }
  for (int t0 = 0; t0 < kTile; t0 += 16) {
    std::uint32_t left[4];
    take_square_columns(left, of.left, t0, d);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = t0 + 8 * half;
      const Piece scale = {weight(t + 2 * c), weight(t + 2 * c + 1)};
      const Piece upper = unpack<T>(left[2 * half]);
      const Piece lower = unpack<T>(left[2 * half + 1]);
      const Split above({scale.x * upper.x, scale.y * upper.y});
      const Split below({scale.x * lower.x, scale.y * lower.y});
      std::uint32_t right[4];
      take_columns(right, of.right, t, k);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        add_product(sum[n], above.rest, below.rest, unpack<T>(right[n]));
      }
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        add_product(sum[n], above.most, below.most, unpack<T>(right[n]));
      }
    }
  }
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      two(&of.state[entry(d + g + 8 * r, k + 8 * n + 2 * c)]) = {sum[n][2 * r], sum[n][2 * r + 1]};
    }
  }
}
template <class T>
__device__ void advance_forward(Recurrence<T>& of, const Decays& decay) {
  advance(of, decay[kTile - 1][kTile], [&](int s) { return decay[kTile - 1][s]; });
}
template <class T>
__device__ void advance_back(Recurrence<T>& of, const Decays& decay) {
  advance(of, decay[kTile - 1][kTile], [&](int t) { return decay[t][kTile]; });
}

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

/// Where a gradient's rows go. Wider than a slab, it is a sum over slabs, of which `sums` has the
/// earlier ones'.
template <class T>
struct Out {
  T* rows;
  float* sums;
  Index stride;
  int width;
  bool first;
  bool last;

  __device__ void store(Gradient& sum, Index row, int count) const {
    const int g = threadIdx.x % 32 / 4;
    const int c = threadIdx.x % 4;
    if (first && last && width == kWidth && stride % 8 == 0) {
      const float(&values)[32] = reinterpret_cast<const float(&)[32]>(sum);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        T* const to = g + 8 * r < count ? rows + (row + g + 8 * r) * stride : nullptr;
        store_fragment<T, kWidth>(values, r, to);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int r = g + i / 2 % 2 * 8;
      const int column = i / 4 * 8 + 2 * c + i % 2;
      if (r >= count || column >= width) continue;
      const Index at = (row + r) * stride + column;
      float& value = sum[i / 4][i % 4];
      if (!first) value += sums[at];
      if (last) {
        rows[at] = from_float<T>(value);
      } else {
        sums[at] = value;
      }
    }
  }
};

}  // namespace multistep::cuda
