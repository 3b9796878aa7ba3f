#include "gpu_report.hpp"

#include <fmt/format.h>

#include <utility>

namespace multistep {
namespace {

std::string place(const Json& worst) {
  if (worst.is_null()) return "-";
  std::string text =
      fmt::format("query {} head {}", worst["query"].get<Index>(), worst["head"].get<Index>());
  if (worst["batch"].get<Index>() > 0)
    text += fmt::format(" batch {}", worst["batch"].get<Index>());
  if (worst.contains("dim")) {
    text += fmt::format(" slot {} dim {}", worst["slot"].get<Index>(), worst["dim"].get<Index>());
  }
  return text;
}

/// JSON has no infinity: null stands for what is no number.
double number(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::infinity() : value.get<double>();
}

std::string stage_line(const Json& stage) {
  const bool values = stage["kind"] == "values";
  const auto error = [&](const char* a, const char* b) { return number(stage[values ? a : b]); };
  const auto limit = [&](const char* name) {
    return values ? fmt::format("{:.3g}", number(stage[name])) : std::string("1 bound");
  };
  return fmt::format("{:18} {:>9.3g} {:>9} {:>9.3g} {:>9} {:4} {:4}  {}  {}\n",
                     stage["stage"].get<std::string>(), error("max_error", "score_error"),
                     limit("max_limit"), error("mean_error", "mean_score_error"),
                     values ? limit("mean_limit") : "-", stage["nans"].get<Index>(),
                     stage["infs"].get<Index>(), stage["pass"].get<bool>() ? "pass" : "FAIL",
                     place(stage["worst"]));
}

/// What is wrong besides the errors, and the regrets, where there are any.
std::string stage_notes(const Json& stage) {
  std::string text;
  if (stage["kind"] == "values") {
    if (const Index bad = stage["not_finite_in_all_rows"].get<Index>(); bad > 0) {
      text += fmt::format("  {}: {} values of all rows are NaN or infinite\n",
                          stage["stage"].get<std::string>(), bad);
    }
    return text;
  }
  text += fmt::format("  {}: rows by regret in bounds", stage["stage"].get<std::string>());
  for (const auto& [name, count] : stage["histogram"].items()) {
    text += fmt::format("; {}: {}", name, count.get<Index>());
  }
  text += "\n";
  for (const auto& [what, count] : stage["wrong"].items()) {
    if (count.get<Index>() > 0) text += fmt::format("    {} {}\n", count.get<Index>(), what);
  }
  return text;
}

}  // namespace

Json values_json(const char* stage, const ValueReport& report, Index bad_anywhere,
                 const Json& worst) {
  return {{"stage", stage},
          {"kind", "values"},
          {"pass", report.pass() && bad_anywhere == 0},
          {"max_error", report.got.max},
          {"max_limit", report.max_limit()},
          {"mean_error", report.got.mean},
          {"mean_limit", report.mean_limit()},
          {"plain_max", report.plain.max},
          {"plain_mean", report.plain.mean},
          {"floor", report.floor},
          {"values", report.got.count},
          {"nans", report.got.nans},
          {"infs", report.got.infs},
          {"not_finite_in_all_rows", bad_anywhere},
          {"worst", worst}};
}

Json selection_json(const char* stage, const SelectionReport& report, const Json& worst) {
  Json histogram;
  for (std::size_t bin = 0; bin < SelectionReport::kBins; ++bin) {
    histogram[std::string(regret_bin_name(bin))] = report.histogram[bin];
  }
  const Json wrong = {
      {"not_candidates", report.not_candidates}, {"out_of_range", report.out_of_range},
      {"duplicates", report.duplicates},         {"missing", report.missing},
      {"unordered", report.unordered},           {"unclean", report.unclean},
      {"wrong_scores", report.wrong_scores},     {"regretted", report.regretted}};
  return {{"stage", stage},
          {"kind", "selection"},
          {"pass", report.pass()},
          {"rows", report.rows},
          {"paths", report.paths},
          {"score_error", report.score_error},
          {"mean_score_error", report.mean_score_error},
          {"regret", report.regret},
          {"regret_score", report.regret_score},
          {"histogram", histogram},
          {"wrong", wrong},
          {"nans", report.nans},
          {"infs", report.infs},
          {"worst", worst}};
}

Json shape_json(const GpuShape& shape) {
  return {{"batch", shape.batch},
          {"num_heads", shape.heads},
          {"num_kv_heads", shape.kv_heads},
          {"queries", shape.queries},
          {"keys", shape.length},
          {"head_dim", shape.head_dim},
          {"start", shape.start},
          {"dtype", shape.half ? "fp16" : "bf16"},
          {"inputs", to_string(shape.inputs)}};
}

std::string shape_text(const Json& shape) {
  return fmt::format("batch {}, {} heads over {}, {} queries, {} keys, head_dim {}, {}, {} inputs",
                     shape["batch"].get<Index>(), shape["num_heads"].get<Index>(),
                     shape["num_kv_heads"].get<Index>(), shape["queries"].get<Index>(),
                     shape["keys"].get<Index>(), shape["head_dim"].get<Index>(),
                     shape["dtype"].get<std::string>(), shape["inputs"].get<std::string>());
}

std::string stage_table(const Json& comparison) {
  std::string text = fmt::format("{:18} {:>9} {:>9} {:>9} {:>9} {:>4} {:>4}        {}\n", "stage",
                                 "worst", "limit", "mean", "limit", "NaN", "Inf", "worst at");
  for (const Json& stage : comparison["stages"]) text += stage_line(stage);
  const Json& whole = comparison["end_to_end"];
  text += fmt::format("{:18} {:>9.3g} {:>9} {:>9.3g}  (reported, not judged)\n", "end to end",
                      number(whole["max_error"]), "-", number(whole["mean_error"]));
  for (const Json& stage : comparison["stages"]) text += stage_notes(stage);
  return text;
}

}  // namespace multistep
