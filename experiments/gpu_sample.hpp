#pragma once

#include <vector>

#include "gpu_options.hpp"

namespace multistep {

/// A query row: one of [batch, heads, queries].
struct SampledRow {
  Index batch = 0;
  Index head = 0;
  Index query = 0;  // in [0, queries)

  Index index(const GpuShape& shape) const {
    return (batch * shape.heads + head) * shape.queries + query;
  }
  Index position(const GpuShape& shape) const { return shape.length - shape.queries + query; }
  Index kv_head(const GpuShape& shape) const {
    return batch * shape.kv_heads + head / shape.group();
  }
  friend auto operator<=>(const SampledRow&, const SampledRow&) = default;
};

/// `count` rows, in order of their KV heads, or all where there are no more: the first and the last
/// query, queries beside tiles, powers and the window's edge, and seeded random ones.
std::vector<SampledRow> sample_rows(const GpuShape& shape, const StripePlan& plan, Index count);

}  // namespace multistep
