#include "attend/attend_tiles.cuh"
#include "combine/slot_gates.cuh"

/// Window and combination by tiles: a window's output is joined with the spans' outputs while it is
/// in registers.
namespace multistep::cuda {

template <bool kJumps>
struct WindowTiles : WindowRows<kJumps> {
  using WindowRows<kJumps>::WindowRows;

  template <class T>
  __device__ const T* span_output(const TileRow& row, int slot) const {
    return static_cast<const T*>(this->span_outputs) +
           (row.item * this->slots + slot) * this->rows.head_dim;
  }

  /// Gates and log-sum-exps of a row's spans; the outputs are asked for.
  __device__ void prepare(const TileRow& row, SlotWeight* weights) const {
    const int slots = this->slots;
    if (slots == 0) return;
    const int row_bytes = 2 * this->rows.head_dim;
    const SlotGates gates(*this, row.index);
#pragma unroll
    for (int s = 0; s < kMaxTileSlots; ++s) {
      if (s >= slots) break;
      SlotWeight weight{-1, -kInfinity};
      if (s < gates.used) {
        const std::int64_t pair = row.item * slots + s;
        weight = {gates.gate[s], this->span_lses[pair]};
        const char* output = static_cast<const char*>(this->span_outputs) + pair * row_bytes;
        for (int line = 0; line < row_bytes; line += 128) ptx::prefetch(output + line);
      }
      weights[s] = weight;
    }
  }

  template <class T, int kHeadDim>
  struct Epilogue {
    // Outputs of a row, as registers allow; further ones are read when added.
    static constexpr int kPrefetched = kHeadDim <= 128 ? 2 : 0;
    const WindowTiles& args;
    const TileRow (&rows)[2];
    const SlotWeight (*slots)[kMaxTileSlots];  // of the first row; the second's are 8 further
    RowPieces<kHeadDim> prefetched[2][kPrefetched > 0 ? kPrefetched : 1];  // zeros: not in use

    __device__ bool in_use(int r, int slot) const {
      return rows[r].index >= 0 && slots[8 * r][slot].gate >= 0;
    }

    __device__ void prefetch() {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int s = 0; s < kPrefetched; ++s) {
          const bool use = s < args.slots && in_use(r, s);
          prefetched[r][s].load(use ? args.template span_output<T>(rows[r], s) : nullptr,
                                args.rows.pieces());
        }
      }
    }

    /// `value` is the window's output: joins it with the spans'.
    __device__ void store(float (&value)[kHeadDim / 2], const float (&lse)[2]) const {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const bool here = rows[r].index >= 0;
        if (args.slots > 0) add_spans(value, lse[r], r);
        if (args.window_lse_out && here && threadIdx.x % 4 == 0) {
          args.window_lse_out[rows[r].index] = lse[r];
        }
        T* output = static_cast<T*>(args.output) + rows[r].index * args.rows.head_dim;
        store_fragment<T, kHeadDim>(value, r, here ? output : nullptr, args.rows.pieces());
      }
    }

    __device__ void add_spans(float (&value)[kHeadDim / 2], float window_lse, int r) const {
      float of_span[kMaxTileSlots];
      float of_window = in_use(r, 0) ? 0 : 1;  // without a path the window alone
#pragma unroll
      for (int s = 0; s < kMaxTileSlots; ++s) {
        of_span[s] = 0;
        if (s >= args.slots || !in_use(r, s)) continue;
        const SlotWeight weight = slots[8 * r][s];
        Joined joined = join(weight.lse, window_lse);
        if (faulty(args.rows.fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
        of_span[s] = weight.gate * joined.first;
        of_window += weight.gate * joined.second;
      }
#pragma unroll
      for (int s = 0; s < kMaxTileSlots; ++s) {
        if (s >= args.slots) break;
        RowPieces<kHeadDim> span;
        if (s < kPrefetched) {
          span = prefetched[r][s];
        } else if (in_use(r, s)) {
          span.load(args.template span_output<T>(rows[r], s), args.rows.pieces());
        }
        add_fragment<T, kHeadDim>(value, r, span, s == 0 ? of_window : 1, of_span[s]);
      }
    }
  };
};

void combine_tiles(const Combine& combine, Stream stream) {
  combine.rows.sequence.jumps() ? launch_attend_tiles(WindowTiles<true>(combine), stream)
                                : launch_attend_tiles(WindowTiles<false>(combine), stream);
}

}  // namespace multistep::cuda
