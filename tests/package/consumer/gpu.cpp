#include <multistep/cuda.hpp>
#include <vector>

using namespace multistep;

int main() {
  if (cuda::device_count() == 0) return 77;
  // One query of 32 heads at the end of 4096 keys of 2 heads; every value is 1.
  const Index length = 4096, d = 128;
  const auto ones = [](Index count) {
    const std::vector<float> host(static_cast<std::size_t>(count), 1);
    return cuda::DeviceArray<std::uint16_t>(cuda::to_16_bits(cuda::Dtype::bf16, host));
  };
  const auto query = ones(32 * d), key = ones(2 * length * d), value = ones(2 * length * d);
  const cuda::DeviceArray<std::uint16_t> output(32 * d);
  const StripePlan plan(preset_schedule("nstep", 3), length);
  const cuda::DeviceSchedule schedule(plan);  // exact tables

  cuda::AttentionArgs args;
  args.shape = {.num_heads = 32, .num_kv_heads = 2, .queries = 1, .keys = length, .head_dim = d};
  args.shape.query_offset = length - 1;
  args.schedule = &schedule;
  args.query = query.data();
  args.key = key.data();
  args.value = value.data();
  args.routing_queries = {query.data(), query.data()};  // of steps 1 and 2
  args.output = output.data();
  const cuda::DeviceBuffer scratch(cuda::workspace_size(args));
  args.workspace = {scratch.data(), scratch.size()};

  const cuda::OwnedStream stream;
  cuda::attention(args, stream.get());  // enqueues: no allocation, no waiting, fit for CUDA graphs
  stream.synchronize();
  return cuda::from_16_bits(cuda::Dtype::bf16, output.download())[0] == 1 ? 0 : 1;
}
