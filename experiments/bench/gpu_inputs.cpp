#include <algorithm>
#include <cmath>

#include "bench/gpu_problem.hpp"
#include "multistep/power.hpp"
#include "program/inputs.hpp"

namespace multistep::program {
namespace {

constexpr std::uint64_t kCentres = 1000;  // streams beyond those of the arrays
constexpr std::uint64_t kChoices = 1001;
constexpr Index kRegion = 4096;  // keys that share their centres
constexpr Index kCentresPerRegion = 4;

std::uint64_t id(Index index) { return static_cast<std::uint64_t>(index); }

/// A seeded integer in [0, n).
std::uint64_t choice(std::uint64_t seed, std::uint64_t i, std::uint64_t n) {
  const double uniform = random_input(seed, kChoices, i) / 3.4641016151377544 + 0.5;
  return std::min(n - 1, id(truncated(uniform * static_cast<double>(n))));
}

}  // namespace

InputSource::InputSource(const GpuShape& shape, Index needle) : shape_(shape), needle_(needle) {
  // Wide enough for an anchor of two steps: stripes at distance n lie 2 sqrt(n) apart.
  const auto width = truncated(4 * std::ceil(std::sqrt(static_cast<double>(shape.length))));
  hot_ = {shape.length / 3, std::min(shape.length, shape.length / 3 + width)};
}

/// Moves a row of variance 1 towards a centre, variance kept.
void InputSource::lean(std::vector<float>& row, std::uint64_t centre, double share) const {
  const double rest = std::sqrt(1 - share * share);
  for (std::size_t c = 0; c < row.size(); ++c) {
    const double towards = random_input(shape_.seed, kCentres, centre * row.size() + c);
    row[c] = static_cast<float>(share * towards + rest * static_cast<double>(row[c]));
  }
}

void InputSource::shape_row(bool is_key, Index position, std::vector<float>& row) const {
  switch (shape_.inputs) {
    case InputKind::random:
      return;
    case InputKind::clustered: {
      // 64 neighbouring queries, of all heads, look for one centre.
      const Index regions = position / kRegion + 1;
      const std::uint64_t block = is_key ? id(position) : id(position / 64 + shape_.length);
      const std::uint64_t region =
          is_key ? id(position / kRegion) : choice(shape_.seed, 2 * block, id(regions));
      const std::uint64_t one = choice(shape_.seed, 2 * block + 1, id(kCentresPerRegion));
      return lean(row, region * id(kCentresPerRegion) + one, 0.7);
    }
    case InputKind::hot:
      if (!is_key || hot_.contains(position)) lean(row, 0, 0.7);
      return;
    case InputKind::needle:
      if (!is_key) return lean(row, 0, 0.7);
      if (position == needle_) lean(row, 0, 1);
      return;
  }
}

void InputSource::row(std::uint64_t array, Index head, Index position, std::uint16_t* bits) const {
  thread_local std::vector<float> values;
  values.resize(static_cast<std::size_t>(shape_.head_dim));
  const std::uint64_t first = id((head * shape_.length + position) * shape_.head_dim);
  for (std::size_t c = 0; c < values.size(); ++c) {
    values[c] = static_cast<float>(random_input(shape_.seed, array, first + c));
  }
  if (array != value && array != output_gradient) shape_row(array == key, position, values);
  for (std::size_t c = 0; c < values.size(); ++c) {
    bits[c] = cuda::to_16_bits(dtype_of(shape_), values[c]);
  }
}

std::unique_ptr<float[]> InputSource::rows(std::uint64_t array, Index head, Index begin,
                                           Index end) const {
  const Index d = shape_.head_dim;
  // Not cleared first: that would be one thread's work, and as long as all the rest.
  auto values =
      std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>((end - begin) * d));
#pragma omp parallel for
  for (Index position = begin; position < end; ++position) {
    thread_local std::vector<std::uint16_t> bits;
    bits.resize(static_cast<std::size_t>(d));
    row(array, head, position, bits.data());
    float* const out = values.get() + (position - begin) * d;
    for (Index c = 0; c < d; ++c) {
      out[c] = cuda::from_16_bits(dtype_of(shape_), bits[static_cast<std::size_t>(c)]);
    }
  }
  return values;
}

cuda::DeviceBuffer InputSource::upload(std::uint64_t array, Index heads, Index begin,
                                       Index end) const {
  const Index d = shape_.head_dim;
  const Index length = end - begin;
  const Index all = heads * length;
  const auto row_bytes = static_cast<std::size_t>(d) * sizeof(std::uint16_t);
  cuda::DeviceBuffer buffer(static_cast<std::size_t>(all) * row_bytes);
  const Index piece = std::max<Index>(1, (Index{1} << 26) / d);  // rows, 128 MiB of them
  std::vector<std::uint16_t> bits(static_cast<std::size_t>(std::min(piece, all) * d));
  for (Index first = 0; first < all; first += piece) {
    const Index past = std::min(all, first + piece);
#pragma omp parallel for
    for (Index at = first; at < past; ++at) {
      row(array, at / length, begin + at % length, bits.data() + (at - first) * d);
    }
    buffer.upload(bits.data(), static_cast<std::size_t>(past - first) * row_bytes,
                  static_cast<std::size_t>(first) * row_bytes);
  }
  return buffer;
}

Index needle_of(const StripePlan& plan, const GpuShape& shape) {
  const Index last = shape.length - 1;
  const Segment searched = plan.searched(last, shape.start);
  if (plan.steps() == 1 || searched.empty()) return shape.start + (last - shape.start) / 2;
  const Cut cut = plan.cut(1, searched);
  return searched.end - 1 - cut.anchor((cut.first() + cut.last()) / 2);
}

}  // namespace multistep::program
