#include "backward.hpp"

// Keys beyond 2^31 elements from the array's begin.

using namespace multistep;
using namespace gpu;

namespace {

constexpr Index kHeads = 32;
constexpr Index kKeys = 600 * 1024;
constexpr Index kHeadDim = 128;
constexpr Index kShift = 3;  // head h's keys are the block's rows from kShift * h on
static_assert(kHeads * kKeys * kHeadDim > Index{1} << 31);

/// The heads' keys, cut from one block of integers.
struct Cache {
  std::vector<float> block;
  cuda::DeviceBuffer device{at(kHeads * kKeys * kHeadDim) * 2};

  explicit Cache(Dtype dtype) : block(at((kKeys + kShift * kHeads) * kHeadDim)) {
    inputs::Random random(9);
    for (std::size_t i = 0; i < block.size(); i += 16) {  // three bits for each number
      const std::uint64_t bits = random.next();
      for (std::size_t j = 0; j < 16; ++j) {
        block[i + j] = static_cast<float>(static_cast<int>(bits >> 3 * j & 7) % 5 - 2);
      }
    }
    const auto stored = cuda::to_16_bits(dtype, block);
    for (Index head = 0; head < kHeads; ++head) {
      device.upload(stored.data() + kShift * head * kHeadDim, at(kKeys * kHeadDim) * 2,
                    at(head * kKeys * kHeadDim) * 2);
    }
  }
  const float* head(Index h) const { return block.data() + kShift * h * kHeadDim; }
};

}  // namespace

TEST_CASE("GPU caches of more than 2^31 elements", "[large]") {
  const std::size_t memory = cuda::device_info().memory_bytes;
  if (memory < std::size_t{20} << 30) {
    WARN("skipped: " << memory << " bytes of device memory, 20 GiB wanted");
    return;
  }
  const Dtype dtype = Dtype::bf16;
  const Cache cache(dtype);
  for (const Index steps : {1, 2, 3}) {
    for (const Index queries : {1, 16, 70}) {
      Options options;
      options.schedule = preset_schedule("nstep", steps);
      options.schedule.window_index = steps == 1 ? 0 : 3;
      options.batch = 1;
      options.num_heads = options.num_kv_heads = kHeads;
      options.queries = queries;
      options.head_dim = kHeadDim;
      Problem problem = make_problem(options);  // its queries; the keys are the cache's
      const StripePlan plan(options.schedule, kKeys);
      problem.plan = plan;
      OnDevice device(problem, dtype);
      device.shape.keys = kKeys;
      device.shape.query_offset = kKeys - queries;
      // One step reads every key: few of them by left padding.
      const Index start = steps == 1 ? kKeys - 300 : 5;
      device.start = DeviceArray<std::int32_t>(to_int32({start}));
      device.shape.start = device.start.data();
      for (const Rung rung : kRungs) {
        CAPTURE(steps, queries, name(rung));
        auto args = device.attention_args(rung);
        args.key = args.value = cache.device.data();
        args.search_keys = nullptr;
        const Whole got = gpu::attention(args);
        for (const Index head : {Index{0}, kHeads / 2, kHeads - 2, kHeads - 1}) {
          CAPTURE(head);
          const Index offset = head * queries;
          multistep::Shape shape{1, 1, 1, queries, kKeys, kHeadDim, kKeys - queries, &start};
          std::vector<const float*> routing;
          for (const auto& level : problem.routing) {
            routing.push_back(level.data() + offset * kHeadDim);
          }
          const float* keys = cache.head(head);
          const multistep::AttentionArgs<float> args{
              shape, &plan, problem.query.data() + offset * kHeadDim, keys, keys, routing};
          const Whole of_head = got.of_rows(offset, queries);
          if (steps > 1) {
            CHECK(difference(of_head.kept, span_search<float>({shape, &plan, routing, keys, 1})) ==
                  "");
          }
          CHECK(wrong_whole(args, dtype, of_head) == "");
        }
      }
    }
  }
}

