#include "api/check.cuh"
#include "api/stages.cuh"
#include "combine/slot_gates.cuh"

/// Combination where there is no window to attend to: nothing but reading the outputs of the spans,
/// and of the window where it has been attended to, and writing their sum. 16 bytes a thread, with
/// several slots in flight.
namespace multistep::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;       // of 16 bits, in 16 bytes
constexpr int kSlotsAtOnce = 4;  // in flight

/// What slots count in a row's output, where there are more than SlotGates takes.
struct ManyGates {
  static constexpr bool kMany = true;
  const float* scores;
  int used;
  Gates gates;

  __device__ ManyGates(const Combine& combine, std::int64_t row)
      : scores(combine.scores + row * combine.slots),
        used(slots_in_use(combine.spans + row * combine.slots, combine.slots)),
        gates(gates_of(scores, used)) {}
  __device__ float gate(int slot) const { return gates.of(scores[slot]); }
};
struct FewGates : SlotGates {
  static constexpr bool kMany = false;
  using SlotGates::SlotGates;
  __device__ float gate(int slot) const { return SlotGates::gate[slot]; }
};

template <class T>
__device__ void add_piece(float (&sum)[kValues], float weight, const uint4& piece) {
  const std::uint32_t bits[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = unpack<T>(bits[i]);
    sum[2 * i] = fmaf(weight, pair.x, sum[2 * i]);
    sum[2 * i + 1] = fmaf(weight, pair.y, sum[2 * i + 1]);
  }
}

/// threadIdx.x: a piece of the row that threadIdx.y has. The window's output may be read from where
/// the sum is written to.
template <class T, class RowGates>
__global__ void __launch_bounds__(kThreads) combine_row_pieces(Combine combine) {
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (r >= combine.rows.total()) return;
  const int head_dim = combine.rows.head_dim;
  const int at = static_cast<int>(threadIdx.x) * kValues;
  const T* const span_outputs = static_cast<const T*>(combine.span_outputs);
  uint4 piece[kSlotsAtOnce];
  float lse[kSlotsAtOnce];
  const auto ask = [&](int first) {  // of slots that are not in use too, whatever is there
#pragma unroll
    for (int i = 0; i < kSlotsAtOnce; ++i) {
      if (first + i >= combine.slots) break;
      const std::int64_t pair = r * combine.slots + first + i;
      piece[i] = __ldcs(reinterpret_cast<const uint4*>(span_outputs + pair * head_dim + at));
      lse[i] = __ldg(combine.span_lses + pair);
    }
  };
  ask(0);  // before all that tells which are in use
  const Rows::Row row = combine.rows.at(r);
  uint4 window{};
  float window_lse = -kInfinity;
  if (combine.window_output) {
    const T* const outputs = static_cast<const T*>(combine.window_output);
    window = *reinterpret_cast<const uint4*>(outputs + row.index * head_dim + at);
    window_lse = combine.window_lse[row.index];
  }
  const RowGates gates(combine, row.index);
  float sum[kValues] = {};
  float of_window = gates.used > 0 ? 0 : 1;  // without a path the window alone
  const auto add = [&](int first) {
#pragma unroll
    for (int i = 0; i < kSlotsAtOnce; ++i) {
      if (first + i >= gates.used) break;
      Joined joined = join(lse[i], window_lse);
      if (faulty(combine.rows.fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
      float gate = gates.gate(first + i);
      if (faulty(combine.rows.fault, Fault::gates_equal)) gate = 1.0f / gates.used;
      add_piece<T>(sum, gate * joined.first, piece[i]);
      of_window += gate * joined.second;
    }
  };
  add(0);
  if constexpr (RowGates::kMany) {
#pragma unroll 1
    for (int first = kSlotsAtOnce; first < gates.used; first += kSlotsAtOnce) {
      ask(first);
      add(first);
    }
  }
  // Of no keys the output is 0, or not there: it counts 0.
  if (window_lse != -kInfinity) add_piece<T>(sum, of_window, window);
  if (combine.window_lse_out && at == 0) combine.window_lse_out[row.index] = window_lse;
  const uint4 packed{pack<T>(sum[0], sum[1]), pack<T>(sum[2], sum[3]), pack<T>(sum[4], sum[5]),
                     pack<T>(sum[6], sum[7])};
  T* const output = static_cast<T*>(combine.output) + row.index * head_dim + at;
  __stcs(reinterpret_cast<uint4*>(output), packed);
}

template <class T>
void launch(const Combine& combine, Stream stream) {
  const dim3 threads(static_cast<unsigned>(combine.rows.pieces()),
                     static_cast<unsigned>(kThreads / combine.rows.pieces()));
  const auto blocks = blocks_for(combine.rows.total(), static_cast<int>(threads.y));
  if (blocks == 0) return;
  combine.slots <= kMaxTileSlots
      ? combine_row_pieces<T, FewGates><<<blocks, threads, 0, stream>>>(combine)
      : combine_row_pieces<T, ManyGates><<<blocks, threads, 0, stream>>>(combine);
  check_launch("combine_row_pieces");
}

}  // namespace

void combine_spans(const Combine& combine, Stream stream) {
  combine.dtype == Dtype::bf16 ? launch<bf16>(combine, stream) : launch<fp16>(combine, stream);
}

}  // namespace multistep::cuda
