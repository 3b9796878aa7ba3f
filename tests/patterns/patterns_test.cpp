#include <omp.h>

#include <multistep/patterns.hpp>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "patterns/by_definition.hpp"
#include "support/catch.hpp"

using definition::Has;
using multistep::Index;
using multistep::Pattern;
using multistep::pattern_names;
using multistep::PatternParameter;
using multistep::PatternReport;
using multistep::PatternRow;
using multistep::Span;
using multistep::verify_pattern;

namespace {

definition::Parameters parameters_of(const Pattern& pattern) {
  definition::Parameters p;
  const std::map<std::string, Index*> places{
      {"block", &p.block},     {"stride", &p.stride},     {"window", &p.window},
      {"summary", &p.summary}, {"globals", &p.globals},   {"random", &p.random},
      {"top-k", &p.top_k},     {"clusters", &p.clusters},
  };
  for (const auto& [name, value] : pattern.parameters()) {
    if (name != "seed") *places.at(name) = value;
  }
  return p;
}

/// Patterns with parameters that are small, equal, prime or larger than the sequence.
std::vector<Pattern> small_patterns() {
  return {
      Pattern("window", {{"window", 1}}),
      Pattern("window", {{"window", 16}}),
      Pattern("window", {{"window", 1000}}),
      Pattern("block-diagonal", {{"block", 1}}),
      Pattern("block-diagonal", {{"block", 7}}),
      Pattern("strided", {{"stride", 1}}),
      Pattern("strided", {{"stride", 5}}),
      Pattern("strided", {{"stride", 16}}),
      Pattern("fixed", {{"stride", 8}, {"summary", 1}}),
      Pattern("fixed", {{"stride", 7}, {"summary", 3}}),
      Pattern("fixed", {{"stride", 4}, {"summary", 4}}),
      Pattern("log-sparse"),
      Pattern("combiner-fixed", {{"block", 1}}),
      Pattern("combiner-fixed", {{"block", 12}}),
      Pattern("nsa", {{"block", 8}, {"stride", 3}, {"summary", 6}, {"window", 9}, {"top-k", 4}}),
      Pattern("nsa", {{"block", 4}, {"stride", 5}, {"summary", 2}, {"window", 1}, {"top-k", 5}}),
      Pattern("moba", {{"block", 8}, {"top-k", 3}}),
      Pattern("moba", {{"block", 9}, {"top-k", 1}}),
      Pattern("moba", {{"block", 1}, {"top-k", 1000}}),
      Pattern("dsa", {{"top-k", 10}}),
      Pattern("longformer", {{"window", 6}, {"stride", 1}, {"globals", 2}}),
      Pattern("longformer", {{"window", 5}, {"stride", 3}, {"globals", 4}}),
      Pattern("longformer", {{"window", 100}, {"stride", 7}, {"globals", 0}}),
      Pattern("bigbird", {{"block", 4}, {"globals", 1}, {"window", 3}, {"random", 0}}),
      Pattern("bigbird", {{"block", 5}, {"globals", 3}, {"window", 2}, {"random", 0}}),
      Pattern("log-linear"),
      Pattern("linear"),
      Pattern("routing", {{"clusters", 5}, {"window", 11}}),
      Pattern("reformer", {{"block", 6}, {"clusters", 8}, {"random", 3}}),
      Pattern("zeta", {{"block", 16}, {"top-k", 5}}),
      Pattern("zeta", {{"block", 3}, {"top-k", 1000}}),
      Pattern("biformer", {{"block", 8}, {"top-k", 2}}),
  };
}

/// What a row has of each key of [start, query].
std::vector<Has> keys_of(const PatternRow& row, Index query, Index start) {
  std::vector<Has> keys(static_cast<std::size_t>(query + 1 - start), Has::nothing);
  const auto mark = [&](const std::vector<Span>& spans, Has what) {
    for (const Span& span : spans) {
      REQUIRE((start <= span.begin && span.begin < span.end && span.end <= query + 1));
      for (Index j = span.begin; j < span.end; ++j)
        keys[static_cast<std::size_t>(j - start)] = what;
    }
  };
  mark(row.averaged, Has::average);
  mark(row.selectable, Has::key);
  return keys;
}

/// The blocks that a query has between its global ones and its window.
std::set<Index> random_blocks(const Pattern& pattern, Index query) {
  const definition::Parameters p = parameters_of(pattern);
  std::set<Index> blocks;
  const std::vector<Has> keys = keys_of(pattern.row(query), query, 0);
  for (Index j = 0; j <= query; ++j) {
    const bool drawn = definition::has("bigbird", p, query, j) == Has::nothing;
    if (drawn && keys[static_cast<std::size_t>(j)] == Has::key) blocks.insert(j / p.block);
  }
  return blocks;
}

PatternReport verify_short(const char* name, const std::vector<PatternParameter>& given) {
  return verify_pattern(Pattern(name, given), 257);
}

void check_hole(const PatternReport& report, Index pairs, Index query, Index key) {
  CHECK(report.coverage.excluded_pairs == pairs);
  REQUIRE(report.coverage.first_excluded);
  CHECK(report.coverage.first_excluded->position == query);
  CHECK(report.coverage.first_excluded->key == key);
}

}  // namespace

