#include "bench/sweep_judge.hpp"

#include <cmath>

#include "support/catch.hpp"

using namespace multistep::program;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

SweepCall call(const std::string& value, double milliseconds, double bytes, double products,
               const std::string& plain = "") {
  return {value, milliseconds, bytes, products, plain};
}

SweepStep step(const SweepCall& from, const SweepCall& to) {
  const std::vector<SweepStep> steps = judge_steps({from, to});
  REQUIRE(steps.size() == 1);
  return steps.front();
}

}  // namespace

TEST_CASE("an axis has a step between neighbours, in order", "[sweep]") {
  CHECK(judge_steps({}).empty());
  CHECK(judge_steps({call("1", 2, 1, 1)}).empty());
  const auto steps = judge_steps({call("1", 2, 1, 1), call("2", 3, 2, 2), call("4", 3, 4, 4)});
  REQUIRE(steps.size() == 2);
  CHECK((steps[0].from == "1" && steps[0].to == "2"));
  CHECK((steps[1].from == "2" && steps[1].to == "4"));
  CHECK(steps[0].ratio == 1.5);
  CHECK(steps[1].ratio == 1);
  CHECK((steps[0].pass() && steps[1].pass()));
}

TEST_CASE("equal times pass whatever the work", "[sweep]") {
  for (const double work : {0.01, 1.0, 100.0}) {
    const SweepStep found = step(call("a", 2, 1, 1), call("b", 2, work, work));
    CHECK(found.pass());
    CHECK(found.ratio == 1);
    CHECK(found.factor <= 1);
  }
}

TEST_CASE("work explains a jump, by the count that grew more", "[sweep]") {
  for (const bool bytes : {true, false}) {
    const SweepCall small = call("1", 1, 10, 10);
    const SweepCall large = call("2", 6, bytes ? 40 : 11, bytes ? 11 : 40);
    for (const SweepStep& found : {step(small, large), step(large, small)}) {
      CHECK(found.explained == 4);
      CHECK(found.factor == 1.5);  // the largest that passes
      CHECK(found.pass());
    }
    SweepCall larger = large;
    larger.milliseconds = 6.001;
    CHECK_FALSE(step(small, larger).pass());
    CHECK_FALSE(step(larger, small).pass());
  }
}

TEST_CASE("a jump that work does not explain is a cliff", "[sweep]") {
  const SweepStep found = step(call("4", 1.2, 4, 4), call("5", 77, 5, 5, "top_k 5: at most 4"));
  CHECK_FALSE(found.pass());
  CHECK(found.ratio == Approx(77 / 1.2));
  CHECK(found.explained == 1.25);
  CHECK(found.factor == Approx(77 / 1.5));
  CHECK(
      found.why ==
      "5 (plain: top_k 5: at most 4) takes 64.2 times as long as 4, 51.3 times what work explains");
}

TEST_CASE("a smaller call that is slower is a cliff", "[sweep]") {
  const SweepStep found = step(call("16", 3.2, 1, 1), call("17", 2, 2, 2));
  CHECK(found.ratio == 0.625);
  CHECK(found.explained == 1);
  CHECK(found.factor == 1.6);
  CHECK(found.why == "16 takes 1.6 times as long as 17, 1.6 times what work explains");
  CHECK(step(call("16", 3, 1, 1), call("17", 2, 2, 2)).pass());
}

TEST_CASE("a smaller call may take as long as a larger one", "[sweep]") {
  const SweepStep found = step(call("large", 2, 100, 100), call("small", 2.2, 1, 1));
  CHECK(found.explained == 1);
  CHECK(found.pass());
}

TEST_CASE("of two calls with more of one count each, either may be slower", "[sweep]") {
  const SweepCall a = call("a", 1, 3, 1);
  const SweepCall b = call("b", 4, 1, 3);
  CHECK(step(a, b).explained == 3);
  CHECK(step(a, b).pass());
  CHECK(step(b, a).pass());
}

TEST_CASE("a call without a time, or without known work, fails its steps", "[sweep]") {
  const SweepCall good = call("2", 1, 1, 1);
  for (const double time : {kNaN, kInf, -kInf, 0.0, -1.0}) {
    const SweepCall bad = call("1", time, 1, 1);
    for (const SweepStep& found : {step(bad, good), step(good, bad), step(bad, bad)}) {
      CHECK(found.why == "1 has no time");
      CHECK(std::isnan(found.factor));
    }
  }
  CHECK_FALSE(step(SweepCall(), good).pass());
  for (const double work : {kNaN, kInf, 0.0, -1.0}) {
    CHECK(step(call("1", 1, work, 1), good).why == "the work of 1 is not known");
    CHECK(step(good, call("1", 1, 1, work)).why == "the work of 1 is not known");
  }
  const auto steps = judge_steps({good, call("3", kNaN, 1, 1), good, good});
  REQUIRE(steps.size() == 3);
  CHECK_FALSE(steps[0].pass());
  CHECK_FALSE(steps[1].pass());
  CHECK(steps[2].pass());
}

TEST_CASE("two plain calls do not excuse each other", "[sweep]") {
  const SweepCall fast = call("4", 1, 4, 4);
  SECTION("both are held to the nearest fast one") {
    const auto steps = judge_steps({fast, call("5", 1.5, 5, 5, "why"), call("6", 2.2, 6, 6, "why"),
                                    call("7", 3, 7, 7, "why")});
    CHECK(steps[0].pass());
    CHECK(steps[1].pass());
    CHECK(steps[2].why ==
          "7 (plain: why) takes 3 times as long as 4, 1.71 times what work explains");
    CHECK(steps[2].factor == Approx(3 / 2.2 * 6 / 7));  // the neighbours' own
  }
  SECTION("and the one that is worse off is told") {
    const auto steps =
        judge_steps({fast, call("5", 5, 5, 5, "why"), call("6", 7, 6, 6, "why"), fast});
    CHECK(steps[1].why ==
          "6 (plain: why) takes 7 times as long as 4, 4.67 times what work explains");
  }
  SECTION("which may come after them") {
    const auto steps = judge_steps({call("2", 9, 2, 2, "why"), call("3", 9, 3, 3, "why"), fast});
    CHECK(steps[0].why == "2 (plain: why) takes 9 times as long as 4, 9 times what work explains");
    CHECK_FALSE(steps[1].pass());
  }
  SECTION("and has to be there") {
    const auto steps = judge_steps({call("2", 9, 2, 2, "why"), call("3", 9, 3, 3, "why")});
    CHECK(steps[0].why == "2 (plain: why), and no call of the axis runs without a plain kernel");
  }
}

TEST_CASE("a plain call whose time work explains passes", "[sweep]") {
  CHECK(step(call("4", 1, 4, 4), call("5", 1.8, 5, 5, "why")).pass());
}
