#include <limits>

#include "multistep/attention.hpp"
#include "parallel.hpp"
#include "shape.hpp"

namespace multistep {
namespace {

void require_combine(const CombineArgs& args) {
  require(args.rows >= 0 && args.slots >= 1 && args.head_dim >= 1,
          "combine of {} rows, {} slots, head_dim {}: rows >= 0, slots >= 1, head_dim >= 1",
          args.rows, args.slots, args.head_dim);
  require_array_size({args.rows, args.slots, args.head_dim});
  require_array(args.count, "count", args.rows);
  require_array(args.scores, "scores", args.rows);
  for (Index row = 0; row < args.rows; ++row) {
    require(args.count[row] >= 0 && args.count[row] <= args.slots,
            "count {} of row {}: an integer in [0, slots {}]", args.count[row], row, args.slots);
  }
}

}  // namespace

std::vector<double> gates(const CombineArgs& args) {
  require_combine(args);
  std::vector<double> gates(at(args.rows * args.slots), 0);
  for (Index row = 0; row < args.rows; ++row) {
    const double* score = args.scores + row * args.slots;
    double* gate = gates.data() + row * args.slots;
    const Index count = args.count[row];
    double max = -std::numeric_limits<double>::infinity();
    for (Index slot = 0; slot < count; ++slot) max = std::max(max, score[slot]);
    double sum = 0;
    for (Index slot = 0; slot < count; ++slot) sum += gate[slot] = weight(score[slot], max);
    for (Index slot = 0; slot < count; ++slot) gate[slot] /= sum;
  }
  return gates;
}

std::vector<double> combine(const CombineArgs& args) {
  const std::vector<double> gate = gates(args);
  require_array(args.outputs, "outputs", args.rows);
  std::vector<double> output(at(args.rows * args.head_dim), 0);
  for (Index row = 0; row < args.rows; ++row) {
    auto sum = writable_at(output.data(), row, args.head_dim);
    for (Index slot = row * args.slots; slot < row * args.slots + args.count[row]; ++slot) {
      sum += gate[at(slot)] * vector_at(args.outputs, slot, args.head_dim);
    }
  }
  return output;
}

}  // namespace multistep
