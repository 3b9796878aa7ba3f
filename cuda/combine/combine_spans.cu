#include "api/check.cuh"
#include "api/stages.cuh"
#include "combine/slot_gates.cuh"

/// Combination without a window: nothing but reading the spans' outputs and writing their sum, 16
/// bytes a thread with all of a row's slots in flight.
namespace multistep::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 8;  // of 16 bits, in 16 bytes

template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads) combine_row_pieces(Combine combine) {
  constexpr int kPieces = kHeadDim / kValues;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t r = thread / kPieces;
  if (r >= combine.rows.total()) return;
  const int at = static_cast<int>(thread % kPieces) * kValues;
  const T* const outputs = static_cast<const T*>(combine.span_outputs);
  uint4 piece[kMaxTileSlots];
  float lse[kMaxTileSlots];
#pragma unroll
  for (int s = 0; s < kMaxTileSlots; ++s) {
    if (s >= combine.slots) break;
    const std::int64_t pair = r * combine.slots + s;
    piece[s] = __ldcs(reinterpret_cast<const uint4*>(outputs + pair * kHeadDim + at));
    lse[s] = __ldg(combine.span_lses + pair);
  }

  const Rows::Row row = combine.rows.at(r);
  const SlotGates gates(combine, row.index);
  if (combine.window_lse_out && at == 0) combine.window_lse_out[row.index] = -kInfinity;
  float sum[kValues] = {};
#pragma unroll
  for (int s = 0; s < kMaxTileSlots; ++s) {
    if (s >= gates.used) break;
    Joined joined = join(lse[s], -kInfinity);
    if (faulty(combine.rows.fault, Fault::window_lse_ignored)) joined = {0.5f, 0.5f, 0};
    const float weight = gates.gate[s] * joined.first;
    const std::uint32_t bits[4] = {piece[s].x, piece[s].y, piece[s].z, piece[s].w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = unpack<T>(bits[i]);
      sum[2 * i] = fmaf(weight, pair.x, sum[2 * i]);
      sum[2 * i + 1] = fmaf(weight, pair.y, sum[2 * i + 1]);
    }
  }
  uint4 packed{pack<T>(sum[0], sum[1]), pack<T>(sum[2], sum[3]), pack<T>(sum[4], sum[5]),
               pack<T>(sum[6], sum[7])};
  T* const output = static_cast<T*>(combine.output) + row.index * kHeadDim + at;
  __stcs(reinterpret_cast<uint4*>(output), packed);
}

template <class T>
void launch(const Combine& combine, Stream stream) {
  const bool wide = combine.rows.head_dim == 128;
  require(wide || combine.rows.head_dim == 64, "head_dim {}: built for 64 and 128",
          combine.rows.head_dim);
  const std::int64_t threads = combine.rows.total() * (combine.rows.head_dim / kValues);
  const auto blocks = blocks_for(threads, kThreads);
  if (blocks == 0) return;
  wide ? combine_row_pieces<T, 128><<<blocks, kThreads, 0, stream>>>(combine)
       : combine_row_pieces<T, 64><<<blocks, kThreads, 0, stream>>>(combine);
  check_launch("combine_row_pieces");
}

}  // namespace

void combine_spans(const Combine& combine, Stream stream) {
  combine.dtype == Dtype::bf16 ? launch<bf16>(combine, stream) : launch<fp16>(combine, stream);
}

}  // namespace multistep::cuda