// A chunk's queries are rows of the whole: their gradients are its bits, and so, within rounding,
// are those of the keys that only they can see.
TEST_CASE("GPU gradients of more than 2^31 elements", "[large][backward]") {
  const std::size_t memory = cuda::device_info().memory_bytes;
  if (memory < std::size_t{70} << 30) {
    WARN("skipped: " << memory << " bytes of device memory, 70 GiB wanted");
    return;
  }
  const Dtype dtype = Dtype::bf16;
  const Cache cache(dtype);
  constexpr Index kChunk = 70;
  const cuda::DeviceSchedule schedule(StripePlan(preset_schedule("nstep"), kKeys));
  const auto buffer = [](Index rows, Index width, std::size_t bytes) {
    cuda::DeviceBuffer array(at(rows * width) * bytes);
    array.fill(0xff);
    return array;
  };
  // Rows [first, kKeys) of every head of the cache.
  const auto rows_from = [&](Index first) {
    cuda::DeviceBuffer array(at(kHeads * (kKeys - first) * kHeadDim) * 2);
    std::vector<std::uint16_t> host(at((kKeys - first) * kHeadDim));
    for (Index head = 0; head < kHeads; ++head) {
      cache.device.download(host.data(), host.size() * 2,
                            at((head * kKeys + first) * kHeadDim) * 2);
      array.upload(host.data(), host.size() * 2, at(head * (kKeys - first) * kHeadDim) * 2);
    }
    return array;
  };
  struct Run {
    std::vector<std::uint16_t> query, key, value, routing;  // of the last rows of the last head
  };
  // `queries` ones at the end, all of them the cache's rows.
  const auto run_of = [&](Index queries, const void* query) -> Run {
    const Index rows = kHeads * queries;
    const auto spans = buffer(rows, 2, sizeof(DeviceSpan));
    const auto scores = buffer(rows, 2, sizeof(float));
    const auto anchors = buffer(rows, 2, sizeof(std::int32_t));
    cuda::AttentionBackwardArgs args;
    {
      const auto output = buffer(rows, kHeadDim, 2);
      cuda::AttentionArgs forward;
      forward.shape = {1, kHeads, kHeads, queries, kKeys, kHeadDim, kKeys - queries};
      forward.dtype = dtype;
      forward.schedule = &schedule;
      forward.query = query;
      forward.key = forward.value = cache.device.data();
      forward.routing_queries = {query};
      forward.output = output.data();
      forward.spans = static_cast<DeviceSpan*>(spans.data());
      forward.scores = static_cast<float*>(scores.data());
      forward.anchors = static_cast<std::int32_t*>(anchors.data());
      run(forward, cuda::attention);
      args.shape = forward.shape;
    }
    args.dtype = dtype;
    args.schedule = &schedule;
    args.query = args.output_gradient = query;
    args.key = args.value = cache.device.data();
    args.routing_queries = {query};
    args.spans = static_cast<const DeviceSpan*>(spans.data());
    args.scores = static_cast<const float*>(scores.data());
    args.anchors = static_cast<const std::int32_t*>(anchors.data());
    const auto by_query = buffer(rows, kHeadDim, 2);
    const auto by_routing = buffer(rows, kHeadDim, 2);
    const auto by_key = buffer(kHeads * kKeys, kHeadDim, 2);
    const auto by_value = buffer(kHeads * kKeys, kHeadDim, 2);
    args.query_gradient = by_query.data();
    args.routing_gradients = {by_routing.data()};
    args.key_gradient = by_key.data();
    args.value_gradient = by_value.data();
    run(args, cuda::attention_backward);
    const auto last = [](const cuda::DeviceBuffer& array) {
      std::vector<std::uint16_t> host(at(kChunk * kHeadDim));
      array.download(host.data(), host.size() * 2, array.size() - host.size() * 2);
      return host;
    };
    return {last(by_query), last(by_key), last(by_value), last(by_routing)};
  };
  const Run whole = run_of(kKeys, cache.device.data());
  const cuda::DeviceBuffer some = rows_from(kKeys - kChunk);
  const Run chunk = run_of(kChunk, some.data());
  CHECK(same_bits(whole.query, chunk.query));
  CHECK(same_bits(whole.routing, chunk.routing));
  const auto close = [&](const std::vector<std::uint16_t>& a, const std::vector<std::uint16_t>& b) {
    const auto left = cast<double>(cuda::from_16_bits(dtype, a));
    const auto right = cast<double>(cuda::from_16_bits(dtype, b));
    double largest = 0;
    for (const double x : right) largest = std::max(largest, std::abs(x));
    for (std::size_t i = 0; i < left.size(); ++i) {
      // The sums, in float32 and in other orders, round to neighbours at most.
      if (!within_tolerance(left[i], right[i], 0x1p-7 * std::abs(right[i]) + 0x1p-18 * largest)) {
        return false;
      }
    }
    return largest > 0;
  };
  CHECK(close(whole.key, chunk.key));
  CHECK(close(whole.value, chunk.value));
}
