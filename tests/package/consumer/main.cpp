#include <multistep/multistep.hpp>
#include <vector>

using namespace multistep;

int main() {
  const Schedule schedule = preset_schedule("nstep", 3);  // N = 3: tight stripes, then even parts
  const CoverageReport report = verify_all(schedule, 10'000);
  if (!report.covered()) return 1;  // report.first_excluded tells where

  const Shape shape{.num_heads = 4, .num_kv_heads = 2, .queries = 100, .keys = 100, .head_dim = 8};
  const StripePlan plan(schedule, shape.keys);  // exact tables, for any length up to it
  const std::vector<float> q(4 * 100 * 8, 1), k(2 * 100 * 8, 1), v(2 * 100 * 8, 1);
  const AttentionArgs<float> args{shape, &plan, q.data(), k.data(), v.data(), {q.data(), q.data()}};
  const AttentionResult result = attention(args);  // result.output, .selection, ...
  const AttentionGradients d = attention_backward(args, {.output = result.output.data()});
  return result.output[0] == 1 && d.attention.query.size() == q.size() ? 0 : 1;
}
