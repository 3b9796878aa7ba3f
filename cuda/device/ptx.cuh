#pragma once

#include <cuda.h>

#include <cstdint>

#include "device/storage.cuh"

/// The instructions that C++ has no name for: one wrapper each (PTX ISA 9.0).
namespace multistep::cuda::ptx {

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// 2^x, within 2 ulp; subnormal results are 0.
__device__ inline float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Warp matrix product: c += A B for A 16 x 16 and B 16 x 8. Lane (g, c) = (lane / 4, lane % 4)
/// holds A(g, 2c), A(g + 8, 2c), A(g, 2c + 8), A(g + 8, 2c + 8) and their right neighbours in a;
/// B(2c, g), B(2c + 8, g) and the ones below them in b; C(g, 2c), C(g, 2c + 1), C(g + 8, 2c),
/// C(g + 8, 2c + 1) in c.
template <class T>
__device__ void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
template <>
__device__ inline void mma<bf16>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                 std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void mma<fp16>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                 std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Four 8 x 8 matrices of 16-bit values from shared memory, lane l giving the address of row l % 8
/// of matrix l / 8. Of each, lane (g, c) gets (g, 2c) and (g, 2c + 1); transposed, (2c, g), (2c +
/// 1, g).
__device__ inline void load_matrices(std::uint32_t (&r)[4], const void* shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared))
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&r)[4], const void* shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared))
               : "memory");
}

/// Programmatic dependent launch: lets the next kernel of the stream start, and waits for the
/// previous one to have finished and its writes to be seen. Without such a launch both do nothing.
__device__ inline void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// From compute capability 9.0 on: a barrier in shared memory that counts arrivals and bytes; its
/// phases alternate 0, 1, 0, ...
struct Barrier {
  std::uint64_t state;

  __device__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals));
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(this)) : "memory");
  }
  __device__ void arrive_and_expect(int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(this)),
                 "r"(bytes)
                 : "memory");
  }
  /// Waits for the end of the phase with this parity.
  __device__ void wait(int parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@done bra DONE;\nbra AGAIN;\nDONE:\n}" ::"r"(shared_address(this)),
        "r"(parity)
        : "memory");
  }
};

__device__ inline void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// Has every thread of a cluster's blocks wait until all of them have started. In two parts: what
/// comes between need not wait.
__device__ inline void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  __syncwarp();
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
__device__ inline void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  __syncwarp();
  asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
#endif
}

/// What the blocks of a cluster send to this one, with an object of it in every block's shared
/// memory: a block opens its own, all blocks meet in the cluster's barrier, they send, and a block
/// waits for its own. Without clusters a block is alone and sends to itself.
struct Inbox {
  Barrier barrier;

  /// One thread, before cluster_arrive(): how many bytes will arrive in all.
  __device__ void open(int bytes) {
#if __CUDA_ARCH__ >= 900
    barrier.init(1);
    fence_barrier_init();
    barrier.arrive_and_expect(bytes);
#endif
  }
  /// 16 bytes to block `rank`, to the place where `here` lies in this block's shared memory.
  __device__ void send(void* here, int rank, const uint4& value) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{\n.reg .b32 to, counted;\n"
        "mapa.shared::cluster.u32 to, %0, %2;\nmapa.shared::cluster.u32 counted, %1, %2;\n"
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [to], {%3, %4, %5, %6}, "
        "[counted];\n}" ::"r"(shared_address(here)),
        "r"(shared_address(&barrier)), "r"(rank), "r"(value.x), "r"(value.y), "r"(value.z),
        "r"(value.w)
        : "memory");
#else
    *static_cast<uint4*>(here) = value;
#endif
  }
  /// Whole block.
  __device__ void wait() {
#if __CUDA_ARCH__ >= 900
    // What is sent lies in this block's shared memory: to acquire at the cluster's scope would
    // discard the L1 cache besides.
    barrier.wait(0);
#else
    __syncthreads();
#endif
  }
};

/// Asks for the 128 bytes around an address to be in the L2 cache soon.
__device__ inline void prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

/// Has the compiler compute this address once, and the ones around it from it.
template <class T>
__device__ void settle_address(const T*& address) {
  asm("" : "+l"(address));
}
/// A number that the compiler takes to be known from here on: what depends on it comes after this.
__device__ inline std::int32_t known_here(std::int32_t number) {
  asm volatile("" : "+r"(number));
  return number;
}

/// Reads 16 bytes that nobody writes meanwhile, here and not where they are first used.
__device__ inline uint4 load_now(const void* global) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global));
  return v;
}

/// The same of 4 bytes, or 0.
__device__ inline std::int32_t load_now(const std::int32_t* global, bool wanted) {
  std::int32_t value;
  asm volatile(
      "{\n.reg .pred wanted;\nsetp.ne.u32 wanted, %2, 0;\nmov.u32 %0, 0;\n"
      "@wanted ld.global.nc.u32 %0, [%1];\n}"
      : "=r"(value)
      : "l"(global), "r"(static_cast<int>(wanted)));
  return value;
}

__device__ inline void copy_async_16(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;  // the rest of the 16 bytes is zero
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global), "r"(bytes)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most `kPending` of this thread's committed groups are on their way.
template <int kPending>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Orders this thread's ordinary writes to shared memory before the tensor cores' and copy engine's
/// reads.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Copies the box at (x, y, z) of a tensor map to shared memory; its bytes arrive at `barrier`.
__device__ inline void load_box(void* shared, const CUtensorMap* map, Barrier* barrier, int x,
                                int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5}], [%2];" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
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

/// d = A B^T (+ d) for A 64 x 16 and B 128 x 16, both in shared memory with the 16 contiguous. Of
/// d, 64 x 128, lane (g, c) of the warpgroup's warp w holds (16 w + g, 8 j + 2 c) at [4 j], its
/// right neighbour at [4 j + 1], and the same of row 16 w + g + 8 at [4 j + 2], [4 j + 3].
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
  }
template <class T>
__device__ void wgmma_shared(float (&d)[64], std::uint64_t a, std::uint64_t b, bool add);
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
