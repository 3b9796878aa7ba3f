#include "program/call.hpp"

#include <fmt/format.h>

#include <map>

#ifdef MULTISTEP_HAS_CUDA
#include "multistep/cuda/attention.hpp"
#endif

namespace multistep::program {
namespace {

constexpr Index kMaxHeadDim = 1024;

Json unknown_scratch(const std::string& reason) {
  return {{"scratch", nullptr}, {"scratch_reason", reason}};
}

const std::map<std::string, Index> kValueBytes{
    {"bf16", 2}, {"fp16", 2}, {"float", 4}, {"double", 8}};

}  // namespace

void CallOptions::add(CLI::App& command) {
  command.add_option("--length", length, "keys of a sequence, in [1, 2^48]")->required();
  command.add_option("--queries", queries,
                     "of a call, at the end: how many (default 1: decoding), or all");
  heads.add(command, kMaxHeadDim);
  command.add_option("--dtype", dtype, "bf16 (default), fp16, float or double");
  schedule.add(command);
}

Call::Call(const CallOptions& options)
    : length(parse_size("--length", options.length, 1, kMaxLength)),
      queries(options.queries == "all" ? length
                                       : parse_size("--queries", options.queries, 1, length)),
      heads(options.heads.read(kMaxHeadDim)),
      dtype(options.dtype),
      plan([&] {
        const Schedule schedule = options.schedule.schedule();
        return naming_options([&] { return StripePlan(schedule, length); });
      }()) {
  if (!kValueBytes.contains(dtype)) {
    throw std::invalid_argument(fmt::format("--dtype {}: bf16, fp16, float or double", dtype));
  }
}

Index Call::value_bytes() const { return kValueBytes.at(dtype); }

Json Call::json() const {
  const Schedule& schedule = plan.schedule();
  return {{"schedule", describe(schedule)},
          {"steps", schedule.steps},
          {"top_k", schedule.top_k},
          {"shape",
           {{"batch", heads.batch},
            {"num_heads", heads.heads},
            {"num_kv_heads", heads.kv_heads},
            {"queries", queries},
            {"keys", length},
            {"head_dim", heads.head_dim},
            {"dtype", dtype}}}};
}

std::string Call::text() const {
  return fmt::format(
      "schedule     {}, top_k {}\n"
      "shape        batch {}, {} heads over {}, {} queries, {} keys, head_dim {}, {}\n",
      describe(plan.schedule()), plan.schedule().top_k, heads.batch, heads.heads, heads.kv_heads,
      queries, length, heads.head_dim, dtype);
}

#ifdef MULTISTEP_HAS_CUDA
cuda::Shape Call::shape() const {
  cuda::Shape shape;
  shape.batch = heads.batch;
  shape.num_heads = heads.heads;
  shape.num_kv_heads = heads.kv_heads;
  shape.queries = queries;
  shape.keys = length;
  shape.head_dim = heads.head_dim;
  shape.query_offset = length - queries;
  return shape;
}

Json Call::scratch() const {
  if (cuda::device_count() == 0) return unknown_scratch("no CUDA device");
  if (value_bytes() != 2) return unknown_scratch("the kernels take bf16 and fp16");
  try {
    const cuda::DeviceSchedule schedule(plan);
    cuda::AttentionArgs args;
    args.shape = shape();
    args.dtype = dtype == "bf16" ? cuda::Dtype::bf16 : cuda::Dtype::fp16;
    args.schedule = &schedule;
    return {{"scratch", cuda::workspace_size(args)}, {"scratch_reason", nullptr}};
  } catch (const std::exception& error) {  // a shape that the kernels do not take
    return unknown_scratch(error.what());
  }
}
#else
Json Call::scratch() const { return unknown_scratch("built without CUDA"); }
#endif

std::string size_text(const Json& bytes) {
  const std::string exact = fmt::format("{} bytes", count_text(bytes));
  const double value = std::stod(count_text(bytes));
  for (const auto& [unit, name] :
       {std::pair{0x1p40, "TiB"}, {0x1p30, "GiB"}, {0x1p20, "MiB"}, {0x1p10, "KiB"}}) {
    if (value >= unit) return fmt::format("{}, {:.2f} {}", exact, value / unit, name);
  }
  return exact;
}

std::string scratch_text(const Json& result) {
  const Json& scratch = result["scratch"];
  return scratch.is_null()
             ? fmt::format("not known: {}", result["scratch_reason"].get<std::string>())
             : size_text(scratch);
}

}  // namespace multistep::program
