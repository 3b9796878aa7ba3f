#include "backward.hpp"
#include "calls.hpp"

// The backward pass of each stage alone, against the oracle's on the stage's own input.

using namespace multistep;
using namespace gpu;

namespace {

Options prefill(Index head_dim, Dtype dtype = Dtype::bf16) {
  Options options;
  options.schedule.window_index = 3;
  options.queries = 130;
  options.start = {0, 37};
  options.tail = 5;
  options.head_dim = head_dim;
  options.dtype = dtype;
  options.values = Values::rough;
  return options;
}

/// Rounded are a term's weight, its derivative by the logit and the sum, each by half an ulp: a row
/// may be off by 2 u of its length and, where terms cancel, by 2 u of a typical row's, sqrt(terms)
/// of which a sum of random ones may have.
bool close(Dtype dtype, Index width, const std::vector<float>& got,
           const std::vector<double>& want) {
  const double u = dtype == Dtype::bf16 ? 0x1p-8 : 0x1p-11;
  if (got.size() != want.size()) return false;
  double squares = 0;
  for (const double x : want) squares += x * x;
  const double typical = std::sqrt(squares * static_cast<double>(width) /
                                   static_cast<double>(std::max<std::size_t>(want.size(), 1)));
  for (std::size_t row = 0; row < want.size() / at(width); ++row) {
    double error = 0;
    double norm = 0;
    for (std::size_t i = row * at(width); i < (row + 1) * at(width); ++i) {
      error += std::pow(static_cast<double>(got[i]) - want[i], 2);
      norm += want[i] * want[i];
    }
    if (!(std::sqrt(error) <= 2 * u * (std::sqrt(norm) + typical))) return false;
  }
  return true;
}

std::vector<float> random_floats(Index count, std::uint64_t seed) {
  inputs::Random random(seed);
  std::vector<float> result(at(count));
  for (float& x : result) x = static_cast<float>(random.value(inputs::Values::rough));
  return result;
}

struct ItemsGradients {
  std::vector<float> query, key, value;
};

/// `spans` empty: the windows.
ItemsGradients backward_of(const OnDevice& device, Rung rung, const std::vector<Span>& spans,
                           const std::vector<float>& by_output, const std::vector<float>& by_lse) {
  auto args = device.args<cuda::SpanAttentionBackwardArgs>(rung);
  const DeviceArray<DeviceSpan> uploaded(to_device(spans));
  const auto outputs = device.upload(by_output);
  const DeviceArray<float> lses(by_lse);
  const auto query = poisoned<std::uint16_t>(static_cast<Index>(device.query.size()));
  const auto key = poisoned<std::uint16_t>(static_cast<Index>(device.key.size()));
  const auto value = poisoned<std::uint16_t>(static_cast<Index>(device.value.size()));
  args.slots = spans.empty() ? 1 : std::ssize(spans) / device.shape.rows();
  args.spans = uploaded.data();
  args.output_gradient = outputs.data();
  args.lse_gradient = by_lse.empty() ? nullptr : lses.data();
  args.query_gradient = query.data();
  args.key_gradient = key.data();
  args.value_gradient = value.data();
  run(args, cuda::span_attention_backward);
  const auto values = [&](const auto& array) {
    return cuda::from_16_bits(device.dtype, array.download());
  };
  return {values(query), values(key), values(value)};
}

}  // namespace

TEST_CASE("GPU gradients of span attention alone", "[backward]") {
  for (const Index head_dim : {40, 64, 128, 200}) {
    for (const Dtype dtype : kDtypes) {
      for (const bool of_windows : {false, true}) {
        for (const bool by_lses : {false, true}) {
          CAPTURE(head_dim, name(dtype), of_windows, by_lses);
          const Options options = prefill(head_dim, dtype);
          const Problem problem = make_problem(options);
          const std::vector<Span> windows = problem.windows();
          const Selection selection = span_search(problem.search());
          std::vector<Span> spans;
          if (!of_windows) spans = selection.spans;
          const Index slots = of_windows ? 1 : 2;
          const Index items = problem.sizes.rows() * slots;
          inputs::Random random(5);
          const std::vector<float> by_output = tensor(random, items * head_dim, options);
          std::vector<float> by_lse;
          if (by_lses) by_lse = random_floats(items, 6);
          const auto outputs = cast<double>(by_output);
          const auto lses = cast<double>(by_lse);
          const SpanAttentionGradients want =
              span_attention_backward<float>({problem.shape(),
                                              problem.query.data(),
                                              problem.key.data(),
                                              problem.value.data(),
                                              slots,
                                              of_windows ? nullptr : spans.data(),
                                              windows.data(),
                                              {}},
                                             outputs.data(), by_lses ? lses.data() : nullptr);
          const OnDevice device(problem, dtype);
          for (const Rung rung : kRungs) {
            CAPTURE(name(rung));
            const ItemsGradients got = backward_of(device, rung, spans, by_output, by_lse);
            CHECK(close(dtype, head_dim, got.query, want.query));
            CHECK(close(dtype, head_dim, got.key, want.key));
            CHECK(close(dtype, head_dim, got.value, want.value));
          }
        }
      }
    }
  }
}

