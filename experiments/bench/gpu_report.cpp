#include "bench/gpu_report.hpp"

#include <fmt/format.h>

namespace multistep::program {

Json shape_json(const GpuShape& shape) {
  return {{"batch", shape.batch},
          {"num_heads", shape.heads},
          {"num_kv_heads", shape.kv_heads},
          {"queries", shape.queries},
          {"keys", shape.length},
          {"head_dim", shape.head_dim},
          {"start", shape.start},
          {"dtype", shape.half ? "fp16" : "bf16"},
          {"inputs", to_string(shape.inputs)}};
}

std::string shape_text(const Json& shape) {
  return fmt::format("batch {}, {} heads over {}, {} queries, {} keys, head_dim {}, {}, {} inputs",
                     shape["batch"].get<Index>(), shape["num_heads"].get<Index>(),
                     shape["num_kv_heads"].get<Index>(), shape["queries"].get<Index>(),
                     shape["keys"].get<Index>(), shape["head_dim"].get<Index>(),
                     shape["dtype"].get<std::string>(), shape["inputs"].get<std::string>());
}

}  // namespace multistep::program
