#include <cuda_runtime.h>
#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <regex>

#include "backward.hpp"
#include "multistep/cuda/plan.hpp"

// What plan_attention() tells is what runs: the kernels of a captured call, by name.

using namespace multistep;
using namespace gpu;

namespace {

/// Names of a plan that stand for kernels around a library's sort.
const std::map<std::string, std::vector<std::string>> kSorting{
    {"order_pairs", {"make_keys"}}, {"sort_pairs", {"make_keys", "make_tiles"}}};

/// Of multistep::cuda::(anonymous namespace)::name<...>(...) the name; empty for kernels of
/// libraries.
std::string short_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(mangled, nullptr, nullptr, &status), &std::free);
  if (status != 0) return mangled;
  std::smatch found;
  const std::string name = text.get();
  const std::regex ours(R"(^(?:void )?multistep::cuda::(?:\(anonymous namespace\)::)?(\w+)[<(])");
  return std::regex_search(name, found, ours) ? found[1].str() : "";
}

/// The kernels of this project that a call launches, in order.
template <class Args>
std::vector<std::string> launched_by(Args args, void (*call)(const Args&, cuda::Stream)) {
  cuda::DeviceBuffer workspace(cuda::workspace_size(args));
  args.workspace = {workspace.data(), workspace.size()};
  const cuda::OwnedStream owned;
  const cudaStream_t stream = owned.get();
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  call(args, stream);
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  std::size_t count = 0;
  REQUIRE(cudaGraphGetNodes(graph, nullptr, &count) == cudaSuccess);
  std::vector<cudaGraphNode_t> nodes(count);  // in the order of their making: one stream's
  REQUIRE(cudaGraphGetNodes(graph, nodes.data(), &count) == cudaSuccess);
  std::vector<std::string> names;
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    REQUIRE(cudaGraphNodeGetType(node, &type) == cudaSuccess);
    if (type != cudaGraphNodeTypeKernel) continue;
    cudaKernelNodeParams params{};
    REQUIRE(cudaGraphKernelNodeGetParams(node, &params) == cudaSuccess);
    const char* name = nullptr;
    REQUIRE(cudaFuncGetName(&name, params.func) == cudaSuccess);
    if (std::string found = short_name(name); !found.empty()) names.push_back(std::move(found));
  }
  cudaGraphDestroy(graph);
  return names;
}

std::vector<std::string> launched(const OnDevice& device, Rung rung) {
  auto args = device.attention_args(rung);
  auto output = poisoned<std::uint16_t>(device.shape.rows() * device.shape.head_dim);
  args.output = output.data();
  return launched_by(args, cuda::attention);
}

/// Those of the backward pass that go over items' keys, each once.
std::vector<std::string> launched_backward(const Lesson& lesson, Rung rung) {
  const BackwardArrays arrays(lesson.device, lesson.found.kept, lesson.loss);
  const std::vector<std::string> all =
      launched_by(arrays.args(lesson.device, rung), cuda::attention_backward);
  std::vector<std::string> names;
  for (const char* name : {"query_gradients", "key_gradients", "backward_queries", "backward_keys",
                           "backward_warp_queries", "backward_warp_keys"}) {
    if (std::count(all.begin(), all.end(), name) > 0) names.push_back(name);
  }
  return names;
}

std::vector<std::string> planned(const cuda::AttentionPlan& plan) {
  std::vector<std::string> names;
  for (const cuda::StagePlan& stage : plan.stages) {
    for (const std::string& kernel : stage.kernels) {
      if (const auto sorting = kSorting.find(kernel); sorting != kSorting.end()) {
        names.insert(names.end(), sorting->second.begin(), sorting->second.end());
      } else if (names.empty() || names.back() != kernel || kernel != "decode_pieces") {
        names.push_back(kernel);  // decoding attends and combines in one launch
      }
    }
  }
  return names;
}

std::vector<Options> problems() {
  std::vector<Options> result;
  for (const std::string preset_name : {"nstep", "aligned", "paper", "released"}) {
    for (const Index steps : {1, 2, 3, 4}) {
      const bool two_steps = preset_name == "paper" || preset_name == "released";
      if (two_steps && steps != 2) continue;
      for (const Index head_dim : {80, 136, 100}) {
        for (const Index queries : {1, 40, 700}) {
          for (const Index top_k : {2, 5, 17}) {
            Options options;
            options.schedule =
                two_steps ? preset_schedule(preset_name) : preset_schedule(preset_name, steps);
            options.schedule.top_k = top_k;
            options.num_heads = 16;
            options.head_dim = head_dim;
            options.queries = queries;
            options.query_offset = 4096 - queries;
            result.push_back(options);
          }
        }
      }
    }
  }
  return result;
}

}  // namespace

TEST_CASE("A plan names the kernels that run", "[plan]") {
  const cuda::Chip chip = cuda::current_chip();
  for (const Options& options : problems()) {
    CAPTURE(options.schedule.steps, options.schedule.window_index, options.head_dim,
            options.queries, options.schedule.top_k);
    const Problem problem = make_problem(options);
    const OnDevice device(problem, Dtype::bf16);
    const cuda::AttentionPlan plan =
        cuda::plan_attention(device.shape, problem.plan, chip, device.softmax_scale);
    CHECK(launched(device, Rung::fast) == planned(plan));
    if (plan.fast()) {
      CHECK(launched(device, Rung::fast_or_refuse) == planned(plan));
    } else {
      auto args = device.attention_args(Rung::fast_or_refuse);
      CHECK_THROWS_WITH(cuda::workspace_size(args), "no fast kernel takes the call: " + plan.why());
    }
  }
}

TEST_CASE("A plan names the kernels of the backward pass that run", "[plan][backward]") {
  const cuda::Chip chip = cuda::current_chip();
  for (const Index steps : {1, 3}) {
    for (const Index head_dim : {64, 80, 136}) {
      for (const Index queries : {3, 90}) {
        CAPTURE(steps, head_dim, queries);
        Options options;
        options.schedule = preset_schedule("nstep", steps);
        options.schedule.window_index = 1;
        options.schedule.top_k = 17;
        options.head_dim = head_dim;
        options.queries = queries;
        options.query_offset = 50;
        const Lesson lesson(options);
        const auto plan = cuda::plan_attention(lesson.device.shape, lesson.problem.plan, chip);
        CHECK(launched_backward(lesson, Rung::fast) == plan.backward.kernels);
        CHECK(plan.backward.fast == plan.backward.why.empty());
        CHECK(launched_backward(lesson, Rung::plain) ==
              std::vector<std::string>{"query_gradients", "key_gradients"});
        if (!plan.backward.fast) {
          CHECK_THROWS_WITH(launched_backward(lesson, Rung::fast_or_refuse),
                            "no fast kernel takes the call: " + plan.backward.why);
        }
      }
    }
  }
}