TEST_CASE("A pattern's rows are those of its definition", "[patterns]") {
  constexpr Index kLength = 70;
  for (const Pattern& pattern : small_patterns()) {
    INFO(describe(pattern));
    const std::string name(pattern.name());
    const definition::Parameters p = parameters_of(pattern);
    for (const Index start : {0, 1, 13, 16}) {
      for (Index t = start; t < kLength; ++t) {
        const PatternRow row = pattern.row(t, start);
        std::vector<Has> wanted;
        for (Index j = start; j <= t; ++j) wanted.push_back(definition::has(name, p, t, j));
        INFO("query " << t << ", keys from " << start);
        REQUIRE(keys_of(row, t, start) == wanted);
        const definition::Work work = definition::work(name, p, t, start);
        REQUIRE(row.scored == work.scored);
        REQUIRE(row.attended == work.attended);
      }
    }
  }
}

TEST_CASE("Random blocks are so many whole ones, the same for a block's queries", "[patterns]") {
  constexpr Index kBlock = 5, kGlobals = 2, kWindow = 3, kRandom = 4;
  const auto bigbird = [](Index random, Index seed) {
    return Pattern("bigbird", {{"block", kBlock},
                               {"globals", kGlobals},
                               {"window", kWindow},
                               {"random", random},
                               {"seed", seed}});
  };
  const Pattern pattern = bigbird(kRandom, 3);
  for (Index t = 0; t < 150; ++t) {
    INFO("query " << t);
    const std::set<Index> blocks = random_blocks(pattern, t);
    const Index between = std::max<Index>(0, t / kBlock + 1 - kWindow - kGlobals);
    REQUIRE(std::ssize(blocks) == std::min(kRandom, between));
    REQUIRE(blocks == random_blocks(pattern, t / kBlock * kBlock));
    const PatternRow row = pattern.row(t);
    const PatternRow without = bigbird(0, 3).row(t);
    REQUIRE(row.attended == without.attended + std::ssize(blocks) * kBlock);
  }
  CHECK(random_blocks(pattern, 149) != random_blocks(pattern, 144));
  CHECK(random_blocks(pattern, 149) != random_blocks(bigbird(kRandom, 4), 149));

  // Of 25 blocks each is drawn by 1000 seeds about 160 times: within six standard deviations.
  std::map<Index, Index> times;
  for (Index seed = 0; seed < 1000; ++seed) {
    for (const Index block : random_blocks(bigbird(kRandom, seed), 149)) ++times[block];
  }
  CHECK(times.size() == 25);
  for (const auto& [block, count] : times) {
    INFO("block " << block);
    CHECK((90 < count && count < 230));
  }
}

TEST_CASE("A report is the sum of the rows", "[patterns]") {
  constexpr Index kLength = 70;
  for (const Pattern& pattern : small_patterns()) {
    INFO(describe(pattern));
    const std::string name(pattern.name());
    const definition::Parameters p = parameters_of(pattern);
    for (const Index start : {0, 13}) {
      Index excluded = 0, holed = 0, averaged = 0, scored = 0, attended = 0;
      Index first_query = -1, first_key = -1, first_end = -1;
      definition::Work most;
      for (Index t = start; t < kLength; ++t) {
        bool whole = true;
        for (Index j = start; j <= t; ++j) {
          const Has has = definition::has(name, p, t, j);
          averaged += has == Has::average;
          if (has != Has::nothing) {
            if (first_query == t && first_end < 0) first_end = j;
            continue;
          }
          ++excluded;
          whole = false;
          if (first_query >= 0) continue;
          first_query = t;
          first_key = j;
        }
        holed += !whole;
        const definition::Work work = definition::work(name, p, t, start);
        scored += work.scored;
        attended += work.attended;
        if (work.scored + work.attended > most.scored + most.attended) most = work;
      }
      const PatternReport report = verify_pattern(pattern, kLength, start);
      CHECK(report.coverage.length == kLength);
      CHECK(report.coverage.start == start);
      CHECK(report.coverage.queries_checked == kLength - start);
      CHECK(report.coverage.excluded_pairs == excluded);
      CHECK(report.coverage.excluded_queries == holed);
      CHECK(report.coverage.covered() == (excluded == 0));
      CHECK(report.averaged_pairs == averaged);
      CHECK(report.work.scored == scored);
      CHECK(report.work.attended == attended);
      CHECK(report.work.most_scored == most.scored);
      CHECK(report.work.most_attended == most.attended);
      if (const auto& first = report.coverage.first_excluded) {
        CHECK(first->position == first_query);
        CHECK(first->key == first_key);
        CHECK(first->gap == Span{first_key, first_end});
        CHECK(!first->closing_backward);
      }
    }
  }
}

