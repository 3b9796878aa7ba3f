#include "multistep/cuda/timing.hpp"

#include <algorithm>

#include "api/check.cuh"

namespace multistep::cuda {
namespace {

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(Stream stream) const { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  float milliseconds_since(const Event& begin) const {
    float passed = 0;
    check(cudaEventElapsedTime(&passed, begin.event_, event_), "cudaEventElapsedTime");
    return passed;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Reads all of `data`. The write, which never happens, keeps the reads.
__global__ void read_all(uint4* data, std::size_t count) {
  unsigned bits = 0;
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint4 four = data[i];
    bits |= four.x | four.y | four.z | four.w;
  }
  if (bits != 0) data[0].x = bits;  // the buffer holds zeros
}

/// Cycles and nanoseconds that one thread spends on two million cycles.
__global__ void count_cycles(long long* cycles_and_nanoseconds) {
  constexpr long long kCycles = 1 << 21;
  long long begin_time = 0;
  long long end_time = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin_time));
  const long long begin = clock64();
  while (clock64() - begin < kCycles) {
  }
  const long long end = clock64();
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(end_time));
  cycles_and_nanoseconds[0] = end - begin;
  cycles_and_nanoseconds[1] = end_time - begin_time;
}

double attribute(cudaDeviceAttr name) {
  int device = 0;
  int value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
  return value;
}

}  // namespace

Timer::Timer(const OwnedStream& stream)
    : stream_(stream), other_(3 * static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize))) {
  other_.fill(0);
}

void Timer::flush() const {
  const auto blocks = static_cast<unsigned>(4 * attribute(cudaDevAttrMultiProcessorCount));
  read_all<<<blocks, 256, 0, stream_.get()>>>(static_cast<uint4*>(other_.data()),
                                              other_.size() / sizeof(uint4));
  check_launch("read_all");
}

std::vector<double> Timer::milliseconds(const std::function<void(Stream)>& work, int warmup,
                                        int repeats, Cache cache) const {
  require_within("repeats", repeats, 1, 100'000);
  for (int run = 0; run < warmup; ++run) work(stream_.get());
  stream_.synchronize();
  std::vector<double> times;
  constexpr int kBatch = 32;  // runs enqueued before the host waits: the device never does
  std::vector<Event> begins(kBatch);
  std::vector<Event> ends(kBatch);
  while (static_cast<int>(times.size()) < repeats) {
    const int runs = std::min(kBatch, repeats - static_cast<int>(times.size()));
    // Something before the first run as well, for the host to be ahead of the device.
    if (cache == Cache::warm) {
      flush();
      work(stream_.get());
    }
    for (int run = 0; run < runs; ++run) {
      if (cache == Cache::cold) flush();
      begins[run].record(stream_.get());
      work(stream_.get());
      ends[run].record(stream_.get());
    }
    stream_.synchronize();
    for (int run = 0; run < runs; ++run) {
      times.push_back(ends[run].milliseconds_since(begins[run]));
    }
  }
  return times;
}

double measure_copy_bandwidth(const OwnedStream& stream) {
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const std::size_t bytes = std::min(std::size_t{2} << 30, free / 4) / 256 * 256;
  DeviceBuffer from(bytes);
  DeviceBuffer to(bytes);
  from.fill(0x5a);
  const Timer timer(stream);
  std::vector<double> times = timer.milliseconds(
      [&](Stream on) {
        check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, on),
              "cudaMemcpyAsync");
      },
      3, 21, Cache::warm);
  std::nth_element(times.begin(), times.begin() + 10, times.end());
  return 2 * static_cast<double>(bytes) / (times[10] * 1e-3);
}

Clocks measure_clocks(const OwnedStream& stream) {
  DeviceArray<long long> counts(2);
  for (int run = 0; run < 3; ++run) {
    count_cycles<<<1, 1, 0, stream.get()>>>(counts.data());
    check_launch("count_cycles");
  }
  stream.synchronize();
  const std::vector<long long> host = counts.download();
  const double cycles = static_cast<double>(host[0]);
  return {attribute(cudaDevAttrClockRate) * 1e-3, attribute(cudaDevAttrMemoryClockRate) * 1e-3,
          1e3 * cycles / static_cast<double>(std::max(host[1], 1LL))};
}

}  // namespace multistep::cuda
