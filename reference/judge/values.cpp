#include <Eigen/Core>
#include <algorithm>

#include "judge/rounding.hpp"
#include "multistep/judge.hpp"
#include "support/error.hpp"

namespace multistep {
namespace {

constexpr double kFloor = 4 * 0x1p-23;
constexpr double kLuckOfMaximum = 2;
constexpr double kLuckOfValue = 8;
constexpr double kSureRows = 4;  // of more rows luck evens out

/// How far off, beyond what `slack` explains.
double error_of(double got, double want, double slack) {
  if (got == want) return 0;
  const double error = std::abs(got - want) - slack;
  return std::isnan(error) ? kInfinity : std::max(0.0, error);
}

/// May an implementation hand this in where the oracle has `want`, whatever else is right?
bool is_free(double got, double want, Storage storage) {
  if (std::isnan(want)) return true;
  const auto stored = static_cast<double>(round_to(storage, static_cast<float>(want)));
  return std::isinf(stored) && got == stored;
}

/// What is not told from 0: subnormal numbers of float32, which kernels may flush, and the last
/// bit of those of float16.
double tiny(Storage storage) { return storage == Storage::float16 ? 0x1p-24 : 0x1p-126; }

/// A limit that is no number excuses nothing.
double quotient(double error, double limit) {
  if (error == 0) return 0;
  return std::isfinite(limit) && limit > 0 ? error / limit : kInfinity;
}

/// How much of the mean luck a mean of so many values may have.
double share_of_luck(double values) { return 1 + 1 / std::sqrt(std::max(1.0, values)); }

/// So many values with equal luck would be as uncertain in the mean; 0 where none has any.
double equal_values(double luck, double luck_squares) {
  return luck_squares > 0 ? luck * luck / luck_squares : 0;
}

/// Means over some rows, each counted by its values.
struct Sums {
  Index rows = 0;
  double values = 0;
  double error = 0;
  double base = 0;
  double luck = 0;
  double luck_squares = 0;
  double yardstick = 0;

