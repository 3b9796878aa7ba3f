#include "multistep/memory.hpp"

#include "arrays.hpp"
#include "core.hpp"
#include "multistep/host_memory.hpp"

namespace multistep::python {
namespace {

/// keys, values, search keys
nb::tuple bytes_of(Index length, Index batch, Index num_kv_heads, Index head_dim, Index layers,
                   Index value_bytes, bool search_keys) {
  const CacheBytes bytes =
      cache_bytes({length, batch, num_kv_heads, head_dim, layers, value_bytes, search_keys});
  return nb::make_tuple(to_int(bytes.keys), to_int(bytes.values), to_int(bytes.search_keys));
}

}  // namespace

void bind_memory(nb::module_& core) {
  core.def("available_memory", [] { return available_memory(); });
  core.def("cache_bytes", &bytes_of);
}

}  // namespace multistep::python
