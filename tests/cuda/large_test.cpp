#include "judge.hpp"

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
