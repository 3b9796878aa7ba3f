#include <algorithm>
#include <array>

#include "api/call.cuh"
#include "api/choose.cuh"
#include "multistep/work.hpp"

namespace multistep::cuda {
namespace {

using Kernels = std::vector<std::string>;

StagePlan search_plan(const KernelChoice& choice, const Rows& rows, const Schedule& schedule,
                      Index keys, const Chip& chip) {
  const int top_k = narrow(schedule.top_k);
  const int levels = narrow(schedule.steps) - 1;
  StagePlan stage{"search", {}, choice.fast_search(), choice.not_search};
  const auto run = [&](const Kernels& kernels) {
    stage.kernels.insert(stage.kernels.end(), kernels.begin(), kernels.end());
  };
  for (int m = 0; m < levels;) {
    const bool inner = m > 0;
    int count = 1;
    if (!choice.fast_search()) {
      run({"search_level"});
    } else if (units_are_few(rows, top_k, inner, chip.multiprocessors)) {
      run({"search_few"});
      count = levels_at_once(rows, top_k, inner, levels - m, chip);
    } else {
      const bool product = searches_product(schedule, m + 1, rows, keys, chip.multiprocessors);
      if (inner && (product || sorts_parents(rows.total() * top_k))) run({"order_pairs"});
      run({product ? "search_parts" : inner ? "search_parents" : "search_shared"});
      if (inner) run({top_k > kMaxFastTopK ? "choose_many" : "choose_rows"});
    }
    m += count;
  }
  return stage;
}

std::string tiles_of(const Chip& chip) {
  return chip.hopper ? "attend_tiles" : "attend_warp_tiles";
}

StagePlan attend_plan(const KernelChoice& choice, const Chip& chip) {
  if (!choice.tiles()) return {"attend", {"span_attention"}, false, choice.not_tiles};
  return {"attend", {"sort_pairs", tiles_of(chip)}, true, ""};
}

StagePlan combine_plan(const Shape& shape, const Combine& combine, const Chip& chip) {
  const std::string why = why_not_fast_combine(shape, combine);
  if (!why.empty()) return {"combine", {"combine_rows"}, false, why};
  Kernels fast;
  if (combine.rows.window > 0) fast.push_back(tiles_of(chip));
  if (combine.rows.window == 0 || combines_twice(combine)) fast.push_back("combine_row_pieces");
  return {"combine", fast, true, ""};
}

StagePlan backward_plan(const Shape& shape, float scale, const Chip& chip) {
  std::string why = why_not_backward_tiles(shape, scale);
  if (shape.length) why = "length: no backward pass where it is on the device";
  if (!why.empty()) return {"backward", {"query_gradients", "key_gradients"}, false, why};
  const Kernels fast = goes_back_on_hopper(chip.hopper, shape.head_dim)
                           ? Kernels{"backward_queries", "backward_keys"}
                           : Kernels{"backward_warp_queries", "backward_warp_keys"};
  return {"backward", fast, true, ""};
}

}  // namespace

Chip current_chip() {
  const Device device = current_device();
  return {device.multiprocessors, device.hopper, largest_cluster()};
}

Chip chip_named(const std::string& name) {
  if (name.empty() && why_unusable().empty()) return current_chip();
  if (name.empty() || name == "h100") return {132, true, 16};
  if (name == "a100") return {108, false, 1};
  throw std::invalid_argument("chip " + name + ": h100 or a100");
}

bool AttentionPlan::fast() const { return why().empty(); }

std::string AttentionPlan::why() const {
  const auto slow = std::find_if(stages.begin(), stages.end(),
                                 [](const StagePlan& stage) { return !stage.fast; });
  return slow == stages.end() ? "" : slow->why;
}

AttentionPlan plan_attention(const Shape& shape, const StripePlan& plan, const Chip& chip,
                             std::optional<double> softmax_scale) {
  require_shape(shape);
  require_scale(softmax_scale.value_or(1), "softmax_scale");
  const int levels = static_cast<int>(plan.steps()) - 1;
  const Index slots = levels > 0 ? plan.schedule().top_k : 0;
  const KernelChoice choice(shape, slots,
                            items_of_magnitude(plan.schedule(), magnitude_of(longest_row(shape))),
                            Rung::fast);
  AttentionPlan result;
  result.backward = backward_plan(shape, scale_of(softmax_scale, shape.head_dim), chip);
  result.queries_at_once = choice.queries_at_once(shape, slots);
  const int window = levels == 0 ? INT_MAX : narrow(plan.window(plan.max_length() - 1, 0).length());
  Combine combine{};
  combine.rows = rows_of(shape, window, 0, result.queries_at_once);
  combine.slots = narrow(slots);
  combine.scale = scale_of(softmax_scale, shape.head_dim);
  auto& stages = result.stages;
  if (levels > 0) {
    stages.push_back(search_plan(choice, combine.rows, plan.schedule(), longest_row(shape), chip));
  }
  if (choice.chunks) {
    stages.push_back({"attend", {tiles_of(chip)}, true, ""});
    stages.push_back({"combine", {"merge_outputs"}, true, ""});
    return result;
  }
  if (choice.pieces()) {
    stages.push_back({"attend", {"decode_pieces"}, true, ""});
    stages.push_back({"combine", {"decode_pieces"}, true, ""});
    return result;
  }
  if (levels > 0) stages.push_back(attend_plan(choice, chip));
  stages.push_back(combine_plan(shape, combine, chip));
  return result;
}

ExpectedWork expected_work(const Shape& shape, const StripePlan& plan) {
  constexpr Index kSampled = 16;
  const Index sampled = std::min(kSampled, shape.queries);
  WorkCount sum;
  for (Index i = 0; i < sampled; ++i) {
    const Index query = longest_row(shape) - 1 - i * (shape.queries / sampled);
    if (query < 0) break;  // of more queries than keys
    sum += random_routing_work(plan, query, static_cast<std::uint64_t>(i) + 1);
  }
  const auto mean = [&](Index count) {
    return sampled == 0 ? 0 : static_cast<double>(count) / static_cast<double>(sampled);
  };
  ExpectedWork work{mean(sum.anchors_scored), mean(sum.keys_attended), 0, 0};
  const auto rows = static_cast<double>(shape.rows());
  const auto d = static_cast<double>(shape.head_dim);
  work.products = rows * (work.anchors_scored + 2 * work.keys_attended) * d;
  const double cache = 2 * static_cast<double>(shape.batch * shape.num_kv_heads) *
                       static_cast<double>(shape.keys) * d;
  const double inputs_and_output = rows * static_cast<double>(plan.steps() + 1) * d;
  work.bytes = 2 * (std::min(work.products, cache) + inputs_and_output);
  return work;
}

}  // namespace multistep::cuda
