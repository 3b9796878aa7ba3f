#include "verdict.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "shape.hpp"

namespace multistep::python {

namespace nb = nanobind;

double largest_of(std::span<const double> values, double least) {
  double largest = least;
  for (const double x : values) largest = std::max(largest, std::isfinite(x) ? std::abs(x) : 0);
  return largest;
}

void Values::resize(bool is_wanted, Index rows, Index of_row) {
  wanted = is_wanted;
  width = of_row;
  const Index count = rows * of_row;
  for (auto* values : {&got, &want, &plain}) values->assign(at(is_wanted ? count : 0), 0);
}

void Values::put(Index to, Index count, const double* given, const double* oracle,
                 const double* yardstick) {
  std::copy_n(given, count, got.begin() + to);
  std::copy_n(oracle, count, want.begin() + to);
  std::copy_n(yardstick, count, plain.begin() + to);
}

void Values::forgive(Index from, const std::vector<double>& floors) {
  for (std::size_t i = 0; i < floors.size(); ++i) {
    double& value = got[at(from) + i];
    const double right = want[at(from) + i];
    if (std::abs(value - right) <= floors[i]) {
      value = right;
    } else if (std::isfinite(value) && std::isfinite(right)) {
      value += value < right ? floors[i] : -floors[i];
    }
  }
}

void Values::spoil(Index from, Index count) {
  std::fill_n(got.begin() + from, count, std::numeric_limits<double>::quiet_NaN());
}

namespace {

/// What float32 sums in another order and the hardware's exponentials and logarithms, good to
/// 2^-22, may add where the yardstick happens to make no error: 4 ulp of the largest value. A
/// log-sum-exp, which holds a logarithm as well as the logits, has four times that.
double floor_of(std::span<const double> want, double least = 0) {
  return 4 * 0x1p-23 * largest_of(want, least);
}

/// Rows of one head of one sequence are held against their own yardstick as well, so that large
/// values elsewhere hide none of them: the first row of each head whose errors exceed twice its
/// limits and a rounding of its largest value to the storage type. The allowance is for heads of
/// few values, where the yardstick may be lucky.
std::vector<Index> wrong_heads(const Values& values, const std::vector<Index>& heads,
                               const std::string& storage) {
  const bool brain = storage == "bfloat16";
  const double ulp = brain ? 0x1p-8 : storage == "float16" ? 0x1p-11 : 0;
  const double least = storage == "float16" ? 0x1p-24 : 0;
  std::vector<Index> wrong;
  for (std::size_t first = 0, last = 0; first < heads.size(); first = last) {
    while (last < heads.size() && heads[last] == heads[first]) ++last;
    const auto part = [&](const std::vector<double>& all) {
      const std::size_t width = at(values.width);
      return std::span(all).subspan(first * width, (last - first) * width);
    };
    const std::span<const double> want = part(values.want);
    const ValueReport report =
        judge_values(part(values.got), want, part(values.plain), floor_of(want));
    const double rounding = ulp * largest_of(want, 0) + least;
    const bool right = report.got.max <= 2 * report.max_limit() + rounding &&
                       report.got.mean <= 2 * report.mean_limit() + rounding;
    if (!right)
      wrong.push_back(std::max<Index>(report.got.worst, 0) +
                      static_cast<Index>(first) * values.width);
  }
  return wrong;
}

nb::dict values_dict(const Values& values, double floor) {
  const ValueReport report = judge_values(values.got, values.want, values.plain, floor);
  nb::dict dict;
  dict["passed"] = report.pass();
  dict["max_error"] = report.got.max;
  dict["max_limit"] = report.max_limit();
  dict["mean_error"] = report.got.mean;
  dict["mean_limit"] = report.mean_limit();
  dict["plain_max"] = report.plain.max;
  dict["plain_mean"] = report.plain.mean;
  dict["floor"] = floor;
  dict["values"] = report.got.count;
  dict["nans"] = report.got.nans;
  dict["infs"] = report.got.infs;
  dict["worst"] = report.got.worst;
  return dict;
}

nb::dict selection_dict(const std::vector<SelectionReport>& rows) {
  SelectionReport sum;
  for (std::size_t s = 0; s < rows.size(); ++s) {
    SelectionReport row = rows[s];
    if (row.worst_row >= 0) row.worst_row = static_cast<Index>(s);
    sum += row;
  }
  nb::dict wrong;
  wrong["not_candidates"] = sum.not_candidates;
  wrong["out_of_range"] = sum.out_of_range;
  wrong["duplicates"] = sum.duplicates;
  wrong["missing"] = sum.missing;
  wrong["unordered"] = sum.unordered;
  wrong["unclean"] = sum.unclean;
  wrong["wrong_scores"] = sum.wrong_scores;
  wrong["regretted"] = sum.regretted;
  nb::dict histogram;
  for (std::size_t bin = 0; bin < SelectionReport::kBins; ++bin) {
    histogram[nb::str(std::string(regret_bin_name(bin)).c_str())] = sum.histogram[bin];
  }
  nb::dict dict;
  dict["passed"] = sum.pass();
  dict["rows"] = sum.rows;
  dict["paths"] = sum.paths;
  dict["score_error"] = sum.score_error;
  dict["mean_score_error"] = sum.mean_score_error;
  dict["regret"] = sum.regret;
  dict["regret_score"] = sum.regret_score;
  dict["nans"] = sum.nans;
  dict["infs"] = sum.infs;
  dict["wrong"] = wrong;
  dict["histogram"] = histogram;
  dict["worst"] = sum.worst_row;
  return dict;
}

}  // namespace

nb::dict report_of(const Judgement& judgement, const std::vector<Index>& heads,
                   const std::string& storage) {
  const auto judged = [&](const Values& values) {
    nb::dict dict = values_dict(values, floor_of(values.want));
    const std::vector<Index> wrong = wrong_heads(values, heads, storage);
    dict["wrong_heads"] = wrong.size();
    if (!wrong.empty() && nb::cast<bool>(dict["passed"])) {
      dict["passed"] = false;
      dict["worst"] = wrong[0];
    }
    return dict;
  };
  nb::dict report;
  if (!judgement.selections.empty()) report["search"] = selection_dict(judgement.selections);
  if (judgement.attended.wanted) {
    report["span attention"] = judged(judgement.attended);
  }
  if (judgement.lses.wanted) {
    report["span lse"] = values_dict(judgement.lses, 4 * floor_of(judgement.lses.want, 1));
  }
  if (judgement.combined.wanted) {
    report["combination"] = judged(judgement.combined);
  }
  if (judgement.composed.wanted) {
    report["output"] = judged(judgement.composed);
    report["end to end"] = values_dict(judgement.end_to_end, 0);
  }
  report["undecided"] = judgement.undecided;
  return report;
}

}  // namespace multistep::python
