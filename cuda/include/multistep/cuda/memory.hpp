#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "multistep/cuda/types.hpp"

/// Memory of the device and the 16-bit storage types, for programs and tests that include no CUDA
/// header. Unlike the stages, these functions allocate and wait.
namespace multistep::cuda {

/// Bytes on the current device. Throws std::runtime_error where there are not enough.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  void* data() const { return data_; }
  std::size_t size() const { return size_; }
  void fill(std::uint8_t byte);
  void upload(const void* host, std::size_t bytes, std::size_t offset = 0);
  void download(void* host, std::size_t bytes, std::size_t offset = 0) const;

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// An array of T on the device.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t count) : buffer_(count * sizeof(T)), count_(count) {}
  explicit DeviceArray(std::span<const T> host) : DeviceArray(host.size()) {
    buffer_.upload(host.data(), host.size_bytes());
  }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(std::span<const T>(host)) {}

  T* data() const { return static_cast<T*>(buffer_.data()); }
  std::size_t size() const { return count_; }
  void fill(std::uint8_t byte) { buffer_.fill(byte); }
  void upload(std::span<const T> host) { buffer_.upload(host.data(), host.size_bytes()); }
  std::vector<T> download() const {
    std::vector<T> host(count_);
    buffer_.download(host.data(), count_ * sizeof(T));
    return host;
  }

 private:
  DeviceBuffer buffer_;
  std::size_t count_ = 0;
};

/// Copies rows of `bytes` on the device, which are so many bytes apart there and here.
void copy_rows(void* to, std::size_t to_step, const void* from, std::size_t from_step,
               std::size_t bytes, std::size_t rows);

/// The bits of the nearest value of the storage type, ties to even.
std::uint16_t to_16_bits(Dtype dtype, float value);
std::vector<std::uint16_t> to_16_bits(Dtype dtype, std::span<const float> values);

/// The value of the bits, exactly.
float from_16_bits(Dtype dtype, std::uint16_t bits);
std::vector<float> from_16_bits(Dtype dtype, std::span<const std::uint16_t> bits);

/// A stream of its own; joined when it ends.
class OwnedStream {
 public:
  OwnedStream();
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  Stream get() const { return stream_; }
  /// Waits for everything enqueued; throws std::runtime_error where any of it failed.
  void synchronize() const;

 private:
  Stream stream_ = nullptr;
};

/// What `enqueue` puts on the stream, captured once and replayed as a CUDA graph.
class Graph {
 public:
  template <class Enqueue>
  Graph(const OwnedStream& stream, Enqueue&& enqueue) {
    begin(stream);
    try {
      enqueue(stream.get());
    } catch (...) {
      abandon(stream);
      throw;
    }
    end(stream);
  }
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(const OwnedStream& stream) const;

 private:
  void begin(const OwnedStream& stream);
  void abandon(const OwnedStream& stream);
  void end(const OwnedStream& stream);
  void* executable_ = nullptr;
};

/// Name, memory and versions, for reports.
struct DeviceInfo {
  std::string name;
  std::size_t memory_bytes = 0;
  std::size_t l2_bytes = 0;
  int multiprocessors = 0;
  int compute_capability = 0;  // 90 for 9.0
  int architecture = 0;        // that the loaded code was compiled for: 80 runs on a 90, but slower
  std::string driver;          // "13.0", the newest CUDA that the driver runs
  std::string runtime;         // "13.0", the CUDA that this was built with
};
DeviceInfo device_info();

}  // namespace multistep::cuda
