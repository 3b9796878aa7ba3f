#include "judge/yardstick.hpp"

#include "judge/rounding.hpp"
#include "schedule/property.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::kNaN;
using inputs::Problem;
using inputs::Random;
using inputs::Values;

namespace {

/// One query and its keys.
struct Row {
  Problem<float> problem;
  Index d = 8;

  explicit Row(Index keys, std::uint64_t seed = 41)
      : problem(inputs::converted<float>(
            inputs::random_problem(preset_schedule("nstep"), sizes(keys), seed, Values::exact))) {}

  static Shape sizes(Index keys) {
    Shape sizes;
    sizes.queries = 1;
    sizes.keys = keys;
    sizes.query_offset = keys - 1;
    sizes.head_dim = 8;
    return sizes;
  }
  YardstickItem yardstick(Span keys, Storage storage) const {
    return yardstick_item(keys, problem.query.data(), problem.key.data(), problem.value.data(), d,
                          0.5, storage);
  }
  Items exact(Span keys) const {
    const std::vector<Span> spans{keys};
    return span_attention<float>({problem.shape(), problem.query.data(), problem.key.data(),
                                  problem.value.data(), 1, spans.data(), nullptr, 0.5});
  }
};

std::vector<double> wide(const std::vector<float>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

TEST_CASE("in float32 the yardstick is close to the oracle, but not equal", "[judge]") {
  const Row row(60);
  const YardstickItem yardstick = row.yardstick({3, 50}, Storage::float32);
  const Items exact = row.exact({3, 50});
  const double off = inputs::distance(wide(yardstick.output), exact.output);
  CHECK(off > 0);
  CHECK(off < 1e-6);
  CHECK(within_tolerance(static_cast<double>(yardstick.lse), exact.lse[0], 1e-6));
  CHECK(static_cast<double>(yardstick.lse) != exact.lse[0]);
}

TEST_CASE("the yardstick rounds weights and outputs to the storage type", "[judge]") {
  const Row row(60);
  const YardstickItem yardstick = row.yardstick({0, 60}, Storage::bfloat16);
  const std::vector<double> stored = yardstick.stored(Storage::bfloat16);
  for (const double x : stored) {
    CHECK(static_cast<double>(round_to(Storage::bfloat16, static_cast<float>(x))) == x);
  }
  // Half a unit for the output, and the weights' own rounding averages to less than another.
  const double off = inputs::distance(stored, row.exact({0, 60}).output);
  CHECK(off > 0x1p-13);
  CHECK(off < 0x1p-9);
  // The weights are rounded before they meet the values, their sum is not.
  CHECK(yardstick.lse == row.yardstick({0, 60}, Storage::float32).lse);
  CHECK(inputs::distance(wide(yardstick.output),
                         wide(row.yardstick({0, 60}, Storage::float32).output)) > 1e-5);
}

TEST_CASE("a yardstick without keys is 0, and NaN stays NaN", "[judge]") {
  Row row(20);
  const YardstickItem none = row.yardstick({7, 7}, Storage::float16);
  CHECK(none.output == std::vector<float>(8, 0));
  CHECK(static_cast<double>(none.lse) == -kInfinity);
  row.problem.key[at(5 * row.d)] = static_cast<float>(kNaN);
  CHECK(std::isnan(row.yardstick({5, 9}, Storage::float32).lse));
  CHECK(std::isnan(row.yardstick({5, 9}, Storage::float32).output[3]));
  CHECK_FALSE(std::isnan(row.yardstick({6, 9}, Storage::float32).lse));
}

TEST_CASE("the yardstick's combination joins and gates as the oracle's does", "[judge]") {
  Random random(7);
  for (const Index count : {0, 1, 3}) {
    const auto tensor = [&](Index size) { return random.tensor(size, Values::rough); };
    const std::vector<double> scores = tensor(3), outputs = tensor(3 * 8), lses = tensor(3);
    const std::vector<double> window = tensor(8);
    const double window_lse = 0.25;
    const CombineArgs args{
        1, 3, 8, &count, scores.data(), outputs.data(), lses.data(), window.data(), &window_lse};
    YardstickItem of_window{{window.begin(), window.end()}, 0.25F};
    const std::vector<double> yardstick = yardstick_combine(args, of_window, Storage::float32);
    const double off = inputs::distance(yardstick, combine(args));
    CHECK(off < 1e-6);
    CHECK((off > 0) == (count > 0));
    const std::vector<double> coarse = yardstick_combine(args, of_window, Storage::bfloat16);
    CHECK(inputs::distance(coarse, combine(args)) > 1e-4);
  }
}

TEST_CASE("rounding to a storage type is to the nearest, ties to even", "[judge]") {
  CHECK(round_to(Storage::float32, 0.1F) == 0.1F);
  CHECK(round_to(Storage::bfloat16, 1.00390625F) == 1.0F);  // half an ulp: to even
  CHECK(round_to(Storage::bfloat16, 1.01171875F) == 1.015625F);
  CHECK(round_to(Storage::float16, 1.0F + 0x1p-11F) == 1.0F);
  CHECK(round_to(Storage::float16, 1.0F + 0x3p-11F) == 1.0F + 0x1p-9F);
  CHECK(std::isinf(round_to(Storage::float16, 70000.0F)));
  CHECK(round_to(Storage::float16, 0x1p-26F) == 0);
  for (const Storage storage : {Storage::bfloat16, Storage::float16, Storage::float32}) {
    Random random(3);
    for (int i = 0; i < 1000; ++i) {
      const auto x = static_cast<float>(random.value(Values::rough));
      const double off =
          std::abs(static_cast<double>(round_to(storage, x)) - static_cast<double>(x));
      CHECK(off <= rounding_of(storage, static_cast<double>(x)));
    }
  }
  CHECK(parse_storage("float64") == Storage::float32);
  CHECK(parse_storage("bfloat16") == Storage::bfloat16);
  CHECK_THROWS_AS(parse_storage("int8"), std::invalid_argument);
}

TEST_CASE("an item's rounding is told beside its exact values", "[judge]") {
  Row row(60);
  const Vector query = vector_at(row.problem.query.data(), 0, row.d);
  const auto round = [&](Span keys, Storage storage) {
    return round_item(keys, query, row.problem.key.data(), row.problem.value.data(), 0.5, storage);
  };
  const Items exact = row.exact({0, 60});
  for (const Storage storage : {Storage::bfloat16, Storage::float16, Storage::float32}) {
    const RoundedItem item = round({0, 60}, storage);
    CHECK(inputs::same_bits(item.output, exact.output));
    CHECK(item.lse == exact.lse[0]);
    double largest = 0;
    for (const double x : item.deviation) largest = std::max(largest, x);
    CHECK(largest > roundoff(storage) * 0.01);
    CHECK(largest < roundoff(storage) * item.magnitude[0] + 0x1p-21);
    CHECK(item.magnitude[0] >= std::abs(item.output[0]));
  }
  // One key: no weight to round, nothing but its value.
  const RoundedItem one = round({9, 10}, Storage::float32);
  for (const double x : one.deviation) CHECK(x <= kSingle);
  const RoundedItem none = round({9, 9}, Storage::bfloat16);
  CHECK(none.lse == -kInfinity);
  CHECK(none.deviation == std::vector<double>(8, 0));
  // Large logits are large sums, whose rounding shows in the weights.
  const double before = round({0, 60}, Storage::float32).lse_deviation;
  for (float& x : row.problem.query) x *= 1024;
  const Vector louder = vector_at(row.problem.query.data(), 0, row.d);
  CHECK(round_item({0, 60}, louder, row.problem.key.data(), row.problem.value.data(), 0.5,
                   Storage::float32)
            .lse_deviation > 100 * before);
  // Two keys with one logit: of all roundings that of the logits alone takes their weights apart.
  std::copy_n(row.problem.key.begin(), row.d, row.problem.key.begin() + row.d);
  std::fill_n(row.problem.value.begin(), row.d, 1.0F);
  std::fill_n(row.problem.value.begin() + row.d, row.d, -1.0F);
  const RoundedItem apart = round_item({0, 2}, louder, row.problem.key.data(),
                                       row.problem.value.data(), 0.5, Storage::float32);
  CHECK(apart.output[0] == 0);
  CHECK(apart.deviation[0] > kSingle * std::abs(apart.lse));
}
