#include <omp.h>

#include <multistep/layers.hpp>
#include <multistep/walk.hpp>

#include <optional>
#include <random>
#include <vector>

#include "support/catch.hpp"

using multistep::Index;
using multistep::LayersReport;
using multistep::make_rational;
using multistep::Pattern;
using multistep::PatternParameter;
using multistep::preset_schedule;
using multistep::QuerySpan;
using multistep::Rule;
using multistep::Schedule;
using multistep::Span;
using multistep::verify_all;
using multistep::verify_layers;
using multistep::verify_pattern;

namespace {

constexpr std::optional<Index> kClosure;

/// Key by query, one of them an eligible one: what is reached through some layers.
using Matrix = std::vector<std::vector<bool>>;

Matrix through_one(const std::vector<QuerySpan>& spans, Index length) {
  Matrix one(static_cast<std::size_t>(length), std::vector<bool>(static_cast<std::size_t>(length)));
  for (const auto& [query, span] : spans) {
    for (Index j = span.begin; j < span.end; ++j) {
      one[static_cast<std::size_t>(query)][static_cast<std::size_t>(j)] = true;
    }
  }
  return one;
}

/// Through one more: what was there, and what the keys of the last layer have.
Matrix one_more(const Matrix& one, const Matrix& many) {
  Matrix more = many;
  for (std::size_t t = 0; t < one.size(); ++t) {
    for (std::size_t i = 0; i <= t; ++i) {
      for (std::size_t j = 0; one[t][i] && j <= i; ++j) {
        if (many[i][j]) more[t][j] = true;
      }
    }
  }
  return more;
}

void check_holes(const LayersReport& report, const Matrix& reached, Index start) {
  Index pairs = 0, queries = 0;
  std::optional<QuerySpan> first;
  for (auto t = static_cast<std::size_t>(start); t < reached.size(); ++t) {
    const Index before = pairs;
    for (auto j = static_cast<std::size_t>(start); j <= t; ++j) {
      if (reached[t][j]) continue;
      ++pairs;
      const auto key = static_cast<Index>(j);
      if (!first) first = QuerySpan{static_cast<Index>(t), {key, key}};
      if (first->query == static_cast<Index>(t) && first->span.end == key) ++first->span.end;
    }
    queries += pairs > before;
  }
  CHECK(report.coverage.excluded_pairs == pairs);
  CHECK(report.coverage.excluded_queries == queries);
  CHECK(report.coverage.queries_checked == static_cast<Index>(reached.size()) - start);
  REQUIRE(report.coverage.first_excluded.has_value() == first.has_value());
  if (!first) return;
  CHECK(report.coverage.first_excluded->position == first->query);
  CHECK(report.coverage.first_excluded->key == first->span.begin);
  CHECK(report.coverage.first_excluded->gap == first->span);
}

/// Layers of `verify(layers)`, one by one and all of them, against matrices.
template <class Verify>
void check_layers(const std::vector<QuerySpan>& spans, Index length, Index start, Verify&& verify) {
  const Matrix one = through_one(spans, length);
  Matrix reached = one;
  for (Index layers = 1;; ++layers) {
    INFO(layers << " layers");
    const LayersReport some = verify(std::optional<Index>(layers));
    CHECK(some.layers == layers);
    check_holes(some, reached, start);
    Matrix more = one_more(one, reached);
    if (more == reached) {
      const LayersReport all = verify(kClosure);
      check_holes(all, reached, start);
      CHECK(all.layers == layers);
      CHECK(all.fixed_point == layers);
      CHECK(all.needed() == (all.coverage.covered() ? all.fixed_point : std::nullopt));
      const LayersReport further = verify(std::optional<Index>(layers + 1));
      CHECK(further.layers == layers + 1);
      CHECK(further.fixed_point == layers);
      check_holes(further, reached, start);
      return;
    }
    reached = more;
  }
}

std::vector<QuerySpan> spans_of(const Pattern& pattern, Index length, Index start) {
  std::vector<QuerySpan> spans;
  for (Index t = start; t < length; ++t) {
    const auto row = pattern.row(t, start);
    for (const Span& span : row.selectable) spans.push_back({t, span});
    for (const Span& span : row.averaged) spans.push_back({t, span});
  }
  return spans;
}

Schedule one_sided() {
  Schedule schedule = preset_schedule("paper");
  schedule.levels.front().backward = make_rational(1);
  schedule.levels.front().forward = make_rational(1);
  return schedule;
}

/// A stripe's own key alone.
Schedule no_reach(Index steps) {
  Schedule schedule = preset_schedule("nstep", steps);
  for (auto& level : schedule.levels) {
    level.rule = Rule::power;
    level.backward = make_rational(0);
  }
  return schedule;
}

std::optional<Index> needed(const char* name, const std::vector<PatternParameter>& given) {
  return verify_layers(Pattern(name, given), 257, 0, kClosure).needed();
}

}  // namespace

