#include "bench/sweep_axes.hpp"

#include <algorithm>
#include <map>

#include "support/catch.hpp"

using namespace multistep;
using namespace multistep::program;

namespace {

Sweep around(const SweepBases& bases, const GpuShape& shape = {}) {
  Sweep sweep;
  sweep.add({"nstep2", preset_schedule("nstep"), shape}, bases);
  return sweep;
}

const SweepAxis& axis(const Sweep& sweep, const std::string& name, const std::string& phase,
                      Index length) {
  const auto found = std::find_if(sweep.axes.begin(), sweep.axes.end(), [&](const SweepAxis& one) {
    return one.name == name && one.phase == phase && one.length == length;
  });
  REQUIRE(found != sweep.axes.end());
  return *found;
}

using Values = std::vector<std::string>;
constexpr Index kLong = 64 << 10;

}  // namespace

TEST_CASE("every axis has the values around which kernels change", "[sweep]") {
  const Sweep sweep = around({{kLong}, {"decode", "prefill"}, 2048});
  for (const char* phase : {"decode", "prefill"}) {
    const auto values = [&](const char* name) { return axis(sweep, name, phase, kLong).values; };
    CHECK(values("top_k") ==
          Values{"1", "2", "3", "4", "5", "6", "7", "8", "12", "16", "17", "32"});
    CHECK(values("head_dim") == Values{"32", "64", "80", "96", "128", "192", "256"});
    CHECK(values("group") == Values{"1", "2", "4", "8", "16", "32"});
    CHECK(values("batch") == Values{"1", "2", "3", "4", "8"});
    CHECK(values("layout") == Values{"[B, H, L, D]", "[B, L, H, D]"});
    CHECK(values("inputs") == Values{"random", "clustered", "hot"});
    CHECK(values("outputs") == Values{"output", "output, LSE"});
    CHECK(axis(sweep, "keys", phase, 0).values == Values{"1024", "1025", "2048", "2049", "4096",
                                                         "4097", "8192", "8193", "16384", "16385",
                                                         "32768", "32769", "65536", "65537"});
  }
  CHECK(axis(sweep, "queries", "", kLong).values == Values{"1", "2", "3", "4", "5", "8", "16", "17",
                                                           "32", "64", "128", "256", "512", "1024",
                                                           "2048", "4096"});
  CHECK(sweep.axes.size() == 2 * 8 + 1);
}

TEST_CASE("a point is what its axis and value say", "[sweep]") {
  const Sweep sweep = around({{kLong}, {"decode", "prefill"}, 2048});
  for (const SweepAxis& one : sweep.axes) {
    REQUIRE(one.values.size() == one.points.size());
    for (std::size_t at = 0; at < one.values.size(); ++at) {
      const SweepPoint& point = sweep.points[one.points[at]];
      const GpuShape& shape = point.shape;
      const char* layout = point.interleaved ? "[B, L, H, D]" : "[B, H, L, D]";
      const std::map<std::string, std::string> is{{"top_k", std::to_string(point.schedule.top_k)},
                                                  {"head_dim", std::to_string(shape.head_dim)},
                                                  {"group", std::to_string(shape.group())},
                                                  {"batch", std::to_string(shape.batch)},
                                                  {"layout", layout},
                                                  {"inputs", std::string(to_string(shape.inputs))},
                                                  {"outputs", point.lse ? "output, LSE" : "output"},
                                                  {"queries", std::to_string(shape.queries)},
                                                  {"keys", std::to_string(shape.length)}};
      CHECK(is.at(one.name) == one.values[at]);
      if (one.length > 0) CHECK(shape.length == one.length);
      if (one.phase == "decode") CHECK(shape.queries == 1);
      if (one.phase == "prefill") CHECK(shape.queries == std::min<Index>(2048, shape.length));
      // All else is the base's.
      GpuShape base;
      base.length = shape.length;
      base.queries = shape.queries;
      if (one.name == "head_dim") base.head_dim = shape.head_dim;
      if (one.name == "group") base.kv_heads = shape.kv_heads;
      if (one.name == "batch") base.batch = shape.batch;
      if (one.name == "inputs") base.inputs = shape.inputs;
      CHECK(shape == base);
      if (one.name != "top_k") CHECK(point.schedule.top_k == preset_schedule("nstep").top_k);
      if (one.name != "outputs") CHECK_FALSE(point.lse);
      if (one.name != "layout") CHECK_FALSE(point.interleaved);
    }
  }
}

TEST_CASE("axes that cross share the point", "[sweep]") {
  const Sweep sweep = around({{kLong}, {"decode"}, 2048});
  const auto point = [&](const char* name, const std::string& value, const char* phase,
                         Index length) {
    const SweepAxis& one = axis(sweep, name, phase, length);
    const auto found = std::find(one.values.begin(), one.values.end(), value);
    REQUIRE(found != one.values.end());
    return one.points[static_cast<std::size_t>(found - one.values.begin())];
  };
  const std::size_t base = point("head_dim", "128", "decode", kLong);
  CHECK(point("group", "16", "decode", kLong) == base);
  CHECK(point("batch", "1", "decode", kLong) == base);
  CHECK(point("layout", "[B, H, L, D]", "decode", kLong) == base);
  CHECK(point("inputs", "random", "decode", kLong) == base);
  CHECK(point("outputs", "output", "decode", kLong) == base);
  CHECK(point("queries", "1", "", kLong) == base);
  CHECK(point("keys", "65536", "decode", 0) == base);
}

TEST_CASE("bases aside are on their axes", "[sweep]") {
  GpuShape shape;
  shape.heads = 12;
  shape.kv_heads = 4;
  shape.head_dim = 72;
  shape.inputs = InputKind::needle;
  shape.start = 2000;
  const Sweep sweep = around({{3000}, {"prefill"}, 100}, shape);
  CHECK(axis(sweep, "head_dim", "prefill", 3000).values ==
        Values{"32", "64", "72", "80", "96", "128", "192", "256"});
  CHECK(axis(sweep, "group", "prefill", 3000).values == Values{"1", "2", "3", "4"});
  CHECK(axis(sweep, "inputs", "prefill", 3000).values.back() == "needle");
  CHECK(axis(sweep, "keys", "prefill", 0).values == Values{"2048", "2049", "3000"});
  const Values queries = axis(sweep, "queries", "", 3000).values;
  CHECK(std::find(queries.begin(), queries.end(), "100") != queries.end());
  CHECK(queries.back() == "2048");  // no more than there are keys
}

TEST_CASE("dense attention has no axis of top_k", "[sweep]") {
  Sweep sweep;
  sweep.add({"dense", preset_schedule("nstep", 1), {}}, {{kLong}, {"decode"}, 1});
  CHECK(std::none_of(sweep.axes.begin(), sweep.axes.end(),
                     [](const SweepAxis& one) { return one.name == "top_k"; }));
}