  void add(const RowVerdict& row) {
    const auto count = static_cast<double>(row.values);
    if (row.values > 0) ++rows;
    values += count;
    error += count * row.mean_error;
    base += count * row.mean_base;
    luck += count * row.mean_luck;
    if (row.luck_values > 0) luck_squares += std::pow(count * row.mean_luck, 2) / row.luck_values;
    yardstick += count * row.yardstick_mean;
  }
  double mean(double sum) const { return values > 0 ? sum / values : 0; }
  double limit() const {
    const double share =
        std::min(1.0, std::sqrt(kSureRows / std::max<double>(1, static_cast<double>(rows))));
    return mean(base) + share * share_of_luck(equal_values(luck, luck_squares)) * mean(luck);
  }
  double ratio() const { return quotient(mean(error), limit()); }
};

}  // namespace

Storage parse_storage(std::string_view name) {
  if (name == "bfloat16") return Storage::bfloat16;
  if (name == "float16") return Storage::float16;
  require(name == "float32" || name == "float64",
          "storage {}: bfloat16, float16, float32 or float64", name);
  return Storage::float32;
}

float round_to(Storage storage, float value) {
  switch (storage) {
    case Storage::float32:
      return value;
    case Storage::bfloat16:
      return static_cast<float>(Eigen::bfloat16(value));
    case Storage::float16:
      return static_cast<float>(Eigen::half(value));
  }
  refuse("storage {}: unknown", static_cast<int>(storage));
}

double RowVerdict::ratio() const {
  return std::max(quotient(max_error, max_limit), quotient(mean_error, mean_limit()));
}

double RowVerdict::mean_limit() const { return mean_base + share_of_luck(luck_values) * mean_luck; }

RowVerdict judge_row(const RowValues& values, Storage storage) {
  const std::size_t count = values.want.size();
  require(values.got.size() == count && values.yardstick.size() == count &&
              values.luck.size() == count && values.magnitude.size() == count &&
              (values.slack.empty() || values.slack.size() == count),
          "values {}, yardstick {}, luck {}, magnitude {}: as many as the oracle's, {}",
          values.got.size(), values.yardstick.size(), values.luck.size(), values.magnitude.size(),
          count);
  const auto finite = [](double x) { return std::isfinite(x) ? x : 0; };
  RowVerdict row;
  double luck_max = 0;
  double luck_squares = 0;
  double magnitude_max = 0;
  double yardstick_share = 0;  // the yardstick's largest error, by a value's own magnitude
  std::vector<double> errors(count, 0);
  for (std::size_t i = 0; i < count; ++i) {
    const double got = values.got[i];
    const double want = values.want[i];
    if (is_free(got, want, storage)) continue;
    ++row.values;
    row.nans += std::isnan(got);
    row.infs += std::isinf(got) && got != want;
    const double slack = values.slack.empty() ? 0 : values.slack[i];
    errors[i] = error_of(got, want, tiny(storage) + slack);
    const double yardstick = error_of(values.yardstick[i], want, tiny(storage));
    const double magnitude = finite(values.magnitude[i]);
    row.yardstick_max = std::max(row.yardstick_max, yardstick);
    row.mean_error += errors[i];
    row.yardstick_mean += yardstick;
    if (yardstick > 0)
      yardstick_share =
          std::max(yardstick_share, magnitude > 0 ? yardstick / magnitude : kInfinity);
    magnitude_max = std::max(magnitude_max, magnitude);
    const double luck = finite(values.luck[i]);
    luck_max = std::max(luck_max, luck);
    row.mean_luck += luck;
    luck_squares += luck * luck;
  }
  if (row.values == 0) return row;
  const auto number = static_cast<double>(row.values);
  row.mean_error /= number;
  row.yardstick_mean /= number;
  row.luck_values = equal_values(row.mean_luck, luck_squares);
  row.mean_luck /= number;
  row.mean_base = 2 * row.yardstick_mean + kFloor * magnitude_max;
  const double limit = 2 * row.yardstick_max + kFloor * magnitude_max + kLuckOfMaximum * luck_max;
  row.max_limit = limit;
  double worst = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (errors[i] == 0) continue;
    const double own = (2 * yardstick_share + kFloor) * finite(values.magnitude[i]) +
                       kLuckOfValue * finite(values.luck[i]);
    const double of_value = std::isnan(own) ? limit : std::min(limit, own);
    const double ratio = quotient(errors[i], of_value);
    if (ratio < worst || (ratio == worst && errors[i] <= row.max_error)) continue;
    worst = ratio;
    row.worst = static_cast<Index>(i);
    row.max_error = errors[i];
    row.max_limit = of_value;
  }
  return row;
}

ValueReport judge_rows(std::span<const RowVerdict> rows, std::span<const Index> heads) {
  require(rows.size() == heads.size(), "heads {}: one for each of {} rows", heads.size(),
          rows.size());
  ValueReport report;
  Sums all;
  double worst = -1;
  double worst_head = 1;
  const auto blame = [&](std::size_t row) {
    const RowVerdict& of = rows[row];
    report.worst_row = static_cast<Index>(row);
    report.worst_value = of.worst;
    report.max_error = of.max_error;
    report.max_limit = of.max_limit;
  };
  for (std::size_t first = 0, past = 0; first < rows.size(); first = past) {
    Sums head;
    std::size_t loudest = first;
    for (; past < rows.size() && heads[past] == heads[first]; ++past) {
      const RowVerdict& row = rows[past];
      head.add(row);
      all.add(row);
      report.nans += row.nans;
      report.infs += row.infs;
      report.yardstick_max = std::max(report.yardstick_max, row.yardstick_max);
      report.wrong_rows += !row.pass();
      if (row.mean_error > rows[loudest].mean_error) loudest = past;
      if (row.worst >= 0 && row.ratio() > worst) {
        worst = row.ratio();
        blame(past);
      }
    }
    const double ratio = head.ratio();
    report.wrong_heads += ratio > 1;
    report.ratio = std::max(report.ratio, ratio);
    if (worst <= 1 && ratio > worst_head) {  // no row is wrong by itself
      worst_head = ratio;
      blame(loudest);
    }
  }
  report.ratio = std::max({report.ratio, worst, all.ratio()});
  report.rows = static_cast<Index>(rows.size());
  report.values = static_cast<Index>(all.values);
  report.mean_error = all.mean(all.error);
  report.mean_limit = all.limit();
  report.yardstick_mean = all.mean(all.yardstick);
  return report;
}

}  // namespace multistep
