#include <fmt/core.h>

#include "judge/honest_gradients.hpp"
#include "support/catch.hpp"

using namespace multistep;
using honest::Backward;
using honest::BackwardRun;
using honest::Fault;
using honest::GradientCase;
using inputs::at;

namespace {

struct Refused {
  Index cases = 0;
  double ratio = 0;  // the largest of errors to limits
};

Refused refused_of(const Backward& kernel, std::uint64_t first, Index cases, Index sample) {
  const inputs::Threads one(1);
  Refused refused;
  for (Index i = 0; i < cases; ++i) {
    const std::uint64_t seed = first + static_cast<std::uint64_t>(i);
    const GradientCase of = honest::random_case(seed);
    BackwardRun run(kernel, of);
    run.compute();
    const JudgeReport report = honest::judged(of, run, sample);
    for (const StageReport& stage : report.stages) {
      refused.ratio = std::max(refused.ratio, stage.values.ratio);
    }
    if (report.pass()) continue;
    ++refused.cases;
    const Shape& sizes = of.problem.sizes;
    fmt::print("{}, seed {}, storage {} queries {} d {} keys {}\n{}\n", kernel.name, seed,
               static_cast<int>(of.storage), sizes.queries, sizes.head_dim, sizes.keys,
               report.table());
  }
  return refused;
}

}  // namespace

TEST_CASE("the judge passes right gradients, whatever they round where", "[judge-gradients]") {
  for (const Backward& kernel : honest::backwards()) {
    CAPTURE(kernel.name);
    CHECK(refused_of(kernel, 1, 12, 64).cases == 0);
  }
}

// The rates that the documents state: unit_tests "[judge-gradient-rates]".
TEST_CASE("of many cases of each right backward the judge refuses hardly one",
          "[.][judge-gradient-rates]") {
  for (const Backward& kernel : honest::backwards()) {
    const Refused refused = refused_of(kernel, 1000, 1000, 64);
    fmt::print("{:32} {:3} refused of 1000; largest ratio {:.2f}\n", kernel.name, refused.cases,
               refused.ratio);
    std::fflush(stdout);
    CHECK(refused.cases <= 1);
  }
}
