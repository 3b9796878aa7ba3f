#include "multistep/memory.hpp"

#include "support/error.hpp"

namespace multistep {

CacheBytes cache_bytes(const CacheShape& shape) {
  require_within("length", shape.length, 1, kMaxLength);
  constexpr Index kMost = Index{1} << 16;  // of each: the product stays below 2^128
  require_within("batch", shape.batch, 1, kMost);
  require_within("num_kv_heads", shape.num_kv_heads, 1, kMost);
  require_within("head_dim", shape.head_dim, 1, kMost);
  require_within("layers", shape.layers, 1, kMost);
  require_within("value_bytes", shape.value_bytes, 1, 8);
  const Count each = Count(shape.length) * shape.batch * shape.num_kv_heads * shape.head_dim *
                     shape.layers * shape.value_bytes;
  return {each, each, shape.search_keys ? each : Count()};
}

}  // namespace multistep
