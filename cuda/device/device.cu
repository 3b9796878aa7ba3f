#include "api/check.cuh"
#include "multistep/cuda/memory.hpp"

/// The current device, and the code that was loaded for it. They can differ: a newer chip compiles
/// the code of an older one anew, in which what only the newer ones have is left out. What a launch
/// may ask for is what was compiled.
namespace multistep::cuda {
namespace {

constexpr std::size_t kFeatures = 16384;

/// Never launched: what the driver says of it holds for every kernel. Whether it was compiled with
/// the features of Hopper alone, which no attribute tells, is told by its shared memory.
__global__ void probe() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ uint4 features[kFeatures / sizeof(uint4)];
  asm volatile("st.volatile.u32 [%0], 0;" ::"l"(features));  // or the compiler leaves it out
#endif
}

std::string version(int number) { return text("{}.{}", number / 1000, number % 1000 / 10); }

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
  return value;
}

int capability(int device) {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
         attribute(cudaDevAttrComputeCapabilityMinor, device);
}

/// Why the current device, `device`, has no kernels; else empty, and what the driver says of one.
std::string why_none(int device, cudaFuncAttributes& attributes) {
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe);
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // or a later launch would be blamed for it
  if (error != cudaErrorNoKernelImageForDevice && error != cudaErrorInvalidDeviceFunction) {
    return cudaGetErrorString(error);
  }
  const int chip = capability(device);
  return text("no kernels for this chip (compute capability {}.{})", chip / 10, chip % 10);
}

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

std::string why_unusable() {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no CUDA driver";
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) return "no CUDA device";
  if (error != cudaSuccess) {
    return text("driver of CUDA {}: {}", version(driver), cudaGetErrorString(error));
  }
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  cudaFuncAttributes attributes;
  return why_none(device, attributes);
}

Device current_device() {
  static PerDevice<Device> devices;
  return devices.of_current([](int device) -> Device {
    cudaFuncAttributes attributes;
    const std::string why = why_none(device, attributes);
    if (!why.empty()) throw std::runtime_error(why);
    return {.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, device),
            .architecture = attributes.ptxVersion,
            .hopper = attributes.sharedSizeBytes >= kFeatures};
  });
}

DeviceInfo device_info() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  int driver = 0;
  int runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  return {.name = properties.name,
          .memory_bytes = properties.totalGlobalMem,
          .l2_bytes = static_cast<std::size_t>(properties.l2CacheSize),
          .multiprocessors = properties.multiProcessorCount,
          .compute_capability = properties.major * 10 + properties.minor,
          .architecture = current_device().architecture,
          .driver = version(driver),
          .runtime = version(runtime)};
}

}  // namespace multistep::cuda
