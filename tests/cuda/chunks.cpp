#include "judge.hpp"
#include "multistep/cuda/fault.hpp"

// Long prefills run in chunks of queries. The copy of the kernels that can be told to go wrong can
// also be told to take short ones so.

using namespace multistep;
using namespace gpu;

namespace {

/// Chunks of so many queries, until it ends.
class Chunked {
 public:
  Chunked(const cuda::Shape& shape, Index slots, Index queries) {
    cuda::set_chunk_pairs(shape.batch * shape.num_heads * slots * queries);
  }
  ~Chunked() { cuda::set_chunk_pairs(0); }
  Chunked(const Chunked&) = delete;
  Chunked& operator=(const Chunked&) = delete;
};

}  // namespace

TEST_CASE("GPU prefill in chunks of queries gives the bits of one chunk", "[chunk][fault]") {
  for (const Index steps : {1, 2, 3, 4}) {
    for (const char* rules : {"nstep", "even", "aligned"}) {
      for (const Index head_dim : {64, 96}) {
        Options options;
        options.schedule = preset_schedule(rules, steps);
        options.schedule.window_index = 2;
        options.queries = 300;
        options.query_offset = 31;
        options.start = {0, 137};
        options.tail = 5;
        options.head_dim = head_dim;
        options.values = Values::rough;
        const Problem problem = make_problem(options);
        const OnDevice device(problem, options.dtype);
        for (const Rung rung : kRungs) {
          const Whole whole = gpu::attention(device, rung);
          CHECK(wrong_whole(problem, options.dtype, whole) == "");
          const auto searched = [&] {
            return steps > 1 ? search(device.search_args(rung)) : Paths{};
          };
          const Paths paths = searched();
          for (const Index queries : {7, 100, 128, 299}) {
            CAPTURE(steps, rules, head_dim, name(rung), queries);
            const Chunked chunked(device.shape, steps > 1 ? 2 : 1, queries);
            CHECK(same_bits(gpu::attention(device, rung), whole));
            CHECK(same_paths(searched(), paths));
          }
        }
      }
    }
  }
}