TEST_CASE("Layers of patterns reach what products of matrices do", "[layers]") {
  for (const Pattern& pattern :
       {Pattern("window", {{"window", 5}}), Pattern("window", {{"window", 1}}),
        Pattern("block-diagonal", {{"block", 9}}), Pattern("strided", {{"stride", 6}}),
        Pattern("fixed", {{"stride", 8}, {"summary", 2}}), Pattern("log-sparse"),
        Pattern("combiner-fixed", {{"block", 8}}), Pattern("dsa"),
        Pattern("longformer", {{"window", 4}, {"stride", 3}, {"globals", 0}})}) {
    for (const Index start : {0, 3}) {
      for (const Index length : {4, 63, 64, 65, 131}) {
        INFO(describe(pattern) << ", length " << length << ", keys from " << start);
        check_layers(spans_of(pattern, length, start), length, start,
                     [&](std::optional<Index> layers) {
                       return verify_layers(pattern, length, start, layers);
                     });
      }
    }
  }
}

TEST_CASE("Layers of schedules reach what their paths do", "[layers]") {
  for (const Schedule& schedule :
       {one_sided(), no_reach(2), no_reach(3), preset_schedule("nstep", 3)}) {
    constexpr Index kLength = 90;
    for (const Index start : {0, 5}) {
      const multistep::StripePlan plan(schedule, kLength);
      std::vector<QuerySpan> spans;
      for (Index t = start; t < kLength; ++t) {
        if (const Span window = plan.window(t, start); !window.empty())
          spans.push_back({t, window});
        for_each_path(plan, plan.searched(t, start), {}, [&](const auto& path) {
          spans.push_back({t, path.back().span});
        });
      }
      check_layers(spans, kLength, start, [&](std::optional<Index> layers) {
        return verify_layers(schedule, kLength, start, layers);
      });
    }
  }
}

TEST_CASE("Layers of any spans reach what products of matrices do", "[layers]") {
  std::mt19937_64 random(11);
  for (int round = 0; round < 20; ++round) {
    const Index length = 2 + static_cast<Index>(random() % 100);
    const Index start = static_cast<Index>(random() % static_cast<std::uint64_t>(length / 2));
    std::vector<QuerySpan> spans;
    for (Index t = start; t < length; ++t) {
      for (std::uint64_t count = 1 + random() % 3; count > 0; --count) {
        const auto keys = static_cast<std::uint64_t>(t + 1 - start);
        const Index begin = start + static_cast<Index>(random() % keys);
        const Index end = std::min(t + 1, begin + 1 + static_cast<Index>(random() % 4));
        spans.push_back({t, {begin, end}});
      }
    }
    check_layers(spans, length, start, [&](std::optional<Index> layers) {
      return verify_layers(spans, length, start, layers);
    });
  }
}

