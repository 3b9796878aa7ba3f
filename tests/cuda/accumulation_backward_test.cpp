#include <bit>

#include "cuda/recurrence.hpp"
#include "multistep/cuda/accumulation.hpp"
#include "support/catch.hpp"

using namespace multistep;
using cuda::DeviceArray;
using cuda::DeviceBuffer;
using cuda::Dtype;
using cuda::Rung;
using inputs::at;
using inputs::Random;
using inputs::Values;
using recurrence::half;
using recurrence::kNotANumber;
using recurrence::Recurrence;

namespace {

/// A recurrence and the derivatives of a loss by its results.
struct Problem : Recurrence {
  std::vector<float> output;       // as x, of the storage type; or none
  std::vector<float> final_state;  // as initial; or none
};

Problem random_problem(Dtype dtype, Index length, Index head_dim, Index state, std::uint64_t seed) {
  Problem problem{recurrence::random_recurrence(dtype, length, head_dim, state, seed), {}, {}};
  auto other = recurrence::random_recurrence(dtype, length, head_dim, state, seed + 1000);
  problem.output = std::move(other.x);
  problem.final_state = std::move(other.initial);
  return problem;
}

struct Gradients {
  std::vector<std::uint16_t> x, b, c;
  std::vector<float> a, initial;

  friend bool operator==(const Gradients& one, const Gradients& other) {  // bit for bit
    const auto same = [](const std::vector<float>& left, const std::vector<float>& right) {
      const auto bits = [](float value) { return std::bit_cast<std::uint32_t>(value); };
      return std::ranges::equal(left, right, {}, bits, bits);
    };
    return one.x == other.x && one.b == other.b && one.c == other.c && same(one.a, other.a) &&
           same(one.initial, other.initial);
  }
};

/// A problem on the device.
struct Device {
  Device(const Problem& p, Rung rung)
      : x(cuda::to_16_bits(p.dtype, p.x)),
        b(cuda::to_16_bits(p.dtype, p.b)),
        c(cuda::to_16_bits(p.dtype, p.c)),
        output(cuda::to_16_bits(p.dtype, p.output)),
        d_x(p.x.size()),
        d_b(p.b.size()),
        d_c(p.c.size()),
        a(p.a),
        initial(p.initial),
        final_state(p.final_state),
        d_a(p.a.size()),
        d_initial(at(p.sizes.batch * p.sizes.num_heads * p.sizes.head_dim * p.sizes.state)),
        start(std::vector<std::int32_t>(p.start.begin(), p.start.end())) {
    const auto& of = p.sizes;
    args = {of.batch,
            of.num_heads,
            of.length,
            of.head_dim,
            of.state,
            of.offset,
            p.dtype,
            start.data(),
            x.data(),
            a.data(),
            b.data(),
            c.data(),
            initial.data(),
            output.data(),
            final_state.data(),
            d_x.data(),
            d_a.data(),
            d_b.data(),
            d_c.data(),
            d_initial.data(),
            rung,
            {}};
    workspace = DeviceBuffer(cuda::workspace_size(args));
    args.workspace = {workspace.data(), workspace.size()};
  }

  template <class Enqueue>
  Gradients run(Enqueue&& enqueue) {
    for (auto* array : {&d_x, &d_b, &d_c}) array->fill(0xFF);
    for (auto* array : {&d_a, &d_initial}) array->fill(0xFF);
    workspace.fill(0xFF);
    enqueue();
    stream.synchronize();
    return {d_x.download(), d_b.download(), d_c.download(), d_a.download(), d_initial.download()};
  }
  Gradients run() {
    return run([&] { cuda::accumulate_backward(args, stream.get()); });
  }

