#include "judge/honest_kernels.hpp"

#include <fmt/core.h>

using namespace multistep;

namespace {

/// How many of `cases` cases the judge refuses, by kernel: handed in whole, and the output alone.
struct Refused {
  Index whole = 0;
  Index alone = 0;
  double ratio = 0;  // the largest of errors to limits
};

Refused refused_of(const honest::Kernel& kernel, std::uint64_t first, Index cases, bool report) {
  Refused refused;
#pragma omp parallel for schedule(dynamic, 1)
  for (Index i = 0; i < cases; ++i) {
    const honest::Case of(first + static_cast<std::uint64_t>(i));
    honest::Run run(kernel, of.problem, of.storage);
    run.compute();
    for (const bool output_alone : {false, true}) {
      const JudgeReport verdict = honest::judged(of, run, output_alone);
      bool right = true;
      double ratio = 0;
      for (const StageReport& stage : verdict.stages) {
        right = right && stage.pass();
        ratio = std::max(ratio, stage.values.ratio);
      }
#pragma omp critical(ratio)
      refused.ratio = std::max(refused.ratio, ratio);
      if (right) continue;
#pragma omp critical(refused)
      {
        ++(output_alone ? refused.alone : refused.whole);
        if (report) {
          fmt::print("{}, seed {}, {} {} d {} keys {}{}\n{}\n", kernel.name,
                     first + static_cast<std::uint64_t>(i), static_cast<int>(of.storage),
                     of.problem.sizes.queries, of.problem.sizes.head_dim, of.problem.sizes.keys,
                     output_alone ? ", alone" : "", verdict.table());
        }
      }
    }
  }
  return refused;
}

}  // namespace

TEST_CASE("the judge passes right kernels, whatever they round where", "[judge]") {
  for (const honest::Kernel& kernel : honest::kernels()) {
    CAPTURE(kernel.name);
    const Refused refused = refused_of(kernel, 1, 20, true);
    CHECK(refused.whole == 0);
    CHECK(refused.alone == 0);
  }
}

// The rates that the documents state: unit_tests "[judge-rates]".
TEST_CASE("of a thousand cases of each right kernel the judge refuses fewer than one",
          "[.][judge-rates]") {
  Index all = 0;
  const auto list = honest::kernels();
  for (const honest::Kernel& kernel : list) {
    const Refused refused = refused_of(kernel, 1000, 1000, true);
    fmt::print(
        "{:40} {:3} refused whole, {:3} by the output alone, of 1000; largest ratio {:.2f}\n",
        kernel.name, refused.whole, refused.alone, refused.ratio);
    std::fflush(stdout);
    CHECK(refused.whole <= 1);
    CHECK(refused.alone <= 1);
    all += refused.whole + refused.alone;
  }
  CHECK(all * 1000 < 2 * 1000 * std::ssize(list));
}
