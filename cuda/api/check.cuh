#pragma once

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>

#include "multistep/cuda/types.hpp"

namespace multistep::cuda {

/// `message` with its {} replaced by the values, in order. (nvcc does not digest every release of
/// the fmt library.)
template <class... Values>
std::string text(const char* message, const Values&... values) {
  std::ostringstream out;
  [[maybe_unused]] const auto put = [&](const auto& value) {
    while (*message && *message != '{') out << *message++;
    out << value;
    if (*message) message += 2;
  };
  (put(values), ...);
  out << message;
  return out.str();
}

/// Throws std::runtime_error unless a CUDA call succeeded.
inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    cudaGetLastError();  // or a later launch would be blamed for it
    throw std::runtime_error(text("{}: {}", what, cudaGetErrorString(error)));
  }
}

/// Throws where the kernel launch just made was refused.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

/// Throws std::invalid_argument with a message that names the offender, its value and the range.
template <class... Values>
void require(bool holds, const char* message, const Values&... values) {
  if (!holds) throw std::invalid_argument(text(message, values...));
}

inline void require_within(const char* name, Index value, Index low, Index high) {
  require(value >= low && value <= high, "{} {}: an integer in [{}, {}]", name, value, low, high);
}

inline void require_dtype(Dtype dtype) {
  require(dtype == Dtype::bf16 || dtype == Dtype::fp16, "dtype {}: bf16 (0) or fp16 (1)",
          static_cast<int>(dtype));
}

inline void require_pointer(const void* pointer, const char* name, Index count) {
  require(pointer || count == 0, "{}: a null pointer for {} rows", name, count);
  require(reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0, "{} {}: 16-byte aligned", name,
          pointer);
}

/// Checks everything about a shape that the host can see.
void require_shape(const Shape& shape);

/// Of all but attention(), which decodes.
inline void require_no_pages(const Shape& shape) {
  require(!shape.block_table, "block_table: attention() alone reads keys in pages");
}

/// Checks the workspace against the bytes that the call needs.
void require_workspace(const Workspace& workspace, std::size_t needed);

/// Lays arrays out one after another, 256-byte aligned: the same code counts a workspace's bytes
/// (without a base, handing out addresses that are not null and not to be used) and hands it out.
class Arena {
 public:
  Arena() : Arena(reinterpret_cast<void*>(256)) {}
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(Index count) {
    T* const array = reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return array;
  }
  std::size_t used() const { return used_; }

 private:
  char* base_;
  std::size_t used_ = 0;
};

/// What is known of a device, looked up once for each. Any thread may ask.
template <class Value>
class PerDevice {
 public:
  template <class LookUp>
  Value of_current(LookUp&& look_up) {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    const std::lock_guard lock(mutex_);
    const auto known = values_.find(device);
    if (known != values_.end()) return known->second;
    return values_[device] = look_up(device);
  }

 private:
  std::mutex mutex_;
  std::map<int, Value> values_;
};

/// The current device, and what the code that was loaded for it was compiled for; each looked up
/// once.
struct Device {
  int multiprocessors;
  int architecture;  // 90 for compute_90
  bool hopper;       // with the features of Hopper alone

  /// Clusters, stores to a neighbour's shared memory, launches ahead of the previous kernel's end.
  bool clusters() const { return architecture >= 90; }
};
Device current_device();

/// Blocks of `per_block` for so many items, whatever these are.
inline unsigned blocks_for(std::int64_t items, int per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

#ifdef __CUDACC__

/// How a kernel is launched. `early`: it may start before the one ahead of it in the stream has
/// ended (programmatic dependent launch), and waits itself where it needs the other's results.
struct Launch {
  unsigned blocks;
  unsigned threads;
  Stream stream;
  bool early = false;
  int cluster = 1;  // blocks of a cluster
  std::size_t shared_bytes = 0;
  unsigned blocks_y = 1;
  bool mostly_shared = false;  // shared memory is to have the most of the L1 cache. Kernels that
                               // follow one another and differ in this do not overlap.
};

/// Gives a kernel an attribute, the first time that a device runs it. One attribute a kernel.
template <auto kKernel>
void tell_once(cudaFuncAttribute attribute, int value) {
  static PerDevice<bool> told;
  told.of_current([&](int) {
    check(cudaFuncSetAttribute(kKernel, attribute, value), "cudaFuncSetAttribute");
    return true;
  });
}

template <class... Parameters, class... Arguments>
void launch_kernel(const Launch& how, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const bool clusters = current_device().clusters();
  cudaLaunchAttribute attributes[3] = {};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(how.blocks, how.blocks_y);
  config.blockDim = how.threads;
  config.stream = how.stream;
  config.dynamicSmemBytes = how.shared_bytes;
  config.attrs = attributes;
  if (how.early && clusters) {
    cudaLaunchAttribute& early = attributes[config.numAttrs++];
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
  }
  if (how.cluster > 1 && clusters) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(how.cluster);
    cluster.val.clusterDim.y = 1;
    cluster.val.clusterDim.z = 1;
  }
  if (how.mostly_shared) {
    cudaLaunchAttribute& carveout = attributes[config.numAttrs++];
    carveout.id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    carveout.val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  }
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "launch");
}

#endif

}  // namespace multistep::cuda
