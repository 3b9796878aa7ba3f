#include "judge/rounding.hpp"
#include "multistep/judge.hpp"
#include "support/inputs.hpp"

using namespace multistep;
using inputs::kNaN;
using inputs::Random;
using inputs::Values;

namespace {

/// Values of one row as an implementation in bf16 gives them: a little off.
struct Answers {
  std::vector<double> want, yardstick, got, luck, slack, magnitude;

  explicit Answers(Index size, std::uint64_t seed = 21) {
    Random random(seed);
    want = random.tensor(size, Values::rough);
    const auto stored = [](double x) {
      return static_cast<double>(round_to(Storage::bfloat16, static_cast<float>(x)));
    };
    for (double& x : want) {
      x *= 1 + 0x1p-10;
      yardstick.push_back(stored(x));
      got.push_back(stored(x * (1 + 0x1p-12)));
      luck.push_back(0x1p-20);
    }
    magnitude.assign(want.size(), 1);
  }
  RowVerdict judge() const {
    return judge_row({got, want, yardstick, luck, slack, magnitude}, Storage::bfloat16);
  }
};

std::vector<Index> heads_of(std::size_t rows, std::size_t rows_of_head) {
  std::vector<Index> heads;
  for (std::size_t row = 0; row < rows; ++row) {
    heads.push_back(static_cast<Index>(row / rows_of_head));
  }
  return heads;
}

}  // namespace

TEST_CASE("close never passes NaN", "[judge]") {
  CHECK(within_tolerance(1, 1.25, 0.25));
  CHECK_FALSE(within_tolerance(1, 1.25, 0.24));
  CHECK(within_tolerance(kInfinity, kInfinity, 0));
  CHECK_FALSE(within_tolerance(kInfinity, -kInfinity, 1));
  CHECK_FALSE(within_tolerance(kNaN, kNaN, kInfinity));
  CHECK_FALSE(within_tolerance(0, 0.5, kNaN));
}

