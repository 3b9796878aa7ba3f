#include "multistep/cuda/accumulation.hpp"

#include <bit>

#include "cuda/recurrence.hpp"
#include "support/catch.hpp"

using namespace multistep;
using cuda::DeviceArray;
using cuda::DeviceBuffer;
using cuda::Dtype;
using cuda::Rung;
using inputs::at;
using recurrence::half;
using recurrence::kNotANumber;
using recurrence::random_recurrence;
using recurrence::Recurrence;

namespace {

struct Result {
  std::vector<std::uint16_t> output;
  std::vector<float> final_state;

  friend bool operator==(const Result& one, const Result& other) {  // bit for bit
    const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
    return one.output == other.output &&
           std::ranges::equal(one.final_state, other.final_state, {}, bits, bits);
  }
};

/// A recurrence on the device.
struct Device {
  Device(const Recurrence& r, Rung rung, bool in_place = false)
      : x(cuda::to_16_bits(r.dtype, r.x)),
        b(cuda::to_16_bits(r.dtype, r.b)),
        c(cuda::to_16_bits(r.dtype, r.c)),
        output(r.x.size()),
        a(r.a),
        initial(r.initial),
        final_state(at(r.sizes.batch * r.sizes.num_heads * r.sizes.head_dim * r.sizes.state)),
        start(std::vector<std::int32_t>(r.start.begin(), r.start.end())),
        last(in_place ? initial : final_state) {
    const auto& of = r.sizes;
    args = {of.batch,       of.num_heads,  of.length,   of.head_dim, of.state, of.offset,
            r.dtype,        start.data(),  x.data(),    a.data(),    b.data(), c.data(),
            initial.data(), output.data(), last.data(), rung,        {}};
    workspace = DeviceBuffer(cuda::workspace_size(args));
    args.workspace = {workspace.data(), workspace.size()};
  }

  template <class Enqueue>
  Result run(Enqueue&& enqueue) {
    output.fill(0xFF);
    final_state.fill(0xFF);
    workspace.fill(0xFF);
    enqueue();
    stream.synchronize();
    return {output.download(), last.download()};
  }
  Result run() {
    return run([&] { cuda::accumulate(args, stream.get()); });
  }

  DeviceArray<std::uint16_t> x, b, c, output;
  DeviceArray<float> a, initial, final_state;
  DeviceArray<std::int32_t> start;
  DeviceBuffer workspace;
  const DeviceArray<float>& last;  // where the final state goes
  cuda::OwnedStream stream;
  cuda::AccumulationArgs args;
};

Result run(const Recurrence& r, Rung rung) { return Device(r, rung).run(); }

AccumulationResult oracle(const Recurrence& r) { return accumulate(recurrence::Oracle(r).args); }

/// Outputs, then the final state.
std::vector<double> entries(AccumulationResult result) {
  std::vector<double>& all = result.output;
  all.insert(all.end(), result.final_state.begin(), result.final_state.end());
  return all;
}
std::vector<double> entries(Dtype dtype, const Result& result) {
  const std::vector<float> output = cuda::from_16_bits(dtype, result.output);
  return entries(AccumulationResult{{output.begin(), output.end()},
                                    {result.final_state.begin(), result.final_state.end()}});
}

/// Entries further from the oracle than rounding explains. To a term of H_t each position adds at
/// most three float32 roundings (decay, product, sum), and the product with c_t `state` more, each
/// of them 2^-24 of the sum of the terms' magnitudes: what the oracle makes of absolute values.
/// Storing the output rounds once more: 2^-8 of it in bf16; in fp16 2^-11, or 2^-25 below 2^-14.
/// What float32 cannot hold is below 2^-126 in each of the 256 state entries at most.
Index wrong(const Recurrence& r, const Result& got) {
  Recurrence magnitudes = r;
  for (auto* array : {&magnitudes.x, &magnitudes.b, &magnitudes.c, &magnitudes.initial}) {
    for (float& value : *array) value = std::abs(value);
  }
  const std::vector<double> want = entries(oracle(r));
  const std::vector<double> size = entries(oracle(magnitudes));
  const std::vector<double> found = entries(r.dtype, got);
  const double sums = std::ldexp(3 * static_cast<double>(r.sizes.length + r.sizes.state + 8), -24);
  const double storage = std::ldexp(1, r.dtype == Dtype::bf16 ? -8 : -11);
  const double floor = std::ldexp(1, r.dtype == Dtype::bf16 ? -100 : -25);
  if (found.size() != want.size()) return -1;
  Index count = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    double tolerance = sums * size[i] + std::ldexp(1, -100);
    if (i < got.output.size()) tolerance += storage * (std::abs(want[i]) + tolerance) + floor;
    count += !(found[i] == want[i] || std::abs(found[i] - want[i]) <= tolerance);  // nor NaN
  }
  return count;
}

}  // namespace

