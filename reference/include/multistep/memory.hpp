#pragma once

#include "multistep/count.hpp"

namespace multistep {

/// Sequences whose keys and values are kept, as a model keeps them.
struct CacheShape {
  Index length = 0;  // keys of a sequence
  Index batch = 1;
  Index num_kv_heads = 1;
  Index head_dim = 0;
  Index layers = 1;
  Index value_bytes = 2;     // of a number: 2 for bf16 and fp16
  bool search_keys = false;  // are they arrays of their own, accumulated, and not the keys?
};

struct CacheBytes {
  Count keys;
  Count values;
  Count search_keys;  // 0 where they are the keys

  Count total() const { return keys + values + search_keys; }
};

/// Bytes of all layers: of keys and values together 2 num_kv_heads head_dim value_bytes a token and
/// layer. Throws std::invalid_argument for a size below 1 or a length above 2^48.
CacheBytes cache_bytes(const CacheShape& shape);

}  // namespace multistep
