#include "multistep/gradients.hpp"
#include "stages/shape.hpp"
#include "stages/softmax.hpp"

namespace multistep {
namespace {

void require_gates(const CombineArgs& args) {
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

void require_combine(const CombineArgs& args) {
  require_gates(args);
  require_array(args.outputs, "outputs", args.rows);
  require_array(args.lses, "lses", args.rows);
  require(!args.window_output == !args.window_lse,
          "window_output, window_lse: both, or null pointers");
}

/// A row's items and how they are joined.
class RowItems {
 public:
  RowItems(const CombineArgs& args, Index row)
      : args_(args),
        row_(row),
        window_lse_(args.window_lse ? args.window_lse[row] : -kInfinity),
        zeros_(Vector::Zero(args.head_dim)) {}

  Index first() const { return row_ * args_.slots; }
  Index past() const { return first() + args_.count[row_]; }  // slots in use
  Join<double> join(Index slot) const { return {args_.lses[slot], window_lse_}; }

  auto span(Index slot) const { return vector_at(args_.outputs, slot, args_.head_dim); }
  auto window() const {
    return args_.window_output ? vector_at(args_.window_output, row_, args_.head_dim)
                               : vector_at(zeros_.data(), 0, args_.head_dim);
  }

  /// J of SPEC 4: attention over the span and the window.
  Vector joined(Index slot) const {
    const Join<double> join = this->join(slot);
    return span(slot).binaryExpr(window(), join);
  }

 private:
  const CombineArgs& args_;
  Index row_;
  double window_lse_;
  Vector zeros_;
};

}  // namespace

std::vector<double> path_gates(const CombineArgs& args) {
  require_gates(args);
  std::vector<double> gates(at(args.rows * args.slots), 0);
  for (Index row = 0; row < args.rows; ++row) {
    const double* score = args.scores + row * args.slots;
    double* gate = gates.data() + row * args.slots;
    const Index count = args.count[row];
    double max = -kInfinity;
    for (Index slot = 0; slot < count; ++slot) max = std::max(max, score[slot]);
    double sum = 0;
    for (Index slot = 0; slot < count; ++slot) sum += gate[slot] = weight(score[slot], max);
    for (Index slot = 0; slot < count; ++slot) gate[slot] /= sum;
  }
  return gates;
}

std::vector<double> combine(const CombineArgs& args) {
  require_combine(args);
  const std::vector<double> gate = path_gates(args);
  std::vector<double> output(at(args.rows * args.head_dim), 0);
  for (Index row = 0; row < args.rows; ++row) {
    const RowItems items(args, row);
    auto sum = writable_at(output.data(), row, args.head_dim);
    if (args.count[row] == 0) sum = items.window();
    for (Index slot = items.first(); slot < items.past(); ++slot) {
      sum += gate[at(slot)] * items.joined(slot);
    }
  }
  return output;
}

/// Of a row with gates g_s, joints J_s = a_s O_s + b_s O_w and delta_s = <dO, J_s>:
/// d score_s = g_s (delta_s - sum g delta), dO_s = g_s a_s dO, dl_s = g_s a_s (<dO, O_s> -
/// delta_s), and for the window the same with b_s, summed over s.
CombineGradients combine_backward(const CombineArgs& args, const double* output_gradient) {
  require_combine(args);
  require_array(output_gradient, "output_gradient", args.rows);
  const std::vector<double> gate = path_gates(args);
  CombineGradients gradients;
  gradients.outputs.assign(at(args.rows * args.slots * args.head_dim), 0);
  gradients.lses.assign(at(args.rows * args.slots), 0);
  gradients.scores.assign(at(args.rows * args.slots), 0);
  gradients.window_output.assign(at(args.rows * args.head_dim), 0);
  gradients.window_lse.assign(at(args.rows), 0);
  for (Index row = 0; row < args.rows; ++row) {
    const RowItems items(args, row);
    const auto d_output = vector_at(output_gradient, row, args.head_dim);
    const double of_window = dot(d_output, items.window());
    double window_share = args.count[row] == 0 ? 1 : 0;  // sum of g b
    double mean = 0;                                     // sum of g delta
    for (Index slot = items.first(); slot < items.past(); ++slot) {
      const Join<double> join = items.join(slot);
      const double g = gate[at(slot)];
      const double delta = dot(d_output, items.joined(slot));
      gradients.scores[at(slot)] = delta;
      mean += g * delta;
      window_share += g * join.second;
      if (join.first != 0) {
        writable_at(gradients.outputs.data(), slot, args.head_dim) = g * join.first * d_output;
        gradients.lses[at(slot)] = g * join.first * (dot(d_output, items.span(slot)) - delta);
      }
      if (join.second != 0) {
        gradients.window_lse[at(row)] += g * join.second * (of_window - delta);
      }
    }
    writable_at(gradients.window_output.data(), row, args.head_dim) = window_share * d_output;
    for (Index slot = items.first(); slot < items.past(); ++slot) {
      double& d_score = gradients.scores[at(slot)];
      d_score = gate[at(slot)] * (d_score - mean);
    }
  }
  return gradients;
}

}  // namespace multistep