TEST_CASE("right values pass, in the limits that the yardstick, the floor and luck set",
          "[judge]") {
  Answers answers(100'000);
  answers.luck[17] = 0x1p-19;
  const RowVerdict row = answers.judge();
  CHECK(row.pass());
  CHECK(row.values == 100'000);
  CHECK(row.max_limit == 2 * row.yardstick_max + 4 * 0x1p-23 + 2 * 0x1p-19);
  CHECK(row.mean_base == 2 * row.yardstick_mean + 4 * 0x1p-23);
  CHECK(row.mean_luck == Approx(0x1p-20).epsilon(1e-3));
  CHECK(row.luck_values > 90'000);
  CHECK(row.mean_limit() == row.mean_base + (1 + 1 / std::sqrt(row.luck_values)) * row.mean_luck);
  CHECK(row.mean_error > 0);
  CHECK(row.mean_error < row.max_error);
  CHECK(judge_row({{}, {}, {}, {}, {}, {}}, Storage::float32).pass());
}

TEST_CASE("one value may be rounded as far as the largest of many", "[judge]") {
  const double ulp = 0x1p-7;  // the yardstick happens to be right, the kernel rounds the other way
  const std::vector<double> want{1 + 0.49 * ulp}, yardstick = want, got{1}, luck{0.29 * ulp},
                                                  one{1};
  const RowVerdict row = judge_row({got, want, yardstick, luck, {}, one}, Storage::bfloat16);
  CHECK(row.pass());
  CHECK(judge_rows(std::vector{row}, heads_of(1, 1)).pass());
  // The same beside values that are 0.
  const std::vector<double> more{0, want[0], 0, 0}, beside{0, 1, 0, 0}, alone{0, luck[0], 0, 0};
  const std::vector<double> ones(4, 1);
  CHECK(judge_row({beside, more, more, alone, {}, ones}, Storage::bfloat16).pass());
  const std::vector<double> other{1 + 1.2 * ulp};
  CHECK_FALSE(judge_row({other, want, yardstick, luck, {}, one}, Storage::bfloat16).pass());
}

TEST_CASE("wrong values fail", "[judge]") {
  Answers answers(100'000);
  const Index where = 54'321;
  SECTION("a NaN") {
    answers.got[at(where)] = kNaN;
    CHECK(answers.judge().nans == 1);
  }
  SECTION("an infinity") {
    answers.got[at(where)] = -kInfinity;
    CHECK(answers.judge().infs == 1);
  }
  SECTION("a number instead of an infinity") { answers.want[at(where)] = -kInfinity; }
  SECTION("one element off by three limits") {
    answers.got[at(where)] += 3 * answers.judge().max_limit;
  }
  SECTION("one element just past the limit") {
    answers.got[at(where)] = answers.want[at(where)] + 1.001 * answers.judge().max_limit;
  }
  SECTION("a zero for a value") {
    answers.want[at(where)] = answers.yardstick[at(where)] = 1;
    answers.got[at(where)] = 0;
  }
  const RowVerdict row = answers.judge();
  CHECK_FALSE(row.pass());
  CHECK(row.worst == where);
}

TEST_CASE("a mean that is off fails although the maximum is not", "[judge]") {
  Answers answers(100'000);
  const RowVerdict right = answers.judge();
  for (std::size_t i = 0; i < answers.got.size(); ++i) {
    answers.got[i] = answers.want[i] + 3 * right.yardstick_mean;
  }
  const RowVerdict row = answers.judge();
  CHECK(row.max_error < row.max_limit);
  CHECK_FALSE(row.pass());
}

TEST_CASE("a loud value hides no other of its row: each has a limit by its own magnitude",
          "[judge]") {
  for (const double loud : {300.0, 10'000.0}) {
    Answers answers(128);
    for (auto* array :
         {&answers.want, &answers.yardstick, &answers.got, &answers.luck, &answers.magnitude}) {
      array->front() *= loud;
    }
    CHECK(answers.judge().pass());
    answers.got[5] = 0;
    const RowVerdict row = answers.judge();
    CHECK_FALSE(row.pass());
    CHECK(row.worst == 5);
    CHECK(row.max_error == std::abs(answers.want[5]));
    CHECK(row.max_limit < row.max_error);
  }
}

TEST_CASE("subnormal numbers may be flushed", "[judge]") {
  const auto judged = [](double got, double want, Storage storage) {
    const std::vector<double> one{got}, other{want}, zero{0};
    return judge_row({one, other, other, zero, {}, zero}, storage).pass();
  };
  for (const Storage storage : {Storage::bfloat16, Storage::float32}) {
    CHECK(judged(0, 0x1p-126, storage));
    CHECK_FALSE(judged(0, 0x1p-125, storage));
  }
  CHECK(judged(0x1p-23, 0x1p-24, Storage::float16));
  CHECK_FALSE(judged(0x1p-22, 0x1p-24, Storage::float16));
}

TEST_CASE("a yardstick that is no number excuses nothing", "[judge]") {
  Answers answers(100);
  answers.yardstick[7] = kNaN;
  CHECK_FALSE(answers.judge().pass());
  answers.got = answers.want;
  CHECK(answers.judge().pass());
}

TEST_CASE("where the oracle has NaN any value will do, and where the type overflows an infinity",
          "[judge]") {
  Answers answers(100);
  answers.want[5] = kNaN;
  for (const double got : {kNaN, 1.0, kInfinity}) {
    answers.got[5] = got;
    CHECK(answers.judge().pass());
    CHECK(answers.judge().values == 99);
  }
  const std::vector<double> want{70000}, infinite{kInfinity}, other{-kInfinity}, luck{0}, one{1};
  CHECK(judge_row({infinite, want, infinite, luck, {}, one}, Storage::float16).pass());
  CHECK_FALSE(judge_row({other, want, infinite, luck, {}, one}, Storage::float16).pass());
  CHECK_FALSE(judge_row({infinite, want, infinite, luck, {}, one}, Storage::bfloat16).pass());
  CHECK(judge_row({infinite, infinite, infinite, luck, {}, one}, Storage::bfloat16).pass());
}

TEST_CASE("what is explained is taken from the errors", "[judge]") {
  Answers answers(100);
  answers.got[9] = answers.want[9] + 1;
  CHECK_FALSE(answers.judge().pass());
  answers.slack.assign(100, 0);
  answers.slack[9] = 1;
  CHECK(answers.judge().pass());
  answers.got[9] = answers.want[9] - 1.1;
  CHECK(answers.judge().max_error == Approx(0.1));
  answers.got[9] = kNaN;
  CHECK_FALSE(answers.judge().pass());
}

TEST_CASE("arrays of different sizes are refused", "[judge]") {
  const std::vector<double> two(2), three(3);
  const RowValues fit{three, three, three, three, three, three};
  CHECK_NOTHROW(judge_row(fit, Storage::float32));
  for (auto array : {&RowValues::got, &RowValues::yardstick, &RowValues::luck, &RowValues::slack,
                     &RowValues::magnitude}) {
    RowValues values = fit;
    values.*array = two;
    CHECK_THROWS_AS(judge_row(values, Storage::float32), std::invalid_argument);
  }
  const std::vector<RowVerdict> rows(2);
  CHECK_THROWS_AS(judge_rows(rows, std::vector<Index>{1}), std::invalid_argument);
}

TEST_CASE("a loud row hides no other: each has its own limits", "[judge]") {
  std::vector<RowVerdict> rows;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Answers answers(128, seed);
    if (seed == 4) {  // a thousand times louder, and right
      for (auto* array :
           {&answers.want, &answers.yardstick, &answers.got, &answers.luck, &answers.magnitude}) {
        for (double& x : *array) x *= 1024;
      }
    }
    if (seed == 13) answers.got.assign(128, 0);
    rows.push_back(answers.judge());
  }
  const ValueReport report = judge_rows(rows, heads_of(20, 20));
  CHECK_FALSE(report.pass());
  CHECK(report.wrong_rows == 1);
  CHECK(report.worst_row == 13);
  CHECK(report.max_error == rows[13].max_error);
  CHECK(report.max_limit == rows[13].max_limit);
  rows.erase(rows.begin() + 13);
  const ValueReport right = judge_rows(rows, heads_of(19, 19));
  CHECK(right.pass());
  CHECK(right.rows == 19);
  CHECK(right.values == 19 * 128);
}

TEST_CASE("a head that is off in the mean fails among right ones, and is named", "[judge]") {
  std::vector<RowVerdict> rows;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    Answers answers(128, seed);
    const RowVerdict right = answers.judge();
    for (double& luck : answers.luck) luck = 3 * right.yardstick_mean;
    // Each row within what luck allows it, all of a head together not. One row alone is off by
    // more.
    const double off = seed / 100 == 2 ? 4 : seed == 5 ? 4.5 : 0;
    for (std::size_t i = 0; off > 0 && i < 128; ++i) {
      answers.got[i] = answers.want[i] + off * right.yardstick_mean;
    }
    rows.push_back(answers.judge());
    CHECK(rows.back().pass());
  }
  const ValueReport report = judge_rows(rows, heads_of(400, 100));
  CHECK_FALSE(report.pass());
  CHECK(report.wrong_heads == 1);
  CHECK(report.wrong_rows == 0);
  CHECK(report.worst_row / 100 == 2);
  CHECK(report.mean_error < report.mean_limit);  // over all heads it does not show
}