TEST_CASE("One layer is what verify has", "[layers]") {
  const auto same = [](const LayersReport& layers, const multistep::CoverageReport& report) {
    CHECK(layers.coverage.excluded_pairs == report.excluded_pairs);
    CHECK(layers.coverage.excluded_queries == report.excluded_queries);
    REQUIRE(layers.coverage.first_excluded);
    CHECK(layers.coverage.first_excluded->position == report.first_excluded->position);
    CHECK(layers.coverage.first_excluded->gap == report.first_excluded->gap);
  };
  same(verify_layers(one_sided(), 1000, 3, 1), verify_all(one_sided(), 1000, 3));
  const Pattern strided("strided", {{"stride", 30}});
  same(verify_layers(strided, 1000, 3, 1), verify_pattern(strided, 1000, 3).coverage);
}

TEST_CASE("Windows on top of each other are a longer one", "[layers]") {
  for (const Index start : {0, 300}) {
    for (const Index layers : {1, 2, 3, 4}) {
      const LayersReport several =
          verify_layers(Pattern("window", {{"window", 101}}), 1000, start, layers);
      const auto longer =
          verify_pattern(Pattern("window", {{"window", 100 * layers + 1}}), 1000, start);
      CHECK(several.coverage.excluded_pairs == longer.coverage.excluded_pairs);
      CHECK(several.coverage.first_excluded->gap == longer.coverage.first_excluded->gap);
    }
  }
}

TEST_CASE("The known layers of SPEC 12", "[layers]") {
  CHECK(needed("window", {{"window", 16}}) == 18);
  CHECK(!needed("block-diagonal", {{"block", 16}}));
  CHECK(needed("strided", {{"stride", 16}}) == 2);
  CHECK(needed("fixed", {{"stride", 16}, {"summary", 1}}) == 2);
  CHECK(needed("fixed", {{"stride", 16}, {"summary", 4}}) == 2);
  CHECK(needed("log-sparse", {}) == 8);
  CHECK(needed("combiner-fixed", {{"block", 16}}) == 1);
  CHECK(needed("dsa", {}) == 1);
  CHECK(needed("longformer", {{"window", 16}}) == 17);
  CHECK(!needed("longformer", {{"window", 16}, {"stride", 2}, {"globals", 0}}));
  CHECK(verify_layers(Pattern("block-diagonal", {{"block", 16}}), 257, 0, kClosure).fixed_point ==
        1);
}

TEST_CASE("The number of threads does not change what layers reach", "[layers]") {
  const int threads = omp_get_max_threads();
  const Pattern pattern("window", {{"window", 100}});
  omp_set_num_threads(1);
  const LayersReport alone = verify_layers(pattern, 1000, 0, 5);
  omp_set_num_threads(5);
  const LayersReport together = verify_layers(pattern, 1000, 0, 5);
  omp_set_num_threads(threads);
  CHECK(alone.coverage.excluded_pairs == together.coverage.excluded_pairs);
  CHECK(alone.coverage.first_excluded->gap == together.coverage.first_excluded->gap);
}

TEST_CASE("Layers of too long a sequence, too many and of some queries are refused", "[layers]") {
  const Pattern window("window");
  CHECK_THROWS_WITH(verify_layers(window, 65537, 0, 2),
                    ContainsSubstring("length 65537: an integer in [1, 65536] where layers"));
  CHECK_THROWS_WITH(verify_layers(window, 9, 0, 0),
                    ContainsSubstring("layers 0: an integer in [1, 65536]"));
  CHECK_THROWS_WITH(verify_layers(window, 9, 9, 1), ContainsSubstring("start 9:"));
  CHECK_THROWS_WITH(verify_layers(std::vector<QuerySpan>{{0, {0, 1}}, {2, {0, 1}}}, 3, 0, 2),
                    ContainsSubstring("spans: none of query 1; layers take those of every query"));
  CHECK_THROWS_WITH(verify_layers(std::vector<QuerySpan>{{0, {0, 2}}}, 1, 0, 2),
                    ContainsSubstring("span [0, 2) of query 0:"));
}
