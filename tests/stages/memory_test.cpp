#include <multistep/memory.hpp>

#include <stdexcept>

#include "support/catch.hpp"

using multistep::cache_bytes;
using multistep::CacheBytes;
using multistep::CacheShape;
using multistep::Index;

TEST_CASE("The authors' model keeps 6 KiB a token", "[memory]") {
  CacheShape shape{.length = 1, .num_kv_heads = 2, .head_dim = 128, .layers = 6};
  CHECK(cache_bytes(shape).total() == 6 * 1024);
  shape.length = 10'000'000;
  const CacheBytes bytes = cache_bytes(shape);
  CHECK((bytes.keys == 30'720'000'000 && bytes.values == bytes.keys && bytes.search_keys == 0));
  shape.search_keys = true;
  CHECK(cache_bytes(shape).search_keys == bytes.keys);
  CHECK(cache_bytes(shape).total() == 92'160'000'000);
}

TEST_CASE("Bytes are exact where 64 bits do not hold them", "[memory]") {
  const CacheBytes bytes = cache_bytes({.length = Index{1} << 48,
                                        .batch = 1000,
                                        .num_kv_heads = 1000,
                                        .head_dim = 1000,
                                        .layers = 1000,
                                        .value_bytes = 8});
  CHECK(to_string(bytes.keys) == "2251799813685248000000000000");
}

TEST_CASE("Sizes out of range have no bytes", "[memory]") {
  CHECK_THROWS_WITH(cache_bytes({.length = 0, .head_dim = 8}),
                    "length 0: an integer in [1, 281474976710656]");
  CHECK_THROWS_WITH(cache_bytes({.length = 1}), "head_dim 0: an integer in [1, 65536]");
  CHECK_THROWS_WITH(cache_bytes({.length = 1, .batch = -1, .head_dim = 8}),
                    "batch -1: an integer in [1, 65536]");
  CHECK_THROWS_AS(cache_bytes({.length = 1, .head_dim = 8, .layers = 1 << 17}),
                  std::invalid_argument);
}
