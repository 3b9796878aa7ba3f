#include "multistep/memory.hpp"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "program/commands.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#ifdef MULTISTEP_HAS_CUDA
#include "multistep/cuda/attention.hpp"
#endif

namespace multistep::program {
namespace {

constexpr Index kMaxHeadDim = 1024;

struct Options {
  std::string length;
  std::string queries = "1";
  std::string layers = "1";
  std::string dtype = "bf16";
  bool search_keys = false;
  HeadOptions heads{.heads = "32", .kv_heads = "2", .head_dim = "128"};
  ScheduleOptions schedule;
  OutputOptions output;
};

Index value_bytes(const std::string& dtype) {
  static const std::map<std::string, Index> kBytes{
      {"bf16", 2}, {"fp16", 2}, {"float", 4}, {"double", 8}};
  const auto found = kBytes.find(dtype);
  if (found == kBytes.end()) {
    throw std::invalid_argument(fmt::format("--dtype {}: bf16, fp16, float or double", dtype));
  }
  return found->second;
}

#ifdef MULTISTEP_HAS_CUDA
/// Bytes of the kernels' workspace for one layer's call, or why they are not known.
std::pair<Json, std::string> scratch(const Heads& heads, const std::string& dtype, Index length,
                                     Index queries, const StripePlan& plan) {
  if (cuda::device_count() == 0) return {nullptr, "no CUDA device"};
  if (value_bytes(dtype) != 2) return {nullptr, "the kernels take bf16 and fp16"};
  try {
    const cuda::DeviceSchedule schedule(plan);
    cuda::AttentionArgs args;
    args.shape.batch = heads.batch;
    args.shape.num_heads = heads.heads;
    args.shape.num_kv_heads = heads.kv_heads;
    args.shape.queries = queries;
    args.shape.keys = length;
    args.shape.head_dim = heads.head_dim;
    args.shape.query_offset = length - queries;
    args.dtype = dtype == "bf16" ? cuda::Dtype::bf16 : cuda::Dtype::fp16;
    args.schedule = &schedule;
    return {cuda::workspace_size(args), ""};
  } catch (const std::exception& error) {  // a shape that the kernels do not take
    return {nullptr, error.what()};
  }
}
#else
std::pair<Json, std::string> scratch(const Heads&, const std::string&, Index, Index,
                                     const StripePlan&) {
  return {nullptr, "built without CUDA"};
}
#endif

/// "6144 bytes, 6.00 KiB".
std::string size_text(const Json& bytes) {
  const std::string exact = fmt::format("{} bytes", count_text(bytes));
  const double value = std::stod(count_text(bytes));
  for (const auto& [unit, name] :
       {std::pair{0x1p40, "TiB"}, {0x1p30, "GiB"}, {0x1p20, "MiB"}, {0x1p10, "KiB"}}) {
    if (value >= unit) return fmt::format("{}, {:.2f} {}", exact, value / unit, name);
  }
  return exact;
}

std::string text(const Json& result) {
  const Json& shape = result["shape"];
  const Json& scratch = result["scratch"];
  return fmt::format(
      "schedule     {}, top_k {}\n"
      "shape        batch {}, {} heads over {}, {} queries, {} keys, head_dim {}, {} layers, {}\n"
      "keys         {}\nvalues       {}\nsearch keys  {}\na token      {}\nscratch      {}\n",
      result["schedule"].get<std::string>(), result["top_k"].get<Index>(),
      shape["batch"].get<Index>(), shape["num_heads"].get<Index>(),
      shape["num_kv_heads"].get<Index>(), shape["queries"].get<Index>(), shape["keys"].get<Index>(),
      shape["head_dim"].get<Index>(), shape["layers"].get<Index>(),
      shape["dtype"].get<std::string>(), size_text(result["keys"]), size_text(result["values"]),
      result["search_keys"] == 0 ? "the keys" : size_text(result["search_keys"]),
      size_text(result["bytes_per_token"]),
      scratch.is_null() ? fmt::format("not known: {}", result["scratch_reason"].get<std::string>())
                        : size_text(scratch));
}

int memory(const Options& options) {
  const Index length = parse_size("--length", options.length, 1, kMaxLength);
  const Index queries =
      options.queries == "all" ? length : parse_size("--queries", options.queries, 1, length);
  const Index layers = parse_size("--layers", options.layers, 1, 1024);
  const Heads heads = options.heads.read(kMaxHeadDim);
  const Schedule schedule = options.schedule.schedule();
  CacheShape cache{length,
                   heads.batch,
                   heads.kv_heads,
                   heads.head_dim,
                   layers,
                   value_bytes(options.dtype),
                   options.search_keys};
  const CacheBytes bytes = cache_bytes(cache);
  cache.length = cache.batch = 1;
  const auto plan = naming_options([&] { return StripePlan(schedule, length); });
  const auto [size, reason] = scratch(heads, options.dtype, length, queries, plan);
  const Json result = {{"schedule", describe(schedule)},
                       {"steps", schedule.steps},
                       {"top_k", schedule.top_k},
                       {"shape",
                        {{"batch", heads.batch},
                         {"num_heads", heads.heads},
                         {"num_kv_heads", heads.kv_heads},
                         {"queries", queries},
                         {"keys", length},
                         {"head_dim", heads.head_dim},
                         {"layers", layers},
                         {"dtype", options.dtype}}},
                       {"keys", bytes.keys},
                       {"values", bytes.values},
                       {"search_keys", bytes.search_keys},
                       {"bytes_per_token", cache_bytes(cache).total()},
                       {"scratch", size},
                       {"scratch_reason", reason.empty() ? Json() : Json(reason)}};
  options.output.json ? options.output.write(result) : options.output.write(text(result));
  return 0;
}

}  // namespace

void add_memory(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "memory", "Bytes of keys, values, search keys and the kernels' scratch for a shape");
  command->add_option("--length", options->length, "keys of a sequence, in [1, 2^48]")->required();
  command->add_option("--queries", options->queries,
                      "of a call, for the scratch: how many (default 1: decoding), or all");
  options->heads.add(*command, kMaxHeadDim);
  command->add_option("--layers", options->layers, "in [1, 1024] (default 1)");
  command->add_option("--dtype", options->dtype, "bf16 (default), fp16, float or double");
  command->add_flag("--search-keys", options->search_keys,
                    "search keys are accumulated in arrays of their own");
  options->schedule.add(*command);
  options->output.add(*command);
  command->footer(
      "Layers share the scratch, which is that of one call on the current device; where it is not\n"
      "known, the reason is told.\n"
      "Example:\n"
      "  multistep memory --length 10M --kv-heads 2 --layers 6 --preset released");
  command->callback([options, &run] { run = [options] { return memory(*options); }; });
}

}  // namespace multistep::program