TEST_CASE("The known answers of SPEC 12", "[patterns]") {
  check_hole(verify_short("window", {{"window", 16}}), 29161, 16, 0);
  check_hole(verify_short("block-diagonal", {{"block", 16}}), 30976, 16, 0);
  check_hole(verify_short("strided", {{"stride", 16}}), 27225, 17, 0);
  check_hole(verify_short("fixed", {{"stride", 16}, {"summary", 1}}), 29040, 16, 0);
  check_hole(verify_short("fixed", {{"stride", 16}, {"summary", 4}}), 23232, 16, 0);
  check_hole(verify_short("log-sparse", {}), 31094, 3, 0);
  const std::vector<PatternParameter> sixteen{{"block", 16}};
  CHECK(verify_short("combiner-fixed", sixteen).coverage.excluded_pairs == 0);
  CHECK(verify_short("nsa", {{"block", 16}, {"stride", 16}, {"window", 16}}).coverage.covered());
  CHECK(verify_short("moba", sixteen).coverage.excluded_pairs == 0);
  CHECK(verify_short("dsa", {}).coverage.excluded_pairs == 0);
}

TEST_CASE("Other patterns at 257 keys", "[patterns]") {
  check_hole(verify_short("longformer", {{"window", 16}}), 28920, 17, 1);
  check_hole(verify_short("longformer", {{"window", 16}, {"stride", 4}, {"globals", 0}}), 29521, 1,
             0);
  for (const char* name : {"log-linear", "linear"}) {
    CHECK(verify_short(name, {}).averaged_pairs == 33153);
    CHECK(verify_short(name, {}).coverage.covered());
  }
  const PatternReport zeta = verify_short("zeta", {{"block", 16}});
  CHECK(zeta.coverage.covered());
  CHECK(zeta.averaged_pairs == 16 * 136 + 1);  // of the chunks that the queries are in
  for (const char* name : {"routing", "reformer", "biformer"}) {
    CHECK(verify_short(name, {}).coverage.covered());
    CHECK(verify_short(name, {}).averaged_pairs == 0);
  }
}

TEST_CASE("Of the busiest queries the first is told", "[patterns]") {
  const Pattern moba("moba", {{"block", 8}, {"top-k", 3}});
  CHECK(moba.row(63).work() == moba.row(70).work());  // 7 + 24 and 8 + 23
  const PatternReport report = verify_pattern(moba, 71);
  CHECK(report.work.most_scored == 7);
  CHECK(report.work.most_attended == 24);
}

TEST_CASE("The number of threads does not change a pattern's report", "[patterns]") {
  const int threads = omp_get_max_threads();
  const Pattern pattern("fixed", {{"stride", 24}, {"summary", 5}});
  omp_set_num_threads(1);
  const PatternReport alone = verify_pattern(pattern, 3000, 7);
  omp_set_num_threads(5);
  const PatternReport together = verify_pattern(pattern, 3000, 7);
  omp_set_num_threads(threads);
  CHECK(alone.coverage.excluded_pairs == together.coverage.excluded_pairs);
  CHECK(alone.coverage.first_excluded->gap == together.coverage.first_excluded->gap);
  CHECK(alone.work.attended == together.work.attended);
  CHECK(alone.work.most_attended == together.work.most_attended);
}

TEST_CASE("Papers' parameters hold where none is given, and do not pass their limits",
          "[patterns]") {
  CHECK(describe(Pattern("log-sparse")) == "log-sparse");
  CHECK(describe(Pattern("moba")) == "moba (block 512, top-k 3)");
  CHECK(describe(Pattern("fixed")) == "fixed (stride 128, summary 32)");
  CHECK(describe(Pattern("fixed", {{"stride", 16}})) == "fixed (stride 16, summary 16)");
}

TEST_CASE("Names, parameters and values that there are not are refused", "[patterns]") {
  const auto refused = [](std::string_view name, const std::vector<PatternParameter>& given,
                          const std::string& message) {
    CHECK_THROWS_WITH(Pattern(name, given), ContainsSubstring(message));
  };
  refused("windows", {}, "pattern windows: window, block-diagonal, ");
  refused("window", {{"block", 3}}, "block 3: pattern window has window");
  refused("log-sparse", {{"block", 3}}, "block 3: pattern log-sparse has no parameters");
  refused("window", {{"window", 0}}, "window 0: an integer in [1, 281474976710656]");
  refused("fixed", {{"stride", 8}, {"summary", 9}}, "summary 9: an integer in [1, stride 8]");
  refused("nsa", {{"top-k", 3}}, "top-k 3: an integer in [4, ");
  CHECK_THROWS_WITH(verify_pattern(Pattern("window"), 0), ContainsSubstring("length 0:"));
  CHECK_THROWS_WITH(verify_pattern(Pattern("window"), 9, 9), ContainsSubstring("start 9:"));
  CHECK_THROWS_WITH(Pattern("window").row(3, 4), ContainsSubstring("start 4:"));
  CHECK_THROWS_WITH(Pattern("window").row(-1), ContainsSubstring("query -1:"));
}
