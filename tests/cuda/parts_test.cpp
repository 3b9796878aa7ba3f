#include <cmath>

#include "stages.hpp"

// Sums over millions of keys. All logits are 0. Sixteen keys' values add up to 3826, or to -3826 in
// the second half: exact in float32 over 64Ki keys, and neither over half a million, where a
// float32 has steps of 8, nor for a tensor core, which cuts off.

using namespace multistep;
using namespace gpu;

namespace {

float value_at(Index key, Index keys) {
  const float size = key % 16 == 0 ? 1 : 255;
  return key < keys / 2 ? size : -size;
}

/// Of keys [0, past), of `keys`, summed exactly.
double mean_value(Index past, Index keys) {
  double sum = 0;
  for (Index key = 0; key < past; ++key) sum += static_cast<double>(value_at(key, keys));
  return sum / static_cast<double>(past);
}

/// Dense attention of the last queries of one head.
struct Long {
  Index keys;
  cuda::Shape shape;
  cuda::DeviceSchedule schedule;
  cuda::DeviceBuffer query, key, value;

  Long(Index count, Index queries, Index head_dim)
      : keys(count),
        schedule(StripePlan(preset_schedule("nstep", 1), count)),
        query(at(queries * head_dim) * 2),
        key(at(keys * head_dim) * 2),
        value(at(keys * head_dim) * 2) {
    shape.queries = queries;
    shape.keys = keys;
    shape.head_dim = head_dim;
    shape.query_offset = keys - queries;
    query.fill(0);
    key.fill(0);
  }

  /// value(j): of key j, in every column.
  template <class Value>
  void fill_values(Value&& of_key) {
    constexpr Index kBlock = 1 << 16;
    for (Index first = 0; first < keys; first += kBlock) {
      const Index count = std::min(kBlock, keys - first);
      std::vector<float> block(at(count * shape.head_dim));
      for (std::size_t i = 0; i < block.size(); ++i) {
        block[i] = of_key(first + static_cast<Index>(i) / shape.head_dim);
      }
      const auto bits = cuda::to_16_bits(Dtype::bf16, block);
      value.upload(bits.data(), bits.size() * 2, at(first * shape.head_dim) * 2);
    }
  }

  template <class Args>
  Args args(Rung rung) const {
    Args args;
    args.shape = shape;
    args.schedule = &schedule;
    args.query = query.data();
    args.key = key.data();
    args.value = value.data();
    args.rung = rung;
    return args;
  }
};

/// The output is rounded to bf16; `worst`: of sums of values of that size, joined 80 times at most.
void check_mean(float got, double want, float worst) {
  CAPTURE(got, want);
  const double off = std::abs(static_cast<double>(got) - want);
  CHECK(off <= 80 * 0x1p-24 * static_cast<double>(worst) + 0x1p-8 * std::abs(want));
}

void check_rows(const Long& problem, const std::vector<float>& output,
                const std::vector<float>& lse) {
  for (Index i = 0; i < problem.shape.queries; i += 23) {
    const Index past = problem.shape.query_offset + i + 1;
    const double want = mean_value(past, problem.keys);
    for (const Index c : {Index{0}, problem.shape.head_dim - 1}) {
      check_mean(output[at(i * problem.shape.head_dim + c)], want, 255);
    }
    const double logarithm = std::log(static_cast<double>(past));
    CAPTURE(i, lse[at(i)], logarithm);
    CHECK(std::abs(static_cast<double>(lse[at(i)]) - logarithm) <= 1e-5 * logarithm);
  }
}

void check_long(Index keys, Index queries, Rung rung) {
  CAPTURE(keys, queries, name(rung));
  Long problem(keys, queries, 64);
  problem.fill_values([&](Index key) { return value_at(key, keys); });
  const Whole whole = gpu::attention(problem.args<cuda::AttentionArgs>(rung));
  check_rows(problem, whole.output, whole.window_lse);

  auto window = problem.args<cuda::SpanAttentionArgs>(rung);
  const auto output = poisoned<std::uint16_t>(queries * 64);
  const auto lse = poisoned<float>(queries);
  window.slots = 1;
  window.output = output.data();
  window.lse = lse.data();
  run(window, cuda::span_attention);
  check_rows(problem, cuda::from_16_bits(Dtype::bf16, output.download()), lse.download());
}

}  // namespace

TEST_CASE("GPU sums over a million keys keep their small terms", "[parts][fault]") {
  for (const Index queries : {1, 70}) {
    for (const Rung rung : kRungs) check_long(Index{1} << 20, queries, rung);
  }
}

TEST_CASE("GPU decoding's pieces are longer than one float32 sums", "[parts][fault][large]") {
  if (cuda::device_info().memory_bytes < std::size_t{8} << 30) {
    WARN("skipped: 8 GiB of device memory wanted");
    return;
  }
  check_long(5 * (Index{1} << 20), 1, Rung::fast);  // 32 pieces of 256Ki keys at most
}

TEST_CASE("GPU sums of equal weights do not stand still", "[parts][large]") {
  constexpr Index kKeys = 17'500'000;  // beyond 2^24, where 1 + x is x
  Long problem(kKeys, 1, 1);
  problem.fill_values([](Index key) { return key < 16'900'000 ? 0.0F : 1.0F; });
  const Whole got = gpu::attention(problem.args<cuda::AttentionArgs>(Rung::plain));
  check_mean(got.output[0], 600'000.0 / kKeys, 1);
  CHECK(std::abs(static_cast<double>(got.window_lse[0]) - std::log(double{kKeys})) <= 1e-4);
}
