#pragma once

#include "attend/backward_queries.cuh"
#include "group/key_pieces.cuh"

/// Backward, pass 3: the derivatives by keys and values. A block owns 128 keys, and has the tiles
/// of 64 rows that look at any of them brought: of the weights P^T of keys against rows, dV +=
/// share P^T dO, and with dS^T = P^T (share V dO^T - mean), dK += dS^T Q. Here is what a thread
/// does with its two keys, 8 apart, whichever instructions multiply.
namespace multistep::cuda {

__device__ inline bool meet(DeviceSpan a, std::int32_t begin, std::int32_t end) {
  return a.begin < end && begin < a.end;
}

/// Of the derivatives kColumns columns, from `first_column` on.
template <class T, int kColumns>
struct KeyGradients {
  const LaidRows& args;
  const KeyPieces& pieces;
  int first_column;
  float by_key[kColumns / 2];
  float by_value[kColumns / 2];

  __device__ KeyGradients(const LaidRows& rows, const KeyPieces& of_keys, int first = 0)
      : args(rows), pieces(of_keys), first_column(first) {}

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) by_key[i] = by_value[i] = 0;
  }

  /// `logits` with rows `items` become share P, and `by_weights` dS; this thread's keys are `key`
  /// and `key` + 8.
  template <bool kMasked, int kLogits>
  __device__ void weigh(float (&logits)[kLogits], float (&by_weights)[kLogits],
                        const ItemRow* items, int key) const {
    const float scale_log2 = args.scale * kLog2E;
#pragma unroll
    for (int i = 0; i < kLogits; ++i) {
      const int column = 8 * (i / 4) + 2 * static_cast<int>(threadIdx.x % 4) + i % 2;
      const ItemWeight item = items[column].weight;
      const float weight = ptx::exp2(fmaf(logits[i], scale_log2, -item.lse_log2));
      by_weights[i] = weight * fmaf(item.share, by_weights[i], -item.mean);
      logits[i] = weight * item.share;
      if (!kMasked) continue;
      const DeviceSpan keys = items[column].keys;
      const bool inside = static_cast<unsigned>(key + i / 2 % 2 * 8 - keys.begin) <
                          static_cast<unsigned>(keys.end - keys.begin);
      if (!inside) logits[i] = by_weights[i] = 0;
    }
  }

  /// Stores what a tile-mate's row has not spoiled, and sums the rest alone, a warp a key. This
  /// thread's keys are `row` and `row` + 8 of those that the piece has from `first` on.
  __device__ void finish(const KeyPiece& piece, int kv_head, std::int64_t first, int row) {
    unsigned todo[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const bool held = first + row + 8 * r < args.rows.keys;
      const bool bad = spoiled<kColumns>(by_key, r) | spoiled<kColumns>(by_value, r);
      const bool skip = faulty(args.rows.fault, Fault::repair_skipped);
      todo[r] = __ballot_sync(kFullWarp, held && bad && !skip) & 0x11111111u;
      if (held && (!bad || skip)) store(destination(piece, kv_head, first, row + 8 * r), r);
    }
    const int warp_row = row - static_cast<int>(threadIdx.x % 32) / 4;
#pragma unroll 1
    for (int r = 0; r < 2; ++r) {
      while (todo[r]) {
        const int source = __ffs(static_cast<int>(todo[r])) - 1;
        todo[r] &= todo[r] - 1;
        const int spoiled_row = warp_row + source / 4 + 8 * r;
        KeyGradient sum;
        sum.add_rows<T>(args, kv_head, first + spoiled_row,
                        static_cast<std::int64_t>(piece.begin) * kTileRows,
                        min(static_cast<std::int64_t>(piece.end) * kTileRows, args.per_head));
        const Destination to = destination(piece, kv_head, first, spoiled_row);
        sum.store(args.scale, to.by_key, to.by_value, first_column,
                  min(first_column + kColumns, args.rows.head_dim), to.add);
      }
    }
  }

 private:
  /// Where the sums of a piece's key go.
  struct Destination {
    float* by_key;
    float* by_value;
    bool add;
  };
  __device__ Destination destination(const KeyPiece& piece, int kv_head, std::int64_t first,
                                     int r) const {
    const int d = args.rows.head_dim;
    if (piece.sums >= 0) {
      float* const sums = pieces.sums + static_cast<std::int64_t>(piece.sums) * 2 * kOwnedKeys * d;
      return {sums + r * d, sums + (kOwnedKeys + r) * d, false};
    }
    const std::int64_t at = (kv_head * args.rows.keys + first + r) * d;
    return {args.gradients.key_sums + at, args.gradients.value_sums + at, true};
  }

  __device__ void store(const Destination& to, int r) const {
    const int c = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
      if (first_column / 8 + j >= args.rows.pieces()) break;
      float2* const key = reinterpret_cast<float2*>(to.by_key + first_column) + 4 * j + c;
      float2* const value = reinterpret_cast<float2*>(to.by_value + first_column) + 4 * j + c;
      float2 k{args.scale * by_key[4 * j + 2 * r], args.scale * by_key[4 * j + 2 * r + 1]};
      float2 v{by_value[4 * j + 2 * r], by_value[4 * j + 2 * r + 1]};
      if (to.add) {
        const float2 old_key = *key;
        const float2 old_value = *value;
        k = {k.x + old_key.x, k.y + old_key.y};
        v = {v.x + old_value.x, v.y + old_value.y};
      }
      *key = k;
      *value = v;
    }
  }
};

void key_gradients_sm90(const LaidRows& args, const KeyPieces& pieces, Stream stream);
void key_gradients_sm80(const LaidRows& args, const KeyPieces& pieces, Stream stream);

}  // namespace multistep::cuda