TEST_CASE("GPU accumulation is the oracle's at every edge", "[cuda][accumulation]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  const auto dtype = GENERATE(Dtype::bf16, Dtype::fp16);
  const std::pair<Index, Index> widths[] = {{1, 1},   {3, 5},   {64, 16},
                                            {65, 64}, {40, 65}, {128, 72}};
  for (const Index length : {0, 1, 15, 16, 31, 32, 33, 63, 64, 65, 129, 256, 257, 1000}) {
    for (const auto& [head_dim, state] : widths) {
      CAPTURE(rung, dtype, length, head_dim, state);
      auto recurrence = random_recurrence(dtype, length, head_dim, state, 71);
      CHECK(wrong(recurrence, run(recurrence, rung)) == 0);
      recurrence.initial.clear();
      recurrence.sizes.offset = 7;
      recurrence.start = {length / 2 + 5, 4};
      CHECK(wrong(recurrence, run(recurrence, rung)) == 0);
    }
  }
}

TEST_CASE("The widest GPU accumulation, and one of many segments", "[cuda][accumulation]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  CAPTURE(rung);
  const auto widest = random_recurrence(Dtype::bf16, 300, 256, 256, 72);
  CHECK(wrong(widest, run(widest, rung)) == 0);
  auto longest = random_recurrence(Dtype::fp16, 140'001, 2, 3, 73);  // segments pass 256 rows
  longest.start = {70'000, 1};
  CHECK(wrong(longest, run(longest, rung)) == 0);
}

TEST_CASE("GPU decays of 0 and 1, and an exponential moving average", "[cuda][accumulation]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  for (const float decay : {0.0F, 1.0F, 0.875F}) {
    CAPTURE(rung, decay);
    auto recurrence = random_recurrence(Dtype::fp16, 600, 20, 1, 74);
    std::fill(recurrence.a.begin(), recurrence.a.end(), decay);
    CHECK(wrong(recurrence, run(recurrence, rung)) == 0);
    std::fill(recurrence.b.begin(), recurrence.b.end(), 1 - decay);
    std::fill(recurrence.c.begin(), recurrence.c.end(), 1.0F);
    CHECK(wrong(recurrence, run(recurrence, rung)) == 0);
  }
}

TEST_CASE("GPU chunks continue from the final state, also in place", "[cuda][accumulation]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  auto recurrence = random_recurrence(Dtype::bf16, 700, 17, 9, 75);
  recurrence.sizes.offset = 3;
  recurrence.start = {0, 300};
  const Result whole = run(recurrence, rung);
  for (const Index cut : {0, 1, 64, 129, 256, 300, 512, 700}) {
    CAPTURE(rung, cut);
    const auto head = recurrence.chunk(0, cut, recurrence.initial);
    const Result first = run(head, rung);
    const auto tail = recurrence.chunk(cut, 700 - cut, first.final_state);
    const Result second = run(tail, rung);
    CHECK(Device(head, rung, true).run() == first);
    CHECK(Device(tail, rung, true).run() == second);
    CHECK(wrong(head, first) == 0);
    CHECK(wrong(tail, second) == 0);
    CHECK(wrong(recurrence, {whole.output, second.final_state}) == 0);
    if (rung == Rung::fast) continue;  // cut elsewhere, it rounds elsewhere
    CHECK(first.output == inputs::rows_of(whole.output, 6, 17, 0, cut));
    CHECK(second ==
          Result{inputs::rows_of(whole.output, 6, 17, cut, 700 - cut), whole.final_state});
  }
}

TEST_CASE("GPU rows before start are not read and give 0", "[cuda][accumulation]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  for (const Index start : {5, 37, 64, 256, 300, 600, 605, 9000}) {
    CAPTURE(rung, start);
    auto recurrence = random_recurrence(Dtype::bf16, 600, 5, 6, 76);
    recurrence.sizes.offset = 5;
    recurrence.start = {2, start};
    const Result clean = run(recurrence, rung);
    CHECK(wrong(recurrence, clean) == 0);
    const Index skipped = std::min<Index>(start - 5, 600);
    for (Index head = 3; head < 6; ++head) {
      for (const auto& [array, width] : recurrence.rows()) {
        std::fill_n(array.begin() + head * 600 * width, skipped * width, kNotANumber);
      }
    }
    CHECK(run(recurrence, rung) == clean);
  }
}

