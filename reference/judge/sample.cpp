#include <algorithm>
#include <cmath>
#include <set>

#include "multistep/judge.hpp"
#include "multistep/power.hpp"
#include "stages/shape.hpp"
#include "support/random.hpp"

namespace multistep {
namespace {

/// Queries on edges, the most telling first, each once.
std::vector<Index> edge_queries(const Shape& shape, const StripePlan& plan) {
  const Rows rows(shape);
  const Index offset = rows.position(0);
  const Index last = offset + shape.queries - 1;
  std::vector<Index> edges{shape.queries - 1, 0};
  const auto around = [&](Index query) {
    for (const Index near : {query - 1, query, query + 1}) {
      const bool known = std::find(edges.begin(), edges.end(), near) != edges.end();
      if (near >= 0 && near < shape.queries && !known) edges.push_back(near);
    }
  };
  const Index start = rows.start(0);
  around(start - offset);
  around(start + plan.window(plan.max_length() - 1, 0).length() - offset);
  const Index root = truncated(std::sqrt(static_cast<double>(std::max<Index>(last + 1, 0))));
  around(root * root - 1 - offset);
  for (const Index tile : {64, 16, 128, 8, 256, 32}) {
    around(tile);
    around(shape.queries / tile * tile);
    around((last + 1) / tile * tile - offset);
  }
  for (Index power = 1024; power <= last + 1; power *= 2) around(power - offset);
  return edges;
}

}  // namespace

std::vector<Index> sample_rows(const Shape& shape, const StripePlan& plan, Index count,
                               std::uint64_t seed) {
  require(count >= 1, "rows {}: an integer >= 1", count);
  const Index total = Rows(shape).count();
  std::vector<Index> all;
  if (total <= count) {
    for (Index row = 0; row < total; ++row) all.push_back(row);
    return all;
  }
  const Index heads = shape.batch * shape.num_heads;
  const Index group = shape.num_heads / shape.num_kv_heads;
  std::set<Index> rows{0};
  const auto wanted = static_cast<std::size_t>(count);
  if (wanted > 1) rows.insert(total - 1);
  Index head = 0;
  for (const Index query : edge_queries(shape, plan)) {
    if (2 * rows.size() >= wanted) break;
    rows.insert(head * shape.queries + query);
    head = (head + group + 1) % heads;  // the next one is of another group
  }
  if (count > total / 2) {  // the others in a random order
    std::vector<Index> rest;
    for (Index row = 0; row < total; ++row) {
      if (rows.count(row) == 0) rest.push_back(row);
    }
    for (std::size_t i = 0; rows.size() < wanted; ++i) {
      const auto left = static_cast<std::uint64_t>(rest.size() - i);
      std::swap(rest[i], rest[i + static_cast<std::size_t>(next_random(seed) % left)]);
      rows.insert(rest[i]);
    }
  }
  for (Index draw = 0; rows.size() < wanted; ++draw) {  // heads in turn
    const auto query = next_random(seed) % static_cast<std::uint64_t>(shape.queries);
    rows.insert(draw % heads * shape.queries + static_cast<Index>(query));
  }
  return {rows.begin(), rows.end()};
}

Index affordable_rows(const Shape& shape, const StripePlan& plan, double products) {
  const Rows rows(shape);
  if (rows.count() == 0) return 1;
  // Of the last query: its anchors at every level, spans and window, each looked at a few times.
  constexpr double kPasses = 8;
  const Index last = rows.position(rows.count() - 1);
  const auto n = static_cast<double>(std::max<Index>(last + 1, 1));
  const auto window = static_cast<double>(plan.window(std::max<Index>(last, 0), 0).length());
  const auto steps = static_cast<double>(plan.steps());
  const auto top_k = static_cast<double>(plan.schedule().top_k);
  const double keys = std::min(steps * n, window + 4 * steps * top_k * std::pow(n, 1 / steps));
  const double of_row = kPasses * static_cast<double>(shape.head_dim) * (keys + 1);
  const Index count = truncated(products / of_row);
  return std::clamp<Index>(count, std::min<Index>(1024, rows.count()), rows.count());
}

}  // namespace multistep