  DeviceArray<std::uint16_t> x, b, c, output, d_x, d_b, d_c;
  DeviceArray<float> a, initial, final_state, d_a, d_initial;
  DeviceArray<std::int32_t> start;
  DeviceBuffer workspace;
  cuda::OwnedStream stream;
  cuda::AccumulationBackwardArgs args;
};

Gradients run(const Problem& problem, Rung rung) { return Device(problem, rung).run(); }

/// Of x, b and c, which are stored in 16 bits, then of a and the initial state.
std::vector<double> entries(const AccumulationGradients& gradients) {
  std::vector<double> all = gradients.x;
  for (const auto* array : {&gradients.b, &gradients.c, &gradients.a, &gradients.initial}) {
    all.insert(all.end(), array->begin(), array->end());
  }
  return all;
}
std::vector<double> entries(Dtype dtype, const Gradients& gradients) {
  std::vector<double> all;
  for (const auto* array : {&gradients.x, &gradients.b, &gradients.c}) {
    const std::vector<float> values = cuda::from_16_bits(dtype, *array);
    all.insert(all.end(), values.begin(), values.end());
  }
  for (const auto* array : {&gradients.a, &gradients.initial}) {
    all.insert(all.end(), array->begin(), array->end());
  }
  return all;
}

std::vector<double> oracle(const Problem& problem) {
  const recurrence::Oracle of(problem);
  const std::vector<double> output(problem.output.begin(), problem.output.end());
  const std::vector<double> final_state(problem.final_state.begin(), problem.final_state.end());
  return entries(accumulate_backward(of.args, output.empty() ? nullptr : output.data(),
                                     final_state.empty() ? nullptr : final_state.data()));
}

/// What the gradients are to be, and how far from it rounding may lead. A gradient is a sum of
/// products of an entry of H or its derivative, or of both, with an input. To each term a position
/// adds at most three float32 roundings (decay, product, sum), the sums over head_dim and state one
/// for each of their terms, and the tensor cores for each of eight operands in two parts 2^-21: all
/// in all 3 (length + head_dim + state + 32) times 2^-24 of the sum of the terms' magnitudes, which
/// the oracle makes of absolute values. Storing rounds once more: 2^-8 of it in bf16; in fp16
/// 2^-11, or 2^-25 below 2^-14. What float32 cannot hold is below 2^-100 in all.
struct Judge {
  explicit Judge(const Problem& problem) : Judge(problem, oracle(problem)) {}
  Judge(const Problem& sizes, std::vector<double> right) : dtype(sizes.dtype), want(right) {
    Problem magnitudes = sizes;
    for (auto* array : {&magnitudes.x, &magnitudes.b, &magnitudes.c, &magnitudes.initial,
                        &magnitudes.output, &magnitudes.final_state}) {
      for (float& value : *array) value = std::abs(value);
    }
    const auto& of = sizes.sizes;
    const double sums =
        std::ldexp(3 * static_cast<double>(of.length + of.head_dim + of.state + 32), -24);
    const double storage = std::ldexp(1, dtype == Dtype::bf16 ? -8 : -11);
    const double floor = std::ldexp(1, dtype == Dtype::bf16 ? -100 : -25);
    const std::size_t stored = sizes.x.size() + sizes.b.size() + sizes.c.size();
    for (const double size : oracle(magnitudes)) {
      double error = sums * size + std::ldexp(1, -100);
      if (tolerance.size() < stored) {
        error += storage * (std::abs(want[tolerance.size()]) + error) + floor;
      }
      tolerance.push_back(error);
    }
  }

  /// Entries that are wrong: NaN where there is to be none, or none where there is to be one.
  Index wrong(const Gradients& gradients) const {
    const std::vector<double> got = entries(dtype, gradients);
    if (got.size() != want.size()) return -1;
    Index count = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const bool right = std::isnan(want[i])
                             ? std::isnan(got[i])
                             : got[i] == want[i] || std::abs(got[i] - want[i]) <= tolerance[i];
      count += !right;
    }
    return count;
  }

  Dtype dtype;
  std::vector<double> want;
  std::vector<double> tolerance;
};

void check(const Problem& problem) {
  const Judge judge(problem);
  for (const Rung rung : {Rung::plain, Rung::fast}) {
    CAPTURE(rung);
    CHECK(judge.wrong(run(problem, rung)) == 0);
  }
}

}  // namespace

TEST_CASE("GPU gradients of accumulation are the oracle's at every edge",
          "[cuda][accumulation][backward]") {
  const auto dtype = GENERATE(Dtype::bf16, Dtype::fp16);
  const std::pair<Index, Index> widths[] = {{1, 1},   {3, 5},   {64, 16}, {64, 64},
                                            {65, 64}, {40, 65}, {128, 72}};
  for (const Index length : {0, 1, 15, 16, 31, 32, 33, 63, 97, 129, 255, 256, 257, 600}) {
    for (const auto& [head_dim, state] : widths) {
      CAPTURE(dtype, length, head_dim, state);
      auto problem = random_problem(dtype, length, head_dim, state, 91);
      check(problem);
      problem.initial.clear();
      problem.final_state.clear();
      problem.sizes.offset = 7;
      problem.start = {length / 2 + 5, 4};
      check(problem);
    }
  }
}