TEST_CASE("GPU gradients of combination alone", "[backward]") {
  for (const Index slots : {1, 3, 7}) {
    for (const bool with_window : {true, false}) {
      CAPTURE(slots, with_window);
      const Index head_dim = 72;
      const Options options = prefill(head_dim);
      const Problem problem = make_problem(options);
      const Index rows = problem.sizes.rows();
      inputs::Random random(9);
      const std::vector<float> outputs = tensor(random, rows * slots * head_dim, options);
      const std::vector<float> window = tensor(random, rows * head_dim, options);
      const std::vector<float> by_output = tensor(random, rows * head_dim, options);
      const std::vector<float> lses = random_floats(rows * slots, 1);
      const std::vector<float> window_lse = random_floats(rows, 2);
      const std::vector<float> scores = random_floats(rows * slots, 3);
      std::vector<DeviceSpan> spans;
      std::vector<Index> count;
      for (Index row = 0; row < rows; ++row) {
        count.push_back(random.below(slots + 1));
        for (Index s = 0; s < slots; ++s) {
          spans.push_back(s < count.back() ? DeviceSpan{0, 1} : DeviceSpan{0, 0});
        }
      }
      const auto score = cast<double>(scores);
      const auto output = cast<double>(outputs);
      const auto lse = cast<double>(lses);
      const auto of_window = cast<double>(window);
      const auto lse_of_window = cast<double>(window_lse);
      const multistep::CombineGradients want = multistep::combine_backward(
          {rows, slots, head_dim, count.data(), score.data(), output.data(), lse.data(),
           with_window ? of_window.data() : nullptr, with_window ? lse_of_window.data() : nullptr},
          cast<double>(by_output).data());

      const OnDevice device(problem, options.dtype);
      cuda::CombineBackwardArgs args;
      args.shape = device.shape;
      args.slots = slots;
      const DeviceArray<DeviceSpan> device_spans(spans);
      const DeviceArray<float> device_scores(scores), device_lses(lses), device_window(window_lse);
      const auto device_outputs = device.upload(outputs);
      const auto window_output = device.upload(window);
      const auto device_by_output = device.upload(by_output);
      const auto by_score = poisoned<float>(rows * slots);
      const auto by_lse = poisoned<float>(rows * slots);
      const auto by_window_lse = poisoned<float>(rows);
      const auto by_span = poisoned<std::uint16_t>(rows * slots * head_dim);
      const auto by_window = poisoned<std::uint16_t>(rows * head_dim);
      args.spans = device_spans.data();
      args.scores = device_scores.data();
      args.span_outputs = device_outputs.data();
      args.span_lses = device_lses.data();
      if (with_window) {
        args.window_output = window_output.data();
        args.window_lse = device_window.data();
      }
      args.output_gradient = device_by_output.data();
      args.score_gradient = by_score.data();
      args.span_output_gradient = by_span.data();
      args.span_lse_gradient = by_lse.data();
      args.window_output_gradient = by_window.data();
      args.window_lse_gradient = by_window_lse.data();
      const cuda::OwnedStream stream;
      cuda::combine_backward(args, stream.get());
      stream.synchronize();
      const auto values = [&](const auto& array) {
        return cuda::from_16_bits(options.dtype, array.download());
      };
      CHECK(close(options.dtype, head_dim, values(by_span), want.outputs));
      if (with_window) CHECK(close(options.dtype, head_dim, values(by_window), want.window_output));
      // float32: 2^-18 leaves room for a sum of 72 products and the exponentials.
      const auto same = [](const std::vector<float>& got, const std::vector<double>& expected) {
        for (std::size_t i = 0; i < got.size(); ++i) {
          if (!within_tolerance(static_cast<double>(got[i]), expected[i], 0x1p-18 * 8))
            return false;
        }
        return got.size() == expected.size();
      };
      CHECK(same(by_score.download(), want.scores));
      CHECK(same(by_lse.download(), want.lses));
      if (with_window) CHECK(same(by_window_lse.download(), want.window_lse));
    }
  }
}

TEST_CASE("GPU gradients of search alone", "[backward]") {
  for (const Index steps : {2, 4}) {
    for (const Index top_k : {1, 3}) {
      CAPTURE(steps, top_k);
      Options options = prefill(64);
      options.schedule = preset_schedule("nstep", steps);
      options.schedule.top_k = top_k;
      const Problem problem = make_problem(options);
      const OnDevice device(problem, options.dtype);
      const Selection selection = span_search(problem.search());
      const std::vector<float> by_score = random_floats(problem.sizes.rows() * top_k, 8);
      const auto by = cast<double>(by_score);
      const SpanSearchGradients want =
          multistep::span_search_backward(problem.search(), selection, by.data());

      cuda::SpanSearchBackwardArgs args;
      args.shape = device.shape;
      args.dtype = options.dtype;
      args.routing_queries = device.routing_pointers();
      args.search_keys = device.search_keys.data();
      args.top_k = top_k;
      const DeviceArray<std::int32_t> anchors(to_int32(selection.anchors));
      const DeviceArray<float> scores(by_score);
      args.anchors = anchors.data();
      args.score_gradient = scores.data();
      std::vector<DeviceArray<std::uint16_t>> routing;
      for (const auto& level : device.routing) {
        routing.push_back(poisoned<std::uint16_t>(static_cast<Index>(level.size())));
        args.routing_gradients.push_back(routing.back().data());
      }
      const auto keys = poisoned<std::uint16_t>(static_cast<Index>(device.search_keys.size()));
      args.search_key_gradient = keys.data();
      run(args, cuda::span_search_backward);
      const auto values = [&](const auto& array) {
        return cuda::from_16_bits(options.dtype, array.download());
      };
      CHECK(close(options.dtype, 64, values(keys), want.search_keys));
      for (std::size_t m = 0; m < routing.size(); ++m) {
        CHECK(close(options.dtype, 64, values(routing[m]), want.routing_queries[m]));
      }
    }
  }
}
