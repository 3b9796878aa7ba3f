#pragma once

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

  /// One thread, before cluster_arrive(): how many bytes will arrive in turn 0.
  __device__ void open(int bytes) {
#if __CUDA_ARCH__ >= 900
    barrier.init(1);
    fence_barrier_init();
    barrier.arrive_and_expect(bytes);
#endif
  }
  /// One thread, behind a wait(): how many bytes will arrive in the next turn. By then no thread of
  /// the block may wait for the one before the last.
  __device__ void expect(int bytes) {
#if __CUDA_ARCH__ >= 900
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
  /// For what is sent in a turn, counted from 0. Whole block.
  __device__ void wait(int turn) {
#if __CUDA_ARCH__ >= 900
    // What is sent lies in this block's shared memory: to acquire at the cluster's scope would
    // discard the L1 cache besides.
    barrier.wait(turn % 2);
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

}  // namespace multistep::cuda::ptx
