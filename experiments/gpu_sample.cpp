#include "gpu_sample.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "inputs.hpp"
#include "multistep/power.hpp"

namespace multistep {
namespace {

constexpr std::uint64_t kSampleStream = 2000;

/// Queries on edges, the most telling first, each once.
std::vector<Index> edge_queries(const GpuShape& shape, const StripePlan& plan) {
  const Index offset = shape.length - shape.queries;
  std::vector<Index> edges{shape.queries - 1, 0};
  const auto known = [&](Index query) {
    return std::find(edges.begin(), edges.end(), query) != edges.end();
  };
  const auto around = [&](Index query) {
    for (const Index near : {query - 1, query, query + 1}) {
      if (near >= 0 && near < shape.queries && !known(near)) edges.push_back(near);
    }
  };
  around(shape.start - offset);
  around(shape.start + plan.window(kMaxGpuLength, 0).length() - offset);
  const auto root = truncated(std::sqrt(static_cast<double>(shape.length)));
  around(root * root - 1 - offset);
  for (const Index tile : {64, 16, 128, 8, 256, 32}) {
    around(tile);
    around(shape.queries / tile * tile);
    around(shape.length / tile * tile - offset);
  }
  for (Index power = 1024; power <= shape.length; power *= 2) around(power - offset);
  return edges;
}

}  // namespace

std::vector<SampledRow> sample_rows(const GpuShape& shape, const StripePlan& plan, Index count) {
  std::set<SampledRow> rows;
  const auto add = [&](Index heads_row, Index query) {
    rows.insert({heads_row / shape.heads, heads_row % shape.heads, query});
  };
  const Index all_heads = shape.batch * shape.heads;
  if (shape.rows() <= count) {
    for (Index row = 0; row < shape.rows(); ++row) add(row / shape.queries, row % shape.queries);
  }
  const auto wanted = static_cast<std::size_t>(std::min(count, shape.rows()));
  add(0, 0);
  if (wanted > 1) add(all_heads - 1, shape.queries - 1);
  // Heads in turn, the next one of another group.
  Index head = 0;
  for (const Index query : edge_queries(shape, plan)) {
    if (2 * rows.size() >= wanted) break;
    add(head, query);
    head = (head + shape.group() + 1) % all_heads;
  }
  for (std::uint64_t draw = 0; rows.size() < wanted; ++draw) {
    const double uniform = random_input(shape.seed, kSampleStream, draw) / 3.4641016151377544 + 0.5;
    const auto query = truncated(uniform * static_cast<double>(shape.queries));
    add(static_cast<Index>(draw) % all_heads, std::min(query, shape.queries - 1));
  }
  return {rows.begin(), rows.end()};
}

}  // namespace multistep
