#pragma once

#include "accumulate/segments.cuh"
#include "device/ptx.cuh"

/// Products on tensor cores that lose nothing that float32 sums keep: tf32 has the range of float32
/// and 11 bits, which hold the storage types exactly; a float32 is the sum of two, within 2^-21.
///
/// Operands come in pieces of 8 x 8, of which lane (g, c) = (lane / 4, lane % 4) has the entries
/// (g, 2c) and (g, 2c + 1); the second index is the one summed over. So has a sum of 16 x 8: its
/// upper piece in [0], [1], its lower one in [2], [3].
namespace multistep::cuda {

using Piece = float2;

/// sum += [upper; lower] right^T. The instruction's k = c is here 2c, and its c + 4 is 2c + 1.
__device__ inline void add_product(float (&sum)[4], Piece upper, Piece lower, Piece right) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(upper.x)), "r"(__float_as_uint(lower.x)), "r"(__float_as_uint(upper.y)),
        "r"(__float_as_uint(lower.y)), "r"(__float_as_uint(right.x)),
        "r"(__float_as_uint(right.y)));
}

/// A float32 piece as the sum of two; of `rest` the tensor cores read the first 11 bits.
struct Split {
  Piece most;
  Piece rest;

  __device__ explicit Split(Piece p) {
    most.x = __uint_as_float(__float_as_uint(p.x) & 0xffffe000u);
    most.y = __uint_as_float(__float_as_uint(p.y) & 0xffffe000u);
    rest = {p.x - most.x, p.y - most.y};
  }
};

/// Rows of a tile in shared memory. The padding spreads the banks, here and in a state.
inline constexpr int kStride = kWidth + 8;
template <class T>
using Rows = T[kTile][kStride];

/// Packed pieces: eight rows, 32 columns.
template <class T>
__device__ void take(std::uint32_t (&pieces)[4], const Rows<T>& rows, int row, int column) {
  const int lane = threadIdx.x % 32;
  ptx::load_matrices(pieces, &rows[row + lane % 8][column + lane / 8 * 8]);
}
/// The same, summed over rows: piece i has columns 8 i ...
template <class T>
__device__ void take_columns(std::uint32_t (&pieces)[4], const Rows<T>& rows, int row, int column) {
  const int lane = threadIdx.x % 32;
  ptx::load_matrices_transposed(pieces, &rows[row + lane % 8][column + lane / 8 * 8]);
}
/// 16 rows, 16 columns: upper, lower; of the next eight columns, upper, lower.
template <class T>
__device__ void take_square(std::uint32_t (&pieces)[4], const Rows<T>& rows, int row, int column) {
  const int lane = threadIdx.x % 32;
  ptx::load_matrices(pieces, &rows[row + lane % 16][column + lane / 16 * 8]);
}
/// The same, summed over rows: upper, lower columns; of the next eight rows, upper, lower.
template <class T>
__device__ void take_square_columns(std::uint32_t (&pieces)[4], const Rows<T>& rows, int row,
                                    int column) {
  const int lane = threadIdx.x % 32;
  ptx::load_matrices_transposed(pieces,
                                &rows[row + lane % 8 + lane / 16 * 8][column + lane / 8 % 2 * 8]);
}

/// Two neighbours of a row.
template <class T>
__device__ Piece two(const T* values) {
  return unpack<T>(*reinterpret_cast<const std::uint32_t*>(values));
}
__device__ inline Piece& two(float* values) { return *reinterpret_cast<Piece*>(values); }
__device__ inline Piece two(const float* values) { return *reinterpret_cast<const Piece*>(values); }

}  // namespace multistep::cuda