TEST_CASE("GPU gradients of the widest accumulation, and of many segments",
          "[cuda][accumulation][backward]") {
  check(random_problem(Dtype::bf16, 300, 256, 256, 92));
  check(random_problem(Dtype::fp16, 5000, 24, 32, 93));
  auto longest = random_problem(Dtype::bf16, 20'001, 2, 3, 94);
  longest.start = {10'000, 1};
  check(longest);
}

TEST_CASE("GPU gradients where a derivative or the initial state is not given",
          "[cuda][accumulation][backward]") {
  for (const Index length : {9, 600}) {
    for (const int given : {0, 1, 2, 3, 4, 5, 6, 7}) {
      CAPTURE(length, given);
      auto problem = random_problem(Dtype::bf16, length, 17, 9, 95);
      if (!(given & 1)) problem.output.clear();
      if (!(given & 2)) problem.final_state.clear();
      if (!(given & 4)) problem.initial.clear();
      check(problem);
    }
  }
  auto unheard = random_problem(Dtype::bf16, 600, 17, 9, 95);  // its outputs are not in the loss
  unheard.output.clear();
  Judge judge(unheard);
  unheard.c[at(100 * 9)] = kNotANumber;
  for (const Rung rung : {Rung::plain, Rung::fast}) CHECK(judge.wrong(run(unheard, rung)) == 0);
  unheard.x[at(100 * 17)] = kNotANumber;
  judge.want = oracle(unheard);
  for (const Rung rung : {Rung::plain, Rung::fast}) CHECK(judge.wrong(run(unheard, rung)) == 0);
}

TEST_CASE("GPU gradients with decays of 0 and 1", "[cuda][accumulation][backward]") {
  for (const float decay : {0.0F, 1.0F, 0.875F}) {
    CAPTURE(decay);
    auto problem = random_problem(Dtype::fp16, 600, 20, 7, 96);
    std::fill(problem.a.begin(), problem.a.end(), decay);
    check(problem);
  }
}

TEST_CASE("GPU gradients go from chunk to chunk", "[cuda][accumulation][backward]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  auto problem = random_problem(Dtype::fp16, 700, 17, 9, 97);
  problem.sizes.offset = 3;
  problem.start = {0, 300};
  const Judge judge(problem);
  for (const Index cut : {0, 1, 64, 256, 300, 700}) {
    CAPTURE(rung, cut);
    // The state between the chunks, as the oracle has it.
    const Recurrence first = problem.chunk(0, cut, problem.initial);
    const AccumulationResult forward = accumulate(recurrence::Oracle(first).args);
    const std::vector<float> between(forward.final_state.begin(), forward.final_state.end());
    Problem head{first, inputs::rows_of(problem.output, 6, 17, 0, cut), {}};
    const Problem tail{problem.chunk(cut, 700 - cut, between),
                       inputs::rows_of(problem.output, 6, 17, cut, 700 - cut), problem.final_state};
    const Gradients later = run(tail, rung);
    head.final_state = later.initial;
    Device device(head, rung);
    const Gradients earlier = device.run();
    device.args.initial_gradient = device.final_state.data();  // in place
    device.run();
    CHECK(device.final_state.download() == earlier.initial);

    Gradients whole{{}, {}, {}, {}, earlier.initial};
    for (Index h = 0; h < 6; ++h) {
      const auto join = [&](auto& to, const auto& one, const auto& other, Index width) {
        for (const auto& [part, rows] : {std::pair{&one, cut}, std::pair{&other, 700 - cut}}) {
          const auto begin = part->begin() + h * rows * width;
          to.insert(to.end(), begin, begin + rows * width);
        }
      };
      join(whole.x, earlier.x, later.x, 17);
      join(whole.b, earlier.b, later.b, 9);
      join(whole.c, earlier.c, later.c, 9);
      join(whole.a, earlier.a, later.a, 1);
    }
    CHECK(judge.wrong(whole) == 0);
  }
}

TEST_CASE("GPU rows before start are not read and get no gradient",
          "[cuda][accumulation][backward]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  for (const Index start : {5, 37, 256, 300, 600, 605, 9000}) {
    CAPTURE(rung, start);
    auto problem = random_problem(Dtype::bf16, 600, 5, 6, 98);
    problem.sizes.offset = 5;
    problem.start = {2, start};
    const Gradients clean = run(problem, rung);
    CHECK(Judge(problem).wrong(clean) == 0);
    const Index skipped = std::min<Index>(start - 5, 600);
    for (Index head = 3; head < 6; ++head) {
      auto rows = problem.rows();
      rows.push_back({problem.output, 5});
      for (const auto& [array, width] : rows) {
        std::fill_n(array.begin() + head * 600 * width, skipped * width, kNotANumber);
      }
    }
    CHECK(run(problem, rung) == clean);
  }
}

TEST_CASE("A NaN reaches the GPU gradients that it reaches in the oracle",
          "[cuda][accumulation][backward]") {
  auto source = random_problem(Dtype::fp16, 600, 5, 3, 99);
  source.a[4 * 600 + 33] = 0;  // 0 times NaN is NaN
  Judge judge(source);
  for (const Index position : {0, 7, 8, 30, 31, 32, 255, 256, 599}) {
    for (const char array : {'x', 'a', 'b', 'c', 'h', 'r', 'f'}) {
      CAPTURE(position, array);
      auto problem = source;
      const Index row = 4 * 600 + position;
      if (array == 'x') problem.x[at(row * 5 + 2)] = kNotANumber;
      if (array == 'a') problem.a[at(row)] = kNotANumber;
      if (array == 'b') problem.b[at(row * 3 + 1)] = kNotANumber;
      if (array == 'c') problem.c[at(row * 3 + 1)] = kNotANumber;
      if (array == 'h') problem.initial[at((4 * 5 + 2) * 3 + 1)] = kNotANumber;
      if (array == 'r') problem.output[at(row * 5 + 2)] = kNotANumber;
      if (array == 'f') problem.final_state[at((4 * 5 + 2) * 3 + 1)] = kNotANumber;
      judge.want = oracle(problem);
      for (const Rung rung : {Rung::plain, Rung::fast}) {
        CAPTURE(rung);
        CHECK(judge.wrong(run(problem, rung)) == 0);
      }
    }
  }
}

TEST_CASE("GPU gradients of accumulation are the same bits in every run, graph and batch",
          "[cuda][accumulation][backward]") {
  const auto rung = GENERATE(Rung::plain, Rung::fast);
  const Index head_dim = GENERATE(70, 64);
  auto problem = random_problem(Dtype::bf16, 600, head_dim, 20, 100);
  problem.start = {3, 400};
  Device device(problem, rung);
  const Gradients first = device.run();
  for (int i = 0; i < 10; ++i) CHECK(device.run() == first);

  const auto enqueue = [&](cuda::Stream on) { cuda::accumulate_backward(device.args, on); };
  const cuda::Graph graph(device.stream, enqueue);
  for (int i = 0; i < 2; ++i) CHECK(device.run([&] { graph.launch(device.stream); }) == first);

  for (Index batch = 0; batch < 2; ++batch) {
    auto alone = problem;
    alone.sizes.batch = 1;
    alone.start = half(problem.start, batch);
    for (auto* array : {&alone.x, &alone.a, &alone.b, &alone.c, &alone.initial, &alone.output,
                        &alone.final_state}) {
      *array = half(*array, batch);
    }
    CHECK(run(alone, rung) == Gradients{half(first.x, batch), half(first.b, batch),
                                        half(first.c, batch), half(first.a, batch),
                                        half(first.initial, batch)});
  }

  device.args.initial_gradient = nullptr;
  const Gradients without = device.run();
  CHECK((without.x == first.x && without.a == first.a));
}

TEST_CASE("The GPU's backward of accumulation refuses bad arguments",
          "[cuda][accumulation][backward]") {
  const auto problem = random_problem(Dtype::bf16, 600, 5, 3, 101);
  const Device good(problem, Rung::fast);
  using Args = cuda::AccumulationBackwardArgs;
  const auto refuses = [&](auto&& change) {
    Args args = good.args;
    change(args);
    CHECK_THROWS_AS(cuda::accumulate_backward(args, good.stream.get()), std::invalid_argument);
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
  for (const auto array : {&Args::x_gradient, &Args::b_gradient, &Args::c_gradient}) {
    refuses([&](Args& args) { args.*array = nullptr; });
  }
  refuses([](Args& args) { args.head_dim = 257; });
  refuses([](Args& args) { args.state = 257; });
  refuses([](Args& args) { args.dtype = static_cast<Dtype>(7); });
  refuses([](Args& args) { args.a = nullptr; });
  refuses([](Args& args) { args.a_gradient = nullptr; });
  refuses([](Args& args) { args.a_gradient += 1; });
  refuses([](Args& args) { args.final_state_gradient += 1; });
  refuses([](Args& args) { args.initial_gradient += 1; });
  refuses([](Args& args) { args.workspace.size -= 1; });
  refuses([](Args& args) { args.workspace.data = nullptr; });
}
