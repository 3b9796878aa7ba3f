#include "multistep/memory.hpp"

#include <fmt/format.h>

#include "program/call.hpp"
#include "program/commands.hpp"
#include "program/output.hpp"

namespace multistep::program {
namespace {

struct Options {
  CallOptions call;
  std::string layers = "1";
  bool search_keys = false;
  OutputOptions output;
};

std::string text(const Call& call, const Json& result) {
  return fmt::format(
      "{}layers       {}\nkeys         {}\nvalues       {}\nsearch keys  {}\n"
      "a token      {}\nscratch      {}\n",
      call.text(), result["shape"]["layers"].get<Index>(), size_text(result["keys"]),
      size_text(result["values"]),
      result["search_keys"] == 0 ? "the keys" : size_text(result["search_keys"]),
      size_text(result["bytes_per_token"]), scratch_text(result));
}

int memory(const Options& options) {
  const Call call(options.call);
  const Index layers = parse_size("--layers", options.layers, 1, 1024);
  CacheShape cache{call.length, call.heads.batch,   call.heads.kv_heads, call.heads.head_dim,
                   layers,      call.value_bytes(), options.search_keys};
  const CacheBytes bytes = cache_bytes(cache);
  cache.length = cache.batch = 1;
  Json result = call.json();
  result["shape"]["layers"] = layers;
  result.update({{"keys", bytes.keys},
                 {"values", bytes.values},
                 {"search_keys", bytes.search_keys},
                 {"bytes_per_token", cache_bytes(cache).total()}});
  result.update(call.scratch());
  options.output.json ? options.output.write(result) : options.output.write(text(call, result));
  return 0;
}

}  // namespace

void add_memory(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "memory", "Bytes of keys, values, search keys and the kernels' scratch for a shape");
  options->call.add(*command);
  command->add_option("--layers", options->layers, "in [1, 1024] (default 1)");
  command->add_flag("--search-keys", options->search_keys,
                    "search keys are accumulated in arrays of their own");
  options->output.add(*command);
  command->footer(
      "Layers share the scratch, which is that of one call on the current device; where it is not\n"
      "known, the reason is told.\n"
      "Example:\n"
      "  multistep memory --length 10M --kv-heads 2 --layers 6 --preset released");
  command->callback([options, &run] { run = [options] { return memory(*options); }; });
}

}  // namespace multistep::program