TEST_CASE("A NaN on the GPU reaches what it reaches in the oracle", "[cuda][accumulation]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  auto source = random_recurrence(Dtype::fp16, 600, 5, 3, 77);
  source.a[4 * 600 + 33] = 0;  // 0 times NaN is NaN
  const std::vector<double> clean = entries(source.dtype, run(source, rung));
  for (const Index position : {0, 30, 31, 32, 255, 256, 599}) {
    for (const char array : {'x', 'a', 'b', 'c', 'h'}) {
      CAPTURE(rung, position, array);
      auto recurrence = source;
      const Index row = 4 * 600 + position;
      if (array == 'x') recurrence.x[at(row * 5 + 2)] = kNotANumber;
      if (array == 'a') recurrence.a[at(row)] = kNotANumber;
      if (array == 'b') recurrence.b[at(row * 3 + 1)] = kNotANumber;
      if (array == 'c') recurrence.c[at(row * 3 + 1)] = kNotANumber;
      if (array == 'h') recurrence.initial[at((4 * 5 + 2) * 3 + 1)] = kNotANumber;
      const std::vector<double> want = entries(oracle(recurrence));
      const std::vector<double> got = entries(recurrence.dtype, run(recurrence, rung));
      Index off = 0;  // NaN where the oracle has one, what the clean run has elsewhere
      for (std::size_t i = 0; i < want.size(); ++i) {
        off += std::isnan(want[i]) ? !std::isnan(got[i]) : got[i] != clean[i];
      }
      CHECK(off == 0);
    }
  }
}

TEST_CASE("GPU accumulation gives the same bits in every run, graph and batch",
          "[cuda][accumulation]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  auto recurrence = random_recurrence(Dtype::bf16, 1000, 70, 20, 78);
  recurrence.start = {3, 400};
  Device device(recurrence, rung);
  const Result first = device.run();
  for (int i = 0; i < 20; ++i) CHECK(device.run() == first);

  const auto enqueue = [&](cuda::Stream on) { cuda::accumulate(device.args, on); };
  const cuda::Graph graph(device.stream, enqueue);
  for (int i = 0; i < 2; ++i) CHECK(device.run([&] { graph.launch(device.stream); }) == first);

  for (Index batch = 0; batch < 2; ++batch) {
    auto alone = recurrence;
    alone.sizes.batch = 1;
    alone.start = half(recurrence.start, batch);
    for (auto* array : {&alone.x, &alone.a, &alone.b, &alone.c, &alone.initial}) {
      *array = half(*array, batch);
    }
    CHECK(run(alone, rung) == Result{half(first.output, batch), half(first.final_state, batch)});
  }

  device.args.final_state = nullptr;
  CHECK(device.run().output == first.output);
}

TEST_CASE("GPU accumulation refuses bad arguments", "[cuda][accumulation]") {
  const auto recurrence = random_recurrence(Dtype::bf16, 600, 5, 3, 80);
  const Device good(recurrence, Rung::fast);
  using Args = cuda::AccumulationArgs;
  const auto refuses = [&](auto&& change) {
    Args args = good.args;
    change(args);
    CHECK_THROWS_AS(cuda::accumulate(args, good.stream.get()), std::invalid_argument);
  };
  for (const auto size : {&Args::batch, &Args::num_heads, &Args::head_dim, &Args::state}) {
    for (const Index bad : {-1, 0, 1 << 23}) refuses([&](Args& args) { args.*size = bad; });
  }
  for (const auto size : {&Args::length, &Args::offset}) {
    for (const Index bad : {Index{-1}, cuda::kMaxContext - 599}) {
      refuses([&](Args& args) {
        args.offset = 600;
        args.*size = bad;
      });
    }
  }
  for (const auto array : {&Args::x, &Args::b, &Args::c}) {
    refuses([&](Args& args) { args.*array = nullptr; });
  }
  refuses([](Args& args) { args.head_dim = 257; });
  refuses([](Args& args) { args.state = 257; });
  refuses([](Args& args) { args.dtype = static_cast<Dtype>(7); });
  refuses([](Args& args) { args.a = nullptr; });
  refuses([](Args& args) { args.output = nullptr; });
  refuses([](Args& args) { args.a += 1; });
  refuses([](Args& args) { args.final_state += 1; });
  refuses([](Args& args) { args.workspace.size -= 1; });
  refuses([](Args& args) { args.workspace.data = nullptr; });
}
