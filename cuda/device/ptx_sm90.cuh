#pragma once

#include <cuda.h>

#include "device/ptx.cuh"

/// The instructions of Hopper alone: the copy engine, products of a warpgroup, registers moved
/// between warpgroups.
namespace multistep::cuda::ptx {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Orders this thread's ordinary writes to shared memory before the tensor cores' and copy engine's
/// reads.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Copies the box at (x, y, z) of a tensor map to shared memory; its bytes arrive at `barrier`.
__device__ inline void load_box(void* shared, const CUtensorMap* map, Barrier* barrier, int x,
                                int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5, %6}], [%2];" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

template <int kRegisters>
__device__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

/// Pins registers: what is computed into them stays before this point, what is computed from them
/// after it. Products read and write registers behind the compiler's back.
template <int kCount>
__device__ void pin(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int kRows, int kColumns>
__device__ void pin(std::uint32_t (&registers)[kRows][kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows * kColumns; ++i) {
    asm volatile("" : "+r"(registers[i / kColumns][i % kColumns])::"memory");
  }
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Where a warpgroup product finds a tile in shared memory: rows of 128 bytes, swizzled over 1024
/// bytes (8 rows), 8-row groups following one another. `panel` is the distance in bytes to the next
/// 64 columns, where the columns are not the dimension that is summed over.
__device__ inline std::uint64_t tile_descriptor(const void* shared, int panel) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kGroup = std::uint64_t{1024 >> 4} << 32;
  return kSwizzle128 | kGroup | (static_cast<std::uint64_t>(panel >> 4) << 16) |
         ((shared_address(shared) & 0x3ffff) >> 4);
}

#define MULTISTEP_F4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MULTISTEP_F16(d, i) \
  MULTISTEP_F4(d, i), MULTISTEP_F4(d, i + 4), MULTISTEP_F4(d, i + 8), MULTISTEP_F4(d, i + 12)
#define MULTISTEP_D32                                                                       \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23," \
  "%24,%25,%26,%27,%28,%29,%30,%31}"
#define MULTISTEP_D64                                                                        \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"  \
  "%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45," \
  "%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"

/// d = A B^T (+ d) for A 64 x 16 and B N x 16, both in shared memory with the 16 contiguous, N =
/// 128 or 64. Of d, 64 x N, lane (g, c) of the warpgroup's warp w holds (16 w + g, 8 j + 2 c) at [4
/// j], its right neighbour at [4 j + 1], and the same of row 16 w + g + 8 at [4 j + 2], [4 j + 3].
#define MULTISTEP_WGMMA_SS(T, NAME)                                                             \
  template <>                                                                                   \
  __device__ inline void wgmma_shared<T>(float(&d)[64], std::uint64_t a, std::uint64_t b,       \
                                         bool add) {                                            \
    asm volatile(                                                                               \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                            \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " " MULTISTEP_D64          \
        ", %64, %65, p, 1, 1, 0, 0;\n}"                                                         \
        : MULTISTEP_F16(d, 0), MULTISTEP_F16(d, 16), MULTISTEP_F16(d, 32), MULTISTEP_F16(d, 48) \
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                          \
  }                                                                                             \
  template <>                                                                                   \
  __device__ inline void wgmma_shared<T>(float(&d)[32], std::uint64_t a, std::uint64_t b,       \
                                         bool add) {                                            \
    asm volatile(                                                                               \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                            \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " " MULTISTEP_D32           \
        ", %32, %33, p, 1, 1, 0, 0;\n}"                                                         \
        : MULTISTEP_F16(d, 0), MULTISTEP_F16(d, 16)                                             \
        : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                          \
  }
template <class T>
__device__ void wgmma_shared(float (&d)[64], std::uint64_t a, std::uint64_t b, bool add);
template <class T>
__device__ void wgmma_shared(float (&d)[32], std::uint64_t a, std::uint64_t b, bool add);
MULTISTEP_WGMMA_SS(bf16, "bf16")
MULTISTEP_WGMMA_SS(fp16, "f16")
#undef MULTISTEP_WGMMA_SS

/// d += A B for A 64 x 16 in registers, laid out as in `mma` for each warp's 16 rows, and B 16 x N
/// in shared memory with the N contiguous; N = 128 or 64.
#define MULTISTEP_WGMMA_RS(T, NAME)                                                             \
  template <>                                                                                   \
  __device__ inline void wgmma_registers<T>(float(&d)[64], const std::uint32_t(&a)[4],          \
                                            std::uint64_t b) {                                  \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " " MULTISTEP_D64 \
                 ", {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"                                        \
                 : MULTISTEP_F16(d, 0), MULTISTEP_F16(d, 16), MULTISTEP_F16(d, 32),             \
                   MULTISTEP_F16(d, 48)                                                         \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                         \
  }                                                                                             \
  template <>                                                                                   \
  __device__ inline void wgmma_registers<T>(float(&d)[32], const std::uint32_t(&a)[4],          \
                                            std::uint64_t b) {                                  \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." NAME "." NAME " " MULTISTEP_D32  \
                 ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"                                        \
                 : MULTISTEP_F16(d, 0), MULTISTEP_F16(d, 16)                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                         \
  }
template <class T>
__device__ void wgmma_registers(float (&d)[64], const std::uint32_t (&a)[4], std::uint64_t b);
template <class T>
__device__ void wgmma_registers(float (&d)[32], const std::uint32_t (&a)[4], std::uint64_t b);
MULTISTEP_WGMMA_RS(bf16, "bf16")
MULTISTEP_WGMMA_RS(fp16, "f16")
#undef MULTISTEP_WGMMA_RS
#undef MULTISTEP_D64
#undef MULTISTEP_D32
#undef MULTISTEP_F16
#undef MULTISTEP_F4

#endif  // Hopper

}  // namespace multistep::cuda::ptx
