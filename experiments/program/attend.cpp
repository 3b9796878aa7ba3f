#include <fmt/format.h>

#include <cmath>

#include "multistep/attention.hpp"
#include "multistep/host_memory.hpp"
#include "program/commands.hpp"
#include "program/inputs.hpp"
#include "program/options.hpp"
#include "program/output.hpp"

namespace multistep::program {
namespace {

constexpr Index kMaxHeadDim = 1024;

struct Options {
  std::string length;
  std::string queries = "all";
  HeadOptions heads{.heads = "1", .kv_heads = "1", .head_dim = "64"};
  std::string start = "0";
  std::string dtype = "float";
  std::string seed = "1";
  ScheduleOptions schedule;
  OutputOptions output;
};

/// FNV-1a over the bytes of the output: equal bits, equal checksum.
std::uint64_t checksum(const std::vector<double>& values) {
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (std::size_t i = 0; i < values.size() * sizeof(double); ++i) {
    hash = (hash ^ bytes[i]) * 0x100000001b3;
  }
  return hash;
}

/// Bytes of the oracle's inputs and output.
double array_bytes(const Shape& shape, const Schedule& schedule, std::size_t value_size) {
  const auto batch = static_cast<double>(shape.batch);
  const double rows =
      batch * static_cast<double>(shape.num_heads) * static_cast<double>(shape.queries);
  const double kv_rows =
      batch * static_cast<double>(shape.num_kv_heads) * static_cast<double>(shape.keys);
  const auto values = rows * static_cast<double>(schedule.steps) + 2 * kv_rows;
  return static_cast<double>(shape.head_dim) *
         (values * static_cast<double>(value_size) + rows * sizeof(double));
}

template <class T>
AttentionResult run_oracle(const Shape& shape, const StripePlan& plan, std::uint64_t seed) {
  const auto count = [&](Index rows) { return static_cast<std::size_t>(rows * shape.head_dim); };
  const Index kv_rows = shape.batch * shape.num_kv_heads * shape.keys;
  const auto query = random_inputs<T>(count(shape.rows()), seed, 0);
  const auto key = random_inputs<T>(count(kv_rows), seed, 1);
  const auto value = random_inputs<T>(count(kv_rows), seed, 2);
  std::vector<std::vector<T>> routing;
  AttentionArgs<T> args;
  for (Index m = 1; m < plan.steps(); ++m) {
    routing.push_back(
        random_inputs<T>(count(shape.rows()), seed, static_cast<std::uint64_t>(m) + 2));
    args.routing_queries.push_back(routing.back().data());
  }
  args.shape = shape;
  args.plan = &plan;
  args.query = query.data();
  args.key = key.data();
  args.value = value.data();
  ProgressBar bar("attend");
  return attention(args, bar.callback());
}

std::string text(const Json& result) {
  const Json& shape = result["shape"];
  const Json& work = result["work"];
  const Json& seconds = result["seconds"];
  return fmt::format(
      "schedule  {}, top_k {}\n"
      "shape     batch {}, {} heads over {}, {} queries, {} keys, head_dim {}, {}\n"
      "output    checksum {}, root mean square {:.6f}\n"
      "work      {} anchors scored, {} keys attended: {:.5f} of dense attention\n"
      "time      search {:.2f} s, attend {:.2f} s, combine {:.2f} s\n",
      result["schedule"].get<std::string>(), result["top_k"].get<Index>(),
      shape["batch"].get<Index>(), shape["num_heads"].get<Index>(),
      shape["num_kv_heads"].get<Index>(), shape["queries"].get<Index>(), shape["keys"].get<Index>(),
      shape["head_dim"].get<Index>(), result["dtype"].get<std::string>(),
      result["checksum"].get<std::string>(), result["root_mean_square"].get<double>(),
      work["anchors_scored"].get<Index>(), work["keys_attended"].get<Index>(),
      work["share_of_dense"].get<double>(), seconds["search"].get<double>(),
      seconds["attend"].get<double>(), seconds["combine"].get<double>());
}

int attend(const Options& options) {
  const Index length = parse_size("--length", options.length, 1, kMaxLength);
  const Index queries =
      options.queries == "all" ? length : parse_size("--queries", options.queries, 1, length);
  const auto [batch, heads, kv_heads, head_dim] = options.heads.read(kMaxHeadDim);
  const std::vector<Index> start(static_cast<std::size_t>(batch),
                                 parse_size("--start", options.start, 0, length - 1));
  const Index seed = parse_size("--seed", options.seed, 0, INT64_MAX);
  if (options.dtype != "float" && options.dtype != "double") {
    throw std::invalid_argument(fmt::format("--dtype {}: float or double", options.dtype));
  }
  const bool single = options.dtype == "float";
  const Schedule schedule = options.schedule.schedule();
  const Shape shape{batch,  heads,    kv_heads,         queries,
                    length, head_dim, length - queries, start.data()};
  require_memory(fmt::format("--length {}: the arrays take", length),
                 array_bytes(shape, schedule, single ? sizeof(float) : sizeof(double)));
  const auto plan = naming_options([&] { return StripePlan(schedule, length); });

  const auto seed_bits = static_cast<std::uint64_t>(seed);
  const AttentionResult result = single ? run_oracle<float>(shape, plan, seed_bits)
                                        : run_oracle<double>(shape, plan, seed_bits);
  const WorkCount work = result.work();
  Count dense;  // pairs of a query and an eligible key
  for (Index i = 0; i < queries; ++i) {
    dense += std::max<Index>(0, length - queries + i + 1 - start.front());
  }
  dense = std::max(dense, Count(1)) * (batch * heads);
  double squares = 0;
  for (const double value : result.output) squares += value * value;
  const Json json = {
      {"schedule", describe(schedule)},
      {"steps", schedule.steps},
      {"top_k", schedule.top_k},
      {"shape",
       {{"batch", batch},
        {"num_heads", heads},
        {"num_kv_heads", kv_heads},
        {"queries", queries},
        {"keys", length},
        {"head_dim", head_dim},
        {"start", start.front()}}},
      {"dtype", options.dtype},
      {"seed", seed},
      {"checksum", fmt::format("{:016x}", checksum(result.output))},
      {"root_mean_square", std::sqrt(squares / static_cast<double>(result.output.size()))},
      {"work",
       {{"anchors_scored", work.anchors_scored},
        {"keys_attended", work.keys_attended},
        {"share_of_dense", static_cast<double>(work.total()) / dense.to_double()}}},
      {"seconds",
       {{"search", result.seconds.search},
        {"attend", result.seconds.attend},
        {"combine", result.seconds.combine}}}};
  options.output.json ? options.output.write(json) : options.output.write(text(json));
  return 0;
}

}  // namespace

void add_attend(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "attend", "Run the oracle on seeded inputs: checksum, work, time by stage");
  command->add_option("--length", options->length, "keys, in [1, 2^48]")->required();
  command->add_option("--queries", options->queries,
                      "all (default), or how many: the last ones of the sequence");
  options->heads.add(*command, kMaxHeadDim);
  command->add_option("--start", options->start, "first eligible key, in [0, L) (default 0)");
  command->add_option("--dtype", options->dtype,
                      "float (default) or double inputs; arithmetic is in double");
  command->add_option("--seed", options->seed, "seed of the inputs (default 1)");
  options->schedule.add(*command);
  options->output.add(*command);
  command->footer(
      "Example:\n"
      "  multistep attend --length 16Ki --heads 4 --kv-heads 2 --steps 3");
  command->callback([options, &run] { run = [options] { return attend(*options); }; });
}

}  // namespace multistep::program
